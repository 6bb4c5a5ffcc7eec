"""Quality of a brain mask: verdict of its volume, cuts by the field of view, consequences.

A mask that fails carries no number: what rests on it is ``not_computable``. One that is doubtful,
or a brain that reaches beyond the field of view, goes into the reason of every volume and into the
acquisition table, from where the report and the review desk have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.acquisition import slice_axis
from corelab.imaging.brain import FIT_SCORE, brain_limits_ml, brain_shape, brain_volume_verdict
from corelab.imaging.geometry import mask_volume_ml, voxel_sizes_mm
from corelab.imaging.head_fit import HeadFit, fit_head
from corelab.records.images import SUPPLIED, AcquisitionRow, BrainQuality, Cut, Prepared
from corelab.terms.verdicts import FAIL, PASS, WARN

#: Sides of an image whose axes run right, anterior and superior.
SIDES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
#: Kinds whose field is a slab by design: their coverage is a limit of the charter.
SLAB_KINDS = ("ctp", "dsc", "cbf", "cbv", "mtt", "tmax", "ttp")
#: Radius of a brain, for the depth of the cap that a flat cut takes away.
_BRAIN_RADIUS_MM = 70.0
#: A cap of this height missing is reported: a flat face of 25 cm2 at 2 mm, of 39 cm2 at 5 mm.
_CUT_MM = 4.0


def judged_mask(
    mask: Any, image: Any, kind: str, source: str, fit: HeadFit | None = None
) -> BrainQuality:
    """Entry of ``brain_mask_quality`` for one mask.

    Parameters
    ----------
    mask, image
        Brain mask and the image that it lies on, nibabel images on one grid. Without an image
        (None) no cut is looked for.
    kind
        Kind of that image.
    source
        What the mask was made from, or ``supplied``.
    fit
        The template on that image, if the mask rests on it. Another mask is compared with a fit of
        its own, where that is certain.

    Returns
    -------
    BrainQuality
        Limits by :func:`brain_limits_ml`, ``cut`` by :func:`cut_sides`.
    """
    sizes = voxel_sizes_mm(mask.affine)
    axis = slice_axis(sizes.tolist())
    coverage_mm = round(mask.shape[axis] * float(sizes[axis]), 4)
    volume_ml = mask_volume_ml(mask)
    cut: tuple[Cut, ...] = ()
    shape = None
    if image is not None:
        used = fit or fit_head(image, kind)
        if fit is not None or used.score >= FIT_SCORE[WARN]:
            shape = brain_shape(np.asanyarray(mask.dataobj) > 0, mask.affine, used)
        voxels = np.asanyarray(image.dataobj)
        cut = cut_sides(
            voxels if voxels.ndim == 3 else voxels[..., 0],
            np.asanyarray(mask.dataobj) > 0,
            sizes,
            slab=kind in SLAB_KINDS,
        )
    return BrainQuality(
        source,
        kind,
        volume_ml=round(volume_ml, 3),
        limits_ml=tuple(brain_limits_ml(coverage_mm or 0.0, shape)),
        verdict=brain_volume_verdict(volume_ml, coverage_mm or 0.0, shape),
        cut=cut,
    )


def cut_sides(
    image: NDArray[Any], mask: NDArray[np.bool_], sizes_mm: NDArray[Any], *, slab: bool = False
) -> tuple[Cut, ...]:
    """Sides at which the field of view ends within the brain.

    Parameters
    ----------
    image, mask
        Voxels and brain, shape (x, y, z), axes right, anterior, superior.
    sizes_mm
        Voxel sizes.
    slab
        Whether the two ends of the third axis are left out.

    Returns
    -------
    tuple of Cut
        ``area_cm2`` is that of brain on the outermost slice, ``outside_mm`` the height of
        the cap that a sphere of a brain's size (radius 70 mm) has beyond a section of that area,
        less the thickness of the slice. Entries have 4 mm or more.

    Notes
    -----
    Padding with one value, as after resampling, is no field of view: the faces are those of the
    box around all other values. A stripped image in its tightest box touches every face, but by
    its rim alone.

    Examples
    --------
    >>> grid = np.stack(np.meshgrid(*[np.arange(0, 180, 4.0)] * 3, indexing="ij")) - 90
    >>> brain = np.sqrt((grid**2).sum(axis=0)) < 70
    >>> noise = np.random.default_rng(1).normal(0, 1, brain.shape)
    >>> cut_sides(noise, brain, np.array([4.0, 4, 4]))
    ()
    >>> [(c.side, round(c.area_cm2)) for c in cut_sides(noise[10:], brain[10:],
    ...     np.array([4.0, 4, 4]))]
    [('left', 75)]
    """
    box = _field(image)
    inside = mask[box]
    found: list[Cut] = []
    for axis, names in enumerate(SIDES):
        if (slab and axis == 2) or inside.shape[axis] < 3:
            continue
        others = [sizes_mm[other] for other in range(3) if other != axis]
        # Masks of fine voxels may end one before the edge; two are as good as the last.
        layers = 2 if sizes_mm[axis] <= 2.0 else 1
        for name, ends in zip(names, (slice(0, layers), slice(-layers, None)), strict=True):
            face = np.moveaxis(inside, axis, 0)[ends].any(axis=0)
            area_mm2 = float(face.sum() * others[0] * others[1])
            rest = max(_BRAIN_RADIUS_MM**2 - area_mm2 / np.pi, 0.0)
            outside = _BRAIN_RADIUS_MM - float(np.sqrt(rest)) - layers * float(sizes_mm[axis])
            if outside >= _CUT_MM:
                found.append(Cut(name, round(area_mm2 / 100, 1), round(outside, 1)))
    return tuple(found)


def _field(image: NDArray[Any]) -> tuple[slice, ...]:
    """Box around all voxels that are not the one value of the padding."""
    corners = [image[x, y, z] for x in (0, -1) for y in (0, -1) for z in (0, -1)]
    values, counts = np.unique(np.asarray(corners), return_counts=True)
    if counts.max() < 3:
        return tuple(slice(0, size) for size in image.shape)
    signal = image != values[counts.argmax()]
    ends = []
    for axis in range(3):
        where = np.flatnonzero(signal.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append(slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(None))
    return tuple(ends)


# --- what follows ------------------------------------------------------------------------------


def mask_fault(record: Prepared, grid: str | None) -> str | None:
    """Reason why a grid's brain mask cannot be used; None where it can.

    A supplied mask is a person's word: its volume is reported and nothing is refused.

    Examples
    --------
    >>> from dataclasses import replace
    >>> quality = BrainQuality("dwi", volume_ml=431.2, verdict="fail")
    >>> mask_fault(Prepared("1", "v", brain_mask_quality={"g1": quality}), "g1")
    'the brain mask (from dwi, 431 mL) has no volume or shape of a brain; supply a mask-brain scan'
    >>> quality = replace(quality, source="supplied")
    >>> mask_fault(Prepared("1", "v", brain_mask_quality={"g1": quality}), "g1")
    """
    found = _quality(record, grid)
    if found is None or found.verdict != FAIL or found.source == SUPPLIED:
        return None
    return (
        f"the brain mask (from {found.source}, {found.volume_ml:.0f} mL) has no volume "
        "or shape of a brain; supply a mask-brain scan"
    )


def mask_warnings(record: Prepared, grid: str | None) -> dict[str, str]:
    """Flags of a volume on a grid (word -> sentence): a doubtful brain mask, a brain cut off.

    Examples
    --------
    >>> cut = (Cut("superior", 90.0, 12.5),)
    >>> quality = BrainQuality("dwi", volume_ml=739.0, verdict="warn", cut=cut)
    >>> record = Prepared("1", "v", brain_mask_quality={"g1": quality})
    >>> for flag, text in mask_warnings(record, "g1").items():
    ...     print(flag, "|", text)
    brain_mask_doubtful | the brain mask (from dwi, 739 mL) has a doubtful volume or shape: check it
    brain_cut_off | the field of view ends within the brain (superior, 90 cm2, about 12 mm
    outside): a volume is a lower bound
    """
    found = _quality(record, grid)
    flags: dict[str, str] = {}
    if found is None:
        return flags
    if found.verdict in (WARN, FAIL):
        flags["brain_mask_doubtful"] = (
            f"the brain mask (from {found.source}, {found.volume_ml:.0f} mL) has a doubtful "
            "volume or shape: check it"
        )
    if found.disagrees_dice is not None:
        flags["brain_masks_disagree"] = (
            f"the brain masks of two images of the visit have a Dice of "
            f"{found.disagrees_dice:.2f} after their fit: one of them is wrong, check both"
        )
    if found.cut:
        flags["brain_cut_off"] = f"{_cut_words(found.cut)}: a volume is a lower bound"
    return flags


def brain_rows(record: Prepared) -> list[AcquisitionRow]:
    """Rows ``brain_mask`` and ``brain_in_field`` of the acquisition table, one pair per grid.

    Examples
    --------
    >>> quality = BrainQuality("dwi", "dwi", 739.0, (900.0, 1800.0), "warn")
    >>> from corelab.records.images import Scan
    >>> scan = Scan("s1", "dwi", grid="g1")
    >>> record = Prepared("1", "v", scans=(scan,), brain_mask_quality={"g1": quality})
    >>> [(row.criterion, row.value, row.limit, row.verdict) for row in brain_rows(record)]
    [('brain_mask', 739.0, '900 to 1800 mL', 'fail'), ('brain_in_field', 'whole', 'whole', 'pass')]
    """
    rows = []
    for grid, found in record.brain_mask_quality.items():
        on_grid = (scan for scan in record.scans if scan.grid == grid and scan.status == "ok")
        scan = next((scan for scan in on_grid if scan.kind == found.kind), None)
        if scan is None:
            continue
        low, high = found.limits_ml
        reasons = mask_warnings(record, grid)
        wrong = [reasons[flag] for flag in reasons if flag != "brain_cut_off"]
        sides = ", ".join(one.side for one in found.cut)
        rows += [
            AcquisitionRow(
                scan.kind,
                "brain_mask",
                found.volume_ml,
                f"{low:g} to {high:g} mL",
                FAIL if wrong else PASS,
                mask_fault(record, grid) or "; ".join(wrong) or None,
                scan.scan_id,
            ),
            AcquisitionRow(
                scan.kind,
                "brain_in_field",
                f"cut {sides}" if sides else "whole",
                "whole",
                FAIL if sides else PASS,
                reasons.get("brain_cut_off"),
                scan.scan_id,
            ),
        ]
    return rows


def _quality(record: Prepared, grid: str | None) -> BrainQuality | None:
    return None if grid is None else record.brain_mask_quality.get(grid)


def _cut_words(cut: Iterable[Cut]) -> str:
    parts = [
        f"{one.side}, {one.area_cm2:.0f} cm2, about {one.outside_mm:.0f} mm outside" for one in cut
    ]
    return f"the field of view ends within the brain ({'; '.join(parts)})"
