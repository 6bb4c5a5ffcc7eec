"""Brain masks of ellipsoid heads with known truth; real and simulated heads: tests/acceptance."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from corelab.imaging.brain import brain_mask, brain_volume_verdict

#: Intensities of air, scalp fat, bone, fluid, brain.
CONTRAST = {
    "T1w": (10, 900, 60, 120, 400),
    "FLAIR": (10, 420, 40, 60, 300),
    "dwi": (5, 40, 10, 60, 250),
    "gre": (10, 250, 30, 120, 300),
    "ncct": (-1000, -80, 900, 6, 33),
    "ctp": (-1000, -80, 900, 6, 35),
}


def head(kind, sizes, extent_mm=(176, 216, 180)):
    """Nested ellipsoids: brain with ventricles, a thin fluid layer, bone, scalp, and a neck."""
    axes = [np.arange(-e / 2 + s / 2, e / 2, s) for e, s in zip(extent_mm, sizes, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    z = z - 15

    def inside(a, b, c):
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1

    air, scalp, bone, fluid, brain = CONTRAST[kind]
    out = np.full(x.shape, float(air))
    neck = (np.hypot(x, y + 25) < 45) & (z < -55)
    out[neck] = scalp if kind not in ("ncct", "ctp") else 50
    out[inside(79, 97, 74)] = scalp
    out[inside(74, 92, 69)] = bone
    out[inside(68, 86, 63)] = fluid
    truth = inside(66.5, 84.5, 61.5)
    out[truth] = brain
    out[((np.abs(x) - 12) / 8) ** 2 + (y / 25) ** 2 + (z / 10) ** 2 < 1] = fluid
    random = np.random.default_rng(11)
    noise = 4.0 if kind in ("ncct", "ctp") else 0.04 * brain
    out += random.normal(0, noise, out.shape)
    bias = 1 + (0 if kind in ("ncct", "ctp") else 0.2) * (x / 90)
    affine = np.diag([*sizes, 1.0])
    return nib.Nifti1Image((out * bias).astype(np.float32), affine), truth


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("sizes", [(2.0, 2.0, 2.0), (1.2, 1.2, 5.0)], ids=["isotropic", "thick"])
@pytest.mark.parametrize("kind", CONTRAST)
def test_brain_of_a_simulated_head(kind, sizes):
    image, truth = head(kind, sizes)
    assert dice(brain_mask(image, kind), truth) >= 0.97


def test_series_is_masked_from_its_mean():
    image, truth = head("ctp", (1.5, 1.5, 5.0))
    voxels = np.asarray(image.dataobj)
    series = nib.Nifti1Image(np.stack([voxels, voxels + 2, voxels + 1], -1), image.affine)
    mask = brain_mask(series, "ctp")
    assert mask.shape == voxels.shape and dice(mask, truth) >= 0.97


def test_fine_voxels_are_masked_on_a_coarser_grid_without_a_shift():
    image, truth = head("ncct", (0.5, 0.5, 5.0))
    assert dice(brain_mask(image, "ncct"), truth) >= 0.97


def test_slab_of_a_perfusion_scan():
    image, truth = head("ctp", (1.5, 1.5, 5.0))
    slab = image.slicer[:, :, 14:30]
    assert dice(brain_mask(slab, "ctp"), truth[:, :, 14:30]) >= 0.97


@pytest.mark.parametrize("background", [0.0, -1024.0])
def test_skull_stripped_image_gives_its_foreground(background):
    image, truth = head("T1w", (2.0, 2.0, 2.0))
    voxels = np.where(truth, np.asarray(image.dataobj), background).astype(np.float32)
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "T1w")
    assert dice(mask, truth) > 0.995


def test_head_with_zeroed_air_is_not_taken_for_a_stripped_brain():
    image, truth = head("T1w", (2.0, 2.0, 2.0))
    voxels = np.where(np.asarray(image.dataobj) < 40, 0, np.asarray(image.dataobj)).astype(
        np.float32
    )
    assert dice(brain_mask(nib.Nifti1Image(voxels, image.affine), "T1w"), truth) >= 0.97


def test_bleeding_and_calcification_stay_in_the_mask():
    image, _ = head("ncct", (1.2, 1.2, 5.0))
    voxels = np.array(image.dataobj)
    voxels[70:85, 80:95, 18:21] = 70
    voxels[40:44, 90:94, 18:20] = 200
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "ncct")
    assert mask[70:85, 80:95, 18:21].all() and mask[40:44, 90:94, 18:20].all()


@pytest.mark.parametrize("kind", ["T1w", "dwi", "ncct", "adc", "cbf"])
def test_noise_without_a_head_ends_and_is_judged(kind):
    noise = np.random.default_rng(2).normal(0, 1, (40, 40, 20)).astype(np.float32)
    mask = brain_mask(nib.Nifti1Image(noise, np.diag([5.0, 5, 5, 1])), kind)
    assert mask.shape == noise.shape and mask.dtype == bool


def test_same_image_same_mask():
    image, _ = head("dwi", (2.0, 2.0, 4.0))
    assert np.array_equal(brain_mask(image, "dwi"), brain_mask(image, "dwi"))


@pytest.mark.parametrize(
    ("volume_ml", "coverage_mm", "verdict"),
    [
        (1400, 180, "pass"),
        (899, 180, "warn"),
        (2100, 180, "fail"),
        (0, 180, "fail"),
        (700, 60, "pass"),
        (1640, 100, "pass"),
        (2000, 100, "warn"),
        (1600, 60, "fail"),
    ],
)
def test_volume_is_judged_by_coverage(volume_ml, coverage_mm, verdict):
    assert brain_volume_verdict(volume_ml, coverage_mm) == verdict
