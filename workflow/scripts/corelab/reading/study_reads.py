"""The central read of a study: entry points of the workflow's rules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import (
    file_sha256,
    read_table,
    write_json,
    write_table,
)
from corelab.reading.adjudication import (
    ADJUDICATION,
    FINAL_READS,
    AdjudicationFault,
    adjudicate,
    rules_of,
)
from corelab.reading.charter import ATTESTATIONS, attestation_table
from corelab.reading.conduct import CONDUCT, TURNAROUND, conduct_table, turnaround
from corelab.reading.lock import (
    AUDIT,
    BANNERS,
    log_without_lock,
    make_lock,
    read_key,
    read_lock,
    verify_lock,
)
from corelab.reading.rates import (
    P_CHART,
    RATES,
    adjudication_rates,
    intra_reader_rates,
    p_chart,
)
from corelab.reading.reader_list import busy_days, certification_faults
from corelab.reading.rereview import rereview_faults
from corelab.records.reading import Validity
from corelab.settings.reading import ReadingSettings
from corelab.study.model import Study


def adjudicate_study(study: Study, paths: Any) -> list[str]:
    """Write final reads, adjudication table, rates, p-chart, conduct and turnaround of a study.

    ``paths`` has the attributes ``final``, ``adjudication``, ``rates``, ``p_chart``, ``conduct``,
    ``attestations``, ``turnaround`` and ``rereview``. Returned is what to look at: open
    adjudications, busy days.

    Raises AdjudicationFault if reads are not allowed by certificates or charter.
    """
    settings, sheet = study.settings.reading, study.sheets.get("reads")
    faults = certification_faults(sheet, settings.certified)
    if faults:
        raise AdjudicationFault("\n".join(["Reads without a valid certificate:", *faults]))
    rules, limits = rules_of(settings.adjudication), settings.limits
    final, table = adjudicate(sheet, rules)
    found = [
        frame
        for frame in (
            adjudication_rates(final, table, limits=limits),
            intra_reader_rates(sheet, rules, limits=limits),
        )
        if len(frame)
    ]
    rates = pd.concat(found) if found else pd.DataFrame(columns=list(RATES), dtype=object)
    # Without its evidences a re-review counts for nothing, not even beside the original.
    rereads = study.sheets.get("rereads")
    allowed = not rereview_faults(rereads, settings.rereview)
    again, _ = adjudicate(rereads if allowed else None, rules)
    for frame, path, columns in (
        (final, paths.final, FINAL_READS),
        (table, paths.adjudication, ADJUDICATION),
        (rates, paths.rates, RATES),
        (p_chart(final, table, sheet, parts=settings.stability_parts), paths.p_chart, P_CHART),
        (
            conduct_table(sheet, settings, scans=study.scans, baseline=study.baseline),
            *(paths.conduct, CONDUCT),
        ),
        (attestation_table(study.settings.attestations), paths.attestations, ATTESTATIONS),
        (
            turnaround(sheet, _received(study), limit_days=settings.turnaround_days),
            *(paths.turnaround, TURNAROUND),
        ),
        (again, paths.rereview, FINAL_READS),
    ):
        write_table(frame, path, columns)
    needed = int((table["state"] == "needed").sum())
    outside = rates[rates["verdict"] == "outside"]
    return [
        f"{len(final)} final reads, {int((final['how'] == 'missing').sum())} missing; "
        f"{needed} to be decided",
        *(
            f"{row['endpoint']}: {row['statistic']} of {row['group']} {row['estimate']:.3f} is "
            f"outside the charter's {row['limit']}"
            for row in outside.to_dict("records")
        ),
        *busy_days(sheet, settings.reads_per_day),
    ]


def _received(study: Study) -> dict[tuple[str, str], str]:
    """(participant_id, visit) -> time of its last scan."""
    found: dict[tuple[str, str], str] = {}
    for row in study.scans:
        if row.acquired_at:
            key = (row.participant_id, row.visit)
            found[key] = max(found.get(key, ""), row.acquired_at)
    return found


def _change_log_path(study: Study) -> Path:
    """The change log: as configured, else in the results folder."""
    configured = study.settings.reading.change_log
    return Path(configured) if configured else study.folder / "reading" / "change_log.jsonl"


def _contour_digests(study: Study) -> dict[str, str]:
    """Scan identifier -> SHA-256 of every reader's contour that exists."""
    return {
        row.scan_id: file_sha256(row.path)
        for row in study.scans
        if row.is_mask and row.reader and row.exists and not row.simulated
    }


