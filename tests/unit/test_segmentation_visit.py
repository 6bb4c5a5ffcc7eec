"""segment_visit: what is segmented from what, names, sidecars, statuses, determinism."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging import load_image, save_image
from corelab.registration.transforms import write_affine
from corelab.segmentation import segment_visit

SHAPE, VOXEL_MM = (56, 66, 20), (3.0, 3.0, 6.0)
AXES = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(SHAPE, VOXEL_MM, strict=True)]
X, Y, Z = np.meshgrid(*AXES, indexing="ij")
BRAIN = (X / 66) ** 2 + (Y / 80) ** 2 + (Z / 50) ** 2 < 1
LESION = BRAIN & ((X - 34) ** 2 + (Y - 5) ** 2 + (Z - 3) ** 2 < 18**2)
AFFINE = np.diag([*VOXEL_MM, 1.0])
AFFINE[:3, 3] = [axis[0] for axis in AXES]
VOXEL_ML = np.prod(VOXEL_MM) / 1000


def noisy(values, sd, seed):
    return values + np.random.default_rng(seed).normal(0, sd, SHAPE)


def pictures():
    normal = np.where(BRAIN, 1.0, 0.0)
    adc = np.where(LESION, 450e-6, 800e-6)
    b0 = 300.0 * normal
    grey = noisy(np.where(LESION, 63.0, 32.0), 3.0, 4)
    bone = ndimage.binary_dilation(BRAIN, iterations=2) & ~BRAIN
    return {
        "b0": noisy(b0, 4, 1),
        "dwi": noisy(b0 * np.exp(-1000 * adc), 3, 2),
        "adc": np.where(BRAIN, noisy(adc, 40e-6, 3), 0.0),
        "FLAIR": noisy(np.where(LESION, 250.0, 160.0) * normal, 6, 5),
        "ncct": np.where(BRAIN, grey, np.where(bone, 900.0, -1000.0)),
        "gre": noisy(np.where(LESION, 20.0, 140.0) * normal, 4, 6),
        "T1w": noisy(130.0 * normal, 3, 7),
        "T1c": noisy(np.where(LESION & (Y > 0), 220.0, 130.0) * normal, 3, 8),
        "T2w": noisy(np.where(LESION, 250.0, 160.0) * normal, 6, 9),
        "mask-chronic": (LESION & (Y > 5)).astype(float),
    }


PICTURES = pictures()


@pytest.fixture
def study(tmp_path):
    """A folder and a function that prepares a visit with the kinds given."""

    def prepared(*kinds, failed=(), visit="day5", affines=None, brain=True):
        scans = []
        for kind in kinds:
            affine = (affines or {}).get(kind, AFFINE)
            path = f"derivatives/sub-01/ses-{visit}/prep/{kind}.nii.gz"
            image = nib.Nifti1Image(PICTURES[kind].astype(np.float32), affine)
            save_image(image, tmp_path / path, sidecar=None)
            bad = kind in failed
            scans.append(
                {
                    "scan_id": f"01-{kind}",
                    "kind": kind,
                    "label": kind[5:] if kind.startswith("mask-") else None,
                    "reader": None,
                    "repeat": 1,
                    "path": None if bad else path,
                    "grid": None if bad else ("g2" if kind in (affines or {}) else "g1"),
                    "sha256": "0" * 64,
                    "status": "failed" if bad else "ok",
                    "reason": "truncated" if bad else None,
                    "metadata": {"b_value": 1000.0},
                }
            )
        masks = {}
        grids = [("g1", AFFINE), *(("g2", affine) for affine in (affines or {}).values())]
        for grid, affine in grids:
            if brain:
                masks[grid] = f"brain_{grid}.nii.gz"
                image = nib.Nifti1Image(BRAIN.astype(np.uint8), affine)
                save_image(image, tmp_path / masks[grid], sidecar=None)
        return {
            "participant_id": "01",
            "visit": visit,
            "scans": scans,
            "brain_masks": masks,
            "reference": "g1",
            "transforms": {},
        }

    return tmp_path, prepared


def summary(record):
    return [(m["label"], m["source"], m["desc"], m["status"]) for m in record["masks"]]


def test_stroke_with_everything(study):
    folder, prepared = study
    record = prepared("b0", "dwi", "adc", "FLAIR", "ncct", "gre")
    found = segment_visit(record, folder, disease="stroke")
    assert summary(found) == [
        ("infarct", "pipeline", None, "ok"),
        ("infarct", "pipeline:adc620", "adc620", "ok"),
        ("infarct", "pipeline:flair", "flair", "ok"),
        ("haematoma", "pipeline", None, "ok"),
        ("infarct", "pipeline:ncct", "ncct", "ok"),
        ("haematoma", "pipeline:gre", "gre", "ok"),
    ]
    paths = [mask["path"] for mask in found["masks"]]
    assert len(set(paths)) == len(paths)
    assert paths[0] == "derivatives/sub-01/ses-day5/dwi/sub-01_ses-day5_label-infarct_mask.nii.gz"
    assert paths[2].endswith("anat/sub-01_ses-day5_label-infarct_desc-flair_mask.nii.gz")
    assert paths[3].endswith("ct/sub-01_ses-day5_label-haematoma_mask.nii.gz")
    assert found["masks"][0]["scan_ids"] == ["01-dwi", "01-adc"]
    for entry in found["masks"]:
        image = load_image(folder / entry["path"], kind="mask-infarct")
        mask = np.asarray(image.dataobj) > 0
        assert entry["quality"]["volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML)
        sidecar = json.loads((folder / entry["path"].replace(".nii.gz", ".json")).read_text())
        assert sidecar["inputs"][0]["sha256"] == "0" * 64
        assert sidecar["parameters"]["limits"]
        if entry["source"] != "pipeline:ncct":
            assert 2 * (mask & LESION).sum() / (mask.sum() + LESION.sum()) > 0.85
    json.dumps(found, allow_nan=False)


def test_flair_is_primary_without_dwi_and_chronic_is_taken_out(study):
    folder, prepared = study
    plain = segment_visit(prepared("FLAIR"), folder, disease="stroke")
    assert summary(plain) == [("infarct", "pipeline", None, "ok")]
    assert "desc-" not in plain["masks"][0]["path"]
    old = segment_visit(prepared("FLAIR", "mask-chronic"), folder, disease="stroke")
    assert old["masks"][0]["quality"]["volume_ml"] < 0.7 * plain["masks"][0]["quality"]["volume_ml"]
    assert old["masks"][0]["scan_ids"] == ["01-FLAIR", "01-mask-chronic"]


def test_adc_is_computed_from_b0(study):
    folder, prepared = study
    found = segment_visit(prepared("b0", "dwi"), folder, disease="stroke")["masks"]
    assert [mask["status"] for mask in found] == ["ok", "ok"]
    assert "ADC computed from b0 and DWI with b = 1000 s/mm2" in found[0]["reason"]
    assert found[0]["scan_ids"] == ["01-dwi", "01-b0"]
    alone = segment_visit(prepared("dwi"), folder, disease="stroke")["masks"]
    assert [mask["status"] for mask in alone] == ["ok", "not_computable"]
    assert alone[0]["quality"]["flags"] == ["no_adc"]
    assert alone[1]["path"] is None


def test_failures_are_statuses_with_a_reason(study):
    folder, prepared = study
    record = prepared("dwi", "adc", "ncct", failed=("dwi", "adc", "ncct"))
    found = segment_visit(record, folder, disease="stroke")["masks"]
    assert {mask["status"] for mask in found} == {"failed"}
    assert all("truncated" in mask["reason"] and mask["path"] is None for mask in found)
    no_brain = segment_visit(prepared("ncct", brain=False), folder, disease="stroke")["masks"]
    assert {mask["status"] for mask in no_brain} == {"not_computable"}
    assert "no brain mask" in no_brain[0]["reason"]


def test_a_failed_adc_is_told_and_dwi_goes_on(study):
    folder, prepared = study
    found = segment_visit(prepared("dwi", "adc", failed=("adc",)), folder, disease="stroke")
    assert found["masks"][0]["status"] == "ok"
    assert "without the adc scan" in found["masks"][0]["reason"]


def test_a_file_that_broke_since_is_a_status(study):
    folder, prepared = study
    record = prepared("ncct")
    file = folder / record["scans"][0]["path"]
    file.write_bytes(file.read_bytes()[:-2000])
    found = segment_visit(record, folder, disease="stroke")["masks"]
    assert {mask["status"] for mask in found} == {"failed"}


def test_glioma_on_one_grid_adds_up(study):
    folder, prepared = study
    found = segment_visit(prepared("T1w", "T1c", "FLAIR"), folder, disease="glioma")["masks"]
    assert [(m["label"], m["status"]) for m in found] == [
        ("enhancing", "ok"),
        ("oedema", "ok"),
        ("whole-tumour", "ok"),
    ]
    volumes = [mask["quality"]["volume_ml"] for mask in found]
    assert volumes[0] > 3
    assert volumes[1] > 3
    assert volumes[2] == volumes[0] + volumes[1]
    assert found[2]["path"].endswith("_label-wholetumour_mask.nii.gz")
    assert {mask["kind"] for mask in found} == {"T1c"}
    assert found[2]["scan_ids"] == ["01-T1c", "01-T1w", "01-FLAIR"]


def test_glioma_with_a_part_missing(study):
    folder, prepared = study
    only = segment_visit(prepared("T1c"), folder, disease="glioma")["masks"]
    assert [(m["label"], m["status"]) for m in only] == [("enhancing", "ok")]
    assert "no_t1" in only[0]["quality"]["flags"]
    t2 = segment_visit(prepared("T2w"), folder, disease="glioma")["masks"]
    assert [(m["label"], m["quality"]["flags"]) for m in t2] == [("oedema", ["t2_only"])]
    broken = segment_visit(prepared("T1c", "FLAIR", failed=("T1c",)), folder, disease="glioma")
    assert [(m["label"], m["status"]) for m in broken["masks"]] == [
        ("enhancing", "failed"),
        ("oedema", "ok"),
        ("whole-tumour", "not_computable"),
    ]
    assert "truncated" in broken["masks"][2]["reason"]


def test_other_grids_come_through_the_transforms(study):
    folder, prepared = study
    # The FLAIR lies 12 mm to the right in its own world: only the transform knows.
    moved = AFFINE.copy()
    moved[0, 3] += 12.0
    record = prepared("T1c", "FLAIR", affines={"FLAIR": moved})
    shift = np.eye(4)
    shift[0, 3] = 12.0  # a point of the reference lies at this point of the moving image
    write_affine(shift, folder / "g2.mat")
    record["transforms"] = {
        "g1": {"to": "g1", "path": None, "status": "ok"},
        "g2": {"to": "g1", "path": "g2.mat", "status": "ok"},
    }
    found = segment_visit(record, folder, disease="glioma")["masks"]
    whole = np.asarray(load_image(folder / found[2]["path"], kind="mask-x").dataobj) > 0
    assert 2 * (whole & LESION).sum() / (whole.sum() + LESION.sum()) > 0.85
    record["transforms"] = {}
    trusted = segment_visit(record, folder, disease="glioma")["masks"]
    assert "by the headers alone" in trusted[1]["reason"]


def test_same_bytes_twice_and_settings_count(study):
    folder, prepared = study
    record = prepared("dwi", "adc")
    digests = []
    for _ in range(2):
        path = segment_visit(record, folder, disease="stroke")["masks"][0]["path"]
        digests.append(hashlib.sha256((folder / path).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    none = segment_visit(
        record,
        folder,
        disease="stroke",
        settings={"infarct": {"adc_seed_below_mm2_s": 1e-5, "z_conspicuous": 999.0}},
    )["masks"][0]
    assert none["status"] == "ok"
    assert none["quality"]["volume_ml"] == 0.0
    with pytest.raises(ValueError, match="disease is 'ms'"):
        segment_visit(record, folder, disease="ms")
    with pytest.raises(ValueError, match="no section"):
        segment_visit(record, folder, disease="stroke", settings={"lesion": {}})
