"""One analysis of the plan in, its statistics rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import pandas as pd

from corelab.measurement.selection import Tables, statistics_frame

#: Analysis type -> module of this room whose ``analyse(analysis, tables)`` carries it out.
ANALYSIS_TYPES = {
    "correlation": "correlation",
    "comparison": "comparison",
    "dose_response": "dose_response",
    "ordinal": "ordinal",
    "quantile": "quantile",
    "survival": "time_to_event",
    "progression": "progression",
    "radiomics": "risk_score",
    "diagnostic": "diagnostic",
}
Analyse = Callable[[Mapping[str, Any], Tables], Iterable[Mapping[str, Any]]]


def run(analysis: Mapping[str, Any], tables: Tables) -> pd.DataFrame:
    """Carry out one analysis of the plan.

    Parameters
    ----------
    analysis
        One entry of ``analyses:`` (CONTRACT, "The plan").
    tables
        Measurements and sheets.

    Returns
    -------
    pandas.DataFrame
        Statistics rows in the contract's columns. What these data cannot give is a row without
        estimate whose note begins with ``not_computable:``.

    Raises
    ------
    ValueError
        If the analysis has a type or method that this room does not know.
    ComputationsDisagree
        If our kernel and the library give different numbers.

    Examples
    --------
    >>> measurements = pd.DataFrame({
    ...     "participant_id": list("abcde"), "visit": "day5", "endpoint": "infarct_volume",
    ...     "source": "pipeline", "repeat": 1, "region": "all", "status": "ok",
    ...     "value": [1.0, 2.0, 4.0, 3.0, 5.0]})
    >>> outcomes = pd.DataFrame({"participant_id": list("abcde"), "visit": "day90",
    ...     "outcome": "nihss", "value": [0.0, 3.0, 4.0, 2.0, 9.0]})
    >>> tables = Tables(measurements, pd.DataFrame({"participant_id": list("abcde")}),
    ...     outcomes=outcomes)
    >>> result = run({"id": "c1", "type": "correlation", "endpoint": "infarct_volume",
    ...     "outcome": "nihss", "method": "spearman"}, tables)
    >>> print(*result.loc[0, ["statistic", "group", "n"]], round(result.loc[0, "estimate"], 3))
    spearman_rho infarct_volume|nihss 5 0.9
    """
    kind = analysis.get("type")
    if kind not in ANALYSIS_TYPES:
        raise ValueError(
            f"analysis {analysis.get('id')}: type '{kind}' is not one of "
            + ", ".join(sorted(ANALYSIS_TYPES))
        )
    module = import_module(f"corelab.pharmacodynamics.{ANALYSIS_TYPES[kind]}")
    analyse: Analyse = module.analyse
    return statistics_frame(analysis, list(analyse(analysis, tables)))
