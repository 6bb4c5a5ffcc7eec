"""Small parts of provenance, each by an example whose answer is known."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corelab.provenance import (
    alternatives,
    compare,
    compiled,
    contents,
    decisions,
    digest,
    failures,
    ledger,
    manifest,
    progress,
)
from corelab.provenance.exhibits import Alarm, read_exhibits, write_exhibit
from corelab.provenance.figure_style import svg_of
from corelab.provenance.reproduce import _reproduce_text


def test_other_forms_of_a_description():
    assert alternatives.describe(np.array([1.0, 2.0, 3.0, 10.0]))["quartile_1"] == 1.75
    assert list(alternatives.of_values("sd", np.array([1.0, 3.0]))) == [("population SD", 1.0)]


@pytest.mark.parametrize(
    ("low", "expected"), [("0.49", (0.5827, 0.585)), ("0.52", None)], ids=["fits", "contradicts"]
)
def test_range_of_a_rounded_correlation(low, expected):
    """A printed r of 0.58 (0.49 to 0.67) of 213 pairs."""
    found = alternatives._unrounded_r("0.58", low, "0.67", 213)
    assert (found and tuple(round(v, 4) for v in found)) == expected
    assert alternatives._unrounded_r("0.58", low, "0.67", 3) is None


def test_numbers_of_two_tables_side_by_side():
    a = pd.DataFrame({"k": ["x", "y"], "v": [1.0, 2.0]})
    b = pd.DataFrame({"k": ["x", "z"], "v": [1.5, 2.0]})
    found = compare._compare_tables(a, b, ["k"], "v")[["key", "verdict"]].values.tolist()
    assert found == [["x", "different"], ["y", "only_this"], ["z", "only_other"]]


def test_compiled_loops_are_kept_in_a_folder_or_nowhere():
    folder = compiled._cache_folder()
    assert folder is None or folder.is_dir()


def test_inputs_by_stamp_and_content(tmp_path):
    file, study = tmp_path / "a", tmp_path / "results"
    file.write_text("1")
    before = contents._stamp_of(file), contents._stamp_of(tmp_path)
    assert (
        contents._content_of(file)[:8] == "6b86b273" and len(contents._content_of(tmp_path)) == 64
    )
    job = contents.Reader("collect", ("r/x",), contents.used([str(file)], study))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text("12")
    assert before[0] != contents._stamp_of(file) and before[1] != contents._stamp_of(tmp_path)
    assert contents._stamp_of(tmp_path / "b") is None
    file.write_text("2")
    os.utime(file, ns=times)  # as `cp -p` would leave it
    assert list(contents.compare([job], study).outputs) == ["r/x"]
    file.write_text("1")
    assert contents.compare([job], study).outputs == {}
    names = ("data/a.nii", "r/s/maps/a.nii", "r/s/review/a.tsv")
    assert [contents._is_input(name, Path("r/s")) for name in names] == [True, False, True]


def test_digest_of_a_line_of_decisions():
    assert decisions._line_digest(["1", "a"])[:12] == "9329e26f9aac"


def test_the_digest_of_a_script_follows_what_it_imports(tmp_path):
    (tmp_path / "corelab").mkdir()
    (tmp_path / "corelab" / "__init__.py").write_text("")
    module, script = tmp_path / "corelab" / "a.py", tmp_path / "run.py"
    module.write_text("X = 1")
    script.write_text("from corelab.a import X")
    first = digest.digest_of_script(str(script))
    module.write_text("X = 2")
    for cached in (digest._content, digest.digest_of_script):
        cached.cache_clear()
    assert digest.digest_of_script(str(script)) != first


def test_an_exhibit_is_read_as_it_was_written(tmp_path):
    alarms = [Alarm("warning", "Site 2 drifts", ("1",))]
    path = write_exhibit(
        tmp_path / "exhibits" / "drift.json",
        section="quality",
        title="Drift",
        alarms=alarms,
        columns={"b": "B", "a": "A"},
    )
    (exhibit,) = read_exhibits(tmp_path)
    assert (exhibit.name, exhibit.title, list(exhibit.alarms)) == ("drift", "Drift", alarms)
    assert list(exhibit.columns) == ["b", "a"] and "name" not in json.loads(path.read_text())
    with pytest.raises(ValueError, match="unknown section"):
        write_exhibit(tmp_path / "x.json", section="x", title="t")
    with pytest.raises(ValueError, match="unknown severity"):
        write_exhibit(tmp_path / "x.json", section="quality", title="t", alarms=[Alarm("x", "t")])
    with pytest.raises(ValueError, match="does not lie beside it"):
        write_exhibit(tmp_path / "x.json", section="quality", title="t", figure="x.svg")


def test_records_by_stage_and_their_list(tmp_path):
    names = ["derivatives/sub-1/ses-a/prepare.json", "endpoints/batches/0.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = failures.by_stage(tmp_path, [tmp_path / name for name in names])
    assert found == {"prepare": names[:1], "measure_supplied": names[1:]}
    failures.write_record_list(tmp_path, [tmp_path / name for name in names], tmp_path / "l.json")
    listed = failures.listed_records(tmp_path / "l.json", tmp_path, {"prepare"})
    assert listed == [tmp_path / names[0]]


def test_jobs_of_the_ledger():
    assert ledger.place_of(Path("a.log"), None) is None
    assert not ledger.Entry("done").alive
    assert not ledger.Entry("running", pid=1, host="no-such-host").alive


def test_times_in_the_future_are_set_to_now(tmp_path):
    (tmp_path / "jobs" / "plan").mkdir(parents=True)
    (tmp_path / "a.tsv").touch()
    assert ledger.clamp_future_mtimes(tmp_path) == 0
    for name in ("a.tsv", "jobs/plan"):
        os.utime(tmp_path / name, (4e9, 4e9))
    assert ledger.clamp_future_mtimes(tmp_path) == 1
    assert (tmp_path / "a.tsv").stat().st_mtime < 4e9


def test_the_command_that_retries():
    found = ledger.retry_command("r/x.json", ["s.yaml"], {"data_dir": "d"})
    head = "snakemake --cores 1 --rerun-incomplete --configfile s.yaml"
    assert found == f"{head} --config data_dir=d -- r/x.json"


def test_products_and_what_they_are(tmp_path):
    for name in ("maps/a.txt", "logs/b"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    assert list(manifest._product_files(tmp_path)) == ["maps/a.txt"]
    mask = "derivatives/sub-1/ses-a/dwi/sub-1_label-infarct_mask.nii.gz"
    assert (manifest._role_of(mask), manifest._role_of("maps/x")) == (
        "mask",
        "lesion frequency map",
    )
    names = ("derivatives/sub-1/ses-a/segment.json", "endpoints/measurements.tsv")
    assert [manifest._rule_of(name) for name in names] == ["segment", "collect"]
    plain = manifest._host_independent({"path": "/data/x/a.nii", "n": 1, "of": ["rel/b"]})
    assert plain == {"path": "a.nii", "n": 1, "of": ["rel/b"]}


def test_faults_of_a_record_and_their_lines(tmp_path):
    path = tmp_path / "prepare.json"
    scan = {"scan_id": "a.nii", "status": "failed", "reason": "truncated"}
    path.write_text(json.dumps({"participant_id": "1", "scans": [scan]}))
    assert progress._record_faults(path) == [("1", "", "a.nii: truncated")]
    one = ledger.Failure("sub-1", "ses-a", "prepare", "truncated", "x.log", "x.json")
    assert progress._failure_lines([one], lambda one: f"snakemake -- {one.target}") == [
        "sub-1 ses-a, prepare: truncated",
        "    log:   x.log",
        "    retry: snakemake -- x.json",
    ]


def test_how_to_repeat_a_run():
    text = _reproduce_text(manifest.Manifest({"id": "a"}, {}, "11"), "22")
    assert ".venv/bin/snakemake --configfile THIS_FOLDER/provenance/config.json" in text


def test_a_figure_as_text():
    from matplotlib.figure import Figure

    assert "<svg" in svg_of(Figure(figsize=(1, 1)))
