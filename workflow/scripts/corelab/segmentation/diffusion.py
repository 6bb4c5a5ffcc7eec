"""Infarct on diffusion-weighted images: strict ADC threshold, and seed and grow.

ADC in mm2/s throughout (normal brain about 0.8e-3, cerebrospinal fluid about 3e-3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import smoothed
from corelab.imaging.values import ADC_TISSUE_MM2_S, histogram_mode
from corelab.segmentation.scans import Image, Inputs, Mask, NotSegmentable, Target, VisitScans
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    GridImages,
    ThresholdSegmenter,
)
from corelab.segmentation.tissue import (
    IN_PLANE,
    ball,
    brightest_mirrored,
    centre_and_spread,
    depth_mm,
    enlarged,
    find_midplane,
    flatten_field,
    grow,
    label_components,
    normal_tissue,
    remove_small_components,
    smooth_within,
    within_edge,
)
from corelab.settings.segmentation import InfarctThresholds, StrictInfarctThresholds

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


#: Least volume of a core of low ADC that no rule against artefacts drops; less where it is clearer.
_CORE_ML = 0.3
#: Least median of ADC deficit plus DWI excess of such a cluster, in spreads of normal tissue.
_CORE_RESTRICTION = 5.5
#: Below it a cluster of low ADC is the usual variation of white matter, at any volume.
_FAINT_RESTRICTION = 4.5
#: Least product of a core's volume and what it has above the variation of normal tissue, mL.
_CORE_EXCESS_ML = 0.2
#: Least median DWI excess of such a cluster.
_CORE_Z = 2.0
#: Susceptibility moves signal within this distance of the edge of the brain.
_PILE_UP_MM = 6.0
#: Least DWI z score of an infarct, however low its ADC.
_Z_LEAST = 0.5


@dataclass(frozen=True)
class Calibration:
    """Calibration of an ADC map by the brain itself.

    Parameters
    ----------
    tissue_mm2_s
        Mode of the ADC of tissue that is neither bright on DWI (infarct) nor dark (fluid).
    scale
        Factor by which the map is divided before thresholds are applied; 1 within the tolerance.
    """

    tissue_mm2_s: float
    scale: float

    @property
    def off(self) -> bool:
        """Whether the map's scale differs from that of the published thresholds."""
        return self.scale != 1.0


def calibrate(
    adc: Image, dwi: Image | None, brain: Mask, *, tolerance: float = 0.12
) -> Calibration:
    """Scale of an ADC map from the mode over tissue of usual DWI signal.

    The whole histogram is used, not the part below a threshold. The window on the DWI (0.6 to
    1.3 times its own mode) leaves out fluid and infarct, so that an infarct that fills a hemisphere
    and wide ventricles do not move the mode.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> adc = rng.normal(0.8e-3, 0.08e-3, (20, 20, 20)); dwi = rng.normal(100.0, 5.0, adc.shape)
    >>> adc[:6] *= 0.55; dwi[:6] *= 2.0
    >>> brain = np.ones(adc.shape, bool)
    >>> calibrate(adc, dwi, brain).scale, round(calibrate(1.5 * adc, dwi, brain).scale, 1)
    (1.0, 1.5)
    """
    use = brain & (adc > 0)
    if dwi is not None:
        bright = dwi[brain & (dwi > 0.5 * np.median(dwi[brain]))]
        usual = histogram_mode(bright) if bright.size else 0.0
        usable = use & (dwi > 0.6 * usual) & (dwi < 1.3 * usual)
        use = usable if usable.sum() >= 0.1 * brain.sum() else use
    if not use.any():
        return Calibration(0.0, 1.0)
    tissue = histogram_mode(adc[use])
    scale = tissue / ADC_TISSUE_MM2_S
    return Calibration(tissue, 1.0 if abs(scale - 1.0) <= tolerance else scale)


