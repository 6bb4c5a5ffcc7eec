"""The study package: every kind of bad input is found, told in words, and told all at once."""

import contextlib
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from helpers import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from workflow_runs import write_study

from corelab.imaging.nifti import check_header
from corelab.settings.config import Config
from corelab.study import documentation
from corelab.study.expression import ExpressionError, select
from corelab.study.findings import errors, grouped_lines
from corelab.study.loading import StudyError, load_study
from corelab.study.naming import bids_label, derivative, subject_entity
from corelab.study.preflight import preflight_findings
from corelab.study.schema import repeated_keys


def study_of(tmp_path, config=None, **sheets):
    path = write_study(tmp_path, config or {}, **sheets)
    return load_study(yaml.safe_load(path.read_text()))


def messages(study):
    return "\n".join(str(finding) for finding in study.findings)


# A busy machine is no fault.
@settings(deadline=None)
@given(st.text(min_size=1))
def test_bids_labels_are_reversible_and_harmless(text):
    label = bids_label(text)
    assert unquote(label.replace("+", "%")) == text
    assert all(c.isascii() and (c.isalnum() or c == "+") for c in label)


def test_no_id_escapes_its_folder():
    path = derivative("../../etc", "..", "dwi", "mask", label="infarct", desc="a/b")
    assert ".." not in path and path.count("/") == 4


def test_ids_stay_text(tmp_path):
    study = study_of(tmp_path, participants="participant_id\n007\n1e3")
    assert study.participants == ("007", "1e3")


