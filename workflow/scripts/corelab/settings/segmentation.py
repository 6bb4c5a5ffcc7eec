"""Blocks ``brain_extraction`` and ``segmentation`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from corelab.settings.base import Absent, Number, Registered, Settings, Texts, pattern

#: Threshold -> the limit that shrinks the mask, and the one that lets it grow.
Limits = Mapping[str, tuple[Number, Number]]


class BrainExtractionSettings(Settings):
    """How brain masks are made where none is supplied."""

    method: Annotated[str, Registered("brain_extractors")] = "classical"
    """classical (built in), or mindgrab: the network of weights, which the user supplies
    (docs/models.md)
    """
    weights: str | None = None
    """The network's model.json (TensorFlow.js layers model; its weights file lies beside it);
    absolute, from the working directory, or from data_dir
    """


def _limited(schema: dict[str, Any]) -> None:
    """Limits are of thresholds of the same block."""
    rules = schema["properties"]
    names = [name for name, rule in rules.items() if rule.get("type") == "number"]
    rules["limits"]["propertyNames"] = {"enum": names}


class Thresholds(Settings):
    """Thresholds of one segmentation, units in their names, and limits of some of them."""

    model_config = ConfigDict(json_schema_extra=_limited)
    limits: Limits = {}
    """Lower and upper limits of thresholds, for the uncertainty of the volume"""

    @model_validator(mode="before")
    @classmethod
    def _enclosing(cls, given: Any) -> Any:
        """Drop default limits that do not enclose the threshold that is given."""
        if not isinstance(given, Mapping) or "limits" in given:
            return given
        kept = {
            name: pair
            for name, pair in cls.model_fields["limits"].default.items()
            if not isinstance(value := given.get(name), (int, float))
            or min(pair) <= value <= max(pair)
        }
        return {**given, "limits": kept}

    def at_limit(self, side: int) -> Self | None:
        """The same with every limited threshold at its first (0) or second (1) limit.

        The first limit of a threshold shrinks the mask, the second lets it grow. None without
        limits.

        Examples
        --------
        >>> GreHaematomaThresholds().at_limit(0).loss_grow_above
        0.5
        >>> GreHaematomaThresholds(limits={}).at_limit(0) is None
        True
        """
        if not self.limits:
            return None
        return self.model_copy(update={name: pair[side] for name, pair in self.limits.items()})


class ClusterThresholds(Thresholds):
    """Thresholds that also say which small clusters are artefacts."""

    artefact_below_ml: Number
    """Clusters from this volume on are no artefacts"""
    asymmetry_z: Number
    """A cluster as bright as its mirrored place, less this, is an artefact"""
    midline_mm: Number
    """Nearer to the midline a cluster is its own mirror image"""
    rim_mm: Number
    """Rim of the brain in which a cluster is an artefact"""
    min_cluster_ml: Number
    """Least volume of a cluster"""
    min_conspicuous_ml: Number
    """The same for a conspicuous cluster"""
    z_conspicuous: Number
    """Peak z score from which a cluster is conspicuous"""
    z_peak: Number
    """Least peak z score of a cluster"""


class InfarctThresholds(ClusterThresholds):
    """Infarct on DWI and ADC, seed and grow."""

    artefact_below_ml: Number = 5.0
    asymmetry_z: Number = 1.0
    midline_mm: Number = 6.0
    rim_mm: Number = 3.0
    b_value_s_mm2: Number = 1000.0
    smooth_mm: Number = 1.2
    csf_adc_above_mm2_s: Number = 0.0012
    signal_floor: Number = 0.4
    normal_adc_mm2_s: tuple[Number, Number] = (0.00065, 0.001)
    adc_seed_below_mm2_s: Number = 0.00062
    adc_grow_below_mm2_s: Number = 0.00072
    restriction_seed: Number = 5.0
    restriction_grow: Number = 4.0
    adc_tolerance: Number = 0.12
    """Beyond this deviation of tissue's ADC from 0.8e-3 mm2/s, thresholds are relative to tissue"""
    local_reach_mm: Number = 8.0
    dwi_local_z: Number = 6.0
    dwi_local_z_grow: Number = 3.0
    bright_share: Number = 0.5
    bright_adc_below_mm2_s: Number = 0.001
    skull_base_mm: Number = 16.0
    dwi_only_z_seed: Number = 3.5
    dwi_only_z_grow: Number = 2.2
    edge_share: Number = 0.45
    mixed_adc_below_mm2_s: Number = 0.001
    mixed_share: Number = 0.6
    min_seed_ml: Number = 0.02
    min_cluster_ml: Number = 0.1
    min_conspicuous_ml: Number = 0.03
    z_conspicuous: Number = 5.0
    z_peak: Number = 3.5
    limits: Limits = {
        "adc_seed_below_mm2_s": (0.0006, 0.00064),
        "adc_grow_below_mm2_s": (0.00067, 0.00077),
        "restriction_grow": (4.5, 3.0),
        "edge_share": (0.6, 0.2),
        "mixed_adc_below_mm2_s": (0.00085, 0.0013),
        "mixed_share": (0.75, 0.3),
        "bright_share": (0.65, 0.25),
    }