def local_contrast(
    image: Image, tissue: Mask, spread: float, reach_mm: float, voxel_size_mm: Sequence[float]
) -> Image:
    """Deviation of each voxel from the tissue around it, in local spreads.

    A lacune or an embolus stands out from its surroundings even where these are brighter than
    the rest of the brain (cortex, cerebellum); a broad pile-up of signal does not. Bright voxels
    are clipped before averaging, so that a lesion does not raise its own background: a detector of
    constant false alarm rate.

    Parameters
    ----------
    image
        Flattened, lightly smoothed DWI.
    tissue
        Voxels to average over.
    spread
        Spread of normal tissue over the whole brain; half of it is the least local spread.
    reach_mm
        SD of the Gaussian neighbourhood.
    voxel_size_mm
        Voxel size.

    Examples
    --------
    >>> image = np.random.default_rng(1).normal(100.0, 5.0, (30, 30, 10)); image[15, 15, 5] = 160.0
    >>> z = local_contrast(image, np.ones(image.shape, bool), 5.0, 8.0, (2.0, 2.0, 5.0))
    >>> bool(z[15, 15, 5] > 8.0), bool(z[5, 5, 5] < 4.0)
    (True, True)
    """
    sigma = [reach_mm / size for size in voxel_size_mm]
    weight = smoothed(tissue.astype(np.float64), sigma, truncate=3.0)
    weight = np.maximum(weight, 1e-6)

    def mean(values: Image) -> Image:
        return smoothed(np.where(tissue, values, 0.0), sigma, truncate=3.0) / weight

    centre = float(np.median(image[tissue]))
    clipped = np.clip(image, centre - 3.0 * spread, centre + 2.0 * spread)
    for _ in range(2):
        around = mean(clipped)
        local = np.sqrt(np.maximum(mean(clipped**2) - around**2, (0.5 * spread) ** 2))
        clipped = np.clip(image, around - 3.0 * local, around + 2.0 * local)
    return np.where(tissue, (image - around) / local, 0.0)


