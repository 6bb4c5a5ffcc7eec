"""Volumes, grids and resampling against analytic geometry."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from corelab.imaging import mask_volume_ml, resample_to, same_grid, voxel_volume_ml
from corelab.imaging.geometry import (
    affine_distance_mm,
    distance_mm,
    linear_at,
    linear_grid,
    orthonormal_affine,
    smoothed,
    voxel_sizes_mm,
    without_holes,
)
from corelab.segmentation.tissue import ball, enlarged


def rotation(angles_deg):
    a, b, c = np.radians(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def affine_of(sizes, angles=(0, 0, 0), origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * np.asarray(sizes, float)
    affine[:3, 3] = origin
    return affine


def sphere(affine, shape, radius_mm):
    centre = affine @ np.append((np.asarray(shape) - 1) / 2, 1)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = nib.affines.apply_affine(affine, grid)
    return ((world - centre[:3]) ** 2).sum(-1) <= radius_mm**2


GRIDS = {
    "isotropic": ((1, 1, 1), (0, 0, 0), (71, 71, 71)),
    "thick slices": ((1.2, 1.2, 5), (0, 0, 0), (61, 61, 15)),
    "tilted thick slices": ((0.9, 0.9, 5), (18.5, 0, 0), (81, 81, 15)),
    "oblique": ((1.5, 1.0, 2.0), (10, -20, 30), (47, 71, 36)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_sphere_volume_follows_its_formula_on_any_grid(name):
    sizes, angles, shape = GRIDS[name]
    affine = affine_of(sizes, angles, (11, -7, 40))
    image = nib.Nifti1Image(sphere(affine, shape, 30.0).astype(np.uint8), affine)
    truth_ml = 4 / 3 * np.pi * 30.0**3 / 1000  # 113.097 mL
    # Voxel counting of a sphere errs by its surface; 30 mm is 25 voxels in plane, 6 slices.
    assert mask_volume_ml(image) == pytest.approx(truth_ml, rel=0.02)


@pytest.mark.parametrize("name", GRIDS)
def test_volume_is_exactly_count_times_determinant(name):
    sizes, angles, shape = GRIDS[name]
    affine = affine_of(sizes, angles)
    voxels = sphere(affine, shape, 20.0)
    image = nib.Nifti1Image(voxels.astype(np.int16), affine)
    assert mask_volume_ml(image) == pytest.approx(voxels.sum() * np.prod(sizes) / 1000, rel=1e-12)
    assert voxel_volume_ml(image) == pytest.approx(np.prod(sizes) / 1000, rel=1e-12)


def test_millimetre_voxels_give_volumes_without_rounding():
    voxels = np.zeros((50, 50, 50), np.uint8)
    voxels.flat[:12345] = 1
    assert mask_volume_ml(nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1]))) == 12.345


def test_empty_mask_is_zero_volume():
    assert mask_volume_ml(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))) == 0.0


def test_nan_is_not_lesion():
    voxels = np.zeros((10, 10, 10))
    voxels[0, 0, 0], voxels[1, 1, 1] = np.nan, 1
    assert mask_volume_ml(nib.Nifti1Image(voxels, np.eye(4))) == 0.001


def test_labels_of_any_value_count_once():
    voxels = np.zeros((10, 10, 10), np.int16)
    voxels[:2] = 4
    assert mask_volume_ml(nib.Nifti1Image(voxels, np.eye(4))) == 0.2


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.floats(0.4, 6)] * 3),
    st.tuples(*[st.floats(-40, 40)] * 3),
    st.tuples(*[st.floats(-900, 900)] * 3),
)
def test_resampling_onto_ones_own_flipped_grid_loses_nothing(sizes, angles, origin):
    affine = affine_of(sizes, angles, origin)
    voxels = np.random.default_rng(1).integers(0, 5, (7, 6, 5)).astype(np.int16)
    image = nib.Nifti1Image(voxels, affine)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 6
    flipped = nib.Nifti1Image(voxels[::-1], affine @ flip)
    out = resample_to(flipped, image, order=0)
    assert np.array_equal(out.dataobj, voxels)
    assert out.get_data_dtype() == np.int16


def test_linear_resampling_reproduces_a_linear_field():
    fine = nib.Nifti1Image(
        np.fromfunction(lambda i, j, k: 2.0 * i - j + 0.5 * k, (20, 20, 20)).astype(np.float32),
        np.eye(4),
    )
    coarse = nib.Nifti1Image(
        np.zeros((6, 6, 6), np.float32), affine_of((2.5, 2.5, 2.5), origin=(2, 2, 2))
    )
    out = np.asarray(resample_to(fine, coarse, order=1).dataobj)
    i, j, k = np.meshgrid(*[2 + 2.5 * np.arange(6)] * 3, indexing="ij")
    assert out == pytest.approx(2 * i - j + 0.5 * k, abs=1e-4)


def test_resampling_a_series_keeps_its_frames():
    series = nib.Nifti1Image(np.ones((6, 6, 6, 3), np.float32) * [1, 2, 3], np.eye(4))
    coarse = nib.Nifti1Image(np.zeros((3, 3, 3)), affine_of((2, 2, 2)))
    assert resample_to(series, coarse, order=1).get_fdata()[1, 1, 1].tolist() == [1, 2, 3]


def test_mask_outside_the_reference_is_empty():
    far = nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), affine_of((1, 1, 1), origin=(100, 0, 0)))
    near = nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4))
    assert not np.any(resample_to(far, near, order=0).dataobj)


def test_unknown_spline_order_is_an_error():
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    with pytest.raises(ValueError, match="order is 7"):
        resample_to(image, image, order=7)


def test_same_grid_tells_a_tenth_of_a_millimetre():
    one = nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4))
    assert same_grid(
        one, nib.Nifti1Image(np.zeros((5, 5, 5)), affine_of((1, 1, 1), origin=(0.09, 0, 0)))
    )
    assert not same_grid(
        one, nib.Nifti1Image(np.zeros((5, 5, 5)), affine_of((1, 1, 1), origin=(0.2, 0, 0)))
    )
    assert not same_grid(one, nib.Nifti1Image(np.zeros((5, 5, 6)), np.eye(4)))


def test_affine_distance_is_that_of_the_worst_corner():
    assert affine_distance_mm(
        np.eye(4), affine_of((1, 1, 1), (0, 0, 90)), (11, 11, 11)
    ) == pytest.approx(np.sqrt(2) * np.sqrt(200), rel=1e-9)


def test_orthonormal_affine_keeps_sizes_and_centre():
    affine = affine_of((1, 2, 3), (5, 10, 15), (1, 2, 3))
    affine[0, 1] += 1e-3
    out = orthonormal_affine(affine, (11, 21, 31))
    assert voxel_sizes_mm(out) == pytest.approx(voxel_sizes_mm(affine))
    centre = np.array([5, 10, 15, 1])
    assert out @ centre == pytest.approx(affine @ centre)


@pytest.mark.parametrize("seed", range(20))
def test_labels_on_parallel_axes_are_taken_as_by_the_general_map(seed):
    """Along the axes voxels are picked by index; scipy's general map must agree in each voxel."""
    rng = np.random.default_rng(seed)
    grids = []
    for _ in range(2):
        affine = np.diag([*rng.choice([-1, 1], 3) * rng.choice([0.5, 0.7, 1, 2, 3.3], 3), 1.0])
        affine[:3, 3] = rng.choice([0, 0.5, 0.25, 1 / 3, -3.1], 3)
        grids.append((rng.integers(1, 30, 3), affine))
    (shape, affine), (other, target) = grids
    labels = nib.Nifti1Image(rng.integers(0, 5, shape).astype(np.uint8), affine)
    found = resample_to(labels, nib.Nifti1Image(np.zeros(other, np.uint8), target), order=0)
    map_ = np.round(np.linalg.inv(affine) @ target, 9)
    expected = ndimage.affine_transform(
        np.asarray(labels.dataobj), map_[:3, :3], map_[:3, 3], tuple(other), order=0,
        mode="constant",
    )  # fmt: skip
    assert np.array_equal(np.asarray(found.dataobj), expected)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0.9375, 0.9375, 5.0), (0.43, 0.7, 1e4)])
