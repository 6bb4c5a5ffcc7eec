"""Failures of a study as a product: what could not be done, why, and how to try again.

The table holds what the stages' records say, which is the same wherever the study runs, and the
jobs that a run with ``without_failed`` went on without. Paths are relative, and there are no times.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.ledger import Failure, retry_command
from corelab.provenance.products import file_sha256, read_json, write_json, write_table
from corelab.provenance.progress import scan_failures

FAILURES = {
    "participant_id": "Subject identifier",
    "visit": "Visit name; n/a for a step of all visits of a subject",
    "step": "Rule whose job could not do it",
    "cause": "Why, in the words of the job",
    "log": "Log of the job, relative to the study's folder",
    "retry": "Command that makes the step again, from where the study was run",
}
#: Stages before ``measure``, in order.
SOURCE_STAGES = ("prepare", "segment", "perfuse", "normalise")
#: Where a study's results folder is an absolute path, which another machine does not have.
THIS_FOLDER = "THIS_FOLDER"


def by_stage(study: Path, records: Iterable[str | Path]) -> dict[str, list[str]]:
    """Records of stages by the rule that wrote them, relative to the study's folder.

    Examples
    --------
    >>> by_stage(Path("r/s"), ["r/s/endpoints/batches/0.json"])
    {'measure_supplied': ['endpoints/batches/0.json']}
    """
    found: dict[str, list[str]] = {}
    for record in records:
        name = Path(record).relative_to(study).as_posix()
        rule = Path(name).stem if name.startswith("derivatives/") else "measure_supplied"
        found.setdefault(rule, []).append(name)
    return found


def _without_paths(text: str) -> str:
    """A cause without folders of one machine.

    Examples
    --------
    >>> _without_paths("OSError: cannot read '/data/x/a.nii' (3/4 done)")
    "OSError: cannot read 'a.nii' (3/4 done)"
    """
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":,;()]+/)*([^\s/'\":,;()]+)", r"\1", text)


def _failure_rows(
    study: Path, records: Iterable[str | Path], stopped: Sequence[Failure] = ()
) -> pd.DataFrame:
    """What could not be done, failed jobs first: columns of :data:`FAILURES`.

    ``records`` are of the study's stages; ``stopped`` jobs failed, of visits that the run left out.
    """
    folder = Path(THIS_FOLDER) if study.is_absolute() else study
    config = (folder / "provenance" / "config.json").as_posix()
    found = [*stopped, *scan_failures(study, by_stage(study, records))]
    rows = []
    for one in sorted(found, key=lambda one: (not one.hard, one.subject, one.visit)):
        target, log = (
            Path(path).relative_to(study).as_posix() if path else ""
            for path in (one.target, one.log)
        )
        # A visit that the run goes on without is no target unless it is taken back in.
        options = {"without_failed": "false"} if one.hard else {}
        target = (folder / target).as_posix()
        command = retry_command(target, [config], options, force=not one.hard)
        row = asdict(replace(one, cause=_without_paths(one.cause), log=log))
        rows.append({**row, "participant_id": one.subject, "retry": command})
    return pd.DataFrame(rows, columns=list(FAILURES))


def write_failures(
    study: Path,
    records: Iterable[str | Path],
    stopped: Sequence[Failure],
    table: str | Path,
    exhibit: str | Path,
) -> None:
    """Write the table of failures and the exhibit that shows it.

    Parameters
    ----------
    study, records, stopped
        As for ``_failure_rows``.
    table, exhibit
        The TSV, and the exhibit's JSON.
    """
    rows = _failure_rows(study, records, stopped)
    write_table(rows, table, FAILURES, sort=False)
    jobs = sum(one.hard for one in stopped)
    alarms = [
        Alarm(
            "error",
            f"The run went on without {jobs} failed job{'s' if jobs > 1 else ''}",
            tuple(dict.fromkeys(one.subject for one in stopped if one.subject)),
        )
    ]
    caption = (
        "Fix the cause first; the command then makes the step again, and the study's own command "
        "what follows from it."
    )
    if study.is_absolute():
        caption += f" {THIS_FOLDER}: the study's results folder."
    write_exhibit(
        exhibit,
        section="failures",
        title="What could not be done" if len(rows) else "Nothing failed",
        caption=caption if len(rows) else "Every scan was read and every job was done.",
        table=Path(table).relative_to(study).as_posix(),
        columns={
            "participant_id": "Subject",
            "visit": "Visit",
            "step": "Step",
            "cause": "Cause",
            "log": "Log",
            "retry": "Command to try again",
        },
        alarms=alarms * bool(jobs),
    )


def write_record_list(study: Path, records: Iterable[str | Path], path: str | Path) -> None:
    """Write which stage records the study has, with the hash of each.

    What needs all records takes this one file as its input: a plan of ten thousand visits with
    each of them as an input of each such job takes tens of MB more.

    Parameters
    ----------
    study
        The study's folder.
    records
        Stage records within it.
    path
        The JSON: record, relative to the study's folder -> sha256.
    """
    hashes = {Path(one).relative_to(study).as_posix(): file_sha256(one) for one in records}
    write_json({"records": hashes}, path)


def records_behind(study: Path, measured: Iterable[str | Path]) -> list[Path]:
    """Records of all stages, from those that the records of ``measure`` name.

    Examples
    --------
    >>> import tempfile
    >>> study = Path(tempfile.mkdtemp())
    >>> sources = ["sub-1/normalise.json", "sub-1/prepare.json"]
    >>> _ = write_json({"sources": sources}, study / "a.json")
    >>> [path.name for path in records_behind(study, [study / "a.json"])]
    ['prepare.json', 'normalise.json', 'a.json']
    """
    paths = list(map(Path, measured))
    sources = [study / one for path in paths for one in read_json(path).get("sources", ())]
    return [*sorted(sources, key=lambda path: SOURCE_STAGES.index(path.stem)), *paths]


def listed_records(path: str | Path, study: Path, stages: Collection[str]) -> list[Path]:
    """Records of some stages from the list that :func:`write_record_list` wrote."""
    return [study / name for name in read_json(path)["records"] if Path(name).stem in stages]
