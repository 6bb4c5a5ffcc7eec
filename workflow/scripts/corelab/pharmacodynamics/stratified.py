"""Effects within and over strata: subgroups with their interaction, stratified risks and ranks.

Risk difference: Mantel-Haenszel weights, score interval of Miettinen and Nurminen (Stat Med
1985;4:213), Cochran-Mantel-Haenszel test. Ranks: van Elteren (1960), the stratified Wilcoxon test
with weights 1 / (n + 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import optimize, stats

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.analysis_set import Arms
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.linear import fit_linear
from corelab.provenance.two_computations import attempt
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.terms.results import Estimate, StatisticRow, not_computable


def _common_risk_difference(
    events_a: Any, n_a: Any, events_b: Any, n_b: Any, alpha: float = 0.05
) -> Estimate:
    """Common risk difference a - b over strata, its score limits, and the p of the CMH test.

    The limits invert the stratified score test of Miettinen and Nurminen (1985) with
    Mantel-Haenszel weights, which at a difference of 0 is the Cochran-Mantel-Haenszel test.
    """
    a, na, b, nb = (np.asarray(v, float) for v in (events_a, n_a, events_b, n_b))
    both = (na > 0) & (nb > 0)
    a, na, b, nb = a[both], na[both], b[both], nb[both]
    if not a.size:
        raise NotComputable("no stratum has participants of both arms")
    weight = na * nb / (na + nb)
    gaps = a / na - b / nb
    difference = float(np.sum(weight * gaps) / weight.sum())
    if np.all((a + b == 0) | (a + b == na + nb)):
        raise NotComputable("every participant of each stratum has the same response")

    def score(delta: float) -> float:
        first = _restricted_share(a, na, b, nb, delta)
        second = first - delta
        variance = first * (1 - first) / na + second * (1 - second) / nb
        variance = np.maximum(variance, 0) * (na + nb) / (na + nb - 1)
        total = float(np.sum(weight**2 * variance))
        return float(np.sum(weight * (gaps - delta))) / math.sqrt(max(total, 1e-300))

    z = float(stats.norm.ppf(1 - alpha / 2))
    edge = 1 - 1e-9
    limits = []
    for end, target in ((-edge, z), (edge, -z)):

        def excess(delta: float, target: float = target) -> float:
            return score(delta) - target

        crosses = excess(end) * excess(difference) < 0
        low, high = min(end, difference), max(end, difference)
        found: Any = optimize.brentq(excess, low, high) if crosses else round(end)
        limits.append(float(found))
    return Estimate(difference, limits[0], limits[1], float(2 * stats.norm.sf(abs(score(0.0)))))


def _restricted_share(
    a: np.ndarray, na: np.ndarray, b: np.ndarray, nb: np.ndarray, delta: float
) -> np.ndarray:
    """Share in a of greatest likelihood where a exceeds b by delta (Farrington, Manning 1990)."""
    ratio, p, q = nb / na, a / na, b / nb
    c3 = 1 + ratio
    c2 = -(1 + ratio + p + ratio * q + delta * (ratio + 2))
    c1 = delta**2 + delta * (2 * p + ratio + 1) + p + ratio * q
    c0 = -p * delta * (1 + delta)
    v = c2**3 / (3 * c3) ** 3 - c2 * c1 / (6 * c3**2) + c0 / (2 * c3)
    u = np.where(v < 0, -1, 1) * np.sqrt(np.maximum(c2**2 / (3 * c3) ** 2 - c1 / (3 * c3), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.clip(np.where(u == 0, 0.0, v / u**3), -1, 1)
    angle = (math.pi + np.arccos(cosine)) / 3
    found = 2 * u * np.cos(angle) - c2 / (3 * c3)
    return np.clip(found, max(0.0, delta), min(1.0, 1 + delta))


def van_elteren(values: Any, indicator: Any, strata: Any) -> tuple[float, float]:
    """Stratified Wilcoxon test: z (positive where the indicated arm is higher) and p.

    Examples
    --------
    >>> z, p = van_elteren([1, 2, 3, 9, 4, 5], [0, 0, 0, 1, 1, 1], list("xxxxxx"))
    >>> round(z, 4), round(p, 4)
    (1.964, 0.0495)
    """
    y, arm = np.asarray(values, float), np.asarray(indicator, float)
    label = np.unique(np.asarray(strata).astype(str), return_inverse=True)[1]
    gap = variance = 0.0
    for k in range(label.max() + 1):
        inside = label == k
        ranks, a = stats.rankdata(y[inside]), arm[inside]
        n, m = a.size, int(a.sum())
        if m == 0 or m == n:
            continue
        gap += float(ranks[a == 1].sum() - m * (n + 1) / 2) / (n + 1)
        variance += m * (n - m) / n * float(np.var(ranks, ddof=1)) / (n + 1) ** 2
    if variance <= 0:
        raise NotComputable("no stratum has both arms and values that differ")
    z = gap / math.sqrt(variance)
    return z, float(2 * stats.norm.sf(abs(z)))


def subgroup_rows(analysis: ComparisonSpec, arms: Arms, alpha: float) -> Iterator[StatisticRow]:
    """Effects of the arms within the levels of each variable of ``subgroups``, and interactions.

    One least-squares model per variable: arm, variable, their product and the covariates. The
    interaction is tested by F over all products. The variables are columns ``_<name>``.
    """
    for variable in map(str, analysis.subgroups):
        group = f"{arms.by} x {variable}"
        part = replace(arms, frame=arms.frame.dropna(subset=[f"_{variable}"]))
        yield from guarded(_of_variable(part, variable, alpha), "interaction_p", group=group)


def _of_variable(arms: Arms, variable: str, alpha: float) -> Iterator[StatisticRow]:
    by = arms.by
    levels, labels = arms.frame[f"_{variable}"].map(str), arms.labels
    present = sorted(set(levels))
    if len(present) < 2:
        raise NotComputable(f"{variable} has one level")
    names = [name for name in arms.names if name != variable]
    base = replace(arms, names=names).design().matrix
    columns = [(levels == level).to_numpy(float) for level in present[1:]]
    products = [
        (labels == level).to_numpy(float) * column for level in arms.others for column in columns
    ]
    y = arms.frame["value"].to_numpy(float)
    main = np.column_stack([base, *columns])
    small, whole = fit_linear(main, y), fit_linear(np.column_stack([main, *products]), y)
    rss = [fit.residual_sd**2 * fit.df for fit in (small, whole)]
    f = (rss[0] - rss[1]) / len(products) / (rss[1] / whole.df)
    p = float(stats.f.sf(f, len(products), whole.df))
    yield Estimate(p, p_value=p, n=len(y)).row(
        "interaction_p",
        method=f"F test of {by} x {variable}, F {f:.4g}, df {len(products)} and {whole.df}",
    )
    for i, arm in enumerate(arms.others):
        for k, level in enumerate(present):
            weights = np.zeros(main.shape[1] + len(products))
            weights[1 + i] = 1.0
            if k:
                weights[main.shape[1] + i * len(columns) + k - 1] = 1.0
            own = (levels == level) & labels.isin([arm, arms.reference])
            group = f"{arms.group(arm)}|{variable}={level}"
            try:
                result = whole.contrast(weights, alpha)
            except NotComputable as reason:
                yield not_computable("subgroup_difference", str(reason), group=group)
                continue
            yield result.row(
                "subgroup_difference",
                group=group,
                n=int(own.sum()),
                method=f"ANCOVA with {by} x {variable}; t interval, residual variance of the whole "
                "model",
                note="a subgroup; its p is not adjusted",
            )


def risk_rows(values: Any, indicator: Any, strata: Any, alpha: float) -> Iterator[StatisticRow]:
    """The stratified risk difference, with the CMH test checked by statsmodels."""
    y, arm = np.asarray(values, float), np.asarray(indicator, float)
    label = np.asarray(strata).astype(str)
    tables = []
    for level in sorted(set(label)):
        a, b = y[(label == level) & (arm == 1)], y[(label == level) & (arm == 0)]
        tables.append((a.sum(), a.size, b.sum(), b.size))
    counts = np.array(tables).T
    result = _common_risk_difference(counts[0], counts[1], counts[2], counts[3], alpha)
    whole = [np.array([[a, n - a], [b, m - b]]) for a, n, b, m in tables if n and m]

    def theirs() -> float:
        from statsmodels.stats.contingency_tables import StratifiedTable

        return float(StratifiedTable(whole).test_null_odds(correction=False).pvalue)

    other, failed = attempt(theirs, "statsmodels StratifiedTable")
    agreed = other is not None and abs(other - result.p_value) < 1e-8
    yield result.row(
        "stratified_risk_difference",
        n=y.size,
        method="Mantel-Haenszel risk difference, stratified Miettinen-Nurminen score interval; "
        f"p: Cochran-Mantel-Haenszel test, {len(tables)} strata",
        second_method=failed
        or ("CMH p equal to statsmodels StratifiedTable" if agreed else "statsmodels: other p"),
    )
