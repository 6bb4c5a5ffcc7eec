"""Records of stages: the declared proof that a job is done, with the hashes of what it wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def status_lines(
    folder: Path,
    stages: Mapping[str, Sequence[str]],
    participants: Sequence[str] = (),
    configfiles: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Progress and failures of a study, recomputed from what lies on disk, also after a crash.

    Parameters
    ----------
    folder
        The study's results folder.
    stages
        Stage -> records (relative paths) that the study is to have.
    participants
        Ids of the participants sheet.
    configfiles, options
        Of the run, for the commands that retry.
    """
    from corelab.provenance.ledger import alive, entries, failures
    from corelab.provenance.progress import closing_lines, scan_failures

    lines = [f"Study folder {folder}"]
    for name, paths in stages.items():
        there = sum((folder / path).is_file() for path in paths)
        lines.append(f"  {name:<10} {there:>6} of {len(paths)} done")
    for name in (
        "endpoints/measurements.tsv",
        "statistics/agreement.tsv",
        "report/index.html",
        "provenance/manifest.json",
    ):
        state = "there" if (folder / name).is_file() else "not yet"
        lines.append(f"  {name:<28} {state}")
    # The asking job keeps an entry too.
    others = [(place, entry) for place, entry in entries(folder) if place.rule != "status"]
    running = [place for place, entry in others if alive(entry)]
    lines.append(f"  jobs at work                 {len(running)}")
    lines += [f"    {place.rule} {place.name}" for place in running[:10]]
    found = [*failures(folder), *scan_failures(folder, stages)]
    lines.append(f"{len(found)} things to look at" + (":" if found else ""))
    return lines + closing_lines(folder, participants, found, configfiles, options or {})
