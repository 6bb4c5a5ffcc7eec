"""From maps to core, hypoperfusion and penumbra.

A threshold belongs to the engine that made the map: the peak of an SVD residue function is noise
driven, so the same tissue has a higher relative CBF by SVD than by the Bayesian engine. Every
mask therefore names its engine and its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from corelab.imaging.geometry import linear_grid
from corelab.perfusion.tissue import Plane, bounding_box, smoothed

REFERENCES = ("contralateral", "mirror", "whole-normal", "by-tissue")
#: Tissue whose Tmax is below this (s) counts as normal.
NORMAL_TMAX_S = 4.0
#: Smallest cluster that counts, in mL.
CORE_CLUSTER_ML = 1.0
HYPOPERFUSED_CLUSTER_ML = 3.0
#: Share of the tissue's median flow below which no time can be read, the SD of Tmax (s) above which
#: it was not read, and share of the border of such tissue above which delay makes it delayed.
TIMED_FLOW, TIMED_SD_S, SURROUNDED = 0.15, 2.0, 0.5
#: Error of Tmax (s) that the volume's range allows for. Residue functions that the grid lacks shift
#: Tmax of a whole scan by 0.24 s (SD over heads, docs/perfusion.md), at most 0.5 s.
TIMING_ERROR_S = 0.4
#: The same as an SD, beside that of the noise of a voxel.
TIMING_SD_S = 0.25
#: How far noise draws the relative flow of a core towards that of normal tissue: the share of the
#: gap is the first over the cube of the contrast-to-noise, less what it is at the last, from which
#: on there is no bias; a contrast-to-noise below the second counts as that.
DRAWN_BY_NOISE, LEAST_CNR, ENOUGH_CNR = 2.5, 2.5, 6.0
#: Voxels around delayed tissue, in its slice, that may belong to it.
_BORDER_VOXELS = 4
#: Distance from the plane between hemispheres (mm) that belongs to neither.
MIDLINE_MM = 3.0


@dataclass(frozen=True)
class Hemispheres:
    """Which voxels lie right and left, and which side is affected.

    Attributes
    ----------
    right, left
        Masks; a strip at the midline is in neither.
    affected
        ``right``, ``left`` or ``none``: the side with more delayed tissue.
    """

    right: np.ndarray
    left: np.ndarray
    affected: str

    @property
    def healthy(self) -> np.ndarray:
        """The contralateral hemisphere; both where no side is affected."""
        if self.affected == "right":
            return self.left
        if self.affected == "left":
            return self.right
        return np.asarray(self.left | self.right)


def hemispheres(
    plane: Plane, affine: np.ndarray, tissue: np.ndarray, delayed: np.ndarray, voxel_ml: float
) -> Hemispheres:
    """Tell the hemispheres apart and find the affected one.

    A side is affected if it holds at least 3 mL more delayed tissue than the other.

    Examples
    --------
    >>> tissue = np.ones((10, 4, 1), bool); delayed = np.zeros_like(tissue); delayed[:2] = True
    >>> plane = Plane((1, 0, 0), 22.5, 1)
    >>> sides = hemispheres(plane, np.diag([5.0, 5, 5, 1]), tissue, delayed, 1.0)
    >>> sides.affected, int(sides.healthy.sum())
    ('left', 16)
    """
    distance = plane.distance_mm(tissue.shape, affine)
    right, left = tissue & (distance > MIDLINE_MM), tissue & (distance < -MIDLINE_MM)
    excess = float((delayed & right).sum() - (delayed & left).sum()) * voxel_ml
    affected = "none"
    if abs(excess) >= HYPOPERFUSED_CLUSTER_ML:
        affected = "right" if excess > 0 else "left"
    return Hemispheres(right, left, affected)


def clusters(mask: np.ndarray, smallest_ml: float, voxel_ml: float) -> np.ndarray:
    """Mask without 6-connected parts smaller than a volume.

    Examples
    --------
    >>> mask = np.zeros((8, 1, 1), bool); mask[[0, 3, 4, 5]] = True
    >>> clusters(mask, 2.0, 1.0)[:, 0, 0].astype(int).tolist()
    [0, 0, 0, 1, 1, 1, 0, 0]
    """
    kept = np.array(mask, bool)
    if kept.any():
        box = bounding_box(kept, margin=0)
        labels = ndimage.label(kept[box])[0]
        sizes = np.bincount(labels.ravel()) * voxel_ml
        sizes[0] = 0.0
        kept[box] = (sizes >= smallest_ml - 1e-9)[labels]
    return kept


def settled(mask: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """In-plane majority of 3 x 3, within tissue: single voxels are noise, not biology."""
    return np.asarray(tissue & (2 * _around(mask & tissue) > np.maximum(_around(tissue), 1)))


def _around(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask among the 3 x 3 of every voxel in its slice."""
    wide = np.pad(mask.astype(np.int8), ((1, 1), (1, 1), (0, 0)))
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])


