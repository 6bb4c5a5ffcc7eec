"""Grey levels and derived images against analytic cases."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from corelab.radiomics.derived import gd_zscore, t2_edge
from corelab.radiomics.normalise import grey_levels, top_mode


def volume(values, sizes=(1.0, 1.0, 1.0)):
    return nib.Nifti1Image(np.asarray(values, np.float64), np.diag([*sizes, 1.0]))


# requirements of the trial, J12 and R20: 999 of 1000 kept, 256 levels, exactly.
def test_ramp_of_1000_keeps_999_in_256_levels():
    found = grey_levels(np.arange(1000.0).reshape(10, 10, 10))
    levels = found.levels.ravel()
    assert (levels >= 0).sum() == 999
    assert levels[999] == -1
    assert set(levels[:999].tolist()) == set(range(256))
    assert (found.low, found.high, found.n_top, found.n_reference) == (0.0, 998.0, 1, 1000)
    assert levels[:999].tolist() == [min(255, 256 * v // 998) for v in range(999)]


def test_clip_keeps_every_voxel_and_full_has_no_top():
    ramp = np.arange(1000.0)
    clipped = grey_levels(ramp, top="clip")
    assert (clipped.levels >= 0).all() and clipped.levels[999] == clipped.levels[998] == 255
    assert clipped.high == 998.0 and clipped.n_top == 1
    full = grey_levels(ramp, top="full")
    assert full.high == 999.0 and full.n_top == 0 and full.levels[999] == 255
    assert set(full.levels.tolist()) == set(range(256))


@pytest.mark.parametrize(("n", "removed"), [(999, 0), (1000, 1), (1999, 1), (3000, 3), (7000, 7)])
def test_share_is_floored(n, removed):
    assert grey_levels(np.arange(float(n))).n_top == removed


def test_ties_at_the_cut_stay_whatever_their_order():
    values = np.r_[np.arange(990.0), np.full(10, 2000.0)]
    found = grey_levels(values)
    assert found.n_top == 0 and found.high == 2000.0
    order = np.random.default_rng(3).permutation(1000)
    assert np.array_equal(grey_levels(values[order]).levels, found.levels[order])


def test_levels_do_not_change_with_scale_and_ignore_voxels_outside_the_mask():
    rng = np.random.default_rng(0)
    values = rng.gamma(3.0, 40.0, (12, 12, 12))
    mask = np.zeros(values.shape, bool)
    mask[2:10, 2:10, 2:10] = True
    found = grey_levels(values, mask=mask)
    assert np.array_equal(grey_levels(4.0 * values + 64.0, mask=mask).levels, found.levels)
    values[~mask] = 1e9
    values[0, 0, 0] = np.nan
    assert np.array_equal(grey_levels(values, mask=mask).levels, found.levels)
    assert (found.levels[~mask] == -1).all()


def test_top_by_series():
    assert [top_mode(s) for s in ("T1w", "T1c", "FLAIR", "T2w")] == ["exclude"] * 3 + ["full"]


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (np.full(10, 3.0), {}, "constant image"),
        (np.arange(10.0), {"mask": np.zeros(10)}, "mask is empty"),
        (np.arange(10.0), {"mask": np.ones(9)}, "shape"),
        (np.r_[np.nan, np.arange(9.0)], {}, "not finite"),
        (np.arange(10.0), {"top": "drop"}, "exclude, clip, full"),
        (np.arange(10.0), {"top_share": 0.1 + 1}, "top_share"),
        (np.arange(10.0), {"n_levels": 1}, "n_levels"),
    ],
)
def test_bad_input_to_grey_levels(values, arguments, message):
    with pytest.raises(ValueError, match=message):
        grey_levels(values, **arguments)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_prewitt_of_a_step_is_half_its_height_beside_it(dimensions):
    step = np.zeros((10, 9, 8))
    step[5:] = 8.0
    edge = t2_edge(volume(step), dimensions=dimensions).get_fdata()
    expected = np.zeros(10)
    expected[[4, 5]] = 4.0
    assert np.array_equal(edge, np.broadcast_to(expected[:, None, None], edge.shape))


def test_prewitt_of_a_ramp_is_its_slope_and_2d_does_not_see_the_slice_axis():
    x, y, z = np.meshgrid(np.arange(9.0), np.arange(9.0), np.arange(9.0), indexing="ij")
    inner = (slice(1, -1),) * 3
    ramp = volume(3 * x + 4 * y + 12 * z)
    assert np.allclose(t2_edge(ramp).get_fdata()[inner], 5.0)
    assert np.allclose(t2_edge(ramp, dimensions=3).get_fdata()[inner], 13.0)
    # The slice axis is the one with the largest voxels: here the first.
    sagittal = volume(3 * x + 4 * y + 12 * z, (6.0, 0.5, 0.5))
    assert np.allclose(t2_edge(sagittal).get_fdata()[inner], np.hypot(4, 12))
    per_mm = t2_edge(sagittal, dimensions=3, unit="mm").get_fdata()[inner]
    assert np.allclose(per_mm, np.sqrt(0.5**2 + 8**2 + 24**2))


def test_prewitt_equals_scikit_image_in_2d():
    from skimage.filters import prewitt_h, prewitt_v

    rng = np.random.default_rng(1)
    plane = rng.normal(size=(12, 11))
    edge = t2_edge(volume(np.repeat(plane[:, :, None], 3, axis=2))).get_fdata()[..., 1]
    other = np.hypot(prewitt_h(plane), prewitt_v(plane))
    # scikit-image divides its kernels by 3 and spans two voxels, hence a half.
    assert np.allclose(edge[1:-1, 1:-1], other[1:-1, 1:-1] / 2, atol=1e-6)


def test_bad_input_to_t2_edge():
    with pytest.raises(ValueError, match="2 or 3"):
        t2_edge(volume(np.ones((3, 3, 3))), dimensions=1)
    with pytest.raises(ValueError, match="'voxel' or 'mm'"):
        t2_edge(volume(np.ones((3, 3, 3))), unit="cm")
    with pytest.raises(ValueError, match="needs 3"):
        t2_edge(volume(np.ones((3, 3, 3, 2))))
    with pytest.raises(ValueError, match="not finite"):
        t2_edge(volume(np.full((3, 3, 3), np.nan)))


@pytest.fixture(scope="module")
def contrast_pair():
    rng = np.random.default_rng(7)
    before = rng.normal(300.0, 40.0, (30, 30, 30))
    after = 1.5 * before + 20.0 + rng.normal(0.0, 10.0, before.shape)
    lesion = np.zeros(before.shape, bool)
    lesion[10:16, 10:16, 10:16] = True
    after[lesion] += 80.0
    return before, after, lesion


def test_gd_zscore_finds_planted_enhancement(contrast_pair):
    before, after, lesion = contrast_pair
    z = gd_zscore(volume(before), volume(after), reference=~lesion).get_fdata()
    # 80 over noise of 10 is 8 SD; standard error of a mean of 216 voxels is 0.07.
    assert z[lesion].mean() == pytest.approx(8.0, abs=0.3)
    assert abs(z[~lesion].mean()) < 0.03
    assert z[~lesion].std() == pytest.approx(1.0, abs=0.03)


def test_gd_zscore_does_not_change_with_the_units_of_either_image(contrast_pair):
    before, after, lesion = contrast_pair
    z = gd_zscore(volume(before), volume(after), reference=~lesion).get_fdata()
    other = gd_zscore(volume(3 * before + 7), volume(0.2 * after - 4), reference=~lesion)
    assert np.allclose(other.get_fdata(), z, atol=1e-4)


def test_gd_zscore_is_robust_to_enhancing_voxels_in_the_reference(contrast_pair):
    before, after, lesion = contrast_pair
    everywhere = np.ones(before.shape)
    z = gd_zscore(volume(before), volume(after), reference=volume(everywhere)).get_fdata()
    assert z[lesion].mean() == pytest.approx(8.0, abs=0.3)


def test_bad_input_to_gd_zscore(contrast_pair):
    before, after, _ = contrast_pair
    tissue = np.ones(before.shape)
    with pytest.raises(ValueError, match="not on the grid"):
        gd_zscore(volume(before), volume(after, (1, 1, 2)), reference=tissue)
    with pytest.raises(ValueError, match="fewer than 50"):
        gd_zscore(volume(before), volume(after), reference=np.zeros(before.shape))
    with pytest.raises(ValueError, match="constant"):
        gd_zscore(volume(tissue), volume(after), reference=tissue)
    with pytest.raises(ValueError, match="same scan"):
        gd_zscore(volume(before), volume(before), reference=tissue)
