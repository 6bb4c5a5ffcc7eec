"""Ledger of jobs: what each one is doing, what it left, or why it failed.

Snakemake's own memory (``.snakemake``) can be lost, and says nothing of causes. Every job
therefore keeps one small file, ``jobs/<rule>/<name>.json`` in the study's folder: ``running`` with
process and host, then ``done`` with the sha256 of every output, written last, or ``failed`` with
the cause. Only the standard library is used, because jobs import this before threads are set.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from corelab.provenance.contents import Reader, Stamped, used
from corelab.provenance.files import TEMPORARY, WRITTEN, atomic_path, file_sha256

FOLDER = "jobs"
QUARANTINE = "quarantine"
#: Its name before, read for one version.
_EARLIER = "set-aside"
AGAIN = ".again.json"
#: Rules that only print or serve something: one that failed leaves nothing undone.
QUERIES = frozenset({"compare", "index", "review", "status", "trace", "verify"})
SCRATCH = "corelab-job-"
#: Outputs that jobs update and never make anew: the secret behind the pseudonyms of the readers'
#: packages, and the lock that reads are held against.
KEPT = frozenset({"reading/key.tsv", "reading/lock.json"})


class Terminated(BaseException):
    """The job was terminated (SIGTERM): temporary files are removed, outputs stay as they were."""


@dataclass(frozen=True)
class Failure:
    """A job that did not end well, or a scan that could not be used.

    ``subject`` and ``visit`` are BIDS entities or ids, empty for jobs of the whole study; ``log``
    and ``target`` (the file that the job makes) are paths from the working directory. ``hard``: the
    job itself failed; otherwise it ended well and reported unusable data.
    """

    subject: str
    visit: str
    step: str
    cause: str
    log: str
    target: str
    hard: bool = True


@dataclass(frozen=True)
class Place:
    """Where a job's entry lies, from the path of its log ``<study>/logs/<rule>/<name>.log``."""

    study: Path
    rule: str
    name: str

    @property
    def entry(self) -> Path:
        """The job's file."""
        return self.study / FOLDER / self.rule / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """The job's log."""
        return self.study / "logs" / self.rule / f"{self.name}.log"


def place_of(log: Path, rule: str | None) -> Place | None:
    """Place of a job in the ledger; None for a log that lies elsewhere.

    Examples
    --------
    >>> place_of(Path("results/logs/s/logs/prepare/sub-1_ses-a.log"), "prepare").entry.as_posix()
    'results/logs/s/jobs/prepare/sub-1_ses-a.json'
    """
    parts = log.with_suffix("").parts
    for index in range(len(parts) - 2, 0, -1):
        if parts[index - 1] == "logs" and parts[index] == rule:
            return Place(Path(*parts[: index - 1]), rule, "/".join(parts[index + 1 :]))
    return None


@dataclass(frozen=True, slots=True)
class Left:
    """A file as its job left it: SHA-256, and size in bytes."""

    sha256: str
    bytes: int

    def matches(self, path: Path) -> bool:
        """Whether the file is as it was."""
        same_size = path.is_file() and path.stat().st_size == self.bytes
        return same_size and file_sha256(path) == self.sha256


@dataclass(frozen=True, slots=True)
class Entry:
    """A job's file in the ledger.

    Attributes
    ----------
    state
        ``running``, ``done`` or ``failed``.
    rule, name, wildcards, code
        Of the job; ``code`` is the digest of its code.
    outputs
        Files that it declares; what it left in them is known once it is done.
    beside
        Files that it wrote and does not declare.
    inputs
        Inputs of the study as they were when it started.
    made_from
        Of a part of a job (:mod:`corelab.provenance.parts`): digest of all that it was made from.
    pid, started, host, slurm_job, scratch
        Process and temporary folder of a running job.
    cause
        Why it failed.
    """

    state: str = ""
    rule: str = ""
    name: str = ""
    wildcards: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Left | None] = field(default_factory=dict)
    beside: Mapping[str, Left] = field(default_factory=dict)
    inputs: Mapping[str, Stamped] = field(default_factory=dict)
    code: str | None = None
    made_from: str = ""
    pid: int = 0
    started: str | None = None
    host: str | None = None
    slurm_job: str | None = None
    scratch: str = ""
    cause: str | None = None

    @classmethod
    def read(cls, path: Path) -> Entry | None:
        """Read a file; None for one that is damaged. Keys of other versions are ignored."""
        content = _read(path)
        if content is None:
            return None
        try:
            known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
            # A job that is not done knows the names of its outputs only.
            outputs = known.get("outputs") or {}
            if not isinstance(outputs, Mapping):
                outputs = dict.fromkeys(outputs)
            known["outputs"] = {name: left and Left(**left) for name, left in outputs.items()}
            for key, kind in (("beside", Left), ("inputs", Stamped)):
                known[key] = {name: kind(**one) for name, one in (known.get(key) or {}).items()}
            known["wildcards"] = known.get("wildcards") or {}
            return cls(**known)
        except (TypeError, AttributeError):
            return None

    def write(self, path: Path, *, durable: bool) -> None:
        """Write the file."""
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.state != "done":
            content["outputs"] = list(self.outputs)
        known = {key: value for key, value in content.items() if value not in (None, "", 0)}
        _write(known, path, durable=durable)

    @property
    def alive(self) -> bool:
        """Whether the process of a running job still runs.

        A process of another host is known only through Slurm; without it, it counts as ended.
        """
        if self.state != "running":
            return False
        if self.host == socket.gethostname():
            started = _started(self.pid)
            return started is not None and started == self.started
        return bool(self.slurm_job) and _slurm_alive(str(self.slurm_job))


