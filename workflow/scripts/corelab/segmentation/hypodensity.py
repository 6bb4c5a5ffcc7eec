"""Ischaemic hypodensity on CT, net water uptake, ASPECTS and the share of a territory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.segmentation.haematoma import calibration, in_template, with_coordinates
from corelab.segmentation.midline import median_plane
from corelab.segmentation.scans import Image, Inputs, Mask, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    GridImages,
    Segmentation,
    ThresholdSegmenter,
)
from corelab.segmentation.tissue import (
    IN_PLANE,
    MidPlane,
    centre_and_spread,
    component_count,
    depth_mm,
    enlarged,
    grow,
    inscribed_radius_mm,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import CtInfarctThresholds

#: HU outside these limits are CSF, fat, calcification or blood, not parenchyma.
PARENCHYMA_HU = (20.0, 80.0)


def net_water_uptake_percent(ischaemic_hu: float, normal_hu: float) -> float:
    """Net water uptake = (1 - HU ischaemic / HU normal) x 100 %.

    Method: Broocks et al., Invest Radiol 2018;53:207.

    Raises
    ------
    ValueError
        If normal tissue is not between 20 and 80 HU (it is then no brain tissue).

    Examples
    --------
    >>> round(net_water_uptake_percent(36.0, 40.0), 9)
    10.0
    """
    low, high = PARENCHYMA_HU
    if not low <= normal_hu <= high:
        raise ValueError(
            f"normal tissue has {normal_hu} HU; between {low:.0f} and {high:.0f} HU is brain: "
            "check the calibration and where the reference lies"
        )
    return (1.0 - ischaemic_hu / normal_hu) * 100.0


def water_uptake_of(
    hu: Image, lesion: Mask, plane: MidPlane, voxel_size_mm: Sequence[float]
) -> dict[str, float]:
    """Net water uptake of a lesion against its mirror image, parenchyma only.

    Returns
    -------
    dict
        ``ischaemic_hu``, ``normal_hu`` (means over voxels of 20 to 80 HU) and
        ``net_water_uptake_percent``.

    Raises
    ------
    NotSegmentable
        If lesion or mirror image hold no voxel of parenchyma.

    Examples
    --------
    >>> hu = np.full((20, 10, 4), 40.0); lesion = np.zeros(hu.shape, bool)
    >>> lesion[12:16, 3:7] = True; hu[lesion] = 36.0
    >>> plane = MidPlane((9.5, 5.0, 10.0), (1.0, 0.0, 0.0), 1.0)
    >>> round(water_uptake_of(hu, lesion, plane, (1, 1, 5))["net_water_uptake_percent"], 6)
    10.0
    """
    low, high = PARENCHYMA_HU
    mirror = plane.reflect(lesion.astype(np.float32), voxel_size_mm) > 0.5
    inside = hu[lesion & (hu >= low) & (hu <= high)]
    outside = hu[mirror & ~lesion & (hu >= low) & (hu <= high)]
    if inside.size == 0 or outside.size == 0:
        raise NotSegmentable(
            "the lesion or its mirror image holds no voxel between 20 and 80 HU, so that net "
            "water uptake has no reference"
        )
    ischaemic, normal = float(inside.mean()), float(outside.mean())
    return {
        "ischaemic_hu": ischaemic,
        "normal_hu": normal,
        "net_water_uptake_percent": net_water_uptake_percent(ischaemic, normal),
    }


def aspects(
    lesion: Mask, atlas: NDArray[Any], regions: Mapping[int, str], *, min_share: float = 0.2
) -> tuple[int, dict[str, float]]:
    """ASPECTS = 10 - number of the ten regions hit.

    Parameters
    ----------
    lesion
        Early ischaemic change, on the atlas grid.
    atlas
        Labels; rounded (they are found stored as 1.000015).
    regions
        Label -> name of the ten regions of the hemisphere with the lesion.
    min_share
        A region is hit when more than this share of it is lesion. 0 counts any voxel.

    Returns
    -------
    score, share
        Score 0 to 10 and the share of each region.

    Raises
    ------
    ValueError
        If there are not ten regions, or the atlas lacks one.

    Examples
    --------
    >>> atlas = np.repeat(np.arange(1, 11), 10); lesion = np.zeros(100, bool); lesion[:13] = True
    >>> score, share = aspects(lesion, atlas, {n: f"M{n}" for n in range(1, 11)})
    >>> score, share["M1"], share["M2"]
    (8, 1.0, 0.3)
    """
    if len(regions) != 10:
        raise ValueError(f"ASPECTS has ten regions of one hemisphere, {len(regions)} were given")
    share = {name: region_share(lesion, atlas, [label]) for label, name in regions.items()}
    return 10 - sum(value > min_share for value in share.values()), share


def region_share(lesion: Mask, atlas: NDArray[Any], labels: Sequence[int]) -> float:
    """Share (0 to 1) of the united regions that is lesion, such as more than 1/3 of the MCA.

    Raises
    ------
    ValueError
        If grids differ or the atlas has none of the labels.

    Examples
    --------
    >>> region_share(np.array([True, False, True, False]), np.array([1, 1, 2, 3]), [1, 2])
    0.6666666666666666
    """
    if lesion.shape != atlas.shape:
        raise ValueError(f"the lesion has the shape {lesion.shape}, the atlas {atlas.shape}")
    region = np.isin(np.rint(atlas).astype(np.int64), list(labels))
    if not region.any():
        raise ValueError(f"the atlas has no voxel with a label of {sorted(labels)}")
    return float((lesion & region).sum() / region.sum())


def refuse_thick(slice_mm: float, most_mm: float) -> None:
    """Refuse slices above a thickness (mm).

    Raises
    ------
    NotSegmentable
        Where ``slice_mm``, rounded to 0.1 mm, is above ``most_mm``.

    Examples
    --------
    >>> refuse_thick(5.04, 5.0)
    """
    if round(slice_mm, 1) > most_mm:
        raise NotSegmentable(
            f"slices of {slice_mm:.1f} mm are thicker than {most_mm:g} mm: partial volume of sulci "
            "and ventricles exceeds the few HU of ischaemia, so that no volume is given; use DWI, "
            "or slices reconstructed thinner"
        )


def old_cavity(
    light: Image,
    brain: Mask,
    plane: MidPlane,
    calibrated: Mapping[str, float],
    voxel_size_mm: tuple[float, float, float],
    parameters: CtInfarctThresholds,
) -> Mask:
    """Fluid without a counterpart on the other side: old infarcts, not ventricles or sulci.

    Parameters
    ----------
    light
        HU, lightly smoothed within the brain.
    brain, plane
        Brain mask and median plane.
    calibrated
        ``csf_hu`` and ``tissue_hu`` (:func:`corelab.segmentation.haematoma.calibration`).
    voxel_size_mm
        Edges of a voxel.
    parameters
        ``cavity_share`` (from the density of CSF, 0, towards tissue, 1), ``cavity_radius_mm``,
        ``cavity_ml``.

    Returns
    -------
    numpy.ndarray
        Boolean mask.
    """
    csf, tissue = calibrated["csf_hu"], calibrated["tissue_hu"]
    if not np.isfinite(csf) or csf >= tissue:
        return np.zeros(brain.shape, bool)
    fluid = brain & (light < csf + parameters.cavity_share * (tissue - csf))
    radius = parameters.cavity_radius_mm
    near = enlarged(fluid, radius, voxel_size_mm)
    alone = fluid & ~(plane.reflect(near.astype(np.float32), voxel_size_mm) > 0.5)
    thick = alone & (inscribed_radius_mm(alone, voxel_size_mm) >= radius)
    voxel_ml = float(np.prod(voxel_size_mm)) / 1000.0
    return remove_small_components(grow(thick, alone), parameters.cavity_ml, voxel_ml)


class CtHypodensity(ThresholdSegmenter[CtInfarctThresholds]):
    """Infarct on non-contrast CT: darker than the other side over a large, smooth region.

    Early ischaemic change is 1 to 4 HU, less than the noise of a voxel, so tissue is averaged over
    several millimetres and compared with its mirror image; only regions of ``min_cluster_ml`` and
    more count. Always flagged: published overlap of such methods with DWI is 0.47 to 0.48 (Dice).

    The sides are compared across the median plane of the template fitted to the head
    (:func:`corelab.segmentation.midline.median_plane`). Slices above ``slice_above_mm`` and heads
    whose sides mirror each other worse than ``symmetry_below`` are refused: tilt and partial
    volume then exceed what is looked for. Fluid on one side alone is an old cavity: it and its
    rim (``cavity_rim_mm``) are named in ``old_cavity_ml`` and are no part of the volume.
    """

    label = "infarct"
    source = "pipeline:ncct"
    disease = "stroke"
    block = "infarct_ncct"
    kinds = ("ncct",)
    in_plane_mm = 1.0

    def gather(self, visit: VisitScans, target: Target, parameters: CtInfarctThresholds) -> Inputs:
        """As :func:`in_template`, of slices that were acquired thin: resampling makes none thin."""
        for name in ("slice_thickness_mm", "largest_slice_distance_mm"):
            size_mm = target.scan.metadata.get(name)
            if isinstance(size_mm, (int, float)):
                refuse_thick(float(size_mm), parameters.slice_above_mm)
        return in_template(visit, target)

    def ready(self, given: GridImages, parameters: CtInfarctThresholds) -> GridImages:
        """Thin slices, with MNI coordinates; without, the head is fitted here."""
        refuse_thick(given.voxel_size_mm[2], parameters.slice_above_mm)
        return with_coordinates(given)

    def checked(self, found: Segmentation, parameters: CtInfarctThresholds) -> Segmentation:
        """Refuse a head of which each side is darker than the other somewhere."""
        left, right = found.quality["left_ml"], found.quality["right_ml"]
        if min(left, right) > parameters.both_sides_share * max(left, right):
            raise NotSegmentable(
                f"each side is darker than the other somewhere ({left:.0f} mL left, {right:.0f} mL "
                "right): anatomy, tilt or beam hardening beside or instead of ischaemia; use DWI"
            )
        return found

    def measure(self, given: GridImages, parameters: CtInfarctThresholds) -> Evidence:
        """Difference to the mirrored side of smoothed parenchyma, in HU."""
        images, brain, voxel_size_mm = given.images, given.brain, given.voxel_size_mm
        if "ncct" not in images:
            raise NotSegmentable("a hypodensity on CT needs an ncct scan")
        hu = images["ncct"].astype(np.float64)
        quality: dict[str, Any] = calibration(hu, brain, voxel_size_mm)
        light = smooth_within(hu, brain & (hu > -20) & (hu < 100), 1.0, voxel_size_mm)
        low = quality["tissue_hu"] - parameters.parenchyma_below_tissue_hu
        tissue = brain & (light > low) & (light < quality["tissue_hu"] + 15.0)
        smooth = smooth_within(hu, tissue, parameters.smooth_mm, voxel_size_mm)
        plane = median_plane(np.clip(light, 0, 80), brain, voxel_size_mm, images.get("mni_x"))
        if plane.symmetry < parameters.symmetry_below:
            raise NotSegmentable(
                f"the sides of the head mirror each other with a correlation of "
                f"{plane.symmetry:.3f}, below {parameters.symmetry_below}: differences of a few "
                "HU between them prove nothing; use DWI, or a scan without tilt and motion"
            )
        cavity = old_cavity(light, brain, plane, quality, voxel_size_mm, parameters)
        around = enlarged(cavity, parameters.cavity_rim_mm, voxel_size_mm)
        # The other side, over what is tissue there: sulci and ventricles do not meet exactly.
        weight = plane.reflect(tissue.astype(np.float32), voxel_size_mm)
        other = plane.reflect(np.where(tissue, smooth, 0.0), voxel_size_mm)
        known = tissue & (weight > 0.5) & ~around
        difference = np.where(known, smooth - other / np.maximum(weight, 0.5), 0.0)
        centre, spread = centre_and_spread(difference[known]) if known.any() else (0.0, 0.0)
        quality.update(symmetry=plane.symmetry, mirror_spread_hu=spread)
        maps = {
            "difference": difference - centre,
            "tissue": known,
            "light": light,
            "depth_mm": depth_mm(brain, voxel_size_mm),
            "side_mm": plane.side(hu.shape, voxel_size_mm),
            "mirror_of": np.array([*plane.point_mm, *plane.normal, plane.symmetry]),
        }
        flags = {
            "low_contrast": "hypodensity on CT is a few HU; use it beside DWI, not instead of it"
        }
        quality["old_cavity_ml"] = float(cavity.sum()) * float(np.prod(voxel_size_mm)) / 1000.0
        if cavity.any():
            flags["old_cavity"] = (
                f"{quality['old_cavity_ml']:.1f} mL of fluid on one side alone (old infarct, cyst "
                "or wide ventricle) and the tissue beside it are no part of the volume"
            )
        return Evidence(maps, voxel_size_mm, quality, flags)

    def decide(self, evidence: Evidence, parameters: CtInfarctThresholds) -> Decision:
        """Seed and grow on the difference, keep large regions off the rim and the midline."""
        maps = evidence.maps
        inner = maps["tissue"] & (maps["depth_mm"] > parameters.rim_mm)
        inner &= np.abs(maps["side_mm"]) > parameters.midline_mm
        limit = max(
            parameters.difference_seed_hu,
            parameters.difference_seed_z * evidence.quality["mirror_spread_hu"],
        )
        seed = inner & (maps["difference"] < -limit)
        seed = remove_small_components(seed, parameters.min_seed_ml, evidence.voxel_ml)
        share = parameters.edge_share
        mask = grow(seed, maps["tissue"] & (maps["difference"] < -share * limit))
        # The edge lies half-way to the region's own contrast, which may be far beyond the limit.
        mask = within_edge(mask, -maps["difference"], share)
        mask = ndimage.binary_opening(mask, IN_PLANE, iterations=2)
        mask = remove_small_components(mask, parameters.min_cluster_ml, evidence.voxel_ml)
        quality: dict[str, Any] = {
            "clusters": component_count(mask),
            "left_ml": float((mask & (maps["side_mm"] < 0)).sum()) * evidence.voxel_ml,
            "right_ml": float((mask & (maps["side_mm"] >= 0)).sum()) * evidence.voxel_ml,
        }
        if mask.any():
            x, y, z, nx, ny, nz, symmetry = maps["mirror_of"]
            midplane = MidPlane((x, y, z), (nx, ny, nz), symmetry)
            quality.update(water_uptake_of(maps["light"], mask, midplane, evidence.voxel_size_mm))
        return Decision(mask, quality)
