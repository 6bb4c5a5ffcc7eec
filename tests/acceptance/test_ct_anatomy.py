"""Head CTs with sinuses, dura, petrous bone and streaks: no blood is none, blood is found."""

import nibabel as nib
import numpy as np
import pytest
from simulated_ct import Acquisition, acquire_ct, haematoma

from corelab.imaging.brain import brain_mask
from corelab.phantom.ct_anatomy import draw_ct_anatomy, hounsfield_head
from corelab.phantom.head import load_head
from corelab.segmentation.haematoma import CtHaematoma
from corelab.settings.segmentation import SegmentationSettings

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

#: Not among the seeds that thresholds were chosen on (77).
SEED = 101


def found_and_truth(participant, place, slice_mm, volume_ml=6.0):
    head, own = load_head(), draw_ct_anatomy(SEED, participant)
    hu, fractions = hounsfield_head(head, own), {}
    if place is not None:
        blood, density = haematoma(head, SEED, participant, place, volume_ml)
        hu += blood * (np.float32(density) - hu)
        fractions["haematoma"] = blood
    plan = Acquisition(slice_mm=slice_mm, tilt_degrees=(12.0, -4.0, 3.0))
    scan = acquire_ct(hu, fractions, SEED, participant, plan, streak=own.streak)
    brain = brain_mask(nib.Nifti1Image(scan.hu, scan.affine), "ncct")
    found = CtHaematoma()(
        {"ncct": scan.hu}, brain, scan.voxel_size_mm, SegmentationSettings().haematoma
    )
    return found, scan.masks.get("haematoma")


@pytest.mark.parametrize(("participant", "slice_mm"), [("001", 5.0), ("002", 8.5)])
def test_a_head_without_blood_has_none(participant, slice_mm):
    found, _ = found_and_truth(participant, None, slice_mm)
    assert found.volume_ml == 0.0
    assert found.volume_high_ml == pytest.approx(found.quality["candidates_unexplained_ml"])


@pytest.mark.parametrize(
    ("participant", "place"), [("003", "cortical"), ("004", "cerebellar"), ("005", "lobar")]
)
def test_blood_is_found_also_beside_bone(participant, place):
    found, truth = found_and_truth(participant, place, 5.0)
    both = 2.0 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum())
    assert both >= 0.88
