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
    """classical, learned (the network that is part of Corelab), or mindgrab (the network of
    weights, which the user supplies); docs/models.md
    """
    weights: str | None = None
    """Of mindgrab: its model.json (TensorFlow.js layers model; its weights file lies beside it);
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
    midline_mm: Number = 6.0
    """Nearer to the midline a cluster is its own mirror image, mm"""
    rim_mm: Number = 3.0
    """Rim of the brain in which a cluster is an artefact, mm"""
    smooth_mm: Number
    """SD of the Gaussian that smooths the image within the brain, mm"""

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
        """
        if not self.limits:
            return None
        return self.model_copy(update={name: pair[side] for name, pair in self.limits.items()})


class ClusterThresholds(Thresholds):
    """Thresholds that also say which small clusters are artefacts."""

    artefact_below_ml: Number = 5.0
    """Clusters from this volume on are no artefacts, mL"""
    asymmetry_z: Number = 1.0
    """A cluster as bright as its mirrored place, less this, is an artefact; z score"""
    min_cluster_ml: Number
    """Least volume of a cluster, mL"""
    min_conspicuous_ml: Number
    """Least volume of a conspicuous cluster (z_conspicuous), mL"""
    z_conspicuous: Number
    """Peak z score from which a cluster is conspicuous"""
    z_peak: Number
    """Least peak z score of a cluster"""
    edge_share: Number = 0.45
    """The edge lies where a cluster falls to this share of its upper quartile: about half-way from
    normal tissue to the lesion's core
    """
    min_seed_ml: Number
    """Least volume of a seed from which a cluster grows, mL"""


class InfarctThresholds(ClusterThresholds):
    """Infarct on DWI and ADC, seed and grow.

    Two-step thresholds after Woo et al. 2019.
    """

    b_value_s_mm2: Number = 1000.0
    """b value of the DWI where its header has none, to compute an ADC from b0 and DWI; s/mm2"""
    smooth_mm: Number = 1.2
    csf_adc_above_mm2_s: Number = 0.0012
    """Smoothed ADC above which a voxel is fluid, not tissue; mm2/s (normal brain 0.0008, CSF 0.003)
    """
    signal_floor: Number = 0.4
    """Tissue is brighter on DWI than this share of the brain's median"""
    normal_adc_mm2_s: tuple[Number, Number] = (0.00065, 0.001)
    """ADC of the normal tissue that the z scores refer to: from, to; mm2/s"""
    adc_seed_below_mm2_s: Number = 0.00062
    """A seed of the infarct has a lower ADC; mm2/s (Purushotham et al. 2015)"""
    adc_grow_below_mm2_s: Number = 0.00072
    """The infarct grows from its seeds to this ADC; mm2/s"""
    restriction_seed: Number = 5.0
    """Least sum of ADC deficit and DWI excess of a seed, in spreads (SD) of normal tissue"""
    restriction_grow: Number = 4.0
    """The same sum to which the infarct grows"""
    adc_tolerance: Number = 0.12
    """Beyond this deviation of tissue's ADC from 0.8e-3 mm2/s, thresholds are relative to tissue"""
    local_reach_mm: Number = 8.0
    """SD of the Gaussian neighbourhood to which the local z score of DWI compares a voxel, mm"""
    dwi_local_z: Number = 6.0
    """Local z score from which a voxel is the seed of a bright cluster (embolus, lacune)"""
    dwi_local_z_grow: Number = 3.0
    """Local z score to which a bright cluster grows"""
    bright_share: Number = 0.5
    """The edge of a bright cluster lies at this share of its upper quartile of local z scores"""
    bright_adc_below_mm2_s: Number = 0.001
    """A bright cluster has a lower ADC (1.25 times that of normal tissue): older lesions are above;
    mm2/s
    """
    skull_base_mm: Number = 16.0
    """Height above the lowest brain voxel of a column that counts as skull base, where the signal
    piles up; mm
    """
    dwi_only_z_seed: Number = 3.5
    """Least DWI z score of a seed where there is no ADC"""
    dwi_only_z_grow: Number = 2.2
    """DWI z score to which the infarct grows where there is no ADC"""
    mixed_adc_below_mm2_s: Number = 0.001
    """A voxel beside the infarct whose ADC a little fluid has raised has at most this ADC; mm2/s"""
    mixed_share: Number = 0.6
    """Least DWI z score of such a voxel, as a share of the cluster's upper quartile"""
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
    """Infarct by the strict ADC threshold (pipeline:adc620).

    Without growth, as perfusion software has it.
    """

    adc_below_mm2_s: Number = 0.00062
    """Every voxel of tissue below this ADC counts; mm2/s (Purushotham et al. 2015)"""
    dwi_z_above: Number = 0.5
    """Least DWI z score of such a voxel, which leaves out noise and fibre tracts"""
    limits: Limits = {"adc_below_mm2_s": (0.0006, 0.00064)}


