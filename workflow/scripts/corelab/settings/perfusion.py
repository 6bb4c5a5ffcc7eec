"""Block ``perfusion`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from corelab.settings.base import Absent, NotNegative, Number, Positive, Registered, Settings, Share

#: Name of a perfusion engine.
Engine = Annotated[str, Registered("engines")]

#: Criteria of the quality gates.
Gate = Literal[
    "frame_interval_s", "duration_s", "header_interval_ratio", "baseline_frames", "aif_width_s",
    "aif_time_to_peak_s", "vof_minus_aif_s", "aif_snr", "after_aif_peak_s", "vof_tail_share",
    "tissue_cnr", "second_rise_share", "motion_mm", "motion_degrees", "replaced_frames_share",
    "replaced_frames_in_a_row", "missing_slices_share", "core_share", "hypoperfused_share",
    "hypoperfused_uncertainty", "hypoperfused_wrong_share", "core_wrong_share", "normal_mtt_s",
    "coverage_mm", "brain_volume_share", "aif_peak_hu", "aif_peak_unscaled_hu", "vof_peak_hu",
    "residual_noise_hu", "drift_share", "level_jump_share", "uneven_drift_share",
    "uneven_tail_share", "pattern_share", "vessel_baseline_hu", "frames",
]  # fmt: skip


class Core(Settings):
    """Core of the infarct."""

    engine: Engine = "bayes"
    """Engine of the flow map"""
    parameter: Literal["rcbf"] = "rcbf"
    """What is compared with the reference tissue"""
    below: Share = 0.3
    """Core is below this fraction of the reference"""
    early_below: Share = 0.2
    """The same when onset to CT is at most early_minutes"""
    early_minutes: NotNegative = 90
    """Minutes from onset to CT"""
    reference: Literal["contralateral", "mirror", "whole-normal", "by-tissue"] = "contralateral"
    """Normal tissue that relative flow refers to"""


class Hypoperfusion(Settings):
    """Hypoperfused tissue."""

    engine: Engine = "bayes"
    """Engine of the Tmax map"""
    tmax_s_above: Positive = 6.0
    """Hypoperfused is above this Tmax, s"""


class GateLimits(Settings):
    """Limits of one quality gate."""

    good: tuple[Number | None, Number | None] | Absent = None
    """A value within passes"""
    bad: tuple[Number | None, Number | None] | Absent = None
    """A value outside fails"""


class PerfusionSettings(Settings):
    """Perfusion engines and cut-offs."""

    core: Core = Core.model_construct()
    hypoperfusion: Hypoperfusion = Hypoperfusion.model_construct()
    registry_engine: Engine = "osvd"
    """Engine that the published cut-offs are applied with"""
    reference_infarct: str | None = None
    """Source (a reader, software, pipeline) whose infarct the plot of cut-offs refers to; default:
    the one with the most subjects
    """
    device: Literal["cpu", "cuda"] = "cpu"
    """Where maps are computed: cpu, or cuda (a graphics card, by CuPy or PyTorch where one is
    installed)
    """
    leakage_correction: bool = False
    """Boxerman correction of DSC"""
    motion_correction: bool = True
    """Correct motion where it is found"""
    figures: bool = True
    """Write figures of maps and curves"""
    gates: Mapping[Gate, GateLimits | None] = {}
    """Limits of quality gates that replace the built-in ones; criterion -> good and bad, each [low,
    high] with null for no limit; null switches a criterion off
    """
