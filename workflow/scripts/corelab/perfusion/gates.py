"""Quality gates: limits as data, one verdict per criterion, never a silent exclusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from corelab.perfusion.steadiness import CORRECTED_DRIFT, LARGEST_DRIFT
from corelab.records import perfusion as records
from corelab.settings.perfusion import GateLimits
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS, WARN


@dataclass(frozen=True)
class Gate:
    """Limits of one criterion.

    A value within ``good`` passes, one outside ``bad`` fails, one between is warned of. Both are
    closed intervals; None is no limit.

    Attributes
    ----------
    criterion
        Name, with its unit.
    good, bad
        (low, high).
    basis
        What the limits rest on; V read in a source, B measured on simulated data, M field
        knowledge.
    """

    criterion: str
    good: tuple[float | None, float | None]
    bad: tuple[float | None, float | None]
    basis: str

    def verdict(self, value: float | None) -> str:
        """Verdict of a value.

        Examples
        --------
        >>> gate = Gate("frame_interval_s", (None, 2.0), (None, 3.0), "")
        >>> [gate.verdict(v) for v in (1.5, 2.5, 3.5, None)]
        ['pass', 'warn', 'fail', 'not_assessable']
        """
        if value is None or not math.isfinite(value):
            return NOT_ASSESSABLE
        if _inside(value, self.good):
            return PASS
        return WARN if _inside(value, self.bad) else FAIL

    @property
    def limit(self) -> str:
        """The limits in words."""
        return f"pass {_words(self.good)}; fail outside {_words(self.bad)}"


def _inside(value: float, interval: tuple[float | None, float | None]) -> bool:
    low, high = interval
    return (low is None or value >= low) and (high is None or value <= high)


def _words(interval: tuple[float | None, float | None]) -> str:
    low, high = interval
    if low is None:
        return f"<= {high:g}" if high is not None else "any"
    return f">= {low:g}" if high is None else f"{low:g} to {high:g}"


_SHARED = (
    Gate("header_interval_ratio", (0.9, 1.1), (None, None), "M: header against times in use"),
    Gate("baseline_frames", (4, None), (2, None), "M"),
    Gate("aif_width_s", (None, 15), (None, 20), "B: ISLES18 median 11, p95 19.4 s"),
    Gate("aif_time_to_peak_s", (None, 25), (None, 30), "B: ISLES18 p95 26 s"),
    Gate("vof_minus_aif_s", (2, 14), (0, None), "V: 3 to 14 s in 93 ISLES18 cases"),
    Gate("aif_snr", (20, None), (10, None), "M"),
    Gate("after_aif_peak_s", (20, None), (13, None), "B: volumes hold to 14 s, fall from 12 s on"),
    Gate("vof_tail_share", (None, 0.25), (None, 0.6), "B: volumes hold to 0.5"),
    Gate("tissue_cnr", (2.5, None), (2.5, None), "B: below, whole cores are lost"),
    Gate("second_rise_share", (None, 0.15), (None, None), "B: a second bolus; else below 0.05"),
    Gate("motion_mm", (None, 1.0), (None, 10.0), "V: 1 mm is what registration resolves"),
    Gate("motion_degrees", (None, 1.0), (None, 10.0), "V: 1 degree is what registration resolves"),
    Gate("replaced_frames_share", (None, 0.0), (None, 0.15), "M"),
    Gate("replaced_frames_in_a_row", (None, 1), (None, 3), "M: a line cannot stand in for a bolus"),
    Gate("missing_slices_share", (None, 0.0), (None, 0.2), "M: their tissue is in no volume"),
    Gate("core_share", (None, 0.25), (None, 0.5), "M: of the tissue in the slab"),
    Gate("hypoperfused_share", (None, 0.5), (None, 0.75), "M: no normal tissue to compare with"),
    Gate("hypoperfused_uncertainty", (None, 0.085), (None, None), "B: half the range by 0.4 s"),
    Gate("hypoperfused_wrong_share", (None, 0.1), (None, None), "B: expected, of the volume"),
    Gate("core_wrong_share", (None, 0.14), (None, None), "B: expected, of the volume"),
    Gate("normal_mtt_s", (3.3, 9.0), (2.0, 14.0), "B: 3.9 to 5.9 s; less, the times are too short"),
    Gate("coverage_mm", (40, None), (15, None), "V: 4 cm, what a scanner of 64 rows covers"),
    Gate("brain_volume_share", (0.36, 1.0), (0.25, 1.11), "M: of 1800 mL, or 19 mL per mm covered"),
)
GATES: Mapping[str, tuple[Gate, ...]] = {
    "ctp": (
        Gate("frame_interval_s", (None, 2.0), (None, 3.0), "V: <= 10 % change of CBF to 3 s"),
        Gate(
            "duration_s",
            (40, None),
            (None, None),
            "V: 43 to 64 s in 93 ISLES18 cases; after_aif_peak_s judges truncation",
        ),
        *_SHARED,
        Gate("aif_peak_hu", (150, None), (60, None), "B: Tmax accuracy falls below 150 HU"),
        Gate("aif_peak_unscaled_hu", (30, None), (14, None), "B: ISLES18 p5 16 HU"),
        Gate("vof_peak_hu", (100, None), (40, None), "B: ISLES18 p5 61 HU"),
        Gate("residual_noise_hu", (None, 1.2), (None, 2.5), "B"),
        Gate("drift_share", (None, CORRECTED_DRIFT), (None, LARGEST_DRIFT), "B: of the rise"),
        Gate("level_jump_share", (None, 0.12), (None, 0.18), "B: a step is no drift"),
        Gate("uneven_drift_share", (None, 0.12), (None, LARGEST_DRIFT), "B"),
        Gate("uneven_tail_share", (None, 0.2), (None, 0.35), "B: at most 0.1 undisturbed"),
        Gate("pattern_share", (None, 0.3), (None, 1.0), "B: at most 0.25 undisturbed"),
        Gate("vessel_baseline_hu", (None, 80), (None, None), "M: blood has 35 to 60 HU"),
    ),
    "dsc": (
        Gate("frame_interval_s", (None, 1.5), (None, 2.5), "M: ASFNR, PMC5074767"),
        Gate(
            "duration_s", (60, None), (None, None), "M: ASFNR; after_aif_peak_s judges truncation"
        ),
        Gate("frames", (40, None), (30, None), "M: ASFNR"),
        *_SHARED,
    ),
}


def configured(kind: str, changes: Mapping[Any, GateLimits | None]) -> tuple[Gate, ...]:
    """Gates of a kind of scan with limits of the configuration put in.

    Parameters
    ----------
    kind
        ``ctp`` or ``dsc``.
    changes
        Criterion -> its limits, of which either may be missing; None switches a criterion off.

    Examples
    --------
    >>> gates = configured("ctp", {"coverage_mm": GateLimits(good=(60, None)), "aif_snr": None})
    >>> next(g.good for g in gates if g.criterion == "coverage_mm")
    (60, None)
    """
    result = []
    for gate in GATES[kind]:
        change = changes.get(gate.criterion, GateLimits())
        if change is not None:
            result.append(replace(gate, good=change.good or gate.good, bad=change.bad or gate.bad))
    return tuple(result)


def judge(
    kind: str,
    values: Mapping[str, float | None],
    changes: Mapping[Any, GateLimits | None] = MappingProxyType({}),
) -> list[records.Gate]:
    """Verdict on each criterion.

    Examples
    --------
    >>> rows = judge("ctp", {"frame_interval_s": 3.5})
    >>> rows[0].criterion, rows[0].verdict, rows[1].verdict
    ('frame_interval_s', 'fail', 'not_assessable')
    """
    return [
        records.Gate(
            gate.criterion,
            values.get(gate.criterion),
            gate.limit,
            gate.verdict(values.get(gate.criterion)),
            gate.basis,
        )
        for gate in configured(kind, changes)
    ]
