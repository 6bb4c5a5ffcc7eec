"""Infarct on FLAIR at follow-up: brighter than normal tissue and than the other side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.segmentation.scans import Inputs, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    GridImages,
    ThresholdSegmenter,
)
from corelab.segmentation.tissue import (
    CUT_SPREAD,
    IN_PLANE,
    component_count,
    drop_artefacts,
    flatten_field,
    grow,
    judged_maps,
    normal_tissue,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import FlairInfarctThresholds, OedemaThresholds


def bright_tissue(
    kind: str, given: GridImages, parameters: FlairInfarctThresholds | OedemaThresholds
) -> Evidence:
    """Robust z score of a FLAIR (or any image with dark CSF) after removal of a gentle field.

    Raises
    ------
    NotSegmentable
        If the image is constant over the brain.
    """
    image, brain, voxel_size_mm = given.images[kind], given.brain, given.voxel_size_mm
    median = float(np.median(image[brain]))
    light = smooth_within(image, brain, parameters.smooth_mm, voxel_size_mm)
    tissue = brain & (light > parameters.csf_below_share * median)
    if median <= 0 or tissue.sum() < 0.2 * brain.sum():
        raise NotSegmentable(
            "less than a fifth of the brain mask is brighter than fluid; check the scan's kind "
            "and the brain mask"
        )
    flat, field = flatten_field(image, tissue, voxel_size_mm)
    smooth = smooth_within(flat, tissue, parameters.smooth_mm, voxel_size_mm)
    fault = "the image is constant over the brain; check the file"
    centre, spread, _ = normal_tissue(smooth, tissue, fault, _centre_and_quartiles)
    spread /= CUT_SPREAD
    z = np.where(tissue, (smooth - centre) / spread, 0.0)
    maps, symmetry = judged_maps(z, tissue, smooth, given)
    quality = {**field.quality, "symmetry": symmetry, "normal_spread": spread / centre}
    return Evidence(maps, voxel_size_mm, quality, field.flags)


def _centre_and_quartiles(values: NDArray[Any]) -> tuple[float, float]:
    """Median, and interquartile range / 1.349: the SD of a normal distribution.

    Grey and white matter each make up about half of the brain. The median absolute deviation jumps
    between the noise of one and the contrast of both; the quartiles always hold the contrast.
    """
    low, centre, high = np.percentile(values, [25, 50, 75])
    return float(centre), float(high - low) / 1.349


class FlairInfarct(ThresholdSegmenter[FlairInfarctThresholds]):
    """Infarct on FLAIR: hysteresis on a robust z score, mirrored brightness dropped.

    White-matter lesions and periventricular caps lie on both sides and are dropped as pairs when
    they are small. Where ``images`` has ``chronic`` (a mask of lesions seen on an earlier FLAIR,
    above 0), these are taken out, grown by one voxel in plane for what alignment leaves.
    """

    label = "infarct"
    source = "pipeline:flair"
    disease = "stroke"
    block = "infarct_flair"
    kinds = ("FLAIR",)
    beside = ("mask-chronic",)

    def named(self, visit: VisitScans) -> str:
        """The pipeline's own infarct where the visit has no diffusion."""
        return "pipeline" if visit.first("dwi", "adc") is None else self.source

    def gather(
        self, visit: VisitScans, target: Target, parameters: FlairInfarctThresholds
    ) -> Inputs:
        """The FLAIR, and the supplied chronic lesions as ``chronic``."""
        found = super().gather(visit, target, parameters)
        images = {kind.removeprefix("mask-"): image for kind, image in found.images.items()}
        return replace(found, images=images)

    def measure(self, given: GridImages, parameters: FlairInfarctThresholds) -> Evidence:
        """Z score, its mirrored value, and the chronic lesions where they are given."""
        if "FLAIR" not in given.images:
            raise NotSegmentable("an infarct on FLAIR needs a FLAIR scan")
        found = bright_tissue("FLAIR", given, parameters)
        if "chronic" not in given.images:
            return found
        chronic = ndimage.binary_dilation(given.images["chronic"] > 0.5, IN_PLANE)
        return replace(found, maps={**found.maps, "chronic": chronic})

    def decide(self, evidence: Evidence, parameters: FlairInfarctThresholds) -> Decision:
        """Seed where bright and brighter than the mirror, grow, settle the edge, drop artefacts."""
        maps, z = evidence.maps, evidence.maps["z"]
        tissue = maps["tissue"]
        quality: dict[str, Any] = {}
        asymmetric = (z - maps["mirrored"] > parameters.asymmetry_z) | (
            np.abs(maps["side_mm"]) < parameters.midline_mm
        )
        seed = tissue & (z > parameters.z_seed) & asymmetric
        seed = remove_small_components(seed, parameters.min_seed_ml, evidence.voxel_ml)
        mask = grow(seed, tissue & (z > parameters.z_grow))
        mask &= within_edge(mask, z, parameters.edge_share)
        mask |= ndimage.binary_closing(mask, IN_PLANE) & tissue
        if "chronic" in maps:
            before = mask.sum()
            mask &= ~maps["chronic"]
            quality["chronic_subtracted_ml"] = float(before - mask.sum()) * evidence.voxel_ml
        mask, quality["clusters_dropped"] = drop_artefacts(mask, evidence, parameters)
        quality["clusters"] = component_count(mask)
        return Decision(mask, quality)
