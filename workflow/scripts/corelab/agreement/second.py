"""Second computation of agreement statistics by independent libraries.

Each function returns a :class:`~corelab.terms.results.Second` after comparing it with ours. A
difference beyond the tolerance stops the analysis: nobody could say which of the two programs is
right. Where the environment's libraries lack a statistic it stays empty. Known faults of the
libraries are met here: pingouin rounds intervals by default, statsmodels weights by the
index of the levels it is given, all of them count NaN as they like, so they only ever see complete
columns on the full scale.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from corelab.agreement.estimates import Floats
from corelab.agreement.icc import variance_components
from corelab.agreement.metrology import proportion
from corelab.provenance.two_computations import CLOSED_FORM, ComputationsDisagree, compare
from corelab.terms.results import Second

#: Likelihoods, whose maximum is flat: 1e-10 of the deviance is 1e-5 of a variance.
ITERATIVE = 2e-3

#: Readings whose covariance matrix a second computation may hold (18 MB).
MOST_READINGS = 1500
#: The same of a model of participants, visits and readers, a second's work.
MOST_NESTED = 300
#: Cells (different values squared times targets) that a second program may fill: 160 MB.
MOST_CELLS = 20_000_000

#: Readings of which exact fractions are taken, a second's work.
MOST_FRACTIONS = 6000


def _left_out(library: str, reason: str) -> Second:
    """Why no second program has computed a statistic."""
    return Second(method=f"left out ({library}): {reason}")


def confirm(
    ours: float, theirs: float, library: str, *, tolerance: float = CLOSED_FORM, scale: float = 1.0
) -> Second:
    """The second computation, after comparing it with ours.

    ``tolerance`` is the largest difference in units of ``max(scale, |ours|)``, ``scale`` the size
    of the data, for statistics that are differences of large numbers.

    Raises ComputationsDisagree if they differ by more, or only one of them is a number.

    Examples
    --------
    >>> confirm(0.5, 0.6, "scipy.stats.linregress")
    Traceback (most recent call last):
    corelab.provenance.two_computations.ComputationsDisagree: ours 0.5, ...
    """
    if math.isnan(ours) and math.isnan(theirs):
        return Second()
    return compare(ours, theirs, library, tolerance=tolerance, scale=max(abs(scale), abs(ours)))


def _icc_by_pingouin(ratings: Floats) -> dict[str, tuple[float, float, float]]:
    """Form -> estimate and limits, unrounded; empty where pingouin declines."""
    import pingouin

    n, k = ratings.shape
    if ratings.size < 5 or np.ptp(ratings) == 0:
        return {}
    target, reader = np.indices((n, k))
    long = pd.DataFrame(
        {"target": target.ravel(), "reader": reader.ravel(), "value": ratings.ravel()}
    )
    before = pingouin.options["round.column.CI95"]
    pingouin.options["round.column.CI95"] = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = pingouin.intraclass_corr(long, "target", "reader", "value")
    finally:
        pingouin.options["round.column.CI95"] = before
    rows = table.set_index("Type")
    expected = {"ICC(1,1)", "ICC(A,1)", "ICC(C,1)", "ICC(1,k)", "ICC(A,k)", "ICC(C,k)"}
    if set(rows.index) != expected:
        raise ComputationsDisagree(f"pingouin names its rows {sorted(rows.index)}, not {expected}")
    return {
        "icc_" + name[4:-1].replace(",", "_").lower(): (
            float(rows.loc[name, "ICC"]),
            float(rows.loc[name, "CI95"][0]),
            float(rows.loc[name, "CI95"][1]),
        )
        for name in sorted(expected)
    }


@dataclass(frozen=True)
class _MixedModelFit:
    """ICC(A,1) and ICC(C,1) with the REML log likelihood of the readings as they are."""

    icc_a_1: float
    icc_c_1: float
    reml: float


def _icc_by_mixed_model(ratings: Floats, start: tuple[float, float]) -> _MixedModelFit:
    """ICC of incomplete ratings by statsmodels' MixedLM (REML).

    ``start``: target and reader variance over the residual variance.
    """
    target, reader = np.nonzero(~np.isnan(ratings))
    values = ratings[target, reader]
    standard = (values - values.mean()) / values.std()
    long = pd.DataFrame({"value": standard, "target": target, "reader": reader})
    fit, parts = _mixed_model(long, dict(zip(("target", "reader"), start, strict=True)))
    target_part, total = parts["target"], parts["target"] + parts["reader"] + fit.scale
    return _MixedModelFit(
        float(target_part / total),
        float(target_part / (target_part + fit.scale)),
        float(fit.llf - (values.size - 1) * np.log(values.std())),
    )


def _mixed_model(long: pd.DataFrame, start: Mapping[str, float]) -> tuple[Any, dict[str, float]]:
    """REML fit of ``value`` by statsmodels' MixedLM, and the variances of its random effects.

    Its optimiser may stop early where a variance is small, so it starts both from its own guess and
    from ``start`` (column -> variance over the residual one); the larger likelihood counts.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, MixedLMParams

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM.from_formula(
            "value ~ 1",
            groups="everything",
            data=long.assign(everything=1),
            re_formula="0",
            vc_formula={name: f"0 + C({name})" for name in start},
        )
        near = MixedLMParams.from_components(
            fe_params=np.zeros(1),
            cov_re=np.zeros((0, 0)),
            vcomp=np.array([max(start[name], 1e-6) for name in model.exog_vc.names]),
        )
        fits = [
            model.fit(reml=True, method=["lbfgs", "bfgs"], start_params=point)
            for point in (None, near)
        ]
    fit = max(fits, key=lambda one: one.llf)
    return fit, dict(zip(model.exog_vc.names, fit.vcomp, strict=True))