@dataclass(frozen=True)
class Reference:
    """Normal value of a parameter for every voxel, and the number it stands for.

    Attributes
    ----------
    values
        A number, or an array of the grid (``mirror``, ``by-tissue``).
    """

    values: np.ndarray | float
    summary: float
    rule: str


def reference_value(
    values: np.ndarray,
    normal: np.ndarray,
    *,
    rule: str,
    tissue: np.ndarray,
    grey: np.ndarray | None = None,
    plane: Plane | None = None,
    affine: np.ndarray | None = None,
) -> Reference:
    """Normal value that a lesion's values (x, y, z) are divided by.

    ``contralateral`` and ``whole-normal``: median of ``normal`` (Tmax below 4 s in the
    contralateral hemisphere, or in both). ``by-tissue``: medians of its grey and white matter.
    ``mirror``: the smoothed map reflected in the midsagittal plane, where it falls on normal
    tissue, else the median. ``tissue``, ``grey``, ``plane`` and ``affine`` as the rule needs.

    Examples
    --------
    >>> reference_value(np.array([[[50.0, 10]]]), np.array([[[True, False]]]),
    ...                 rule="contralateral", tissue=np.ones((1, 1, 2), bool)).summary
    50.0
    """
    if rule not in REFERENCES:
        raise ValueError(f"unknown reference '{rule}'; known: {', '.join(REFERENCES)}")
    usable = normal & np.isfinite(values)
    if not usable.any():
        return Reference(float("nan"), float("nan"), rule)
    summary = float(np.median(values[usable]))
    if rule == "by-tissue" and grey is not None:
        field = np.full(values.shape, summary)
        for kind in (grey, tissue & ~grey):
            if (usable & kind).sum() >= 50:
                field[kind] = float(np.median(values[usable & kind]))
        return Reference(field, summary, rule)
    if rule == "mirror" and plane is not None and affine is not None:
        sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        smooth = smoothed(np.where(usable, values, 0.0), usable, sizes, 5.0)
        matrix = plane.mirror(affine)
        other, there = (
            linear_grid(part.astype(np.float64), matrix[:3, :3], matrix[:3, 3], part.shape)
            for part in (smooth, usable)
        )
        mirrored = np.where(there > 0.5, other / np.maximum(there, 0.5), summary)
        return Reference(mirrored, summary, rule)
    return Reference(summary, summary, rule)


def untimed_tissue(
    tissue: np.ndarray, flow: np.ndarray, sd_s: np.ndarray | None = None
) -> np.ndarray:
    """Tissue without a bolus whose time can be read: hardly any flow, or a Tmax that is not known.

    Below 15 % of the median flow of the tissue there is no bolus to time; an SD of Tmax above 2 s
    (of an engine that gives one): noise chose the time.

    Examples
    --------
    >>> tissue = np.ones((4, 1, 1), bool); flow = np.array([1.0, 1.0, 1.0, 0.1])[:, None, None]
    >>> untimed_tissue(tissue, flow, np.array([0.5, 0.5, 3.0, 0.5])[:, None, None]).ravel().tolist()
    [False, False, True, True]
    """
    if not tissue.any():
        return tissue.copy()
    with np.errstate(invalid="ignore"):
        timed = tissue & (flow >= TIMED_FLOW * float(np.nanmedian(flow[tissue])))
        if sd_s is not None:
            timed &= ~(sd_s > TIMED_SD_S)
    return np.asarray(tissue & ~timed)