class StrictInfarctThresholds(InfarctThresholds):
    """Infarct by the strict ADC threshold (pipeline:adc620)."""

    adc_below_mm2_s: Number = 0.00062
    dwi_z_above: Number = 0.5
    limits: Limits = {"adc_below_mm2_s": (0.0006, 0.00064)}


class FlairInfarctThresholds(ClusterThresholds):
    """Infarct on FLAIR."""

    artefact_below_ml: Number = 5.0
    asymmetry_z: Number = 1.0
    midline_mm: Number = 6.0
    rim_mm: Number = 3.0
    smooth_mm: Number = 1.0
    csf_below_share: Number = 0.55
    z_seed: Number = 3.0
    z_grow: Number = 2.0
    edge_share: Number = 0.45
    min_seed_ml: Number = 0.05
    min_cluster_ml: Number = 0.2
    min_conspicuous_ml: Number = 0.1
    z_conspicuous: Number = 6.0
    z_peak: Number = 3.0
    limits: Limits = {"z_grow": (2.3, 1.8), "edge_share": (0.55, 0.35)}


class CtInfarctThresholds(Thresholds):
    """Hypodensity on non-contrast CT."""

    smooth_mm: Number = 5.0
    parenchyma_below_tissue_hu: Number = 14.0
    difference_seed_hu: Number = 4.0
    difference_seed_z: Number = 3.0
    edge_share: Number = 0.5
    rim_mm: Number = 4.0
    midline_mm: Number = 6.0
    min_seed_ml: Number = 2.0
    min_cluster_ml: Number = 10.0
    slice_above_mm: Number = 5.0
    """Thicker slices give no volume"""
    symmetry_below: Number = 0.97
    """A head less symmetric than this gives no volume"""
    both_sides_share: Number = 0.3
    """No volume where the lesser side holds more than this share of the other"""
    cavity_share: Number = 0.35
    """Fluid is below this share of the way from CSF to tissue"""
    cavity_radius_mm: Number = 4.0
    cavity_ml: Number = 1.0
    cavity_rim_mm: Number = 8.0
    limits: Limits = {"difference_seed_hu": (4.5, 3.5), "edge_share": (0.6, 0.4)}


