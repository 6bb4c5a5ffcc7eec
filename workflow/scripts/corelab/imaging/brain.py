"""Brain extraction by one method for every contrast: anatomy first, then intensities.

1. The template's brain is brought onto the head (:mod:`corelab.imaging.head_fit`). Its surface,
   a few mm uncertain, is the prior: deep inside is brain, far outside is not.
2. The image says what each side looks like. Intensity distributions of both sides, learnt by
   expectation maximisation with the prior as the first guess, give every voxel a log likelihood
   ratio; no contrast, unit or threshold is assumed.
3. Prior and likelihood ratio are summed and cut into two regions of least surface (a graph cut in
   its convex form: Chan, Esedoglu, Nikolova, SIAM J Appl Math 66:1632-1648 (2006), solved by
   Chambolle, Pock, J Math Imaging Vis 40:120-145 (2011)).
4. No affine map brings a template onto every head: on 4 mm the prior is bent smoothly to the
   surface found, and steps 2 and 3 are repeated until it stays. A difference of less than its own
   uncertainty does not move it, and a dent that its neighbourhood does not share hardly does.
5. One cut on 2 mm with the bent prior, then one step on the image's own grid near the surface.

As the interior belongs to the brain by anatomy, a bright lesion, a cavity or a wide ventricle
cannot be lost, and no lobe can. The mask follows the pial surface: ventricles and sulci are
in, the fluid between brain and skull is not counted where it can be distinguished from brain. All
distances are in mm, so that thick slices are treated as what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import (
    distance_mm,
    linear_grid,
    smoothed,
    voxel_sizes_mm,
    without_holes,
)
from corelab.imaging.head_fit import (
    CT_KINDS,
    HeadFit,
    fit_voxels,
    spread_and_floor,
    wide_template,
)
from corelab.terms.verdicts import FAIL, PASS, WARN

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

#: Volume of a whole adult brain with its fluid spaces, in mL.
BRAIN_ML = (900.0, 1800.0)
#: Largest volume that passes for a mask that agrees with the fitted template: five standard
#: deviations above the intracranial volume of men (1,469 +- 102 mL; Matsumae, J Neurosurg 1996).
LARGEST_BRAIN_ML = 2000.0
#: Height of the brain in mm; a scan that covers less sees a part of the volume.
BRAIN_HEIGHT_MM = 130.0
_WIDEST_SECTION_ML_PER_MM = 19.0
#: From this overlap with the fitted template on, a mask is that of a large head, not of a leak.
_LARGE_HEAD_DICE = 0.92
#: Least share of an octant of the fitted template's brain that a mask may hold.
OCTANT_SHARE = {WARN: 0.8, FAIL: 0.65}
#: Least overlap (Dice) of mask and fitted template, and least score of the fit.
PRIOR_DICE = {WARN: 0.87, FAIL: 0.78}
FIT_SCORE = {WARN: 0.2, FAIL: 0.05}

#: Finer voxels are averaged to at most this before the mask is made; the cut works on this grid.
_FINE_ENOUGH_MM, _CUT_GRID_MM = 1.2, 2.0
#: Contrasts on which fluid around the brain is as bright as brain: it is peeled off.
_BRIGHT_FLUID = ("b0", "dsc")
#: The affine fit of the template puts its surface this far inside the pial surface (measured on
#: simulated and real heads, 1 to 2 mm), and its spread in mm per unit of log odds.
_PRIOR_INSIDE_MM, _PRIOR_SPREAD_MM = 1.5, 3.0
#: Beyond these depths (mm, negative inside) the prior decides alone.
_SURE_MM = (-10.0, 8.0)
#: What is deeper than this is never cut free.
_CORE_MM = -4.0
#: Depths between which intensities of either side are learnt, mm from the surface.
_LEARN_MM = (0.5, 5.0, 0.5, 4.0)
#: Largest log likelihood ratio of a voxel, and the price of surface per mm.
_MOST_EVIDENCE, _SURFACE_PRICE, _ITERATIONS = 2.5, 1.5, 60
#: Expectation maximisation: depths it looks at (mm on either side), and its rounds.
_EXPECT_MM, _EXPECT_ROUNDS = 10.0, 8
#: Its share in the last cut; the rest is learnt close to the surface.
_BROAD_SHARE = 0.25
#: Bending of the prior: grid (mm), most rounds, iterations of a cut, and the change (mm) that ends
#: it early.
_BEND_GRID_MM, _BEND_ROUNDS, _BEND_ITERATIONS, _BEND_STAYS_MM = 4.0, 6, 30, 0.3
#: Smoothness of the bend; a bend of this size is halved, as the affine prior is as uncertain; most.
_BEND_MM, _BEND_HALVED_MM, _MOST_BEND_MM = 15.0, 2.5, 12.0
#: A dent is followed this much further than the mean of its wider neighbourhood: it is a lesion
#: or a cavity rather than the shape of a head.
_TREND_MM, _DENT_MM = 30.0, 1.5
#: Radius of a cavity, and how thick the layer over it is in which intensities say nothing.
_CAVITY_MM, _COVER_MM = 6.0, 4.0
#: Log odds per mm from the cut's surface in the last step on the fine grid.
_STAY_PER_MM = 1.5
_BINS = 64
#: Range of HU in which tissues differ.
_CT_RANGE_HU = (-120.0, 160.0)
_BONE_HU = 250.0
#: Soft tissue of CT; how far outside the fitted surface it still lies within the skull; and the
#: radius (mm) of an opening that leaves out dura and the blurred edge of bone.
_SOFT_HU, _WITHIN_SKULL_MM, _THIN_MM = (20.0, 100.0), 5.0, 1.2
#: Slice distance that makes a distance transform look within slices only.
_FAR_MM = 1e4
#: Largest axial section of a brain alone; a head with scalp has more.
_BRAIN_SECTION_CM2 = 220.0


@dataclass(frozen=True)
class BrainShape:
    """Comparison of a mask with the template's brain fitted to the same head.

    Attributes
    ----------
    prior_dice
        Dice of mask and fitted brain, within the field of view.
    least_octant
        The least share of an octant (left or right, front or back, top or bottom) of the fitted
        brain that the mask holds; octants that the field of view holds little of are left out.
    outside
        Share of the mask that lies more than 8 mm outside the fitted brain.
    fit_score
        Score of the fit (:class:`corelab.imaging.head_fit.HeadFit`).
    """

    prior_dice: float
    least_octant: float
    outside: float
    fit_score: float


@dataclass(frozen=True)
class Brain:
    """Mask of a brain, the fit it rests on, and its shape against the fitted template."""

    mask: Mask
    fit: HeadFit
    shape: BrainShape


def brain_mask(image: Any, kind: str) -> Mask:
    """Mask of the brain with its fluid spaces, on the image's own grid.

    Parameters
    ----------
    image
        Conformed nibabel image (third axis upwards), 3D or 4D (of which the mean is taken).
    kind
        Kind of scan. For CT the unit must be HU.

    Returns
    -------
    numpy.ndarray
        Boolean, shape of the first three axes. All False where no brain is found.

    Notes
    -----
    An image that is already skull-stripped (mostly one background value, and no section larger
    than a brain) gives its filled foreground. Figures on real and simulated heads:
    docs/registration.md. A supplied mask takes the place of this one, and
    :func:`brain_volume_verdict` judges what comes out.

    Examples
    --------
    >>> import nibabel as nib
    >>> from corelab.imaging.template import template_image
    >>> stripped = template_image().slicer[::3, ::3, ::3]
    >>> int(brain_mask(stripped, "T1w").sum() * 27 / 1000)
    1887
    """
    return extract_brain(image, kind).mask


def extract_brain(image: Any, kind: str) -> Brain:
    """:func:`brain_mask` with the fit of the template and the evidence of the mask's shape.

    Parameters
    ----------
    image, kind
        As for :func:`brain_mask`.

    Returns
    -------
    Brain

    Examples
    --------
    >>> from corelab.imaging.template import template_image
    >>> found = extract_brain(template_image().slicer[::3, ::3, ::3], "T1w")
    >>> found.shape.least_octant > 0.9 and found.shape.outside < 0.01
    True
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    if voxels.ndim == 4:
        voxels = voxels.mean(axis=3)
    affine = np.asarray(image.affine, dtype=np.float64)
    fit = fit_voxels(voxels, affine, kind)
    mask = _stripped(voxels, voxel_sizes_mm(affine), kind)
    if mask is None:
        mask = np.zeros(voxels.shape, dtype=bool)
        if fit.score >= FIT_SCORE[FAIL]:
            mask = _extracted(voxels, affine, kind, fit)
    return Brain(mask, fit, brain_shape(mask, affine, fit))


