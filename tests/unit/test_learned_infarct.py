"""Network for infarcts on scans that its training did not make; real ones: docs/real_data.md."""

import hashlib
import json

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from train.infarcts import infarct_sample

from corelab.imaging.values import ADC_TISSUE_MM2_S
from corelab.learned.infarct import SHAPE, limit_factor, outlined_infarct
from corelab.provenance.places import own_weights
from corelab.segmentation.external import SEGMENTERS
from corelab.segmentation.scans import NotSegmentable
from corelab.settings.segmentation import ExternalProgram
from corelab.study.schema import load_schema

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
#: Beyond all seeds of training and calibration; a large, bright infarct, and an ADC.
SEED = 1_500_000_006


def dice(one, other):
    return 2 * (one & other).sum() / max(1, one.sum() + other.sum())


@pytest.fixture(scope="module")
def sample():
    return infarct_sample(SEED)


@pytest.fixture(scope="module")
def patient(sample):
    """DWI, ADC (mm2/s), brain and infarct."""
    image, infarct = sample
    dwi, adc = image * 2
    return 300 * dwi, adc * ADC_TISSUE_MM2_S, dwi > 0, infarct > 0


def test_a_seed_gives_the_same_scan(sample):
    (image, infarct), again = sample, infarct_sample(SEED)
    assert (image == again[0]).all() and (infarct == again[1]).all()
    assert image.shape == (2, *SHAPE) and infarct.shape == SHAPE and image.dtype == np.float32


def test_infarcts_look_like_infarcts():
    found = [infarct_sample(seed) for seed in range(20, 28)]
    with_infarct = [(image, lesion > 0) for image, lesion in found if lesion.sum() > 50]
    assert 3 <= len(with_infarct) < len(found)
    assert len({image.tobytes() for image, _ in found}) == len(found)
    for channel, sign in ((0, 1), (1, -1)):  # bright on DWI, low ADC
        change = [
            sign
            * (
                np.median(image[channel][lesion])
                - np.median(image[channel][(image[0] > 0) & ~lesion])
            )
            for image, lesion in with_infarct
            if image[channel].any()
        ]
        assert np.mean(np.array(change) > 0) > 0.8


def test_infarct_of_a_held_out_patient(patient):
    dwi, adc, brain, infarct = patient
    for given in (adc, None):
        found = outlined_infarct(dwi, given, brain, AFFINE)
        assert dice(found.mask, infarct) >= 0.75
        assert found.volume_ml == pytest.approx(found.mask.sum() * 0.008)
        assert 0 < found.low_ml < found.volume_ml < found.high_ml < 3 * found.volume_ml
        assert found.low_ml <= infarct.sum() * 0.008 <= found.high_ml
        assert 0.8 < found.flipped_dice <= 1


def test_masks_do_not_depend_on_axes_or_units(patient):
    dwi, adc, brain, _ = patient
    straight = outlined_infarct(dwi, adc, brain, AFFINE).mask
    turned = [
        nib.Nifti1Image(one.astype(np.float32), AFFINE).as_reoriented([[1, -1], [2, 1], [0, -1]])
        for one in (7 * dwi, 1e6 * adc, brain)
    ]
    other_dwi, other_adc, mask = (np.asarray(one.dataobj) for one in turned)
    found = outlined_infarct(other_dwi, other_adc, mask > 0, turned[0].affine).mask
    back = nib.as_closest_canonical(nib.Nifti1Image(found.astype(np.uint8), turned[0].affine))
    assert dice(np.asarray(back.dataobj) > 0, straight) > 0.99


def test_segmenter_takes_it_and_names_its_weights(patient):
    dwi, adc, brain, _ = patient
    entry = ExternalProgram(id="network", kind="learned", label="infarct", inputs={"dwi": "a.nii"})
    segmenter = SEGMENTERS["learned"](entry, AFFINE)
    made = segmenter({"dwi": dwi}, brain, (2.0, 2.0, 2.0), entry)
    with_adc = segmenter({"dwi": dwi, "adc": adc}, brain, (2.0, 2.0, 2.0), entry)
    b0 = dwi * np.exp(1000 * adc)
    with_b0 = segmenter({"dwi": dwi, "b0": b0}, brain, (2.0, 2.0, 2.0), entry)
    assert dice(with_b0.mask, with_adc.mask) > 0.98 and (made.mask != with_adc.mask).any()
    assert made.source == "pipeline:network" and made.volume_low_ml < made.volume_ml
    digest = hashlib.sha256(own_weights("infarct").read_bytes()).hexdigest()
    assert made.quality["weights_sha256"] == digest


def test_a_brain_beyond_the_grid_is_refused():
    entry = ExternalProgram(id="network", kind="learned", label="infarct", inputs={"dwi": "a.nii"})
    brain = np.ones((20, 20, 20), bool)
    with pytest.raises(NotSegmentable, match="beyond the network's 160 x 208 x 160 mm"):
        SEGMENTERS["learned"](entry, np.diag([10.0, 10.0, 10.0, 1.0]))(
            {"dwi": np.ones(brain.shape, np.float32)}, brain, (10.0, 10.0, 10.0), entry
        )


def test_config_says_which_label_and_scans():
    schema = load_schema("config")["properties"]["segmentation"]["properties"]["external"]
    good = {"id": "n", "kind": "learned", "label": "infarct", "inputs": {"dwi": "b.nii"}}
    jsonschema.validate([good], schema)
    jsonschema.validate([good | {"inputs": {"dwi": "b.nii", "adc": "c.nii"}}], schema)
    for change in ({"label": "lesion"}, {"inputs": {"adc": "b.nii"}},
                   {"inputs": {**good["inputs"], "FLAIR": "c.nii"}}):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([good | change], schema)


def test_card_is_of_these_weights_and_limits_hold():
    weights = own_weights("infarct")
    facts = json.loads(weights.with_name("training.json").read_text())
    assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert facts["parameters"] <= 300_000 and weights.stat().st_size <= 1_500_000
    assert 0.85 <= facts["limits"]["judged"] <= 0.95
    assert limit_factor() > 0
