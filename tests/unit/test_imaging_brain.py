"""Brain masks of hard heads with known truth; real and simulated heads: tests/acceptance.

Two kinds of heads. The first are the template's brain under a smooth random warp of some mm and an
affine map that the extractor does not know, with a skull, a scalp, and what makes masks fail in
life. The second are nested ellipsoids with nothing of the template in them: the extractor's prior
is wrong there by up to 16 mm, and the image's own edges must win.
"""

from __future__ import annotations

from functools import cache, partial

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging import brain
from corelab.imaging.brain import (
    BRAIN_ML,
    BrainShape,
    brain_limits_ml,
    brain_mask,
    brain_shape,
    brain_volume_verdict,
    extract_brain,
)
from corelab.imaging.head_fit import fit_head
from corelab.imaging.kernels import class_counts
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


#: Coarse, for speed; where a voxel of the surface more or less would decide, the finer one.
STEP_MM, FINER_MM = (4.0, 4.0, 4.0), (3.0, 3.0, 3.0)
slow = partial(pytest.param, marks=pytest.mark.slow)


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


@cache
def head(kind, step_mm=STEP_MM, *, scalp=True, wide=False, lesion=None, bias=0.2, **pose):
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


#: Of the ellipsoid heads: air, scalp fat, bone, fluid, brain.
ELLIPSOID_CONTRAST = {
    "T1w": (10, 900, 60, 120, 400),
    "FLAIR": (10, 420, 40, 60, 300),
    "dwi": (5, 40, 10, 60, 250),
    "gre": (10, 250, 30, 120, 300),
    "ncct": (-1000, -80, 900, 6, 33),
    "ctp": (-1000, -80, 900, 6, 35),
}


@cache
def ellipsoid_head(kind, sizes, extent_mm=(176, 216, 180)):
    """Nested ellipsoids: brain with ventricles, a thin fluid layer, bone, scalp, and a neck."""
    axes = [np.arange(-e / 2 + s / 2, e / 2, s) for e, s in zip(extent_mm, sizes, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    z = z - 15

    def inside(a, b, c):
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1

    air, scalp, bone, fluid, brain = ELLIPSOID_CONTRAST[kind]
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


ISOTROPIC, THICK = (2.0, 2.0, 2.0), (1.2, 1.2, 5.0)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("T1w", ISOTROPIC),
        ("FLAIR", ISOTROPIC),
        ("dwi", THICK),
        ("gre", THICK),
        ("ncct", THICK),
        ("ctp", THICK),
        slow("T1w", THICK),
        slow("FLAIR", THICK),
        slow("dwi", ISOTROPIC),
        slow("gre", ISOTROPIC),
        slow("ncct", ISOTROPIC),
        slow("ctp", ISOTROPIC),
    ],
)
def test_brain_of_a_head_unlike_the_template(kind, sizes):
    image, truth = ellipsoid_head(kind, sizes)
    assert dice(brain_mask(image, kind), truth) >= 0.97


def test_series_of_a_head_unlike_the_template_is_masked_from_its_mean():
    image, truth = ellipsoid_head("ctp", (1.5, 1.5, 5.0))
    voxels = np.asarray(image.dataobj)
    series = nib.Nifti1Image(np.stack([voxels, voxels + 2, voxels + 1], -1), image.affine)
    mask = brain_mask(series, "ctp")
    assert mask.shape == voxels.shape and dice(mask, truth) >= 0.97


def test_fine_voxels_are_masked_on_a_coarser_grid_without_a_shift():
    image, truth = ellipsoid_head("ncct", (0.5, 0.5, 5.0))
    mask = brain_mask(image, "ncct")
    assert dice(mask, truth) >= 0.97
    middles = [np.argwhere(part).mean(axis=0)[:2] for part in (mask, truth)]
    assert np.abs(middles[0] - middles[1]).max() < 1.5


def test_slab_of_a_head_unlike_the_template():
    image, truth = ellipsoid_head("ctp", (1.5, 1.5, 5.0))
    slab = image.slicer[:, :, 14:30]
    assert dice(brain_mask(slab, "ctp"), truth[:, :, 14:30]) >= 0.97


def test_zeroed_air_around_a_head_unlike_the_template():
    image, truth = ellipsoid_head("T1w", ISOTROPIC)
    voxels = np.asarray(image.dataobj)
    voxels = np.where(voxels < 40, 0, voxels).astype(np.float32)
    assert dice(brain_mask(nib.Nifti1Image(voxels, image.affine), "T1w"), truth) >= 0.97


def test_bleeding_and_calcification_stay_in_a_head_unlike_the_template():
    image, _ = ellipsoid_head("ncct", THICK)
    voxels = np.array(image.dataobj)
    voxels[70:85, 80:95, 18:21] = 70
    voxels[40:44, 90:94, 18:20] = 200
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "ncct")
    assert mask[70:85, 80:95, 18:21].all() and mask[40:44, 90:94, 18:20].all()


@pytest.mark.parametrize("kind", ["T1w", "T2w", "b0", slow("gre"), "ncct"])
def test_every_contrast(kind):
    image, truth, _ = head(kind)
    found = extract_brain(image, kind)
    assert dice(found.mask, truth) >= 0.95
    assert brain_volume_verdict(1400, 180, found.shape) == "pass"


