"""Pictures of the real report for README and site: make docs-images, after make demo.

Needs playwright and a Chromium (apt-get install chromium, or CORELAB_CHROMIUM). Pictures are
JPEG files below 400 kB in docs/images.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

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
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/demo/report"))