def _write(content: Any, path: Path, *, durable: bool) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, default=_plain)
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plain(record: Any) -> Any:
    return {one.name: getattr(record, one.name) for one in fields(record)}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None


def _output_digests(names: Iterable[str]) -> dict[str, Left]:
    """What a job leaves, by path, of the files that exist."""
    files = {name: Path(name) for name in names}
    return {
        name: Left(file_sha256(file), file.stat().st_size)
        for name, file in files.items()
        if file.is_file()
    }


def _undeclared_outputs(study: Path, outputs: Sequence[str], before: Collection[str]) -> list[str]:
    """Files of the study that a job wrote and does not declare: dictionaries of tables, pages.

    ``before``: files that this process had written when the job, a part of another one, started.

    Those of the image stages are listed, with their SHA-256, in the record that the stage declares.
    """
    root = study.absolute()
    known = {*before, *(str(Path(name).absolute()) for name in outputs)}
    found = []
    for name in sorted(WRITTEN - known):
        parts = Path(name).relative_to(root).parts if Path(name).is_relative_to(root) else ()
        if parts and parts[0] not in {"derivatives", FOLDER}:
            found.append((study / Path(*parts)).as_posix())
    return found


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: tells it from a later one of that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _end(number: int, frame: Any) -> None:
    raise Terminated(f"ended by signal {number}")


@contextmanager
def recorded(
    place: Place | None,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    wildcards: Mapping[str, str] | None = None,
    code: str | None = None,
    made_from: str = "",
) -> Iterator[None]:
    """Keep a job's entry, and a private folder for its temporary files, while it runs.

    Parameters
    ----------
    place
        None: nothing is kept.
    inputs
        Files that the job reads. Of those that no other job makes, the entry has the sha256 as it
        is when the job starts: what is written while the job runs counts as changed afterwards.
    outputs
        Files that the job declares; their sha256 is in the entry once it is done.
    wildcards
        Of the job.
    code, made_from
        Digest of the job's code; of a part of a job, of all that it is made from.
    """
    scratch = tempfile.mkdtemp(prefix=SCRATCH)  # mode 0700
    before = {name: os.environ.get(name) for name in ("TMPDIR",)}
    written = set(WRITTEN)
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None
    head = Entry(
        rule=place.rule if place else "",
        name=place.name if place else "",
        wildcards=dict(wildcards or {}),
        outputs=dict.fromkeys(sorted(outputs)),
        inputs=used(inputs, place.study) if place else {},
        code=code,
        made_from=made_from,
    )
    running = replace(
        head,
        state="running",
        pid=os.getpid(),
        started=_started(os.getpid()),
        host=socket.gethostname(),
        slurm_job=os.environ.get("SLURM_JOB_ID"),
        scratch=scratch,
    )
    with suppress(ValueError):  # signals can be set in the main thread only
        signal.signal(signal.SIGTERM, _end)
    try:
        if place:
            running.write(place.entry, durable=False)
        yield
        if place:
            done = replace(
                head,
                state="done",
                outputs=_output_digests(outputs),
                beside=_output_digests(_undeclared_outputs(place.study, outputs, written)),
            )
            done.write(place.entry, durable=True)
    except BaseException as error:
        if place:
            cause = " ".join(str(error).split()) or type(error).__name__
            if type(error).__name__ not in {"UserError", "Terminated"}:
                cause = f"{type(error).__name__}: {cause}"
            with suppress(OSError):  # the disk may be full; the log and the exit code remain
                failed = replace(head, state="failed", cause=cause[:500])
                failed.write(place.entry, durable=False)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None


