"""Which sources and visits an analysis compares: the plan's words against what has values."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from corelab.measurement.selection import Tables, as_list, visits_of
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.overlap import OverlapSpec

#: Final reads of a central read, and what the reads sheet's investigators are called together.
FINAL, INVESTIGATOR = "final", "investigator"
#: Beginnings of the names of sources that are made of others.
DERIVED = ("pipeline:", "final:", "rereview:")


def chosen_sources(analysis: AgreementSpec | OverlapSpec, there: Sequence[str]) -> list[str]:
    """Sources of an analysis in plan order; ``all`` is every source that has values.

    With ``all`` the pipeline comes first, then the supplied masks, then the others by name;
    variants of the pipeline (``pipeline:<threshold>``), which are no readers, and final reads,
    which are made of the readers' own, are left out.

    Examples
    --------
    >>> plan = OverlapSpec(id="o", type="overlap", label="infarct")
    >>> chosen_sources(plan, ["reader-2", "pipeline", "pipeline:x", "reader-1"])
    ['pipeline', 'reader-1', 'reader-2']
    """
    rank = {"pipeline": 0, "supplied": 1}
    everyone = sorted(
        (s for s in set(there) if not s.startswith(DERIVED) and s != FINAL),
        key=lambda s: (rank.get(s, 2), s),
    )
    chosen: list[str] = []
    for name in as_list(analysis.sources):
        chosen += [s for s in (everyone if name == "all" else [name]) if s not in chosen]
    return chosen


def by_visits(
    analysis: AgreementSpec | OverlapSpec, tables: Tables, rows: pd.DataFrame
) -> list[tuple[str, pd.DataFrame]]:
    """Visits, in study order, and their rows where each is analysed apart; else all rows once."""
    if not analysis.by_visit:
        planned = as_list(analysis.visit)
        return [(str(planned[0]) if len(planned) == 1 else "all", rows)]
    return [(v, rows[rows["visit"] == v]) for v in visits_of(analysis, tables, rows)]