class DiffusionInfarct(ThresholdSegmenter[InfarctThresholds]):
    """Infarct by seed and grow on ADC and DWI; where one is missing on the other alone (flagged).

    The deficit of ADC and the excess of DWI, each in spreads of normal tissue, add up to
    ``restriction``. Seeds of the first kind have an ADC below ``adc_seed_below_mm2_s`` and more
    than ``restriction_seed``; they grow to ``adc_grow_below_mm2_s`` and ``restriction_grow``, so
    that a clearly low ADC makes good a weak DWI and no growth enters tissue of normal ADC.
    Clusters of the second kind are bright on DWI against the tissue around them (``dwi_local_z``)
    without a high ADC: emboli and lacunes whose ADC is averaged with their surroundings, and
    infarcts whose ADC has become normal again (flagged above 1 mL). The two kinds are judged apart.

    Where the mode of tissue's ADC is more than 12 % off, the map is divided by what it is off
    before thresholds are applied, and flagged: an ADC from b0 and DWI of different gains is off by
    a common factor. Small clusters near the skull base, at the edge of the ventricles and at the
    mirrored place are dropped, unless they have a core of clearly low ADC away from the edge of
    the brain: where the signal piles up, the ADC is about normal or the cluster thin.

    Method: two-step thresholds after Woo et al., Korean J Radiol 2019;20:1275; 620e-6 mm2/s after
    Purushotham et al., J Cereb Blood Flow Metab 2015;35:2007.
    """

    label = "infarct"
    source = "pipeline"
    disease = "stroke"
    block = "infarct"
    kinds = ("dwi", "adc")
    beside = ("adc",)

    def gather(self, visit: VisitScans, target: Target, parameters: InfarctThresholds) -> Inputs:
        """DWI and ADC; where there is no ADC, it is computed from b0 and DWI."""
        found = super().gather(visit, target, parameters)
        if "adc" in found.images or "dwi" not in found.images:
            return found
        with_b0 = visit.together(target, ("b0",))
        if "b0" not in with_b0.images:
            return replace(found, notes=(*found.notes, *with_b0.notes))
        b_value = float(target.scan.metadata.get("b_value") or parameters.b_value_s_mm2)
        dwi = with_b0.images["dwi"]
        adc = apparent_diffusion(with_b0.images["b0"], dwi, b_value)
        note = f"ADC computed from b0 and DWI with b = {b_value:g} s/mm2"
        notes = (*found.notes, *with_b0.notes, note)
        return Inputs({"dwi": dwi, "adc": adc}, with_b0.scans, notes)

    def measure(self, given: GridImages, parameters: InfarctThresholds) -> Evidence:
        """ADC and DWI z scores (global and local), smoothed over tissue, the mirrored z score."""
        brain, voxel_size_mm = given.brain, given.voxel_size_mm
        dwi, adc = given.images.get("dwi"), given.images.get("adc")
        if dwi is None and adc is None:
            raise NotSegmentable("an infarct on diffusion needs a dwi or an adc scan")
        flags: dict[str, str] = {}
        quality: dict[str, Any] = {}
        maps: dict[str, NDArray[Any]] = {}
        if adc is None:
            assert dwi is not None
            flags["no_adc"] = (
                "no ADC and no b0 to compute it: DWI alone cannot distinguish an acute infarct "
                "from T2 shine-through of an older lesion"
            )
            tissue = brain & (dwi > parameters.signal_floor * float(np.median(dwi[brain])))
        else:
            tissue = self._adc_maps(adc, given, parameters, maps, quality, flags)
        if tissue.sum() < 0.2 * brain.sum():
            raise NotSegmentable(
                f"only {100 * tissue.sum() / brain.sum():.0f} % of the brain mask looks like "
                "tissue on diffusion; check the ADC's unit and the brain mask"
            )
        maps["tissue"], maps["depth_mm"] = tissue, depth_mm(brain, voxel_size_mm)
        maps.setdefault("ventricle", np.zeros(brain.shape, bool))
        maps["skull_base"] = _skull_base(brain, parameters.skull_base_mm, voxel_size_mm)
        if dwi is None:
            flags["no_dwi"] = "no DWI: the infarct rests on the ADC alone, below its seed's limit"
            maps["z"] = maps["local_z"] = np.where(tissue, 9.0, 0.0)
            maps["mirrored"], maps["side_mm"] = np.zeros(brain.shape), np.full(brain.shape, 99.0)
        else:
            self._dwi_maps(dwi, given, parameters, maps, quality, flags)
        return Evidence(maps, voxel_size_mm, quality, flags)

    def _adc_maps(
        self,
        adc: Image,
        given: GridImages,
        parameters: InfarctThresholds,
        maps: dict[str, NDArray[Any]],
        quality: dict[str, Any],
        flags: dict[str, str],
    ) -> Mask:
        """Calibrated ADC over tissue, and the tissue: what is neither fluid nor without signal."""
        brain, voxel_size_mm = given.brain, given.voxel_size_mm
        dwi, sigma = given.images.get("dwi"), parameters.smooth_mm
        found = calibrate(adc, dwi, brain, tolerance=parameters.adc_tolerance)
        quality["adc_normal_mm2_s"], quality["adc_scale"] = found.tissue_mm2_s, found.scale
        if found.off:
            flags["adc_calibration"] = (
                f"the ADC of normal tissue is {found.tissue_mm2_s:.3g} mm2/s "
                f"({ADC_TISSUE_MM2_S:.2g} expected): the map is off by a factor of "
                f"{found.scale:.2f}; thresholds were applied relative to normal tissue"
            )
        low, high = ADC_POSSIBLE_MM2_S
        adc = adc / found.scale
        possible = (adc > low) & (adc < high)
        lightly = smooth_within(np.where(possible, adc, 0), brain & possible, sigma, voxel_size_mm)
        tissue = brain & (lightly <= parameters.csf_adc_above_mm2_s) & (lightly > 0)
        fluid = brain & (lightly > parameters.csf_adc_above_mm2_s)
        maps["ventricle"] = _beside_ventricles(fluid, depth_mm(brain, voxel_size_mm), voxel_size_mm)
        if dwi is not None and tissue.any():
            floor = parameters.signal_floor * float(np.median(dwi[tissue]))
            tissue &= smooth_within(dwi, brain, sigma, voxel_size_mm) > floor
        smooth = smooth_within(adc, tissue & possible, sigma, voxel_size_mm)
        # A hole of impossible values inside tissue takes its neighbours' value.
        maps["adc"] = np.where(tissue & (smooth == 0), lightly, smooth)
        maps["adc_given"] = maps["adc"] if not found.off else maps["adc"] * found.scale
        return tissue

    def _dwi_maps(
        self,
        dwi: Image,
        given: GridImages,
        parameters: InfarctThresholds,
        maps: dict[str, NDArray[Any]],
        quality: dict[str, Any],
        flags: dict[str, str],
    ) -> None:
        """Z scores against normal tissue and against the tissue around, and the mirrored one."""
        voxel_size_mm = given.voxel_size_mm
        tissue = normal = maps["tissue"]
        if "adc" in maps:
            low, high = parameters.normal_adc_mm2_s
            normal = tissue & (maps["adc"] > low) & (maps["adc"] < high)
            normal = normal if normal.sum() >= 0.1 * tissue.sum() else tissue
        flat, field = flatten_field(dwi, normal, voxel_size_mm, soft=True)
        quality.update(field.quality)
        flags.update(field.flags)
        smooth = smooth_within(flat, tissue, parameters.smooth_mm, voxel_size_mm)
        # An infarct is not normal, at any ADC.
        fault = "the DWI is constant over the brain; check the file"
        centre, spread, near = normal_tissue(smooth, normal, fault)
        maps["z"] = np.where(tissue, (smooth - centre) / spread, 0.0)
        if "adc" in maps:
            # A deficit of ADC and an excess of DWI, each in spreads of normal tissue, add up.
            usual, adc_spread = centre_and_spread(maps["adc"][near])
            deficit = (usual - maps["adc"]) / max(adc_spread, 1e-9)
            maps["restriction"] = np.where(tissue, maps["z"] + deficit, 0.0)
            quality["adc_normal_spread_mm2_s"] = adc_spread
        light = smooth_within(flat, tissue, 0.5 * parameters.smooth_mm, voxel_size_mm)
        reach = parameters.local_reach_mm
        maps["local_z"] = local_contrast(light, tissue, spread, reach, voxel_size_mm)
        quality["dwi_normal"], quality["dwi_normal_spread"] = centre, spread
        plane = find_midplane(smooth, given.brain, voxel_size_mm)
        maps["mirrored"], maps["side_mm"] = brightest_mirrored(
            maps["z"], tissue, plane, voxel_size_mm
        )
        quality["symmetry"] = plane.symmetry

    def decide(self, evidence: Evidence, parameters: InfarctThresholds) -> Decision:
        """Seed, grow, fill, drop artefacts; flag large clusters whose ADC is not low."""
        maps, z = evidence.maps, evidence.maps["z"]
        tissue = maps["tissue"]
        # Without a signal that shows where the lesion ends, growth would run into normal tissue.
        alone = "no_dwi" in evidence.flags
        share = parameters.edge_share
        if "adc" in maps:
            adc = maps["adc"]
            below = parameters.adc_seed_below_mm2_s if alone else parameters.adc_grow_below_mm2_s
            low = tissue & (adc < below)
            # Weak DWI (dark tissue, a field) is made good by a clearly low ADC, and the reverse.
            restriction = maps.get("restriction", 2.0 * z)
            seed = low & (adc < parameters.adc_seed_below_mm2_s)
            seed &= (z > _Z_LEAST) & (restriction > parameters.restriction_seed)
            allowed = low & (z > _Z_LEAST) & (restriction > parameters.restriction_grow)
            bright = tissue & (adc < parameters.bright_adc_below_mm2_s)
        else:
            seed = tissue & (z > parameters.dwi_only_z_seed)
            allowed = tissue & (z > parameters.dwi_only_z_grow)
            bright = tissue
        seed = remove_small_components(seed, parameters.min_seed_ml, evidence.voxel_ml)
        mask = grow(seed, allowed)
        mask &= seed | within_edge(mask, maps.get("restriction", z), share)
        if "adc" in maps and not alone:
            mask |= _mixed_with_fluid(mask, evidence, parameters)
        # Noise leaves pinholes in a lesion; CSF in a sulcus stays out.
        holes = ndimage.binary_closing(mask, IN_PLANE)
        mask |= holes & tissue & (z > 0)
        parts = [mask]
        if not alone:
            # What is bright is judged by itself, so that no lesion hands an artefact through, and
            # none is dropped with one.
            parts.append(_conspicuous(bright, evidence, parameters))
        found = _true_clusters(parts, evidence, parameters)
        if "restriction" in maps and not alone:
            small = found.mask & ~remove_small_components(found.mask, 1.0, evidence.voxel_ml)
            found.mask[_half_lesion(small, allowed, evidence)] = True
        return found