def test_distances_are_those_of_scipy_to_the_last_bit(sizes):
    rng = np.random.default_rng(1)
    blobs = ndimage.gaussian_filter(rng.normal(size=(23, 31, 17)), 2) > 0.02
    for mask in (blobs, ~blobs, np.pad(np.ones((3, 3, 3), bool), 7), np.zeros((3, 4, 5), bool)):
        due = ndimage.distance_transform_edt(mask, sampling=sizes)
        np.testing.assert_array_equal(distance_mm(mask, sizes), due)
    due = ndimage.distance_transform_edt(blobs[9], sampling=sizes[1:])
    np.testing.assert_array_equal(distance_mm(blobs[9], sizes[1:]), due)
    np.testing.assert_array_equal(
        distance_mm(blobs.T, sizes), ndimage.distance_transform_edt(blobs.T, sampling=sizes)
    )


def test_a_mask_without_an_outside_is_what_scipy_makes_of_it():
    full = np.ones((3, 4, 5), bool)
    np.testing.assert_array_equal(distance_mm(full), ndimage.distance_transform_edt(full))


@pytest.mark.parametrize("mode", ["constant", "nearest", "grid-constant"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_interpolation_is_that_of_scipy_to_the_last_bit(mode, dtype):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(9, 12, 7)).astype(dtype)
    options = {"order": 1, "mode": mode, "cval": 3.0}
    for matrix, shift in (
        (np.eye(3) * 0.47 + rng.normal(size=(3, 3)) * 0.02, np.array([-2.0, 1.3, 0.4])),
        (np.diag([0.5, 0.5, 0.25]), np.array([-0.25, -0.25, -0.375])),
        (np.eye(3), np.zeros(3)),
    ):
        due = ndimage.affine_transform(values, matrix, shift, output_shape=(21, 25, 30), **options)
        found = linear_grid(values, matrix, shift, (21, 25, 30), mode=mode, beyond=3.0)
        np.testing.assert_array_equal(found, due)
        assert found.dtype == due.dtype
    points = rng.uniform(-3, 14, size=(3, 40, 50))
    due = ndimage.map_coordinates(values, points, **options)
    np.testing.assert_array_equal(linear_at(values, points, mode=mode, beyond=3.0), due)
    due = ndimage.map_coordinates(values, points, output=np.float64, **options)
    found = linear_at(values, points, mode=mode, beyond=3.0, dtype=np.float64)
    np.testing.assert_array_equal(found, due)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [0.06, 0.7, (2.3, 0.0, 4.1), (0.0, 9.0, 0.3)])
