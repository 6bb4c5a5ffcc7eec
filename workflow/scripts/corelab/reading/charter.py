"""Rows of the guideline's checklist: what the charter states and what only people can state.

The guideline is that of the Chinese regulator (CDE) on independent imaging review; the rows are
those of ``docs/guideline_checklist.md``. Nothing here is ever ticked by the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from corelab.records.images import ScanRow
from corelab.settings.reading import ReadingSettings, ReadingWindow
from corelab.settings.report import Attestation
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS

NOT_ATTESTED = "NOT ATTESTED"
ATTESTATIONS = {
    "row": "Row of docs/guideline_checklist.md",
    "statement": "What has to be stated",
    "by_whom": "Who can state it",
    "state": "attested or NOT ATTESTED",
    "by": "Who stated it",
    "at": "When",
    "document": "Where it is stated",
}
#: Row -> (statement, by whom): roles A of the checklist.
STATEMENTS = {
    "C07d": ("Differences between sites are known and staff is qualified", "sponsor"),
    "C08": ("Technologists and physicians are trained; when scans are repeated", "sites"),
    "C09": ("Scanners are checked regularly, their reports are in date", "sites"),
    "C10": ("The protocol states how images are acquired and stored", "sponsor"),
    "C11": ("Acquisition, storage and transfer are audited periodically", "sponsor"),
    "C20": ("Criteria, qualification, training and quality control of readers", "core laboratory"),
    "C23": ("Background and conflicts of interest of readers and adjudicators", "each reader"),
    "C24": (
        "Readers were trained on documented images, the manual is submitted",
        "core laboratory",
    ),
    "C36": ("Investigators know their duties towards imaging", "investigators"),
    "C37": ("The core laboratory is independent and stores what it is given", "core laboratory"),
    "C38": ("Conflicts of interest of the contract research organisation", "CRO"),
    "C39": ("The core laboratory has a quality management system", "core laboratory"),
    "C40": ("Display and measurement software is certified for its use", "core laboratory"),
    "C43": ("Raw images, reads and records are kept for the trial and five years", "sponsor"),
}
REAL_TIME = ("real_time_eligibility", "real_time_read")
#: Rates for which the guideline demands limits in the charter.
DEMANDED_LIMITS = ("double_read_agreement", "adjudicator_agreement", "intra_reader_difference")


def attestation_table(given: Mapping[str, Attestation]) -> pd.DataFrame:
    """Statements that only people can make; columns :data:`ATTESTATIONS`.

    Examples
    --------
    >>> table = attestation_table({"C38": Attestation(by="K. Lee, director", at="2025-01-07")})
    >>> table.set_index("row").loc[["C38", "C39"], "state"].tolist()
    ['attested', 'NOT ATTESTED']
    """
    rows = []
    for name, (statement, whom) in STATEMENTS.items():
        one = given.get(name)
        state = "attested" if one else NOT_ATTESTED
        said = (one.by, one.at, one.document) if one else (None, None, None)
        cells = (name, statement, whom, state, *said)
        rows.append(cells)
    return pd.DataFrame(rows, columns=list(ATTESTATIONS), dtype=object)


#: Columns of the checks of the conduct of a read.
CONDUCT = {
    "check": "What was checked",
    "guideline": "Row of docs/guideline_checklist.md",
    "who": "Reader, workstation or all",
    "observed": "What was seen",
    "limit": "Limit of the charter, n/a where it has none",
    "verdict": "pass, fail or not_assessable",
    "message": "In words",
}


class Check(NamedTuple):
    """A check of :data:`CONDUCT`; ``failed`` is None where it is not assessable."""

    check: str
    guideline: str
    who: str
    observed: str | float | None
    limit: str | float | None
    failed: bool | None
    message: str

    @property
    def verdict(self) -> str:
        """Verdict of :mod:`corelab.terms.verdicts`."""
        return NOT_ASSESSABLE if self.failed is None else FAIL if self.failed else PASS


def charter_checks(settings: ReadingSettings) -> list[Check]:
    """Checks of the charter's own text.

    Examples
    --------
    >>> settings = ReadingSettings(charter={"timing": "real_time_read"})
    >>> {one.guideline: one.failed for one in charter_checks(settings)}["C22"]
    True
    """
    charter, limits = settings.charter, settings.limits
    stated = (
        ("mode", charter.mode, "C05", "whether images are reviewed as they come or afterwards"),
        ("primary", charter.primary, "C05", "whether the central read gives the primary endpoint"),
        ("timing", charter.timing, "C44", "when images are collected and read"),
        ("criteria", charter.criteria, "C16", "the criteria of assessment with their version"),
        ("quality_failure", charter.quality_failure, "C51",
         "what is done where quality control fails"),
    )  # fmt: skip
    found: list[Check] = []

    def add(name: str, row: str, said: str | float | None, missing: bool, words: str) -> None:
        text = f"{words}{': not said' * missing}"
        found.append(Check(name, row, "charter", said, None, missing, text))

    for name, said, row, words in stated:
        add(f"charter states {name}", row, said, said is None, words)
    own = "custom" in (charter.criteria or "").casefold()
    if own:
        why = charter.criteria_justification
        add("own criteria are justified", "C16", why, not why, "why they are used")
    if charter.timing in REAL_TIME:
        rule, days = charter.unblinding, settings.turnaround_days
        add("real-time design has an unblinding rule", "C22", rule, not rule, "the rule")
        add("real-time design has a turnaround limit", "C45", days, days is None, "days")
    reasons = settings.not_evaluable_reasons
    add("reasons for no value are a closed list", "C25", len(reasons), not reasons, "the list")
    for name in DEMANDED_LIMITS:
        limit = [f"{suffix} {limits[f'{name}_{suffix}']:g}" for suffix in ("min", "max")
                 if f"{name}_{suffix}" in limits]  # fmt: skip
        words = f"the allowed range of {name.replace('_', ' ')}"
        add(f"limit of {name}", "C53", ", ".join(limit) or None, not limit, words)
    return found


def visit_checks(
    scans: Sequence[ScanRow],
    windows: Mapping[str, ReadingWindow],
    baseline: str | None,
) -> list[Check]:
    """Windows of visits, and whether a subject's visits were scanned with the same kinds."""
    times: dict[tuple[str, str], Any] = {}
    kinds: dict[tuple[str, str], set[str]] = {}
    for row in scans:
        if row.is_mask:
            continue
        key = (row.participant_id, row.visit)
        kinds.setdefault(key, set()).add(row.kind)
        if row.acquired_at:
            when = pd.to_datetime(row.acquired_at, utc=True)
            times[key] = min(times.get(key, when), when)
    found: list[Check] = []
    for visit, window in windows.items():
        first, last = window.from_day, window.to_day
        own = sorted(person for person, name in kinds if name == visit)
        days = {
            person: (times[person, visit] - times[person, baseline]).total_seconds() / 86400.0
            for person in own
            if (person, visit) in times and baseline and (person, baseline) in times
        }
        outside = {p: d for p, d in days.items() if not first <= d <= last}
        text = f"{len(outside)} of {len(days)} outside, {len(own) - len(days)} without times"
        if outside:
            text += ": " + ", ".join(f"{p} on day {d:.1f}" for p, d in list(outside.items())[:5])
        failed = bool(outside) if days else None
        limit = f"day {first:g} to {last:g}"
        found.append(Check("visit in its window", "C33a", visit, len(outside), limit, failed, text))
    if len({visit for _, visit in kinds}) > 1:
        found.append(_same_kinds(kinds))
    return found


def _same_kinds(kinds: Mapping[tuple[str, str], set[str]]) -> Check:
    """Whether every subject's scans at a visit are of the kinds that most subjects have there."""
    by_visit: dict[str, list[frozenset[str]]] = {}
    for (_, visit), names in kinds.items():
        by_visit.setdefault(visit, []).append(frozenset(names))
    usual = {
        visit: max(sorted(sets, key=sorted), key=sets.count) for visit, sets in by_visit.items()
    }
    odd = sorted(
        f"{person} {visit}" for (person, visit), names in kinds.items() if usual[visit] - names
    )
    text = f"{len(odd)} visits lack a kind of scan that most have there"
    if odd:
        text += ": " + ", ".join(odd[:5])
    return Check("same kinds of scan at a visit", "C33c", "all", len(odd), 0, bool(odd), text)
