"""A panel that assesses independently: unanimous calls stand, others need a consensus row."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from corelab.settings.reading import Panel

#: Columns that name one event of the events sheet.
EVENT_KEY = ("participant_id", "endpoint", "criterion")


class Undecided(NamedTuple):
    """An event on which a panel differs without a consensus; ``line`` is its first in the sheet."""

    line: int
    participant_id: str
    endpoint: str
    reason: str


def final_assessments(events: pd.DataFrame, panel: Panel) -> tuple[pd.DataFrame, list[Undecided]]:
    """One row per event: that of a unanimous panel, else the consensus.

    Parameters
    ----------
    events
        Events sheet as text, indexed by line.
    panel
        All of its assessors have to assess.

    Returns
    -------
    events
        Rows of others unchanged; of a panel's event one row: the consensus where there is one,
        else the first assessor's with the median date. An event that is not decided is left out.
    undecided
        Such events.

    Notes
    -----
    Central progression in JCOG0911A2: three assessors independently, consensus on disagreement.

    Examples
    --------
    >>> rows = pd.DataFrame({"participant_id": "1", "endpoint": "pfs", "criterion": "RANO",
    ...     "assessor": ["a", "b", "c"], "time_days": ["90", "90", "120"], "event": "1"})
    >>> panel = Panel(assessors=["a", "b", "c"])
    >>> final_assessments(rows, panel)[1][0].reason
    'a, b and c differ (90, 90, 120 days), and there is no row of consensus'
    """
    names, consensus = list(panel.assessors), panel.consensus
    if "assessor" not in events:
        return events, []
    of_panel = events["assessor"].isin([*names, consensus])
    key = [column for column in EVENT_KEY if column in events]
    kept: list[pd.DataFrame] = [events[~of_panel]]
    undecided: list[Undecided] = []
    for _, rows in events[of_panel].groupby(key, sort=False, dropna=False):
        agreed = rows[rows["assessor"] == consensus]
        if len(agreed):
            kept.append(agreed)
            continue
        calls = rows.drop_duplicates("assessor").set_index("assessor").reindex(names)
        days = pd.to_numeric(calls["time_days"], errors="coerce")
        absent = [name for name in names if pd.isna(days[name])]
        spread = float(days.max() - days.min())
        said = f"{', '.join(names[:-1])} and {names[-1]}"
        if absent:
            reason = f"no row of {', '.join(absent)}, nor of {consensus}"
        elif len(set(calls["event"])) > 1:
            reason = (
                f"{said} differ on whether there was an event, and there is no row of {consensus}"
            )
        elif spread > panel.window_days:
            shown = ", ".join(f"{day:g}" for day in days)
            reason = f"{said} differ ({shown} days), and there is no row of {consensus}"
        else:
            middle = rows[
                rows["assessor"] == days.sort_values(kind="stable").index[len(names) // 2]
            ]
            kept.append(middle)
            continue
        first = rows.iloc[0]
        who, endpoint = first["participant_id"], first["endpoint"]
        undecided.append(Undecided(int(rows.index[0]), who, endpoint, reason))
    return pd.concat(kept).sort_index(), undecided
