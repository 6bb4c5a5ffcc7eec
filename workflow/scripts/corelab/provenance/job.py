"""What every job of the workflow shares: its log, its threads, and how it fails.

Only the standard library is imported here, because the number of threads must be set before
numpy or ITK are.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from corelab.provenance.ledger import Terminated, place_of, recorded

#: The terminal's stdout while a job's own goes to its log.
_terminal: list[int] = []


class UserError(Exception):
    """An error whose message says all a person needs; no traceback is shown for it."""


class SnakemakeObject(Protocol):
    """The part of Snakemake's ``snakemake`` object that scripts use."""

    input: Any
    output: Any
    params: Any
    wildcards: Any
    log: Any
    threads: int


def _set_environment(threads: int) -> None:
    """Fix what results or files could depend on: threads, time zone, dates in figures.

    ITK gives other numbers with another number of threads, so it always has one.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["NUMBA_NUM_THREADS"] = str(max(1, threads))
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["MPLBACKEND"] = "Agg"
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    os.environ["TZ"] = "UTC"


@contextmanager
def logged(log: Path) -> Iterator[tuple[int, int]]:
    """Send stdout and stderr to a log, also from C++; gives where they went before."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    try:
        with open(log, "wb", buffering=0) as handle:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
        yield kept
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, own in enumerate(kept, start=1):
            os.dup2(own, number)
            os.close(own)


@contextmanager
def job(snakemake: SnakemakeObject) -> Iterator[None]:
    """Run a job: everything printed, also from C++, goes to its log; errors end in one line.

    The log is opened at file-descriptor level, because ITK prints past Python. A :class:`UserError`
    error leaves its message; any other leaves a traceback in the log, and the job fails. Its entry
    in the ledger (:mod:`corelab.provenance.ledger`) says how it went.
    """
    _set_environment(int(snakemake.threads))
    log = Path(str(snakemake.log[0]))
    message = None
    with logged(log) as kept:
        _terminal.append(kept[0])
        try:
            with recorded(
                place_of(log, getattr(snakemake, "rule", None)),
                inputs=[str(path) for path in getattr(snakemake, "input", ())],
                outputs=[str(path) for path in getattr(snakemake, "output", ())],
                wildcards=dict(getattr(snakemake, "wildcards", {}).items()),
                code=getattr(getattr(snakemake, "params", None), "code", None),
            ):
                yield
        except (UserError, Terminated) as error:
            message = str(error)
            print(message, file=sys.stderr)
        except Exception as error:
            message = f"{type(error).__name__}: {error} (traceback in {log})"
            traceback.print_exc()
        finally:
            _terminal.remove(kept[0])
    if message is not None:
        print(message, file=sys.stderr, flush=True)
        raise SystemExit(1)


def print_to_terminal(text: str) -> None:
    """Print to the person who started the run, past the job's log (and into it)."""
    print(text, flush=True)
    if _terminal:
        os.write(_terminal[-1], (text + "\n").encode())
