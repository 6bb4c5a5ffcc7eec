"""A random sample of subjects for central reading, stratified and seeded.

A double-blind trial may have a sample of its subjects read centrally to check the investigators
(CDE guideline on independent imaging review); a single-arm trial may not: all
participants are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from corelab.reading.presentation import generator

SAMPLE = {
    "participant_id": "Subject identifier",
    "stratum": "Levels of the strata, separated by a slash; all where none are planned",
    "stratum_size": "Subjects in the stratum",
    "stratum_drawn": "Subjects drawn from it",
    "drawn": "yes or no",
}


def _allocation(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Number to draw from each stratum: proportional, largest remainders, at least one each.

    Where there are more strata than subjects to draw, one of each is drawn all the same: a
    stratum without a sampled case could not be checked.
    """
    every = sum(sizes.values())
    exact = {name: total * size / every for name, size in sizes.items()}
    drawn = {name: max(1, math.floor(share)) for name, share in exact.items()}
    while sum(drawn.values()) < total:
        open_ = [name for name in sizes if drawn[name] < sizes[name]]
        if not open_:
            break
        name = max(open_, key=lambda n: (exact[n] - drawn[n], n))
        drawn[name] += 1
    while sum(drawn.values()) > max(total, len(sizes)):
        name = max((n for n in sizes if drawn[n] > 1), key=lambda n: (drawn[n] - exact[n], n))
        drawn[name] -= 1
    return drawn


def stratified_sample(
    participants: pd.DataFrame, *, share: float, strata: Sequence[str], seed: int
) -> pd.DataFrame:
    """Draw subjects at random within strata; columns :data:`SAMPLE`, one row per subject.

    ``share`` of the subjects is rounded up to whole subjects; a missing cell is a level of its own.
    The draw of a stratum depends on nothing but the seed, the stratum and the subjects in it.

    Examples
    --------
    >>> people = pd.DataFrame({"participant_id": [f"{n:02d}" for n in range(20)],
    ...                        "site": ["A"] * 15 + ["B"] * 5})
    >>> table = stratified_sample(people, share=0.4, strata=["site"], seed=1)
    >>> table[table["drawn"] == "yes"].groupby("stratum").size().to_dict()
    {'A': 6, 'B': 2}
    """
    people = participants.drop_duplicates("participant_id")
    labels = (
        people[list(strata)].fillna("n/a").astype(str).agg("/".join, axis=1)
        if strata
        else pd.Series("all", index=people.index)
    )
    groups = {
        str(name): sorted(people.loc[rows.index, "participant_id"])
        for name, rows in labels.groupby(labels, sort=True)
    }
    if not groups:
        return pd.DataFrame(columns=list(SAMPLE), dtype=object)
    total = math.ceil(share * len(people) - 1e-9)
    numbers = _allocation({name: len(ids) for name, ids in groups.items()}, total)
    rows = []
    for name, ids in groups.items():
        drawn = set(generator(seed, "sample", name).permutation(ids)[: numbers[name]].tolist())
        for one in ids:
            cells = (one, name, len(ids), numbers[name], "yes" if one in drawn else "no")
            rows.append(cells)
    return pd.DataFrame(rows, columns=list(SAMPLE), dtype=object)