def entries(study: Path) -> Iterator[tuple[Place, Entry]]:
    """All entries of a study, sorted."""
    root = study / FOLDER
    for path in sorted(root.rglob("*.json")):
        parts = path.relative_to(root).with_suffix("").parts
        if (
            path.name.startswith(".")
            or parts[0] in {QUARANTINE, _EARLIER}
            or parts[0].startswith(".")
        ):
            continue
        entry = Entry.read(path)
        if entry is not None:
            yield Place(study, parts[0], "/".join(parts[1:])), entry


def _slurm_alive(job: str) -> bool:
    try:
        queue = subprocess.run(
            ["squeue", "--noheader", "--format=%T", "--jobs", job],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(queue.stdout.strip())


def wait_for_others(study: Path, report: Callable[[str], None], *, poll_s: float = 1.0) -> int:
    """Wait until jobs of an earlier, killed run have ended, so that no file has two writers.

    Returns their number.
    """
    waiting = {place: entry for place, entry in entries(study) if entry.alive}
    count = len(waiting)
    for place, entry in waiting.items():
        how = f"scancel {entry.slurm_job}" if entry.slurm_job else f"kill {entry.pid}"
        report(
            f"A job of an earlier run is still at work: {place.rule} {place.name} on "
            f"{entry.host}. Waiting for it to end; to end it: {how}"
        )
    while waiting:
        time.sleep(poll_s)
        waiting = {p: e for p, e in waiting.items() if Entry.read(p.entry) == e and e.alive}
    return count


def clear_leftovers(study: Path) -> int:
    """Remove temporary files of jobs that were killed; the number of files and folders."""
    count = 0
    for _, entry in entries(study):
        scratch = Path(entry.scratch)
        ours = entry.host == socket.gethostname() and scratch.name.startswith(SCRATCH)
        if ours and not entry.alive and scratch.is_dir():
            shutil.rmtree(scratch, ignore_errors=True)
            count += 1
    for root, _, names in os.walk(study):
        for name in names:
            if name.startswith(TEMPORARY):
                with suppress(OSError):
                    Path(root, name).unlink()
                    count += 1
    return count


def clamp_future_mtimes(study: Path, now_s: float | None = None) -> int:
    """Set modification times in the future to now: a clock was set back or is ahead.

    Snakemake ends a job whose input is newer than its new output, which would be so until the clock
    has caught up. Every run writes entries, so their folders tell whether there is anything to do.

    Parameters
    ----------
    study
        The study's folder.
    now_s
        Time now, s since 1970.

    Returns
    -------
    int
        Number of files.
    """
    now = time.time() if now_s is None else now_s
    kept = study / FOLDER
    folders = [one for one in kept.iterdir() if one.is_dir()] if kept.is_dir() else []
    if not any(folder.stat().st_mtime > now for folder in folders):
        return 0
    count = 0
    for root, _, names in os.walk(study):
        os.utime(root, (now, now))
        for path in (Path(root, name) for name in names):
            with suppress(OSError):
                if path.stat().st_mtime > now:
                    os.utime(path, (now, now))
                    count += 1
    return count


@dataclass
class FolderLock:
    """One run at a time writes into a study's folder, wherever it was started.

    Snakemake's lock lies in the working directory; two runs from two directories would not see
    each other. The kernel drops this one when the process ends, however it ends.
    """

    study: Path
    _handle: IO[str] | None = field(default=None, repr=False)

    def acquire(self) -> str | None:
        """Take the lock; or say who has it."""
        path = self.study / FOLDER / ".lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (kept open while the run lasts)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            who = handle.read().strip() or "another process"
            handle.close()
            return who
        except OSError:
            handle.close()
            return None  # a file system without locks
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        self._handle = handle
        return None


def corrupted_outputs(study: Path, codes: Mapping[str, str]) -> list[str]:
    """Outputs of jobs of which one is not as the job left it, or that other code left.

    Parameters
    ----------
    study
        The study's folder.
    codes
        Rule -> digest of its code now.

    Returns
    -------
    list of str
        Paths as declared, of files that are there or not: all outputs of such a job. Not among
        them: a file that no job of the ledger left, and :data:`KEPT`.
    """
    wrong: set[str] = set()
    beside: dict[str, list[tuple[Left, list[str]]]] = {}
    for place, entry in entries(study):
        other_code = place.rule in codes and entry.code != codes[place.rule]
        whole = entry.state == "done" and not other_code
        if not whole or not all(
            left and left.matches(Path(name)) and _products_unchanged(Path(name), study)
            for name, left in entry.outputs.items()
        ):
            wrong.update(entry.outputs)
            continue
        for name, left in entry.beside.items():
            beside.setdefault(name, []).append((left, list(entry.outputs)))
    for name, makers in beside.items():
        # It may be written by several jobs, one after the other.
        if not any(left.matches(Path(name)) for left, _ in makers):
            wrong.update(one for _, outputs in makers for one in outputs)
    kept = {study / name for name in KEPT}
    return sorted(name for name in wrong if Path(name) not in kept)


def _products_unchanged(record: Path, study: Path) -> bool:
    """Whether the files that a stage's record lists are as it says."""
    if record.suffix != ".json" or "derivatives" not in record.parts:
        return True
    content = _read(record) or {}
    products = content.get("products") or {}
    return all(
        (study / name).is_file() and file_sha256(study / name) == sha256
        for name, sha256 in products.items()
    )


def quarantine(paths: Iterable[str], study: Path) -> None:
    """Move corrupted outputs to their place below ``jobs/quarantine``, and list them.

    Snakemake makes a missing file only if it is requested or something is still to be made from
    it; :func:`invalidated_outputs` gives those that have to be requested.
    """
    folder = study / FOLDER / QUARANTINE
    again = invalidated_outputs(study) | set(paths)
    for name in again:
        if Path(name).is_file():
            target = folder / Path(name).relative_to(study)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(name, target)
    folder.mkdir(parents=True, exist_ok=True)
    _write({"paths": sorted(again)}, folder / AGAIN, durable=True)


def invalidated_outputs(study: Path) -> set[str]:
    """Files that were quarantined, or were found missing then, and are still missing."""
    lists = [_read(study / FOLDER / name / AGAIN) or {} for name in (QUARANTINE, _EARLIER)]
    names = {name for one in lists for name in one.get("paths", ())}
    return {name for name in names if not Path(name).exists()}


def failures(study: Path) -> list[Failure]:
    """Jobs that failed or were killed and have not been done since; not those that only print."""
    found = []
    for place, entry in entries(study):
        if entry.state == "done" or place.rule in QUERIES or entry.alive:
            continue
        killed = "terminated unexpectedly (killed, out of memory, or node failure)"
        found.append(
            Failure(
                entry.wildcards.get("subject", ""),
                entry.wildcards.get("session", ""),
                place.rule,
                str(entry.cause) if entry.state == "failed" else killed,
                place.log.as_posix(),
                next(iter(entry.outputs), ""),
            )
        )
    return found


def standing(study: Path) -> tuple[list[Reader], set[str]]:
    """Jobs that ended well and read inputs of the study, and unfinished outputs.

    Unfinished are outputs of jobs that failed, or were killed on this host, and have not been done
    since. Where all that is made from such an output exists, Snakemake would not miss it.
    """
    readers: list[Reader] = []
    unfinished: set[str] = set()
    # One by one: the entries of ten thousand visits are not kept while jobs are planned.
    for place, entry in entries(study):
        outputs = tuple(entry.outputs)
        if entry.state != "done":
            # A job on another host may still run: whoever starts a run waits for it.
            here = entry.host in (None, socket.gethostname())
            if place.rule not in QUERIES and here and not entry.alive:
                unfinished.update(outputs)
        elif entry.inputs:
            name = place.rule if place.name == place.rule else f"{place.rule} {place.name}"
            readers.append(Reader(name, outputs, entry.inputs))
    return readers, unfinished


def retry_command(
    target: str,
    configfiles: Sequence[str],
    options: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> str:
    """The command that makes one file again.

    ``force``: also where Snakemake sees nothing that changed, because the job ended well and
    reported unusable data.

    Examples
    --------
    >>> retry_command("r/x.json", ["my study.yaml"], force=True)
    "snakemake --cores 1 --rerun-incomplete --force --configfile 'my study.yaml' -- r/x.json"
    """
    parts = ["snakemake", "--cores", "1", "--rerun-incomplete", *["--force"] * force]
    if configfiles:
        parts += ["--configfile", *map(str, configfiles)]
    if options:
        parts += ["--config", *(f"{key}={value}" for key, value in options.items())]
    return shlex.join([*parts, "--", target])
