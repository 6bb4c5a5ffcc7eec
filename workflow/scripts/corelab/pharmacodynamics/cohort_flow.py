"""Cohort flow: ordered exclusion criteria, counted so that the numbers add up (CONSORT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from corelab.study.columns import FLOW
from corelab.study.expression import select


class FlowError(ValueError):
    """A declared flow whose counts do not add up."""


def cascade(
    n_in: int, steps: Sequence[Mapping[str, Any]], *, expected: int | None = None
) -> pd.DataFrame:
    """Flow from declared counts, as a published flow chart prints them.

    Parameters
    ----------
    n_in
        Number screened.
    steps
        ``stage`` and ``reason`` (text) and ``n_excluded``; steps of one stage leave together.
    expected
        Number at the end as published.

    Returns
    -------
    pandas.DataFrame
        The columns of flow.tsv: stage, n_in, n_out, reason, n_excluded; one row per reason.

    Raises
    ------
    FlowError
        If more leave than are there, or the end is not the expected number.

    Examples
    --------
    >>> step = {"stage": "early", "reason": "late", "n_excluded": 241}
    >>> flow = cascade(1756, [step], expected=1515)
    >>> flow[["n_in", "n_out"]].values.tolist()
    [[1756, 1515]]
    """
    rows = []
    remaining = int(n_in)
    for step in steps:
        leaving = int(step["n_excluded"])
        if leaving < 0 or leaving > remaining:
            raise FlowError(
                f"{step['stage']}: {leaving} excluded for '{step['reason']}', of {remaining} "
                "remaining"
            )
        rows.append((step["stage"], remaining, remaining - leaving, step["reason"], leaving))
        remaining -= leaving
    if expected is not None and remaining != expected:
        raise FlowError(f"the flow ends with {remaining}, not with the declared {expected}")
    return pd.DataFrame(rows, columns=list(FLOW))


def apply_criteria(
    table: pd.DataFrame, criteria: Sequence[Mapping[str, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exclude by ordered expressions; who meets several criteria leaves by the first.

    Parameters
    ----------
    table
        One row per participant.
    criteria
        ``exclude`` (expression of :mod:`corelab.study.expression`), ``reason``, and optionally
        ``stage``. A value that is missing meets no criterion: exclude missing values by an
        expression of their own (``not has_ncct``).

    Returns
    -------
    remaining, flow

    Examples
    --------
    >>> table = pd.DataFrame({"participant_id": list("abcd"), "hours": [2.0, 30.0, 5.0, 25.0]})
    >>> remaining, flow = apply_criteria(table, [{"exclude": "hours > 24", "reason": "EVT > 24 h"}])
    >>> remaining["participant_id"].tolist(), flow.loc[0, "reason"], int(flow.loc[0, "n_excluded"])
    (['a', 'c'], 'EVT > 24 h', 2)
    """
    remaining = table
    steps = []
    for criterion in criteria:
        leaving = select(criterion["exclude"], remaining)
        steps.append(
            {
                "stage": criterion.get("stage", "eligibility"),
                "reason": criterion["reason"],
                "n_excluded": int(leaving.sum()),
            }
        )
        remaining = remaining[~leaving]
    return remaining.reset_index(drop=True), cascade(len(table), steps, expected=len(remaining))


def merge(flows: Mapping[str, pd.DataFrame], *, expected: int | None = None) -> int:
    """Participants at the end of several flows together (data sets that are pooled).

    Raises
    ------
    FlowError
        If they do not add up to the expected number.

    Examples
    --------
    >>> one = cascade(10, [{"stage": "a", "reason": "x", "n_excluded": 4}])
    >>> merge({"first": one, "second": one}, expected=12)
    12
    """
    total = sum(int(flow["n_out"].iloc[-1]) for flow in flows.values())
    if expected is not None and total != expected:
        ends = ", ".join(f"{name} {int(flow['n_out'].iloc[-1])}" for name, flow in flows.items())
        raise FlowError(f"the flows ({ends}) add up to {total}, not to {expected}")
    return total


def overlap_counts(first: int, second: int, union: int) -> tuple[int, int, int]:
    """Only-first, both, only-second of two subsets with a known union.

    Examples
    --------
    Immediate scan in 140, delayed in 141, 175 in all: 34, 106 and 35.

    >>> overlap_counts(140, 141, 175)
    (34, 106, 35)
    """
    both = first + second - union
    if both < 0 or both > min(first, second):
        raise FlowError(f"{first} and {second} cannot make a union of {union}")
    return first - both, both, second - both
