"""The offline pages: self-contained, escaped, complete, the same bytes twice."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from fabricated_study import HOSTILE, fabricated_results, fabricated_study, tables_only

from corelab.measurement.rows import measurement_row
from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.products import read_table, write_table
from corelab.records.measured import Measured
from corelab.reporting import subject_images
from corelab.reporting.first_page import WORDS, write_first_page
from corelab.reporting.page import STUDY_PAGES
from corelab.reporting.report import write_report
from corelab.reporting.results import subject_page
from corelab.reporting.viewer import LEVELS
from corelab.settings.config import Config
from corelab.study.model import Study

LIMIT_BYTES = 6_000_000


class Elements(HTMLParser):
    """Tags with their attributes, and the text outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in {"script", "style"}:
            self.words.append(data)

    def handle_endtag(self, tag):
        self._inside = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder, config, people = fabricated_study(tmp_path_factory.mktemp("report"))
    index = write_report(fabricated_results(folder, config, people))
    return folder, config, people, index


@pytest.fixture(scope="module")
def first(study):
    """The first page."""
    return study[3].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def index(study):
    """All pages of the study, as one text."""
    return "".join((study[3].parent / name).read_text(encoding="utf-8") for name in STUDY_PAGES)


@pytest.fixture(scope="module")
def words(index):
    return re.sub(r"\s+", " ", " ".join(Elements(index).words))


def _pages(index: Path) -> list[Path]:
    named = [index.parent / name for name in STUDY_PAGES]
    return [*named, *sorted(index.parent.glob("sub-*.html")), *_blinded(index)]


def _blinded(index: Path) -> list[Path]:
    return sorted(index.parent.glob("blinded-*.html"))


def test_every_page_is_below_six_megabytes(study):
    for page in _pages(study[3]):
        assert page.stat().st_size < LIMIT_BYTES


def test_no_page_asks_for_anything_outside(study):
    for page in _pages(study[3]):
        elements = Elements(page.read_text(encoding="utf-8"))
        for tag, attributes in elements.found:
            for name in ("src", "href", "data", "action", "poster", "srcset"):
                target = attributes.get(name)
                if target is None or tag == "a":
                    continue
                # Or a file below the report, which lies there.
                beside = target.startswith(("figures/", "viewer/"))
                assert target.startswith("data:") or beside, (page.name, tag, name, target[:60])
                assert not beside or (page.parent / unquote(target)).is_file()
        assert not elements.all("link") and not elements.all("iframe")
        assert all("src" not in a for a in elements.all("script"))


def test_security_policy_names_each_script_by_its_digest(study):
    import base64

    for page in _pages(study[3])[:3]:
        text = page.read_text(encoding="utf-8")
        policy = next(a["content"] for a in Elements(text).all("meta") if a.get("http-equiv"))
        assert "default-src 'none'" in policy and "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy


