"""What a run says before, during and after it, for a person at a terminal or in a log file.

Everything is recomputed from the study's folder, so that it is also known after a crash.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corelab.provenance.ledger import (
    Failure,
    entries,
    failures,
    place_of,
    retry_command,
)
from corelab.provenance.manifest import Manifest
from corelab.provenance.products import read_json, read_table

#: Failures in a table; the others are counted.
MAX_FAILURES = 30
#: A plain line at most this often, s.
PLAIN_EVERY_S = 30.0


def _job_seconds(study: Path, rule: str, at_most: int = 40) -> float | None:
    """Mean wall time of a rule's jobs in past benchmarks of a study, s; None if it never ran."""
    times = []
    for path in sorted((study / "benchmarks" / rule).rglob("*.tsv"))[:at_most]:
        try:
            with open(path, encoding="utf-8", newline="") as handle:
                times += [float(row["s"]) for row in csv.DictReader(handle, delimiter="\t")]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return math.fsum(times) / len(times) if times else None


def duration(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> duration(42), duration(400), duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def expected(study: Path, todo: Mapping[str, int], at_once: int) -> str:
    """Expected time of the jobs to do, from the study's own benchmarks.

    Parameters
    ----------
    study
        The study's folder.
    todo
        Rule -> number of jobs.
    at_once
        Jobs that run at the same time.
    """
    known = {rule: _job_seconds(study, rule) for rule in todo}
    seconds = math.fsum(todo[rule] * cost for rule, cost in known.items() if cost is not None)
    unknown = sum(todo[rule] for rule, cost in known.items() if cost is None)
    if not seconds:
        return "no earlier run to estimate the time from"
    rest = f", and {unknown} jobs of kinds that have not run yet" if unknown else ""
    return f"about {duration(seconds / max(1, at_once))} with {at_once} at once{rest}"


def _record_faults(path: Path) -> list[tuple[str, str, str]]:
    """Subject, visit and cause of what a stage's record, its scans and masks could not give.
    ValueError if it is damaged.
    """
    record = read_json(path)
    found = []
    parts = (record.get(key, []) for key in ("scans", "masks", "unmeasured"))
    for item in [record, *itertools.chain(*parts)]:
        if item.get("status") in (None, "ok"):
            continue
        cause = str(item.get("reason"))
        if item is not record:
            mask = f"{item['label']} ({item.get('source')})" if "label" in item else None
            what = item.get("scan_id") or mask
            cause = f"{what}: {cause}" if what else cause
        keys = ("participant_id", "visit")
        who, visit = (str(item.get(key) or record.get(key) or "") for key in keys)
        found.append((who, visit, " ".join(cause.split())))
    return found


def scan_failures(study: Path, stages: Mapping[str, Sequence[str]]) -> list[Failure]:
    """Scans and masks that ended in a status with its reason, from the records of the stages.

    Parameters
    ----------
    study
        The study's folder.
    stages
        Stage -> records (relative paths) that the study is to have.
    """
    found = []
    for stage, paths in stages.items():
        for path in paths:
            if not (study / path).is_file():
                continue
            # A log is named after the subject and visit of its record, or after the record.
            places = Path(path).parts[1:-1]
            name = "_".join(places)
            if not path.startswith("derivatives/"):
                places, name = (), Path(path).stem
            try:
                faults = _record_faults(study / path)
            except ValueError as error:
                # A damaged record is reported too, and so are all others.
                who, visit = (*places, "", "")[:2]
                cause = " ".join(f"the record is damaged ({error}): make it again".split())
                faults = [(who, visit, cause)]
            log = (study / "logs" / stage / f"{name}.log").as_posix()
            target = (study / path).as_posix()
            found += [
                Failure(who, visit, stage, cause, log, target, hard=False)
                for who, visit, cause in faults
            ]
    return found


def _failure_lines(
    found: Sequence[Failure], command: Callable[[Failure], str] = lambda one: one.target
) -> list[str]:
    """A table of failures for a person: subject, visit, step, cause, log, and command to retry."""
    lines = []
    for one in found[:MAX_FAILURES]:
        who = " ".join(part for part in (one.subject, one.visit) if part) or "whole study"
        lines.append(f"{who}, {one.step}: {one.cause}")
        lines.append(f"    log:   {one.log}")
        if one.target:
            lines.append(f"    retry: {command(one)}")
    if len(found) > MAX_FAILURES:
        lines.append(f"... and {len(found) - MAX_FAILURES} more")
    return lines


def verdicts(study: Path, participants: Iterable[str]) -> dict[str, int]:
    """Participants of the sheet by their result.

    ``pass``: every value exists and every scan is within its charter; ``review``: something
    missing, failed or outside the charter beside values; ``fail``: rows, but no value;
    ``excluded``: nothing was measured or supplied.
    """
    table = read_table(
        study / "endpoints" / "measurements.tsv", columns=("participant_id", "status")
    )
    ok = set(table.loc[table["status"] == "ok", "participant_id"])
    odd = set(table.loc[table["status"] != "ok", "participant_id"])
    acquisition = study / "endpoints" / "acquisition.tsv"
    if acquisition.is_file():
        checks = read_table(acquisition, columns=("participant_id", "verdict"))
        odd |= set(checks.loc[checks["verdict"] == "fail", "participant_id"])
    count: Counter[str] = Counter()
    for one in participants:
        if one in ok:
            count["review" if one in odd else "pass"] += 1
        else:
            count["fail" if one in odd else "excluded"] += 1
    return {name: count[name] for name in ("pass", "review", "fail", "excluded")}


def _manifest_hash(study: Path) -> str | None:
    """SHA-256 over all products, from the manifest; None before there is one."""
    path = study / "provenance" / "manifest.json"
    return Manifest.read(path).products_sha256 if path.is_file() else None


class Progress(logging.Handler):
    """One progress bar on a terminal, plain lines elsewhere, and a line for each failed job.

    It listens to Snakemake's own events, so it needs no plugin. ``bar``: by default if stderr is a
    terminal.
    """

    def __init__(
        self, total: int, write: Callable[[str], Any] | None = None, bar: bool | None = None
    ) -> None:
        super().__init__()
        self.total, self.done, self.failed = total, 0, 0
        self.start_s = self.written_s = time.monotonic()
        self._write = write or (lambda text: print(text, file=sys.stderr, flush=True))
        self._bar: Any = None
        drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" if bar is None else bar
        if drawn and total > 1:
            self._draw()

    def _draw(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        self._bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[rate]}"),
            rich.TimeElapsedColumn(),
            rich.TextColumn("left"),
            rich.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("Corelab", total=self.total, rate="")
        self._bar.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a job that ended."""
        try:
            event = str(getattr(record, "event", "") or "")
            if event.endswith("job_finished"):
                self.done += 1
                self._report()
            elif event.endswith("job_error"):
                self.failed += 1
                self._report_failure(record)
        except Exception:
            self.handleError(record)

    def line(self) -> str:
        """Where the run stands."""
        elapsed = time.monotonic() - self.start_s
        rate = self.done / elapsed if elapsed else 0.0
        left = f", about {duration((self.total - self.done) / rate)} left" if rate else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} jobs done ({rate * 60:.1f} per min){left}{failed}"

    def _report(self) -> None:
        if self._bar is not None:
            rate = self.done / max(1e-3, time.monotonic() - self.start_s) * 60
            failed = f", {self.failed} failed" if self.failed else ""
            self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/min{failed}")
            return
        now = time.monotonic()
        if self.done == self.total or now - self.written_s >= PLAIN_EVERY_S:
            self.written_s = now
            self._write(self.line())

    def _report_failure(self, record: logging.LogRecord) -> None:
        rule = str(getattr(record, "rule_name", "") or "")
        cause, log = "", ""
        for log in map(str, getattr(record, "log", None) or []):
            place = place_of(Path(log), rule)
            for one in failures(place.study) if place else []:
                if place and one.log == place.log.as_posix():
                    cause = f": {one.cause}"
        self._write(f"FAILED {rule}{cause}" + (f" (log: {log})" if log else ""))

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def closing_lines(
    study: Path,
    participants: Iterable[str],
    found: Sequence[Failure],
    configfiles: Sequence[str],
    options: Mapping[str, str],
) -> list[str]:
    """What a run says at its end about participants, failures and the manifest."""
    lines = []
    if (study / "endpoints" / "measurements.tsv").is_file():
        counts = verdicts(study, participants)
        parts = ", ".join(f"{number} {name}" for name, number in counts.items())
        lines.append(f"Participants: {parts}.")
    whole = _manifest_hash(study)
    if whole:
        lines.append(f"Manifest of all products: sha256 {whole}")
    if found:
        lines.append(f"{len(found)} not done or not usable:")
        lines += _failure_lines(
            found,
            lambda one: retry_command(one.target, configfiles, options, force=not one.hard),
        )
    return lines


def status_lines(
    folder: Path,
    stages: Mapping[str, Sequence[str]],
    participants: Sequence[str] = (),
    configfiles: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
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
    lines = [f"Study folder {folder}"]
    for name, paths in stages.items():
        present = sum((folder / path).is_file() for path in paths)
        lines.append(f"  {name:<10} {present:>6} of {len(paths)} done")
    for name in (
        "endpoints/measurements.tsv",
        "statistics/agreement.tsv",
        "report/index.html",
        "provenance/manifest.json",
    ):
        state = "present" if (folder / name).is_file() else "not yet"
        lines.append(f"  {name:<28} {state}")
    # The asking job keeps an entry too.
    others = [(place, entry) for place, entry in entries(folder) if place.rule != "status"]
    running = [place for place, entry in others if entry.alive]
    lines.append(f"  jobs at work                 {len(running)}")
    lines += [f"    {place.rule} {place.name}" for place in running[:10]]
    found = [*failures(folder), *scan_failures(folder, stages)]
    lines.append(f"{len(found)} things to look at" + (":" if found else ""))
    return lines + closing_lines(folder, participants, found, configfiles, options or {})
