"""Brain masks of hard heads with known truth; real and simulated heads: tests/acceptance.

The heads are the template's brain under a smooth random warp of some mm and an affine map that the
extractor does not know, with a skull, a scalp, and what makes masks fail in life.
"""

from __future__ import annotations

from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.brain import (
    BrainShape,
    brain_mask,
    brain_shape,
    brain_volume_verdict,
    extract_brain,
)
from corelab.imaging.head_fit import fit_head
from corelab.imaging.template import template_brain_mask, tissue_maps

#: Intensities of air, scalp, bone, fluid, grey and white matter.
CONTRAST = {
    "T1w": (10, 900, 60, 120, 330, 420),
    "T1c": (10, 1100, 60, 130, 350, 420),
    "T2w": (10, 500, 40, 1000, 420, 330),
    "FLAIR": (10, 420, 40, 60, 320, 280),
    "dwi": (5, 40, 10, 60, 260, 230),
    "b0": (5, 60, 20, 900, 380, 300),
    "gre": (10, 250, 30, 140, 310, 290),
    "ncct": (-1000, -80, 900, 6, 37, 29),
    "ctp": (-1000, -80, 900, 6, 40, 31),
}


@cache
def _parts(step_mm, tilt_degrees=(8.0, -5.0, 6.0), scale=(0.96, 0.92, 0.9), seed=5):
    """Distance to the brain (mm) and tissue shares on a grid of the head, and the matrix."""
    template = template_brain_mask()
    steps = np.asarray(step_mm, float)
    shape = np.ceil(np.array([190, 230, 215]) / steps).astype(int)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = [-95, -115, -125]
    ax, ay, az = np.radians(tilt_degrees)
    turn = (
        np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
        @ np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
        @ np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(scale)
    matrix[:3, 3] = -matrix[:3, :3] @ [0, -18, 10]
    pull = np.linalg.inv(template.affine) @ np.linalg.inv(matrix) @ affine
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(float)
    points = np.tensordot(pull[:3, :3], grid, 1) + pull[:3, 3, None, None, None]
    random = np.random.default_rng(seed)
    for axis in range(3):
        waves = ndimage.gaussian_filter(random.normal(size=shape), 28 / steps)
        points[axis] += 4.0 * waves / waves.std() * 0.6
    grey, white = tissue_maps()
    brain, grey, white = (
        ndimage.map_coordinates(np.asarray(part, np.float32), points, order=1)
        for part in (np.asarray(template.dataobj), grey, white)
    )
    truth = brain > 0.5
    away = ndimage.distance_transform_edt(~truth, sampling=steps)
    return truth, away, grey, white, affine, matrix


def head(kind, step_mm=(3.0, 3.0, 3.0), *, scalp=True, wide=False, lesion=None, bias=0.2, **pose):
    """Image and truth. ``wide``: large ventricles; ``lesion``: brightness at the cortex."""
    truth, away, grey, white, affine, matrix = _parts(tuple(step_mm), **pose)
    values = CONTRAST[kind]
    air, skin, bone, fluid, cortex, core = values
    out = np.full(truth.shape, float(air))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in truth.shape], indexing="ij")).astype(float)
    mni = np.linalg.inv(matrix) @ affine
    x, y, z = np.tensordot(mni[:3, :3], grid, 1) + mni[:3, 3, None, None, None]
    if scalp:
        out[(np.hypot(x, y + 30) < 55) & (z < -55)] = skin if kind not in ("ncct", "ctp") else 50
        out[away < 14] = skin
    out[away < 8] = bone
    out[away < 2.5] = fluid
    tissue = np.clip(grey + white, 0, 1)
    inner = grey * cortex + white * core + (1 - tissue) * fluid
    if wide:
        horns = ((np.abs(x) - 16) / 15) ** 2 + ((y + 10) / 50) ** 2 + ((z - 14) / 18) ** 2 < 1
        inner[horns] = fluid
    out[truth] = inner[truth]
    spot = truth & ((x - 55) ** 2 + (y - 10) ** 2 + (z - 25) ** 2 < 22**2)
    if lesion is not None:
        out[spot] = lesion
    ct = kind in ("ncct", "ctp")
    random = np.random.default_rng(11)
    out += random.normal(0, 4.0 if ct else 0.04 * core, out.shape)
    if not ct:
        out = np.abs(out) * (1 + bias * (x / 90 + z / 120) / 1.5)
    return nib.Nifti1Image(out.astype(np.float32), affine), truth, spot


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("kind", CONTRAST)
def test_every_contrast(kind):
    image, truth, _ = head(kind)
    found = extract_brain(image, kind)
    assert dice(found.mask, truth) >= 0.95
    assert brain_volume_verdict(1400, 180, found.shape) == "pass"


@pytest.mark.parametrize("kind", ["T1w", "dwi", "FLAIR", "ncct"])
def test_thick_slices(kind):
    image, truth, _ = head(kind, (2.0, 2.0, 6.5))
    assert dice(brain_mask(image, kind), truth) >= 0.95


def test_diffusion_of_the_elderly_has_no_scalp_and_wide_ventricles():
    image, truth, _ = head("dwi", (2.0, 2.0, 6.5), scalp=False, wide=True)
    mask = brain_mask(image, "dwi")
    assert dice(mask, truth) >= 0.95
    front = np.zeros_like(truth)
    front[:, truth.shape[1] // 2 :] = True
    assert (mask & truth & front).sum() > 0.95 * (truth & front).sum()


@pytest.mark.parametrize(("kind", "bright"), [("FLAIR", 800), ("T2w", 1100), ("dwi", 1000)])
def test_bright_lesion_at_the_cortex_stays_in(kind, bright):
    image, truth, spot = head(kind, lesion=bright)
    mask = brain_mask(image, kind)
    assert (mask & spot).sum() > 0.93 * spot.sum() and dice(mask, truth) >= 0.95


def test_cavity_of_a_resection_stays_in():
    image, truth, spot = head("T1w", lesion=CONTRAST["T1w"][3])
    mask = brain_mask(image, "T1w")
    assert (mask & spot).sum() > 0.85 * spot.sum() and dice(mask, truth) >= 0.95


@pytest.mark.parametrize("nod", [25.0, -25.0])
def test_tilted_head(nod):
    image, truth, _ = head("T1w", tilt_degrees=(nod, 12.0, -15.0))
    assert dice(brain_mask(image, "T1w"), truth) >= 0.95


def test_strong_bias_field():
    image, truth, _ = head("T1w", bias=0.8)
    assert dice(brain_mask(image, "T1w"), truth) >= 0.94


@pytest.mark.parametrize(("kind", "part"), [("ctp", (38, 58)), ("dwi", (22, 40)), ("T1w", (0, 50))])
def test_slab_and_head_that_is_cut_off(kind, part):
    image, truth, _ = head(kind)
    slab = image.slicer[:, :, part[0] : part[1]]
    assert dice(brain_mask(slab, kind), truth[:, :, part[0] : part[1]]) >= 0.95
