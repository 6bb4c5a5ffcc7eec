"""Networks for lesions on patients that their training did not make; real ones: docs/real_data.md."""

import hashlib
import json

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from train.tumours import tumour_sample

from corelab.learned.lesions import limit_logit, outlined
from corelab.provenance.places import own_weights
from corelab.segmentation.external import SEGMENTERS
from corelab.settings.segmentation import ExternalProgram
from corelab.study.schema import load_schema
from corelab.terms.learned import LEARNED

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
#: Beyond all seeds of training and calibration.
SEED = 1_500_000_000
TASKS = sorted({task.name for task in LEARNED.values()})


def dice(one, other):
    return 2 * (one & other).sum() / max(1, one.sum() + other.sum())


@pytest.fixture(scope="module")
def patient():
    """T1c, FLAIR, brain and labels of a patient with a tumour that takes up contrast."""
    for seed in range(SEED, SEED + 40):
        image, labels = tumour_sample(seed)
        if min((labels == k).sum() for k in (2, 3)) > 800:
            return image, image[0] != 0, labels
    raise AssertionError("no such patient")


def test_tumour_of_a_held_out_patient(patient):
    image, brain, labels = patient
    for label, least in (("whole-tumour", 0.8), ("enhancing", 0.6)):
        found = outlined(label, list(image), brain, AFFINE)
        assert dice(found.mask, np.isin(labels, LEARNED[label].classes[label])) >= least
        assert not (found.low & ~found.mask).any() and not (found.mask & ~found.high).any()
        assert found.low.sum() < found.mask.sum() < found.high.sum()
        assert 0.8 < found.flipped_dice <= 1


def test_masks_do_not_depend_on_axes_or_units(patient):
    image, brain, _ = patient
    straight = outlined("whole-tumour", list(image), brain, AFFINE).mask
    turned = [
        nib.Nifti1Image(one.astype(np.float32), AFFINE).as_reoriented([[1, -1], [2, 1], [0, -1]])
        for one in (300 * image[0] + 900, 40 * image[1] + 200, brain)
    ]
    t1c, flair, mask = (np.asarray(one.dataobj) for one in turned)
    found = outlined("whole-tumour", [t1c, flair], mask > 0, turned[0].affine).mask
    back = nib.as_closest_canonical(nib.Nifti1Image(found.astype(np.uint8), turned[0].affine))
    assert dice(np.asarray(back.dataobj) > 0, straight) > 0.99


def test_segmenter_takes_it_and_names_its_weights(patient):
    image, brain, _ = patient
    entry = ExternalProgram(
        id="network", kind="learned", label="enhancing", inputs={"T1c": "a.nii", "FLAIR": "b.nii"}
    )
    segmenter = SEGMENTERS["learned"](entry, AFFINE)
    made = segmenter({"T1c": image[0], "FLAIR": image[1]}, brain, (2.0, 2.0, 2.0), entry)
    assert made.source == "pipeline:network" and made.volume_low_ml < made.volume_ml
    digest = hashlib.sha256(own_weights("tumour").read_bytes()).hexdigest()
    assert made.quality["weights_sha256"] == digest


def test_config_says_which_labels_and_scans():
    schema = load_schema("config")["properties"]["segmentation"]["properties"]["external"]
    good = {"id": "n", "kind": "learned", "label": "oedema",
            "inputs": {"T1c": "a.nii", "FLAIR": "b.nii"}}  # fmt: skip
    jsonschema.validate([good], schema)
    for change in ({"label": "lesion"}, {"inputs": {"FLAIR": "b.nii"}},
                   {"inputs": {**good["inputs"], "dwi": "c.nii"}}):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([good | change], schema)


@pytest.mark.parametrize("task", TASKS)
def test_cards_are_of_these_weights_and_limits_hold(task):
    weights = own_weights(task)
    facts = json.loads(weights.with_name("training.json").read_text())
    assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert facts["parameters"] <= 300_000 and weights.stat().st_size <= 1_500_000
    for label, one in LEARNED.items():
        if one.name == task:
            assert 0.85 <= facts["limits"][label]["judged"] <= 0.95, label
            assert 0 < limit_logit(task, label) < 4