def delayed_tissue(
    tmax_s: np.ndarray,
    tissue: np.ndarray,
    above_s: float,
    voxel_ml: float,
    untimed: np.ndarray | None = None,
) -> np.ndarray:
    """Tissue with Tmax above a limit, in clusters of at least 3 mL.

    ``untimed`` tissue (see :func:`untimed_tissue`) counts as delayed where most of the timed tissue
    that it borders on in its slice is.

    Examples
    --------
    >>> late, flow = np.full((9, 9, 1), 8.0), np.ones((9, 9, 1))
    >>> late[3:6, 3:6] = flow[3:6, 3:6] = 0
    >>> tissue = np.ones(late.shape, bool); untimed = untimed_tissue(tissue, flow)
    >>> [int(delayed_tissue(late, tissue, 6.0, 1.0, u).sum()) for u in (None, untimed)]
    [76, 81]
    """
    late = settled(np.nan_to_num(tmax_s, nan=0.0) > above_s, tissue)
    if untimed is not None:
        late |= _surrounded(untimed & ~late, tissue & ~untimed, late)
    return clusters(late, HYPOPERFUSED_CLUSTER_ML, voxel_ml)


def volume_range(
    tmax_s: np.ndarray,
    tissue: np.ndarray,
    above_s: float,
    voxel_ml: float,
    untimed: np.ndarray | None = None,
) -> tuple[float, float]:
    """Volumes (mL) of delayed tissue if all times were 0.4 s too late, and too early.

    A narrow border between delayed and normal tissue moves little with the limit; where severity
    falls slowly, the volume of a small lesion is known to a tenth at best.

    Examples
    --------
    >>> tmax = np.repeat(np.linspace(3, 9, 13), 4).reshape(13, 4, 1)
    >>> volume_range(tmax, np.ones(tmax.shape, bool), 6.0, 1.0)
    (24.0, 28.0)
    """
    low, high = (
        float(delayed_tissue(tmax_s, tissue, limit, voxel_ml, untimed).sum()) * voxel_ml
        for limit in (above_s + TIMING_ERROR_S, above_s - TIMING_ERROR_S)
    )
    return low, high


def likely_wrong_delay(
    tmax_s: np.ndarray, sd_s: np.ndarray, late: np.ndarray, tissue: np.ndarray, above_s: float
) -> float:
    """Expected volume on the wrong side of a limit of Tmax, in and around delayed tissue.

    By the posterior SD of each voxel (NaN for no value); as a share of the volume of the delayed
    tissue (``late``, of :func:`delayed_tissue`). About 1 less this share is the overlap (Dice) with
    the truth: r = -0.97 on 40 simulated heads.

    Examples
    --------
    >>> tmax = np.repeat([2.0, 6.0, 10.0], 4).reshape(3, 4, 1); tissue = tmax > 0
    >>> round(likely_wrong_delay(tmax, 0 * tmax, tmax > 8, tissue, 6.0), 2)
    0.5
    """
    if not late.any():
        return float("nan")
    around = ndimage.binary_dilation(late, np.ones((3, 3, 1), bool), iterations=_BORDER_VOXELS)
    near = around & tissue & np.isfinite(tmax_s) & np.isfinite(sd_s)
    away = np.abs(tmax_s[near] - above_s) / np.hypot(sd_s[near], TIMING_SD_S)
    return float(ndtr(-away).sum() / late.sum())


def likely_wrong_core(
    cbf: np.ndarray, sd: np.ndarray, core: np.ndarray, below: np.ndarray | float
) -> float:
    """Share of a core whose flow is likely above its limit, by the posterior SD of each voxel.

    ``below`` is a number or a map in the unit of the flow; NaN for an empty core.

    Examples
    --------
    >>> cbf = np.array([[[9.0, 15.0]]])
    >>> round(likely_wrong_core(cbf, np.ones((1, 1, 2)), cbf < 12, 10.0), 2)
    0.16
    """
    known = core & np.isfinite(cbf) & (sd > 0)
    if not known.any():
        return float("nan")
    return float(ndtr((cbf - below)[known] / sd[known]).mean())