def _extracted(voxels: NDArray[np.float32], affine: Array, kind: str, fit: HeadFit) -> Mask:
    """The cut on a coarse grid, and its surface moved on the image's own."""

    given = voxel_sizes_mm(affine)
    blocks = np.maximum(1, (_FINE_ENOUGH_MM / given).astype(int))
    steps = np.maximum(1, np.round(_CUT_GRID_MM / (given * blocks))).astype(int)
    fine = _averaged(voxels, blocks)
    coarse = _averaged(fine, steps)
    coarse_affine = _block_affine(affine, blocks * steps)
    away = _distance_to_prior(fit, coarse_affine, coarse.shape)
    near = away < _SURE_MM[1] + 4
    outside = _surely_outside(coarse, kind)
    mask = np.zeros(fine.shape, dtype=bool)
    if not near.any():
        return np.zeros(voxels.shape, dtype=bool)
    box = tuple(slice(max(0, at.min() - 1), at.max() + 2) for at in np.nonzero(near))
    coarse, away, outside = coarse[box], away[box], outside[box]
    coarse_affine[:3, 3] += coarse_affine[:3, :3] @ [part.start for part in box]
    field, limits = _levelled(coarse, coarse_affine, away, kind, fit)
    surface, bent = _cut(coarse / field, away, outside, given * blocks * steps, limits)
    # The fine grid, in the same box: fields of the coarse one are interpolated.
    part = tuple(
        slice(where.start * step, min(size, where.stop * step))
        for where, step, size in zip(box, steps, fine.shape, strict=True)
    )
    inner = fine[part]

    def finer(values: Array) -> NDArray[np.float32]:
        return _finer(values, steps, inner.shape)

    sizes = given * blocks
    depth = finer(surface)
    level = smoothed(inner / finer(field), np.where(sizes < 3, 0.7 / sizes, 0.0))
    found = _evidence(level, depth, limits) > _STAY_PER_MM * depth
    found &= finer(outside.astype(np.float32)) < 0.5
    if kind in _BRIGHT_FLUID:
        found = _peeled(found, level, depth, finer(bent), sizes)
    if kind == "ncct":
        found |= _beside_bone(found, inner, finer(np.minimum(away, bent)), sizes)
    mask[part] = _largest(found)
    for axis, block in enumerate(blocks):
        mask = np.repeat(mask, block, axis=axis)
    return np.ascontiguousarray(mask[tuple(slice(size) for size in voxels.shape)])