#: The mixed model as a second program, and the forms that it has.
_MIXED, _COMPARED = "statsmodels MixedLM (REML)", ("icc_a_1", "icc_c_1")


def _without(reason: str) -> dict[str, Second]:
    return dict.fromkeys(_COMPARED, _left_out(_MIXED, reason))


def _second_incomplete(ratings: Floats, ours: Mapping[str, float]) -> dict[str, Second]:
    """MixedLM against our REML: first the likelihoods, then the coefficients.

    A likelihood above ours proves that ours is not the maximum and stops the analysis. One below
    ours proves that statsmodels stopped early; its coefficients are then no second opinion.
    """
    total = int((~np.isnan(ratings)).sum())
    if total > MOST_READINGS:
        return _without(f"{total} readings, it holds their covariance matrix")
    own = variance_components(ratings)
    if own.residual <= 0:
        return {}
    if min(own.target, own.reader) < 0:
        return _without("it does not allow the negative variance found here")
    start = (own.target / own.residual, own.reader / own.residual)
    if max(start) > 1e6:
        return {}
    try:
        found = _icc_by_mixed_model(ratings, start)
    except np.linalg.LinAlgError:
        return dict.fromkeys(_COMPARED, Second(method=f"{_MIXED} failed: singular matrix"))
    if not found.reml <= own.reml + 1e-4:
        raise ComputationsDisagree(
            f"{_MIXED} reaches a log likelihood of {found.reml!r}, ours {own.reml!r}: ours is not "
            "the maximum. Please report it with the rows of this analysis"
        )
    if found.reml < own.reml - 1e-6:
        short = own.reml - found.reml
        text = f"{_MIXED} stopped {short:.2g} below the maximum likelihood"
        return dict.fromkeys(_COMPARED, Second(method=text))
    return {
        form: confirm(ours[form], getattr(found, form), _MIXED, tolerance=ITERATIVE)
        for form in _COMPARED
    }


