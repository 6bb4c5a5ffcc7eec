"""Records of stages: the declared proof that a job is done, with the hashes of what it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corelab.provenance.products import file_sha256, read_json, write_json


def _paths(value: Any, folder: Path) -> Iterator[str]:
    """Relative paths of files that a record names."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item, folder)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item, folder)
    elif isinstance(value, str) and value.startswith("derivatives/") and (folder / value).is_file():
        yield value


def write_record(record: Mapping[str, Any], folder: Path, path: str | Path) -> None:
    """Write a stage's record last, with the sha256 of every file that it names.

    A changed product thus changes the record, and what depends on the record reruns.

    Parameters
    ----------
    record
        JSON-like; file paths in it are relative to ``folder``.
    folder
        The study's results folder.
    path
        Where the record goes.
    """
    products = {name: file_sha256(folder / name) for name in sorted(set(_paths(record, folder)))}
    write_json({**record, "products": products}, path)


def visits_of_records(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Records of a subject's visits, grouped by visit in the order given.

    Returns
    -------
    list of dict
        ``visit``, ``prepare``, ``segment``, ``perfuse`` (None where a stage does not apply).
    """
    visits: dict[str, dict[str, Any]] = {}
    for path in paths:
        record = read_json(path)
        entry = visits.setdefault(
            record["visit"],
            {"visit": record["visit"], "prepare": None, "segment": None, "perfuse": None},
        )
        entry[record["stage"]] = record
    return list(visits.values())


def iter_failures(record: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """What a stage's record says could not be done, in its own words.

    Yields
    ------
    tuple
        What it concerns (the record, or its scan or mask), and the cause.

    Examples
    --------
    >>> scan = {"scan_id": "a.nii", "status": "failed", "reason": "truncated"}
    >>> [cause for _, cause in iter_failures({"status": "ok", "scans": [scan]})]
    ['a.nii: truncated']
    """
    if record.get("status") not in (None, "ok"):
        yield record, str(record.get("reason"))
    for item in [*record.get("scans", []), *record.get("masks", [])]:
        if item.get("status") not in (None, "ok"):
            what = item.get("scan_id") or f"{item.get('label')} ({item.get('source')})"
            yield item, f"{what}: {item.get('reason')}"