def _half_lesion(small: Mask, allowed: Mask, evidence: Evidence) -> Mask:
    """Voxels beside a small infarct that low ADC and DWI allow and that stand out a little.

    Most voxels of an embolus or lacune are half tissue: half of its height leaves them out.
    """
    ring = ndimage.binary_dilation(small, IN_PLANE) & allowed & (evidence.maps["local_z"] > 1.0)
    return ring & (evidence.maps["ventricle"] == 0)


def _conspicuous(bright: Mask, evidence: Evidence, parameters: InfarctThresholds) -> Mask:
    """Clusters that stand out from the tissue around them on DWI, to half of their height.

    Within a large lesion the tissue around is lesion: there the height above normal tissue counts.
    """
    local, z = evidence.maps["local_z"], evidence.maps["z"]
    seed = bright & (np.minimum(local, 2.0 * z) > parameters.dwi_local_z)
    allowed = (local > parameters.dwi_local_z_grow) | (z > parameters.z_conspicuous)
    seed |= remove_small_components(bright & (z > parameters.z_conspicuous), 1.0, evidence.voxel_ml)
    region = grow(seed, bright & allowed)
    share = parameters.bright_share
    large = remove_small_components(region, 1.0, evidence.voxel_ml)
    return within_edge(region, np.maximum(local, 0.0), share) | within_edge(large, z, share)