def second_nested_iccs(
    ratings: Floats, codes: np.ndarray, ours: Mapping[str, float]
) -> dict[str, Second]:
    """Second computation of ICC(A,1) and ICC(C,1) with several visits per participant.

    In a balanced design without a negative variance the analysis of variance is the REML estimate,
    which statsmodels' MixedLM finds for itself: random participants, visits within them, readers,
    and readers by participants. ``ratings`` are (targets, readers), complete, ``codes`` the
    participant of each target.

    Examples
    --------
    >>> table = np.array([[9.0, 2], [6, 1], [8, 4], [7, 1]])
    >>> found = second_nested_iccs(table, np.array([0, 0, 0, 1]), {"icc_a_1": 0.1, "icc_c_1": 0.2})
    >>> found["icc_a_1"].method
    'left out (statsmodels MixedLM (REML)): unequal numbers of visits, ...'
    """
    n, k = ratings.shape
    counts = np.bincount(codes)
    if len(set(counts.tolist())) > 1 or counts[0] < 2:
        return _without("unequal numbers of visits, for which REML is another estimate")
    if ratings.size > MOST_NESTED:
        return _without(f"{ratings.size} readings, it holds the covariance of all")
    own = _nested_components(ratings, codes)
    if min(own.values()) <= 1e-3 * float(ratings.var()):
        return _without("it does not allow the variance of 0 or below found here")
    residual = own.pop("residual")
    who, reader = np.repeat(codes, k), np.tile(np.arange(k), n)
    long = pd.DataFrame({"value": _standard(ratings).ravel(), "who": who, "reader": reader})
    long = long.assign(visit=np.repeat(np.arange(n), k), pair=who * k + reader)
    try:
        fit, found = _mixed_model(long, {name: one / residual for name, one in own.items()})
    except (np.linalg.LinAlgError, ValueError):
        return _without("singular matrix")
    if not fit.converged or min(found.values()) < 1e-4:
        return _without("it did not converge, or to a variance of 0")
    target, total = found["who"] + found["visit"], sum(found.values()) + fit.scale
    theirs = (target / total, target / (total - found["reader"]))
    return {
        form: confirm(ours[form], float(value), _MIXED, tolerance=ITERATIVE)
        for form, value in zip(_COMPARED, theirs, strict=True)
    }


def _nested_components(ratings: Floats, codes: np.ndarray) -> dict[str, float]:
    """Variances of participants, their visits, readers, readers by participants, and the rest.

    From the analysis of variance of a balanced nested design.
    """
    cube = ratings[np.argsort(codes, kind="stable")].reshape(codes.max() + 1, -1, ratings.shape[1])
    a, b, k = cube.shape
    who, visit = cube.mean(axis=(1, 2)), cube.mean(axis=2)
    pair, reader, grand = cube.mean(axis=1), cube.mean(axis=(0, 1)), cube.mean()
    ms_who = b * k * np.sum((who - grand) ** 2) / (a - 1)
    ms_visit = k * np.sum((visit - who[:, None]) ** 2) / (a * (b - 1))
    ms_reader = a * b * np.sum((reader - grand) ** 2) / (k - 1)
    ms_pair = b * np.sum((pair - who[:, None] - reader + grand) ** 2) / ((a - 1) * (k - 1))
    left = cube - visit[:, :, None] - pair[:, None, :] + who[:, None, None]
    ms_left = np.sum(left**2) / (a * (b - 1) * (k - 1))
    return {
        "who": float(ms_who - ms_visit - ms_pair + ms_left) / (b * k),
        "visit": float(ms_visit - ms_left) / k,
        "reader": float(ms_reader - ms_pair) / (a * b),
        "pair": float(ms_pair - ms_left) / b,
        "residual": float(ms_left),
    }


def _standard(ratings: Floats) -> Floats:
    centred = ratings - ratings.mean()
    spread = float(centred.std())
    return centred / spread if spread > 0 else centred


def second_iccs(ratings: Floats, ours: Mapping[str, float]) -> dict[str, Second]:
    """Second computation of the ICC forms: pingouin if complete, else statsmodels.

    Examples
    --------
    >>> table = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]])
    >>> ours = {form: one[0] for form, one in _icc_by_pingouin(table).items()}
    >>> second_iccs(table, ours)["icc_a_1"].method
    'pingouin.intraclass_corr'
    """
    if np.isnan(ratings).any():
        return _second_incomplete(ratings, ours)
    if float(ratings.std()) < 1e-9 * float(np.abs(ratings).max()):
        reason = "values differ by less than a billionth of their size, which is rounding"
        return {form: _left_out("pingouin.intraclass_corr", reason) for form in ours}
    # pingouin has no answer, or a meaningless one, where nothing is left over or ICC(.,k) < 0.
    return {
        form: confirm(ours[form], theirs[0], "pingouin.intraclass_corr", tolerance=1e-7)
        # It loses digits of values that are far from 0 or tiny, where an ICC does not.
        for form, theirs in _icc_by_pingouin(_standard(ratings)).items()
        if np.isfinite(ours[form]) and np.isfinite(theirs[0])
    }


