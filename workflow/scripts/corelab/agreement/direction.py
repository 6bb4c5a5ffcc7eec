"""Does a disagreement lean one way in one arm: differential bias, with its tests.

Investigator against central read: that they differ is usual; that they differ in favour of one arm
is bias. Subjects are the unit (clusters after the key ``cluster``): several visits of one are
averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from corelab.agreement.clusters import clusters_of, mean_of
from corelab.agreement.estimates import Floats, t_estimate
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.metrology import proportion
from corelab.agreement.second import confirm
from corelab.measurement.selection import NotComputable, Tables
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.terms.results import Estimate, Second, StatisticRow


def _welch(a: Floats, b: Floats, *, alpha: float = 0.05) -> Estimate:
    """Difference of two means without equal variances (Welch 1947), Satterthwaite df."""
    if min(a.size, b.size) < 2:
        raise NotComputable(f"{a.size} and {b.size} subjects: two of each group are needed")
    parts = np.array([a.var(ddof=1) / a.size, b.var(ddof=1) / b.size])
    difference, se = float(a.mean() - b.mean()), float(np.sqrt(parts.sum()))
    n = a.size + b.size
    method = "difference of mean differences between groups; Welch t, subjects as units"
    if se == 0:
        note = "interval not defined: no variance within the groups"
        return Estimate(difference, n=n, method=method, note=note)
    df = float(parts.sum() ** 2 / (parts**2 / np.array([a.size - 1, b.size - 1])).sum())
    return t_estimate(difference, se, df, alpha, n=n, method=method)


def _newcombe(k1: int, n1: int, k2: int, n2: int, *, alpha: float = 0.05) -> Estimate:
    """Difference of two proportions: hybrid score interval, Fisher's exact p.

    Newcombe 1998 (Stat Med 17:873), method 10.
    """
    first, second = proportion(k1, n1, alpha=alpha), proportion(k2, n2, alpha=alpha)
    p1, p2 = first.estimate, second.estimate
    below = np.hypot(p1 - first.ci_low, second.ci_high - p2)
    above = np.hypot(first.ci_high - p1, p2 - second.ci_low)
    from scipy.stats import fisher_exact  # loads in 0.3 s

    p_value = float(fisher_exact(np.array([[k1, n1 - k1], [k2, n2 - k2]]))[1])
    method = "difference of shares; Newcombe 1998 interval, Fisher exact p"
    found = p1 - p2
    return Estimate(found, found - float(below), found + float(above), p_value, n1 + n2, method)


def _by_subject(pair: pd.DataFrame, analysis: AgreementSpec) -> pd.DataFrame:
    """Mean of a - b over the targets of each subject, and a participant of the subject."""
    difference = pair.iloc[:, 0] - pair.iloc[:, 1]
    people = pair.index.get_level_values("participant_id")
    # Where targets count as independent (cluster: none) a participant is still in one arm.
    subjects = clusters_of(pair.index, analysis.labels or {})
    table = pd.DataFrame({"difference": difference.to_numpy(), "who": people})
    return table.groupby(np.asarray(subjects)).agg({"difference": "mean", "who": "first"})


def _levels(analysis: AgreementSpec, groups: pd.Series) -> list[str]:
    levels = sorted(set(groups), key=str)
    reference = analysis.reference
    if reference is not None and str(reference) in levels:
        levels = [*(one for one in levels if one != str(reference)), str(reference)]
    return levels


def direction_rows(
    whole: GroupStatistics, tables: Tables, pair: pd.DataFrame
) -> list[StatisticRow]:
    """Differential bias of two sources between the groups of ``by``; none without ``by``.

    Statistics, difference = first source - second: per group ``bias_in_group`` (mean, t),
    ``discordance_rate`` (share of subjects who differ: by more than ``delta`` of the plan, else at
    all) and ``discordance_upward`` (of these, the share in which the first source is higher), all
    with group ``a|b|arm=X``; between groups, group ``a|b|arm=X - Y``, ``differential_bias`` (Welch;
    second computation by scipy), ``differential_discordance`` and ``differential_direction``
    (Newcombe, Fisher); over more than two groups ``differential_bias_f`` (Welch's F).

    ``pair`` is targets (participant_id, visit) x two sources.
    """
    analysis = whole.analysis
    column = analysis.by
    if not column:
        return []
    a, b = pair.columns
    everybody = whole.of(f"{a}|{b}|{column}")
    if column not in tables.participants:
        error = NotComputable(f"the participants sheet has no column '{column}'")
        return [everybody.attempt("differential_bias", error)]
    subjects = _by_subject(pair.dropna(), analysis)
    difference = subjects["difference"]
    named = tables.participants.set_index("participant_id")[column].reindex(subjects["who"])
    named.index = difference.index
    difference, named = difference[named.notna()], named.dropna().astype(str)
    levels = _levels(analysis, named)
    if len(levels) < 2:
        reason = f"{column} has {len(levels)} level among subjects with both sources"
        return [everybody.attempt("differential_bias", NotComputable(reason))]
    values = {level: difference[named == level].to_numpy(float) for level in levels}
    rows: list[StatisticRow] = []
    for level in levels:
        maker = whole.of(f"{a}|{b}|{column}={level}", values[level].size)
        rows += _group_rows(maker, values[level])
    for one, other in combinations(levels, 2):
        size = values[one].size + values[other].size
        maker = whole.of(f"{a}|{b}|{column}={one} - {other}", size)
        rows += _contrast_rows(maker, values[one], values[other])
    if len(levels) > 2:
        rows.append(everybody.attempt("differential_bias_f", lambda: _welch_f(values)))
    return rows


def _beyond(maker: GroupStatistics, values: Floats) -> tuple[int, int]:
    """How many subjects differ, and how many of them upward."""
    delta = float(maker.analysis.delta or 0.0)
    return int((np.abs(values) > delta).sum()), int((values > delta).sum())


def _group_rows(maker: GroupStatistics, values: Floats) -> list[StatisticRow]:
    differ, upward = _beyond(maker, values)

    def bias() -> Estimate:
        if values.size < 2:
            raise NotComputable(f"{values.size} subject, at least 2 are needed")
        return mean_of(values, maker.alpha)

    def share(count: int, of: int) -> Estimate:
        if not of:
            raise NotComputable("no subject differs")
        return proportion(count, of, alpha=maker.alpha)

    return [
        maker.attempt("bias_in_group", bias),
        maker.attempt("discordance_rate", partial(share, differ, values.size)),
        maker.attempt("discordance_upward", partial(share, upward, differ)),
    ]


def _contrast_rows(maker: GroupStatistics, first: Floats, second: Floats) -> list[StatisticRow]:
    def checked(ours: float) -> Second:
        if np.ptp(first) == 0 and np.ptp(second) == 0:
            return Second()
        from scipy.stats import ttest_ind

        found = ttest_ind(first, second, equal_var=False)
        interval = found.confidence_interval(1.0 - maker.alpha)
        theirs = 0.5 * float(interval.low + interval.high)
        return confirm(ours, theirs, "scipy.stats.ttest_ind, Welch", tolerance=1e-9)

    (k1, up1), (k2, up2) = _beyond(maker, first), _beyond(maker, second)

    def direction() -> Estimate:
        if not k1 or not k2:
            raise NotComputable("a group has no subject who differs")
        return _newcombe(up1, k1, up2, k2, alpha=maker.alpha)

    rates = partial(_newcombe, k1, first.size, k2, second.size, alpha=maker.alpha)
    difference = partial(_welch, first, second, alpha=maker.alpha)
    return [
        maker.attempt("differential_bias", difference, checked),
        maker.attempt("differential_discordance", rates),
        maker.attempt("differential_direction", direction),
    ]


def _welch_f(values: Mapping[str, Floats]) -> Estimate:
    """Welch's F of equal means without equal variances (Welch 1951), by statsmodels."""
    from statsmodels.stats.oneway import anova_oneway

    if any(v.size < 2 or np.ptp(v) == 0 for v in values.values()):
        raise NotComputable("a group has fewer than 2 subjects or no variance")
    found = anova_oneway(list(values.values()), use_var="unequal")
    n = sum(v.size for v in values.values())
    return Estimate(float(found.statistic), p_value=float(found.pvalue), n=n, method="Welch's F")
