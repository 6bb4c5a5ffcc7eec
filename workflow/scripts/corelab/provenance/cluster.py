"""Slurm: which command can be asked how jobs are, before one of them is waited for in vain."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any


def _asked(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def mend_status_command(
    settings: Any, ask: Callable[[Sequence[str]], tuple[int, str]] = _asked
) -> str | None:
    """Let the Slurm executor ask ``squeue`` where accounting is off.

    There ``sacct`` fails without a word to the user, and the executor would wait for ever. It also
    falls back from ``squeue`` to ``sacct`` if finished jobs are forgotten sooner than three of its
    intervals; then the interval is shortened.

    Parameters
    ----------
    settings
        Of the executor, with ``status_command`` and ``init_seconds_before_status_checks``; changed
        in place. Those of another executor are left alone.
    ask
        Runs a command; exit code and text.

    Returns
    -------
    str or None
        What was changed, for the user.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> settings = SimpleNamespace(status_command="sacct", init_seconds_before_status_checks=40)
    >>> told = mend_status_command(settings, lambda command: (1, "accounting storage is disabled"))
    >>> settings.status_command
    'squeue'
    """
    if getattr(settings, "status_command", None) is None:
        return None
    told = []
    if settings.status_command == "sacct" and ask(["sacct", "-n", "-X"])[0] != 0:
        object.__setattr__(settings, "status_command", "squeue")
        told.append("sacct does not answer (accounting is off), so squeue is asked how jobs are")
    if settings.status_command == "squeue":
        found = re.search(r"MinJobAge\s*=\s*(\d+)", ask(["scontrol", "show", "config"])[1])
        least = int(found.group(1)) // 3 if found else None
        if least is not None and settings.init_seconds_before_status_checks > least:
            object.__setattr__(settings, "init_seconds_before_status_checks", max(1, least))
            told.append(f"jobs are asked for every {max(1, least)} s, because Slurm forgets them")
    return "; ".join(told) or None
