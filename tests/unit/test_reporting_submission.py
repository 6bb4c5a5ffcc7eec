"""The nine documents and the index."""

from __future__ import annotations

import json
import re

import pytest
from fabricated_study import fabricated_results, fabricated_study, tables_of, tables_only

from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.products import file_sha256
from corelab.reporting.charter import charter_sections, empty_sections
from corelab.reporting.submission import write_submission
from corelab.reporting.summary import summary_lines
from corelab.settings.config import Config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder, config, people = fabricated_study(tmp_path_factory.mktemp("submission"))
    write_submission(fabricated_results(folder, config, people))
    return folder, config, people


@pytest.fixture(scope="module")
def index(study):
    return json.loads((study[0] / "submission/index.json").read_text(encoding="utf-8"))


def test_exactly_nine_documents_two_of_them_on_demand(study, index):
    # CDE guideline, appendix 2: nine documents, the fifth and sixth on demand.
    assert [d["number"] for d in index["documents"]] == list(range(1, 10))
    assert [d["number"] for d in index["documents"] if d["on_demand"]] == [5, 6]
    stems = {re.sub(r"\.\w+$", "", p.name) for p in (study[0] / "submission").glob("0*")}
    assert sorted(stems) == [
        "01_charter",
        "02_acquisition_standard",
        "03_team",
        "04_procedures",
        "05_issues",
        "06_deviations",
        "07_database",
        "08_stability",
        "09_summary",
    ]


def test_every_digest_of_the_index_holds_and_every_file_is_in_it(study, index):
    root = study[0] / "submission"
    parts = [*index["documents"], *index["datasets"], {"files": index["definitions"]}]
    listed = {f["path"]: f["sha256"] for part in parts for f in part["files"]}
    for name, digest in listed.items():
        assert file_sha256(root / name) == digest
    there = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert there == {*listed, "index.json"}


def test_charter_has_twelve_blocks_and_lists_the_empty_mandatory_ones(study, index):
    # CDE guideline, appendix 1: glossary and chapters 1 to 11.
    sections = charter_sections(fabricated_results(*study))
    assert {s.number.split(".")[0] for s in sections} == {str(n) for n in range(12)}
    left = empty_sections(sections)
    assert "3 Responsibilities" in left and "7.3 Adjudication" in left
    assert index["charter_blocks_left_empty"] == left
    text = (study[0] / "submission/01_charter.md").read_text(encoding="utf-8")
    assert all(f"- {name}" in text for name in left)


def test_what_only_people_can_state_is_not_attested(study):
    for name in ("01_charter", "03_team", "09_summary"):
        text = (study[0] / f"submission/{name}.md").read_text(encoding="utf-8")
        assert "NOT ATTESTED" in text
        assert not re.search(r"(?<!NOT )ATTESTED", text)


def test_contents_come_from_the_study(study):
    root = study[0] / "submission"
    assert "slice thickness, mm" in (root / "02_acquisition_standard.md").read_text(
        encoding="utf-8"
    )
    assert "reader-1" in (root / "03_team.md").read_text(encoding="utf-8")
    assert "ends early" in (root / "05_issues.md").read_text(encoding="utf-8")
    assert "visit day5 not done" in (root / "06_deviations.md").read_text(encoding="utf-8")
    assert "| ADIMG |" in (root / "07_database.md").read_text(encoding="utf-8")
    stability = (root / "08_stability.md").read_text(encoding="utf-8")
    assert "ICC(A,1)" in stability and "[0.951, 0.993]" in stability
    summary = (root / "09_summary.md").read_text(encoding="utf-8")
    digest = file_sha256(root / "01_charter.pdf")[:16]
    assert digest in summary and "Infarct growth by arm" in summary


def test_same_results_give_the_same_bytes(study, tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    again = write_submission(fabricated_results(folder, config, people))
    assert again.read_bytes() == (study[0] / "submission/index.json").read_bytes()


def test_tables_only_study_has_all_nine(tmp_path):
    path = write_submission(fabricated_results(*tables_only(tmp_path)))
    assert len(json.loads(path.read_text(encoding="utf-8"))["documents"]) == 9


def summarised(folder, config, people):
    settings = Config.model_validate(config)
    return folder, settings, tables_of(folder, settings, people)


def test_summary_counts_and_says_what_needs_attention(study):
    text = "\n".join(summary_lines(*summarised(*study)))
    assert "36 subjects (6 with images), 11 visits" in text
    assert "2 scans failed, 1 outside the charter, 3 subjects flagged" in text
    assert "error: Non-contrast CT could not be used: the file ends early (gzip) [S-05]" in text
    assert "submission/index.json" in text


def test_summary_of_a_folder_alone(tmp_path):
    folder, _, _ = tables_only(tmp_path)
    assert summary_lines(folder)[-1] == "  Nothing needs attention."


def test_exhibits_of_another_version_raise_no_alarm(tmp_path):
    folder, _, _ = tables_only(tmp_path)
    write_exhibit(
        folder / "exhibits" / "agreement_old.json",
        section="quality",
        title="Of an older version",
        alarms=[Alarm("error", "An old alarm")],
    )
    assert any("An old alarm" in line for line in summary_lines(folder))
    assert not any("An old alarm" in line for line in summary_lines(folder, exhibits=[]))
