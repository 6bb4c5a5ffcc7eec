"""Within one visit: every grid to the visit's reference grid, rigidly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from corelab.provenance.products import file_sha256, write_json
from corelab.records.images import Prepared, Transform
from corelab.registration.backends import registrar
from corelab.registration.heads import Head, load_head
from corelab.registration.pairs import RigidFit, fit_rigid
from corelab.registration.preparation import best_scan
from corelab.registration.presets import described
from corelab.registration.registrar import Registrar, RegistrationFault
from corelab.settings.registration import RegistrationSettings
from corelab.study.naming import derivative
from corelab.terms.kinds import DATATYPES


def align_visit(
    record: Prepared,
    folder: str | os.PathLike[str],
    *,
    settings: RegistrationSettings,
) -> Prepared:
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
    Prepared
        The record with the ``transforms`` of its native grids.

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
    >>> from corelab.records.images import Scan
    >>> scan = Scan("s1", "dwi", grid="g1", path="x.nii.gz")
    >>> record = Prepared("01", "day5", scans=(scan,), reference="g1")
    >>> align_visit(record, ".", settings=RegistrationSettings()).transforms["g1"].method
    'identity'
    """
    root = Path(folder)
    reference = record.reference
    transforms: dict[str, Transform] = {}
    if record.status != "ok" or reference is None:
        return replace(record, transforms=transforms)
    grids = _native_grids(record)
    names = _names(record, grids)
    tool: Registrar | None = None
    fixed: Head | RegistrationFault | None = None
    for grid in grids:
        if grid == reference:
            transforms[grid] = Transform(reference)
        elif best_scan(record.scans, grid) is None:
            transforms[grid] = Transform(reference, method="header")
        else:
            tool = tool or registrar(settings)
            fixed = fixed or _head_or_fault(record, root, reference)
            path = _path(record, names[grid], names[reference])
            transforms[grid] = _fit(tool, fixed, record, root, grid, path, settings)
    return replace(record, transforms=transforms)


def save_rigid(
    fit: RigidFit, path: str, folder: Path, *, inputs: list[str], settings: RegistrationSettings
) -> None:
    """Write a rigid transform and its sidecar."""
    fit.transform.save(folder / path)
    write_json(
        {
            "inputs": [{"name": name, "sha256": file_sha256(folder / name)} for name in inputs],
            "parameters": {**described(settings), "fit": "rigid"},
            "quality": fit.quality,
            "convention": "ITK affine, points of the fixed to points of the moving scan, LPS mm",
            "sha256": file_sha256(folder / path),
        },
        (folder / path).with_suffix(".json"),
    )


def _fit(
    tool: Registrar,
    fixed: Head | RegistrationFault,
    record: Prepared,
    root: Path,
    grid: str,
    path: str,
    settings: RegistrationSettings,
) -> Transform:
    """Fit one grid; a fault of its scan is its status."""
    failed = Transform(str(record.reference), method="rigid", status="failed")
    if isinstance(fixed, RegistrationFault):
        return replace(failed, reason=f"the reference: {fixed}")
    try:
        moving = load_head(record, root, grid)
        fit = fit_rigid(tool, fixed, moving, settings)
    except RegistrationFault as fault:
        return replace(failed, reason=str(fault))
    if fit.reason is not None:
        return replace(failed, reason=fit.reason, quality=fit.quality)
    save_rigid(fit, path, root, inputs=[fixed.path, moving.path], settings=settings)
    return Transform(failed.to, path, "rigid", fit.quality)


def _head_or_fault(record: Prepared, root: Path, grid: str) -> Head | RegistrationFault:
    try:
        return load_head(record, root, grid)
    except RegistrationFault as fault:
        return fault


def _native_grids(record: Prepared) -> list[str]:
    """Native grids with anything on them, in the order of their first scan."""
    found = [
        scan.grid
        for scan in record.scans
        if scan.status == "ok" and scan.grid is not None and scan.space == "native"
    ]
    return list(dict.fromkeys(found))


def _names(record: Prepared, grids: list[str]) -> dict[str, tuple[str, str | None]]:
    """Kind by which a grid is called in file names, and a run number where two have the same."""
    names: dict[str, tuple[str, str | None]] = {}
    count: dict[str, int] = {}
    for grid in grids:
        scan = best_scan(record.scans, grid)
        if scan is not None:
            kind = scan.kind
            count[kind] = count.get(kind, 0) + 1
            names[grid] = (kind, None if count[kind] == 1 else str(count[kind]))
    return names


def _path(record: Prepared, moving: tuple[str, str | None], fixed: tuple[str, str | None]) -> str:
    kind, run = moving
    return derivative(
        record.participant_id,
        record.visit,
        DATATYPES.get(kind, "anat"),
        "xfm",
        extension=".mat",
        run=run,
        from_=kind,
        to=fixed[0] if fixed[1] is None else f"{fixed[0]}{fixed[1]}",
        mode="image",
    )
