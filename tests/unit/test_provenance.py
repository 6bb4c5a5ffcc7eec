"""Provenance: products are whole or absent, bytes follow content, and changes are noticed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corelab.provenance import manifest
from corelab.provenance.certificate import certificate
from corelab.provenance.compare import compare_studies
from corelab.provenance.job import UserError
from corelab.provenance.manifest import (
    Manifest,
    Source,
    StoredProducts,
    _product_files,
    _rule_of,
    build_manifest,
    show_verified,
    verify,
    verify_lines,
)
from corelab.provenance.products import (
    atomic_path,
    format_cell,
    json_text,
    plain,
    read_table,
    write_json,
    write_table,
)
from corelab.provenance.rules import workflow_rules
from corelab.settings.study import StudySettings

EMPTY = {"study": StudySettings(id="s"), "plan_fingerprint": "", "code": {}, "sources": []}


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_as_they_were(number):
    assert float(format_cell(number)) == number


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_tables_keep_every_bit(numbers):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = write_table(pd.DataFrame({"v": numbers}), Path(folder, "a.tsv"), ["v"], sort=False)
        assert read_table(path, numeric=["v"])["v"].tolist() == numbers


CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
CONTENT = st.recursive(
    CELLS, lambda some: st.lists(some) | st.dictionaries(st.text() | st.integers(), some)
)


@settings(deadline=None)
@given(CONTENT)
@example({1: "a", "1": "b", "0": []})
def test_json_is_written_as_the_standard_library_does(content):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = write_json(content, Path(folder, "a.json")).read_text(encoding="utf-8")
    known = json.dumps(plain(content), indent=2, sort_keys=True, ensure_ascii=False)
    assert text == known + "\n"


def test_long_json_is_written_piece_by_piece(tmp_path):
    pairs = {"b/2": StoredProducts(tmp_path / "none.jsonl"), "a": iter([Source("x", "00"), ()])}
    (tmp_path / "none.jsonl").write_text('["b", "11", 3, "map", "maps"]\n["a", "22", 4]\n')
    found = json.loads(write_json(pairs, tmp_path / "a.json").read_text())
    assert found["a"] == [{"name": "x", "sha256": "00"}, []]
    assert list(found["b/2"]) == ["b", "a"]  # pairs keep their order
    assert found["b/2"]["b"] == {"sha256": "11", "bytes": 3, "role": "map", "rule": "maps"}


def test_products_sort_as_their_paths_do(tmp_path):
    names = [
        "maps/a/b.txt",
        "maps/a.txt",
        "maps/a-b/c",
        "maps/a0",
        "maps/.x",
        "maps/a/.y/z",
        "endpoints/q",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "maps" / "link").symlink_to(tmp_path / "maps" / "a")
    known = sorted(name for name in names if name != "maps/.x")
    assert list(_product_files(tmp_path)) == known


def test_table_bytes_do_not_depend_on_row_order(tmp_path):
    frame = pd.DataFrame({"id": ["007", "1", None], "v": [0.1, np.nan, 3.0]})
    first = write_table(frame, tmp_path / "a.tsv", ["id", "v"]).read_bytes()
    second = write_table(frame.iloc[::-1], tmp_path / "b.tsv", ["id", "v"]).read_bytes()
    assert first == second
    assert b"007" in first and b"n/a" in first


def test_tables_survive_a_round_trip(tmp_path):
    frame = pd.DataFrame({"id": ["007", "=1+1"], "v": [1 / 3, np.nan]})
    write_table(frame, tmp_path / "a.tsv", {"id": "identifier", "v": "value"})
    back = read_table(tmp_path / "a.tsv", numeric=["v"])
    assert back["id"].tolist() == ["007", "=1+1"]
    assert back["v"][0] == 1 / 3 and np.isnan(back["v"][1])
    assert (tmp_path / "a.json").is_file()


def test_verification_names_what_changed_and_the_first_cause(tmp_path):
    for name in ("endpoints/measurements.tsv", "report/index.html", "maps/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    manifest = build_manifest(tmp_path, **EMPTY)
    manifest.write(tmp_path / "provenance" / "manifest.json")
    stored = Manifest.read(tmp_path / "provenance" / "manifest.json")
    assert dict(stored.products) == dict(manifest.products) and len(stored.products) == 3
    assert replace(stored, products=manifest.products) == manifest
    assert {row.verdict for row in verify(tmp_path, stored)} == {"same"}
    assert "3 of 3 products" in verify_lines(tmp_path)[0]
    (tmp_path / "endpoints/measurements.tsv").write_text("forged")
    (tmp_path / "report/index.html").unlink()
    (tmp_path / "maps/b.txt").write_text("new")
    rows = list(verify(tmp_path, stored))
    assert [row.file for row in rows] == sorted(row.file for row in rows)
    table = {row.file: row.verdict for row in rows}
    assert table["endpoints/measurements.tsv"] == "different"
    assert table["report/index.html"] == "missing"
    assert table["maps/b.txt"] == "unlisted"
    with pytest.raises(UserError, match=r"First cause: endpoints/measurements\.tsv"):
        verify_lines(tmp_path)


def test_manifest_holds_nothing_of_the_place(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.txt").write_text("x")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("time of day")
    text = json_text(build_manifest(tmp_path, **EMPTY))
    assert str(tmp_path) not in text and "a.log" not in text


def test_certificate_verdicts():
    statistics = pd.DataFrame(
        {
            "analysis_id": "a",
            "statistic": ["icc_a_1", "icc_a_1"],
            "group": ["x|y", "x|z"],
            "participant_id": "all",
            "estimate": [0.7968, 0.5],
            "ci_low": [0.6891, np.nan],
            "ci_high": [0.8692, np.nan],
            "note": ["", "not_computable: single reader"],
        }
    )
    published = pd.DataFrame(
        {
            "published_id": ["p1", "p2", "p3"],
            "analysis_id": "a",
            "statistic": "icc_a_1",
            "estimate": ["0.797", "0.6", "0.5"],
            "ci_low": ["0.689", None, None],
            "ci_high": [None] * 3,
            "tolerance": ["0.002", None, None],
            "group": ["x|y", "x|z", None],
        }
    )
    table = certificate(published, statistics, numeric_tolerance=1e-8)
    assert table["verdict"].tolist() == ["reproduced", "reproduced", "different", "not_computable"]
    assert "2 rows match" in table["note"].iloc[-1]


JOB = """
import sys
from types import SimpleNamespace
from corelab.provenance.job import UserError, job
with job(SimpleNamespace(threads=1, log=[sys.argv[1]])):
    print("from python")
    import os
    os.write(1, b"from C\\n")
    {what}