def _surrounded(untimed: np.ndarray, timed: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Parts of ``untimed`` (within slices) most of whose border with timed tissue is late."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[:, :, 1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(untimed, in_plane)
    border = np.zeros((2, count + 1))
    for axis in (0, 1):
        for step in (-1, 1):
            beside = np.roll(labels, step, axis) * (labels == 0)
            edge: list[slice | int] = [slice(None)] * 3
            edge[axis] = 0 if step == 1 else -1
            beside[tuple(edge)] = 0
            for row, kind in enumerate((late, timed & ~late)):
                border[row] += np.bincount(beside[kind], minlength=count + 1)
    filled = border[0] > SURROUNDED * border.sum(axis=0)
    filled[0] = False
    return np.asarray(filled[labels])


def level_in_noise(below: float, cnr: float | None) -> float:
    """Reading of relative CBF by the ``bayes`` engine where the true one is ``below``.

    Noise draws a posterior mean towards what is common in the scan: transit times of normal tissue
    read too long, and the blood volume of a core too high. Both bring the ratio nearer to 1, by a
    share of the gap that falls with the cube of the contrast-to-noise (chosen on 88 simulated
    heads; docs/perfusion.md, "Weak boluses"). ``cnr``: peak of the mean curve of white matter over
    the noise (gate ``tissue_cnr``); None or NaN leaves the cut-off as it is.

    Examples
    --------
    >>> [round(level_in_noise(0.30, cnr), 3) for cnr in (8.0, 4.0, 3.0, 1.0, None)]
    [0.3, 0.319, 0.357, 0.404, 0.3]
    """
    if cnr is None or not np.isfinite(cnr):
        return below
    seen = min(max(cnr, LEAST_CNR), ENOUGH_CNR)
    return below + (1.0 - below) * DRAWN_BY_NOISE * (seen**-3 - ENOUGH_CNR**-3)


def reduced_flow(
    cbf: np.ndarray,
    reference: Reference,
    below: float,
    within: np.ndarray,
    tissue: np.ndarray,
    voxel_ml: float,
) -> np.ndarray:
    """Tissue with relative CBF below a limit inside delayed tissue, clusters of at least 1 mL."""
    with np.errstate(invalid="ignore"):
        low = np.asarray(cbf) < below * reference.values
    return clusters(settled(low, tissue) & within, CORE_CLUSTER_ML, voxel_ml)


def lesion_quantities(
    core: np.ndarray,
    hypoperfused: Mapping[float, np.ndarray],
    cbv: np.ndarray,
    healthy: np.ndarray,
    voxel_ml: float,
    *,
    limit_s: float = 6.0,
) -> dict[str, float]:
    """Mismatch volume and ratio, hypoperfusion intensity ratio, CBV index.

    ``mismatch_volume_ml`` = hypoperfused - core; ``mismatch_ratio`` = hypoperfused / core, NaN
    without a core; ``hypoperfusion_intensity_ratio`` = V(Tmax > 10) / V(Tmax > 6), NaN without
    hypoperfusion; ``cbv_index`` = mean CBV of hypoperfused / of normal tissue (``healthy``).
    ``hypoperfused``: Tmax limit (s) -> mask; ``limit_s`` defines hypoperfusion.

    Examples
    --------
    >>> late = np.zeros((10, 1, 1), bool); late[:6] = True
    >>> later = np.zeros_like(late); later[:3] = True
    >>> core = np.zeros_like(late); core[:2] = True
    >>> found = lesion_quantities(core, {6.0: late, 10.0: later}, np.ones(late.shape), ~late, 0.5)
    >>> found["mismatch_ratio"], found["hypoperfusion_intensity_ratio"], found["cbv_index"]
    (3.0, 0.5, 1.0)
    """
    volume = {limit: float(mask.sum()) * voxel_ml for limit, mask in hypoperfused.items()}
    core_ml, late_ml = float(core.sum()) * voxel_ml, volume[limit_s]
    late, blood = hypoperfused[limit_s], np.asarray(cbv, float)
    normal = blood[healthy & np.isfinite(blood)]
    inside = blood[late & np.isfinite(blood)]
    index = float("nan")
    if normal.size and inside.size and normal.mean() > 0:
        index = float(inside.mean() / normal.mean())
    nan = float("nan")
    return {
        "mismatch_volume_ml": late_ml - core_ml,
        "mismatch_ratio": late_ml / core_ml if core_ml > 0 else nan,
        "hypoperfusion_intensity_ratio": volume[10.0] / late_ml if late_ml > 0 else nan,
        "cbv_index": index,
    }
