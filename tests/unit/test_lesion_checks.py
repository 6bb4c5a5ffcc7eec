"""Volumes that no head holds are failures; masks outside of the brain are reported."""

import nibabel as nib
import numpy as np
import pytest
from helpers import prepare_rows

from corelab.imaging.template import template_brain_mask
from corelab.measurement.visit import measure_supplied
from corelab.records.images import BrainQuality, Prepared, Scan, ScanRow
from corelab.segmentation.scans import VisitScans
from corelab.segmentation.segmenter import Segmentation
from corelab.segmentation.visit import _Result, _written
from corelab.settings.measurement import MeasurementSettings

AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
SHAPE = (45, 55, 32)


def save(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


def row(kind, path, scan_id="s1", **more):
    key = {"participant_id": "01", "visit": "day5", "kind": kind, "scan_id": scan_id}
    return key | {"path": str(path)} | more


def dwi():
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    head = sum((axis / size) ** 2 for axis, size in zip(grid, (16, 20, 12), strict=True)) < 1
    noise = np.abs(np.random.default_rng(1).normal(0, 4, SHAPE))
    return (np.where(head, 250, 5) + noise).astype(np.int16)


def lesion():
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[25:29, 25:29, 15:18] = 1
    return voxels


def prepared(folder, mask, **settings):
    rows = [
        row("dwi", save(folder / "dwi.nii.gz", dwi())),
        row("mask-infarct", save(folder / "lesion.nii.gz", mask), "s2", reader="r1", **settings),
    ]
    return prepare_rows(rows, folder).scans[1]


def test_an_expert_mask_outside_of_the_brain_is_reported(tmp_path):
    assert prepared(tmp_path / "a", lesion()).warnings == ()
    shifted = np.roll(lesion(), 16, axis=0)  # 64 mm to the side: out of the head
    (output,) = prepared(tmp_path / "b", shifted).warnings
    assert "(100 %) of the mask lie more than 3 mm outside of the brain mask" in output


def test_a_supplied_mask_larger_than_a_head_is_refused(tmp_path):
    scan = prepared(tmp_path, np.ones(SHAPE, np.uint8))
    assert scan.status == "failed" and scan.path is None
    assert scan.reason == "the mask holds 6336 mL, more than a head does (1500 mL)"


def supplied(path, voxels, affine, space):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    scan = ScanRow("mask-infarct", str(path), "s1", "01", "day5", source=path.name, space=space)
    settings = MeasurementSettings(nsd_tolerance_mm=1.0)
    found = measure_supplied([scan], atlases=[], settings=settings)
    return found.rows[0], found.scans[0]


def test_supplied_masks_without_images_are_judged_too(tmp_path):
    template = template_brain_mask()
    voxels = np.zeros(template.shape, np.uint8)
    voxels[60:70, 60:70, 60:70] = 1
    value, output = supplied(tmp_path / "in.nii.gz", voxels, template.affine, "MNI152")
    assert value.status == "ok" and output.warnings == ()
    away = np.roll(voxels, -58, axis=2)  # below the skull base
    value, output = supplied(tmp_path / "out.nii.gz", away, template.affine, "MNI152")
    assert value.status == "ok" and "outside of the brain mask" in output.warnings[0]
    value, output = supplied(tmp_path / "all.nii.gz", np.ones_like(voxels), AFFINE, "native")
    assert (value.value, value.status, output.status) == (None, "failed", "failed")


@pytest.mark.parametrize(("volume_ml", "status"), [(300.0, "ok"), (1114.0, "failed")])
def test_a_lesion_of_the_pipeline_that_takes_most_of_the_brain_is_a_failure(
    tmp_path, volume_ml, status
):
    reference = nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4))
    found = Segmentation(
        "haematoma", "pipeline", np.ones((4, 4, 4), bool), volume_ml, volume_ml, volume_ml, {}
    )
    scan = Scan("s1", "ncct", path="ct.nii.gz")
    result = _Result(*("haematoma", "pipeline", "ncct", "g1", (scan,), found, reference, "ok"))
    quality = {"g1": BrainQuality("ncct", volume_ml=1403.0)}
    record = Prepared("01", "v", brain_mask_quality=quality)
    entry = _written(result, VisitScans(record, tmp_path))
    assert entry.status == status and (entry.path is None) == (status == "failed")
    if status == "failed":
        assert "79 % of the brain mask (1403 mL): no lesion takes so much" in entry.reason
