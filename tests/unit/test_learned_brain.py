"""The network's brain masks on heads that its training did not make; real heads: docs/real_data.md."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from helpers import prepare_rows
from unit.test_imaging_brain import THICK, dice, ellipsoid_head, head

from corelab.learned.brain import brain_mask
from corelab.provenance.places import own_weights
from corelab.settings.prepare import PrepareSettings


@pytest.mark.parametrize(
    ("kind", "step_mm"),
    [("T1w", (4.0, 4.0, 4.0)), ("T2w", (4.0, 4.0, 4.0)), ("dwi", (2.0, 2.0, 6.5)),
     ("ncct", (2.0, 2.0, 5.0))],
)  # fmt: skip
def test_heads_of_the_classical_method(kind, step_mm):
    image, truth, _ = head(kind, step_mm)
    assert dice(brain_mask(image, kind), truth) >= 0.95


def test_head_unlike_the_template_in_any_orientation():
    image, truth = ellipsoid_head("dwi", THICK)
    straight = brain_mask(image, "dwi")
    assert dice(straight, truth) >= 0.96
    turned = image.as_reoriented([[1, -1], [2, 1], [0, -1]])
    back = nib.Nifti1Image(brain_mask(turned, "dwi").astype(np.uint8), turned.affine)
    assert dice(np.asarray(nib.as_closest_canonical(back).dataobj) > 0, straight) > 0.999


def test_series_is_masked_from_its_mean_and_nothing_gives_nothing():
    image, truth = ellipsoid_head("ctp", (2.0, 2.0, 5.0))
    voxels = np.asarray(image.dataobj)
    series = nib.Nifti1Image(np.stack([voxels, voxels + 2], -1), image.affine)
    assert dice(brain_mask(series, "ctp"), truth) >= 0.94
    flat = nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.eye(4))
    assert not brain_mask(flat, "T1w").any()


def test_a_visit_by_the_network_names_its_weights(tmp_path):
    image, truth = ellipsoid_head("T1w", (2.0, 2.0, 2.0))
    nib.save(image, tmp_path / "t1.nii.gz")
    row = {"participant_id": "1", "visit": "v", "kind": "T1w", "scan_id": "s"}
    settings = PrepareSettings.model_validate({"brain_extraction": {"method": "learned"}})
    record = prepare_rows(
        [{**row, "path": str(tmp_path / "t1.nii.gz")}], tmp_path, settings=settings
    )
    assert record.brain_mask_quality["g1"].method == "learned"
    path = tmp_path / record.brain_masks["g1"]
    assert dice(np.asarray(nib.load(path).dataobj) > 0, truth) >= 0.96
    beside = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    digest = hashlib.sha256(own_weights("brain").read_bytes()).hexdigest()
    assert beside["parameters"]["weights_sha256"] == digest


def test_card_is_of_these_weights():
    facts = json.loads(own_weights("brain").with_name("training.json").read_text())
    assert facts["sha256"] == hashlib.sha256(own_weights("brain").read_bytes()).hexdigest()
    assert facts["parameters"] <= 300_000 and own_weights("brain").stat().st_size <= 1_500_000