@cache
def _template_fields() -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
    """Signed distance (mm) to the template's brain, its share of tissue, and their affine: 2 mm."""

    template = wide_template()
    signed = template.away_mm - distance_mm(template.brain, 2.0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = template.origin_mm
    return smoothed(signed.astype(np.float32), 1.0), template.grey + template.white, affine


def _onto(
    values: NDArray[np.float32], fit: HeadFit, affine: Array, shape: tuple[int, ...], beyond: float
) -> NDArray[np.float32]:
    """A field of the template on a grid of the head."""
    pull = np.linalg.inv(_template_fields()[2]) @ fit.to_mni(affine)
    return linear_grid(values, pull[:3, :3], pull[:3, 3], shape, beyond=beyond)


def _distance_to_prior(fit: HeadFit, affine: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Signed distance to the expected pial surface, mm of the head, negative inside."""
    scale = np.float32(abs(np.linalg.det(fit.matrix[:3, :3])) ** (1 / 3))
    distance = _onto(_template_fields()[0], fit, affine, shape, 60.0)
    return distance * scale - np.float32(_PRIOR_INSIDE_MM)


def _block_affine(affine: Array, blocks: NDArray[np.integer]) -> NDArray[np.float64]:
    """Affine of a grid of block means."""
    grid = np.diag([*blocks.astype(float), 1.0])
    grid[:3, 3] = (blocks - 1) / 2
    return np.asarray(affine @ grid, dtype=np.float64)


def _surely_outside(coarse: NDArray[np.float32], kind: str) -> Mask:
    """Air around the head, and bone of CT. Air is outside the convex hull of a slice's tissue.

    It is not brain, even where the template reaches it. The hull leaves in what is as dark as air
    within a head: sulci, fluid and cavities that a diffusion image without a scalp shows open.
    """
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    values, floor = spread_and_floor(coarse, kind)
    if values is None:
        return np.zeros(coarse.shape, dtype=bool)
    head = ndimage.binary_opening(values > floor, np.ones((2, 2, 1), dtype=bool))
    for index in np.flatnonzero(head.any(axis=(0, 1))):
        head[:, :, index] = convex_hull_image(head[:, :, index])
    # A slice without signal between two others is a fault of the scan.
    head[:, :, 1:-1] |= head[:, :, :-2] & head[:, :, 2:]
    return np.asarray(~head | (coarse > _BONE_HU) if kind in CT_KINDS else ~head, dtype=bool)


def _levelled(
    coarse: NDArray[np.float32], affine: Array, away: Array, kind: str, fit: HeadFit
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Bias field of MR by the tissue of the sure interior, and the range of levels that matter.

    A second order polynomial of log intensities, fitted robustly. Where a lesion bends it, the
    mask is none the worse: inside and outside are compared at the same place.
    """
    flat = np.ones(coarse.shape, dtype=np.float32)
    if kind in CT_KINDS:
        return flat, _CT_RANGE_HU
    tissue = _onto(_template_fields()[1], fit, affine, coarse.shape, 0.0) > 0.8
    deep = (away < -5.5) & tissue & (coarse > 0)
    if deep.sum() < 500:
        return flat, (0.0, 2.5 * float(np.median(coarse[away < 0])) if (away < 0).any() else 1.0)
    values = coarse[deep]
    typical = float(np.median(values))
    usual = (values > 0.3 * typical) & (values < 3 * typical)
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in coarse.shape],
                       indexing="ij", sparse=True)  # fmt: skip

    def basis(take: Any) -> list[Array]:
        x, y, z = (take(np.broadcast_to(axis, coarse.shape)) for axis in axes)
        return [np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z]

    thin = slice(None, None, max(1, int(usual.sum()) // 20_000))
    design = np.stack(basis(lambda axis: axis[deep][usual][thin]), axis=-1).astype(np.float64)
    wanted = np.log(values[usual][thin].astype(np.float64) / typical)
    weights = np.ones(len(wanted))
    for _ in range(5):
        solved = np.linalg.lstsq(design * weights[:, None], wanted * weights, rcond=None)[0]
        apart = np.abs(wanted - design @ solved)
        weights = 1 / np.sqrt(1 + (apart / (1.4826 * np.median(apart) + 1e-3)) ** 2)
    logs = np.zeros(coarse.shape, dtype=np.float32)
    for factor, term in zip(solved, basis(lambda axis: axis), strict=True):
        logs += np.float32(factor) * term
    field = np.exp(np.clip(logs, -1.5, 1.5))
    return field, (0.0, 2.5 * float(np.median(values / field[deep])))


def _evidence(
    level: NDArray[np.float32], depth: Array, limits: tuple[float, float]
) -> NDArray[np.float32]:
    """Log likelihood ratio of inside against outside, as learnt on both sides of a surface."""
    from scipy import ndimage

    bins = np.clip((level - limits[0]) / (limits[1] - limits[0]) * _BINS, 0, _BINS - 1)
    bins = bins.astype(np.int16)
    least_in, most_in, least_out, most_out = _LEARN_MM
    shares = []
    for side in (
        (depth < -least_in) & (depth > -most_in),
        (depth > least_out) & (depth < most_out),
    ):
        counts = np.bincount(bins[side], minlength=_BINS).astype(np.float64)
        counts = ndimage.gaussian_filter1d(counts, 1.0, mode="nearest")
        total = max(counts.sum(), 1.0)
        shares.append((counts + 1e-4 * total) / total)
    ratio = np.log(shares[0] / shares[1])
    return np.clip(ratio, -_MOST_EVIDENCE, _MOST_EVIDENCE).astype(np.float32)[bins]


def _expected_evidence(
    level: NDArray[np.float32], prior: Array, limits: tuple[float, float]
) -> NDArray[np.float32]:
    """As :func:`_evidence`, learnt from a surface that is several mm uncertain.

    A voxel counts for either side by its probability, given the prior and what was learnt so far
    (expectation maximisation): where the surface is wrong, the other voxels outvote it.
    """
    from scipy import ndimage

    near = np.abs(prior) < _EXPECT_MM
    bins = np.clip((level - limits[0]) / (limits[1] - limits[0]) * _BINS, 0, _BINS - 1)
    bins = bins.astype(np.int16)
    part, odds = bins[near], -prior[near] / np.float32(_PRIOR_SPREAD_MM)
    ratio = np.zeros(_BINS)
    for _ in range(_EXPECT_ROUNDS):
        inside = 1 / (1 + np.exp(-(odds + ratio[part])))
        shares = []
        for weights in (inside, 1 - inside):
            counts = np.bincount(part, weights=weights, minlength=_BINS)
            counts = ndimage.gaussian_filter1d(counts, 1.0, mode="nearest")
            shares.append(counts / max(counts.sum(), 1.0) + 1e-4)
        ratio = np.clip(np.log(shares[0] / shares[1]), -_MOST_EVIDENCE, _MOST_EVIDENCE)
    return ratio.astype(np.float32)[bins]


def _cut(
    level: NDArray[np.float32],
    away: Array,
    outside: Mask,
    sizes: Array,
    limits: tuple[float, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances to the cut's surface and to the bent prior's, mm."""

    prior = _bent(level, away, outside, sizes, limits)
    # The first sees the whole neighbourhood, the second what is at the surface alone, as sulci.
    evidence = np.float32(_BROAD_SHARE) * _expected_evidence(level, prior, limits)
    evidence += np.float32(1 - _BROAD_SHARE) * _evidence(level, prior, limits)
    inside = _least_surface(_gain(evidence, prior, outside), prior < 0, sizes, _ITERATIONS)
    # What looks like brain beyond a dark line (muscle under a thin skull base) is cut free.
    core = (prior < _CORE_MM) & ~outside
    kept = (inside & (evidence > -0.5)) | core
    # A cavity, or a lesion that looks like scalp: its cover cannot be distinguished from the
    # outside by intensity either, so that the prior decides.
    strange = core & (evidence < -0.5)
    cavity = distance_mm(strange, sizes) > _CAVITY_MM
    if cavity.any():
        reach = distance_mm(~cavity, sizes) <= _CAVITY_MM + _COVER_MM
        kept |= reach & (prior < 0) & ~outside
    free = _cut_free(kept, sizes, 4.0)
    return _signed(_filled(free, sizes, 6.0), sizes), prior


def _gain(evidence: NDArray[np.float32], prior: Array, outside: Mask) -> NDArray[np.float32]:
    """Log odds of every voxel to be brain; certain where the prior is far from its surface."""
    gain = evidence - np.clip(prior / _PRIOR_SPREAD_MM, -4, 4)
    gain = np.where(prior < _SURE_MM[0], 8, gain)
    return np.where((prior > _SURE_MM[1]) | outside, -8, gain).astype(np.float32)


def _bent(
    level: NDArray[np.float32],
    away: Array,
    outside: Mask,
    sizes: Array,
    limits: tuple[float, float],
) -> NDArray[np.float32]:
    """The prior's signed distance after it was bent to the surface found with it, on 4 mm."""
    steps = np.maximum(1, np.round(_BEND_GRID_MM / sizes)).astype(int)
    grid = sizes * steps
    small, first = _averaged(level, steps), _averaged(np.asarray(away, np.float32), steps)
    shut = _averaged(outside.astype(np.float32), steps) > 0.5
    prior = first
    for _ in range(_BEND_ROUNDS):
        gain = _gain(_expected_evidence(small, prior, limits), prior, shut)
        found = _signed(_least_surface(gain, prior < 0, grid, _BEND_ITERATIONS), grid)
        before, prior = prior, first + _bend(found - first, found, grid)
        if np.abs(prior - before)[np.abs(found) < _EXPECT_MM].max(initial=0) < _BEND_STAYS_MM:
            break
    return np.asarray(away + _finer(prior - first, steps, level.shape), dtype=np.float32)


def _bend(apart: Array, found: Array, sizes: Array) -> NDArray[np.float32]:
    """Smooth displacement of the prior, mm, from its distance to what was found."""

    weight = np.exp(-0.5 * np.square(found / 4.0)).astype(np.float32) + np.float32(1e-6)

    def smooth(width_mm: float) -> Array:
        sums = (smoothed(part, width_mm / sizes, truncate=3.0) for part in (apart * weight, weight))
        return np.divide(*sums)

    bend = np.minimum(smooth(_BEND_MM), np.maximum(smooth(_TREND_MM), 0) + _DENT_MM)
    bend *= np.square(bend) / (np.square(bend) + _BEND_HALVED_MM**2)
    return np.asarray(np.clip(bend, -_MOST_BEND_MM, _MOST_BEND_MM), dtype=np.float32)


def _finer(values: Array, steps: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A field of block means interpolated on the grid of the blocks' voxels."""
    shift = -(steps - 1) / 2 / steps
    out = linear_grid(values, np.diag(1.0 / steps), shift, shape, mode="nearest")
    return np.asarray(out, dtype=np.float32)


def _least_surface(gain: NDArray[np.float32], start: Mask, sizes: Array, iterations: int) -> Mask:
    """Region of largest gain less the price of its surface: primal-dual iterations."""
    from corelab.imaging.kernels import least_surface

    share = np.ascontiguousarray(start, dtype=np.float32)
    norm = float(np.sqrt((4 / np.square(sizes)).sum()))
    steps = np.float32(0.5 / norm), np.float32(2.0 / norm)
    per_mm = (1 / np.asarray(sizes)).astype(np.float32)
    gain = np.ascontiguousarray(gain)
    least_surface(gain, share, per_mm, *steps, np.float32(_SURFACE_PRICE), iterations)
    return np.asarray(share > 0.5, dtype=bool)


def _signed(mask: Mask, sizes: Array) -> NDArray[np.float32]:
    """Distance to a mask's surface in mm, negative inside."""

    if not mask.any():
        return np.full(mask.shape, 60.0, dtype=np.float32)
    outside = distance_mm(~mask, sizes)
    inside = distance_mm(mask, sizes) if not mask.all() else 60.0
    return np.asarray(outside - inside, dtype=np.float32)


def _largest(mask: Mask) -> Mask:
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, dtype=bool)


def _peeled(
    mask: Mask, level: NDArray[np.float32], depth: Array, away: Array, sizes: Array
) -> Mask:
    """Take fluid brighter than brain off the surface, not deeper than anatomy allows.

    Its blurred outer edge is as bright as brain and goes with it.
    """

    deep = mask & (depth < -6)
    if not deep.any():
        return mask
    fluid = mask & (level > 1.2 * float(np.median(level[deep]))) & (depth > -4) & (away > -2.5)
    if not fluid.any():
        return mask
    within = [*sizes[:2], _FAR_MM] if sizes[2] > 3 else sizes
    edge = distance_mm(~fluid, within) <= 2.0
    kept = mask & ~fluid & ~(edge & (depth > -2.5))
    return _filled(_cut_free(kept, sizes, 1.5), sizes, 3.0)


def _beside_bone(mask: Mask, hu: NDArray[np.float32], away: Array, sizes: Array) -> Mask:
    """Soft tissue of CT between a mask and the inner table: blood there looks like no brain.

    Only layers thicker than dura and the blurred edge of bone, with their rim, are taken in.
    """

    within = [*sizes[:2], _FAR_MM]
    smooth = smoothed(hu, [*(0.7 / sizes[:2]), 0.0])
    soft = (smooth > _SOFT_HU[0]) & (hu < _SOFT_HU[1]) & (away < _WITHIN_SKULL_MM) & ~mask
    deep = distance_mm(soft, within) > _THIN_MM
    if not deep.any():
        return deep
    rim_mm = _THIN_MM + 2.0
    return soft & (distance_mm(~deep, within) <= rim_mm)


def _averaged(voxels: NDArray[np.float32], blocks: NDArray[np.integer]) -> NDArray[np.float32]:
    """Means over blocks of voxels: no mask needs a grid much finer than a millimetre."""
    if all(block == 1 for block in blocks):
        return voxels
    pads = [(0, -size % block) for size, block in zip(voxels.shape, blocks, strict=True)]
    padded = np.pad(voxels, pads, mode="edge")
    split = [
        n for size, block in zip(padded.shape, blocks, strict=True) for n in (size // block, block)
    ]
    return np.asarray(padded.reshape(split).mean(axis=(1, 3, 5)), dtype=np.float32)


def _stripped(voxels: NDArray[Any], sizes: NDArray[Any], kind: str) -> Mask | None:
    """The filled foreground of a skull-stripped image; None if it shows scalp or skull."""

    background = voxels.flat[0]
    foreground = voxels != background
    if foreground.mean() > 0.7:
        return None
    section_cm2 = foreground.sum(axis=(0, 1)).max() * sizes[0] * sizes[1] / 100
    volume_ml = float(foreground.sum() * sizes.prod()) / 1000
    if section_cm2 > _BRAIN_SECTION_CM2 or volume_ml > BRAIN_ML[1] + 300:
        return None
    if kind in CT_KINDS and (voxels[foreground] > _BONE_HU).mean() > 0.02:
        return None
    return without_holes(foreground)


def _cut_free(
    tissue: NDArray[np.bool_], sizes: NDArray[Any], bridge_mm: float
) -> NDArray[np.bool_]:
    """The largest piece of tissue, without what hangs on it by thin bridges."""
    from scipy import ndimage

    depth = distance_mm(tissue, sizes)
    pieces, count = ndimage.label(depth > bridge_mm)
    if count == 0:
        return np.zeros(tissue.shape, bool)
    volumes = np.bincount(pieces.ravel())
    volumes[0] = 0
    core = pieces == int(volumes.argmax())
    away = distance_mm(~core, sizes)
    return np.asarray(tissue & (away <= bridge_mm + 1.0), dtype=bool)


def _filled(mask: NDArray[np.bool_], sizes: NDArray[Any], close_mm: float) -> NDArray[np.bool_]:
    """Close sulci and fill ventricles, within slices."""

    if not mask.any():
        return mask
    # Without padding, a region closed at the edge of the array would stay swollen.
    padding = [int(np.ceil(close_mm / size)) + 1 for size in sizes[:2]]
    padded = np.pad(mask, [(padding[0], padding[0]), (padding[1], padding[1]), (0, 0)])
    in_plane = [*sizes[:2], _FAR_MM]
    wide = distance_mm(~padded, in_plane) <= close_mm
    closed = distance_mm(wide, in_plane) > close_mm
    closed = closed[padding[0] : -padding[0], padding[1] : -padding[1]]
    closed |= mask
    return without_holes(without_holes(closed, within_slices=True))


def brain_shape(mask: Mask, affine: Array, fit: HeadFit) -> BrainShape:
    """A mask, from wherever, against the template's brain on the same head.

    Parameters
    ----------
    mask, affine
        Boolean mask and the affine of its grid.
    fit
        Fit of the template to an image on that grid, or aligned with it.

    Returns
    -------
    BrainShape

    Examples
    --------
    >>> from corelab.imaging.template import template_brain_mask
    >>> image = template_brain_mask().slicer[::3, ::3, ::3]
    >>> whole = np.asarray(image.dataobj) > 0
    >>> half = whole.copy(); half[:, 40:] = False          # the front is lost
    >>> identity = HeadFit(np.eye(4), 0.7)
    >>> [round(brain_shape(m, image.affine, identity).least_octant, 1) for m in (whole, half)]
    [1.0, 0.0]
    """
    steps = np.maximum(1, np.round(3.0 / voxel_sizes_mm(affine))).astype(int)
    thin = mask[tuple(slice(int(step) // 2, None, int(step)) for step in steps)]
    grid = np.diag([*steps.astype(float), 1.0])
    grid[:3, 3] = steps // 2
    affine = affine @ grid
    away = _distance_to_prior(fit, affine, thin.shape) + np.float32(_PRIOR_INSIDE_MM)
    prior = away < 0
    if not (prior.any() and thin.any()):
        return BrainShape(0.0, 0.0, float(thin.any()), fit.score)
    to_mni = fit.to_mni(affine)[:3]
    mni = to_mni[:, :3] @ np.argwhere(prior).T + to_mni[:, 3:]
    held = thin[prior]
    octants = ((mni - np.array([[0.0], [-18.0], [10.0]])) > 0).T @ np.array([1, 2, 4])
    sizes = np.bincount(octants, minlength=8)
    shares = np.bincount(octants, weights=held, minlength=8)[sizes > 0.03 * sizes.sum()]
    shares /= sizes[sizes > 0.03 * sizes.sum()]
    return BrainShape(
        prior_dice=float(2 * held.sum() / (thin.sum() + prior.sum())),
        least_octant=float(shares.min()),
        outside=float((thin & (away > 8)).sum() / thin.sum()),
        fit_score=fit.score,
    )


def brain_limits_ml(coverage_mm: float, shape: BrainShape | None = None) -> tuple[float, float]:
    """Volumes between which the mask of a brain passes.

    Parameters
    ----------
    coverage_mm
        Slices times their distance. Below :data:`BRAIN_HEIGHT_MM` the lower limit shrinks with
        it; the upper one is what the widest section of a brain (190 cm2) would fill.
    shape
        Where the mask agrees with the fitted template, a large head may have up to
        :data:`LARGEST_BRAIN_ML`.

    Returns
    -------
    tuple of float
        Least and largest volume, mL.

    Examples
    --------
    >>> brain_limits_ml(160), brain_limits_ml(80)
    ((900.0, 1800.0), (553.8, 1520.0))
    >>> brain_limits_ml(160, BrainShape(0.95, 0.95, 0.0, 0.6))
    (900.0, 2000.0)
    """
    large = shape is not None and shape.prior_dice >= _LARGE_HEAD_DICE
    return (
        round(BRAIN_ML[0] * min(1.0, coverage_mm / BRAIN_HEIGHT_MM), 1),
        round(
            min(
                LARGEST_BRAIN_ML if large else BRAIN_ML[1],
                coverage_mm * _WIDEST_SECTION_ML_PER_MM,
            ),
            1,
        ),
    )


def brain_volume_verdict(
    volume_ml: float, coverage_mm: float, shape: BrainShape | None = None
) -> str:
    """Whether a brain mask has a volume and a shape that a brain can have.

    Parameters
    ----------
    volume_ml
        Volume of the mask.
    coverage_mm
        Slices times their distance (:func:`brain_limits_ml`).
    shape
        Evidence of the shape, where the template was fitted: a lost lobe shows in the least
        octant (:data:`OCTANT_SHARE`), a leak or a misplaced fit in the overlap
        (:data:`PRIOR_DICE`), a scan without a head in the fit's score (:data:`FIT_SCORE`).

    Returns
    -------
    str
        ``pass``, ``warn`` (up to 22 % below or 200 mL above, or a doubtful shape) or ``fail``.

    Examples
    --------
    >>> [brain_volume_verdict(ml, mm) for ml, mm in ((1400, 160), (750, 160), (900, 80))]
    ['pass', 'warn', 'pass']
    >>> brain_volume_verdict(1000, 160, BrainShape(0.8, 0.5, 0.0, 0.6))    # a lobe is missing
    'fail'
    """
    low, high = brain_limits_ml(coverage_mm, shape)
    verdict = PASS
    if not low <= volume_ml <= high:
        verdict = WARN if 0.78 * low <= volume_ml <= high + 200 else FAIL
    if shape is None or verdict == FAIL:
        return verdict
    found = (
        (shape.least_octant, OCTANT_SHARE),
        (shape.prior_dice, PRIOR_DICE),
        (shape.fit_score, FIT_SCORE),
    )
    if any(value < limits[FAIL] for value, limits in found):
        return FAIL
    return WARN if any(value < limits[WARN] for value, limits in found) else verdict
