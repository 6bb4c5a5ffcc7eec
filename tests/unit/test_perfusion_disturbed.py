"""Disturbed series: repaired or refused, never silent (short form; long: tests/acceptance)."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from disturbed_series import (
    FURTHER,
    REVIEWED,
    Scan,
    analysed,
    is_wrong,
    new_flags,
    scan_of,
)
from helpers import prepare_rows
from perfusion_heads import HeadCase, simulate_head, write_head

from corelab.imaging import brain_mask
from corelab.perfusion import PerfusionError, fit_perfusion, perfuse_visit
from corelab.perfusion.series import SeriesOptions, analyse_series
from corelab.settings.perfusion import PerfusionSettings

CASE = HeadCase(
    "small", family="linear", side="right", core_ml=30.0, hypoperfused_ml=140.0,
    shape=(60, 72, 6), voxel_mm=(3.0, 3.0, 10.0), noise=3.0, bolus_arrival_s=9.0, seed=1,
)  # fmt: skip
ALL = {one.name: one for one in (*REVIEWED, *FURTHER)}
#: Disturbances that are repaired: the result is right, and the repair is reported.
REPAIRED = (
    "slice zero in one frame", "frame +5 HU", "frame +60 HU", "baseline frame +10 HU",
    "drift +6 HU", "two bright frames", "last frame +20", "drift -4 HU", "spikes",
    "half a slice lost in one frame", "one frame NaN", "step +5 HU",
)  # fmt: skip
#: Disturbances that do no harm, or whose harm is corrected: no FAIL.
TOLERATED = ("cut at 45 s", "motion 2 mm 1 deg", "drift +1 HU", "second bolus")


@pytest.fixture(scope="module")
def base():
    return analysed(scan_of(simulate_head(CASE)))


def test_an_undisturbed_head_is_not_flagged(base):
    assert set(base.verdicts.values()) <= {"pass", "not_assessable"}, base.verdicts


@pytest.mark.parametrize("name", REPAIRED)
def test_what_is_disturbed_is_repaired_and_reported(base, name):
    run = analysed(ALL[name].scan(CASE))
    assert not is_wrong(run, base), (run.core_ml, run.late_ml, base.core_ml, base.late_ml)
    assert new_flags(run, base)


@pytest.mark.parametrize("name", TOLERATED)
def test_what_does_no_harm_does_not_fail(base, name):
    run = analysed(ALL[name].scan(CASE))
    assert not is_wrong(run, base)
    assert "fail" not in run.verdicts.values(), run.verdicts


def test_a_second_bolus_is_flagged(base):
    assert "second_rise_share warn" in new_flags(analysed(ALL["second bolus"].scan(CASE)), base)


def test_motion_of_4_mm_does_not_fail_and_is_flagged(base):
    """It is corrected; on one head in six the core stays too large, which a WARN has to say."""
    run = analysed(ALL["motion 4 mm 3 deg"].scan(CASE))
    assert "fail" not in run.verdicts.values(), run.verdicts
    assert new_flags(run, base)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no baseline", "no frame before the bolus"),
        ("HU + 1024", "offset of 1024 HU"),
        ("time first", "is not time"),
        ("no bolus", "arterial input"),
    ],
)
def test_what_cannot_be_repaired_is_refused_for_the_right_reason(name, message):
    assert message in analysed(ALL[name].scan(CASE)).refused


@pytest.mark.parametrize("name", ["slice zero", "rings appear", "drift +5 HU in lower slices"])
def test_what_is_left_is_flagged(base, name):
    assert new_flags(analysed(ALL[name].scan(CASE)), base)


def test_a_lost_frame_of_dsc_is_replaced_too():
    head = simulate_head(
        HeadCase("d", modality="dsc", noise=8.0, shape=(60, 72, 6), voxel_mm=(3.0, 3.0, 10.0))
    )
    scan = scan_of(head)
    scan.signal[:, :, 2, 14] = 0
    found = analyse_series(
        scan.signal,
        scan.affine,
        scan.times_s,
        "dsc",
        scan.brain,
        SeriesOptions(echo_time_s=0.03, threads=1, correct_leakage=True),
    )
    assert np.argwhere(found.odd).tolist() == [[2, 14]]


def test_a_brain_that_no_head_holds_is_refused():
    scan = scan_of(simulate_head(CASE))
    affine = scan.affine @ np.diag([1.0, 1.0, 3.0, 1.0])
    with pytest.raises(PerfusionError, match="no brain is larger"):
        analyse_series(scan.signal, affine, scan.times_s, "ctp", scan.brain)


# --- through the stages -----------------------------------------------------------------------


def visit_of(tmp_path, change=None, sidecar=None):
    """Record of ``perfuse`` of a head whose file was changed."""
    head = simulate_head(CASE)
    path = write_head(head, tmp_path)[0]
    if change is not None:
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, dtype=np.float32).copy()
        nib.save(nib.Nifti1Image(change(voxels), image.affine, image.header), path)
    if sidecar is not None:
        beside = path.with_name(path.name.replace(".nii.gz", ".json"))
        beside.write_text(json.dumps({**json.loads(beside.read_text()), **sidecar}))
    row = {"participant_id": "01", "visit": "v", "kind": "ctp", "path": str(path), "scan_id": "s"}
    record = prepare_rows([row], tmp_path / "out")
    settings = PerfusionSettings(figures=False)
    return record, perfuse_visit(record, tmp_path / "out", settings=settings)


def test_frames_and_slices_that_were_replaced_are_named(tmp_path):
    def change(voxels):
        voxels[:, :, 2, 16] = 0.0
        voxels[..., 25] = np.nan
        return voxels + 1024

    record, result = visit_of(tmp_path, change)
    assert any("1024 was subtracted" in note for note in record.scans[0].notes)
    assert result.status == "ok", result.reason
    (note,) = result.notes
    assert "frame 17 (24 s, slice 3)" in note and "frame 26 (37.5 s, all slices)" in note
    assert all(note in mask.reason for mask in result.masks)
    verdicts = {row.criterion: row.verdict for row in result.gates}
    assert verdicts["replaced_frames_share"] == "warn"


def test_times_that_the_header_contradicts_are_flagged(tmp_path):
    times = {"FrameTimes": (0.75 * np.arange(40)).tolist()}
    record, result = visit_of(tmp_path, sidecar=times)
    assert any("one of them is wrong" in note for note in record.scans[0].notes)
    rows = {row.criterion: row for row in result.gates}
    assert rows["header_interval_ratio"].verdict == "warn"
    assert rows["header_interval_ratio"].value == pytest.approx(2.0)


def test_lesions_that_no_head_holds_are_no_numbers(tmp_path, monkeypatch):
    from corelab.perfusion import visit

    monkeypatch.setattr(
        visit, "_volume_gates", lambda *_: {"core_share": 0.1, "hypoperfused_share": 0.9}
    )
    _, result = visit_of(tmp_path)
    assert result.status == "not_computable" and result.masks == ()
    assert "hypoperfused lesion takes 90% of the grey and white matter" in result.reason
    assert {q.status for q in result.quantities} == {"not_computable"}


# --- time to peak and single slices -----------------------------------------------------------


@pytest.mark.parametrize("interval", [1.0, 1.5, 2.0])
def test_time_to_peak_is_that_of_the_curve_and_not_of_a_frame(interval):
    """Gamma variates have their peak at arrival + shape x scale."""
    times = np.arange(0, 60, interval)
    starts = np.linspace(8.0, 14.0, 200)
    late = np.clip(times - starts[:, None], 0, None) / 7.0
    curves = late**3 * np.exp(3 * (1 - late))
    artery = np.clip(times - 4.0, 0, None) ** 3 * np.exp(-(times - 4.0) / 1.8)
    found = fit_perfusion(curves, times, artery, "concentration", "osvd").ttp_s
    apart = found - found[0] - (starts - starts[0])
    assert np.abs(apart - np.median(apart)).max() < 0.06 * interval
    # Shares of tissue below a limit, which whole frames shift by up to half a frame.
    for limit in (2.0, 4.0):
        share = np.mean(found - found[0] < limit)
        assert share == pytest.approx(np.mean(starts - starts[0] < limit), abs=0.03)


@pytest.mark.parametrize("kind", ["dsc", "ctp"])
def test_a_single_slice_is_a_brain_too(kind):
    case = HeadCase("one", modality=kind, noise=8.0 if kind == "dsc" else 4.0, duration_s=12.0,
                    shape=(112, 136, 8), voxel_mm=(1.7, 1.7, 6.0))  # fmt: skip
    head = simulate_head(case)
    truth = scan_of(head).brain[:, :, 4:5]
    mask = brain_mask(nib.Nifti1Image(head.signal[:, :, 4:5], head.affine), kind)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93


def test_a_single_slice_is_analysed():
    head = simulate_head(CASE)
    scan = scan_of(head)
    one = Scan(scan.signal[:, :, 2:3], scan.times_s, scan.affine, scan.brain[:, :, 2:3])
    run = analysed(one)
    assert run.refused is None and run.late_ml > 0
    assert run.verdicts["coverage_mm"] == "fail"
