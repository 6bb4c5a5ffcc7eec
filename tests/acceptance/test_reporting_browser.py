"""The pages in a real browser: offline, silent, sortable, readable, with a lesion in the viewer."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import HOSTILE, fabricated_study
from PIL import Image

from corelab.reporting import write_report
from corelab.reporting.results import subject_page

pytestmark = pytest.mark.acceptance
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
    return write_report(*fabricated_study(tmp_path_factory.mktemp("browser")))


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


def test_page_is_one_file_and_silent(browser, report):
    with Watched(browser, report) as watched:
        watched.page.wait_for_timeout(300)
        assert watched.requests == [report.as_uri()]
        assert watched.errors == [] and watched.dialogs == []


def test_script_in_an_id_never_runs(browser, report):
    with Watched(browser, report.parent / subject_page(HOSTILE)) as watched:
        assert watched.page.locator("h1").inner_text() == HOSTILE
        assert watched.dialogs == [] and watched.errors == []


@pytest.mark.parametrize("width", [400, 900, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_the_page(browser, report, width, scheme):
    for path in (report, report.parent / subject_page("S-01")):
        with Watched(browser, path, width, color_scheme=scheme) as watched:
            wide = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (path.name, width)


def test_tables_sort_by_number_with_the_keyboard_and_say_so(browser, report):
    with Watched(browser, report) as watched:
        table = watched.page.locator("#endpoints table")
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
    with Watched(browser, report) as watched:
        section = watched.page.locator("#endpoints")
        section.locator("input[type=search]").fill("infarct placebo day5")
        shown = section.locator("tbody tr:visible")
        assert shown.count() == 2
        assert all("placebo" in text for text in shown.all_inner_texts())
        assert section.locator("[role=status]").inner_text() == "2 of 26 rows"


def test_gallery_finds_flagged_subjects(browser, report):
    with Watched(browser, report) as watched:
        cards = watched.page.locator(".card:visible")
        assert cards.count() == 6
        watched.page.get_by_label("flagged only").check()
        assert cards.count() == 3


def test_hovering_a_mark_tells_whose_it_is(browser, report):
    with Watched(browser, report) as watched:
        mark = watched.page.locator("#reproducibility circle.mark").first
        mark.scroll_into_view_if_needed()
        mark.hover()
        tip = watched.page.locator("#tip")
        assert tip.is_visible() and "reader-1" in tip.inner_text()


def test_theme_can_be_chosen(browser, report):
    with Watched(browser, report, color_scheme="light") as watched:
        button = watched.page.locator("#theme")
        button.click()
        button.click()
        assert button.inner_text() == "Theme: dark"
        colour = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(18, 22, 26)"


def test_page_works_without_javascript(browser, report):
    with Watched(browser, report, java_script_enabled=False) as watched:
        assert watched.page.locator("#endpoints tbody tr").count() == 26
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
