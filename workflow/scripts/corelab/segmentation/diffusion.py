"""Infarct on diffusion-weighted images: strict ADC threshold, and seed and grow.

ADC in mm2/s throughout (normal brain about 0.8e-3, cerebrospinal fluid about 3e-3).
"""

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
    centre_and_spread,
    depth_mm,
    drop_artefacts,
    find_midplane,
    flatten_field,
    grow,
    keep_clusters,
    smooth_within,
    within_edge,
)

#: Beyond these an ADC is noise or fluid flow, not tissue.
ADC_POSSIBLE_MM2_S = (0.0, 4.0e-3)


def apparent_diffusion(b0: Image, dwi: Image, b_value_s_mm2: float = 1000.0) -> Image:
    """ADC = ln(b0 / DWI) / b in mm2/s; 0 where either signal is not positive.

    Method: Stejskal and Tanner, J Chem Phys 1965;42:288.

    Examples
    --------
    >>> float(apparent_diffusion(np.array([1000.0]), np.array([1000 * np.exp(-0.8)]))[0].round(9))
    0.0008
    """
    if b_value_s_mm2 <= 0:
        raise NotSegmentable(
            f"the b value is {b_value_s_mm2} s/mm2: an ADC needs a positive one; "
            "give b_value in the scans sheet"
        )
    there = (b0 > 0) & (dwi > 0)
    ratio = np.divide(b0, dwi, out=np.ones(b0.shape, np.float64), where=there)
    return np.where(there, np.log(ratio) / b_value_s_mm2, 0.0)


class DiffusionInfarct(ThresholdSegmenter):
    """Infarct by seed and grow on ADC and DWI; where one is missing on the other alone (flagged).

    Seeds are voxels with ADC below ``adc_seed_below_mm2_s`` and DWI more than ``dwi_z_seed``
    spreads above normal tissue; they grow to ``adc_grow_below_mm2_s`` and ``dwi_z_grow``. ADC is
    smoothed in plane over tissue only, because raw ADC is mostly noise there (Dice 0.5 against
    0.95), and CSF must not enter the edge. Clusters that look like the distortion at the skull
    base (mirrored, shallow, without low ADC at their core) are dropped.

    Method: two-step thresholds after Woo et al., Korean J Radiol 2019;20:1275; 620e-6 mm2/s after
    Purushotham et al., J Cereb Blood Flow Metab 2015;35:2007.
    """

    label = "infarct"
    source = "pipeline"

    def measure(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: tuple[float, float, float],
        parameters: Mapping[str, Any],
    ) -> Evidence:
        """ADC and DWI z score, smoothed over tissue, with the mirrored z score."""
        dwi = images.get("dwi")
        adc = images.get("adc")
        if dwi is None and adc is None:
            raise NotSegmentable("an infarct on diffusion needs a dwi or an adc scan")
        flags: dict[str, str] = {}
        sigma = float(parameters["smooth_mm"])
        if adc is None:
            assert dwi is not None
            flags["no_adc"] = (
                "no ADC and no b0 to compute it: DWI alone shows T2 shine-through as infarct"
            )
            signal_floor = 0.3 * float(np.median(dwi[brain]))
            tissue = brain & (dwi > signal_floor)
            smooth_adc = np.zeros(brain.shape)
        else:
            possible = (adc > ADC_POSSIBLE_MM2_S[0]) & (adc < ADC_POSSIBLE_MM2_S[1])
            lightly = smooth_within(
                np.where(possible, adc, 0), brain & possible, sigma, voxel_size_mm
            )
            csf = lightly > float(parameters["csf_adc_above_mm2_s"])
            tissue = brain & ~csf & (lightly > 0)
            if dwi is not None:
                floor = float(parameters["signal_floor"]) * float(np.median(dwi[tissue]))
                tissue &= smooth_within(dwi, brain, sigma, voxel_size_mm) > floor
            smooth_adc = smooth_within(adc, tissue & possible, sigma, voxel_size_mm)
            # A hole of impossible values inside tissue takes its neighbours' value.
            smooth_adc = np.where(tissue & (smooth_adc == 0), lightly, smooth_adc)
        if tissue.sum() < 0.2 * brain.sum():
            raise NotSegmentable(
                f"only {100 * tissue.sum() / brain.sum():.0f} % of the brain mask looks like "
                "tissue on diffusion; check the ADC's unit and the brain mask"
            )
        return self._evidence(dwi, adc, smooth_adc, tissue, brain, voxel_size_mm, parameters, flags)

    def _evidence(
        self,
        dwi: Image | None,
        adc: Image | None,
        smooth_adc: Image,
        tissue: Mask,
        brain: Mask,
        voxel_size_mm: tuple[float, float, float],
        parameters: Mapping[str, Any],
        flags: dict[str, str],
    ) -> Evidence:
        low, high = parameters["normal_adc_mm2_s"]
        quality: dict[str, Any] = {}
        normal = tissue if adc is None else tissue & (smooth_adc > low) & (smooth_adc < high)
        if adc is not None:
            quality["adc_normal_mm2_s"] = float(np.median(smooth_adc[tissue]))
            if not 0.55e-3 <= quality["adc_normal_mm2_s"] <= 1.05e-3:
                flags["adc_calibration"] = (
                    f"the median ADC of brain tissue is {quality['adc_normal_mm2_s']:.3g} mm2/s "
                    "(0.55e-3 to 1.05e-3 expected): a fixed threshold is not safe"
                )
        if dwi is None:
            flags["no_dwi"] = "no DWI: the infarct rests on the ADC alone, below its seed's limit"
            z = np.where(tissue, 9.0, 0.0)
            mirrored = np.zeros(brain.shape)
            side = np.full(brain.shape, 99.0)
        else:
            if normal.sum() < 0.1 * tissue.sum():
                normal = tissue
            flat, field = flatten_field(dwi, normal, voxel_size_mm)
            quality.update(field.quality)
            flags.update(field.flags)
            smooth = smooth_within(flat, tissue, float(parameters["smooth_mm"]), voxel_size_mm)
            centre, spread = centre_and_spread(smooth[normal])
            if spread <= 0:
                raise NotSegmentable("the DWI is constant over the brain; check the file")
            z = np.where(tissue, (smooth - centre) / spread, 0.0)
            quality["dwi_normal"], quality["dwi_normal_spread"] = centre, spread
            plane = find_midplane(smooth, brain, voxel_size_mm)
            mirrored, side = brightest_mirrored(z, tissue, plane, voxel_size_mm)
            quality["symmetry"] = plane.symmetry
        maps: dict[str, NDArray[Any]] = {
            "adc": smooth_adc,
            "z": z,
            "mirrored": mirrored,
            "side_mm": side,
            "tissue": tissue,
            "depth_mm": depth_mm(brain, voxel_size_mm),
        }
        if adc is None:
            del maps["adc"]
        return Evidence(maps, voxel_size_mm, quality, flags)

    def decide(
        self, evidence: Evidence, parameters: Mapping[str, Any]
    ) -> tuple[Mask, dict[str, Any], dict[str, str]]:
        """Seed, grow, fill, drop small and mirrored clusters."""
        maps, z = evidence.maps, evidence.maps["z"]
        tissue = maps["tissue"]
        # Without a signal that shows where the lesion ends, growth would run into normal tissue.
        alone = "no_dwi" in evidence.flags
        if "adc" in maps:
            adc = maps["adc"]
            limit = "adc_seed_below_mm2_s" if alone else "adc_grow_below_mm2_s"
            low = tissue & (adc < parameters[limit])
            seed = low & (adc < parameters["adc_seed_below_mm2_s"]) & (z > parameters["dwi_z_seed"])
            # An embolus of a few voxels has its ADC averaged with normal tissue, its signal not.
            seed |= low & (z > parameters["z_conspicuous"])
            allowed = low & (z > parameters["dwi_z_grow"])
        else:
            seed = tissue & (z > parameters["dwi_only_z_seed"])
            allowed = tissue & (z > parameters["dwi_only_z_grow"])
        seed = keep_clusters(seed, float(parameters["min_seed_ml"]), evidence.voxel_ml)
        mask = grow(seed, allowed)
        share = float(parameters["edge_share"])
        edge = within_edge(mask, z, share)
        if "adc" in maps:
            edge &= within_edge(mask, evidence.quality["adc_normal_mm2_s"] - maps["adc"], share)
        mask &= seed | edge
        if "adc" in maps and not alone:
            mask |= _mixed_with_fluid(mask, evidence, parameters)
        # Noise leaves pinholes in a lesion; CSF in a sulcus stays out.
        holes = ndimage.binary_closing(mask, ndimage.generate_binary_structure(3, 1)[:, :, 1:2])
        mask |= holes & tissue & (z > 0)
        mask, dropped = drop_artefacts(mask, evidence, parameters)
        quality = {"clusters_dropped": dropped}
        return mask, quality, {}


