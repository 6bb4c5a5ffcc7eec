"""Small parts of the simulated trials, each by an example whose answer is known."""

import numpy as np
from scipy import ndimage

from corelab.phantom.anatomy import _refine
from corelab.phantom.design import TrialSpec, enrol, find, infarct_volume_ml, seen_at
from corelab.phantom.head import SHELL, Head, _filled, _template_folder, composite
from corelab.phantom.protocol import protocol
from corelab.phantom.scans import apparent_diffusion
from corelab.phantom.scene import infarct_region
from corelab.phantom.trial import scan_path, true_aspects
from corelab.settings.study import PhantomSettings

SPEC = TrialSpec()


def test_the_design():
    assert TrialSpec.from_settings(PhantomSettings(trial="stroke", seed=7)).seed == 7
    assert TrialSpec.testing().imaged == ("001", "002", "004")
    people = enrol(SPEC)
    assert len(people) == 36 and people[6].participant_id == "007"
    visits = ("baseline", "day5", "day90")
    assert [seen_at(find(SPEC, "017"), v) for v in visits] == [True, False, False]
    person = people[0]
    grown = person.lesion.core_ml + person.growth_ml
    assert infarct_volume_ml(person, "day5") == grown and 0 <= true_aspects(person) <= 10
    assert [infarct_region(v) for v in ("baseline", "day5")] == ["core", "infarct"]
    assert scan_path("001", "baseline", "adc").endswith("/dwi/sub-001_ses-baseline_adc.nii.gz")
    assert protocol(SPEC, "001", "baseline", "dwi").voxel_mm == (1.2, 1.2, 5.0)


def test_what_surrounds_the_brain_is_linear_between_its_voxels():
    assert _template_folder().name == "data"
    brain, none = np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 3), np.float32)
    brain[..., 2] = 0.75
    shell = {name: np.zeros((1, 1, 2), np.float32) for name in SHELL}
    shell["bone"][..., 1] = 1
    head = Head(brain, none, none, brain, none, shell)
    assert composite(head, {"bone": 2.0, "grey": 4.0}).ravel().tolist() == [0.0, 1.0, 3.5]


def test_holes_are_filled_as_scipy_fills_them():
    rng = np.random.default_rng(1)
    mask = ndimage.gaussian_filter(rng.standard_normal((20, 21, 22)), 1) > -0.2
    np.testing.assert_array_equal(_filled(mask), ndimage.binary_fill_holes(mask))
    assert _filled(mask).sum() > mask.sum() and _filled(np.ones((2, 2, 2), bool)).all()


def test_displacements_are_refined_as_scipy_interpolates_them():
    coarse = np.random.default_rng(1).standard_normal((7, 6, 5))
    places = np.meshgrid(*(np.arange(2 * n - 1) / 2 for n in coarse.shape), indexing="ij")
    due = ndimage.map_coordinates(coarse, places, order=3, mode="nearest")
    np.testing.assert_array_equal(_refine(coarse), due)


def test_no_adc_without_signal():
    b0 = np.ones((9, 3, 3), np.float32)
    b0[:5] = 0.01
    adc = apparent_diffusion(b0, b0 * np.float32(np.exp(-0.8)))
    assert (round(float(adc[8, 1, 1]), 5), float(adc[0, 1, 1])) == (0.0008, 0.0)
