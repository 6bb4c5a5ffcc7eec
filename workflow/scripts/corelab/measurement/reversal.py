"""Reversal of a lesion, voxel by voxel: the later mask brought onto the scan of the first.

Volumes alone cannot distinguish a lesion that shrank in place from one that reversed in one part
and grew in another.
The later outline is brought to the grid of the first through the subject's own rigid fits, without
the way over the template, and compared there: what was lesion and is not any more, what stayed,
what is new.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, load_image
from corelab.measurement.rows import measurement_row
from corelab.measurement.time_windows import lesion_reversal
from corelab.records.measured import MeasurementRow
from corelab.records.subjects import Normalised, NormalisedMask
from corelab.registration.transforms import Step, apply_transforms, read_steps

LABEL = "infarct"
#: Endpoint -> unit, in the order of the rows.
ENDPOINTS = {
    "infarct_reversed_volume": "mL",
    "infarct_persisting_volume": "mL",
    "infarct_new_volume": "mL",
    "infarct_reversed_percent": "percent",
}
Place = tuple[str, str]


def joined_reasons(*reasons: str | None) -> str | None:
    """Reasons of a row as one text; None without any.

    Examples
    --------
    >>> joined_reasons("left: M1", None, "no T1"), joined_reasons(None)
    ('left: M1; no T1', None)
    """
    return "; ".join(reason for reason in reasons if reason) or None


def _steps_between(normalised: Normalised, first: Place, later: Place, folder: Path) -> list[Step]:
    """Rigid steps from points of one grid (visit, grid) of a subject to points of another.

    KeyError: a grid has no transform.
    """
    transforms, anchor = normalised.transforms, normalised.anchor
    if anchor is None:
        raise KeyError("there is no anchor")
    # The anchor's own grid has nothing but the fit to the template, which is left out here.
    template = transforms[anchor.visit][anchor.grid]
    start, end = (transforms[visit][grid] for visit, grid in (first, later))
    back = len(start.from_mni) - len(template.from_mni)
    onward = len(template.to_mni)
    paths = [*start.from_mni[:back], *end.to_mni[onward:]]
    flags = [*start.from_mni_whichtoinvert[:back], *end.whichtoinvert[onward:]]
    return read_steps([folder / path for path in paths], flags)


def reversal_rows(
    normalised: Normalised | None, folder: Path, visit: str, first_visit: str | None
) -> list[MeasurementRow]:
    """Rows of what became of the infarct between two visits, for each source that has both.

    ``visit`` is the later one, whose rows these are, ``first_visit`` the one that it is compared
    with; None where ``serial_imaging`` has no pair. Volumes are those of the first scan's grid:
    reversed and persisting add up to the first lesion.

    Examples
    --------
    >>> reversal_rows(None, Path("."), "day5", "day1")
    []
    """
    if first_visit is None or normalised is None:
        return []
    masks = {
        (mask.visit, mask.source, mask.repeat): mask
        for mask in normalised.masks
        if mask.label == LABEL and mask.native_path
    }
    rows = []
    for (at, source, repeat), later in masks.items():
        first = masks.get((first_visit, source, repeat))
        if at != visit or first is None:
            continue
        values, fault = _compared(normalised, folder, first, later)
        known = joined_reasons(
            *(
                f"{mask.visit}: {mask.native_reason}"
                for mask in (first, later)
                if mask.native_reason
            )
        )
        for endpoint, unit in ENDPOINTS.items():
            value = values.get(endpoint, float("nan"))
            rows.append(
                measurement_row(
                    *(normalised.participant_id, visit, endpoint, source, value, unit),
                    repeat=repeat,
                    reason=known if np.isfinite(value) else fault,
                    scan_ids={*first.scan_ids, *later.scan_ids},
                    undefined=f"no lesion at {first_visit}",
                )
            )
    return rows


def _compared(
    normalised: Normalised,
    folder: Path,
    first: NormalisedMask,
    later: NormalisedMask,
) -> tuple[dict[str, float], str | None]:
    """Values by endpoint, or nothing and why."""
    places = [(mask.visit, str(mask.grid)) for mask in (first, later)]
    try:
        steps = _steps_between(normalised, places[0], places[1], folder)
    except KeyError:
        return {}, f"visits {first.visit} and {later.visit} are not joined by a registration"
    try:
        before, after = (
            load_image(folder / str(mask.native_path), kind=f"mask-{LABEL}")
            for mask in (first, later)
        )
    except ImageFault as fault:
        return {}, str(fault)
    one = nib.Nifti1Image((np.asarray(after.dataobj) != 0).astype(np.uint8), after.affine)
    brought = apply_transforms(one, before, steps, "label")
    voxel_ml = abs(float(np.linalg.det(before.affine[:3, :3]))) / 1000.0
    found = lesion_reversal(np.asarray(before.dataobj), np.asarray(brought.dataobj), voxel_ml)
    whole = found.reversed_ml + found.persisting_ml
    share = 100.0 * found.reversed_ml / whole if whole > 0 else float("nan")
    return dict(zip(ENDPOINTS, (*found, share), strict=True)), None
