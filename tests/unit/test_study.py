"""The study room: every kind of bad input is found, told in words, and told all at once."""

import contextlib

import pandas as pd
import pytest
import yaml
from helpers import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from workflow_runs import write_study

from corelab.study import documentation
from corelab.study.expression import ExpressionError, select
from corelab.study.findings import errors
from corelab.study.model import StudyError, load_study
from corelab.study.naming import bids_label, derivative, from_bids_label, subject_entity
from corelab.study.preflight import preflight_findings
from corelab.study.schema import with_defaults


def study_of(tmp_path, config=None, **sheets):
    path = write_study(tmp_path, config or {}, **sheets)
    return load_study(yaml.safe_load(path.read_text()))


def messages(study):
    return "\n".join(str(finding) for finding in study.findings)


@given(st.text(min_size=1))
def test_bids_labels_are_reversible_and_harmless(text):
    label = bids_label(text)
    assert from_bids_label(label) == text
    assert all(c.isascii() and (c.isalnum() or c == "+") for c in label)


def test_no_id_escapes_its_folder():
    path = derivative("../../etc", "..", "dwi", "mask", label="infarct", desc="a/b")
    assert ".." not in path and path.count("/") == 4


def test_ids_stay_text(tmp_path):
    study = study_of(tmp_path, participants="participant_id\n007\n1e3")
    assert study.participants == ("007", "1e3")


@pytest.mark.parametrize(
    ("sheets", "told"),
    [
        ({"participants": "participant_id|arm\n1|a\n1|b"}, "listed 2 times with the arms a and b"),
        ({"participants": "participant_id\n1\nsub-1"}, "would share the folder sub-1"),
        (
            {
                "participants": "participant_id\n1",
                "scans": "participant_id|visit|kind|path\n2|v|adc|x",
            },
            "not in the participants sheet",
        ),
        (
            {
                "participants": "participant_id\n1",
                "scans": "participant_id|visit|kind|path\n1|v|ADC|x",
            },
            "write 'adc'",
        ),
        (
            {"participants": "participant_id\n1", "scans": "participant_id|visit|kind\n1|v|adc"},
            "required column is absent",
        ),
        (
            {
                "participants": "participant_id\n1",
                "reads": "participant_id|visit|endpoint|reader|value\n1|v|infarct_volume|r|1\n1|v|infarct_volume|r|2",
            },
            "duplicates are never averaged",
        ),
        (
            {
                "participants": "participant_id\n1",
                "reads": "participant_id|visit|endpoint|reader|value\n1|v|infarct_volume|r|<0.1",
            },
            "not a number",
        ),
        (
            {
                "participants": "participant_id\n1",
                "reads": "participant_id|visit|endpoint|reader|value|unit\n1|v|infarct_volume|r|1|gallon",
            },
            "unknown unit of a volume",
        ),
        (
            {
                "participants": "participant_id\n1",
                "reads": "participant_id|visit|endpoint|reader|value\n1|v|infarct_volume|r|-3",
            },
            "a volume cannot be negative",
        ),
        (
            {
                "participants": "participant_id\n1",
                "outcomes": "participant_id|visit|outcome|value\n1|v|mrs|7",
            },
            "mrs runs from 0 to 6",
        ),
        (
            {
                "participants": "participant_id\n1",
                "events": "participant_id|endpoint|time_days|event\n1|os|100|1\n1|pfs|200|1",
            },
            "longer than survival",
        ),
        (
            {
                "participants": "participant_id\n1",
                "events": "participant_id|endpoint|time_days|event\n1|os|100|2",
            },
            "not one of 0, 1",
        ),
        ({"participants": "participant_id|arm|arm\n1|a|b"}, "occur twice"),
        ({"participants": "participant_id\n1|extra"}, "2 cells where the header has 1"),
        (
            {
                "participants": "participant_id\n1",
                "scans": "participant_id|visit|kind|path\n1|v|adc|x\n1|v|dwi|y",
            },
            "none of the 2 files is there",
        ),
        (
            {
                "participants": "participant_id\n1",
                "outcomes": "participant_id|visit|outcome|value|note\n1|v|mrs|1|x",
            },
            "unknown column",
        ),
    ],
)
def test_bad_sheets_are_errors_in_words(tmp_path, sheets, told):
    study = study_of(tmp_path, **sheets)
    assert not study.sound
    assert told in messages(study)
    for finding in errors(study.findings):
        assert finding.sheet and finding.message and finding.remedy


def test_all_findings_come_at_once(tmp_path):
    study = study_of(
        tmp_path,
        participants="participant_id|arm\n1|a\n1|b",
        reads="participant_id|visit|endpoint|reader|value\n9|v|infarct_volume|r|x",
    )
    assert len(errors(study.findings)) >= 3


def test_volumes_a_thousandfold_are_recognised(tmp_path):
    rows = ["participant_id|visit|endpoint|reader|value|unit"]
    for n, ml in enumerate((3.0, 11.0, 40.0, 7.5)):
        rows += [f"{n}|v|infarct_volume|r1|{ml}|mL", f"{n}|v|infarct_volume|r2|{ml * 1010}|mL"]
    study = study_of(tmp_path, participants="participant_id\n0\n1\n2\n3", reads="\n".join(rows))
    assert "mm3 read as mL" in messages(study)
    right = "\n".join(line.replace("|mL", "|mm3") if "|r2|" in line else line for line in rows)
    assert study_of(tmp_path, participants="participant_id\n0\n1\n2\n3", reads=right).sound