class HaematomaThresholds(Thresholds):
    """Haematoma on CT."""

    artefact_below_ml: Number = 5.0
    asymmetry_hu: Number = 8.0
    midline_mm: Number = 6.0
    rim_mm: Number = 3.0
    """Without a fit to MNI"""
    smooth_mm: Number = 1.0
    hu_seed_above: Number = 50.0
    hu_grow_above: Number = 44.0
    hu_below: Number = 100.0
    edge_share: Number = 0.45
    sheet_radius_mm: Number = 2.5
    bone_above_hu: Number = 150.0
    beyond_mask_mm: Number = 1.0
    """Blood may lie this far outside the brain mask, up to the bone"""
    calcification_ml: Number = 0.01
    calcification_rim_mm: Number = 2.0
    faint_hu_above: Number = 44.0
    faint_excess_hu: Number = 11.0
    faint_asymmetry_hu: Number = 5.0
    faint_radius_mm: Number = 4.0
    faint_flag_hu: Number = 55.0
    tissue_expected_hu: Number = 33.0
    csf_expected_hu: Number = 10.0
    calibration_flag_hu: Number = 5.0
    background_flag_hu: Number = 6.0
    min_cluster_ml: Number = 0.3
    prior_tolerance_mm: Number = 6.0
    """How far sinuses and skull base may lie from their place in MNI"""
    sheet_tolerance_mm: Number = 4.0
    """The same for falx and tentorium"""
    sheet_excess_hu: Number = 27.0
    """Dura above brain tissue"""
    core_radius_mm: Number = 1.5
    """Half the least thickness of the part that is blood for certain"""
    core_ml: Number = 0.3
    """Its least volume"""
    core_reach_mm: Number = 4.0
    """How far blood reaches from it into places that are dense without blood"""
    core_extent_mm: Number = 5.0
    """A core that reaches less far inwards from bone is its blurred edge"""
    calcifying_below_ml: Number = 1.0
    """Smaller clusters in choroid plexus, pineal gland and pallidum are no evidence"""
    limits: Limits = {"edge_share": (0.55, 0.35)}


class GreHaematomaThresholds(Thresholds):
    """Haemorrhage on gradient echo."""

    artefact_below_ml: Number = 5.0
    asymmetry_loss: Number = 0.15
    midline_mm: Number = 6.0
    rim_mm: Number = 3.0
    smooth_mm: Number = 1.0
    loss_seed_above: Number = 0.6
    loss_grow_above: Number = 0.45
    sheet_radius_mm: Number = 3.0
    min_cluster_ml: Number = 0.5
    limits: Limits = {"loss_seed_above": (0.65, 0.55), "loss_grow_above": (0.5, 0.4)}


class EnhancingThresholds(ClusterThresholds):
    """Enhancing tumour."""

    artefact_below_ml: Number = 10.0
    asymmetry_z: Number = 1.0
    midline_mm: Number = 6.0
    rim_mm: Number = 4.0
    smooth_mm: Number = 0.7
    z_seed: Number = 3.0
    z_grow: Number = 2.0
    z_seed_t1c_only: Number = 2.5
    z_grow_t1c_only: Number = 1.2
    edge_share: Number = 0.4
    vessel_radius_mm: Number = 2.0
    beside_oedema_mm: Number = 3.0
    """Distance from the FLAIR lesion within which tumour may begin"""
    beyond_oedema_mm: Number = 8.0
    """Distance from the FLAIR lesion to which bright tumour thicker than a vessel may reach"""
    rim_in_lesion_mm: Number = 3.0
    """Rim of the brain left out where the FLAIR lesion reaches it (elsewhere rim_mm)"""
    settle_mm: Number = 0.8
    """Smoothing of the outline"""
    surround_percentile: Number = 90.0
    """Tumour is brighter than this percentile of the tissue around the FLAIR lesion"""
    min_inside_ml: Number = 1.0
    """Clusters from this size that lie mostly within the FLAIR lesion are not taken for artefacts
    """
    flag_bright_above_ml: Number = 10.0
    """FLAIR lesion from which an empty result is flagged"""
    min_seed_ml: Number = 0.05
    min_cluster_ml: Number = 0.2
    min_conspicuous_ml: Number = 0.2
    z_conspicuous: Number = 99.0
    z_peak: Number = 3.0
    limits: Limits = {
        "edge_share": (0.55, 0.2),
        "surround_percentile": (97.0, 75.0),
        "z_grow_t1c_only": (1.5, 0.9),
    }


