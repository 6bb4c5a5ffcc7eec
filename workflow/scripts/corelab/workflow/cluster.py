"""Slurm: whether the command that the executor asks for the state of jobs can answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def status_command_warnings(
    settings: Any, run: Callable[[Sequence[str]], tuple[int, str]] = _run
) -> list[str]:
    """Settings of the Slurm executor with which it would never learn that a job has ended.

    ``sacct`` fails silently where accounting is off, and the executor would wait for ever. It also
    falls back from ``squeue`` to ``sacct`` if Slurm forgets finished jobs sooner than three of its
    intervals. ``run`` runs a command: exit code and text. Each warning has the option that fixes
    it.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> settings = SimpleNamespace(status_command="sacct", init_seconds_before_status_checks=40)
    >>> status_command_warnings(settings, lambda command: (1, "accounting is disabled"))[0][-29:]
    '--slurm-status-command squeue'
    """
    command = getattr(settings, "status_command", None)
    if command == "sacct" and run(["sacct", "-n", "-X"])[0] != 0:
        return [
            "sacct does not answer (accounting is off), so ends of jobs go unnoticed: "
            "--slurm-status-command squeue"
        ]
    if command == "squeue":
        found = re.search(r"MinJobAge\s*=\s*(\d+)", run(["scontrol", "show", "config"])[1])
        least = max(1, int(found.group(1)) // 3) if found else None
        if least is not None and settings.init_seconds_before_status_checks > least:
            return [
                f"Slurm forgets ended jobs after {int(found.group(1)) if found else 0} s, so "
                f"squeue may miss them: --slurm-init-seconds-before-status-checks {least}"
            ]
    return []
