"""Overlap kernels against analytic shapes, SimpleITK, and the stated behaviour on empty masks."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from helpers import data_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from corelab.measurement import overlap


def ball(radius_mm, spacing, shape, centre_mm):
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return np.linalg.norm(grid * spacing - centre_mm, axis=-1) <= radius_mm


def by_simpleitk(a, b, spacing_mm):
    """Dice, Jaccard and the Hausdorff distance by SimpleITK: the independent check.

    ITK measures to voxels, not to surface voxels; the largest distance is the same.
    """
    images = []
    for mask in (a, b):
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        # ITK counts axes from the fastest one.
        image.SetSpacing([float(v) for v in spacing_mm[::-1]])
        images.append(image)
    shared, distance = (
        SimpleITK.LabelOverlapMeasuresImageFilter(),
        SimpleITK.HausdorffDistanceImageFilter(),
    )
    shared.Execute(*images)
    distance.Execute(*images)
    return {
        "dice": shared.GetDiceCoefficient(1),
        "jaccard": shared.GetJaccardCoefficient(1),
        "hausdorff_mm": distance.GetHausdorffDistance(),
    }


def hausdorff_mm(distances):
    return max(distances.first_to_second_mm.max(), distances.second_to_first_mm.max())


def test_shifted_cube_analytic():
    a, b = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    a[5:15, 5:15, 5:15] = True
    b[5:15, 5:15, 7:17] = True
    result = overlap.overlap_metrics(a, b, np.diag([1.0, 1.0, 2.5, 1.0]))
    assert result["dice"].value == pytest.approx(0.8)
    assert result["jaccard"].value == pytest.approx(800 / 1200)
    assert result["hd95_mm"].value == pytest.approx(5.0)
    assert result["volume_difference_ml"].value == 0.0
    assert hausdorff_mm(overlap._surface_distances(a, b, [1, 1, 2.5])) == pytest.approx(5.0)


def test_concentric_balls_distance_is_the_difference_of_radii():
    spacing = np.array([0.5, 0.5, 0.5])
    small = ball(8.0, spacing, (61, 61, 61), [15, 15, 15])
    large = ball(12.0, spacing, (61, 61, 61), [15, 15, 15])
    result = overlap.overlap_metrics(large, small, np.diag([0.5, 0.5, 0.5, 1]))
    assert result["assd_mm"].value == pytest.approx(4.0, abs=0.25)
    assert result["hd95_mm"].value == pytest.approx(4.0, abs=0.5)
    volume = 4 / 3 * np.pi * (12**3 - 8**3) / 1000
    assert result["volume_difference_ml"].value == pytest.approx(volume, rel=0.02)
    assert overlap.overlap_metrics(large, small, spacing, nsd_tolerance_mm=5)["nsd"].value == 1


def test_one_far_false_positive_shows_in_hausdorff_not_in_hd95():
    a = np.zeros((40, 40, 40), bool)
    a[5:25, 5:25, 5:25] = True
    b = a.copy()
    b[38, 38, 38] = True
    distances = overlap._surface_distances(a, b, [1, 1, 1])
    assert distances.hd95_mm == 0.0
    assert hausdorff_mm(distances) == pytest.approx(np.sqrt(3) * 14)


@settings(max_examples=40, deadline=None)
@given(
    arrays(bool, (5, 6, 4)),
    arrays(bool, (5, 6, 4)),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
)
def test_equals_simpleitk_and_brute_force(a, b, spacing):
    if not a.any() or not b.any():
        return
    ours = overlap.overlap_metrics(a, b, list(spacing))
    theirs = by_simpleitk(a, b, spacing)
    assert ours["dice"].value == pytest.approx(theirs["dice"], abs=1e-12)
    assert ours["jaccard"].value == pytest.approx(theirs["jaccard"], abs=1e-12)
    points = [np.argwhere(overlap._surface(m)) * np.array(spacing) for m in (a, b)]
    apart = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = apart.min(axis=1), apart.min(axis=0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    assert ours["hd95_mm"].value == pytest.approx(hd95, abs=1e-6)
    both = np.concatenate([there, back])
    assert ours["assd_mm"].value == pytest.approx(both.mean(), abs=1e-6)
    assert ours["nsd"].value == pytest.approx((both <= 2.0).mean(), abs=1e-12)


def test_hausdorff_equals_simpleitk():
    spacing = np.array([1.2, 1.2, 5.0])
    a = ball(12.0, spacing, (30, 30, 12), [16, 18, 28])
    b = ball(10.0, spacing, (30, 30, 12), [20, 17, 25])
    theirs = by_simpleitk(a, b, spacing)["hausdorff_mm"]
    assert hausdorff_mm(overlap._surface_distances(a, b, spacing)) == pytest.approx(
        theirs, abs=1e-5
    )


def test_empty_masks():
    full, empty = np.ones((3, 3, 3)), np.zeros((3, 3, 3))
    both = overlap.overlap_metrics(empty, empty, np.eye(4))
    for metric in ("dice", "jaccard", "hd95_mm", "assd_mm", "nsd"):
        assert both[metric] == (None, "not_computable", overlap.BOTH_EMPTY)
    assert both["volume_difference_ml"].value == 0.0
    one = overlap.overlap_metrics(full, empty, np.eye(4))
    assert [one[m].value for m in ("dice", "jaccard", "nsd")] == [0.0, 0.0, 0.0]
    assert one["hd95_mm"].value == one["assd_mm"].value == np.inf
    assert one["volume_difference_ml"].value == pytest.approx(0.027)


def test_oblique_grid_keeps_distances_and_sheared_grid_is_told():
    angle = np.deg2rad(20)
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    a, b = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    a[2:4, 2:4, 2:4] = True
    b[2:4, 2:4, 4:6] = True
    oblique = np.eye(4)
    oblique[:3, :3] = rotation @ np.diag([1.0, 1.0, 3.0])
    assert overlap.overlap_metrics(a, b, oblique)["hd95_mm"].value == pytest.approx(6.0)
    sheared = np.eye(4)
    sheared[0, 2] = 0.4
    result = overlap.overlap_metrics(a, b, sheared)
    assert result["hd95_mm"].reason == overlap.SHEARED
    assert result["dice"].status == "ok"


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="resample"):
        overlap.overlap_metrics(np.ones((2, 2, 2)), np.ones((2, 2, 3)), np.eye(4))


def test_generalised_dice_of_two_is_dice():
    rng = np.random.default_rng(4)
    a, b, c = rng.random((3, 6, 6, 6)) > 0.5
    both = np.count_nonzero(np.logical_and(a, b))
    whole = np.count_nonzero(a) + np.count_nonzero(b)
    assert overlap.generalised_dice([a, b]) == pytest.approx(2 * both / whole)
    pairs = [(a, b), (a, c), (b, c)]
    expected = 2 * sum((x & y).sum() for x, y in pairs) / sum(x.sum() + y.sum() for x, y in pairs)
    assert overlap.generalised_dice([a, b, c]) == pytest.approx(expected)


def test_lesion_detection():
    truth = np.zeros((20, 20, 4), bool)
    truth[2:5, 2:5] = truth[10:14, 10:14] = truth[17, 17, 0] = True
    candidate = np.zeros_like(truth)
    candidate[3:6, 3:6] = candidate[12, 12, 1] = candidate[0, 19, 3] = True
    found = overlap._detect_lesions(candidate, truth)
    assert (found.n_reference, found.n_found, found.n_candidates, found.n_false) == (3, 2, 3, 1)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.precision == pytest.approx(2 / 3)
    nothing = overlap._detect_lesions(np.zeros((3, 3)), np.zeros((3, 3)))
    assert np.isnan(nothing.f1)


@pytest.mark.acceptance
def test_glioma_algorithms_dice():
    """Pairwise whole-tumour Dice of five algorithms, 0.834 to 0.969 (data/README)."""
    files = sorted(data_folder("glioma/tcga_fg_6692/segmentation").glob("*.nii.gz"))
    masks = [np.asanyarray(nib.load(p).dataobj) > 0 for p in files]
    assert len(masks) == 5
    values = [
        overlap.generalised_dice([masks[i], masks[j]]) for i in range(5) for j in range(i + 1, 5)
    ]
    assert min(values) == pytest.approx(0.834, abs=2e-3)
    assert max(values) == pytest.approx(0.969, abs=2e-3)