@pytest.mark.parametrize("kind", [slow("T1c"), "FLAIR", slow("ctp")])
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


@pytest.mark.parametrize(("kind", "bright"), [("FLAIR", 800), slow("T2w", 1100), slow("dwi", 1000)])
def test_bright_lesion_at_the_cortex_stays_in(kind, bright):
    image, truth, spot = head(kind, FINER_MM, lesion=bright)
    mask = brain_mask(image, kind)
    assert (mask & spot).sum() > 0.93 * spot.sum() and dice(mask, truth) >= 0.95


def test_cavity_of_a_resection_stays_in():
    image, truth, spot = head("T1w", FINER_MM, lesion=CONTRAST["T1w"][3])
    mask = brain_mask(image, "T1w")
    assert (mask & spot).sum() > 0.85 * spot.sum() and dice(mask, truth) >= 0.95


def test_cavity_that_opens_to_the_air_stays_in_without_a_scalp():
    image, truth, spot = head("dwi", lesion=CONTRAST["dwi"][0], scalp=False)
    mask = brain_mask(image, "dwi")
    assert (mask & spot).sum() > 0.85 * spot.sum() and dice(mask, truth) >= 0.95


def test_blood_at_the_inner_table_stays_in():
    image, truth, _ = head("ncct", (2.0, 2.0, 6.5))
    away = _parts((2.0, 2.0, 6.5))[1]
    depth = ndimage.distance_transform_edt(truth, sampling=(2.0, 2.0, 6.5))
    x, _, z = np.indices(truth.shape)
    blood = (depth < 4) & (away < 4) & (x > 65) & (z > 15) & (z < 22)
    voxels = np.where(blood, 65, np.asarray(image.dataobj)).astype(np.float32)
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "ncct")
    assert blood.sum() > 300 and (mask & blood).sum() > 0.9 * blood.sum()
    assert dice(mask, truth) >= 0.95


@pytest.mark.parametrize("nod", [25.0, slow(-25.0)])
def test_tilted_head(nod):
    image, truth, _ = head("T1w", tilt_degrees=(nod, 12.0, -15.0))
    assert dice(brain_mask(image, "T1w"), truth) >= 0.95


@pytest.mark.slow
def test_strong_bias_field():
    image, truth, _ = head("T1w", FINER_MM, bias=0.8)
    assert dice(brain_mask(image, "T1w"), truth) >= 0.94


@pytest.mark.parametrize(
    ("kind", "part"), [("ctp", (38, 58)), ("dwi", (22, 40)), slow("T1w", (0, 50))]
)
def test_slab_and_head_that_is_cut_off(kind, part):
    image, truth, _ = head(kind, FINER_MM)
    slab = image.slicer[:, :, part[0] : part[1]]
    assert dice(brain_mask(slab, kind), truth[:, :, part[0] : part[1]]) >= 0.95


@pytest.mark.parametrize("background", [0.0, -1024.0])
def test_skull_stripped_image_gives_its_foreground(background):
    image, truth, _ = head("T1w")
    voxels = np.where(truth, np.asarray(image.dataobj), background).astype(np.float32)
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "T1w")
    assert dice(mask, truth) > 0.995


def test_head_with_zeroed_air_is_not_taken_for_a_stripped_brain():
    image, truth, _ = head("T1w")
    voxels = np.asarray(image.dataobj)
    voxels = np.where(voxels < 40, 0, voxels).astype(np.float32)
    assert dice(brain_mask(nib.Nifti1Image(voxels, image.affine), "T1w"), truth) >= 0.95


