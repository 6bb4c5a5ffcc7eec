"""Within one visit: every grid to the visit's reference grid, rigidly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelab.provenance.products import file_sha256, write_json
from corelab.registration.backends import registrar
from corelab.registration.heads import Head, load_head
from corelab.registration.pairs import fit_rigid
from corelab.registration.preparation import best_scan
from corelab.registration.presets import described
from corelab.registration.registrar import Registrar, RegistrationFault, Transform
from corelab.settings.registration import RegistrationSettings
from corelab.study.naming import derivative
from corelab.terms.kinds import DATATYPES


def align_visit(
    record: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    settings: RegistrationSettings,
) -> dict[str, Any]:
    """Register each grid of a visit to its reference grid and add ``transforms`` to the record.

    Parameters
    ----------
    record
        Of the stage ``prepare``.
    folder
        Results folder of the study; all paths in the record are relative to it.
    settings
        Block ``registration`` of the config.

    Returns
    -------
    dict
        The record with ``transforms``: for each native grid ``to`` (the reference), ``path``
        (ITK matrix, reference to grid points; None for the identity), ``method``
        (``identity``, ``rigid``, ``header``), ``quality``, ``status`` (``ok``, ``failed``) and
        ``reason``.

    Raises
    ------
    BackendMissing
        If the program behind ``settings.backend`` is not installed.
    ValueError
        If a setting is not known.

    Notes
    -----
    Scans on truly the same grid share one transform and one fit. Neighbouring grids of one
    session are fitted too: patients move between series. A grid that holds masks alone is placed
    by its header. ANTs is not imported where there is one grid only.

    Examples
    --------
    >>> scan = {"scan_id": "s1", "kind": "dwi", "label": None, "grid": "g1", "status": "ok",
    ...         "space": "native", "path": "x.nii.gz"}
    >>> record = {"participant_id": "01", "visit": "day5", "status": "ok", "scans": [scan],
    ...           "brain_masks": {}, "reference": "g1"}
    >>> align_visit(record, ".", settings=RegistrationSettings())["transforms"]["g1"]["method"]
    'identity'
    """
    root = Path(folder)
    reference = record.get("reference")
    transforms: dict[str, dict[str, Any]] = {}
    if record["status"] != "ok" or reference is None:
        return {**record, "transforms": transforms}
    grids = _native_grids(record)
    names = _names(record, grids)
    tool: Registrar | None = None
    fixed: Head | RegistrationFault | None = None
    for grid in grids:
        entry = {"to": reference, "path": None, "quality": {}, "status": "ok", "reason": None}
        transforms[grid] = entry
        if grid == reference:
            entry["method"] = "identity"
        elif best_scan(record["scans"], grid) is None:
            entry["method"] = "header"
        else:
            entry["method"] = "rigid"
            tool = tool or registrar(settings)
            fixed = fixed or _head_or_fault(record, root, reference)
            path = _path(record, names[grid], names[reference])
            entry |= _fit(tool, fixed, record, root, grid, path, settings)
    return {**record, "transforms": transforms}


def save_rigid(
    transform: Transform,
    path: str,
    folder: Path,
    *,
    inputs: list[str],
    settings: RegistrationSettings,
    quality: Mapping[str, Any],
) -> None:
    """Write a rigid transform and its sidecar."""
    transform.save(folder / path)
    write_json(
        {
            "inputs": [{"name": name, "sha256": file_sha256(folder / name)} for name in inputs],
            "parameters": {**described(settings), "fit": "rigid"},
            "quality": quality,
            "convention": "ITK affine, points of the fixed to points of the moving scan, LPS mm",
            "sha256": file_sha256(folder / path),
        },
        (folder / path).with_suffix(".json"),
    )


def _fit(
    tool: Registrar,
    fixed: Head | RegistrationFault,
    record: Mapping[str, Any],
    root: Path,
    grid: str,
    path: str,
    settings: RegistrationSettings,
) -> dict[str, Any]:
    """Fit one grid; a fault of its scan is its status."""
    if isinstance(fixed, RegistrationFault):
        return {"status": "failed", "reason": f"the reference: {fixed}"}
    try:
        moving = load_head(record, root, grid)
        transform, quality, reason = fit_rigid(tool, fixed, moving, settings)
    except RegistrationFault as fault:
        return {"status": "failed", "reason": str(fault)}
    if reason is not None:
        return {"status": "failed", "reason": reason, "quality": quality}
    save_rigid(
        transform,
        path,
        root,
        inputs=[fixed.path, moving.path],
        settings=settings,
        quality=quality,
    )
    return {"path": path, "quality": quality}


def _head_or_fault(record: Mapping[str, Any], root: Path, grid: str) -> Head | RegistrationFault:
    try:
        return load_head(record, root, grid)
    except RegistrationFault as fault:
        return fault


def _native_grids(record: Mapping[str, Any]) -> list[str]:
    """Native grids with anything on them, in the order of their first scan."""
    found = [
        scan["grid"]
        for scan in record["scans"]
        if scan["status"] == "ok" and scan["grid"] is not None and scan["space"] == "native"
    ]
    return list(dict.fromkeys(found))


def _names(record: Mapping[str, Any], grids: list[str]) -> dict[str, tuple[str, str | None]]:
    """Kind by which a grid is called in file names, and a run number where two have the same."""
    names: dict[str, tuple[str, str | None]] = {}
    count: dict[str, int] = {}
    for grid in grids:
        scan = best_scan(record["scans"], grid)
        if scan is not None:
            kind = scan["kind"]
            count[kind] = count.get(kind, 0) + 1
            names[grid] = (kind, None if count[kind] == 1 else str(count[kind]))
    return names


def _path(
    record: Mapping[str, Any], moving: tuple[str, str | None], fixed: tuple[str, str | None]
) -> str:
    kind, run = moving
    return derivative(
        record["participant_id"],
        record["visit"],
        DATATYPES.get(kind, "anat"),
        "xfm",
        extension=".mat",
        run=run,
        from_=kind,
        to=fixed[0] if fixed[1] is None else f"{fixed[0]}{fixed[1]}",
        mode="image",
    )