@pytest.mark.parametrize(
    ("sheets", "output"),
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
        ({"participants": "participant_id|arm\n1|a||"}, "the row ends in 2 tabs too many"),
        ({"participants": "participant_id|arm||\n1|a||"}, "the header line ends in 2 tabs"),
        (
            {
                "participants": "participant_id\n1",
                "scans": "participant_id|visit|kind|path\n1|v|adc|x\n1|v|dwi|y",
            },
            "none of the 2 files exists",
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
def test_bad_sheets_are_errors_in_words(tmp_path, sheets, output):
    study = study_of(tmp_path, **sheets)
    assert not study.sound
    assert output in messages(study)
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
    (finding,) = study.findings
    assert (finding.row, finding.column, finding.value) == (3, "age", "old")
    assert finding.severity == "warning"  # nothing uses the column


def test_a_bad_cell_that_an_analysis_uses_is_an_error(tmp_path):
    study = study_of(
        tmp_path,
        {"cohort_flows": [{"name": "f", "criteria": [{"exclude": "age > 80", "reason": "old"}]}]},
        participants="participant_id|age\n1|70\n2|old",
    )
    (finding,) = errors(study.findings)
    assert (finding.row, finding.column, finding.value) == (3, "age", "old")


def test_capped_ages_are_ages(tmp_path):
    study = study_of(tmp_path, participants="participant_id|age\n1|70\n2|89+\n3|89+\n4|>=90")
    assert study.sound
    found = {f.value: (f.severity, f.row, f.message) for f in study.findings}
    assert found == {
        "89+": ("note", 3, "capped in 2 rows; read as 89"),
        ">=90": ("note", 5, "capped in 1 row; read as 90"),
    }
    assert select("age >= 89", study.sheets["participants"]).tolist() == [False, True, True, True]


def test_digits_of_another_script_are_found_wherever_a_number_is_wanted(tmp_path):
    outcomes = "participant_id|visit|outcome|value\n1|v|mrs|１"
    (finding,) = errors(
        study_of(tmp_path, participants="participant_id\n1", outcomes=outcomes).findings
    )
    assert (finding.row, finding.value, "write 1" in finding.message) == (2, "１", True)


@pytest.mark.parametrize(
    ("sheets", "column", "value"),
    [
        ({"participants": "participant_id|arm\n1|Placebo\n2|placebo"}, "arm", "placebo"),
        ({"participants": "participant_id|arm\n1|high dose\n2|high\u00a0dose"}, "arm", "high\u00a0dose"),
        ({"participants": "participant_id|site\n1|A1\n2|Ａ1"}, "site", "Ａ1"),
        (
            {
                "participants": "participant_id\n1",
                "reads": "participant_id|visit|endpoint|reader|value\n"
                "1|Day5|infarct_volume|r1|3\n1|day5|infarct_volume|r1|4",
            },
            "visit",
            "day5",
        ),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_reported(tmp_path, sheets, column, value):
    found = [f for f in study_of(tmp_path, **sheets).findings if "looks like" in f.message]
    assert [(f.severity, f.column, f.value) for f in found] == [("warning", column, value)]


def test_many_findings_of_one_kind_are_one_line(tmp_path):
    rows = "\n".join(f"x{n}|v|infarct_volume|r1|3" for n in range(30))
    study = study_of(
        tmp_path,
        participants="participant_id\n1",
        reads="participant_id|visit|endpoint|reader|value\n" + rows,
    )
    assert len(errors(study.findings)) == 30
    lines = grouped_lines(errors(study.findings))
    assert len(lines) == 4 and "and 27 more like these" in lines[-1]


@pytest.mark.parametrize(
    ("analysis", "value"),
    [
        ({"type": "comparison", "endpoint": "x", "by": "arm", "covariates": ["nihss"]}, ">21"),
        ({"type": "ordinal", "outcome": "worst", "by": "arm"}, "dead"),
        ({"type": "correlation", "endpoint": "x", "exposure": "level"}, "BLQ"),
    ],
)
def test_a_cell_that_a_planned_analysis_needs_as_a_number(tmp_path, analysis, value):
    sheet = (
        "participant_id|arm|nihss|worst|level\n1|a|4|1|0.5\n2|b|>21|dead|BLQ\n3|a|9|2|1.5\n"
        "4|b|7|0|2"
    )
    study = study_of(tmp_path, {"analyses": [{"id": "a", **analysis}]}, participants=sheet)
    (finding,) = [f for f in errors(study.findings) if f.sheet == "participants.tsv"]
    assert (finding.row, finding.value) == (3, value) and "analysis a needs" in finding.message


@pytest.mark.parametrize("folder", ["data {batch1}", "{a", "b}"])
def test_braces_in_a_path_are_named(tmp_path, folder):
    (tmp_path / folder).mkdir()
    sheet = f"participant_id|visit|kind|path\n1|v|adc|{tmp_path / folder}/a.nii"
    with pytest.raises(StudyError, match="wildcard") as error:
        study_of(tmp_path, participants="participant_id\n1", scans=sheet)
    assert "row 2, column path" in str(error.value)
    with pytest.raises(StudyError, match="results_dir"):
        study_of(tmp_path, {"results_dir": folder}, participants="participant_id\n1")


def test_a_key_given_twice_is_found_at_any_depth(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "study: {id: a}\nanalyses:\n  - {id: x, type: agreement}\n  - id: y\n    id: z\nstudy: {}\n"
    )
    found = {(f.row, f.column) for f in repeated_keys(path)}
    assert found == {(5, "analyses.1.id"), (6, "study")}


def test_words_are_read_as_the_config_says(tmp_path):
    study = study_of(
        tmp_path,
        {"recode": {"mrs": {"dead": 6}, "auc": {"BLQ": 0.5}}},
        participants="participant_id|auc\n1|BLQ\n2|3",
        outcomes="participant_id|visit|outcome|value\n1|d90|mrs|dead\n2|d90|mrs|2",
    )
    assert study.sound
    assert study.sheets["outcomes"]["value"].tolist() == ["6", "2"]
    assert study.sheets["participants"]["auc"].tolist() == ["0.5", "3"]
    notes = [f.message for f in study.findings if "recode" in f.message]
    assert sorted(notes) == [
        "1 cells of auc were read as 0.5 (recode)",
        "1 cells of mrs were read as 6 (recode)",
    ]


def test_words_of_yaml_are_named(tmp_path):
    config = {"grades": {"tici": [False, True]}}
    with pytest.raises(StudyError) as error:
        study_of(tmp_path, config, participants="participant_id\n1")
    assert "YAML reads this word as a truth value" in str(error.value)
    assert "in quotes" in str(error.value)


@pytest.mark.parametrize(
    ("config", "output"),
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
def test_bad_configs_stop_with_their_key(tmp_path, config, output):
    with pytest.raises(StudyError) as caught:
        study_of(tmp_path, config, participants="participant_id\n1")
    assert output in str(caught.value)


def test_defaults_fill_a_block_given_in_part():
    full = Config.model_validate(
        {
            "study": {"id": "a"},
            "inputs": {"participants": "p"},
            "perfusion": {"hypoperfusion": {"tmax_s_above": 4.0}},
        }
    )
    assert full.perfusion.hypoperfusion.plain() == {"engine": "bayes", "tmax_s_above": 4.0}
    assert full.perfusion.core.below == 0.30
    assert full.study.disease == "stroke"


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
    output = messages(study_of(tmp_path, config, participants="participant_id|arm|age\n1|a|70"))
    assert "no such column in the participants sheet" in output
    assert "another analysis has this id" in output
    assert "not understood" in output
    assert "neither in the outcomes sheet nor a participants column" in output


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


# A busy machine is no fault.
@settings(deadline=None)
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
    found = preflight_findings(study, check_header)
    assert not errors(found)
    output = "\n".join(map(str, found))
    assert "not a NIfTI file" in output and "the file is missing" in output


def test_4d_where_3d_is_due_is_told(tmp_path):
    import nibabel as nib
    import numpy as np

    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 2), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    study = study_of(
        tmp_path,
        participants="participant_id\n1",
        scans="participant_id|visit|kind|path\n1|v|adc|a.nii.gz\n1|v|ctp|a.nii.gz",
    )
    output = "\n".join(map(str, preflight_findings(study, check_header)))
    assert "(3, 3, 3, 2), 4D, where a 3D image is due" in output


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


def test_preflight_and_the_image_job_say_the_same(tmp_path):
    import nibabel as nib
    import numpy as np

    from corelab.imaging import ImageFault, load_image

    sheared = np.diag([2.0, 2, 3, 1])
    sheared[0, 1] = 0.5
    for name, voxels, affine in (
        ("sheared", np.ones((5, 6, 7), np.float32), sheared),
        ("flat", np.ones((5, 6), np.float32), np.eye(4)),
        ("complex", np.ones((5, 6, 7), np.complex64), np.eye(4)),
    ):
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, affine), path)
        with pytest.raises(ImageFault) as early:
            check_header(path, kind="dwi")
        with pytest.raises(ImageFault) as late:
            load_image(path, kind="dwi")
        assert str(early.value) == str(late.value), name


# --- endpoints asked of scans that cannot show them ----------------------------------------------

PLAN = {
    "analyses": [
        {"id": "a", "type": "correlation", "endpoint": "haematoma_volume", "outcome": "age"}
    ]
}
PEOPLE = "participant_id|age\n1|60\n2|70"
DWI_ONLY = "participant_id|visit|kind|path\n1|v|dwi|a.nii.gz\n1|v|adc|b.nii.gz"


def test_haematoma_asked_of_dwi_is_an_error(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    study = study_of(tmp_path, dict(PLAN), participants=PEOPLE, scans=DWI_ONLY)
    output = [f for f in errors(study.findings) if "cannot show" in f.message]
    assert len(output) == 1
    assert output[0].message == "asked of adc, dwi, which cannot show haematoma"
    assert "ncct, gre" in output[0].remedy and output[0].column == "analyses.0.endpoint"


@pytest.mark.parametrize(
    ("more", "scans"),
    [
        ({}, DWI_ONLY + "\n1|v|ncct|c.nii.gz"),
        ({}, DWI_ONLY + "\n1|v|dicom|folder"),
        ({"measurement": {"shown_by": {"haematoma": ["dwi"]}}}, DWI_ONLY),
    ],
    ids=["there is a CT", "a DICOM folder may hold one", "the charter allows it"],
)
def test_what_can_show_it_is_no_error(tmp_path, more, scans):
    (tmp_path / "a.nii.gz").touch()
    study = study_of(tmp_path, {**PLAN, **more}, participants=PEOPLE, scans=scans)
    assert "cannot show" not in messages(study)


def test_reads_may_give_what_the_scans_cannot(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    reads = "participant_id|visit|endpoint|reader|value\n1|v|haematoma_volume|r1|3"
    study = study_of(tmp_path, dict(PLAN), participants=PEOPLE, scans=DWI_ONLY, reads=reads)
    assert "cannot show" not in messages(study)


def test_a_variant_named_after_a_kind_that_cannot_show_it(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    plan = {"analyses": [{**PLAN["analyses"][0], "source": "pipeline:dwi"}]}
    scans = DWI_ONLY + "\n1|v|ncct|c.nii.gz"
    study = study_of(tmp_path, plan, participants=PEOPLE, scans=scans)
    assert "asked of dwi, which cannot show haematoma" in messages(study)


def test_a_mask_on_a_scan_that_cannot_show_it(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    scans = DWI_ONLY + "\n1|v|mask-haematoma|m.nii.gz\n1|v|mask-infarct|i.nii.gz"
    study = study_of(tmp_path, {}, participants=PEOPLE, scans=scans)
    output = [f for f in errors(study.findings) if "cannot show" in f.message]
    assert [finding.value for finding in output] == ["mask-haematoma"]
    allowed = {"measurement": {"shown_by": {"haematoma": ["dwi"]}}}
    study = study_of(tmp_path / "b", allowed, participants=PEOPLE, scans=scans)
    assert "cannot show" not in messages(study)


# --- phantoms and the charter's calendar ---------------------------------------------------------

INSERTS = "site|scanner|acquired_at|insert|kind|certified_value|unit|measured_value|role"


def test_both_kinds_of_insert_are_required(tmp_path):
    one = INSERTS + "\na|S|2025-01-01|i1|adc|0.6|um2/ms|0.61|infarct"
    study = study_of(tmp_path, {}, participants=PEOPLE, phantoms=one)
    assert [f.message for f in errors(study.findings)] == [
        "no insert with a certified value stands for haemorrhage: both are required"
    ]
    both = one + "\na|S|2025-01-01|i2|ncct|60|HU|61|haemorrhage"
    assert study_of(tmp_path, {}, participants=PEOPLE, phantoms=both).sound


def test_inserts_need_something_to_measure_and_are_listed_once(tmp_path):
    rows = (
        INSERTS
        + "|path|mask_path"
        + "".join(
            f"\na|S|2025-01-01|{insert}|ncct|60|HU|{value}|{role}|{path}|{mask}"
            for insert, value, role, path, mask in (
                ("i1", "61", "haemorrhage", "n/a", "n/a"),
                ("i1", "61", "infarct", "n/a", "n/a"),
                ("i2", "n/a", "other", "n/a", "n/a"),
                ("i3", "n/a", "other", "image.nii.gz", "n/a"),
            )
        )
    )
    output = messages(study_of(tmp_path, {}, participants=PEOPLE, phantoms=rows))
    assert "listed twice for one scan (first in row 2)" in output
    assert "neither an image nor a measured value" in output
    assert "an image without a mask of its insert" in output


def test_trial_criteria_name_visits_and_columns_that_exist(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    trial = {
        "windows": {"day55": {"day": 5}},
        "complete": {"v": ["dwi"]},
        "imaging_to_treatment_minutes_max": 60,
    }
    config = {"acquisition": {"trial": trial}}
    study = study_of(tmp_path, config, participants=PEOPLE, scans=DWI_ONLY)
    columns = [finding.column for finding in errors(study.findings)]
    assert columns == ["acquisition.trial.windows.day55", "acquisition.trial.treated_at_column"]


def test_two_dicom_folders_of_one_visit_need_no_repeat(tmp_path):
    for name in ("ct", "dwi"):
        (tmp_path / name).mkdir()
    sheet = "participant_id|visit|kind|path\n1|v|dicom|ct\n1|v|dicom|dwi"
    study = study_of(tmp_path, participants="participant_id\n1", scans=sheet)
    assert study.sound, messages(study)
    assert [(row.scan_id, row.repeat) for row in study.scans] == [
        ("sub-1_ses-v_dicom", 1),
        ("sub-1_ses-v_dicom_run-2", 1),
    ]


def test_one_dicom_folder_named_twice_is_an_error(tmp_path):
    (tmp_path / "ct").mkdir()
    sheet = "participant_id|visit|kind|path\n1|v|dicom|ct\n1|v|dicom|ct"
    assert "listed twice" in messages(
        study_of(tmp_path, participants="participant_id\n1", scans=sheet)
    )


@pytest.mark.parametrize(
    ("reference", "remedy"),
    [
        ("01", "put the code in quotes, as the sheet has it: 01, 02, 10"),
        ("012", "put the code in quotes"),  # which YAML takes for 10 in base 8, another site
        ("'1'", "did you mean '"),
        ("'centre'", "known: 01, 02, 10"),
        ("'01'", None),
    ],
)
def test_a_reference_that_no_participant_has_is_an_error(tmp_path, reference, remedy):
    text = f"{{id: a, type: comparison, endpoint: e, by: site, reference: {reference}}}"
    analysis = yaml.safe_load(text)
    study = study_of(
        tmp_path,
        {"analyses": [analysis]},
        participants="participant_id\tsite\n1\t01\n2\t02\n3\t10\n",
        reads="participant_id\tvisit\tendpoint\treader\tvalue\n1\tv\te\tr\t1\n",
    )
    found = [f for f in study.findings if f.column == "analyses.0.reference"]
    assert [f.remedy.startswith(remedy) for f in found] == [True] * (remedy is not None)


def test_keys_that_are_no_text_are_named(tmp_path):
    with pytest.raises(StudyError) as error:
        study_of(tmp_path, {"recode": {"mrs": {1: 6}}}, participants="participant_id\n1\n")
    assert "YAML reads this key as a number" in str(error.value)
    assert "put the key in quotes" in str(error.value)


def test_a_row_of_the_scans_sheet_has_its_numbers_and_its_defaults(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"123")
    sheet = """participant_id|visit|kind|path|reader|repeat|echo_time_s|b_value|acquired_at
    1|v|dwi|a.nii|n/a|n/a|0.03|1000|2024-01-01T10:00
    1|v|mask-infarct|b.nii|r1|2|n/a|n/a|n/a"""
    study = study_of(tmp_path, participants="participant_id\n1", scans=sheet)
    dwi, mask = study.scans
    assert (dwi.echo_time_s, dwi.b_value, dwi.acquired_at) == (0.03, 1000.0, "2024-01-01T10:00")
    assert (dwi.scan_id, dwi.source, dwi.line) == ("sub-1_ses-v_dwi", "a.nii", 2)
    assert (dwi.repeat, dwi.space, dwi.exists, dwi.bytes) == (1, "native", True, 3)
    assert (mask.label, mask.reader, mask.repeat, mask.exists) == ("infarct", "r1", 2, False)
    assert mask.key == ("1", "v") and mask.is_mask and not dwi.is_mask
