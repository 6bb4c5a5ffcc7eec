"""Inputs by content: what every job read, and whether that is still its content.

A file's time says nothing of its content: ``cp -p``, ``rsync -t``, archives and restored backups
put other content in place with an old time, and a fresh clone has the same content with new times.
Jobs therefore keep the sha256 of the inputs that they read, with size and times, in their entry of
the ledger (:mod:`corelab.provenance.ledger`). A later run asks the file system for sizes and times
alone; it reads a file again only where these differ, once, because what it found is kept.

Only the standard library is used, because jobs import this before threads are set.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from corelab.provenance.files import atomic_path, file_sha256

#: Contents of files whose times changed after a job had read them, below the study's ``jobs``.
KEPT_IN = "jobs/.contents"
#: Files of the study's folder that people write.
HAND_WRITTEN = ("review/", "reading/change_log")


def _stamp_of_file(status: os.stat_result) -> str:
    # The time of the last change of the inode cannot be set: it tells of a `cp -p`.
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _files_below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files of a folder with their status; names are relative to it."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)  # noqa: PTH118 (thousands of files)
            with suppress(OSError):
                yield os.path.relpath(path, folder), os.stat(path)  # noqa: PTH116


def _stamp_of(path: str | Path) -> str | None:
    """Size and times of a file, or of all files of a folder; equal until somebody writes to it.
    None without one.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return _stamp_of_file(status)
    lines = sorted(f"{name}:{_stamp_of_file(one)}" for name, one in _files_below(os.fspath(path)))
    return f"{len(lines)} files:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:32]}"


def _content_of(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and SHA-256 of all files of a folder."""
    if Path(path).is_dir():
        names = sorted(name for name, _ in _files_below(os.fspath(path)))
        lines = [f"{_content_of(Path(path) / name)}  {name}" for name in names]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return file_sha256(path)


def _is_input(path: str, study: Path) -> bool:
    """Whether a file is an input of the study and no product of one of its jobs."""
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(study))  # noqa: PTH100
    return inside.startswith("..") or inside.startswith(HAND_WRITTEN)


def _kept_file(path: str, study: Path) -> Path:
    return study / KEPT_IN / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"


def _kept(path: str, stamp: str, study: Path) -> str | None:
    """The content of a file that was read before, if the file has not been written since."""
    try:
        found = json.loads(_kept_file(path, study).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(found["sha256"]) if found.get("stamp") == stamp else None


def _keep(path: str, stamp: str, sha256: str, study: Path) -> None:
    content = {"path": path, "stamp": stamp, "sha256": sha256}
    # A folder that cannot be written to: the file is read again next time.
    with suppress(OSError), atomic_path(_kept_file(path, study), durable=False) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


#: Where reading a file takes longer than looking up what another job found, bytes.
LARGE = 64_000_000


@dataclass(frozen=True, slots=True)
class Stamped:
    """Size and times of an input, and its sha256; None for a file that cannot be read."""

    stamp: str
    sha256: str | None


def used(paths: Iterable[str], study: Path) -> dict[str, Stamped]:
    """Stamp and sha256 of the inputs among the files of a job, as they are now.

    Parameters
    ----------
    paths
        Inputs of the job; products of other jobs are left out.
    study
        The study's folder.

    Returns
    -------
    dict
        By path.
    """
    found: dict[str, Stamped] = {}
    for path in dict.fromkeys(paths):
        stamp = _stamp_of(path) if _is_input(path, study) else None
        if stamp is None:
            continue
        # Weights and containers of some GB are read by the first job only.
        large = Path(path).is_file() and Path(path).stat().st_size > LARGE
        sha256 = _kept(path, stamp, study) if large else None
        with suppress(OSError):
            sha256 = sha256 or _content_of(path)
            if large:
                _keep(path, stamp, sha256, study)
        found[path] = Stamped(stamp, sha256)
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """A job that read inputs of the study: rule and wildcards, its outputs, and what :func:`used`
    found.
    """

    name: str
    outputs: tuple[str, ...]
    inputs: Mapping[str, Stamped]


@dataclass
class Compared:
    """Inputs that jobs have read, against their present content.

    Attributes
    ----------
    same, missing
        Paths whose content is that which every job read, and paths that do not exist.
    changed
        Path -> names of the jobs that read other content.
    outputs
        Output of a job that read other content -> the paths.
    """

    same: set[str] = field(default_factory=set)
    changed: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


def compare(
    readers: Iterable[Reader],
    study: Path,
    *,
    read_all: bool = False,
    workers: int = 1,
    report: Callable[[str], None] | None = None,
) -> Compared:
    """Compare the inputs that jobs have read with what is there now.

    Parameters
    ----------
    readers
        The jobs and what they read.
    study
        The study's folder.
    read_all
        Read every file, also where size and times are as they were.
    workers
        Files that are read at once.
    report
        Called with a line before files are read.

    Examples
    --------
    >>> import tempfile; folder = Path(tempfile.mkdtemp()); sheet = folder / "a.tsv"
    >>> _ = sheet.write_text("1"); study = folder / "results"
    >>> job = Reader("collect", ("r/x",), used([str(sheet)], study))
    >>> _ = sheet.write_text("2"); list(compare([job], study).outputs)
    ['r/x']
    """
    by_path: dict[str, list[Reader]] = {}
    for reader in readers:
        for path in reader.inputs:
            by_path.setdefault(path, []).append(reader)
    found = Compared()
    stamps = {path: _stamp_of(path) for path in by_path}
    contents: dict[str, str | None] = {}
    to_read = []
    for path, stamp in stamps.items():
        if stamp is None:
            found.missing.add(path)
        elif not read_all and all(one.inputs[path].stamp == stamp for one in by_path[path]):
            found.same.add(path)
        elif read_all or not (kept := _kept(path, stamp, study)):
            to_read.append((path, stamp))
        else:
            contents[path] = kept
    contents |= _read(to_read, study, workers=workers, report=report)
    for path, content in contents.items():
        for reader in by_path[path]:
            was = reader.inputs[path]
            unreadable = content is None and was.stamp == stamps[path]  # as it was then
            if unreadable or (content is not None and content == was.sha256):
                continue
            found.changed.setdefault(path, []).append(reader.name)
            for output in reader.outputs:
                found.outputs.setdefault(output, []).append(path)
    found.same |= contents.keys() - found.changed.keys()
    return found


def _read(
    files: list[tuple[str, str]],
    study: Path,
    *,
    workers: int,
    report: Callable[[str], None] | None,
) -> dict[str, str | None]:
    """sha256 of files, which is kept; None where one cannot be read."""
    if files and report:
        report(
            f"Reading {len(files)} input {'file' if len(files) == 1 else 'files'} whose size or "
            "time is not as when they were used; what is as it was reruns nothing."
        )

    def read(one: tuple[str, str]) -> tuple[str, str | None]:
        path, stamp = one
        try:
            sha256 = _content_of(path)
        except OSError:
            return path, None
        _keep(path, stamp, sha256, study)
        return path, sha256

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return dict(pool.map(read, files))
