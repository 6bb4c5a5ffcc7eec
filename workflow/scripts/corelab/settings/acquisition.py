"""Blocks ``acquisition``, ``phantom_qa`` and ``dicom`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict

from corelab.settings.base import (
    Absent,
    NotNegative,
    Number,
    Positive,
    Settings,
    Text,
    Texts,
    one_of_keys,
    pattern,
)
from corelab.terms.kinds import KINDS

#: What a limit can be put on, with its meaning.
QUANTITIES = {
    "voxel_size_mm": "largest voxel edge",
    "in_plane_voxel_mm": "larger of the two voxel edges within a slice",
    "slice_thickness_mm": "slice thickness (sidecar, else distance between slices)",
    "slice_gap_mm": "distance between slices less their thickness (negative: overlap)",
    "slices": "number of slices",
    "coverage_mm": "number of slices times their distance",
    "field_of_view_mm": "smaller in-plane extent",
    "matrix": "smaller in-plane number of voxels",
    "frames": "number of frames",
    "frame_interval_s": "longest time between two frames",
    "duration_s": "time from the first frame to the last, and one more interval",
    "echo_time_s": "echo time",
    "repetition_time_s": "repetition time",
    "flip_angle_deg": "flip angle",
    "field_strength_t": "magnetic field strength",
    "tube_voltage_kv": "tube voltage",
    "b_value": "diffusion weighting in s/mm2 (the highest)",
    "inversion_time_s": "inversion time",
    "scan_duration_s": "time that the scan took",
    "brain_cut_percent": "brain area on an outermost slice, percent of the largest slice's",
    "snr": "median of the brain over the noise SD",
    "noise_sd": "SD of the noise within the brain, unit of the image (HU for CT)",
    "ghosting_percent": "signal ghosting as ACR defines it, percent of the brain's signal",
    "motion_mm": "largest shift of a slice against its neighbours (of a frame against the others)",
}
#: What has a name and no number; compared without regard to case.
FIELDS = {
    "manufacturer": "maker of the scanner",
    "scanner": "model of the scanner",
    "sequence": "pulse sequence",
    "contrast_phase": "phase of contrast agent (none, arterial, venous, delayed ...)",
    "convolution_kernel": "reconstruction kernel",
    "software_version": "software version of the scanner",
}


#: What a scan must share with the first of its kind.
Constant = Literal[
    "manufacturer", "scanner", "software_version", "sequence", "contrast_phase",
    "convolution_kernel", "field_strength_t", "echo_time_s", "repetition_time_s",
    "inversion_time_s", "flip_angle_deg", "slice_thickness_mm", "tube_voltage_kv", "b_value",
]  # fmt: skip


class VisitWindow(Settings):
    """Scheduled time of a visit and its tolerance."""

    model_config = one_of_keys("day", "hour")
    day: Number | Absent = None
    """Scheduled day, counted from day zero"""
    hour: Number | Absent = None
    """Scheduled hour, counted from day zero"""
    before: NotNegative = 0
    """Days (hours) that a scan may be early"""
    after: NotNegative = 0
    """Days (hours) that a scan may be late"""


class SameModality(Settings):
    """Biomarker -> kinds of scan that count as the same; the biomarker must come from one kind at
    all visits.
    """

    infarct: Texts | Absent = None
    """Kinds that count as the same for the infarct"""
    haematoma: Texts | Absent = None
    """Kinds that count as the same for the haematoma"""
    perfusion: Texts | Absent = None
    """Kinds that count as the same for perfusion"""
    enhancing: Texts | Absent = None
    """Kinds that count as the same for enhancing tumour"""
    oedema: Texts | Absent = None
    """Kinds that count as the same for oedema"""


class TrialCriteria(Settings):
    """Criteria that look at more than one scan, or at the calendar."""

    windows: Mapping[str, VisitWindow] | Absent = None
    """Visit -> scheduled day (calendar days) or hour (elapsed) and tolerance; the bounds are inside
    """
    day_zero_column: str | Absent = None
    """Participants column (ISO 8601) that windows count from; default the first baseline scan"""
    constant: tuple[Constant, ...] | Absent = None
    """What must stay as at the subject's first scan of the kind"""
    same_modality: SameModality | Absent = None
    complete: Mapping[str, Texts] | Absent = None
    """Visit -> kinds of scan that are due"""
    imaging_duration_minutes_max: Number | Absent = None
    """Longest time from the first to the end of the last scan of a visit, min"""
    imaging_to_treatment_minutes_max: Number | Absent = None
    """Longest time from the first baseline scan to treatment, min"""
    treated_at_column: str | Absent = None
    """Participants column with the time of treatment (ISO 8601); default treated_at"""
    repeat_on: Texts = (
        *("readable", "present", "brain_cut_percent", "coverage_mm"),
        *("snr", "noise_sd", "ghosting_percent", "motion_mm"),
    )
    """Criteria, without _min and _max, on which a scan is to be repeated"""

    @property
    def treated_at(self) -> str:
        """Column of the time of treatment.

        No default of the field: a column that the config names is shown in tables.
        """
        return self.treated_at_column or "treated_at"


