"""Phantom scans against certified truth: statistics rows, and verdicts by the charter's limits."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from corelab.agreement import second
from corelab.agreement.estimates import quantile_t
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.guards import one_per_cell
from corelab.agreement.metrology import linearity, repeatability
from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    measured,
)
from corelab.settings.acquisition import PhantomLimit, PhantomQaSettings
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.phantom import PhantomSpec
from corelab.study.columns import PHANTOM_VERDICTS
from corelab.terms.endpoints import VOLUME_UNITS_ML
from corelab.terms.results import Estimate, StatisticRow, not_computable
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS

STATISTICS = (
    "bias", "bias_percent", "slope", "intercept", "r_squared", "curvature", "rmse", "within_sd",
    "within_cv_percent", "repeatability_coefficient", "repeatability_coefficient_percent",
)  # fmt: skip
#: Worst of the inserts of each scan, from ``endpoints/phantoms.tsv``: column -> which is worst.
WORST = {"snr": "min", "uniformity_percent": "min", "uniformity_range": "max"}
_OWN = (
    "Corelab's own limit, of no external source: half of a 10 % scale error; replace it by the "
    "charter's"
)
#: Limits used unless ``phantom_qa.use_defaults`` is false; one given for the same endpoint and
#: statistic takes their place.
DEFAULT_LIMITS = (
    PhantomLimit(statistic="slope", min=0.95, max=1.05, citation=_OWN),
    PhantomLimit(statistic="r_squared", min=0.98, citation=_OWN),
    PhantomLimit(endpoint="adc", statistic="bias_percent", min=-5.0, max=5.0, citation=_OWN),
    PhantomLimit(endpoint="ncct", statistic="bias", min=-5.0, max=5.0, citation=_OWN),
    *(
        PhantomLimit(
            endpoint=f"{kind}:volume", statistic="bias_percent", min=-5.0, max=5.0, citation=_OWN
        )
        for kind in ("adc", "dwi", "ncct", "T1w", "FLAIR")
    ),
)
#: Statistics that take several scans of one scanner.
LONGITUDINAL = (
    *("repeatability_coefficient", "repeatability_coefficient_percent"),
    *("drift_per_year", "drift_percent_per_year"),
)
#: Units whose zero is a convention: a percentage of them means nothing.
FREE_ZERO_UNITS = ("HU",)
_FREE_ZERO = "the zero of HU is a convention: a percentage of them means nothing"
#: Columns of the phantoms table that may hold the measured value.
MEASURED = ("measured_value", "value")


def phantom_rows(analysis: PhantomSpec, tables: Tables) -> list[StatisticRow]:
    """Bias, linearity and repeatability against truth, per group and for all together.

    ``truth`` is a column of the phantoms sheet (``certified_value``), whose rows then carry the
    measured value too (``measured_value``); or a source of measurements.tsv that holds the truth of
    simulated scans, with which every other source (or ``sources``) is compared. Verdicts follow as
    rows ``conformance:<statistic>``, 1 where the limit is kept and 0 where not.

    Examples
    --------
    >>> sheet = pd.DataFrame({"site": "A", "acquired_at": ["1", "1", "1"], "insert": list("abc"),
    ...     "certified_value": [10.0, 20.0, 30.0], "measured_value": [10.5, 20.4, 30.6]})
    >>> tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": []}), phantoms=sheet)
    >>> rows = phantom_rows(PhantomSpec(id="p", type="phantom", truth="certified_value"), tables)
    >>> [round(r.estimate, 3) for r in rows if (r.statistic, r.group) == ("bias", "all")]
    [0.5]
    """
    truth = analysis.truth
    if truth in tables.phantoms.columns:
        rows = _sheet_rows(analysis, tables.phantoms, truth)
        planned = as_list(analysis.endpoint)
        verdicts = phantom_verdicts(tables.phantoms, tables.phantom_qa)
        return rows + [
            row for row in _conformance_rows(verdicts) if not planned or row.endpoint in planned
        ]
    rows = []
    for endpoint in as_list(analysis.endpoint):
        rows += _source_rows(analysis, tables, endpoint, truth)
    if not rows:
        reason = (
            f"truth '{truth}' is no column of the phantoms sheet, and no endpoint is named whose "
            "measurements have it as a source"
        )
        rows.append(not_computable("bias", reason))
    return rows


def _numbered(sheet: pd.DataFrame, truth: str) -> pd.DataFrame | None:
    """The sheet with ``truth`` and ``measured`` as numbers; None without measured values."""
    column = next((name for name in MEASURED if name in sheet.columns), None)
    if column is None:
        return None
    return sheet.assign(
        truth=pd.to_numeric(sheet[truth], errors="coerce"),
        measured=pd.to_numeric(sheet[column], errors="coerce"),
        endpoint=_endpoints_of(sheet),
    )


def _sheet_rows(analysis: PhantomSpec, sheet: pd.DataFrame, truth: str) -> list[StatisticRow]:
    table = _numbered(sheet, truth)
    if table is None:
        return [not_computable("bias", "the phantoms table has no measured values")]
    table = table.dropna(subset=["truth", "measured"])
    planned = as_list(analysis.endpoint)
    rows: list[StatisticRow] = []
    for endpoint in planned or sorted(set(table["endpoint"])):
        own = table[table["endpoint"] == endpoint]
        scanner = _scanners(own)
        groups = [("all", own)] + [(str(g), part) for g, part in own.groupby(scanner, sort=True)]
        keys = [c for c in ("site", "scanner", "insert", "kind") if c in own]
        for group, part in groups:
            if group != "all" and len(groups) == 2:
                continue
            repeated = _repeated(part, keys)
            made = _rows(analysis, endpoint, group, part["measured"], part["truth"], repeated)
            made += _more_rows(analysis, endpoint, group, part)
            rows += _without_percentages(made) if _free_zero(part) else made
    return rows


def _free_zero(part: pd.DataFrame) -> bool:
    return "unit" in part and bool(part["unit"].isin(FREE_ZERO_UNITS).any())


def _without_percentages(rows: list[StatisticRow]) -> list[StatisticRow]:
    return [
        not_computable(row.statistic, _FREE_ZERO, endpoint=row.endpoint, group=row.group)
        if _is_percentage(row.statistic)
        else row
        for row in rows
    ]


def _is_percentage(statistic: str) -> bool:
    """Whether a statistic is a percentage of the values."""
    return "percent" in statistic and statistic != "uniformity_percent"


def _endpoints_of(table: pd.DataFrame) -> pd.Series:
    """The kind of scan, volumes (``ncct:volume``) apart from values."""
    if "kind" not in table:
        return pd.Series("phantom", index=table.index)
    if "quantity" in table:
        volume = table["quantity"] == "volume"
    else:
        unit = table["unit"] if "unit" in table else pd.Series("", index=table.index)
        volume = unit.isin(list(VOLUME_UNITS_ML))
    return table["kind"].astype(str).where(~volume, table["kind"].astype(str) + ":volume")


def _scanners(table: pd.DataFrame) -> pd.Series:
    site = table["site"].astype(str)
    return site + "/" + table["scanner"].astype(str) if "scanner" in table else site


def _statistics_of(endpoint: str, group: str, alpha: float = 0.05) -> GroupStatistics:
    plan = AgreementSpec.unchecked(
        id="phantom",
        type="agreement",
        endpoint=endpoint,
        sources="all",
        measure_level="ratio",
        alpha=alpha,
    )
    return GroupStatistics(plan, endpoint, "all", group)


def _more_rows(
    analysis: PhantomSpec, endpoint: str, group: str, part: pd.DataFrame
) -> list[StatisticRow]:
    """Worst error, noise and uniformity of the inserts, and the drift over time."""
    maker = _statistics_of(endpoint, group, analysis.alpha)
    method = {"min": "least of all inserts", "max": "largest of all inserts"}
    rows = [
        maker.attempt(name, Estimate(value, n=len(part), method=method[WORST.get(name, "max")]))
        for name, value in _worst(part).items()
    ]
    return [*rows, *(_drift_row(maker, part, relative) for relative in (False, True))]


def _worst(part: pd.DataFrame) -> dict[str, float]:
    """Largest error, and the worst noise and uniformity of the inserts."""
    error = part["measured"] - part["truth"]
    found = {"largest_error": float(error.abs().max())}
    positive = part["truth"] > 0
    if positive.any():
        relative = 100 * error[positive] / part.loc[positive, "truth"]
        found["largest_error_percent"] = float(relative.abs().max())
    for name, which in WORST.items():
        values = pd.to_numeric(part.get(name, pd.Series(dtype=float)), errors="coerce").dropna()
        if len(values):
            found[name] = float(min(values) if which == "min" else max(values))
    return found


def _drift_row(maker: GroupStatistics, part: pd.DataFrame, relative: bool) -> StatisticRow:
    name = "drift_percent_per_year" if relative else "drift_per_year"
    try:
        years, error = _error_in_time(part, relative)
    except NotComputable as reason:
        return maker.attempt(name, reason)
    found = partial(_drift, years, error, alpha=maker.alpha)
    return maker.attempt(name, found, partial(second.second_slope, years, error))


def _error_in_time(part: pd.DataFrame, relative: bool) -> tuple[np.ndarray, np.ndarray]:
    """Years from the first scan, and errors: in the unit, or in percent of a truth above 0."""
    own = part[part["truth"] > 0] if relative else part
    times = pd.to_datetime(own["acquired_at"], errors="coerce", format="ISO8601", utc=True)
    if times.isna().any() or times.nunique() < 3:
        raise NotComputable(f"{times.nunique()} dates of phantom scans, a drift needs 3")
    years = (times - times.min()).dt.total_seconds() / (365.25 * 86400)
    error = own["measured"] - own["truth"]
    return years.to_numpy(float), (100 * error / own["truth"] if relative else error).to_numpy(
        float
    )


def _drift(years: Any, error: Any, *, alpha: float = 0.05) -> Estimate:
    """Slope of the error in time, per year, with its t interval."""
    from scipy import stats

    fit = stats.linregress(np.asarray(years, float), np.asarray(error, float))
    n, slope = len(np.asarray(years)), float(fit.slope)
    half = quantile_t(n - 2, alpha) * float(fit.stderr)
    method = "least squares of the error on time in years, t; p against 0"
    return Estimate(slope, slope - half, slope + half, float(fit.pvalue), n, method)


def _repeated(part: pd.DataFrame, keys: list[str]) -> np.ndarray:
    order = part.groupby(keys).cumcount()
    wide = one_per_cell(part.assign(order=order, value=part["measured"]), keys, "order")
    return wide.to_numpy(dtype=np.float64)


def _source_rows(
    analysis: PhantomSpec, tables: Tables, endpoint: str, truth: str
) -> list[StatisticRow]:
    values = measured(analysis, tables, endpoint=endpoint)
    known = values[(values["source"] == truth) & (values["repeat"] == 1)]
    if not len(known):
        return [not_computable("bias", f"no value of {endpoint} from '{truth}'", endpoint=endpoint)]
    key = ["participant_id", "visit"]
    true_values = known.set_index(key)["value"].rename("truth")
    planned = [str(s) for s in as_list(analysis.sources) if s != "all"]
    sources = planned or sorted(set(values["source"]) - {truth})
    rows: list[StatisticRow] = []
    for source in sources:
        own = values[values["source"] == source].join(true_values, on=key).dropna(subset=["truth"])
        wide = one_per_cell(own, key, "repeat")
        first = own[own["repeat"] == 1]
        rows += _rows(
            analysis, endpoint, source, first["value"], first["truth"], wide.to_numpy(dtype=float)
        )
    return rows


def _rows(
    analysis: PhantomSpec,
    endpoint: str,
    group: str,
    values: pd.Series,
    truth: pd.Series,
    repeated: np.ndarray,
) -> list[StatisticRow]:
    maker = _statistics_of(endpoint, group, analysis.alpha)
    place = {"endpoint": endpoint, "group": group}
    y, x = values.to_numpy(dtype=np.float64), truth.to_numpy(dtype=np.float64)
    try:
        found = linearity(y, x, alpha=maker.alpha)
    except NotComputable as error:
        return [not_computable(name, str(error), **place) for name in STATISTICS]
    n = found.bias.n
    r_squared = Estimate(found.r_squared, n=n, method="least squares of measured on true")
    rmse = Estimate(found.rmse, n=n, method="root mean square of measured - true")
    rows = [
        maker.attempt("bias", found.bias),
        maker.attempt("bias_percent", found.bias_percent),
        maker.attempt("slope", found.slope, partial(second.second_slope, x, y)),
        maker.attempt("intercept", found.intercept),
        maker.attempt("r_squared", r_squared),
        maker.attempt("curvature", found.curvature, None, "p tests linearity"),
        maker.attempt("rmse", rmse),
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


# --- verdicts ----------------------------------------------------------------------------------


def _limits_in_force(settings: PhantomQaSettings) -> list[PhantomLimit]:
    """The built-in limits, replaced one by one by those of the study."""
    own = {(limit.endpoint, limit.statistic) for limit in settings.limits}
    defaults = DEFAULT_LIMITS if settings.use_defaults else ()
    kept = [limit for limit in defaults if (limit.endpoint, limit.statistic) not in own]
    return [*kept, *settings.limits]


def phantom_verdicts(table: pd.DataFrame, settings: PhantomQaSettings) -> pd.DataFrame:
    """Verdict of each phantom scan, and of each scanner over time, on every limit.

    ``table`` is ``endpoints/phantoms.tsv`` (or the sheet with measured values); the limit itself
    passes.

    Examples
    --------
    >>> sheet = pd.DataFrame({"site": "A", "scanner": "S", "acquired_at": "2025-01-01", "kind":
    ...     "adc", "insert": ["a", "b", "c"], "certified_value": [1.0, 2.0, 3.0], "measured_value":
    ...     [1.1, 2.2, 3.3], "unit": "um2/ms"})
    >>> found = phantom_verdicts(sheet, PhantomQaSettings())
    >>> found[["criterion", "verdict"]].values.tolist()
    [['slope', 'fail'], ['r_squared', 'pass'], ['bias_percent', 'fail']]
    """
    full = None if table.empty else _numbered(table, "certified_value")
    if full is None:
        return pd.DataFrame(columns=list(PHANTOM_VERDICTS))
    if "scanner" not in full:
        full["scanner"] = "scanner"
    limits = _limits_in_force(settings)
    rows: list[tuple[Any, ...]] = []
    for (site, scanner, endpoint), own in full.groupby(["site", "scanner", "endpoint"]):
        due = [limit for limit in limits if limit.endpoint in (None, endpoint)]
        specific = {limit.statistic for limit in due if limit.endpoint}
        # What is said of this kind of scan goes before what is said of all.
        due = [one for one in due if one.endpoint or one.statistic not in specific]
        sessions = [(moment, _session(part), False) for moment, part in own.groupby("acquired_at")]
        rows += [
            (site, scanner, endpoint, moment, *_verdict(limit, values.get(limit.statistic)))
            for moment, values, long in [*sessions, ("all", _over_time(own), True)]
            for limit in due
            if (limit.statistic in LONGITUDINAL) == long
        ]
    return pd.DataFrame(rows, columns=list(PHANTOM_VERDICTS))


def _session(part: pd.DataFrame) -> dict[str, float]:
    """Statistics of one phantom scan; those that its inserts cannot give are absent."""
    own = part.dropna(subset=["truth", "measured"])
    if own.empty:
        return {}
    error = own["measured"] - own["truth"]
    rmse = float(np.sqrt((error**2).mean()))
    values = {"bias": float(error.mean()), "rmse": rmse, **_worst(own)}
    positive = own["truth"] > 0
    if positive.any():
        values["bias_percent"] = float((100 * error / own["truth"])[positive].mean())
    if own["truth"].nunique() >= 3:
        found = linearity(own["measured"], own["truth"])
        values["slope"] = found.slope.estimate
        values["intercept"] = found.intercept.estimate
        values["r_squared"] = found.r_squared
    return _meaningful(values, own)


def _over_time(own: pd.DataFrame) -> dict[str, float]:
    """Repeatability and drift of one scanner."""
    values: dict[str, float] = {}
    known = own.dropna(subset=["truth", "measured"])
    with suppress(NotComputable):
        found = repeatability(_repeated(known, ["insert"]))
        values |= {name: one.estimate for name, one in found.items()}
    for relative, name in ((False, "drift_per_year"), (True, "drift_percent_per_year")):
        with suppress(NotComputable):
            values[name] = _drift(*_error_in_time(known, relative)).estimate
    return _meaningful(values, known)


def _meaningful(values: dict[str, float], part: pd.DataFrame) -> dict[str, float]:
    """Without percentages of a scale whose zero is a convention."""
    if not _free_zero(part):
        return values
    return {name: one for name, one in values.items() if not _is_percentage(name)}


def _verdict(limit: PhantomLimit, value: float | None) -> tuple[str, float | None, str, str, str]:
    """Criterion, value, limit in words, verdict and citation."""
    low, high = limit.min, limit.max
    words = [
        f"{word} {number:g}"
        for word, number in (("at least", low), ("at most", high))
        if number is not None
    ]
    if value is None or not np.isfinite(value):
        value, verdict = None, NOT_ASSESSABLE
    else:
        inside = (low is None or value >= low) and (high is None or value <= high)
        verdict = PASS if inside else FAIL
    return limit.statistic, value, ", ".join(words), verdict, limit.citation


def _conformance_rows(verdicts: pd.DataFrame) -> list[StatisticRow]:
    """Statistics rows of the verdicts, one per scanner, endpoint and limit: the worst counts."""
    rows: list[StatisticRow] = []
    keys = ["site", "scanner", "endpoint", "criterion", "limit", "citation"]
    for key, part in verdicts.groupby(keys):
        site, scanner, endpoint, criterion, limit, citation = map(str, key)
        place = {"endpoint": endpoint, "group": f"{site}/{scanner}"}
        judged = part[part["verdict"] != NOT_ASSESSABLE]
        statistic = f"conformance:{criterion}"
        if judged.empty:
            reason = f"not assessable: too few inserts or dates for {criterion} ({limit})"
            rows.append(not_computable(statistic, reason, **place))
            continue
        failed = judged[judged["verdict"] == FAIL]
        seen = ", ".join(
            f"{value:.4g} ({moment})"
            for value, moment in zip(failed["value"], failed["acquired_at"], strict=True)
        )
        maker = _statistics_of(endpoint, place["group"])
        one = Estimate(
            float(failed.empty), n=len(judged), method=f"1 where {criterion} is {limit}, else 0"
        )
        text = f"fail: {seen}" if len(failed) else "pass"
        rows.append(maker.attempt(statistic, one, None, f"{text}; limit: {citation}"))
    return rows