class OedemaThresholds(ClusterThresholds):
    """Oedema."""

    artefact_below_ml: Number = 10.0
    asymmetry_z: Number = 1.0
    midline_mm: Number = 6.0
    rim_mm: Number = 3.0
    smooth_mm: Number = 1.5
    csf_below_share: Number = 0.55
    t2_fluid_z: Number = 8.0
    z_seed: Number = 2.2
    z_grow: Number = 1.3
    edge_share: Number = 0.42
    opening_mm: Number = 2.0
    min_seed_ml: Number = 0.5
    min_cluster_ml: Number = 1.0
    min_conspicuous_ml: Number = 1.0
    min_share_of_largest: Number = 0.1
    z_conspicuous: Number = 99.0
    z_peak: Number = 3.0
    both_sides_share: Number = 0.3
    """Share of the lesion that is bright on the other side as well, above which it is flagged"""
    limits: Limits = {"z_grow": (1.6, 1.1), "edge_share": (0.54, 0.3)}


#: Labels that a program of others can give.
Label = Literal[
    "infarct", "haematoma", "enhancing", "oedema", "necrosis", "nonenhancing", "tumourcore",
    "whole-tumour", "lesion",
]  # fmt: skip


class ExternalProgram(Settings):
    """A program or network whose masks stand beside those of the pipeline."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "if": {"properties": {"kind": {"const": "meshnet"}}, "required": ["kind"]},
                    "then": {
                        "required": ["weights"],
                        "properties": {"inputs": {"maxProperties": 1}},
                    },
                },
                {
                    "if": {"properties": {"kind": {"const": "command"}}},
                    "then": {"required": ["command", "output"]},
                },
            ]
        }
    )
    kind: Annotated[str, Registered("segmenters")] = "command"
    """command (a program), meshnet (a TensorFlow.js layers model, run here; docs/models.md), or the
    segmenter of another package
    """
    weights: str | Absent = None
    """Of kind meshnet: its model.json"""
    scaling: Literal["quantile", "minmax"] | Absent = None
    """Of kind meshnet: image to 0..1 by the 2nd and 98th percentile or by minimum and maximum;
    default: as known for the weights, else quantile
    """
    id: Annotated[str, pattern(r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
    """Name of the source, pipeline:<id>"""
    label: Label
    """What it outlines"""
    inputs: Annotated[
        Mapping[str, Annotated[str, pattern(r"^[^/.][^:]*[.]nii([.]gz)?$")]], Field(min_length=1)
    ]
    """Kind of scan -> file name under {folder} (kind meshnet: one kind of scan, the name is not
    used); the grid is that of the first
    """
    command: Annotated[Texts, Field(min_length=1)] | Absent = None
    """Words of the command; {folder} is the folder of inputs and output, brain.nii.gz in it the
    brain mask
    """
    output: Annotated[str, pattern(r"^[^/.][^:]*[.]nii([.]gz)?$")] | Absent = None
    """Label image that it writes, under {folder}"""
    label_values: tuple[int, ...] | Absent = None
    """Labels that count; default: all above 0"""
    files: Texts = ()
    """Container and weights, whose SHA-256 is recorded; a change reruns"""
    image_digest: str | None = None
    """Digest of a container that is no file"""
    version: str | None = None
    """Version as its maker calls it"""


class Consensus(Settings):
    """Masks of several readers of one label become the source consensus:<method>."""

    method: Literal["none", "majority", "staple"] = "none"
    """How readers' masks become one"""
    readers: Texts = ()
    """Who votes; all readers if empty"""


class SegmentationSettings(Settings):
    """Thresholds of the segmentation, units in their names."""

    infarct: InfarctThresholds = InfarctThresholds()
    infarct_strict: StrictInfarctThresholds = StrictInfarctThresholds()
    infarct_flair: FlairInfarctThresholds = FlairInfarctThresholds()
    infarct_ncct: CtInfarctThresholds = CtInfarctThresholds()
    haematoma: HaematomaThresholds = HaematomaThresholds()
    haematoma_gre: GreHaematomaThresholds = GreHaematomaThresholds()
    enhancing: EnhancingThresholds = EnhancingThresholds()
    oedema: OedemaThresholds = OedemaThresholds()
    external: tuple[ExternalProgram, ...] = ()
    """Programs and networks of others (a container, nnU-Net, DeepISLES, a MeshNet) whose masks
    stand beside the pipeline's own as pipeline:<id>; none by default, nothing is downloaded
    """
    consensus: Consensus = Consensus()
