"""Digital quality phantoms, measured: sound ones pass, one with +10 % scale fails."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from corelab.agreement.phantoms import _conformance_rows, _drift, phantom_verdicts
from corelab.imaging.inserts import insert_values, inserts_frame, measure_inserts
from corelab.phantom.inserts import simulate_inserts
from corelab.records.images import InsertRow
from corelab.settings.acquisition import PhantomQaSettings

QA = PhantomQaSettings()
DESIGNS = {
    "adc": ("adc", "mm2/s", (0.45e-3, 0.6e-3, 0.83e-3, 1.1e-3, 2.0e-3)),
    "adc-um": ("adc", "10^-6 mm2/s", (450, 600, 830, 1100, 2000)),
    "ct": ("ncct", "HU", (0, 25, 37, 60, 80)),
    "volume": ("ncct", "mL", (2, 10, 30)),
}


def rows_of(folder, design, date="2025-01-01", scale=1.0):
    kind, unit, values = DESIGNS[design]
    paths = [folder / f"{design}_{date}_{part}.nii.gz" for part in ("image", "labels")]
    rows = [
        {
            "site": "a",
            "scanner": "S",
            "acquired_at": date,
            "insert": f"i{number}",
            "kind": kind,
            "unit": unit,
            "certified_value": float(value),
            "role": "infarct",
            "label_values": str(number),
            "path": str(paths[0]),
            "mask_path": str(paths[1]),
        }
        for number, value in enumerate(values, start=1)
    ]
    simulate_inserts(inserts(rows), *paths, scale=scale, seed=1)
    return rows


def inserts(rows):
    return [InsertRow.from_row(row) for row in rows]


def table(rows):
    return inserts_frame(measure_inserts(inserts(rows)))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_a_sound_phantom_passes_and_ten_percent_of_scale_fails(tmp_path, design, scale):
    found = table(rows_of(tmp_path, design, scale=scale))
    assert (found["status"] == "ok").all()
    verdicts = phantom_verdicts(found, QA)
    judged = verdicts[verdicts["verdict"] != "not_assessable"].set_index("criterion")
    assert judged.loc["slope", "value"] == pytest.approx(scale, abs=0.02)
    if scale == 1.0:
        assert set(judged["verdict"]) == {"pass"}
    else:
        assert judged.loc["slope", "verdict"] == "fail"
        assert judged.loc["r_squared", "verdict"] == "pass"
    assert judged["citation"].str.len().min() > 10


def test_means_sd_and_volumes_are_those_that_were_made(tmp_path):
    found = table(rows_of(tmp_path, "ct"))
    assert found["measured_value"].astype(float).to_numpy() == pytest.approx(
        [0, 25, 37, 60, 80], abs=0.3
    )
    # Noise of 3 HU, smoothed in plane with a Gaussian of half a voxel before it is added: 3 HU.
    assert found["measured_sd"].astype(float).median() == pytest.approx(3.0, rel=0.05)
    assert found.uniformity_percent.isna().all()  # no percent of a scale with a free zero
    assert found["uniformity_range"].astype(float).max() < 1.5
    volumes = table(rows_of(tmp_path, "volume"))
    error = volumes["measured_value"].astype(float) / volumes["certified_value"].astype(float)
    assert error.to_numpy() == pytest.approx([1, 1, 1], abs=0.04)


def test_uniformity_against_its_formula():
    """A ramp from 95 to 105 over 41 mm; means over 10 mm run from 96.25 to 103.75 or so."""
    ramp = np.broadcast_to(np.linspace(95, 105, 41)[:, None, None], (41, 41, 2))
    found = insert_values(ramp, np.ones(ramp.shape, bool), np.array([1.0, 1, 5]))
    low, high = ramp[:10].mean(), ramp[-10:].mean()
    assert found.uniformity_percent == pytest.approx(
        100 * (1 - (high - low) / (high + low)), abs=0.3
    )


def test_repeatability_and_drift_are_judged_over_time(tmp_path):
    rows = []
    for number, date in enumerate(("2025-01-01", "2025-07-01", "2026-01-01")):
        rows += rows_of(tmp_path, "adc", date, scale=1 + 0.02 * number)
    limits = [
        {"statistic": "drift_percent_per_year", "min": -2, "max": 2, "citation": "charter 4.2"},
        {"statistic": "repeatability_coefficient_percent", "max": 10, "citation": "charter 4.3"},
    ]
    verdicts = phantom_verdicts(table(rows), PhantomQaSettings(limits=limits))
    over_time = verdicts[verdicts["acquired_at"] == "all"].set_index("criterion")
    assert over_time.loc["drift_percent_per_year", "value"] == pytest.approx(4.0, abs=0.3)
    assert over_time.loc["drift_percent_per_year", "verdict"] == "fail"
    assert over_time.loc["repeatability_coefficient_percent", "verdict"] == "pass"
    output = {row.statistic: row for row in _conformance_rows(verdicts)}
    row = output["conformance:drift_percent_per_year"]
    assert row.estimate == 0 and "charter 4.2" in row.note
    assert output["conformance:slope"].estimate == 1


def test_drift_is_the_slope_in_time():
    years = np.array([0, 0, 1, 1, 2, 2.0])
    found = _drift(years, 3 * years + np.array([0.1, -0.1] * 3))
    assert found.estimate == pytest.approx(3.0)


def test_faults_are_a_status_of_their_insert(tmp_path):
    rows = rows_of(tmp_path, "adc")
    rows[0]["mask_path"] = str(tmp_path / "gone.nii.gz")
    rows[1]["label_values"] = "99"
    rows[2]["unit"] = "furlongs"
    found = table(rows).set_index("insert")
    assert "is missing" in found.loc["i1", "reason"]
    assert "no voxel of the label 99" in found.loc["i2", "reason"]
    assert "no unit of a diffusion coefficient" in found.loc["i3", "reason"]
    assert found.loc[["i4", "i5"], "status"].tolist() == ["ok", "ok"]


def test_a_volume_may_be_given_by_its_mask_alone(tmp_path):
    mask = np.zeros((20, 20, 10), np.uint8)
    mask[2:12, 2:12, 2:7] = 1
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2, 2, 1])), path)
    row = {"site": "a", "scanner": "S", "acquired_at": "1", "insert": "x", "kind": "ncct"}
    row |= {"unit": "mm3", "certified_value": 4000.0, "mask_path": str(path)}
    assert table([row])["measured_value"][0] == pytest.approx(4000)
    (output,) = measure_inserts(inserts([{**row, "unit": "HU"}]))
    assert output.status == "failed" and "has a mask and no image" in output.reason


def test_a_low_contrast_insert_gives_no_volume(tmp_path):
    rows = rows_of(tmp_path, "volume")
    image = nib.load(rows[0]["path"])
    flat = np.random.default_rng(0).normal(30, 3, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(flat, image.affine), rows[0]["path"])
    assert measure_inserts(inserts(rows[:1]))[0].reason.startswith("the insert")