class FlairInfarctThresholds(ClusterThresholds):
    """Infarct on FLAIR."""

    smooth_mm: Number = 1.0
    csf_below_share: Number = 0.55
    """Darker than this share of the brain's median is fluid, not tissue"""
    z_seed: Number = 3.0
    """Least z score of a seed"""
    z_grow: Number = 2.0
    """z score to which the infarct grows from its seeds"""
    min_seed_ml: Number = 0.05
    min_cluster_ml: Number = 0.2
    min_conspicuous_ml: Number = 0.1
    z_conspicuous: Number = 6.0
    z_peak: Number = 3.0
    limits: Limits = {"z_grow": (2.3, 1.8), "edge_share": (0.55, 0.35)}


class CtInfarctThresholds(Thresholds):
    """Hypodensity on non-contrast CT."""

    smooth_mm: Number = 5.0
    """SD of the Gaussian that averages parenchyma before the sides are compared: early ischaemia
    is 1 to 4 HU, less than the noise of a voxel; mm
    """
    parenchyma_below_tissue_hu: Number = 14.0
    """Parenchyma is at most this much below the median of brain tissue; HU"""
    difference_seed_hu: Number = 4.0
    """A seed is at least this much darker than the mirrored place; HU"""
    difference_seed_z: Number = 3.0
    """A seed is at least this many spreads (SD) of the difference of the sides darker"""
    edge_share: Number = 0.5
    """The region grows to this share of the seed's threshold, and its edge lies at this share of
    its upper quartile
    """
    rim_mm: Number = 4.0
    """No seed nearer to the edge of the brain than this, mm"""
    midline_mm: Number = 6.0
    """No seed nearer to the median plane than this, mm"""
    min_seed_ml: Number = 2.0
    """Least volume of a seed from which a region grows, mL"""
    min_cluster_ml: Number = 10.0
    """Least volume of a region, mL"""
    slice_above_mm: Number = 5.0
    """Thicker slices give no volume, mm"""
    symmetry_below: Number = 0.97
    """A head less symmetric than this gives no volume (correlation with its mirror image)"""
    both_sides_share: Number = 0.3
    """No volume where the lesser side holds more than this share of the other"""
    cavity_share: Number = 0.35
    """Fluid is below this share of the way from CSF to tissue"""
    cavity_radius_mm: Number = 4.0
    """Least radius of an old cavity in plane, and reach within which fluid of the other side is its
    counterpart; mm
    """
    cavity_ml: Number = 1.0
    """Least volume of an old cavity, mL"""
    cavity_rim_mm: Number = 8.0
    """Tissue this near to an old cavity is left out of the comparison, mm"""
    limits: Limits = {"difference_seed_hu": (4.5, 3.5), "edge_share": (0.6, 0.4)}