def _skull_base(brain: Mask, reach_mm: float, voxel_size_mm: Sequence[float]) -> NDArray[np.uint8]:
    """1 within ``reach_mm`` above the lowest brain voxel of a column, 2 where that is frontal.

    Frontal and temporal lobes rest on bone and air there, and the signal piles up. The brainstem
    is left out. Axes are right, anterior, superior.
    """
    x, y, z = voxel_size_mm
    lowest = np.where(brain.any(2), brain.argmax(2), brain.shape[2])
    above = (np.arange(brain.shape[2])[None, None] - lowest[:, :, None]) * z
    centre = ndimage.center_of_mass(brain)
    lateral = np.abs(np.arange(brain.shape[0]) - centre[0])[:, None, None] * x
    forward = (np.arange(brain.shape[1]) - centre[1])[None, :, None] * y
    base = brain & (above >= 0) & (above < reach_mm)
    frontal = forward > 20.0
    zone = np.where(base & (frontal | (lateral > 20.0)), 1, 0)
    return np.where(base & frontal, 2, zone).astype(np.uint8)


@dataclass(frozen=True)
class _Cluster:
    """Properties of one cluster, in the units of the maps."""

    volume_ml: float
    core_ml: float
    core_depth_mm: float
    restriction: float
    z: float
    z_peak: float
    local_z: float
    mirrored: float
    side_mm: float
    depth_mm: float
    adc: float
    adc_low: float
    at_base: float
    at_frontal_base: float
    at_ventricle: float

    @classmethod
    def of(
        cls,
        inside: Mask,
        maps: Mapping[str, NDArray[Any]],
        evidence: Evidence,
        parameters: InfarctThresholds,
    ) -> _Cluster:
        """Quantiles of the maps over the cluster; without ADC its values are NaN."""

        def quantile(name: str, q: float) -> float:
            return float(np.percentile(maps[name][inside], q)) if name in maps else float("nan")

        core = inside & False
        if "restriction" in maps:
            core = inside & (maps["adc"] < parameters.adc_seed_below_mm2_s)
            core &= maps["restriction"] > parameters.restriction_seed
        return cls(
            volume_ml=float(inside.sum()) * evidence.voxel_ml,
            core_ml=float(core.sum()) * evidence.voxel_ml,
            core_depth_mm=float(np.median(maps["depth_mm"][core])) if core.any() else 0.0,
            restriction=quantile("restriction", 50),
            z=quantile("z", 50),
            z_peak=quantile("z", 100),
            local_z=quantile("local_z", 90),
            mirrored=quantile("mirrored", 50),
            side_mm=abs(quantile("side_mm", 50)),
            depth_mm=quantile("depth_mm", 90),
            adc=quantile("adc", 50),
            adc_low=quantile("adc", 25),
            at_base=float((maps["skull_base"][inside] > 0).mean()),
            at_frontal_base=float((maps["skull_base"][inside] == 2).mean()),
            at_ventricle=float(maps["ventricle"][inside].mean()),
        )


