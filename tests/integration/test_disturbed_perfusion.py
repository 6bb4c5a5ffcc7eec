"""Disturbed perfusion series through the real rules: repaired or refused, and the rows say so."""

import json
import os

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from perfusion_heads import HeadCase, simulate_head
from scipy import ndimage
from workflow_runs import snakemake, write_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]
VISIT = "derivatives/sub-{}/ses-baseline/perfuse.json"


def saved(folder, name, voxels, affine, interval_s=None):
    image = nib.Nifti1Image(voxels, affine)
    if interval_s:
        image.header.set_zooms((*image.header.get_zooms()[:3], interval_s))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / name)
    return folder / name


def brain_of(head):
    filled = ndimage.binary_closing(head.tissue, np.ones((5, 5, 1), bool)) | head.tissue
    return filled.astype(np.uint8)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One head three times: as it is, with one bright frame, and with time as the first axis."""
    folder = tmp_path_factory.mktemp("disturbed")
    head = simulate_head(
        HeadCase(
            "disturbed", side="left", core_ml=30.0, hypoperfused_ml=150.0, shape=(60, 72, 6),
            voxel_mm=(3.0, 3.0, 10.0), noise=3.0, seed=401,
        )
    )  # fmt: skip
    bright = head.signal.copy()
    bright[..., int(head.signal[head.tissue].mean(axis=0).argmax())] += 20.0
    series = {
        "plain": head.signal,
        "bright": bright,
        "turned": np.ascontiguousarray(np.moveaxis(head.signal, 3, 0)),
    }
    rows = ["participant_id|visit|kind|path"]
    for name, voxels in series.items():
        path = saved(folder, f"{name}.nii.gz", voxels, head.affine, head.case.interval_s)
        rows.append(f"{name}|baseline|ctp|{path}")
        if name != "turned":
            path = saved(folder, f"{name}_brain.nii.gz", brain_of(head), head.affine)
            rows.append(f"{name}|baseline|mask-brain|{path}")
    config = {
        "study": {"id": "disturbed"},
        "visits": {"order": ["baseline"], "baseline": "baseline"},
        "registration": {"preset": "testing"},
    }
    path = write_study(
        folder / "study", config,
        participants="participant_id\n" + "\n".join(series), scans="\n".join(rows),
    )  # fmt: skip
    done = snakemake("endpoints", "--configfile", str(path), cores=min(2, os.cpu_count() or 1))
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / "study" / "results" / "disturbed", head


def record(study, person):
    return json.loads((study[0] / VISIT.format(person)).read_text())


@pytest.fixture(scope="module")
def rows(study):
    table = pd.read_csv(
        study[0] / "endpoints" / "measurements.tsv", sep="\t", na_values="n/a",
        keep_default_na=False,
    )  # fmt: skip
    kept = (table["source"] == "pipeline") & (table["region"] == "all")
    return table[kept].set_index(["participant_id", "endpoint"])


def test_a_bright_frame_is_repaired_and_the_rows_say_so(study, rows):
    head = study[1]
    for person in ("plain", "bright"):
        core = rows.loc[(person, "core_volume")]
        assert core["status"] == "ok"
        assert abs(core["value"] - head.core.sum() * head.voxel_ml) <= 6.0, (person, core["value"])
    for endpoint in ("core_volume", "hypoperfused_volume", "mismatch_ratio"):
        assert "interpolated in time" in rows.loc[("bright", endpoint)]["reason"]
    verdicts = {
        person: {g["criterion"]: g["verdict"] for g in record(study, person)["gates"]}
        for person in ("plain", "bright")
    }
    assert verdicts["bright"]["replaced_frames_share"] == "warn"
    assert verdicts["plain"]["replaced_frames_share"] == "pass"


def test_time_as_the_first_axis_is_refused_with_the_reason(study, rows):
    row = rows.loc[("turned", "core_volume")]
    assert row["status"] == "failed" and np.isnan(row["value"])
    assert "ax" in row["reason"], row["reason"]
    scan = json.loads((study[0] / VISIT.format("turned")).with_name("prepare.json").read_text())[
        "scans"
    ][0]
    assert scan["status"] != "ok" and "ax" in scan["reason"], scan["reason"]
    assert record(study, "turned")["masks"] == []
