"""Glioma: enhancing tumour, oedema, and the whole tumour as their union."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from corelab.segmentation.flair import bright_tissue
from corelab.segmentation.segmenter import (
    Evidence,
    Image,
    Mask,
    NotSegmentable,
    Segmentation,
    ThresholdSegmenter,
)
from corelab.segmentation.tissue import (
    Field,
    ball,
    brightest_mirrored,
    centre_and_spread,
    clusters,
    depth_mm,
    drop_artefacts,
    find_midplane,
    flatten_field,
    grow,
    inscribed_radius_mm,
    keep_clusters,
    smooth_within,
    within_edge,
)


class Oedema(ThresholdSegmenter):
    """Oedema and non-enhancing tumour: bright on FLAIR (or T2w, flagged), the enhancing part out.

    FLAIR is taken where there is one. On T2w fluid is as bright as oedema, so voxels much
    brighter than the lesion's usual range are left out and the result is flagged. ``images`` may
    hold ``enhancing`` (a mask), which is taken out of the result. Holes that enhancing tumour and
    oedema enclose count as oedema: necrosis; a hole filled with fluid only within a closed ring of
    enhancing tumour, because elsewhere it is a resection cavity or a sulcus.
    """

    label = "oedema"

    def measure(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: tuple[float, float, float],
        parameters: Mapping[str, Any],
    ) -> Evidence:
        """Robust z score of FLAIR (T2w), its mirrored value, fluid taken out of T2w."""
        kind = next((kind for kind in ("FLAIR", "T2w") if kind in images), None)
        if kind is None:
            raise NotSegmentable("oedema needs a FLAIR or a T2w scan")
        found = bright_tissue(images[kind], brain, voxel_size_mm, parameters)
        maps, flags = dict(found.maps), dict(found.flags)
        if kind == "T2w":
            fluid = maps["z"] > parameters["t2_fluid_z"]
            maps["tissue"] = maps["tissue"] & ~fluid
            maps["z"] = np.where(fluid, 0.0, maps["z"])
            flags["t2_only"] = "no FLAIR: on T2 fluid in sulci and ventricles can pass for oedema"
        if "enhancing" in images:
            maps["enhancing"] = images["enhancing"] > 0.5
        return replace(found, maps=maps, flags=flags)

    def decide(
        self, evidence: Evidence, parameters: Mapping[str, Any]
    ) -> tuple[Mask, dict[str, Any], dict[str, str]]:
        """Hysteresis on brightness, rim and mirrored clusters out, holes filled."""
        maps, z = evidence.maps, evidence.maps["z"]
        deep = maps["depth_mm"] > parameters["rim_mm"]
        seed = maps["tissue"] & deep & (z > parameters["z_seed"])
        seed &= z - maps["mirrored"] > parameters["asymmetry_z"]
        seed = keep_clusters(seed, float(parameters["min_seed_ml"]), evidence.voxel_ml)
        mask = grow(seed, maps["tissue"] & (z > parameters["z_grow"]))
        mask &= within_edge(mask, z, float(parameters["edge_share"]))
        mask = _opened(mask, float(parameters["opening_mm"]), evidence)
        mask, dropped = drop_artefacts(mask, evidence, parameters)
        largest_ml = float(clusters(mask)[1][1:].max(initial=0)) * evidence.voxel_ml
        least_ml = max(
            float(parameters["min_cluster_ml"]),
            float(parameters["min_share_of_largest"]) * largest_ml,
        )
        mask = keep_clusters(mask, least_ml, evidence.voxel_ml)
        enhancing = maps.get("enhancing", np.zeros(mask.shape, bool))
        whole = mask | enhancing
        mask = (whole | _solid_holes(whole, enhancing, maps["tissue"])) & ~enhancing
        return mask, {"clusters": int(clusters(mask)[1].size - 1), "clusters_dropped": dropped}, {}


class EnhancingTumour(ThresholdSegmenter):
    """Enhancing tumour: T1 after contrast minus T1 before, both scaled to normal tissue.

    Without a T1w the image after contrast stands alone (flagged): then vessels, dura and choroid
    plexus are told from tumour by their thinness, by the rim of the brain and, where ``images``
    has ``bright`` (the FLAIR lesion as a mask), by not lying in or beside it.

    Method: T1 subtraction after Ellingson et al., Radiology 2014;271:200.
    """

    label = "enhancing"

    def measure(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: tuple[float, float, float],
        parameters: Mapping[str, Any],
    ) -> Evidence:
        """Z score of the difference (or of T1c alone)."""
        if "T1c" not in images:
            raise NotSegmentable("enhancing tumour needs a T1c scan")
        flags: dict[str, str] = {}
        post, tissue, field = _scaled(images["T1c"], brain, voxel_size_mm, parameters)
        if "T1w" in images:
            before, tissue_before, _ = _scaled(images["T1w"], brain, voxel_size_mm, parameters)
            contrast = post - before
            tissue = tissue | tissue_before
        else:
            contrast = post
            flags["no_t1"] = (
                "no T1 before contrast: bright vessels, blood and fat can pass for enhancement"
            )
        centre, spread = centre_and_spread(contrast[tissue])
        near = tissue & (np.abs(contrast - centre) < 2.5 * spread)
        if spread <= 0 or not near.any():
            raise NotSegmentable(
                "the T1c image does not vary over the brain, or equals the T1w; check whether one "
                "file was named twice"
            )
        centre, spread = centre_and_spread(contrast[near])
        z = np.where(brain, (contrast - centre) / (spread / 0.93), 0.0)
        plane = find_midplane(np.where(brain, post, 0.0), brain, voxel_size_mm)
        mirrored, side = brightest_mirrored(z, brain, plane, voxel_size_mm)
        maps = {
            "z": z,
            "tissue": brain,
            "mirrored": mirrored,
            "side_mm": side,
            "depth_mm": depth_mm(brain, voxel_size_mm),
        }
        if "bright" in images:
            reach = ball(float(parameters["beside_oedema_mm"]), voxel_size_mm)
            maps["beside"] = ndimage.binary_dilation(images["bright"] > 0.5, reach)
        return Evidence(maps, voxel_size_mm, field.quality, {**flags, **field.flags})

    def decide(
        self, evidence: Evidence, parameters: Mapping[str, Any]
    ) -> tuple[Mask, dict[str, Any], dict[str, str]]:
        """Hysteresis, vessels and dura out."""
        maps, z = evidence.maps, evidence.maps["z"]
        alone = "no_t1" in evidence.flags
        z_seed = parameters["z_seed_t1c_only" if alone else "z_seed"]
        z_grow = parameters["z_grow_t1c_only" if alone else "z_grow"]
        # Dura and sinuses are bright all along the rim; tumour that reaches it loses little there.
        inner = maps["tissue"] & (maps["depth_mm"] > parameters["rim_mm"])
        allowed = inner & (z > z_grow)
        seed = inner & (z > z_seed)
        if "beside" in maps:
            seed &= maps["beside"]
            allowed &= maps["beside"]
        seed = keep_clusters(seed, float(parameters["min_seed_ml"]), evidence.voxel_ml)
        mask = grow(seed, allowed)
        mask &= within_edge(mask, z, float(parameters["edge_share"]))
        mask = _lumps(mask, float(parameters["vessel_radius_mm"]), evidence)
        mask, dropped = drop_artefacts(mask, evidence, parameters)
        mask = keep_clusters(mask, float(parameters["min_cluster_ml"]), evidence.voxel_ml)
        return mask, {"clusters": int(clusters(mask)[1].size - 1), "clusters_dropped": dropped}, {}


def whole_tumour(enhancing: Segmentation, oedema: Segmentation) -> Segmentation:
    """Union of enhancing tumour and oedema; since they do not overlap, the volumes add exactly.

    Raises
    ------
    ValueError
        If they overlap (oedema is to be made with the enhancing part taken out).

    Examples
    --------
    >>> def part(label, place):
    ...     mask = np.zeros((1, 1, 4), bool); mask[0, 0, place] = True
    ...     return Segmentation(label, "pipeline", mask, 1.0, 0.5, 2.0, {})
    >>> whole = whole_tumour(part("enhancing", 0), part("oedema", 1))
    >>> whole.volume_ml, whole.mask.astype(int).ravel().tolist()
    (2.0, [1, 1, 0, 0])
    """
    if (enhancing.mask & oedema.mask).any():
        raise ValueError("enhancing tumour and oedema overlap: their volumes would not add")
    reasons = [part.reason for part in (enhancing, oedema) if part.reason]
    return Segmentation(
        label="whole-tumour",
        source="pipeline",
        mask=enhancing.mask | oedema.mask,
        volume_ml=enhancing.volume_ml + oedema.volume_ml,
        volume_low_ml=enhancing.volume_low_ml + oedema.volume_low_ml,
        volume_high_ml=enhancing.volume_high_ml + oedema.volume_high_ml,
        parameters={"union_of": ["enhancing", "oedema"]},
        flags=tuple(sorted({*enhancing.flags, *oedema.flags})),
        reason="; ".join(reasons) or None,
    )


def _scaled(
    image: Image,
    brain: Mask,
    voxel_size_mm: tuple[float, float, float],
    parameters: Mapping[str, Any],
) -> tuple[Image, Mask, Field]:
    """Image smoothed, field out, divided by the median of tissue (fluid left out)."""
    median = float(np.median(image[brain]))
    if median <= 0:
        raise NotSegmentable("the image is not positive over the brain; check the file")
    tissue = brain & (image > 0.6 * median)
    flat, field = flatten_field(image, tissue, voxel_size_mm)
    smooth = smooth_within(flat, brain, float(parameters["smooth_mm"]), voxel_size_mm)
    return smooth / float(np.median(smooth[tissue])), tissue, field


def _filled(mask: Mask) -> Mask:
    """Holes closed slice by slice (axial)."""
    return np.stack(
        [ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2
    )


def _solid_holes(whole: Mask, enhancing: Mask, tissue: Mask) -> Mask:
    """Holes of a tumour that are not mainly fluid, or lie in a closed ring of enhancing tumour.

    A cavity goes as one, with the rim of voxels that are part fluid and part oedema.
    """
    holes = _filled(whole) & ~whole
    labels, count = ndimage.label(holes)
    fluid = ndimage.mean(~tissue, labels, np.arange(count + 1)) > 0.25
    return holes & (~fluid[labels] | _filled(enhancing))


def _opened(mask: Mask, radius_mm: float, evidence: Evidence) -> Mask:
    """Opening that takes away tails (cortex beside the lesion) thinner than two radii."""
    return ndimage.binary_opening(mask, ball(radius_mm, evidence.voxel_size_mm))


def _lumps(mask: Mask, radius_mm: float, evidence: Evidence) -> Mask:
    """Clusters that are thicker than a vessel somewhere; a thin ring of tumour is filled first."""
    thick = inscribed_radius_mm(_filled(mask), evidence.voxel_size_mm) >= radius_mm
    return grow(thick & mask, mask)