def _artefact(found: _Cluster, parameters: InfarctThresholds) -> str | None:
    """Reason why a cluster is no infarct; None for one that is.

    A signal that piles up is as bright on b0, so its ADC is not low; at the base of the skull only
    a clearly low ADC counts, and at the frontal base no small cluster at all. A large cluster is
    an artefact only where it is faint or, without ADC, at the base of the skull.
    """
    edge = _PILE_UP_MM if found.at_base > 0.5 else parameters.rim_mm
    excess = found.core_ml * (found.restriction - _CORE_RESTRICTION + 0.5)
    clear = found.restriction > _CORE_RESTRICTION and excess >= _CORE_EXCESS_ML
    clear &= found.z >= _CORE_Z
    if clear and found.core_depth_mm >= edge:
        return None
    local = parameters.dwi_local_z
    restricted = found.adc < parameters.adc_seed_below_mm2_s
    # Without a low ADC only the other side distinguishes a lesion from naturally bright tissue.
    asymmetry = parameters.asymmetry_z * (1.0 if restricted else 2.0)
    paired = found.mirrored > found.z - asymmetry
    limit = parameters.artefact_below_ml
    small = found.volume_ml < limit
    at_base = found.at_base > 0.5 and (small or np.isnan(found.adc))
    doubtful = not restricted or found.at_frontal_base > 0.5 or paired
    if at_base and doubtful and found.volume_ml < 2.0 * limit:
        return "skull base"
    if restricted and found.restriction < _FAINT_RESTRICTION and found.volume_ml < 4.0 * limit:
        return "faint"
    if not small:
        # Cerebellum and brainstem are bright and of lower ADC in health, on both sides alike.
        if paired and not restricted and found.z < parameters.z_conspicuous:
            return "mirrored"
        faint = found.z < parameters.z_peak and found.local_z < 0.5 * local
        return "faint" if faint and not restricted and found.volume_ml < 4.0 * limit else None
    conspicuous = max(found.z_peak, found.local_z) > parameters.z_conspicuous
    least_ml = parameters.min_conspicuous_ml if conspicuous else parameters.min_cluster_ml
    if found.volume_ml < least_ml:
        return "small"
    least = (0.6 if restricted else 0.8) * local
    if found.z_peak < 2.5 or (found.local_z < least and found.z < parameters.z_conspicuous):
        return "faint"
    if found.at_ventricle > 0.5 and (found.local_z < local or found.adc_low > ADC_TISSUE_MM2_S):
        return "ventricle"
    if found.depth_mm < parameters.rim_mm and found.local_z < 2.0 * local:
        return "rim"
    # A cluster at the midline is its own mirror image: no artefact by that. Emboli can lie on both
    # sides, but stand out from the tissue around them.
    apart = found.side_mm > parameters.midline_mm
    return "mirrored" if apart and paired and found.local_z < 1.5 * local else None


