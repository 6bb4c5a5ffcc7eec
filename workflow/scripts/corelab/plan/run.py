"""One analysis of the plan in, its statistics rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from corelab.measurement.selection import Tables, statistics_frame, undecided_words
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.results import StatisticRow
from corelab.terms.statistics import statistic

#: Types of other packages may give plain mappings of the columns.
Analyse = Callable[[Any, Tables], Iterable[StatisticRow | Mapping[str, Any]]]


def analysis_types() -> dict[str, Analyse]:
    """Function that carries out each type of :data:`corelab.settings.analyses.ANALYSIS_TYPES`.

    The imports are static, so that the code digest follows them, and inside the function, so that
    the methods are loaded when an analysis runs.
    """
    from corelab.agreement.masks import overlap_rows
    from corelab.agreement.phantoms import phantom_rows
    from corelab.agreement.plan import agreement_rows
    from corelab.pharmacodynamics import (
        comparison,
        correlation,
        diagnostic,
        dose_response,
        mediation,
        ordinal,
        progression,
        quantile,
        risk_score,
        sample_size,
        time_to_event,
    )

    return {
        "agreement": agreement_rows,
        "overlap": overlap_rows,
        "phantom": phantom_rows,
        "correlation": correlation.analyse,
        "comparison": comparison.analyse,
        "dose_response": dose_response.analyse,
        "ordinal": ordinal.analyse,
        "quantile": quantile.analyse,
        "survival": time_to_event.analyse,
        "progression": progression.analyse,
        "radiomics": risk_score.analyse,
        "diagnostic": diagnostic.analyse,
        "mediation": mediation.analyse,
        "surrogacy": mediation.analyse,
        "sample_size": sample_size.analyse,
    }


def run(analysis: AnalysisSpec, tables: Tables) -> pd.DataFrame:
    """Carry out one analysis of the plan.

    Parameters
    ----------
    analysis
        One entry of ``analyses:`` (CONTRACT, "The plan"), see
        :func:`corelab.settings.analyses.spec_of`.
    tables
        Measurements and sheets.

    Returns
    -------
    pandas.DataFrame
        Statistics rows in the contract's columns. What these data cannot give is a row without
        estimate whose note begins with ``not_computable:``.

    Raises
    ------
    ComputationsDisagree
        If our kernel and the library give different numbers.
    ValueError
        If a row of another package has a column that the tables do not have.

    Examples
    --------
    >>> from corelab.settings.analyses import spec_of
    >>> measurements = pd.DataFrame({
    ...     "participant_id": list("abcde"), "visit": "day5", "endpoint": "infarct_volume",
    ...     "source": "pipeline", "repeat": 1, "region": "all", "status": "ok",
    ...     "value": [1.0, 2.0, 4.0, 3.0, 5.0]})
    >>> people = pd.DataFrame({"participant_id": list("abcde"), "nihss": [0.0, 3.0, 4.0, 2.0, 9.0]})
    >>> outcomes = people.assign(visit="day90", outcome="nihss", value=people["nihss"])
    >>> plan = {"id": "c1", "type": "correlation", "endpoint": "infarct_volume",
    ...     "outcome": "nihss", "method": "spearman"}
    >>> result = run(spec_of(plan), Tables(measurements, people, outcomes=outcomes))
    >>> print(*result.loc[0, ["statistic", "group", "n"]], round(result.loc[0, "estimate"], 3))
    spearman_rho infarct_volume|nihss 5 0.9
    """
    # A type of another package carries its function.
    analyse: Analyse = analysis_types().get(analysis.type, analysis.analyse)
    rows = [StatisticRow.of(row) for row in analyse(analysis, tables)]
    frame = statistics_frame(analysis, rows)
    left_out = undecided_words(analysis, tables)
    if left_out:
        frame["note"] = [f"{note}; {left_out}" if note else left_out for note in frame["note"]]
    above = [row.above_null for row in rows]
    return _one_sided(frame, analysis.alternative, above)


def _one_sided(
    frame: pd.DataFrame, alternative: str, above: Sequence[bool | None] | None = None
) -> pd.DataFrame:
    """P values of the planned one-sided alternative; intervals stay two-sided.

    Rows of statistics with a registered null value: p halved on the planned side and 1 - p / 2 on
    the other, and a note; the p of every other statistic stays two-sided and says so. ``above``:
    for rows whose estimate is no effect (a log-rank test), whether the effect is above its null
    value.
    """
    if alternative == "two-sided" or frame.empty:
        return frame
    result = frame.copy()
    for place, row in enumerate(result.index):
        if pd.isna(result.loc[row, "p_value"]) or result.loc[row, "statistic"] == "mcp_t":
            continue  # a contrast test of MCP-Mod is one-sided in the key direction
        null = statistic(result.loc[row, "statistic"]).null
        said = str(result.loc[row, "note"] or "")
        higher = above[place] if above is not None else None
        if null is not None:
            higher = float(result.loc[row, "estimate"]) > null
        if higher is None:
            text = "p is not turned one-sided"
        else:
            half = float(result.loc[row, "p_value"]) / 2
            result.loc[row, "p_value"] = half if higher == (alternative == "greater") else 1 - half
            text = f"one-sided p ({alternative})"
        result.loc[row, "note"] = f"{said}; {text}" if said else text
    return result
