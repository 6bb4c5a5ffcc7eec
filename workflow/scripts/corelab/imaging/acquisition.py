"""The imaging charter: was each scan acquired as the trial prescribed?

A limit is named ``<quantity>_min`` or ``<quantity>_max``; the quantities are listed in
:data:`QUANTITIES`. One row comes out per scan and limit, so that a scan outside is flagged for
exactly that limit, and what cannot be known is ``not_assessable`` and never a silent pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    "b_value": "diffusion weighting in s/mm2",
}

#: Limits used where the charter of the study (config key ``acquisition``) does not say otherwise.
#: Bases: frame interval, duration and coverage of CTP after Wiesmann (PMID 18618120: maps change
#: by 10 % or less up to one frame in 3 s; 2 s is the safe side), Kasasbeh 2016 (PMC5134896: 60 to
#: 70 s or core curves are cut) and the usual 8 cm of coverage; DSC after the ASFNR recommendation
#: (PMC5074767: repetition time up to 1.5 s, echo time 25 to 35 ms at 3 T, wider at 1.5 T);
#: diffusion at b = 1000 s/mm2 with slices of at most 6 mm is common trial practice.
DEFAULT_LIMITS: dict[str, dict[str, float]] = {
    "ctp": {
        "frame_interval_s_max": 2.0,
        "duration_s_min": 60.0,
        "coverage_mm_min": 80.0,
        "slice_thickness_mm_max": 10.0,
    },
    "dsc": {
        "frame_interval_s_max": 2.0,
        "duration_s_min": 60.0,
        "frames_min": 40.0,
        "coverage_mm_min": 80.0,
        "echo_time_s_min": 0.020,
        "echo_time_s_max": 0.050,
    },
    "dwi": {
        "slice_thickness_mm_max": 6.0,
        "slice_gap_mm_max": 2.0,
        "coverage_mm_min": 100.0,
        "b_value_min": 900.0,
        "b_value_max": 1100.0,
    },
    "adc": {"slice_thickness_mm_max": 6.0, "coverage_mm_min": 100.0},
    "FLAIR": {"slice_thickness_mm_max": 6.0, "slice_gap_mm_max": 2.0, "coverage_mm_min": 100.0},
    "ncct": {"slice_thickness_mm_max": 6.0, "coverage_mm_min": 100.0},
}
#: Relative slack at a limit: headers keep float32, so 1.2 is read as 1.2000000477.
_SLACK = 1e-4


def charter(settings: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Limits by kind: the defaults, overridden one by one by the study's own.

    Parameters
    ----------
    settings
        Kind -> limit name -> number; None as number takes a default limit away, and
        ``use_defaults: false`` all of them.

    Returns
    -------
    dict
        Kind -> limit name -> number.

    Raises
    ------
    ValueError
        If a limit is on nothing in :data:`QUANTITIES`.

    Examples
    --------
    >>> charter({"dwi": {"b_value_max": None, "b_value_min": 800}})["dwi"]["b_value_min"]
    800.0
    """
    given = dict(settings or {})
    defaults = DEFAULT_LIMITS if given.pop("use_defaults", True) else {}
    limits: dict[str, dict[str, float]] = {kind: dict(own) for kind, own in defaults.items()}
    for kind, own in given.items():
        chosen = limits.setdefault(kind, {})
        for name, number in (own or {}).items():
            quantity = _quantity(name)
            if quantity is None:
                raise ValueError(
                    f"acquisition.{kind}.{name}: a limit is <quantity>_min or <quantity>_max with "
                    f"a quantity of {', '.join(QUANTITIES)}"
                )
            if number is None:
                chosen.pop(name, None)
            else:
                chosen[name] = float(number)
    return limits