def _true_clusters(
    masks: Sequence[Mask], evidence: Evidence, parameters: InfarctThresholds
) -> Decision:
    """Clusters that are no artefact; what was dropped, and what is bright without a low ADC."""
    maps = evidence.maps
    alone = "no_dwi" in evidence.flags
    kept = np.zeros(maps["tissue"].shape, bool)
    number = dropped = 0
    normal_adc_ml = base_ml = 0.0
    for mask in masks:
        # Where the ADC shows a lesion it also shows where it ends.
        shown = remove_small_components(kept, _CORE_ML, evidence.voxel_ml) & ("adc" in maps)
        labels, _ = label_components(mask & ~shown)
        for n, where in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[where] == n
            part = {name: values[where] for name, values in maps.items()}
            found = _Cluster.of(inside, part, evidence, parameters)
            if alone:
                artefact = "small" if found.volume_ml < parameters.min_cluster_ml else None
            else:
                artefact = _artefact(found, parameters)
            base_ml += found.volume_ml * (artefact == "skull base")
            number, dropped = number + (artefact is None), dropped + (artefact is not None)
            if artefact is None:
                kept[where] |= inside
                not_low = found.adc_low >= parameters.adc_grow_below_mm2_s
                normal_adc_ml += found.volume_ml * (not_low and found.volume_ml >= 1.0)
    flags = {}
    if normal_adc_ml:
        flags["adc_not_low"] = (
            f"{normal_adc_ml:.1f} mL are bright on DWI without a low ADC (an infarct after about a "
            "week, or T2 shine-through): kept; check them on the images"
        )
    if base_ml >= 0.3:
        flags["skull_base"] = (
            f"{base_ml:.1f} mL of small bright clusters beside the skull base were left out as "
            "distortion; a small infarct there would be missed"
        )
    quality = {
        "clusters": number,
        "clusters_dropped": dropped,
        "adc_not_low_ml": normal_adc_ml,
        "skull_base_dropped_ml": base_ml,
    }
    return Decision(kept, quality, flags)


def _beside_ventricles(fluid: Mask, depth: Image, size: tuple[float, float, float]) -> Mask:
    """Rim of the large bodies of fluid within the brain: two voxels in plane."""
    deep = fluid & (depth > 12.0)
    solid = ndimage.binary_opening(deep, ball(2.5, size))
    body = remove_small_components(grow(solid, deep), 1.0, float(np.prod(size)) / 1000.0)
    return enlarged(body, 2.0 * max(size[:2]) + 0.1, size)


def _mixed_with_fluid(mask: Mask, evidence: Evidence, parameters: InfarctThresholds) -> Mask:
    """Voxels beside the infarct whose ADC a little fluid has raised, while the DWI is half-way.

    A fifth of CSF in a voxel brings an infarct's ADC back to normal; its signal hardly changes.
    """
    ring = ndimage.binary_dilation(mask, IN_PLANE)
    ring &= evidence.maps["tissue"] & (evidence.maps["adc"] < parameters.mixed_adc_below_mm2_s)
    ring &= evidence.maps["z"] > parameters.z_peak
    return within_edge(mask | ring, evidence.maps["z"], parameters.mixed_share)


class StrictDiffusionInfarct(DiffusionInfarct):
    """Every voxel of tissue with ADC strictly below 620e-6 mm2/s, as perfusion software has it.

    The variant to compare with other software: no growth, no edge. The DWI only has to be no
    darker than normal tissue there (``dwi_z_above``), which leaves out noise and fibre tracts.
    """

    source = "pipeline:adc620"
    block = "infarct_strict"

    def decide(self, evidence: Evidence, parameters: InfarctThresholds) -> Decision:
        """Threshold, drop small clusters."""
        assert isinstance(parameters, StrictInfarctThresholds)
        if "adc" not in evidence.maps:
            raise NotSegmentable("the strict ADC threshold needs an adc scan, or b0 and dwi")
        adc = evidence.maps["adc_given"]
        mask = evidence.maps["tissue"] & (adc < parameters.adc_below_mm2_s)
        if "no_dwi" not in evidence.flags:
            mask &= evidence.maps["z"] > parameters.dwi_z_above
        return Decision(remove_small_components(mask, parameters.min_cluster_ml, evidence.voxel_ml))
