"""The imaging charter: was each scan acquired as the trial prescribed?

A limit is named ``<quantity>_min`` or ``<quantity>_max`` (:data:`QUANTITIES`), or
``<field>_one_of`` for what has a name instead of a number (:data:`FIELDS`), or
``b_values_include``. One row comes out per scan and limit, so that a scan outside is flagged for
exactly that limit, and what cannot be known is ``not_assessable`` and never a silent pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corelab.records.images import AcquisitionRow, Scan
from corelab.settings.acquisition import FIELDS, QUANTITIES, AcquisitionSettings
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS

#: Quantities that are measured in the voxels, by :func:`corelab.imaging.quality.image_quality`.
MEASURED = ("brain_cut_percent", "snr", "noise_sd", "ghosting_percent", "motion_mm")
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


def charter(settings: AcquisitionSettings) -> dict[str, dict[str, float | list[float | str]]]:
    """Limits by kind: the defaults, overridden one by one by the study's own.

    Parameters
    ----------
    settings
        Kind -> limit name -> number, or list of what is allowed (``_one_of``) or due
        (``b_values_include``); None takes a default limit away, and ``use_defaults: false`` all
        of them.

    Returns
    -------
    dict
        Kind -> limit name -> number or list.

    Raises
    ------
    ValueError
        If a limit is on nothing in :data:`QUANTITIES` or :data:`FIELDS`.

    Examples
    --------
    >>> own = AcquisitionSettings.model_validate({"dwi": {"b_value_max": None, "b_value_min": 800}})
    >>> charter(own)["dwi"]["b_value_min"]
    800.0
    """
    defaults = DEFAULT_LIMITS if settings.use_defaults else {}
    limits: dict[str, dict[str, float | list[float | str]]] = {
        kind: dict(own) for kind, own in defaults.items()
    }
    for kind, own in (settings.model_extra or {}).items():
        chosen = limits.setdefault(kind, {})
        for name, limit in (own or {}).items():
            if subject_of(name) is None:
                raise ValueError(
                    f"acquisition.{kind}.{name}: a limit is <quantity>_min or <quantity>_max with "
                    f"a quantity of {', '.join(QUANTITIES)}; <field>_one_of with a field of "
                    f"{', '.join(FIELDS)}; or b_values_include"
                )
            if limit is None:
                chosen.pop(name, None)
            else:
                chosen[name] = list(limit) if isinstance(limit, Sequence) else float(limit)
    return limits


def acquisition_rows(
    kind: str,
    observed: Mapping[str, float | str | Sequence[float] | None],
    limits: Mapping[str, Mapping[str, float | list[float | str]]],
    scan_id: str | None = None,
) -> list[AcquisitionRow]:
    """One row per limit of a kind of scan.

    Parameters
    ----------
    kind
        Kind of scan.
    observed
        Quantity or field -> value, None where it is not known; see :func:`observe`.
    limits
        From :func:`charter`.
    scan_id
        Of the scan.

    Returns
    -------
    list of AcquisitionRow
        The limit itself passes.

    Examples
    --------
    >>> for row in acquisition_rows("dwi", {"b_value": 1000.0, "sequence": "epse2d1"},
    ...         {"dwi": {"b_value_min": 900.0, "slices_min": 20.0, "sequence_one_of": ["SE"]}}):
    ...     print(row.criterion, row.value, row.limit, row.verdict)
    b_value_min 1000.0 900.0 pass
    sequence_one_of epse2d1 SE fail
    slices_min None 20.0 not_assessable
    """
    rows = []
    for name, limit in sorted(limits.get(kind, {}).items()):
        seen = observed.get(subject_of(name) or "")
        value: float | str | None
        if not isinstance(limit, list):
            shown: float | str = limit
            value = _number(seen)
            slack = _SLACK * max(abs(limit), 1e-9)
            inside = value is not None and (
                value <= limit + slack if name.endswith("_max") else value >= limit - slack
            )
        elif name == "b_values_include":
            shown = " ".join(f"{due:g}" for due in limit)
            value, inside = _weightings(seen, [float(due) for due in limit])
        else:
            shown = " or ".join(map(str, limit))
            inside = str(seen).strip().casefold() in {str(one).casefold() for one in limit}
            value = None if seen in (None, "") else str(seen)
        verdict = NOT_ASSESSABLE if value is None else PASS if inside else FAIL
        rows.append(AcquisitionRow(kind, name, value, shown, verdict, scan_id=scan_id))
    return rows


def _weightings(values: Any, due: Sequence[float]) -> tuple[str | None, bool]:
    """The b values as text, and whether each that is due is present to 5 % (b = 0: up to 50)."""
    if values is None or not len(values):
        return None, False
    there = sorted({round(float(value)) for value in values})
    inside = all(any(abs(b - one) <= max(0.05 * one, 50) for b in there) for one in due)
    return " ".join(map(str, there)), inside


def lossless_row(
    kind: str, lossy: bool | None, proof: str | None, scan_id: str | None = None
) -> AcquisitionRow:
    """Row of the criterion ``lossless``.

    Parameters
    ----------
    kind
        Kind of scan.
    lossy
        Whether a compression that can lose detail is known of; None where nothing is.
    proof
        Comparison of stored values before and after conversion: ``unchanged``, ``changed``,
        ``not_comparable``; None where nothing was converted.
    scan_id
        Of the scan.

    Examples
    --------
    >>> lossless_row("dwi", False, "unchanged").verdict, lossless_row("dwi", True, None).value
    ('pass', 'lossy compression')
    """
    value: str | None
    if lossy:
        value, verdict = "lossy compression", FAIL
    elif proof == "changed":
        value, verdict = "values changed", FAIL
    elif lossy is False and proof in (None, "unchanged"):
        value, verdict = "values unchanged", PASS
    else:
        value, verdict = None, NOT_ASSESSABLE
    return AcquisitionRow(kind, "lossless", value, "no loss", verdict, scan_id=scan_id)


def slice_axis(voxel_size_mm: Sequence[float]) -> int:
    """Axis of the largest voxel edge, along which slices lie; without one the third.

    Examples
    --------
    >>> slice_axis((6.0, 1.0, 1.0)), slice_axis((1.0, 1.0, 1.0))
    (0, 2)
    """
    largest = max(voxel_size_mm)
    return 2 if largest <= voxel_size_mm[2] * (1 + _SLACK) else int(np.argmax(voxel_size_mm))


def observe(scan: Scan) -> dict[str, float | str | Sequence[float] | None]:
    """The quantities that limits are put on, from a scan's grid and its metadata.

    Parameters
    ----------
    scan
        With shape (frames fourth) and voxel size; of its ``metadata`` the quantities and fields of
        :data:`QUANTITIES` and :data:`FIELDS`, ``frame_times_s`` and ``b_values`` are read.

    Returns
    -------
    dict
        Every key of :data:`QUANTITIES` and :data:`FIELDS`, and ``b_values``; None where it cannot
        be known. Those of :data:`MEASURED` are None here.

    Examples
    --------
    >>> times = {"frame_times_s": list(range(0, 80, 2))}
    >>> grid = {"shape": (160, 192, 16, 40), "voxel_size_mm": (1.2, 1.2, 5.0)}
    >>> seen = observe(Scan("s1", "ctp", metadata=times, **grid))
    >>> seen["coverage_mm"], seen["frame_interval_s"], seen["duration_s"], seen["matrix"]
    (80.0, 2.0, 80.0, 160.0)
    """
    assert scan.shape is not None and scan.voxel_size_mm is not None
    shape, metadata = scan.shape, scan.metadata
    sizes = [float(size) for size in scan.voxel_size_mm]
    axis = slice_axis(sizes)
    in_plane = [index for index in range(3) if index != axis]
    spacing = sizes[axis]
    thickness = _number(metadata.get("slice_thickness_mm"))
    seen: dict[str, float | str | Sequence[float] | None] = {
        name: _number(metadata.get(name))
        for name in (
            "echo_time_s",
            "repetition_time_s",
            "flip_angle_deg",
            "field_strength_t",
            "tube_voltage_kv",
            "b_value",
            "inversion_time_s",
            "scan_duration_s",
        )
    }
    seen |= dict.fromkeys(MEASURED) | {name: metadata.get(name) for name in FIELDS}
    seen |= {
        "b_values": metadata.get("b_values"),
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


def subject_of(limit_name: str) -> str | None:
    """Quantity or field that a limit is on; None if there is none of that name.

    Examples
    --------
    >>> subject_of("snr_min"), subject_of("scanner_one_of"), subject_of("colour_max")
    ('snr', 'scanner', None)
    """
    if limit_name == "b_values_include":
        return "b_values"
    field = limit_name.removesuffix("_one_of")
    if field != limit_name:
        return field if field in FIELDS else None
    quantity, _, side = limit_name.rpartition("_")
    return quantity if side in ("min", "max") and quantity in QUANTITIES else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