class HaematomaThresholds(Thresholds):
    """Haematoma on CT.

    Modified thresholding after Bhanu Prakash et al. 2012.
    """

    artefact_below_ml: Number = 5.0
    """A core as dense as its mirrored place is an artefact below this volume, mL"""
    asymmetry_hu: Number = 8.0
    """A core as dense as its mirrored place, less this, is an artefact; HU"""
    rim_mm: Number = 3.0
    """Rim of the brain in which a cluster is an artefact where the head has no fit to MNI, mm"""
    smooth_mm: Number = 1.0
    hu_seed_above: Number = 50.0
    """Least density of a seed of blood, HU"""
    hu_grow_above: Number = 44.0
    """Density to which blood grows from its seeds, HU"""
    hu_below: Number = 100.0
    """Blood is less dense; denser is calcification or bone, HU"""
    edge_share: Number = 0.45
    """The edge lies where a cluster falls to this share of its upper quartile above tissue"""
    sheet_radius_mm: Number = 2.5
    """What is thinner than twice this everywhere is a sheet (falx, tentorium) or a vessel, mm"""
    bone_above_hu: Number = 150.0
    """Bone is denser, HU"""
    beyond_mask_mm: Number = 1.0
    """Blood may lie this far outside the brain mask, up to the bone; mm"""
    calcification_ml: Number = 0.01
    """Least volume of a calcification (denser than hu_below, apart from the skull), mL"""
    calcification_rim_mm: Number = 2.0
    """Blurred rim of a calcification that is left out with it, mm"""
    faint_hu_above: Number = 44.0
    """Least density of a faint lump: blood in anaemia or after days, HU"""
    faint_excess_hu: Number = 11.0
    """Least density of a faint lump above brain tissue, HU"""
    faint_asymmetry_hu: Number = 5.0
    """Least density of a faint lump above its mirrored place, HU"""
    faint_radius_mm: Number = 4.0
    """Least radius of a faint lump in plane, mm"""
    faint_flag_hu: Number = 55.0
    """Blood of a lower median density is flagged blood_near_50_hu, HU"""
    tissue_expected_hu: Number = 33.0
    """Median density of brain tissue on a calibrated scanner, HU"""
    csf_expected_hu: Number = 10.0
    """Density of CSF in the ventricles on a calibrated scanner, partial volume included; HU"""
    calibration_flag_hu: Number = 5.0
    """Brain tissue farther from its expected density is corrected and flagged (CSF: flagged from
    twice this on); HU
    """
    background_flag_hu: Number = 6.0
    """A background that varies more over the brain is flagged beam_hardening (5-95 % range), HU"""
    min_cluster_ml: Number = 0.3
    """Least volume of a cluster, mL"""
    prior_tolerance_mm: Number = 6.0
    """How far sinuses and skull base may lie from their place in MNI (an affine fit is within 5),
    mm
    """
    sheet_tolerance_mm: Number = 4.0
    """How far falx and tentorium may lie from their place in MNI, mm"""
    sheet_excess_hu: Number = 27.0
    """Dura is at most this much denser than brain tissue, HU"""
    core_radius_mm: Number = 1.5
    """Half the least thickness of the part that is blood for certain (the core), mm"""
    core_ml: Number = 0.3
    """Least volume of the core, mL"""
    core_reach_mm: Number = 4.0
    """How far blood reaches from the core into places that are dense without blood, mm"""
    core_extent_mm: Number = 5.0
    """A core that reaches less far inwards from bone is its blurred edge, mm"""
    calcifying_below_ml: Number = 1.0
    """Smaller clusters in choroid plexus, pineal gland and pallidum are no evidence, mL"""
    limits: Limits = {"edge_share": (0.55, 0.35)}


class GreHaematomaThresholds(Thresholds):
    """Haemorrhage on gradient echo."""

    artefact_below_ml: Number = 5.0
    """Clusters from this volume on are no artefacts, mL"""
    asymmetry_loss: Number = 0.15
    """A cluster whose mirrored place has lost as much signal, less this, is an artefact; share of
    normal tissue's signal
    """
    rim_mm: Number = 3.0
    """Rim of the brain without blood; within twice this a small cluster is an artefact, mm"""
    smooth_mm: Number = 1.0
    loss_seed_above: Number = 0.6
    """Least loss of signal of a seed, as a share of normal tissue's signal"""
    loss_grow_above: Number = 0.45
    """Loss of signal to which blood grows from its seeds, the same share"""
    sheet_radius_mm: Number = 3.0
    """What is thinner than twice this everywhere is a vein or sheet, mm"""
    min_cluster_ml: Number = 0.5
    """Least volume of a cluster; smaller ones are microbleeds (Greenberg et al. 2009), mL"""
    limits: Limits = {"loss_seed_above": (0.65, 0.55), "loss_grow_above": (0.5, 0.4)}


