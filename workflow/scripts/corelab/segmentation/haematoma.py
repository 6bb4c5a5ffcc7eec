"""Haematoma: hyperdense blood on CT, hypointense blood on gradient echo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import distance_mm
from corelab.imaging.head_fit import HeadFit
from corelab.segmentation.dural import (
    SMALL,
    below_base,
    explanations,
    outside_brain_mm,
    template_coordinates,
)
from corelab.segmentation.midline import median_plane
from corelab.segmentation.scans import Image, Inputs, Mask, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    GridImages,
    Segmentation,
    ThresholdSegmenter,
    bounding_box,
)
from corelab.segmentation.tissue import (
    IN_PLANE,
    brightest_mirrored,
    centre_and_spread,
    component_count,
    depth_mm,
    drop_artefacts,
    enlarged,
    filled_slices,
    fit_field,
    flatten_field,
    grow,
    inscribed_radius_mm,
    judged_maps,
    label_components,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import (
    ClusterThresholds,
    GreHaematomaThresholds,
    HaematomaThresholds,
)


def calibration(
    hu: Image, brain: Mask, voxel_size_mm: tuple[float, float, float]
) -> dict[str, float]:
    """HU of brain tissue and of deep CSF: what a scanner's calibration must get right.

    Returns
    -------
    dict
        ``tissue_hu`` (median of smoothed voxels between 15 and 55 HU), ``csf_hu`` (2nd
        percentile of the smoothed voxels more than 20 mm inside, that is the ventricles; NaN
        where there is no such depth).

    Examples
    --------
    >>> hu = np.full((60, 60, 12), 33.0); hu[25:35, 25:35, 4:8] = 6.0
    >>> brain = np.zeros(hu.shape, bool); brain[2:-2, 2:-2, 1:-1] = True
    >>> found = calibration(hu, brain, (1.0, 1.0, 5.0))
    >>> found["tissue_hu"], found["csf_hu"] < 7
    (33.0, True)
    """
    smooth = smooth_within(hu, brain & (hu > -20) & (hu < 80), 1.5, voxel_size_mm)
    tissue = brain & (smooth > 15) & (smooth < 55)
    if not tissue.any():
        raise NotSegmentable(
            "no voxel of the brain mask lies between 15 and 55 HU; check that the scan is a CT in "
            "Hounsfield units"
        )
    deep = depth_mm(brain, voxel_size_mm) > 20.0
    csf = float(np.percentile(smooth[deep], 2)) if deep.any() else float("nan")
    return {"tissue_hu": float(np.median(smooth[tissue])), "csf_hu": csf}


class CtHaematoma(ThresholdSegmenter[HaematomaThresholds]):
    """Haematoma on non-contrast CT: HU window, hysteresis, filters for what else is dense.

    Seeds lie between ``hu_seed_above`` and ``hu_below`` after light smoothing and after a smooth
    background (beam hardening) is taken out; the edge lies half-way between blood and brain.
    Dropped: calcification (above ``hu_below`` before smoothing, with its blurred rim), sheets and
    lines (falx, tentorium, vessels: inscribed radius below ``sheet_radius_mm``), and what is as
    dense on the other side. Calibration is checked on tissue and CSF; a common offset is taken
    out and flagged.

    A cluster counts if enough of it (``core_ml``) lies where no structure is dense without blood:
    off the bone's partial volume and, by a fit of the head to MNI, off sinuses, falx, tentorium
    and skull base (:mod:`corelab.segmentation.dural`). From this core it may reach into such
    places. A cluster without a core is no evidence: it gives 0 mL and is named in the flag
    ``blood_candidates``; what of it no structure explains counts in ``volume_high_ml``.

    Method: modified thresholding after Bhanu Prakash et al., Int J Comput Assist Radiol Surg
    2012;7:785, with the filters above.
    """

    label = "haematoma"
    source = "pipeline"
    disease = "stroke"
    block = "haematoma"
    kinds = ("ncct",)
    in_plane_mm = 1.0

    def gather(self, visit: VisitScans, target: Target, parameters: HaematomaThresholds) -> Inputs:
        """See :func:`in_template`."""
        return in_template(visit, target)

    def ready(self, given: GridImages, parameters: HaematomaThresholds) -> GridImages:
        """With MNI coordinates (without, the head is fitted here), and up to the bone."""
        given = with_coordinates(given)
        hu = given.images.get("ncct")
        # What is no CT is refused by its brain alone.
        if hu is not None and ((hu > 15) & (hu < 55) & given.brain).any():
            return replace(given, brain=_to_the_bone(given, parameters))
        return given

    def checked(self, found: Segmentation, parameters: HaematomaThresholds) -> Segmentation:
        """The upper limit with what no structure explains."""
        candidates = float(found.quality.get("candidates_unexplained_ml", 0.0))
        return replace(found, volume_high_ml=found.volume_high_ml + candidates)

    def measure(self, given: GridImages, parameters: HaematomaThresholds) -> Evidence:
        """Calibrated, smoothed HU above brain tissue, its mirrored value, calcification."""
        images, brain, voxel_size_mm = given.images, given.brain, given.voxel_size_mm
        if "ncct" not in images:
            raise NotSegmentable("a haematoma on CT needs an ncct scan")
        hu = images["ncct"].astype(np.float64)
        brain = filled_slices(brain)
        quality: dict[str, Any] = calibration(hu, brain, voxel_size_mm)
        flags: dict[str, str] = {}
        offset = self._offset(quality, flags, parameters)
        hu = hu - offset
        calcified = _calcified(hu, brain, voxel_size_mm, parameters)
        usable = brain & ~calcified & (hu > -20) & (hu < parameters.bone_above_hu)
        smooth = smooth_within(hu, usable, parameters.smooth_mm, voxel_size_mm)
        tissue = usable & (smooth > 15) & (smooth < 50)
        background = fit_field(smooth, tissue, voxel_size_mm).values
        quality["background_range_hu"] = float(np.ptp(np.percentile(background[tissue], [5, 95])))
        if quality["background_range_hu"] > parameters.background_flag_hu:
            flags["beam_hardening"] = (
                f"the background varies by {quality['background_range_hu']:.0f} HU over the brain "
                "(beam hardening or a tilted head holder); it was taken out"
            )
        smooth = np.where(usable, smooth - background, 0.0)
        centre, spread = centre_and_spread(smooth[tissue])
        excess = np.where(usable, smooth - centre, 0.0)
        plane = median_plane(np.clip(smooth, 0, 80), brain, voxel_size_mm, images.get("mni_x"))
        # Regional means: the greatest of many noisy voxels is no structure of the other side.
        region = smooth_within(excess, usable, _REGION_MM, voxel_size_mm)
        mirrored, side = brightest_mirrored(region, usable, plane, voxel_size_mm)
        quality.update(brain_hu=centre, brain_spread_hu=spread, symmetry=plane.symmetry)
        if "mni_x" not in images:
            flags["no_template_fit"] = (
                "the head could not be fitted to MNI, so that sinuses and dura were left out by "
                "their distance to bone and midline alone; have the mask read by a person"
            )
        bone = hu > parameters.bone_above_hu
        low = np.ones(hu.shape, bool)
        if "mni_z" in images:
            low = below_base(images["mni_y"], images["mni_z"])
        maps = {
            "hu": smooth,
            "z": excess,
            "region": region,
            "mirrored": mirrored,
            "side_mm": side,
            "tissue": usable,
            "near_bone": _near_bone(hu, bone, low, voxel_size_mm),
            "bone_mm": depth_mm(~bone, voxel_size_mm),
            "inwards_mm": depth_mm(~bone, (*voxel_size_mm[:2], 1e4)),
            "depth_mm": depth_mm(brain, voxel_size_mm),
            **{name: images[name] for name in COORDINATES if name in images},
        }
        return Evidence(maps, voxel_size_mm, quality, flags)

    def _offset(
        self, quality: dict[str, Any], flags: dict[str, str], parameters: HaematomaThresholds
    ) -> float:
        """Offset of brain tissue beyond the tolerance, to be taken out; flags what is off."""
        tissue = quality["tissue_hu"] - parameters.tissue_expected_hu
        csf = quality["csf_hu"] - parameters.csf_expected_hu
        offset = tissue if abs(tissue) > parameters.calibration_flag_hu else 0.0
        quality["calibration_offset_hu"] = offset
        # Ventricles may be slits, so CSF alone has twice the tolerance (partial volume).
        if offset or abs(csf) > 2 * parameters.calibration_flag_hu:
            flags["calibration"] = (
                f"brain tissue measures {quality['tissue_hu']:.0f} HU "
                f"({parameters.tissue_expected_hu:.0f} expected), deep CSF "
                f"{quality['csf_hu']:.0f} HU ({parameters.csf_expected_hu:.0f} expected): "
                f"an offset of {offset:.0f} HU was taken out; check the scanner's calibration"
            )
        return float(offset)

    def decide(self, evidence: Evidence, parameters: HaematomaThresholds) -> Decision:
        """Seed, grow to half-way, drop sheets and artefacts, say if the blood is not dense."""
        maps, hu = evidence.maps, evidence.maps["hu"]
        seed, mask = evidence.kept(
            parameters.model_dump_json(exclude=_EDGE_ONLY),
            lambda: _lumps(evidence, parameters),
        )
        lump = parameters.sheet_radius_mm
        mask = (within_edge(mask, maps["z"], parameters.edge_share) | seed) & mask
        mask = _without_sheets(mask, lump, evidence)
        mask |= ndimage.binary_closing(mask, IN_PLANE) & maps["tissue"]
        mask = remove_small_components(mask, parameters.min_cluster_ml, evidence.voxel_ml)
        mask, left_out = _judged(mask, evidence, parameters)
        quality = {"clusters_dropped": len(left_out), **_candidates(left_out), **_density(mask, hu)}
        flags = {**_density_flags(mask, hu, parameters), **_candidate_flag(left_out)}
        return Decision(mask, quality, flags)


def _lumps(evidence: Evidence, parameters: HaematomaThresholds) -> tuple[Mask, Mask]:
    """Seeds, and the dense or faint lumps that grow from them."""
    maps, hu, excess = evidence.maps, evidence.maps["hu"], evidence.maps["z"]
    window = maps["tissue"] & (hu < parameters.hu_below)
    # A voxel that shares a face with bone may be half bone: it can belong, not begin.
    seed = window & (hu > parameters.hu_seed_above) & ~maps["near_bone"]
    faint = (
        window
        & ~maps["near_bone"]
        & (hu > parameters.faint_hu_above)
        & (excess > parameters.faint_excess_hu)
        & (excess - maps["mirrored"] > parameters.faint_asymmetry_hu)
    )
    thick = inscribed_radius_mm(faint, evidence.voxel_size_mm) >= parameters.faint_radius_mm
    mask = grow(seed, window & (hu > parameters.hu_grow_above))
    mask = _without_sheets(mask, parameters.sheet_radius_mm, evidence)
    if thick.any():
        mask |= grow(thick, window & (hu > parameters.faint_hu_above - 3.0))
    return seed, mask


_PAIRED = "as dense on the other side"
#: Parameters that change nothing before the edge is drawn.
_EDGE_ONLY = {"edge_share", "limits"}
#: Sides are compared by means over this (SD of the Gaussian).
_REGION_MM = 2.0
#: Attenuation of a slice that is bone for the most part.
_WHOLE_BONE_HU = 450.0
#: What is below the seeds' density on the whole must be wide, or of this volume.
_FAINT_ML = 1.0
#: Half of the widest falx, with what blurs it.
_FALX_MM = 4.0
#: Blood is even: three times the noise of smoothed voxels.
_BONY_HU = 10.0
#: Images that carry the MNI coordinates of every voxel.
COORDINATES = ("mni_x", "mni_y", "mni_z")


def with_coordinates(given: GridImages) -> GridImages:
    """The images with MNI coordinates; a head CT that lacks them is fitted to the template.

    Examples
    --------
    >>> given = GridImages({"dwi": np.zeros((2, 2, 2))}, np.ones((2, 2, 2), bool), (1.0, 1.0, 1.0))
    >>> with_coordinates(given) is given
    True
    """
    hu = given.images.get("ncct")
    if hu is None or "mni_x" in given.images:
        return given
    found, _ = template_coordinates(hu, np.diag([*given.voxel_size_mm, 1.0]))
    return replace(given, images={**given.images, **found})


def in_template(visit: VisitScans, target: Target) -> Inputs:
    """A CT with the MNI coordinates of its voxels, by the fit of its brain mask if there is one."""
    found, scan = visit.together(target), target.scan
    if scan.scan_id not in visit.coordinates:
        judged = visit.record.brain_mask_quality.get(scan.grid or "")
        head = judged.head if judged is not None else None
        known = head is not None and head.scan_id == scan.scan_id
        fit = HeadFit(np.reshape(head.matrix, (4, 4)), head.score) if head and known else None
        visit.coordinates[scan.scan_id] = template_coordinates(
            found.images[scan.kind], np.asarray(target.image.affine), fit
        )[0]
    return replace(found, images={**found.images, **visit.coordinates[scan.scan_id]})


def _to_the_bone(given: GridImages, parameters: HaematomaThresholds) -> Mask:
    """The brain mask widened to the inner table.

    Masks of a CT end a millimetre or two before the bone, and blood at the surface looks like no
    brain to them. Soft tissue within ``beyond_mask_mm`` of the mask is taken in, and farther out
    (five times as far) what the template's brain covers within ``prior_tolerance_mm``.
    """
    images, brain = given.images, given.brain
    hu, near = images["ncct"], parameters.beyond_mask_mm
    x, y, _ = given.voxel_size_mm
    away = distance_mm(~brain, (x, y, 1e4))
    band = (away > 0) & (away <= 5.0 * near) & (hu > 15.0) & (hu < parameters.hu_below)
    inside = away <= near
    if "mni_x" in images:
        points = np.column_stack([images[name][band] for name in COORDINATES])
        inside[band] |= outside_brain_mm(points) < parameters.prior_tolerance_mm
    return brain | (band & inside)


def _calcified(
    hu: Image,
    brain: Mask,
    voxel_size_mm: tuple[float, float, float],
    parameters: HaematomaThresholds,
) -> Mask:
    """Calcification with its blurred rim. What hangs together with the skull is bone instead."""
    labels, sizes = label_components(hu > parameters.hu_below)
    skull = np.unique(labels[~brain])
    small = sizes * float(np.prod(voxel_size_mm)) / 1000.0 < parameters.calcification_ml
    small[skull] = True
    small[0] = True
    return enlarged(~small[labels], parameters.calcification_rim_mm, voxel_size_mm)


def _near_bone(hu: Image, bone: Mask, low: Mask, voxel_size_mm: tuple[float, float, float]) -> Mask:
    """Voxels within 2 mm of bone in plane, or beside a slice that is bone there.

    Where a slanted inner table has just begun to fill a slice by the few percent that look like
    blood, it fills the next slice almost wholly (:data:`_WHOLE_BONE_HU`). The thin plates of the
    skull base (``low``) fill no slice. What lies above the last slice is not known: the brain seen
    there may hold the vertex.
    """
    beside = (hu > _WHOLE_BONE_HU) | (bone & low)
    near = enlarged(bone, 2.0, voxel_size_mm)
    near[:, :, 1:] |= beside[:, :, :-1]
    near[:, :, :-1] |= beside[:, :, 1:]
    near[:, :, [0, -1]] = True
    return near


def _explained(
    inside: Mask, where: tuple[slice, ...], evidence: Evidence, parameters: HaematomaThresholds
) -> dict[str, NDArray[np.bool_]]:
    """Name of a structure -> which voxels of a cluster (n,) it could be."""
    maps = {name: values[where][inside] for name, values in evidence.maps.items()}
    found = {"bone": maps["near_bone"]}
    if "mni_x" not in maps:
        found["falx"] = np.abs(maps["side_mm"]) < 4.0
        found["rim of the brain"] = maps["depth_mm"] < parameters.rim_mm
        return found
    points = np.column_stack([maps[name] for name in COORDINATES]).astype(float)
    # The median plane is known better from the head itself than from the affine fit.
    points[:, 0] = np.where(np.abs(points[:, 0]) < 15.0, maps["side_mm"], points[:, 0])
    slice_mm = evidence.voxel_size_mm[2]
    found |= explanations(points, maps["bone_mm"], maps["z"], slice_mm, parameters)
    # Axial slices cut the falx across: there it is never dense and wide.
    dense = inside.copy()
    dense[inside] = maps["region"] + evidence.quality["brain_hu"] > parameters.hu_seed_above
    found["falx"] &= ~_wide(dense, _FALX_MM, evidence.voxel_size_mm)[inside]
    return found


def _wide(mask: Mask, radius_mm: float, voxel_size_mm: Sequence[float]) -> Mask:
    """Opening in plane by a disc: the parts that are wider than twice the radius."""
    middle = inscribed_radius_mm(mask, voxel_size_mm) > radius_mm
    if not middle.any():
        return middle
    x, y, _ = voxel_size_mm
    return mask & (distance_mm(~middle, (x, y, 1e4)) <= radius_mm)


@dataclass(frozen=True)
class _LeftOut:
    """Dense, and no evidence of blood: the likeliest structure, mL, and mL that none explains."""

    name: str
    volume_ml: float
    unexplained_ml: float


def _judged(
    mask: Mask, evidence: Evidence, parameters: HaematomaThresholds
) -> tuple[Mask, list[_LeftOut]]:
    """Clusters with a core of their own, and what was left out."""
    labels, _ = label_components(mask)
    kept = np.zeros(mask.shape, bool)
    left_out: list[_LeftOut] = []
    reach = parameters.core_reach_mm
    x, y, z = evidence.voxel_size_mm
    for n, tight in enumerate(ndimage.find_objects(labels), start=1):
        where = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in tight)
        inside = labels[where] == n
        found = _explained(inside, where, evidence, parameters)
        sound = np.zeros(inside.shape, bool)
        normal, reasons = sound.copy(), []
        for core in _cores(inside, where, found, evidence, parameters):
            reason = _no_evidence(core, where, inside, found, evidence, parameters)
            if reason is None:
                sound |= core
            else:
                reasons.append(reason)
                normal |= core & (reason in (_PAIRED, *SMALL))
        rest = inside
        if sound.any():
            # The next slice is always within reach, however thick slices are.
            away = distance_mm(~sound, (x, y, min(z, reach)))
            # Beside bone, what is denser than the blood's own core is bone in part.
            hu = evidence.maps["hu"][where]
            bony = evidence.maps["near_bone"][where] & (hu > np.median(hu[sound]) + _BONY_HU)
            kept[where] |= inside & (away <= reach) & ~bony
            rest = inside & ~kept[where]
        rest_ml = float(rest.sum()) * evidence.voxel_ml
        if rest_ml >= parameters.min_cluster_ml:
            likeliest = max(found, key=lambda name: (int(found[name].sum()), name))
            name = max(reasons, key=reasons.count, default=likeliest)
            anatomy = np.any([hit for key, hit in found.items() if key != "bone"], axis=0)
            open_ = rest & ~normal
            open_[inside] &= ~anatomy
            lump = inscribed_radius_mm(open_, evidence.voxel_size_mm)
            open_ = grow(lump >= parameters.sheet_radius_mm, open_)
            left_out.append(_LeftOut(name, rest_ml, float(open_.sum()) * evidence.voxel_ml))
    return kept, left_out


def _cores(
    inside: Mask,
    where: tuple[slice, ...],
    found: Mapping[str, NDArray[np.bool_]],
    evidence: Evidence,
    parameters: HaematomaThresholds,
) -> list[Mask]:
    """Parts of a cluster that lie where no structure is dense, each to be judged alone.

    Sinuses, tentorium and a haematoma beside them are one cluster, and so are a haematoma and the
    streak that it lies in: beside each whole part, its dense parts are judged.
    """
    free = inside.copy()
    free[inside] = ~np.any([hit for name, hit in found.items() if name not in SMALL], axis=0)
    hu = evidence.maps["region"][where] + evidence.quality["brain_hu"]
    cores = []
    for part in (free, free & (hu > parameters.hu_seed_above)):
        thick = inscribed_radius_mm(part, evidence.voxel_size_mm) >= parameters.core_radius_mm
        labels, counts = label_components(grow(thick & part, part))
        cores += [labels == k for k in range(1, counts.size)]
    return cores


def _no_evidence(
    core: Mask,
    where: tuple[slice, ...],
    inside: Mask,
    found: Mapping[str, NDArray[np.bool_]],
    evidence: Evidence,
    parameters: HaematomaThresholds,
) -> str | None:
    """Reason why one core of a cluster is no evidence of blood; None if it is."""
    values = {name: values[where][core] for name, values in evidence.maps.items()}
    volume_ml = float(core.sum()) * evidence.voxel_ml
    likeliest = max(found, key=lambda name: (int(found[name].sum()), name))
    if volume_ml < parameters.core_ml:
        return likeliest
    # The blurred edge of bone is a band along it, however long; blood reaches inwards.
    if float(np.percentile(values["inwards_mm"], 90)) < parameters.core_extent_mm:
        return "bone"
    bright, twin = float(np.median(values["region"])), float(np.median(values["mirrored"]))
    radius = float(inscribed_radius_mm(core, evidence.voxel_size_mm).max())
    wide = radius >= parameters.faint_radius_mm
    faint = bright + evidence.quality["brain_hu"] < parameters.hu_seed_above
    if faint and not wide and volume_ml < _FAINT_ML:
        return likeliest
    # A cluster at the midline is its own mirror image: no artefact by that.
    apart = float(np.median(np.abs(values["side_mm"]))) > parameters.midline_mm + radius
    # What is faint, wide and yet twice as dense as the other side is no artefact either.
    least = min(parameters.asymmetry_hu, bright / 2) if wide else parameters.asymmetry_hu
    paired = apart and twin > bright - least
    if paired and float(np.median(values["inwards_mm"])) < parameters.core_extent_mm:
        return "bone"
    low = "mni_z" in values and below_base(values["mni_y"], values["mni_z"]).mean() > 0.5
    # Of normal density on both sides, only the skull base is as large as this.
    if paired and (low or volume_ml < parameters.artefact_below_ml):
        return _PAIRED
    # Streaks between dense bones reach far into the posterior and middle fossa.
    if low and float(np.median(values["hu"])) < parameters.faint_flag_hu:
        return "streaks of the skull base"
    ours = core[inside]
    small = [name for name in SMALL if name in found and found[name][ours].mean() > 0.7]
    if small and volume_ml < parameters.calcifying_below_ml:
        return small[0]
    return None


def _candidates(left_out: Sequence[_LeftOut]) -> dict[str, Any]:
    """Figures of the clusters left out, by structure."""
    by: dict[str, float] = {}
    for part in left_out:
        by[part.name] = by.get(part.name, 0.0) + part.volume_ml
    return {
        "candidates_left_out_ml": float(sum(by.values())),
        "candidates_left_out": {name: round(by[name], 3) for name in sorted(by)},
        "candidates_unexplained_ml": float(sum(part.unexplained_ml for part in left_out)),
    }


def _candidate_flag(left_out: Sequence[_LeftOut]) -> dict[str, str]:
    if not left_out:
        return {}
    figures = _candidates(left_out)
    by, unexplained_ml = figures["candidates_left_out"], figures["candidates_unexplained_ml"]
    parts = ", ".join(f"{name} {volume:.1f} mL" for name, volume in by.items())
    return {
        "blood_candidates": (
            f"{len(left_out)} dense cluster{'s' * (len(left_out) > 1)} not distinguishable from "
            f"normal structures left out ({parts}); {unexplained_ml:.1f} mL of them, where no such "
            "structure lies, count in the upper limit"
        )
    }


def _density(mask: Mask, hu: Image) -> dict[str, Any]:
    return {"lesion_hu": float(np.median(hu[mask])) if mask.any() else None}


def _density_flags(mask: Mask, hu: Image, parameters: HaematomaThresholds) -> dict[str, str]:
    if not mask.any():
        return {}
    median = float(np.median(hu[mask]))
    if median >= parameters.faint_flag_hu:
        return {}
    return {
        "blood_near_50_hu": (
            f"the blood's median density is {median:.0f} HU (anaemia, or not acute): its edge "
            "is hard to distinguish from brain tissue; have the volume read by a person"
        )
    }


def _without_sheets(mask: Mask, radius_mm: float, evidence: Evidence) -> Mask:
    """Opening in plane that keeps lumps whole: what is within reach of a thick part stays."""
    inscribed = inscribed_radius_mm(mask, evidence.voxel_size_mm)
    core = inscribed >= radius_mm
    if not core.any():
        return np.zeros(mask.shape, bool)
    kept = np.zeros(mask.shape, bool)
    for k in np.flatnonzero(mask.any((0, 1))):
        # The thick part of the same or a neighbouring slice: the cap of a lump is thin.
        beside = slice(max(0, k - 1), k + 2)
        box = bounding_box(np.asarray(mask[:, :, beside].any(2)))
        near = np.asarray(core[(*box, beside)].any(2))
        if near.any():
            away = distance_mm(~near, evidence.voxel_size_mm[:2])
            kept[(*box, k)] = mask[(*box, k)] & (away <= radius_mm + 1.5)
    # Any thin part that is left is connected to a lump or removed.
    return grow(core & kept, kept)


class GradientEchoHaematoma(ThresholdSegmenter[GreHaematomaThresholds]):
    """Haematoma on gradient echo: a dark lump, well inside the brain. Always flagged.

    Susceptibility makes blood look larger than it is (blooming), more so with a longer echo time,
    so the volume is no stand-in for that on CT. Microbleeds (up to 10 mm across, 0.5 mL) are left
    out by ``min_cluster_ml``; veins by their thinness; the air cells of the skull base by the rim
    and the mirror rule.

    Method: dark against local tissue, after Greenberg et al., Lancet Neurol 2009;8:165 for the
    limit between microbleed and haematoma.
    """

    label = "haematoma"
    source = "pipeline:gre"
    disease = "stroke"
    block = "haematoma_gre"
    kinds = ("gre",)

    def measure(self, given: GridImages, parameters: GreHaematomaThresholds) -> Evidence:
        """Loss of signal against tissue as a share of it, and the same at the mirrored place."""
        images, brain, voxel_size_mm = given.images, given.brain, given.voxel_size_mm
        if "gre" not in images:
            raise NotSegmentable("a haematoma on gradient echo needs a gre scan")
        image = images["gre"].astype(np.float64)
        brain = filled_slices(brain)
        median = float(np.median(image[brain]))
        if median <= 0:
            raise NotSegmentable("the gre image is not positive over the brain; check the file")
        normal = brain & (image > 0.6 * median) & (image < 1.4 * median)
        flat, field = flatten_field(image, normal, voxel_size_mm)
        smooth = smooth_within(flat, brain, parameters.smooth_mm, voxel_size_mm)
        centre = float(np.median(smooth[normal]))
        loss = np.where(brain, 1.0 - smooth / centre, 0.0)
        filled = replace(given, brain=brain)
        maps, symmetry = judged_maps(loss, brain, np.clip(smooth, 0, 2 * centre), filled)
        flags = {
            "blooming": "gradient echo shows blood larger than it is, depending on the echo time"
        }
        quality = {**field.quality, "symmetry": symmetry}
        return Evidence(maps, voxel_size_mm, quality, {**flags, **field.flags})

    def decide(self, evidence: Evidence, parameters: GreHaematomaThresholds) -> Decision:
        """Seed where most signal is lost, grow, drop sheets, rim and mirrored clusters."""
        maps, loss = evidence.maps, evidence.maps["z"]
        inner = maps["tissue"] & (maps["depth_mm"] > parameters.rim_mm)
        seed = inner & (loss > parameters.loss_seed_above)
        mask = grow(seed, inner & (loss > parameters.loss_grow_above))
        mask = _without_sheets(mask, parameters.sheet_radius_mm, evidence)
        rules = ClusterThresholds(
            artefact_below_ml=parameters.artefact_below_ml,
            asymmetry_z=parameters.asymmetry_loss,
            midline_mm=parameters.midline_mm,
            rim_mm=2.0 * parameters.rim_mm,
            smooth_mm=parameters.smooth_mm,
            min_seed_ml=0.0,
            min_cluster_ml=parameters.min_cluster_ml,
            min_conspicuous_ml=parameters.min_cluster_ml,
            z_conspicuous=np.inf,
            z_peak=0.0,
        )
        mask, dropped = drop_artefacts(mask, evidence, rules)
        mask = remove_small_components(mask, parameters.min_cluster_ml, evidence.voxel_ml)
        return Decision(mask, {"clusters_dropped": dropped, "clusters": component_count(mask)})
