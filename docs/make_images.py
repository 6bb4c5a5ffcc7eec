"""Pictures of the real report for README and site: make docs-images, after make demo.

Needs playwright and a Chromium (apt-get install chromium, or CORELAB_CHROMIUM). Pictures are
JPEG files below 400 kB in docs/images.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import shutil
import sys
from pathlib import Path
from string import Template

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
]
MAX_BYTES = 400_000
#: Picture -> (page, section to show, width, height, colour scheme).
SHOTS = {
    "glance": ("index.html", "", 1440, 1000, "light"),
    "reproducibility": ("analyses.html", "#reproducibility", 1440, 1000, "light"),
    "pharmacodynamics": ("analyses.html", "#pharmacodynamics", 1440, 1000, "light"),
    "maps": ("images.html", "#maps", 1440, 800, "light"),
    "dark": ("index.html", "", 1440, 1000, "dark"),
    "phone": ("index.html", "", 400, 860, "light"),
    "viewer": ("SUBJECT", "#images", 1440, 1000, "light"),
    "trace": ("TRACE", "", 1440, 900, "light"),
    "desk": ("review.html", "", 1440, 1000, "light"),
    "certificate": ("analyses.html", "#certificate", 1440, 800, "light"),
}


def _page(report: Path, name: str) -> Path | None:
    patterns = {"SUBJECT": "sub-*.html", "TRACE": "trace-*.html"}
    found = sorted(report.glob(patterns.get(name, name)))
    return found[0] if found else None


def _save(data: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for quality in (88, 80, 70, 60):
        picture.save(path, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            return


#: Values of one participant that the picture of the whole shows: endpoint, source.
SHOWN = {
    ("infarct_volume", "pipeline"),
    ("core_volume", "pipeline"),
    ("infarct_growth", "reader-1"),
}


def _show_chain(report: Path, page: Page) -> None:
    """Show the picture, with the styles of the report that its figure needs."""
    with (report.parent / "endpoints" / "measurements.tsv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["status"] == "ok"]
    shown = [
        row
        for row in rows
        if (row["participant_id"], row["repeat"], row["region"]) == ("003", "1", "all")
        and (row["endpoint"], row["source"])
        in {
            ("infarct_volume", "pipeline"),
            ("core_volume", "pipeline"),
            ("infarct_growth", "reader-1"),
        }
    ]
    cells = "".join(
        f"<tr><td>{row['participant_id']}, {row['visit']}<br>"
        f"{row['endpoint'].replace('_', ' ')} ({row['source']})</td>"
        f"<td><b>{float(row['value']):.1f} {row['unit']}</b></td></tr>"
        for row in shown
    )

    def layer(name: str) -> str:
        data = base64.b64encode((report / "figures" / name).read_bytes()).decode()
        return f'<img src="data:image/webp;base64,{data}">'

    scans = "".join(
        f'<div class="crop">{layer(f"{name}.webp")}{layer(f"{name}_marks.webp")}</div>'
        for name in ("sub-003_mosaic00", "sub-003_mosaic02")
    )
    page.goto((report / "index.html").resolve().as_uri())
    effect = page.locator("p.lead").first.inner_text()
    page.goto((report / "analyses.html").resolve().as_uri())
    figure = page.evaluate(
        "document.querySelector('#analysis-dose_growth ~ figure svg, "
        "#analysis-dose_growth ~ * figure svg').outerHTML"
    )
    chain = Template((Path(__file__).parent / "chain.html").read_text(encoding="utf-8"))
    content = chain.substitute(scans=scans, rows=cells, figure=figure, effect=effect)
    page.evaluate("html => { document.body.innerHTML = html }", content)


def main(report: Path) -> None:
    """Take every picture that the report has a section for."""
    given = os.environ.get("CORELAB_CHROMIUM") or shutil.which("chromium")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=given, args=FLAGS)
        for name, (page_name, section, width, height, scheme) in SHOTS.items():
            path = _page(report, page_name)
            if path is None:
                continue
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(path.resolve().as_uri() + section)
            if section and page.locator(section).count() == 0:
                context.close()
                continue
            if page.locator("#viewer").count():
                page.locator("#viewer-tools").wait_for(state="visible", timeout=120_000)
            if section:
                page.evaluate(
                    "s => document.querySelector(s).scrollIntoView({behavior: 'instant'})", section
                )
            page.wait_for_timeout(800)
            _save(page.screenshot(), IMAGES / f"{name}.jpg")
            print(IMAGES / f"{name}.jpg", (IMAGES / f"{name}.jpg").stat().st_size)
            context.close()
        page = browser.new_page(
            viewport={"width": 1440, "height": 480}, device_scale_factor=1.25, bypass_csp=True
        )
        _show_chain(report, page)
        _save(page.screenshot(full_page=True), IMAGES / "chain.jpg")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/demo/report"))