def _limits(schema: dict[str, Any]) -> None:
    """Rules for the limits of each kind of scan, whose keys are put together of names."""
    kinds = "|".join(name for name, kind in KINDS.items() if kind.suffixes)
    limits = {
        f"^({'|'.join(sorted(QUANTITIES))})_(min|max)$": {
            "description": "Limit; null takes a built-in one away",
            "type": ["number", "null"],
        },
        f"^({'|'.join(FIELDS)})_one_of$": {
            "description": "What is allowed, as the header or sheet writes it",
            "type": ["array", "null"],
            "items": {"type": "string"},
            "minItems": 1,
        },
    }
    due = {
        "description": "Required b values, s/mm2",
        "type": ["array", "null"],
        "items": {"type": "number", "minimum": 0},
        "minItems": 1,
    }
    schema["patternProperties"] = {
        f"^({kinds})$": {
            "type": "object",
            "properties": {"b_values_include": due},
            "patternProperties": limits,
        }
    }


class AcquisitionSettings(Settings):
    """Limits of the imaging charter per kind of scan; <criterion>_min and <criterion>_max, units in
    the names.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_limits)

    use_defaults: bool = True
    """Check the built-in limits where none is given here"""
    lossless: bool = False
    """Check that no compression or conversion changed stored values"""
    left_right: bool = True
    """Check left and right of every image against the others of its visit"""
    orientation: Literal["sform", "qform"] | Absent = None
    """Which form places an image whose qform and sform differ; without it the sform, with a warning
    where they are mirrored or 20 mm apart
    """
    trial: TrialCriteria = TrialCriteria.model_construct()


#: Statistics of phantom scans that a limit can be put on.
PhantomStatistic = Literal[
    "bias", "bias_percent", "largest_error", "largest_error_percent", "slope", "intercept",
    "r_squared", "rmse", "snr", "uniformity_percent", "uniformity_range",
    "repeatability_coefficient", "repeatability_coefficient_percent", "drift_per_year",
    "drift_percent_per_year",
]  # fmt: skip


class PhantomLimit(Settings):
    """A limit on a statistic of phantom scans."""

    model_config = one_of_keys("min", "max", rule="anyOf")
    endpoint: Annotated[str, pattern(r"^[A-Za-z0-9]+(:volume)?$")] | Absent = None
    """Kind of scan, with :volume for volumes; default every one"""
    statistic: PhantomStatistic
    """What is limited"""
    min: Number | Absent = None
    """Least allowed value"""
    max: Number | Absent = None
    """Greatest allowed value"""
    citation: Text
    """Source of the limit, in words"""


class PhantomQaSettings(Settings):
    """What phantom scans must keep to."""

    interval_days: Positive = 365
    """Days for which a phantom scan vouches for its site, d"""
    use_defaults: bool = True
    """Check the built-in limits too (Corelab's own, of no external source)"""
    limits: tuple[PhantomLimit, ...] = ()
    """Limits on statistics of phantom scans, each with where it comes from"""


class DicomSettings(Settings):
    """What is looked for in DICOM folders."""

    identifying_tags: Texts | Absent = None
    """Keywords of tags that identify a person and are reported when filled; default the built-in
    list
    """
    date_shift_days: int = 0
    """Days that dates are shifted by"""