def _key(settings: ReadingSettings) -> bytes | None:
    return read_key(settings.signing_key) if settings.signing_key else None


def _open_items(
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    adjudication: pd.DataFrame,
    settings: ReadingSettings,
) -> list[str]:
    """Open points before a lock: decisions to be made, second reads, confirmations."""
    found = []
    needed = adjudication[adjudication["state"] == "needed"]
    ruled = {rule.endpoint for rule in settings.adjudication}
    alone = final[
        final["endpoint"].isin(ruled)
        & final["reason"].fillna("").str.contains("the charter's rule needs", regex=False)
    ]
    for rows, what in ((needed, "to be decided"), (alone, "without all readers")):
        if len(rows):
            shown = [
                f"{row['participant_id']} {row['visit']} {row['endpoint']}"
                for row in rows.head(5).to_dict("records")
            ]
            more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
            found.append(f"{len(rows)} cases {what}: {', '.join(shown)}{more}")
    if sheet is not None and "confirmed_at" in sheet:
        silent = int(sheet["confirmed_at"].isna().sum())
        if silent:
            found.append(f"{silent} reads are not confirmed by their reader (confirmed_at)")
    return found


def make_study_lock(study: Study, given: Any, path: str | Path) -> list[str]:
    """Lock a study's reads, once, at ``path``; an existing lock is kept.

    Without ``reading.locked_at`` only a complete read is locked (every case decided, every read
    confirmed); with it the read is locked as it stands, and what was open is written into the
    lock. ``given`` has the attributes ``final`` and ``adjudication``. Returned is what was locked,
    or why nothing was.
    """
    file = Path(path)
    if file.is_file() and not read_lock(file).open:
        return ["the lock exists and is kept"]
    settings, sheet = study.settings.reading, study.sheets.get("reads")
    final = read_table(given.final)
    items = _open_items(sheet, final, read_table(given.adjudication), settings)
    gone = log_without_lock(_change_log_path(study))
    if gone:
        write_json({"open": [gone]}, file)
        return [gone]
    if items and not settings.locked_at:
        write_json({"open": items}, file)
        return ["nothing is locked yet:", *items, "reading.locked_at locks the read as it stands"]
    lock = make_lock(
        sheet,
        final,
        settings,
        open_at_lock=items,
        contours=_contour_digests(study),
        key=_key(settings),
    )
    lock.write(file)
    file.chmod(0o444)
    return [f"{len(lock.reads)} reads locked; note its hash: {lock.lock_sha256}"]


def verify_study_lock(study: Study, given: Any, paths: Any) -> list[str]:
    """Compare a study's reads with their lock; write the audit and the standing.

    ``given`` has the attributes ``lock`` and ``final``, ``paths`` ``audit`` and ``validity``.
    """
    settings = study.settings.reading
    standing, audit = verify_lock(
        Path(given.lock),
        study.sheets.get("reads"),
        read_table(given.final),
        _change_log_path(study),
        settings,
        contours=_contour_digests(study),
        key=_key(settings),
        rereview=rereview_faults(study.sheets.get("rereads"), settings.rereview),
    )
    write_table(audit, paths.audit, AUDIT)
    standing.write(paths.validity)
    return _standing_lines(standing)


def banner_of(paths: Iterable[str | Path]) -> str | None:
    """Banner of ``validity.json``, if that file is among the paths."""
    for path in paths:
        if Path(path).name == "validity.json":
            return Validity.read(path).banner
    return None


def _standing_lines(standing: Validity) -> list[str]:
    """The standing of a read in a few lines."""
    if standing.state == "open":
        return [BANNERS["open"], *standing.open]
    if standing.state == "valid":
        reads, changes = standing.locked_reads, standing.changes_since
        return [f"{reads} reads as they were locked, {changes} logged changes since"]
    return [
        BANNERS["invalid"],
        *standing.faults,
        "Restore them, or log each change: python -m corelab.reading.change_log LOG --help",
    ]