class EnhancingThresholds(ClusterThresholds):
    """Enhancing tumour.

    T1 subtraction after Ellingson et al. 2014.
    """

    artefact_below_ml: Number = 10.0
    rim_mm: Number = 4.0
    """Rim of the brain without tumour (dura and sinuses are bright there), mm"""
    smooth_mm: Number = 0.7
    z_seed: Number = 3.0
    """Least z score of a seed on T1c less T1w"""
    z_grow: Number = 2.0
    """z score to which tumour grows on T1c less T1w"""
    z_seed_t1c_only: Number = 2.5
    """Least z score of a seed where there is no T1w"""
    z_grow_t1c_only: Number = 1.2
    """z score to which tumour grows where there is no T1w"""
    edge_share: Number = 0.4
    """The edge lies at this share of the way from the tissue around to the cluster's upper quartile
    """
    vessel_radius_mm: Number = 2.0
    """What is thinner than twice this everywhere is a vessel, mm"""
    beside_oedema_mm: Number = 3.0
    """Distance from the FLAIR lesion within which tumour may begin, mm"""
    beyond_oedema_mm: Number = 8.0
    """Distance from the FLAIR lesion to which bright tumour thicker than a vessel may reach, mm"""
    rim_in_lesion_mm: Number = 3.0
    """Rim of the brain left out where the FLAIR lesion reaches it (elsewhere rim_mm), mm"""
    settle_mm: Number = 0.8
    """SD of the Gaussian that smooths the outline in plane, mm"""
    surround_percentile: Number = 90.0
    """Tumour is brighter than this percentile of the tissue around the FLAIR lesion"""
    min_inside_ml: Number = 1.0
    """Clusters from this volume on that lie mostly within the FLAIR lesion are no artefacts, mL"""
    flag_bright_above_ml: Number = 10.0
    """FLAIR lesion from which an empty result is flagged, mL"""
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
    smooth_mm: Number = 1.5
    csf_below_share: Number = 0.55
    """Darker than this share of the brain's median is fluid, not tissue"""
    t2_fluid_z: Number = 8.0
    """On T2w, where there is no FLAIR, a brighter voxel is fluid; z score"""
    z_seed: Number = 2.2
    """Least z score of a seed"""
    z_grow: Number = 1.3
    """z score to which oedema grows from its seeds"""
    edge_share: Number = 0.42
    opening_mm: Number = 2.0
    """What is thinner than twice this is cortex beside the lesion and does not lead it on, mm"""
    min_seed_ml: Number = 0.5
    min_cluster_ml: Number = 1.0
    min_conspicuous_ml: Number = 1.0
    min_share_of_largest: Number = 0.1
    """Least volume of a cluster as a share of the largest"""
    z_conspicuous: Number = 99.0
    z_peak: Number = 3.0
    """Least peak z score of a cluster, and z score of a thick seed that mirrors itself"""
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
                    "if": {"properties": {"kind": {"const": "learned"}}, "required": ["kind"]},
                    "then": {
                        "properties": {
                            "label": {"const": "infarct"},
                            "inputs": {
                                "required": ["dwi"],
                                "propertyNames": {"enum": ["dwi", "adc", "b0"]},
                            },
                        }
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
    """command (a program), meshnet (a TensorFlow.js layers model, run here), learned (the network
    for infarcts that is part of Corelab), or the segmenter of another package; docs/models.md
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
    """Kind of scan -> file name under {folder} (of kind meshnet one kind of scan, of kind learned
    dwi, dwi and adc, or dwi and b0; the names are not used); the grid is that of the first
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
    """Thresholds of the segmentation, units in their names.

    Where no publication is named, a value was chosen on the cases that docs/real_data.md marks
    "developed on" and on simulated heads.
    """

    infarct: InfarctThresholds = InfarctThresholds.model_construct()
    infarct_strict: StrictInfarctThresholds = StrictInfarctThresholds.model_construct()
    infarct_flair: FlairInfarctThresholds = FlairInfarctThresholds.model_construct()
    infarct_ncct: CtInfarctThresholds = CtInfarctThresholds.model_construct()
    haematoma: HaematomaThresholds = HaematomaThresholds.model_construct()
    haematoma_gre: GreHaematomaThresholds = GreHaematomaThresholds.model_construct()
    enhancing: EnhancingThresholds = EnhancingThresholds.model_construct()
    oedema: OedemaThresholds = OedemaThresholds.model_construct()
    external: tuple[ExternalProgram, ...] = ()
    """Programs and networks of others (a container, nnU-Net, DeepISLES, a MeshNet) whose masks
    stand beside the pipeline's own as pipeline:<id>; none by default, nothing is downloaded
    """
    consensus: Consensus = Consensus.model_construct()
