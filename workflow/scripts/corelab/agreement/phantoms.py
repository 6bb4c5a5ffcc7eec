"""Statistics rows of planned phantom analyses: measured values against certified truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from corelab.agreement import second
from corelab.agreement.estimates import Estimate
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.guards import one_per_cell
from corelab.agreement.metrology import linearity, repeatability
from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    measured,
    not_computable,
)

Row = dict[str, Any]

STATISTICS = (
    "bias", "bias_percent", "slope", "intercept", "r_squared", "curvature", "rmse", "within_sd",
    "within_cv_percent", "repeatability_coefficient", "repeatability_coefficient_percent",
)  # fmt: skip
#: Columns of the phantoms table that may hold the measured value.
MEASURED = ("measured_value", "value")


def phantom_rows(analysis: Mapping[str, Any], tables: Tables) -> list[Row]:
    """Bias, linearity and repeatability against truth, per group and for all together.

    ``truth`` is a column of the phantoms sheet (``certified_value``), whose rows then carry the
    measured value too (``measured_value``); or a source of measurements.tsv that holds the truth of
    simulated scans, with which every other source (or ``sources``) is compared.

    Examples
    --------
    >>> sheet = pd.DataFrame({"site": "A", "scanner": "S", "acquired_at": ["1", "1", "1", "2", "2",
    ...     "2"], "insert": ["a", "b", "c"] * 2, "certified_value": [10.0, 20.0, 30.0] * 2,
    ...     "measured_value": [10.5, 20.4, 30.6, 10.4, 20.6, 30.5], "unit": "mL"})
    >>> tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": []}), phantoms=sheet)
    >>> rows = phantom_rows({"id": "p", "type": "phantom", "truth": "certified_value"}, tables)
    >>> [round(r["estimate"], 3) for r in rows if r["statistic"] == "bias" and r["group"] == "all"]
    [0.5]
    """
    truth = str(analysis["truth"])
    if truth in tables.phantoms.columns:
        return _sheet_rows(analysis, tables.phantoms, truth)
    rows: list[Row] = []
    for endpoint in as_list(analysis.get("endpoint")):
        rows += _source_rows(analysis, tables, endpoint, truth)
    if not rows:
        reason = (
            f"truth '{truth}' is no column of the phantoms sheet, and no endpoint is named whose "
            "measurements have it as a source"
        )
        rows.append(not_computable("bias", reason))
    return rows


def _sheet_rows(analysis: Mapping[str, Any], sheet: pd.DataFrame, truth: str) -> list[Row]:
    column = next((name for name in MEASURED if name in sheet.columns), None)
    if column is None:
        return [not_computable("bias", "the phantoms table has no measured values")]
    table = sheet.assign(
        truth=pd.to_numeric(sheet[truth], errors="coerce"),
        measured=pd.to_numeric(sheet[column], errors="coerce"),
    ).dropna(subset=["truth", "measured"])
    kinds = as_list(analysis.get("endpoint")) or [None]
    rows: list[Row] = []
    for kind in kinds:
        own = table if kind is None or "kind" not in table else table[table["kind"] == kind]
        endpoint = str(kind) if kind is not None else "phantom"
        scanner = own["site"].astype(str)
        if "scanner" in own:
            scanner = scanner + "/" + own["scanner"].astype(str)
        groups = [("all", own)] + [(str(g), part) for g, part in own.groupby(scanner, sort=True)]
        keys = [c for c in ("site", "scanner", "insert", "kind") if c in own]
        for group, part in groups:
            if group != "all" and len(groups) == 2:
                continue
            repeated = _repeated(part, keys)
            rows += _rows(analysis, endpoint, group, part["measured"], part["truth"], repeated)
    return rows


def _repeated(part: pd.DataFrame, keys: list[str]) -> np.ndarray:
    order = part.groupby(keys).cumcount()
    wide = one_per_cell(part.assign(order=order, value=part["measured"]), keys, "order")
    return wide.to_numpy(dtype=np.float64)


def _source_rows(
    analysis: Mapping[str, Any], tables: Tables, endpoint: str, truth: str
) -> list[Row]:
    values = measured(analysis, tables, endpoint=endpoint)
    known = values[(values["source"] == truth) & (values["repeat"] == 1)]
    if not len(known):
        return [not_computable("bias", f"no value of {endpoint} from '{truth}'", endpoint=endpoint)]
    key = ["participant_id", "visit"]
    true_values = known.set_index(key)["value"].rename("truth")
    planned = [str(s) for s in as_list(analysis.get("sources")) if s != "all"]
    sources = planned or sorted(set(values["source"]) - {truth})
    rows: list[Row] = []
    for source in sources:
        own = values[values["source"] == source].join(true_values, on=key).dropna(subset=["truth"])
        wide = one_per_cell(own, key, "repeat")
        first = own[own["repeat"] == 1]
        rows += _rows(
            analysis, endpoint, source, first["value"], first["truth"], wide.to_numpy(dtype=float)
        )
    return rows


def _rows(
    analysis: Mapping[str, Any],
    endpoint: str,
    group: str,
    values: pd.Series,
    truth: pd.Series,
    repeated: np.ndarray,
) -> list[Row]:
    maker = GroupStatistics({**analysis, "measure_level": "ratio"}, endpoint, "all", group)
    place = {"endpoint": endpoint, "group": group}
    y, x = values.to_numpy(dtype=np.float64), truth.to_numpy(dtype=np.float64)
    try:
        found = linearity(y, x, alpha=maker.alpha)
    except NotComputable as error:
        return [not_computable(name, str(error), **place) for name in STATISTICS]
    n = found.bias.n
    plain = {
        "r_squared": Estimate(found.r_squared, n=n, method="least squares of measured on true"),
        "rmse": Estimate(found.rmse, n=n, method="root mean square of measured - true"),
    }
    rows = [
        maker.attempt("bias", found.bias),
        maker.attempt("bias_percent", found.bias_percent),
        maker.attempt("slope", found.slope, partial(second.second_slope, x, y)),
        maker.attempt("intercept", found.intercept),
        maker.attempt("r_squared", plain["r_squared"]),
        maker.attempt("curvature", found.curvature, None, "p tests linearity"),
        maker.attempt("rmse", plain["rmse"]),
    ]
    try:
        repeats = repeatability(repeated, alpha=maker.alpha)
    except NotComputable:
        reason = "no insert was measured twice"
        return rows + [not_computable(name, reason, **place) for name in STATISTICS[-4:]]
    for name, one in repeats.items():
        check = partial(second.second_within_sd, repeated) if name == "within_sd" else None
        rows.append(maker.attempt(name, one, check))
    return rows