def test_bleeding_and_calcification_stay_in_the_mask():
    image, _, spot = head("ncct", lesion=70)
    voxels = np.array(image.dataobj)
    middle = tuple(size // 2 for size in voxels.shape)
    calcified = tuple(slice(at, at + 2) for at in middle)
    voxels[calcified] = 200
    mask = brain_mask(nib.Nifti1Image(voxels, image.affine), "ncct")
    assert mask[calcified].all() and (mask & spot).sum() > 0.93 * spot.sum()


@pytest.mark.parametrize("kind", ["T1w", "ncct", "adc"])
def test_noise_without_a_head_gives_no_mask(kind):
    noise = np.random.default_rng(2).normal(0, 1, (40, 40, 20)).astype(np.float32)
    found = extract_brain(nib.Nifti1Image(noise, np.diag([5.0, 5, 5, 1])), kind)
    assert found.mask.shape == noise.shape and found.mask.dtype == bool and not found.mask.any()
    assert brain_volume_verdict(0.0, 100, found.shape) == "fail"


def test_same_image_same_mask():
    image, _, _ = head("dwi")
    assert np.array_equal(brain_mask(image, "dwi"), brain_mask(image, "dwi"))


@pytest.mark.parametrize("kind", [slow("T1w"), "dwi", "ncct"])
def test_fit_finds_the_template_on_the_head(kind):
    image, _, _ = head(kind, tilt_degrees=(20.0, -10.0, 12.0))
    *_, matrix = _parts(STEP_MM, tilt_degrees=(20.0, -10.0, 12.0))
    places = np.array([[0, -18, 10, 1], [45, 0, 20, 1], [-45, -60, 0, 1], [0, 50, 10, 1.0]]).T
    apart = (fit_head(image, kind).matrix @ places - matrix @ places)[:3]
    # The warp, which no affine map can follow, moves places by 2 to 4 mm.
    assert np.linalg.norm(apart, axis=0).max() < 9


def test_lost_lobe_is_not_passed():
    image, truth, _ = head("dwi", FINER_MM)
    fit = fit_head(image, "dwi")
    assert brain_volume_verdict(1300, 180, brain_shape(truth, image.affine, fit)) == "pass"
    x, y, z = (int(at) for at in np.argwhere(truth).mean(axis=0))
    for lost in (np.s_[:, y + 12 :], np.s_[: x - 10], np.s_[:, :, z + 12 :]):
        mask = truth.copy()
        mask[lost] = False
        assert brain_volume_verdict(1300, 180, brain_shape(mask, image.affine, fit)) == "fail"


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


@pytest.mark.parametrize(
    ("shape", "verdict"),
    [
        (BrainShape(0.95, 0.95, 0.0, 0.6), "pass"),
        (BrainShape(0.95, 0.75, 0.0, 0.6), "warn"),
        (BrainShape(0.85, 0.95, 0.0, 0.6), "warn"),
        (BrainShape(0.95, 0.95, 0.0, 0.1), "warn"),
        (BrainShape(0.95, 0.5, 0.0, 0.6), "fail"),
        (BrainShape(0.7, 0.95, 0.0, 0.6), "fail"),
        (BrainShape(0.95, 0.95, 0.0, 0.01), "fail"),
    ],
)
def test_shape_is_judged_beside_volume(shape, verdict):
    assert brain_volume_verdict(1400, 180, shape) == verdict


def test_large_head_passes_where_the_template_agrees():
    large = BrainShape(0.95, 0.95, 0.0, 0.6)
    volumes = (1950, 2050, 2300)
    assert [brain_volume_verdict(ml, 180, large) for ml in volumes] == ["pass", "warn", "fail"]
    leak = BrainShape(0.91, 0.95, 0.1, 0.6)
    assert [brain_volume_verdict(ml, 180, leak) for ml in volumes] == ["warn", "fail", "fail"]
    assert brain_limits_ml(180, leak) == BRAIN_ML


def test_the_cut_is_the_same_as_in_whole_arrays():
    rng = np.random.default_rng(3)
    gain = (20 * ndimage.gaussian_filter(rng.normal(size=(14, 17, 12)), 2)).astype(np.float32)
    start, sizes = gain > 0.3, np.array([2.0, 2.0, 2.4])
    share = start.astype(np.float32)
    ahead, flows = share, [np.zeros_like(share) for _ in range(3)]
    norm = float(np.sqrt((4 / np.square(sizes)).sum()))
    primal, dual = np.float32(0.5 / norm), np.float32(2.0 / norm)
    for _ in range(20):
        length = np.zeros_like(share)
        for axis, flow in enumerate(flows):
            low = (slice(None),) * axis + (slice(0, -1),)
            flow[low] += dual * np.float32(1 / sizes[axis]) * np.diff(ahead, axis=axis)
            length += flow**2
        shrink = 1 / np.maximum(1, np.sqrt(length) / np.float32(brain._SURFACE_PRICE))
        change = gain.copy()
        for axis, flow in enumerate(flows):
            flow *= shrink
            low, high = ((slice(None),) * axis + (part,) for part in (slice(0, -1), slice(1, None)))
            change[low] += np.float32(1 / sizes[axis]) * flow[low]
            change[high] -= np.float32(1 / sizes[axis]) * flow[low]
        moved = np.clip(share + primal * change, 0, 1)
        ahead, share = 2 * moved - share, moved
    np.testing.assert_array_equal(brain._least_surface(gain, start, sizes, 20), share > 0.5)


def test_classes_are_counted_as_by_a_histogram():
    rng = np.random.default_rng(4)
    table = rng.integers(0, 9, (20, 21, 22)).astype(np.uint8)
    points = rng.uniform(-40, 40, (3, 3000)).astype(np.float32)
    bins = rng.integers(0, 24, 3000).astype(np.uint8)
    matrix = np.hstack([np.eye(3) + rng.normal(size=(3, 3)) * 0.1, [[3.0], [2.0], [1.0]]])
    origin = np.full(3, -20, np.float32)
    counts = np.zeros((9, 24), np.int64)
    class_counts(
        matrix.astype(np.float32), points, origin, np.float32(0.5), table.ravel(), table.shape,
        bins, counts,
    )  # fmt: skip
    at = ((matrix[:, :3] @ points + matrix[:, 3:] + 20) * 0.5 + 0.5).clip(0, 99).astype(int)
    at = np.minimum(at, np.array([[19], [20], [21]]))
    due = np.histogram2d(table[tuple(at)], bins, bins=(np.arange(10), np.arange(25)))[0]
    assert np.abs(counts - due).sum() <= 4
