"""Small parts of the simulated trials, each by an example whose answer is known."""

import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.kernels import table_curves
from corelab.phantom.anatomy import _refine
from corelab.phantom.design import TrialSpec, enrol, find, infarct_volume_ml, seen_at
from corelab.phantom.head import (
    ORIGIN_MM,
    SHELL,
    Head,
    _filled,
    _template_folder,
    composite,
    linear_placed,
)
from corelab.phantom.protocol import protocol
from corelab.phantom.scans import apparent_diffusion
from corelab.phantom.scene import build_scene, infarct_region, mean_of_samples
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


@pytest.mark.parametrize("mode", ["nearest", "constant"])
def test_a_field_at_points_is_as_scipy_interpolates_it(mode):
    rng = np.random.default_rng(1)
    field = rng.standard_normal((9, 8, 7)).astype(np.float32)
    field[:4] = 0  # air
    points = (rng.uniform(-4, 20, (3, 3000)) + np.reshape(ORIGIN_MM, (3, 1))).astype(np.float32)
    places = (points - np.reshape(ORIGIN_MM, (3, 1)).astype(np.float32)) / np.float32(2)
    due = ndimage.map_coordinates(field, places, order=1, mode=mode)
    found = linear_placed(field, points, 2.0, mode)
    np.testing.assert_array_equal(found, due)
    assert 0 < np.count_nonzero(found) < found.size


def test_curves_between_rows_of_a_table_are_as_scipy_interpolates_them():
    rng = np.random.default_rng(1)
    table = rng.standard_normal((5, 9)).astype(np.float32)
    place, delay = np.r_[0.0, 4.0, rng.uniform(0, 4, 40)], np.r_[3.0, 0.0, rng.uniform(0, 3, 40)]
    amplitude, times = rng.uniform(1, 2, 42).astype(np.float32), np.arange(6.0)
    out = np.empty((42, 6), np.float32)
    table_curves(table, place, delay, times, 0.5, amplitude, out)
    for frame, time in enumerate(times):
        where = [place, np.maximum(time - delay, 0) / 0.5]
        due = ndimage.map_coordinates(table, where, order=1, output=np.float32)
        np.testing.assert_array_equal(out[:, frame], due * amplitude)


def test_the_mean_over_a_slice_is_numpys():
    values = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    np.testing.assert_array_equal(mean_of_samples(values), values.mean(axis=-1))


def test_a_lesion_is_nothing_outside_the_box_that_is_looked_at():
    lesion = build_scene(TrialSpec.testing(), "001").lesion
    points = np.random.default_rng(1).uniform(-90, 90, (3, 200_000)).astype(np.float32)
    share = lesion.fractions(points, "core", "hypoperfused")
    level = lesion.levels_mm["hypoperfused"]
    due = np.clip((np.float32(level) - lesion.potential_at(points)) / np.float32(1.5) + 0.5, 0, 1)
    np.testing.assert_array_equal(share[1], due)
    assert 0 < np.count_nonzero(share[0]) < np.count_nonzero(share[1]) < 20_000