def test_script_in_a_subject_id_is_text_everywhere(study):
    folder, _, _, index = study
    page = folder / "report" / subject_page(HOSTILE)
    assert page.is_file()
    for path in (index.with_name("images.html"), page):
        text = path.read_text(encoding="utf-8")
        assert "<script>alert(1)" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_same_results_give_the_same_bytes(study, tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    again = write_report(fabricated_results(folder, config, people))
    for first, second in zip(_pages(study[3]), _pages(again), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_first_screen_has_what_was_studied_flow_endpoints_and_attention(first):
    first = first.split('<section id="all-analyses"')[0]
    words = re.sub(r"\s+", " ", " ".join(Elements(first).words))
    assert "Neuroprotection in acute stroke" in words
    assert "Primary endpoints" in words and "Infarct growth by arm" in words
    assert "−4.8" in words and "[−8.1, −1.5]" in words and "0.005" in words
    assert "Flow of scans" in words and "1 file missing" in words
    assert "Non-contrast CT could not be used: the file ends early (gzip)" in words


def test_estimates_have_digits_by_their_interval_and_full_precision_behind(words):
    assert "0.981" in words and "[0.951, 0.993]" in words
    assert "0.98112345" in words
    assert "by pingouin.intraclass_corr ICC(A,1)" in words


def test_what_is_not_computable_says_why(words):
    assert "not computable" in words and "values are volumes, not grades" in words


def test_every_part_of_the_report_is_there(index):
    sections = {a.get("id") for a in Elements(index).all("section")}
    wanted = {"glance", "participants", "images", "maps", "endpoints", "reproducibility"}
    wanted |= {"pharmacodynamics", "quality", "methods", "limits", "deviations", "reference"}
    assert wanted <= sections


def test_nothing_is_printed_as_python_would(study):
    for page in _pages(study[3]):
        shown = " ".join(Elements(page.read_text(encoding="utf-8")).words)
        assert not re.search(r"\{'|': |\['|\bNone\b|\bnan\b", shown), page.name


def test_limits_are_those_of_the_biomarkers_used(words):
    assert "Ghost core" in words and "Diffusion lesions can reverse" in words
    assert "Cut-offs belong to an engine" in words
    assert "Pseudoprogression" not in words


def test_links_inside_the_report_lead_somewhere(study):
    folder, _, _, index = study
    for page in _pages(index):
        elements = Elements(page.read_text(encoding="utf-8"))
        ids = {a["id"] for _, a in elements.found if a.get("id")}
        for link in elements.all("a"):
            target, _, anchor = str(link.get("href") or link["xlink:href"]).partition("#")
            if not target:
                assert anchor in ids, (page.name, anchor)
            else:
                from urllib.parse import unquote

                # Written after this page: by the same rule, or from it.
                later = target.startswith(("../provenance", "../verification", "../ro-crate"))
                later |= target in ("report.pdf", "tables/index.html", "analysis_results.tsv")
                assert later or (page.parent / unquote(target)).is_file(), (page.name, target)
    assert folder


def test_tables_have_captions_and_headings_and_pictures_have_words(study):
    for page in _pages(study[3])[:3]:
        elements = Elements(page.read_text(encoding="utf-8"))
        assert len(elements.all("caption")) == len(elements.all("table"))
        assert all(a.get("scope") for a in elements.all("th"))
        # The layer over a scan has none of its own: its words are the scan's.
        assert all(a.get("alt") or a.get("class") == "marks" for a in elements.all("img"))
        assert [a.get("lang") for a in elements.all("html")] == ["en"]
        assert len(elements.all("main")) == len(elements.all("h1")) == 1


def test_viewer_gets_the_scan_and_its_masks(study):
    import base64
    import gzip

    import nibabel as nib
    import numpy as np

    folder, _, _, _ = study
    text = (folder / "report" / subject_page("S-01")).read_text(encoding="utf-8")
    named = dict(re.findall(r'data-(program|volumes)="(.*?)"', text))
    assert (folder / "report" / unquote(named["program"])).stat().st_size > 1_000_000
    data = (folder / "report" / unquote(named["volumes"])).read_text(encoding="utf-8")
    scans = json.loads(data.removeprefix("globalThis.VOLUMES = ").rstrip().removesuffix(";"))
    assert scans[0]["title"] == "baseline: DWI"
    assert {mask["name"] for mask in scans[0]["masks"]} == {
        "infarct (pipeline)",
        "infarct (reader-1)",
    }

    def image(item):
        raw = gzip.decompress(base64.b64decode(item["base64"]))
        return nib.Nifti1Image.from_bytes(raw)

    shown = image(scans[0])
    original = nib.load(
        next((folder / "derivatives").glob("sub-S+2D01/ses-baseline/dwi/*_dwi.nii.gz"))
    )
    # Cropped to the head: the same places in millimetres have the same values.
    corner = np.linalg.inv(original.affine) @ shown.affine[:, 3]
    box = tuple(
        slice(n, n + size)
        for n, size in zip(corner[:3].round().astype(int), shown.shape, strict=True)
    )
    assert np.allclose(corner[:3], [part.start for part in box], atol=1e-4)
    low, high = scans[0]["window"]
    truth = np.clip(original.get_fdata()[box], low, high)
    step = (high - low) * 1.75 / (LEVELS - 1)
    assert np.abs(np.clip(shown.get_fdata(), low, high) - truth).max() < 0.51 * step
    outside = original.get_fdata().copy()
    outside[box] = 0
    assert (outside > low).sum() < 0.01 * (original.get_fdata() > low).sum()
    mask = next(m for m in scans[0]["masks"] if m["name"] == "infarct (pipeline)")
    source = next(
        (folder / "derivatives").glob("sub-S+2D01/ses-baseline/dwi/*label-infarct_mask.nii.gz")
    )
    assert np.array_equal(image(mask).get_fdata(), nib.load(source).get_fdata()[box])


def test_a_reviewer_can_reach_no_arm_dose_or_value_from_the_desk(study):
    folder, _, people, index = study
    measured = read_table(folder / "endpoints/measurements.tsv")
    output = {str(row.value) for row in measured.itertuples() if row.status == "ok"}
    reached, waiting = set(), ["review.html"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        elements = Elements((index.parent / name).read_text(encoding="utf-8"))
        links = {a["href"].partition("#")[0] for a in elements.all("a") if a.get("href")}
        waiting += [unquote(k) for k in links if k.endswith(".html") and unquote(k) not in reached]
        words = f" {' '.join(' '.join(elements.words).split())} "
        for arm in set(people["arm"]):
            assert not re.search(rf"\b{arm}\b", words), (name, arm)
        if name != "review.html":
            assert not re.search(r"\bdose .{0,3}\d|Values of the whole lesion", words)
            assert not any(f" {value} " in words for value in output if "." in value)
    assert "index.html" not in reached and len(reached) == 1 + len(_blinded(index)) > 3


def test_study_with_tables_only_has_a_page_that_says_so(tmp_path):
    index = write_report(fabricated_results(*tables_only(tmp_path)))
    words = " ".join(Elements(index.read_text(encoding="utf-8")).words)
    assert "no images that the pipeline processed" in words
    assert "No analysis is in the plan" in words
    assert (index.parent / "sub-1.html").is_file()


def test_blinded_pages_do_not_name_an_arm_or_a_dose(tmp_path):
    folder, config, people = fabricated_study(tmp_path, blinded=True, title="A trial")
    index = write_report(fabricated_results(folder, config, people))
    for page in _pages(index)[:10]:
        text = " ".join(Elements(page.read_text(encoding="utf-8")).words)
        assert not re.search(r"\bplacebo\b|\bdose\b.{0,3}\d", text)
    assert "Group A" in index.read_text(encoding="utf-8")


def test_traces_and_exhibits_of_a_blinded_study_name_no_arm(tmp_path):
    folder, config, people = fabricated_study(tmp_path, blinded=True, title="A trial")
    # A column that parts the subjects as the arms do gives the arm away under another name.
    drug = {"placebo": "saline", "low": "half", "high": "full"}
    people = people.assign(drug=people["arm"].map(drug))
    exhibits = folder / "exhibits"
    exhibits.mkdir()
    (exhibits / "bars.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><text>placebo</text></svg>'
    )
    drawn = {"figure": "bars.svg", "alt": "bars of placebo and high"}
    for name, section in (("a", "analysis:growth-by-arm"), ("b", "analysis:growth-by-dose"),
                          ("c", "participants"), ("d", "sensitivity")):  # fmt: skip
        write_exhibit(exhibits / f"{name}.json", section=section, title="By placebo", **drawn)
    table = pd.DataFrame({"who": ["the placebo arm", "arm high"], "n": [3, 4]})
    write_table(table, folder / "quality" / "x.tsv", list(table))
    write_exhibit(
        exhibits / "e.json",
        section="quality",
        title="Scans of placebo",
        table="quality/x.tsv",
        alarms=[Alarm("warning", "Fewer scans under high than under placebo")],
    )
    index = write_report(fabricated_results(folder, config, people))
    traces = sorted(index.parent.glob("trace-*.html"))
    assert any(page.name == "trace-growth-by-arm.html" for page in traces)
    for page in (
        *map(index.with_name, STUDY_PAGES),
        *traces,
        *sorted(index.parent.glob("sub-*.html"))[:4],
    ):
        text = page.read_text(encoding="utf-8")
        words = " ".join(Elements(text).words)
        assert not re.search(r"\bplacebo\b|\bsaline\b|\b(arm|under) high\b", words), page.name
        assert base64.b64encode((exhibits / "bars.svg").read_bytes()).decode() not in text
        # Which of the codes is the control is not told either.
        assert "reference" not in Elements(text.split("<h2>Statistics")[0]).words, page.name
    text = index.with_name("quality.html").read_text(encoding="utf-8")
    assert re.search(r"Scans of Group [ABC]", text) and re.search(r"the Group [ABC] arm", text)
    assert re.search(r"Fewer scans under Group [ABC] than under Group [ABC]", text)


def test_pages_of_subjects_that_are_gone_are_removed(tmp_path):
    folder, config, people = fabricated_study(tmp_path, images=False)
    (folder / "report").mkdir()
    stale = folder / "report" / "sub-gone.html"
    stale.write_text("old")
    write_report(fabricated_results(folder, config, people))
    assert not stale.exists()


def test_traces_of_many_rows_stay_in_their_file(tmp_path):
    """A chain is read when its page is written: 40,000 steps cost the places of their rows."""
    import tracemalloc

    from corelab.reporting.traces import Chains

    steps = [(f"r-{row}", "scan", str(step)) for row in range(4000) for step in range(10)]
    lines = ["row_id\twhat\tname\tsha256\tdetail"]
    lines += ["\t".join([*step, "ab" * 32, "n/a"]) for step in steps]
    path = tmp_path / "trace.tsv"
    path.write_text("\n".join(lines) + "\n")
    tracemalloc.start()
    chains = Chains(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.5e6
    assert [step.name for step in chains["r-17"]] == [str(step) for step in range(10)]
    assert chains.get("r-4000", ()) == () and len(chains) == 4000


def test_what_did_not_change_is_not_drawn_again(tmp_path, monkeypatch):
    folder, config, people = fabricated_study(tmp_path)
    results, report = fabricated_results(folder, config, people), folder / "report"
    write_report(results)
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    drawn = []
    mosaics = subject_images._mosaics
    monkeypatch.setattr(
        subject_images, "_mosaics", lambda who, *rest: drawn.append(who) or mosaics(who, *rest)
    )
    record = next((folder / "derivatives").glob("sub-S+2D02/ses-baseline/prepare.json"))
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "products": {"a.nii.gz": "ab" * 32}}))
    next((report / "figures").glob("sub-S+2D03_mosaic00.webp")).unlink()
    write_report(fabricated_results(folder, config, people))
    assert drawn == ["S-02", "S-03"]
    after = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == {".sub-S+2D02.json"}
    drawn.clear()
    monkeypatch.setattr(subject_images, "_code", lambda: "another program")
    write_report(fabricated_results(folder, config, people))
    assert len(drawn) == 6


@pytest.mark.parametrize("blinded", [False, True])
def test_the_first_page_is_of_one_subject_alone_and_the_report_replaces_it(
    study, tmp_path, monkeypatch, blinded
):
    folder, config, people = fabricated_study(tmp_path, blinded=blinded)
    config["results_dir"] = str(tmp_path / "results")
    row = measurement_row("S-01", "day5", "infarct_volume", "pipeline", 12.5, "mL")
    whole = Config.model_validate(config).plain()
    given = Study(whole, {"participants": people}, (), visit_order=("baseline", "day5"))
    measured = Measured("S-01", rows=(row,))
    page = write_first_page(given, measured, folder / "report" / "first_subject.json")
    early = page.read_text(encoding="utf-8")
    assert WORDS in early and "12.5" in early and ("Group " in early) == blinded
    # Nothing of any other subject, whose records come while it is written, nor of the study.
    assert not [name for name in people["participant_id"].astype(str)[1:] if f">{name}<" in early]
    shutil.rmtree(folder / "derivatives" / "sub-S+2D02")
    assert write_first_page(given, measured, page.with_name("first_subject.json")) == page
    assert page.read_text(encoding="utf-8") == early
    drawn = []
    mosaics = subject_images._mosaics
    monkeypatch.setattr(
        subject_images, "_mosaics", lambda who, *rest: drawn.append(who) or mosaics(who, *rest)
    )
    write_report(fabricated_results(folder, config, people))
    assert drawn and "S-01" not in drawn and WORDS not in page.read_text(encoding="utf-8")
    if not blinded:
        names = sorted(path.name for path in (folder / "report" / "figures").glob("sub-S+2D01*"))
        other = study[0] / "report" / "figures"
        assert names == sorted(path.name for path in other.glob("sub-S+2D01*"))
        for name in names:
            assert (page.parent / "figures" / name).read_bytes() == (other / name).read_bytes()


def test_a_step_of_a_trace_stands_once_and_every_row_leads_to_it(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    results = fabricated_results(folder, config, people)
    rows = results.rows_of("measurements", "S-01")["row_id"]
    lines = ["row_id\twhat\tname\tsha256\tdetail"]
    lines += [f"{row}\tmask\ta<b>.nii.gz\t{'ab' * 32}\tbelow=0.3" for row in rows]
    (tmp_path / "trace.tsv").write_text("\n".join(lines) + "\n")
    write_report(results, trace=tmp_path / "trace.tsv")
    text = (folder / "report" / subject_page("S-01")).read_text(encoding="utf-8")
    assert text.count('id="step-1"') == 1 and 'id="step-2"' not in text
    assert (
        text.count('href="#step-1"')
        == (results.rows_of("measurements", "S-01")["region"] == "all").sum()
    )
    assert "a&lt;b&gt;.nii.gz" in text and "a<b>" not in text
    blinded = (folder / "report" / "blinded-S+2D01.html").read_text(encoding="utf-8")
    assert "step-1" not in blinded