def test_rows_are_numbered_as_in_the_file(tmp_path):
    study = study_of(tmp_path, participants="participant_id|age\n1|70\n2|old")
    (finding,) = errors(study.findings)
    assert (finding.row, finding.column, finding.value) == (3, "age", "old")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"perfusion": {"core": {"bellow": 0.3}}}, "perfusion.core.bellow"),
        ({"perfusion": {"core": {"below": 3}}}, "perfusion.core.below"),
        ({"analyses": [{"id": "a", "type": "agreement", "endpoint": "x"}]}, "sources"),
        (
            {"analyses": [{"id": "a", "type": "correlation", "endpoint": "x"}]},
            "outcome, exposure, endpoint_y",
        ),
        ({"study": {"id": "../up"}}, "study.id"),
    ],
)
def test_bad_configs_stop_with_their_key(tmp_path, config, told):
    with pytest.raises(StudyError) as caught:
        study_of(tmp_path, config, participants="participant_id\n1")
    assert told in str(caught.value)


def test_defaults_fill_a_block_given_in_part():
    full = with_defaults(
        {
            "study": {"id": "a"},
            "inputs": {"participants": "p"},
            "perfusion": {"hypoperfusion": {"tmax_s_above": 4.0}},
        }
    )
    assert full["perfusion"]["hypoperfusion"] == {
        "engine": "osvd",
        "tmax_s_above": 4.0,
    }
    assert full["perfusion"]["core"]["below"] == 0.30
    assert full["study"]["disease"] == "stroke"


def test_plan_is_checked_against_the_sheets(tmp_path):
    config = {
        "analyses": [
            {"id": "a", "type": "comparison", "endpoint": "x", "by": "armm"},
            {
                "id": "a",
                "type": "correlation",
                "endpoint": "x",
                "outcome": "nihss",
                "population": "age >",
            },
        ]
    }
    told = messages(study_of(tmp_path, config, participants="participant_id|arm|age\n1|a|70"))
    assert "no such column in the participants sheet" in told
    assert "another analysis has this id" in told
    assert "not understood" in told
    assert "neither in the outcomes sheet nor a participants column" in told


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "open('x')",
        "arm.upper()",
        "age if age else age",
        "[a for a in age]",
        "age + 1 > 2",
        "lambda: 1",
        "age[0] == 1",
        "f'{age}' == 'a'",
        "1",
        "age = 1",
        "a" * 3000,
    ],
)
def test_expressions_allow_comparisons_only(text):
    table = pd.DataFrame({"age": [1.0], "arm": ["a"]})
    with pytest.raises(ExpressionError):
        select(text, table)


@given(st.text(max_size=60))
def test_expressions_never_crash(text):
    table = pd.DataFrame({"age": [1.0, None], "arm": ["a", None]})
    with contextlib.suppress(ExpressionError):
        assert select(text, table).dtype == bool


def test_expression_semantics():
    table = pd.DataFrame(
        {"arm": ["a", "b", None], "age": [50.0, 70.0, None], "ok": ["true", "0", "yes"]}
    )
    assert select("18 <= age < 60", table).tolist() == [True, False, False]
    assert select('arm in ["a", "b"] and not ok', table).tolist() == [False, True, False]
    assert select('arm not in ["a"]', table).tolist() == [False, True, False]
    assert select("age != 50", table).tolist() == [False, True, False]


def test_damaged_header_is_a_warning_not_a_stop(tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"not a gzip")
    (tmp_path / "good.nii.gz").write_bytes(b"x")
    study = study_of(
        tmp_path,
        participants="participant_id\n1",
        scans="participant_id|visit|kind|path\n1|v|adc|bad.nii.gz\n1|v|dwi|gone.nii.gz",
    )
    found = preflight_findings(study)
    assert not errors(found)
    told = "\n".join(map(str, found))
    assert "header cannot be opened" in told and "the file is not there" in told


def test_4d_where_3d_is_due_is_told(tmp_path):
    import nibabel as nib
    import numpy as np

    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    study = study_of(
        tmp_path,
        participants="participant_id\n1",
        scans="participant_id|visit|kind|path\n1|v|adc|a.nii.gz\n1|v|ctp|a.nii.gz",
    )
    told = "\n".join(map(str, preflight_findings(study)))
    assert "4D where 3D is due for adc" in told


def test_one_file_for_two_subjects_is_an_error(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    study = study_of(
        tmp_path,
        participants="participant_id\n1\n2",
        scans="participant_id|visit|kind|path\n1|v|adc|a.nii.gz\n2|v|adc|a.nii.gz",
    )
    assert "one image cannot be two scans" in messages(study)


def test_config_readme_is_in_step_with_the_schemas():
    assert (REPOSITORY / "config" / "README.md").read_text() == documentation.config_readme(), (
        "run: python -m corelab.study.documentation"
    )


def test_27000_rows_are_checked_quickly(tmp_path):
    """A guard against quadratic checks (the figure itself is in make bench)."""
    import time

    people = [f"{n:05d}" for n in range(9000)]
    scans = "participant_id|visit|kind|path\n" + "\n".join(
        f"{p}|v{k}|adc|{p}{k}" for p in people for k in range(3)
    )
    path = write_study(
        tmp_path, {}, participants="participant_id\n" + "\n".join(people), scans=scans
    )
    config = yaml.safe_load(path.read_text())
    start = time.process_time()
    study = load_study(config)
    assert len(study.scans) == 27000
    assert time.process_time() - start < 10


def test_subject_entity_is_not_doubled():
    assert subject_entity("sub-strokecase0001") == "sub-strokecase0001"