def _mixed_with_fluid(mask: Mask, evidence: Evidence, parameters: Mapping[str, Any]) -> Mask:
    """Voxels beside the infarct whose ADC a little fluid has raised, while the DWI is half-way.

    A fifth of CSF in a voxel brings an infarct's ADC back to normal; its signal hardly changes.
    """
    ring = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 1)[:, :, 1:2])
    ring &= evidence.maps["tissue"] & (evidence.maps["adc"] < parameters["mixed_adc_below_mm2_s"])
    ring &= evidence.maps["z"] > parameters["z_peak"]
    return within_edge(mask | ring, evidence.maps["z"], float(parameters["mixed_share"]))


class StrictDiffusionInfarct(DiffusionInfarct):
    """Every voxel of tissue with ADC strictly below 620e-6 mm2/s, as perfusion software has it.

    The variant to compare with other software: no growth, no edge. The DWI only has to be no
    darker than normal tissue there (``dwi_z_above``), which leaves out noise and fibre tracts.
    """

    source = "pipeline:adc620"

    def decide(
        self, evidence: Evidence, parameters: Mapping[str, Any]
    ) -> tuple[Mask, dict[str, Any], dict[str, str]]:
        """Threshold, drop small clusters."""
        if "adc" not in evidence.maps:
            raise NotSegmentable("the strict ADC threshold needs an adc scan, or b0 and dwi")
        adc = evidence.maps["adc"]
        mask = evidence.maps["tissue"] & (adc < parameters["adc_below_mm2_s"])
        if "no_dwi" not in evidence.flags:
            mask &= evidence.maps["z"] > parameters["dwi_z_above"]
        mask = keep_clusters(mask, float(parameters["min_cluster_ml"]), evidence.voxel_ml)
        return mask, {}, {}
