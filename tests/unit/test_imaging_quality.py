"""Quality measured in the voxels: each metric against an image made to have a known answer."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.quality import image_quality

NAMES = ("brain_cut_percent", "snr", "noise_sd", "ghosting_percent", "motion_mm")
SIZES = (1.5, 1.5, 5.0)


def head(noise=4.0, frames=None):
    """An ellipsoid with gyri, air around it, and Gaussian noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (96, 112, 24)), indexing="ij")
    brain = (x / 0.6) ** 2 + (y / 0.7) ** 2 + (z / 0.8) ** 2 < 1
    texture = 30 * np.sin(9 * x + 3 * z) * np.cos(8 * y)
    voxels = np.where(brain, 200 + texture, 6.0)
    rng = np.random.default_rng(3)
    if frames:
        voxels = np.repeat(voxels[..., None], frames, axis=3)
    return voxels + rng.normal(0, noise, voxels.shape), brain


def measured(voxels, brain, **more):
    image = nib.Nifti1Image(voxels.astype(np.float32), np.diag([*SIZES, 1]))
    return image_quality(image, brain, NAMES, **more)


def test_sound_head_has_the_signal_and_noise_that_it_was_made_with():
    voxels, brain = head(noise=4.0)
    found = measured(voxels, brain)
    assert found["noise_sd"] == pytest.approx(4.0, rel=0.03)
    assert found["snr"] == pytest.approx(np.median(voxels[brain]) / 4.0, rel=0.03)
    assert found["ghosting_percent"] < 0.3
    assert found["brain_cut_percent"] == 0
    assert found["motion_mm"] < 0.8


@pytest.mark.parametrize("percent", [2.0, 6.0])
def test_ghost_along_the_phase_direction_is_measured(percent):
    voxels, brain = head()
    # A ghost adds to the air before and after the head along one axis only.
    ghost = np.broadcast_to(~brain.any(axis=0)[None], brain.shape)
    found = measured(voxels + ghost * percent / 100 * np.median(voxels[brain]), brain)
    assert found["ghosting_percent"] == pytest.approx(percent, rel=0.1)


def test_air_that_the_scanner_masked_tells_no_ghosting():
    voxels, brain = head()
    assert measured(np.where(brain, voxels, 0), brain)["ghosting_percent"] is None
    assert measured(voxels, brain, ct=True)["ghosting_percent"] is None


@pytest.mark.parametrize("shift_mm", [3.0, 6.0])
def test_a_slice_that_moved_between_the_others_is_found(shift_mm):
    voxels, brain = head()
    voxels[:, :, 12] = ndimage.shift(voxels[:, :, 12], (shift_mm / SIZES[0], 0), mode="nearest")
    assert measured(voxels, brain)["motion_mm"] == pytest.approx(shift_mm, rel=0.15)


def test_a_frame_that_moved_is_found():
    voxels, brain = head(frames=6)
    voxels[..., 4] = ndimage.shift(voxels[..., 4], (4, 0, 0), mode="nearest")
    assert measured(voxels, brain)["motion_mm"] == pytest.approx(4 * SIZES[0], rel=0.1)
    still, _ = head(frames=6)
    assert measured(still, brain)["motion_mm"] < 0.5


def test_brain_cut_at_the_vertex():
    voxels, brain = head()
    found = measured(voxels[:, :, :14], brain[:, :, :14])
    areas = brain.sum(axis=(0, 1))
    assert found["brain_cut_percent"] == pytest.approx(100 * areas[13] / areas.max())


def test_without_a_brain_nothing_is_made_up():
    voxels, brain = head()
    found = measured(voxels, None)
    assert {name for name, value in found.items() if value is not None} == {"ghosting_percent"}
    assert measured(voxels, np.zeros_like(brain))["snr"] is None
    assert image_quality(None, None, []) == {}
