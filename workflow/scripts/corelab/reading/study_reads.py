"""Adjudication and lock of a whole study, as the workflow's rules ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corelab.provenance.products import read_table, write_json, write_table
from corelab.reading.adjudication import (
    ADJUDICATION,
    FINAL_READS,
    RATES,
    AdjudicationFault,
    adjudicate,
    adjudication_rates,
    rules_of,
)
from corelab.reading.lock import AUDIT, lock_reads
from corelab.reading.roster import busy_days, roster_faults
from corelab.study.model import Study


def adjudicate_study(study: Study, paths: Any) -> list[str]:
    """Write final reads, adjudication table and rates of a study.

    Parameters
    ----------
    study
        As read.
    paths
        Object with the attributes ``final``, ``adjudication``, ``rates``.

    Returns
    -------
    list of str
        What to look at: open adjudications, busy days.

    Raises
    ------
    AdjudicationFault
        If reads are not allowed by roster or charter.
    """
    settings, sheet = study.config["reading"], study.sheets.get("reads")
    faults = roster_faults(sheet, settings["certified"])
    if faults:
        raise AdjudicationFault("\n".join(["Reads without a valid certificate:", *faults]))
    final, table = adjudicate(sheet, rules_of(settings["adjudication"]))
    rates = adjudication_rates(final, table, limits=settings["limits"])
    write_table(final, paths.final, FINAL_READS)
    write_table(table, paths.adjudication, ADJUDICATION)
    write_table(rates, paths.rates, RATES)
    needed = int((table["state"] == "needed").sum())
    return [
        f"{len(final)} final reads, {int((final['how'] == 'missing').sum())} missing; "
        f"{needed} need an adjudicator",
        *busy_days(sheet, settings["reads_per_day"]),
    ]


def change_log_path(study: Study) -> Path:
    """The change log: as configured, else in the results folder."""
    configured = study.config["reading"]["change_log"]
    return Path(configured) if configured else study.folder / "reading" / "change_log.jsonl"


def lock_study(study: Study, final: str, paths: Any) -> list[str]:
    """Lock a study's reads, or hold them against the lock that is there.

    Parameters
    ----------
    study
        As read.
    final
        ``final_reads.tsv``.
    paths
        Object with the attributes ``lock`` and ``audit``.

    Returns
    -------
    list of str
        What was locked and what was changed since.
    """
    settings = study.config["reading"]
    charter = {
        name: settings[name] for name in ("presentation", "seed", "repeat_share", "adjudication")
    }
    lock, audit = lock_reads(
        Path(paths.lock),
        study.sheets.get("reads"),
        read_table(final),
        change_log_path(study),
        charter=charter,
        locked_at=settings["locked_at"],
    )
    write_json(lock, paths.lock)
    write_table(audit, paths.audit, AUDIT)
    changed = int((audit["verdict"] == "explained").sum())
    return [f"{len(lock['reads'])} reads locked, {changed} changed since, each change logged"]
