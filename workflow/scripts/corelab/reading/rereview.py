"""Re-review after the lock: allowed with four evidences only, and never in place of the original.

After the guideline of the Chinese regulator on independent imaging review: a locked read may be
read again only before the trial's database is locked, where a condition of the charter is met,
where sponsor and core laboratory both confirm that the read has lost its credibility, and after
the regulator was consulted. That readers and investigators differ, or that a result disappoints,
is no reason. What a re-review gives is a sensitivity analysis beside the original.
"""

from __future__ import annotations

import pandas as pd

from corelab.settings.reading import Rereview

#: Evidence -> what it has to hold. Sponsor and core laboratory are one evidence of two halves.
EVIDENCES = {
    "before_database_lock": "that the trial's database was not locked yet (document, date)",
    "charter_condition": "which condition of the charter is met",
    "confirmed_by_sponsor": "that the sponsor confirms the loss of credibility (who, when)",
    "confirmed_by_core_laboratory": "that the core laboratory confirms it too (who, when)",
    "regulator_consulted": "that the regulator was consulted (document, date)",
}
REASONS = {
    "loss_of_credibility": "the locked read is not credible",
    "charter_condition": "a condition that the charter lists",
}
#: Reasons that people give and the guideline rules out.
REFUSED = {
    "discordance": "readers or investigators differ",
    "unfavourable": "the result disappoints",
}


def rereview_faults(sheet: pd.DataFrame | None, settings: Rereview | None) -> list[str]:
    """Evidence that a re-review lacks; empty where there is no re-review, or it is complete.

    ``sheet`` has the reads made after the lock (``inputs.rereads``).

    Examples
    --------
    >>> reads = pd.DataFrame({"participant_id": ["1"]})
    >>> rereview_faults(reads, Rereview(reason="discordance"))[0]
    're-review: the reason "discordance" is not allowed: readers or investigators differ'
    """
    if sheet is None or not len(sheet):
        return []
    faults = []
    reason = settings.reason if settings else None
    if reason in REFUSED:
        faults.append(f're-review: the reason "{reason}" is not allowed: {REFUSED[reason]}')
    elif reason not in REASONS:
        faults.append(
            "re-review: no reason is given (reading.rereview.reason: " + ", ".join(REASONS) + ")"
        )
    evidence = settings.evidence.plain() if settings and settings.evidence else {}
    faults += [
        f"re-review: the evidence {name} is missing: {words} (reading.rereview.evidence)"
        for name, words in EVIDENCES.items()
        if not str(evidence.get(name) or "").strip()
    ]
    return faults
