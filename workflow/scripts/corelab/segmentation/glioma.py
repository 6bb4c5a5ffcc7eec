"""Glioma: enhancing tumour, necrosis, oedema, and core and whole tumour as their unions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from scipy import ndimage

from corelab.imaging.geometry import distance_mm
from corelab.records.images import Scan
from corelab.segmentation.flair import bright_tissue
from corelab.segmentation.scans import Image, Inputs, Mask, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    GridImages,
    Segmentation,
    ThresholdSegmenter,
    bounding_box,
    joined_reasons,
)
from corelab.segmentation.tissue import (
    CUT_SPREAD,
    Field,
    ball,
    component_count,
    drop_artefacts,
    flatten_field,
    grow,
    in_plane_axes,
    inscribed_radius_mm,
    judged_maps,
    label_components,
    normal_tissue,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import EnhancingThresholds, OedemaThresholds


class Oedema(ThresholdSegmenter[OedemaThresholds]):
    """Oedema and non-enhancing tumour: bright on FLAIR (or T2w, flagged), core and necrosis out.

    FLAIR is taken where there is one. On T2w fluid is as bright as oedema, so voxels much
    brighter than the lesion's usual range are left out and the result is flagged. ``images`` may
    hold ``enhancing`` (a mask): it is taken out of the result, and so is the necrosis that it
    encloses (see :func:`enclosed`). Other holes of the tumour count as oedema unless they are
    fluid (a resection cavity, a sulcus). Without ``enhancing`` the result holds the core, flagged.
    """

    label = "oedema"
    disease = "glioma"
    block = "oedema"
    kinds = ("FLAIR", "T2w")
    after: ClassVar[tuple[str, ...]] = ("enhancing",)

    def target(self, visit: VisitScans) -> Scan | None:
        """The T1c, where there is a usable one: volumes add exactly on one grid."""
        fluid, post = super().target(visit), visit.scan("T1c")
        return post if fluid is not None and post is not None and post.usable else fluid

    def gather(self, visit: VisitScans, target: Target, parameters: OedemaThresholds) -> Inputs:
        """The FLAIR (or T2w) alone."""
        fluid = super().target(visit)
        assert fluid is not None
        found = visit.together(target, (fluid.kind,))
        if fluid.kind not in found.images:
            raise NotSegmentable("; ".join(found.notes))
        return replace(found, images={fluid.kind: found.images[fluid.kind]})

    def measure(self, given: GridImages, parameters: OedemaThresholds) -> Evidence:
        """Robust z score of FLAIR (T2w), its mirrored value, fluid taken out of T2w."""
        images = given.images
        kind = next((kind for kind in ("FLAIR", "T2w") if kind in images), None)
        if kind is None:
            raise NotSegmentable("oedema needs a FLAIR or a T2w scan")
        found = bright_tissue(kind, given, parameters)
        maps, flags = dict(found.maps), dict(found.flags)
        if kind == "T2w":
            fluid = maps["z"] > parameters.t2_fluid_z
            maps["tissue"] = maps["tissue"] & ~fluid
            maps["z"] = np.where(fluid, 0.0, maps["z"])
            flags["t2_only"] = "no FLAIR: on T2 fluid in sulci and ventricles can pass for oedema"
        if "enhancing" in images:
            enhancing = images["enhancing"] > 0.5
            maps["core"] = enhancing | enclosed(enhancing, given.voxel_size_mm)
        else:
            flags["core_included"] = (
                "without enhancing tumour from a T1c, oedema holds the enhancing and necrotic core"
            )
        return replace(found, maps=maps, flags=flags)

    def decide(self, evidence: Evidence, parameters: OedemaThresholds) -> Decision:
        """Hysteresis on brightness, rim and mirrored clusters out, holes filled, core out."""
        maps, z, tissue = evidence.maps, evidence.maps["z"], evidence.maps["tissue"]
        seed = self._seed(evidence, parameters)
        # Opened before it grows: cortex that touches the lesion is a thin sheet and must not lead
        # it from gyrus to gyrus.
        allowed = _opened(tissue & (z > parameters.z_grow), parameters.opening_mm, evidence)
        mask = grow(seed & allowed, allowed)
        mask &= within_edge(mask, z, parameters.edge_share)
        mask = _opened(mask, parameters.opening_mm, evidence)
        mask, dropped = drop_artefacts(mask, evidence, parameters)
        largest_ml = float(label_components(mask)[1][1:].max(initial=0)) * evidence.voxel_ml
        least_ml = max(
            parameters.min_cluster_ml,
            parameters.min_share_of_largest * largest_ml,
        )
        mask = remove_small_components(mask, least_ml, evidence.voxel_ml)
        both = float((maps["mirrored"][mask] > parameters.z_seed).mean()) if mask.any() else 0.0
        flags = {}
        if both > parameters.both_sides_share:
            flags["both_sides"] = (
                f"{both:.0%} of the bright tissue is bright on the other side as well: "
                "white-matter disease counts with the tumour, or the tumour crosses the midline"
            )
        quality = {
            "clusters": component_count(mask),
            "clusters_dropped": dropped,
            "both_sides_share": both,
        }
        core = maps.get("core", np.zeros(mask.shape, bool))
        whole = mask | core
        return Decision((whole | _solid_holes(whole, tissue)) & ~core, quality, flags)

    def _seed(self, evidence: Evidence, parameters: OedemaThresholds) -> Mask:
        """Certain lesion: bright, deep, and asymmetric or thick and large."""
        maps, z = evidence.maps, evidence.maps["z"]
        deep = maps["tissue"] & (maps["depth_mm"] > parameters.rim_mm)
        bright = deep & (z > parameters.z_seed)
        seed = bright & (z - maps["mirrored"] > parameters.asymmetry_z)
        seed = remove_small_components(seed, parameters.min_seed_ml, evidence.voxel_ml)
        # A tumour that mirrors itself across the midline: what is thick and large counts as well.
        reach = 2.5 * parameters.opening_mm
        thick = _opened(deep & (z > parameters.z_peak), reach, evidence)
        large_ml = parameters.artefact_below_ml
        return seed | remove_small_components(thick, large_ml, evidence.voxel_ml)


class FlairLesion(Oedema):
    """Whole lesion on FLAIR, beside which enhancing tumour is searched."""

    label = "bright"
    after = ()
    written = False


#: Gaps of a ring up to twice this do not open it: rims are thin and noisy.
_GAP_MM = 3.0
#: The same for the upper limit of necrosis, and for the flag of an open ring.
_WIDE_GAP_MM = 10.0


def enclosed(enhancing: Mask, voxel_size_mm: Sequence[float], *, gap_mm: float = _GAP_MM) -> Mask:
    """Necrosis: what enhancing tumour encloses, seen in axial planes or in both other planes.

    Gaps of up to twice ``gap_mm`` do not open a ring. Fluid counts as well: a closed ring of
    enhancing tumour holds necrosis, an open one can be the wall of a resection cavity.

    Examples
    --------
    >>> ring = np.zeros((31, 31, 3), bool); ring[3:28, 3:28] = True; ring[6:25, 6:25] = False
    >>> int(enclosed(ring, (1.0, 1.0, 5.0)).sum()), int(enclosed(ring[:16], (1.0, 1.0, 5.0)).sum())
    (1083, 0)
    """
    out = np.zeros(enhancing.shape, bool)
    if not enhancing.any():
        return out
    box = bounding_box(enhancing)
    tumour = enhancing[box]
    ring = closed_by(tumour, gap_mm, voxel_size_mm) | tumour
    planes = [_filled(ring, axis) for axis in (2, 1, 0)]
    inside = (planes[0] | (planes[1] & planes[2])) & ~ring
    # A gap belongs to what lies behind it.
    near = distance_mm(~inside, tuple(voxel_size_mm)) <= gap_mm
    out[box] = inside | (near & ring & ~tumour if inside.any() else False)
    return out


class EnhancingTumour(ThresholdSegmenter[EnhancingThresholds]):
    """Enhancing tumour: T1 after contrast minus T1 before, both scaled to normal tissue.

    Without a T1w the image after contrast stands alone (flagged): then vessels, dura and choroid
    plexus are distinguished from tumour by their thinness, by the rim of the brain and, where
    ``images`` has ``bright`` (the FLAIR lesion as a mask), by not lying in or beside it.

    Method: T1 subtraction after Ellingson et al., Radiology 2014;271:200.
    """

    label = "enhancing"
    disease = "glioma"
    block = "enhancing"
    kinds = ("T1c",)
    beside = ("T1w",)
    after = ("bright",)

    def measure(self, given: GridImages, parameters: EnhancingThresholds) -> Evidence:
        """Z score of the difference (or of T1c alone)."""
        images, brain = given.images, given.brain
        if "T1c" not in images:
            raise NotSegmentable("enhancing tumour needs a T1c scan")
        flags: dict[str, str] = {}
        post, tissue, field = _scaled(images["T1c"], given, parameters)
        if "T1w" in images:
            before, tissue_before, _ = _scaled(images["T1w"], given, parameters)
            contrast = post - before
            tissue = tissue | tissue_before
        else:
            contrast = post
            flags["no_t1"] = (
                "no T1 before contrast: bright vessels, blood and fat can pass for enhancement"
            )
        centre, spread, _ = normal_tissue(
            contrast,
            tissue,
            "the T1c image does not vary over the brain, or equals the T1w; check whether one file "
            "was named twice",
        )
        z = np.where(brain, (contrast - centre) / (spread / CUT_SPREAD), 0.0)
        maps, _ = judged_maps(z, brain, np.where(brain, post, 0.0), given)
        if "bright" in images and images["bright"].any():
            bright = images["bright"] > 0.5
            around = self._surroundings(bright, maps, given.voxel_size_mm, parameters)
            maps = {**maps, **around}
        return Evidence(maps, given.voxel_size_mm, field.quality, {**flags, **field.flags})

    def _surroundings(
        self,
        bright: Mask,
        maps: Mapping[str, Image],
        voxel_size_mm: tuple[float, float, float],
        parameters: EnhancingThresholds,
    ) -> dict[str, Image]:
        """The FLAIR lesion with its holes and bays, where tumour may lie, and tissue around it."""
        closed = closed_by(bright, 4.0, voxel_size_mm)
        # A bay at the rim of the brain is not closed: dura lies there, dark on FLAIR.
        deep = maps["depth_mm"] > parameters.rim_mm
        solid = maps["tissue"] & _filled(bright | (closed & deep))
        away = distance_mm(~solid, voxel_size_mm)
        around = (away > 4.0) & (away < 14.0) & deep
        return {"bright": bright, "solid": solid, "away_mm": away, "around": around}

    def decide(self, evidence: Evidence, parameters: EnhancingThresholds) -> Decision:
        """Hysteresis, edge between the core and what lies around it, vessels and dura out."""
        maps, z = evidence.maps, evidence.maps["z"]
        alone = "no_t1" in evidence.flags
        z_seed = parameters.z_seed_t1c_only if alone else parameters.z_seed
        z_grow = parameters.z_grow_t1c_only if alone else parameters.z_grow
        # Dura and sinuses are bright all along the rim of the brain.
        inner = maps["tissue"] & (maps["depth_mm"] > parameters.rim_mm)
        solid = maps.get("solid", np.zeros(z.shape, bool))
        allowed, place, base = inner, inner, 0.0
        if "away_mm" in maps:
            # Where the FLAIR lesion reaches the rim, the rim is tumour but for the dura itself.
            inner |= solid & (maps["depth_mm"] > parameters.rim_in_lesion_mm)
            place = inner & (maps["away_mm"] <= parameters.beside_oedema_mm)
            # Tumour is brighter than the bright end (white matter) of the tissue around the lesion.
            if maps["around"].any():
                share = parameters.surround_percentile
                z_grow = max(z_grow, float(np.percentile(z[maps["around"]], share)))
            z_seed = max(z_seed, z_grow + 0.5)
            # Enhancing tumour can be dark on FLAIR: what is thicker than a vessel counts further
            # out, and outside the lesion only what is as bright as a seed.
            far = inner & (maps["away_mm"] <= parameters.beyond_oedema_mm) & (z > z_seed)
            far = _opened(far, parameters.vessel_radius_mm, evidence)
            allowed = (inner & solid) | (place & (z > z_seed)) | far
        seed = remove_small_components(
            place & (z > z_seed), parameters.min_seed_ml, evidence.voxel_ml
        )
        if "bright" in maps and seed.any():
            # The other side of the edge is oedema and necrosis, darker than normal tissue.
            near = ndimage.binary_dilation(seed, ball(2.0, evidence.voxel_size_mm))
            quiet = z[maps["bright"] & ~near]
            base = float(np.median(quiet)) if quiet.size * evidence.voxel_ml > 1.0 else 0.0
        mask = grow(seed, allowed & (z > z_grow))
        mask &= within_edge(mask, z - base, parameters.edge_share)
        mask = _settled(mask, parameters.settle_mm, evidence) & inner
        mask = _lumps(mask, parameters.vessel_radius_mm, evidence)
        mask, dropped = self._without_artefacts(mask, solid, evidence, parameters)
        mask = remove_small_components(mask, parameters.min_cluster_ml, evidence.voxel_ml)
        flags = {}
        bright_ml = float(np.count_nonzero(maps.get("bright", False))) * evidence.voxel_ml
        if not mask.any() and bright_ml > parameters.flag_bright_above_ml:
            flags["no_enhancement"] = (
                f"no enhancement beside {bright_ml:.0f} mL of bright FLAIR: a tumour that does not "
                "enhance or was resected, or a T1c without contrast, cut off or badly aligned; "
                "look at the T1c"
            )
        quality = {
            "clusters": component_count(mask),
            "clusters_dropped": dropped,
            "z_surroundings": base,
            "z_grow": z_grow,
        }
        return Decision(mask, quality, flags)

    @staticmethod
    def _without_artefacts(
        mask: Mask, solid: Mask, evidence: Evidence, parameters: EnhancingThresholds
    ) -> tuple[Mask, int]:
        """Small clusters judged by rim and mirror, unless most of them lies in the FLAIR lesion."""
        labels, sizes = label_components(mask)
        inside = np.bincount(labels[solid], minlength=sizes.size) > 0.5 * sizes
        inside &= sizes * evidence.voxel_ml >= parameters.min_inside_ml
        inside[0] = False
        kept, dropped = drop_artefacts(mask & ~inside[labels], evidence, parameters)
        return kept | inside[labels], dropped


def necrosis(enhancing: Segmentation, voxel_size_mm: Sequence[float]) -> Segmentation:
    """Necrosis as the tissue that enhancing tumour encloses (:func:`enclosed`).

    Its limits follow from those of the enhancing tumour, of which half are taken to lie at the
    inner edge, and from gaps of the ring.

    Examples
    --------
    >>> ring = np.ones((3, 3, 1), bool); ring[1, 1] = False
    >>> found = Segmentation("enhancing", "pipeline", ring, 8.0, 7.0, 9.0, {})
    >>> dead = necrosis(found, (10.0, 10.0, 10.0))
    >>> dead.volume_ml, dead.volume_low_ml, dead.volume_high_ml
    (1.0, 0.5, 1.5)
    """
    mask = enclosed(enhancing.mask, voxel_size_mm)
    wide = enclosed(enhancing.mask, voxel_size_mm, gap_mm=_WIDE_GAP_MM)
    voxel_ml = float(np.prod(voxel_size_mm)) / 1000.0
    volume_ml, wide_ml = (float(found.sum()) * voxel_ml for found in (mask, wide))
    flags = {}
    if wide_ml - volume_ml > max(1.0, 0.25 * (enhancing.volume_ml + volume_ml)):
        flags["open_ring"] = (
            f"the ring of enhancing tumour is open: {wide_ml - volume_ml:.1f} mL more would be "
            "necrosis if it were closed, and count as oedema"
        )
    gain, loss = 0.0, 0.0
    if mask.any():
        gain = (enhancing.volume_ml - enhancing.volume_low_ml) / 2
        loss = (enhancing.volume_high_ml - enhancing.volume_ml) / 2
    return Segmentation(
        label="necrosis",
        source="pipeline",
        mask=mask,
        volume_ml=volume_ml,
        volume_low_ml=max(0.0, volume_ml - loss),
        volume_high_ml=max(volume_ml + gain, wide_ml),
        parameters={"enclosed_by": ["enhancing"], "gap_mm": 2 * _GAP_MM},
        flags=tuple(sorted({*enhancing.flags, *flags})),
        reason="; ".join([*([enhancing.reason] if enhancing.reason else []), *flags.values()])
        or None,
    )


def union_of(label: str, *parts: Segmentation) -> Segmentation:
    """Tumour core or whole tumour as the union of parts that do not overlap: volumes add exactly.

    Raises
    ------
    ValueError
        If two parts overlap.

    Examples
    --------
    >>> def part(label, place):
    ...     mask = np.zeros((1, 1, 4), bool); mask[0, 0, place] = True
    ...     return Segmentation(label, "pipeline", mask, 1.0, 0.5, 2.0, {})
    >>> whole = union_of("whole-tumour", part("enhancing", 0), part("oedema", 1))
    >>> whole.volume_ml, whole.mask.astype(int).ravel().tolist()
    (2.0, [1, 1, 0, 0])
    """
    names = [part.label for part in parts]
    if (np.sum([part.mask for part in parts], axis=0) > 1).any():
        raise ValueError(f"{' and '.join(names)} overlap: their volumes would not add")
    return Segmentation(
        label=label,
        source="pipeline",
        mask=np.any([part.mask for part in parts], axis=0),
        volume_ml=sum(part.volume_ml for part in parts),
        volume_low_ml=sum(part.volume_low_ml for part in parts),
        volume_high_ml=sum(part.volume_high_ml for part in parts),
        parameters={"union_of": names},
        flags=tuple(sorted({flag for part in parts for flag in part.flags})),
        reason=joined_reasons(part.reason for part in parts),
    )


def _scaled(
    image: Image, given: GridImages, parameters: EnhancingThresholds
) -> tuple[Image, Mask, Field]:
    """Image smoothed, field out, divided by the median of tissue (fluid left out)."""
    brain, voxel_size_mm = given.brain, given.voxel_size_mm
    median = float(np.median(image[brain]))
    if median <= 0:
        raise NotSegmentable("the image is not positive over the brain; check the file")
    tissue = brain & (image > 0.6 * median)
    flat, field = flatten_field(image, tissue, voxel_size_mm)
    smooth = smooth_within(flat, brain, parameters.smooth_mm, voxel_size_mm)
    return smooth / float(np.median(smooth[tissue])), tissue, field


def closed_by(mask: Mask, radius_mm: float, voxel_size_mm: Sequence[float]) -> Mask:
    """Closing by a ball, by distances: as fast for a wide ball, and sound at the array's edge.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool); mask[[2, 5]] = True
    >>> closed_by(mask, 2.0, (1.0, 1.0, 1.0))[:, 4, 4].astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 0, 0, 0]
    """
    size = tuple(float(edge) for edge in voxel_size_mm)
    pad = [(int(radius_mm / edge) + 1,) * 2 for edge in size]
    wide = np.pad(mask, pad)
    if not mask.any():
        return mask.copy()
    wide = distance_mm(~wide, size) <= radius_mm
    wide = distance_mm(wide, size) > radius_mm
    inner = tuple(slice(low, -low) for low, _ in pad)
    return np.asarray(wide[inner])


def _filled(mask: Mask, axis: int = 2) -> Mask:
    """Holes closed slice by slice (axial by default)."""
    out = mask.copy()
    other = tuple({0, 1, 2} - {axis})
    for k in np.flatnonzero(mask.any(other)):
        place = tuple(k if n == axis else slice(None) for n in range(3))
        out[place] = ndimage.binary_fill_holes(mask[place])
    return out


def _solid_holes(whole: Mask, tissue: Mask) -> Mask:
    """Holes of a tumour that are not mainly fluid.

    A cavity goes as one, with the rim of voxels that are part fluid and part oedema.
    """
    holes = _filled(whole) & ~whole
    labels, count = ndimage.label(holes)
    fluid = ndimage.mean(~tissue, labels, np.arange(count + 1)) > 0.25
    return holes & ~fluid[labels]


def _opened(mask: Mask, radius_mm: float, evidence: Evidence) -> Mask:
    """Opening that takes away tails (cortex beside the lesion) thinner than two radii."""
    return ndimage.binary_opening(mask, ball(radius_mm, evidence.voxel_size_mm))


def _settled(mask: Mask, sigma_mm: float, evidence: Evidence) -> Mask:
    """Every voxel as most of its neighbours: noise along a faint edge evens out."""
    axes = in_plane_axes(evidence.voxel_size_mm)
    sigma = [sigma_mm / size if n in axes else 0.0 for n, size in enumerate(evidence.voxel_size_mm)]
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma) > 0.45


def _lumps(mask: Mask, radius_mm: float, evidence: Evidence) -> Mask:
    """Clusters that are thicker than a vessel somewhere; a thin ring of tumour is filled first."""
    thick = inscribed_radius_mm(_filled(mask), evidence.voxel_size_mm) >= radius_mm
    return grow(thick & mask, mask)
