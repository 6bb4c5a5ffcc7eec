"""The pages in a real browser: offline, silent, sortable, readable, with a lesion in the viewer."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from fabricated_study import HOSTILE, fabricated_results, fabricated_study
from PIL import Image

from corelab.provenance.decisions import read_decisions
from corelab.provenance.manifest import show_verified
from corelab.registration.figures import template_layer
from corelab.reporting.desk import Desk
from corelab.reporting.page import STUDY_PAGES
from corelab.reporting.report import write_report
from corelab.reporting.results import blinded_page, subject_page
from corelab.study.naming import derivative

pytestmark = pytest.mark.acceptance
AXE_VERSION = "4.10.3"
#: Ground of a page in the dark.
DARK = "rgb(18, 22, 26)"
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    given = os.environ.get("CORELAB_CHROMIUM")
    found = given or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium here (apt-get install chromium, or set CORELAB_CHROMIUM)")
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder, config, people = fabricated_study(tmp_path_factory.mktemp("browser"))
    # A fitted scan as the stage draws it: the template, one millimetre off.
    layer = folder / derivative("S-01", "baseline", "figures", "qc", extension=".png", desc="layer")
    layer.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.roll(template_layer(), 1, axis=0)).save(layer)
    return write_report(fabricated_results(folder, config, people))


class Watched:
    """A page that remembers its requests, errors and dialogs."""

    def __init__(self, browser, path: Path, width: int = 1440, **context) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **context)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: (
                self.errors.append(message.text) if message.type in {"error", "warning"} else None
            ),
        )
        self.page.on(
            "dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss())
        )
        self.page.goto(path.as_uri())

    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def test_page_is_one_file_that_asks_only_whether_the_products_were_verified(browser, report):
    with Watched(browser, report) as watched:
        watched.page.wait_for_timeout(300)
        assert watched.requests == [report.as_uri(), report.with_name("verified.js").as_uri()]
        assert "not yet verified" in watched.page.locator("[data-verified]").inner_text()
    table = pd.DataFrame({"verdict": ["same", "same", "missing"]})
    for rows, words, css in ((table, "2 of 3", "bad"), (table[:2], "2 of 2", "good")):
        show_verified(report.parents[1], rows)
        with Watched(browser, report) as watched:
            item = watched.page.locator(f"[data-verified].{css}")
            item.wait_for()
            assert f"{words} files agree with the manifest" in item.inner_text()
            assert watched.errors == []
    show_verified(report.parents[1])


def test_a_fit_and_the_template_alternate_and_can_be_kept(browser, report):
    with Watched(browser, report.with_name(subject_page("S-01"))) as watched:
        page, shown = watched.page, watched.page.locator(".turn .other")
        box = page.locator(".turn input")
        assert not shown.is_visible()
        box.focus()
        page.keyboard.press("Space")
        assert shown.is_visible()
        page.keyboard.press("Space")
        assert not shown.is_visible()
        page.locator(".turn").hover()
        shown.wait_for(state="visible", timeout=3000)
        shown.wait_for(state="hidden", timeout=3000)
        assert watched.errors == []
    with Watched(
        browser, report.with_name(subject_page("S-01")), reduced_motion="reduce"
    ) as watched:
        watched.page.locator(".turn").hover()
        still = "getComputedStyle(document.querySelector('.turn .other')).animationName"
        assert watched.page.evaluate(still) == "none"
        watched.page.locator(".turn input").check()
        assert watched.page.locator(".turn .other").is_visible()


def test_a_point_says_what_it_is(browser, report):
    with Watched(browser, report.with_name("endpoints.html")) as watched:
        figure = watched.page.locator("svg.drawn").first
        tip = watched.page.locator(".tip").first
        figure.locator(".point").nth(3).hover()
        assert re.match(r"S-\d+.*; .*mL \d", tip.inner_text())
        watched.page.mouse.move(0, 0)
        figure.focus()
        watched.page.keyboard.press("ArrowRight")
        assert tip.inner_text() == figure.locator(".point title").first.text_content()
        watched.page.keyboard.press("Escape")
        assert not tip.is_visible() and watched.errors == []


@pytest.mark.parametrize("name", sorted(STUDY_PAGES))
def test_study_pages_are_short_and_silent(browser, report, name):
    with Watched(browser, report.with_name(name)) as watched:
        page = watched.page
        assert watched.errors == [] and watched.outside() == []
        if name == "index.html":
            assert page.evaluate("document.querySelectorAll('*').length") < 6000
            assert page.evaluate("document.documentElement.scrollHeight") <= 8 * 900


def _pages(report):
    names = ["review.html", subject_page("S-01"), blinded_page("S-01")]
    return [*map(report.with_name, [*STUDY_PAGES, *names]), *report.parent.glob("trace-g*.html")]


#: Table rows higher than 160 px.
TALL = """Array.from(document.querySelectorAll("tbody tr"))
    .filter((row) => row.getBoundingClientRect().height > 160).map((row) => row.textContent)"""
#: Cells beyond the sheet, or with more text than is seen.
LOST = """Array.from(document.querySelectorAll("th, td")).filter((cell) => {
    const box = cell.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || cell.scrollWidth > cell.clientWidth + 2);
}).map((cell) => cell.textContent)"""
LINKED = """Array.from(document.querySelectorAll('img, [data-volumes]'))
    .flatMap((e) => [e.src, e.dataset.volumes, e.dataset.program])
    .filter((text) => text && !text.startsWith('data:'))"""


def test_pages_are_readable_on_a_phone_and_on_paper_and_their_files_exist(browser, report):
    for path in _pages(report):
        with Watched(browser, path, width=390) as watched:
            page = watched.page
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate(TALL) == [], path.name
            for address in page.evaluate(LINKED):
                name = unquote(address.removeprefix(report.parent.as_uri() + "/"))
                assert (report.parent / name).is_file(), (path.name, name)
            # A4 landscape with margins of 12 mm.
            page.set_viewport_size({"width": 1032, "height": 900})
            page.emulate_media(media="print")
            assert page.evaluate(LOST) == [], path.name


def test_index_is_silent(browser, report):
    with Watched(browser, report) as watched:
        watched.page.wait_for_timeout(300)
        assert watched.errors == [] and watched.dialogs == []


def test_script_in_an_id_never_runs(browser, report):
    with Watched(browser, report.parent / subject_page(HOSTILE)) as watched:
        assert watched.page.locator("h1").inner_text() == HOSTILE
        assert watched.dialogs == [] and watched.errors == []


def test_nothing_overflows_the_page(browser, report):
    for path in (report, report.parent / subject_page("S-01")):
        with Watched(browser, path) as watched:
            for width, scheme in product((400, 900, 1440), ("light", "dark")):
                watched.page.set_viewport_size({"width": width, "height": 900})
                watched.page.emulate_media(color_scheme=scheme)
                wide = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (path.name, width, scheme)


def test_tables_sort_by_number_with_the_keyboard_and_say_so(browser, report):
    with Watched(browser, report.with_name("endpoints.html")) as watched:
        table = watched.page.locator("#endpoints table").first
        head = table.locator("th", has_text="Median")
        head.locator("button").focus()
        watched.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"

        def medians():
            texts = table.locator("tbody tr td:nth-child(7)").all_inner_texts()
            return [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts if text]

        assert medians() == sorted(medians()) and len(medians()) > 10
        watched.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert medians() == sorted(medians(), reverse=True)


def test_tables_filter_by_every_word(browser, report):
    with Watched(browser, report.with_name("endpoints.html")) as watched:
        section = watched.page.locator("#endpoints .table").first
        section.locator("input[type=search]").fill("infarct placebo day5")
        shown = section.locator("tbody tr:visible")
        assert shown.count() == 2
        assert all("placebo" in text for text in shown.all_inner_texts())
        assert section.locator("[role=status]").inner_text() == "2 of 26 rows"


def test_gallery_finds_flagged_subjects(browser, report):
    with Watched(browser, report.with_name("images.html")) as watched:
        cards = watched.page.locator(".card:visible")
        assert cards.count() == 6
        watched.page.get_by_label("flagged only").check()
        assert cards.count() == 3


def test_a_point_of_a_quality_metric_leads_to_its_subject(browser, report):
    with Watched(browser, report.with_name("quality.html"), color_scheme="dark") as watched:
        links = watched.page.locator(".strips svg a")
        assert links.count() == 6
        for place in range(6):
            page = unquote(links.nth(place).get_attribute("xlink:href"))
            assert (report.parent / page).is_file()
        # Words of a drawing take the page's ink, which is light on dark.
        words = watched.page.locator(".strips svg text").first
        assert words.evaluate("e => getComputedStyle(e).fill") == "rgb(228, 232, 236)"


def test_theme_can_be_chosen(browser, report):
    with Watched(browser, report, color_scheme="light") as watched:
        button = watched.page.locator("#theme")
        button.click()
        button.click()
        assert button.inner_text() == "Theme: dark"
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == DARK


def test_page_works_without_javascript(browser, report):
    with Watched(browser, report, java_script_enabled=False) as watched:
        assert watched.page.locator("#all-analyses tbody tr").count() >= 7
        assert watched.page.locator(".card img").first.is_visible()


def test_print_hides_what_only_a_screen_can_use(browser, report):
    with Watched(browser, report) as watched:
        watched.page.emulate_media(media="print")
        assert not watched.page.locator("nav.toc").is_visible()
        assert not watched.page.locator("#theme").is_visible()
        assert len(watched.page.pdf()) > 50_000


def test_viewer_shows_the_lesion_where_it_is(browser, report):
    with Watched(browser, report.parent / subject_page("S-02")) as watched:
        page = watched.page
        page.locator("#viewer-tools").wait_for(state="visible", timeout=90_000)
        assert watched.errors == [] and watched.outside() == []
        page.locator("#view").select_option("sliceTypeAxial")
        page.wait_for_timeout(800)

        def picture():
            data = page.locator("#viewer canvas").screenshot()
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

        shown = picture()
        for box in page.locator("#layers input").all():
            box.uncheck()
        page.wait_for_timeout(800)
        hidden = picture()
        # The overlays tint the lesion: colour comes and goes with them, and lies on the patient's
        # left, which is on the right of a radiological picture.
        changed = np.argwhere(np.abs(shown - hidden).sum(axis=2) > 40)
        assert len(changed) > 300
        assert changed[:, 1].mean() > shown.shape[1] / 2
        assert hidden.max() > 100


def test_viewer_changes_between_before_and_after(browser, report):
    with Watched(browser, report.parent / subject_page("S-01")) as watched:
        page = watched.page
        page.locator("#viewer-tools").wait_for(state="visible", timeout=90_000)
        names = page.locator("#scan option").all_inner_texts()
        assert names[0].startswith("baseline") and any(name.startswith("day5") for name in names)
        page.locator("#scan").select_option(
            str(next(k for k, n in enumerate(names) if "day5" in n))
        )
        # A function would need eval, which the page's policy refuses: ask from outside.
        labels = page.locator("#layers label")
        for _ in range(120):
            page.wait_for_timeout(500)
            if labels.count() == 1:
                break
        assert labels.all_inner_texts() == ["infarct (pipeline)"]
        assert watched.errors == []


def sizes(page):
    """Whether each visible canvas is drawn at the size that it is shown in: nothing is squeezed."""
    return page.evaluate(
        "Array.from(document.querySelectorAll('#viewer canvas')).filter((c) => c.clientWidth)"
        ".map((c) => Math.abs(c.width - c.clientWidth * devicePixelRatio) < 2"
        " && Math.abs(c.height - c.clientHeight * devicePixelRatio) < 2)"
    )


def test_before_and_after_stand_side_by_side(browser, report):
    with Watched(browser, report.parent / subject_page("S-01")) as watched:
        page = watched.page
        page.locator("#viewer-tools").wait_for(state="visible", timeout=90_000)
        assert sizes(page) == [True]
        page.locator("#beside").select_option(index=2)
        # A function would need eval, which the page's policy refuses: ask from outside.
        for _ in range(200):
            if page.evaluate("globalThis.nv2 ? nv2.volumes.length : 0"):
                break
            page.wait_for_timeout(300)
        page.wait_for_timeout(800)
        canvases = page.locator("#viewer canvas")
        assert canvases.count() == 2
        assert sizes(page) == [True, True]
        for number in range(2):
            pixels = np.asarray(Image.open(io.BytesIO(canvases.nth(number).screenshot())))[..., :3]
            assert pixels.max() > 100 and pixels.std() > 5, number
        boxes = [canvases.nth(k).bounding_box() for k in range(2)]
        assert abs(boxes[0]["y"] - boxes[1]["y"]) < 2 and boxes[1]["x"] > boxes[0]["x"]
        page.locator("#beside").select_option("")
        page.wait_for_timeout(600)
        assert sizes(page) == [True]
        assert not canvases.nth(1).is_visible()
        assert watched.errors == []


def test_a_number_leads_to_its_trace_and_on_to_the_row(browser, report):
    with Watched(browser, report) as watched:
        page = watched.page
        page.locator("#glance td.estimate a").first.click()
        assert "/trace-" in page.url and page.locator(":target").count() == 1
        page.locator("td.main a").first.click()
        assert "/sub-" in page.url and page.locator(":target").is_visible()
        assert watched.errors == [] and watched.outside() == []


def test_static_desk_makes_a_table_that_the_workflow_accepts(browser, report, tmp_path):
    with Watched(browser, report.parent / "review.html") as watched:
        page = watched.page
        card = page.locator(".sheet").first
        card.get_by_label("Exclude").check()
        card.get_by_role("button", name="Record", exact=True).click()
        assert "name" in page.locator("#desk-state").inner_text()
        page.get_by_label("Your name").fill("A. Reviewer, \u65e5\u672c")
        card.get_by_role("button", name="Record", exact=True).click()
        assert "reason" in page.locator("#desk-state").inner_text()
        card.get_by_label("Reason").fill("motion")
        card.get_by_role("button", name="Record", exact=True).click()
        second = page.locator(".sheet").nth(1)
        second.get_by_label("Accept").check()
        second.get_by_role("button", name="Record", exact=True).click()
        with page.expect_download() as waiting:
            page.locator("#download").click()
        path = tmp_path / "qc_decisions.tsv"
        waiting.value.save_as(path)
        decided = read_decisions(path)
        assert [d.decision for d in decided] == ["exclude", "accept"]
        assert decided[0].decided_by == "A. Reviewer, \u65e5\u672c"
        page.get_by_label("Show").select_option("exclude")
        assert page.locator(".sheet:visible").count() == 1
        assert watched.errors == [] and watched.outside() == []


def test_keys_decide_while_a_visit_has_the_focus(browser, report):
    with Watched(browser, report.parent / "review.html") as watched:
        page = watched.page
        page.get_by_label("Your name").fill("axrn")  # letters in a field are letters
        assert page.get_by_label("Your name").input_value() == "axrn"
        first, second = (page.locator(".sheet").nth(k) for k in (0, 1))
        first.focus()
        page.keyboard.press("a")
        assert first.get_by_label("Accept").is_checked()
        page.keyboard.press("Enter")
        second.locator(":scope:focus").wait_for()  # recorded, and on to the next
        assert "accepted" in first.locator(".decided").inner_text()
        page.keyboard.press("x")
        page.keyboard.type("motion")
        page.keyboard.press("Enter")
        second.locator(".decided:visible").wait_for()
        assert "exclude: motion" in second.locator(".history").inner_text()
        third = page.locator(".sheet").nth(2)
        third.locator(":scope:focus").wait_for()
        page.keyboard.press("p")
        assert second.evaluate("(sheet) => document.activeElement === sheet")
        assert watched.errors == []


def test_values_on_the_desk_are_shown_once_it_is_recorded_who_asked(browser, report, tmp_path):
    with Watched(browser, report.parent / "review.html") as watched:
        page = watched.page
        card = page.locator(".sheet").first
        values = card.locator(".values")
        assert not values.is_visible()
        card.locator(".open-values").click()
        assert not values.is_visible() and "name" in page.locator("#desk-state").inner_text()
        page.get_by_label("Your name").fill("A. Reviewer")
        card.locator(".open-values").click()
        values.wait_for(state="visible")
        assert "values shown" in card.locator(".history").inner_text()
        with page.expect_download() as waiting:
            page.locator("#download").click()
        path = tmp_path / "qc_decisions.tsv"
        waiting.value.save_as(path)
        (opened,) = read_decisions(path)
        assert (opened.decision, opened.decided_by) == ("opened", "A. Reviewer")
        # Nothing was decided by it.
        assert not card.locator(".decided").is_visible() and watched.errors == []


def test_served_desk_writes_at_once_and_finishes(browser, report, tmp_path):
    with Desk(report.parent, tmp_path / "qc_decisions.tsv") as desk:
        thread = threading.Thread(target=desk.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(desk.url)
        page.get_by_label("Your name").fill("B")
        page.locator(".sheet").first.get_by_label("Accept").check()
        page.locator(".sheet").first.get_by_role("button", name="Record", exact=True).click()
        page.locator(".sheet .decided:visible").wait_for()
        assert [d.decided_by for d in read_decisions(desk.decisions)] == ["B"]
        page.locator("#finish").click()
        thread.join(timeout=10)
        assert not thread.is_alive()
        context.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core (MPL-2.0) is not part of the project: npm fetches it into the test cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelab-tests"
    script = cache / f"axe-core-{AXE_VERSION}" / "axe.min.js"
    if not script.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core is not in the test cache, and there is no npm to fetch it")
        script.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", "--silent", f"axe-core@{AXE_VERSION}"],
            cwd=script.parent,
            capture_output=True,
            timeout=120,
            check=False,
        )
        archive = script.parent / f"axe-core-{AXE_VERSION}.tgz"
        if done.returncode or not archive.is_file():
            pytest.skip("axe-core could not be fetched by npm")
        with tarfile.open(archive) as packed:
            script.write_bytes(packed.extractfile("package/axe.min.js").read())
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*STUDY_PAGES, "review.html", "SUBJECT", "BLINDED", "TRACE"])
def test_axe_finds_nothing(browser, report, axe, name):
    pages = {
        "SUBJECT": report.parent / subject_page("S-01"),
        "BLINDED": report.parent / blinded_page("S-01"),
        "TRACE": sorted(report.parent.glob("trace-*.html"))[0],
    }
    path = pages.get(name, report.parent / name)
    # The page's own policy keeps foreign scripts out, axe's too.
    with Watched(browser, path, color_scheme="light", bypass_csp=True) as watched:
        page = watched.page
        page.evaluate(axe)

        def violations(found):
            return [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]]

        light = page.evaluate("axe.run(document)")
        assert violations(light) == [] and len(light["passes"]) > 15
        # Of the same elements in the dark, rules about colours alone can say anything else.
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == DARK
        dark = page.evaluate(
            "axe.run(document, {runOnly: ['color-contrast', 'link-in-text-block']})"
        )
        assert violations(dark) == [] and len(dark["passes"]) > 0