def acquisition_rows(
    kind: str, observed: Mapping[str, float | None], limits: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """One row per limit of a kind of scan.

    Parameters
    ----------
    kind
        Kind of scan.
    observed
        Quantity -> value, None where it is not known; see :func:`observe`.
    limits
        From :func:`charter`.

    Returns
    -------
    list of dict
        ``kind, criterion, value, limit, verdict`` (``pass``, ``fail``, ``not_assessable``). The
        limit itself passes.

    Examples
    --------
    >>> for row in acquisition_rows("dwi", {"b_value": 1000.0}, {"dwi": {"b_value_min": 900.0,
    ...         "slices_min": 20.0}}):
    ...     print(row["criterion"], row["value"], row["verdict"])
    b_value_min 1000.0 pass
    slices_min None not_assessable
    """
    rows = []
    for name, limit in sorted(limits.get(kind, {}).items()):
        value = observed.get(_quantity(name) or "")
        if value is None or not np.isfinite(value):
            value, verdict = None, "not_assessable"
        else:
            slack = _SLACK * max(abs(limit), 1e-9)
            inside = value <= limit + slack if name.endswith("_max") else value >= limit - slack
            verdict = "pass" if inside else "fail"
        rows.append(
            {"kind": kind, "criterion": name, "value": value, "limit": limit, "verdict": verdict}
        )
    return rows


def observe(
    shape: Sequence[int], voxel_size_mm: Sequence[float], metadata: Mapping[str, Any]
) -> dict[str, float | None]:
    """The quantities that limits are put on, from a scan's grid and its metadata.

    Parameters
    ----------
    shape
        Voxels along each axis (frames fourth).
    voxel_size_mm
        Distance between voxels along the three axes. Slices lie along the axis of the largest;
        where none is larger than the others, along the third.
    metadata
        ``slice_thickness_mm``, ``echo_time_s``, ``repetition_time_s``, ``b_value``,
        ``flip_angle_deg``, ``field_strength_t``, ``tube_voltage_kv``, ``frame_times_s``.

    Returns
    -------
    dict
        Every key of :data:`QUANTITIES`; None where it cannot be known.

    Examples
    --------
    >>> times = {"frame_times_s": list(range(0, 80, 2))}
    >>> seen = observe((160, 192, 16, 40), (1.2, 1.2, 5.0), times)
    >>> seen["coverage_mm"], seen["frame_interval_s"], seen["duration_s"], seen["matrix"]
    (80.0, 2.0, 80.0, 160.0)
    """
    sizes = [float(size) for size in voxel_size_mm]
    axis = 2 if max(sizes) <= sizes[2] * (1 + _SLACK) else int(np.argmax(sizes))
    in_plane = [index for index in range(3) if index != axis]
    spacing = sizes[axis]
    thickness = _number(metadata.get("slice_thickness_mm"))
    seen: dict[str, float | None] = {
        name: _number(metadata.get(name))
        for name in (
            "echo_time_s",
            "repetition_time_s",
            "flip_angle_deg",
            "field_strength_t",
            "tube_voltage_kv",
            "b_value",
        )
    }
    seen |= {
        "voxel_size_mm": max(sizes),
        "in_plane_voxel_mm": max(sizes[index] for index in in_plane),
        "slice_thickness_mm": spacing if thickness is None else thickness,
        "slice_gap_mm": None if thickness is None else round(spacing - thickness, 6),
        "slices": float(shape[axis]),
        "coverage_mm": round(shape[axis] * spacing, 4),
        "field_of_view_mm": round(min(shape[index] * sizes[index] for index in in_plane), 4),
        "matrix": float(min(shape[index] for index in in_plane)),
        "frames": float(shape[3]) if len(shape) > 3 else None,
        "frame_interval_s": None,
        "duration_s": None,
    }
    times = metadata.get("frame_times_s")
    if times is not None and len(times) > 1:
        steps = np.diff(np.asarray(times, float))
        seen["frame_interval_s"] = float(np.round(steps.max(), 6))
        seen["duration_s"] = float(np.round(times[-1] - times[0] + np.median(steps), 6))
    return seen


def _quantity(limit_name: str) -> str | None:
    """Quantity that a limit is on; None if there is none of that name."""
    quantity, _, side = limit_name.rpartition("_")
    return quantity if side in ("min", "max") and quantity in QUANTITIES else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