"""


@pytest.mark.parametrize(
    ("what", "code", "terminal", "log"),
    [
        ("pass", 0, "", "from C"),
        ("raise UserError('mend it')", 1, "mend it", "mend it"),
        ("raise KeyError('bug')", 1, "KeyError: 'bug'", "Traceback"),
    ],
)
def test_a_job_logs_everything_and_fails_in_one_line(tmp_path, what, code, terminal, log):
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(what=what), str(tmp_path / "a.log")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow" / "scripts")},
    )
    text = (tmp_path / "a.log").read_text()
    assert done.returncode == code
    assert terminal in done.stderr and "Traceback" not in done.stderr and "from" not in done.stdout
    assert log in text and "from python" in text


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("derivatives/sub-1/ses-a/prepare.json", "prepare"),
        ("derivatives/sub-1/ses-a/radiomics.tsv", "radiomics"),
        ("derivatives/sub-1/ses-a/figures/sub-1_ses-a_desc-tile_qc.png", "quality_figures"),
        ("derivatives/sub-1/ses-a/anat/sub-1_from-T1w_to-x_mode-image_xfm.mat", "normalise"),
        ("endpoints/control_charts.tsv", "quality"),
        ("endpoints/noise_floor.tsv", "noise_floor"),
        ("statistics/plan_deviations.tsv", "plan"),
        ("statistics/agreement.tsv", "statistics_tables"),
        ("exhibits/analysis_s/s_km_os.svg", "draw"),
        ("exhibits/registration.png", "contact_sheet"),
        ("quality/registration.tsv", "contact_sheet"),
        ("quality/failures.tsv", "failures"),
        ("preflight/findings.tsv", "check_inputs"),
    ],
)
def test_a_product_is_told_with_the_rule_that_wrote_it(name, rule):
    assert _rule_of(name) == rule and rule in {found.name for found in workflow_rules()}


def test_every_folder_of_products_has_its_place_upstream_or_downstream():
    files = [f"{folder}/x" for folder in reversed(manifest.PRODUCT_FOLDERS)]
    assert manifest._first_cause(Path(), files) == "preflight/x"


def _results(folder, volume, floor=None):
    rows = pd.DataFrame({name: ["1"] for name in ("participant_id", "repeat")})
    rows = rows.assign(visit="a", endpoint="infarct_volume", source="pipeline", region="all")
    write_table(
        rows.assign(value=volume), folder / "endpoints/measurements.tsv", ["participant_id"]
    )
    header = ["analysis_id", "endpoint", "visit", "participant_id", "group", "statistic", "method"]
    empty = pd.DataFrame(columns=[*header, "estimate"])
    write_table(empty, folder / "statistics/survival.tsv", list(empty))
    if floor is not None:
        known = rows.assign(minimal_detectable_change=floor)
        write_table(known, folder / "endpoints/noise_floor.tsv", ["endpoint"])
    return folder


def test_two_studies_are_compared_against_the_noise_also_with_empty_tables(tmp_path):
    this = _results(tmp_path / "a", 10.0, floor=0.5)
    output = compare_studies(this, _results(tmp_path / "b", 10.4))
    assert "noise floor known for 1 endpoints" in output[1] and "1 below_noise" in output[2]
    output = compare_studies(this, _results(tmp_path / "c", 12.0))
    assert any("infarct_volume pipeline 1 all: 12 -> 10 (-18.2 %)" in line for line in output)
    table = read_table(this / "comparison/compared.tsv", numeric=["difference", "noise_floor"])
    assert table[["difference", "noise_floor"]].to_numpy().tolist() == [[-2.0, 0.5]]
    assert "1 same" in compare_studies(this, this)[2]
    with pytest.raises(UserError, match=r"no endpoints/measurements.tsv"):
        compare_studies(this, tmp_path)


def test_the_report_says_what_was_verified_and_stays_verified(tmp_path):
    (tmp_path / "report").mkdir()
    show_verified(tmp_path)
    assert list(_product_files(tmp_path)) == []  # a study without a report gets none
    (tmp_path / "report" / "index.html").write_text("page")
    show_verified(tmp_path)
    said = tmp_path / "report" / "verified.js"
    assert said.read_text() == "globalThis.VERIFIED = null;\n"
    show_verified(tmp_path, {"same": 1, "different": 1})
    assert "1 of 2 files agree" in said.read_text() and '"bad"' in said.read_text()
    assert list(_product_files(tmp_path)) == ["report/index.html"]


def test_only_the_columns_that_are_needed_are_read(tmp_path):
    write_table(pd.DataFrame({"id": ["1"], "path": ["x"], "v": [2.5]}), tmp_path / "a.tsv", ["id"])
    found = read_table(tmp_path / "a.tsv", numeric=["v"], columns=("v", "id", "absent"))
    assert found.to_dict("list") == {"id": ["1"], "v": [2.5]}