def second_kappa(a: Floats, b: Floats, weights: str, ours: float) -> Second:
    """Kappa of integer grades by statsmodels on the full scale.

    Examples
    --------
    >>> a, b = np.array([1.0, 2, 3, 3]), np.array([1.0, 2, 3, 2])
    >>> second_kappa(a, b, "none", 0.6363636363636364).method
    'statsmodels.cohens_kappa'
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    both = np.concatenate([a, b])
    if (both != np.round(both)).any() or np.ptp(both) > 500:
        return Second()
    low = int(both.min())
    size = int(both.max()) - low + 1
    table = np.zeros((size, size))
    np.add.at(table, ((a - low).astype(int), (b - low).astype(int)), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cohens_kappa(table, wt=None if weights == "none" else weights)
    return confirm(ours, float(found.kappa), "statsmodels.cohens_kappa")


def second_fleiss(grades: Floats, ours: float) -> Second:
    """Fleiss' kappa by statsmodels, complete readings only.

    Examples
    --------
    >>> second_fleiss(np.array([[1.0, 1], [2, 2], [1, 2]]), 0.3333333333333333).method
    'statsmodels.fleiss_kappa'
    """
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    if np.isnan(grades).any():
        return _left_out("statsmodels.fleiss_kappa", "it has no form with missing grades")
    table, _ = aggregate_raters(grades)
    return confirm(ours, float(fleiss_kappa(table)), "statsmodels.fleiss_kappa")


def second_alpha(ratings: Floats, level: str, ours: float) -> Second:
    """Krippendorff's alpha by the package krippendorff.

    Examples
    --------
    >>> second_alpha(np.array([[1.0, 1], [2, 2], [1, 2]]), "nominal", 0.4444444444444444)
    Second(estimate=0.4444444444444444, method='krippendorff.alpha')
    """
    import krippendorff

    different = np.unique(ratings[~np.isnan(ratings)]).size
    if different**2 * len(ratings) > MOST_CELLS:
        return _left_out(
            "krippendorff.alpha",
            f"{different} different values, it holds a table of their pairs for every target",
        )
    measure: Any = level
    theirs = krippendorff.alpha(reliability_data=ratings.T, level_of_measurement=measure)
    return confirm(ours, float(theirs), "krippendorff.alpha")


def second_kendall_w(ratings: Floats, ours: float) -> Second:
    """Kendall's W from scipy's Friedman statistic: W = chi-square / (k (n - 1)).

    Examples
    --------
    >>> table = np.array([[1.0, 2, 1], [2, 1, 3], [3, 3, 2], [4, 4, 4]])
    >>> second_kendall_w(table, 0.7777777777777778).method
    'scipy.stats.friedmanchisquare'
    """
    from scipy import stats

    complete = ratings[~np.isnan(ratings).any(axis=1)]
    n, k = complete.shape
    chi_square = stats.friedmanchisquare(*complete).statistic
    return confirm(ours, float(chi_square) / (k * (n - 1)), "scipy.stats.friedmanchisquare")


def second_bland_altman(
    difference: Floats,
    part: str,
    scale: float,
    ours: float,
    *,
    multiplier: float = 1.96,
    codes: Any = None,
) -> Second:
    """Bias and limits by statsmodels' DescrStatsW of the differences; in clusters by pandas.

    Examples
    --------
    >>> second_bland_altman(np.array([0.0, 2.0]), "bias", 1.0, 1.0)
    Second(estimate=1.0, method='statsmodels.DescrStatsW')
    """
    from statsmodels.stats.weightstats import DescrStatsW

    factor = {"bias": 0.0, "loa_lower": -multiplier, "loa_upper": multiplier}[part]
    if codes is None:
        found = DescrStatsW(difference, ddof=1)
        theirs = float(found.mean) + factor * float(found.std)
        return confirm(ours, theirs, "statsmodels.DescrStatsW", scale=scale * 1e-4)
    groups = pd.Series(difference).groupby(np.asarray(codes))
    means, sizes = groups.mean(), groups.size()
    inside = float((groups.var() * (sizes - 1)).sum() / (sizes - 1).sum())
    total = float(means.var()) + (1.0 - float((1.0 / sizes).mean())) * inside
    theirs = float(means.mean()) + factor * math.sqrt(total)
    return confirm(ours, theirs, "pandas groupby mean and var", scale=scale * 1e-4)


def second_within_sd(readings: Floats, ours: float) -> Second:
    """Within-target SD from Python's exact (rational) variance of each target, pooled by df.

    Examples
    --------
    >>> second_within_sd(np.array([[10.0, 11], [20, 19], [30, 32]]), 1.0).method
    'Python statistics.variance, pooled'
    """
    import statistics

    if np.isfinite(readings).sum() > MOST_FRACTIONS:
        return _left_out("Python statistics.variance", "too many readings for exact fractions")
    groups = [row[~np.isnan(row)] for row in readings]
    groups = [group for group in groups if group.size >= 2]
    df = np.array([group.size - 1 for group in groups])
    theirs = np.sqrt(
        np.average([statistics.variance(group.tolist()) for group in groups], weights=df)
    )
    scale = float(np.nanmax(np.abs(readings)))
    return confirm(ours, float(theirs), "Python statistics.variance, pooled", scale=scale)


def second_slope(x: ArrayLike, y: ArrayLike, ours: float) -> Second:
    """Least-squares slope by scipy.

    Examples
    --------
    >>> second_slope([1, 2, 3], [2, 4, 6], 2.0).method
    'scipy.stats.linregress'
    """
    from scipy import stats

    if np.ptp(np.asarray(x, dtype=float)) == 0:
        return Second()
    found = stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    return confirm(ours, float(found.slope), "scipy.stats.linregress")


def second_deming(x: Floats, y: Floats, part: str, ours: float) -> Second:
    """Deming line with equal error variances: the first principal axis by statsmodels.

    scipy.odr would be the obvious second program, but it stops early on tied values.

    Examples
    --------
    >>> second_deming(np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 6, 8]), "slope", 2.0).method
    'statsmodels PCA, first axis'
    """
    from statsmodels.multivariate.pca import PCA

    with warnings.catch_warnings():
        # It warns where both columns lie on one line, which is no fault.
        warnings.simplefilter("ignore")
        found = PCA(np.column_stack([x, y]), standardize=False, demean=True, normalize=False)
    axis = found.eigenvecs[:, 0]
    if abs(axis[0]) < 1e-6:
        return _left_out("statsmodels PCA, first axis", "the line is vertical")
    slope = float(axis[1] / axis[0])
    theirs = slope if part == "slope" else float(y.mean() - slope * x.mean())
    scale = 1.0 if part == "slope" else (1.0 + abs(slope)) * float(np.abs(x).max())
    return confirm(ours, theirs, "statsmodels PCA, first axis", tolerance=1e-6, scale=scale)


def second_percent(ratings: Floats, alpha: float, ours: float) -> Second:
    """Percent agreement of two readers by statsmodels' proportion, whose interval is checked too.

    Examples
    --------
    >>> second_percent(np.array([[1.0, 1], [2, 2], [1, 2], [3, 3]]), 0.05, 75.0).estimate
    75.0
    """
    from statsmodels.stats.proportion import proportion_confint

    if ratings.shape[1] != 2 or np.isnan(ratings).any():
        return Second()
    k, n = int((ratings[:, 0] == ratings[:, 1]).sum()), len(ratings)
    name = "statsmodels.proportion_confint (Wilson)"
    low, _ = proportion_confint(k, n, alpha=alpha, method="wilson")
    confirm(proportion(k, n, alpha=alpha).ci_low, float(low), name, tolerance=1e-7)
    return confirm(ours, 100.0 * k / n, name)


def second_reader_effect(wide: pd.DataFrame, source: str, ratio: float, ours: float) -> Second:
    """Deviation of a reader from the mean of readers by statsmodels' GLS at our variance ratio.

    MixedLM would find the ratio too, but it stops early where a variance is small or values are
    tied; the ratio itself is held against R's lme4 in the tests.

    Examples
    --------
    >>> wide = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [2.0, 3.0, 5.0]})
    >>> second_reader_effect(wide, "a", 20.0, -0.5).method
    'statsmodels GLS'
    """
    import statsmodels.api as sm

    values = wide.to_numpy(dtype=np.float64)
    values = values[(~np.isnan(values)).sum(axis=1) >= 2]
    target, reader = np.nonzero(~np.isnan(values))
    y = values[target, reader]
    scale = float(np.abs(y).max())
    if y.size > MOST_READINGS:
        return _left_out("statsmodels GLS", f"{y.size} readings, it holds their covariance matrix")
    if scale == 0 or ratio > 1e6:
        return Second()
    covariance = np.eye(y.size) + ratio * (target[:, None] == target[None, :])
    fit = sm.GLS(y, np.eye(wide.shape[1])[reader], sigma=covariance).fit()
    effects = np.asarray(fit.params)
    theirs = float(effects[list(wide.columns).index(source)] - effects.mean())
    return confirm(ours, theirs, "statsmodels GLS", tolerance=1e-7, scale=scale)