def test_smoothing_is_that_of_scipy_to_the_last_bit(sigma, dtype):
    rng = np.random.default_rng(3)
    for shape in ((23, 31, 17), (5, 3, 1), (40, 2, 1100)):
        values = (100 * rng.normal(size=shape)).astype(dtype)
        for truncate in (3.0, 4.0):
            due = ndimage.gaussian_filter(values, sigma, truncate=truncate)
            found = smoothed(values, sigma, truncate=truncate)
            np.testing.assert_array_equal(found, due)
            assert found.dtype == due.dtype


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_holes_are_those_of_scipy(share):
    blobs = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=(23, 31, 17)), 1)
    mask = blobs > np.quantile(blobs, 1 - share)
    for one in (mask, np.pad(mask, 4), mask.T, np.zeros_like(mask), np.ones_like(mask)):
        np.testing.assert_array_equal(without_holes(one), ndimage.binary_fill_holes(one))
        slices = [ndimage.binary_fill_holes(one[:, :, k]) for k in range(one.shape[2])]
        found = without_holes(one, within_slices=True)
        np.testing.assert_array_equal(found, np.stack(slices, axis=2))


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.9375, 0.9375, 5.0), (0.43, 0.7, 2.0)])
def test_a_mask_grows_as_by_a_ball(sizes):
    blobs = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(23, 31, 17)), 2) > 0.2
    for mask in (blobs, np.zeros_like(blobs)):
        for radius_mm in (0.4, 1.0, 2.0, 3.0, 4.1):
            due = ndimage.binary_dilation(mask, ball(radius_mm, sizes))
            np.testing.assert_array_equal(enlarged(mask, radius_mm, sizes), due)
