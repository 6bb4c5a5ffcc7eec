"""Infarct on FLAIR at follow-up: brighter than normal tissue and than the other side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.segmentation.segmenter import (
    Evidence,
    Image,
    Mask,
    NotSegmentable,
    ThresholdSegmenter,
)
from corelab.segmentation.tissue import (
    brightest_mirrored,
    component_count,
    depth_mm,
    drop_artefacts,
    find_midplane,
    flatten_field,
    grow,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import FlairInfarctThresholds, OedemaThresholds


def bright_tissue(
    image: Image,
    brain: Mask,
    voxel_size_mm: tuple[float, float, float],
    parameters: FlairInfarctThresholds | OedemaThresholds,
) -> Evidence:
    """Robust z score of a FLAIR (or any image with dark CSF) after removal of a gentle field.

    Raises
    ------
    NotSegmentable
        If the image is constant over the brain.
    """
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
    centre, spread = _centre_and_quartiles(smooth[tissue])
    # A large lesion shifts and widens the distribution: once more without what stands out.
    near = tissue & (np.abs(smooth - centre) < 2.5 * spread)
    if spread <= 0 or not near.any():
        raise NotSegmentable("the image is constant over the brain; check the file")
    centre, spread = _centre_and_quartiles(smooth[near])
    spread /= 0.93  # the spread of a normal distribution cut at 2.5 SD
    z = np.where(tissue, (smooth - centre) / spread, 0.0)
    plane = find_midplane(smooth, brain, voxel_size_mm)
    mirrored, side = brightest_mirrored(z, tissue, plane, voxel_size_mm)
    return Evidence(
        {
            "z": z,
            "mirrored": mirrored,
            "side_mm": side,
            "tissue": tissue,
            "depth_mm": depth_mm(brain, voxel_size_mm),
        },
        voxel_size_mm,
        {**field.quality, "symmetry": plane.symmetry, "normal_spread": spread / centre},
        field.flags,
    )


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

    def measure(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: tuple[float, float, float],
        parameters: FlairInfarctThresholds,
    ) -> Evidence:
        """Z score, its mirrored value, and the chronic lesions where they are given."""
        if "FLAIR" not in images:
            raise NotSegmentable("an infarct on FLAIR needs a FLAIR scan")
        found = bright_tissue(images["FLAIR"], brain, voxel_size_mm, parameters)
        if "chronic" not in images:
            return found
        plane = ndimage.generate_binary_structure(3, 1)[:, :, 1:2]
        chronic = ndimage.binary_dilation(images["chronic"] > 0.5, plane)
        return Evidence(
            {**found.maps, "chronic": chronic}, voxel_size_mm, found.quality, found.flags
        )

    def decide(
        self, evidence: Evidence, parameters: FlairInfarctThresholds
    ) -> tuple[Mask, dict[str, Any], dict[str, str]]:
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
        plane = ndimage.generate_binary_structure(3, 1)[:, :, 1:2]
        mask |= ndimage.binary_closing(mask, plane) & tissue
        if "chronic" in maps:
            before = mask.sum()
            mask &= ~maps["chronic"]
            quality["chronic_subtracted_ml"] = float(before - mask.sum()) * evidence.voxel_ml
        mask, quality["clusters_dropped"] = drop_artefacts(mask, evidence, parameters)
        quality["clusters"] = component_count(mask)
        return mask, quality, {}
