"""Dose-response and exposure-response: linear, Emax, sigmoid Emax, MCP-Mod.

E(d) = e0 + emax d^h / (ed50^h + d^h). For given ed50 and h the model is linear in e0 and emax, so
the fit is a search over one or two numbers only, which finds the global minimum; limits come from
the profile of the residual sum of squares (an F test), because Wald limits of ed50 mislead.
MCP-Mod: Bretz, Pinheiro, Branson, Biometrics 2005;61:738.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used
from numpy.typing import ArrayLike

from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics import modelling
from corelab.pharmacodynamics.analysis_set import (
    adjusted_words,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    participant_columns,
    sheet_values,
    typed,
    with_covariates,
)
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.linear import (
    LinearFit,
    conditioned,
    fit_linear,
    influence,
    second_ols,
)
from corelab.pharmacodynamics.modelling import BOUNDS, saturation, standard_shape
from corelab.provenance.two_computations import MOST_PARTICIPANTS, attempt, compare
from corelab.settings.analyses.dose_response import DoseResponseSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

ED50_BOUNDS, HILL_BOUNDS = BOUNDS["sigmoid_emax"]["ed50"], BOUNDS["sigmoid_emax"]["hill"]


@dataclass(frozen=True)
class _EmaxFit:
    """Least-squares fit of an Emax model; ``hill`` is 1 in the three-parameter model.

    ``standard_errors`` and the (k, k) ``covariance`` are of the linearised model in the order of
    the fields; ``at_bound``: ed50 or hill lies at the edge of its search interval.
    """

    e0: float
    emax: float
    ed50: float
    hill: float
    standard_errors: tuple[float, ...]
    covariance: np.ndarray
    rss: float
    df: int
    at_bound: bool

    def predict(self, dose: Any) -> np.ndarray:
        """Mean response at doses."""
        return self.e0 + self.emax * saturation(np.asarray(dose, float), self.ed50, self.hill)


def _rss(dose: np.ndarray, response: np.ndarray, ed50: float, hill: float) -> tuple[float, Any]:
    matrix = np.column_stack([np.ones(dose.size), saturation(dose, ed50, hill)])
    beta, _, _, _ = np.linalg.lstsq(matrix, response, rcond=None)
    residuals = response - matrix @ beta
    return float(residuals @ residuals), beta


def _dose_pairs(dose: Any, response: Any, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    d, y = np.asarray(dose, float), np.asarray(response, float)
    if d.shape != y.shape or not (np.isfinite(d).all() and np.isfinite(y).all()):
        raise ValueError("dose and response must be finite and of one length")
    if np.any(d < 0):
        raise ValueError(f"dose {d.min():g} is negative")
    levels = np.unique(d).size
    if levels < distinct or y.size <= distinct:
        raise NotComputable(
            f"{levels} distinct doses and {y.size} values; the model has {distinct} parameters"
        )
    return d, y


def _fit_emax(dose: Any, response: Any, *, sigmoid: bool = False) -> _EmaxFit:
    """Fit e0 + emax d^h / (ed50^h + d^h) by least squares; h = 1 unless ``sigmoid``."""
    d, y = _dose_pairs(dose, response, 4 if sigmoid else 3)
    if np.ptp(y) == 0:
        raise NotComputable(f"no variance: every response is {y[0]:g}")
    low, high = (math.log(bound * d.max()) for bound in ED50_BOUNDS)
    grid = np.linspace(low, high, 61)
    if sigmoid:
        hills = np.geomspace(*HILL_BOUNDS, 31)
        costs = [(_rss(d, y, math.exp(g), h)[0], g, h) for g in grid for h in hills]
        _, log_ed50, hill = min(costs)

        def sum_of_squares(t: np.ndarray) -> float:
            return _rss(d, y, math.exp(np.clip(t[0], low, high)), _hill(float(t[1])))[0]

        found = scipy.optimize.minimize(
            sum_of_squares,
            np.array([log_ed50, math.log(hill)], float),
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000},
        )
        log_ed50, hill = float(np.clip(found.x[0], low, high)), _hill(found.x[1])
    else:
        costs_1 = np.array([_rss(d, y, math.exp(g), 1.0)[0] for g in grid])
        centre = int(np.argmin(costs_1))
        bracket = (grid[max(centre - 1, 0)], grid[min(centre + 1, grid.size - 1)])
        one = scipy.optimize.minimize_scalar(
            lambda g: _rss(d, y, math.exp(g), 1.0)[0],
            bounds=bracket,
            method="bounded",
            options={"xatol": 1e-12},
        )
        log_ed50, hill = float(one.x), 1.0
    return _emax_result(d, y, math.exp(log_ed50), hill, sigmoid, (low, high))


def _hill(log_hill: float) -> float:
    return float(np.clip(math.exp(min(log_hill, 50.0)), *HILL_BOUNDS))


def _emax_result(
    d: np.ndarray,
    y: np.ndarray,
    ed50: float,
    hill: float,
    sigmoid: bool,
    bounds: tuple[float, float],
) -> _EmaxFit:
    rss, beta = _rss(d, y, ed50, hill)
    jacobian = _gradient(d, float(beta[1]), ed50, hill, sigmoid)
    df = y.size - jacobian.shape[1]
    information = jacobian.T @ jacobian
    scale = np.sqrt(np.diag(information))
    if np.any(scale == 0) or np.linalg.cond(information / np.outer(scale, scale)) > 1e12:
        covariance = np.full(information.shape, np.nan)
    else:
        covariance = rss / df * np.linalg.inv(information)
    edge = 1e-4
    at_bound = min(abs(math.log(ed50) - bound) for bound in bounds) < edge or (
        sigmoid and min(abs(math.log(hill / bound)) for bound in HILL_BOUNDS) < edge
    )
    errors = tuple(float(v) for v in np.sqrt(np.diag(covariance)))
    return _EmaxFit(
        float(beta[0]), float(beta[1]), ed50, hill, errors, covariance, rss, df, bool(at_bound)
    )


def _gradient(d: np.ndarray, emax: float, ed50: float, hill: float, sigmoid: bool) -> np.ndarray:
    share = saturation(d, ed50, hill)
    inner = share * (1 - share)
    columns = [np.ones(d.size), share, -emax * inner * hill / ed50]
    if sigmoid:
        columns.append(emax * inner * np.where(d > 0, np.log(np.maximum(d, 1e-300) / ed50), 0.0))
    return np.column_stack(columns)


def _profile_limits(
    dose: Any, response: Any, fit: _EmaxFit, parameter: str, alpha: float = 0.05
) -> tuple[float, float]:
    """Profile limits of ``emax``, ``ed50`` or ``hill``: where the smallest residual sum of squares
    with the parameter held there exceeds the minimum by the F quantile. A limit is -inf, 0 or inf
    where the data set none inside the range that is searched.
    """
    d, y = np.asarray(dose, float), np.asarray(response, float)
    known = ("emax", "ed50", "hill")[: len(fit.standard_errors) - 1]
    if parameter not in known:
        raise ValueError(f"profile limits of '{parameter}'; known: {', '.join(known)}")
    limit = fit.rss * (1 + scipy.stats.f.ppf(1 - alpha, 1, fit.df) / fit.df)
    profile = _sigmoid_excess if "hill" in known else _plain_excess
    excess, ends = profile(d, y, parameter, limit)
    if parameter == "emax":
        span = 50 * max(float(np.ptp(y)), abs(fit.emax))
        low = _crossing(excess, fit.emax, fit.emax - span)
        high = _crossing(excess, fit.emax, fit.emax + span)
        return (-math.inf if low is None else low), (math.inf if high is None else high)
    start = math.log(fit.ed50 if parameter == "ed50" else fit.hill)
    low, high = _crossing(excess, start, ends[0]), _crossing(excess, start, ends[1])
    return (0.0 if low is None else math.exp(low)), (math.inf if high is None else math.exp(high))


def _plain_excess(
    d: np.ndarray, y: np.ndarray, parameter: str, limit: float
) -> tuple[Callable[[float], float], tuple[float, float]]:
    """Sum of squares above the limit of emax or of the logarithm of ed50, and its range."""
    wide = (math.log(1e-6 * d.max()), math.log(1e3 * d.max()))
    if parameter == "ed50":
        return (lambda log_ed50: _rss(d, y, math.exp(log_ed50), 1.0)[0] - limit), wide
    grid = np.linspace(*wide, 241)
    shares = np.array([saturation(d, math.exp(g), 1.0) for g in grid])
    # |y - emax s|^2 about its mean, from three moments of every share.
    centred = shares - shares.mean(axis=1, keepdims=True)
    own, cross = np.sum(centred**2, axis=1), centred @ (y - y.mean())
    whole = float(np.sum((y - y.mean()) ** 2))

    def excess(emax: float) -> float:
        costs = whole - 2 * emax * cross + emax**2 * own
        best = int(np.argmin(costs))
        found = scipy.optimize.minimize_scalar(
            lambda g: float(np.var(y - emax * saturation(d, math.exp(g), 1.0)) * y.size),
            bounds=(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]),
            method="bounded",
            options={"xatol": 1e-8},
        )
        return min(float(costs[best]), float(found.fun)) - limit

    return excess, wide


def _sigmoid_excess(
    d: np.ndarray, y: np.ndarray, parameter: str, limit: float
) -> tuple[Callable[[float], float], tuple[float, float]]:
    """The same of emax, or of the logarithm of ed50 or hill, of the sigmoid model."""
    wide = (math.log(1e-4 * d.max()), math.log(1e2 * d.max()))
    hills = np.log(np.geomspace(*HILL_BOUNDS, 25))
    places = np.linspace(*wide, 81)
    corners = np.array([(e, h) for e in places for h in hills])
    shares = np.array([saturation(d, math.exp(e), _hill(h)) for e, h in corners])

    def cost(log_ed50: float, log_hill: float, emax: float | None) -> float:
        share = saturation(d, math.exp(np.clip(log_ed50, *wide)), _hill(log_hill))
        if emax is None:
            design_ = np.column_stack([np.ones(d.size), share])
            rest = y - design_ @ np.linalg.lstsq(design_, y, rcond=None)[0]
            return float(rest @ rest)
        rest = y - emax * share
        return float(np.sum((rest - rest.mean()) ** 2))

    def excess(held: float) -> float:
        if parameter == "ed50":
            return _least_of(lambda h: cost(held, h, None), hills) - limit
        if parameter == "hill":
            return _least_of(lambda e: cost(e, held, None), places) - limit
        rest = y[None, :] - held * shares
        costs = np.sum((rest - rest.mean(axis=1, keepdims=True)) ** 2, axis=1)
        best = int(np.argmin(costs))
        found = scipy.optimize.minimize(  # type: ignore[call-overload]
            lambda t: cost(float(t[0]), float(t[1]), held),
            np.asarray(corners[best], float),
            method="Nelder-Mead",
            options={"xatol": 1e-4, "fatol": 1e-8 * limit, "maxiter": 150},
        )
        return float(min(costs[best], found.fun)) - limit

    return excess, wide if parameter != "hill" else (float(hills[0]), float(hills[-1]))


def _least_of(cost: Callable[[float], float], grid: np.ndarray) -> float:
    """Minimum over an interval: the best point of a grid, refined between its neighbours."""
    costs = [cost(float(g)) for g in grid]
    best = int(np.argmin(costs))
    found = scipy.optimize.minimize_scalar(
        cost,
        bounds=(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(min(costs[best], found.fun))


def _jonckheere(dose: Any, response: Any) -> tuple[float, float, float]:
    """Jonckheere-Terpstra test of an ordered trend (Hollander and Wolfe 1999, 6.2, with ties).

    z (positive where the response rises), two-sided p, and the share of pairs from two doses in
    which the response rises with the dose, ties counting half.
    """
    d, y = np.asarray(dose, float), np.asarray(response, float)
    levels, sizes = np.unique(d, return_counts=True)
    if levels.size < 2 or np.ptp(y) == 0:
        raise NotComputable("a trend needs two doses and a response that varies")
    statistic, pairs = 0.0, 0
    for k, low in enumerate(levels):
        for high in levels[k + 1 :]:
            below, above = np.sort(y[d == low]), y[d == high]
            # Pairs that rise, and half of those that are equal.
            places = [np.searchsorted(below, above, side) for side in ("left", "right")]
            statistic += float(np.sum(places)) / 2
            pairs += below.size * above.size
    n = float(y.size)
    ties = np.unique(y, return_counts=True)[1].astype(float)
    groups = sizes.astype(float)

    def third(v: np.ndarray) -> float:
        return float(np.sum(v * (v - 1) * (2 * v + 5)))

    whole = np.array([n])
    variance = (third(whole) - third(groups) - third(ties)) / 72
    if n > 2:
        variance += (
            float(np.sum(groups * (groups - 1) * (groups - 2)))
            * float(np.sum(ties * (ties - 1) * (ties - 2)))
            / (36 * n * (n - 1) * (n - 2))
        )
    variance += (
        float(np.sum(groups * (groups - 1))) * float(np.sum(ties * (ties - 1))) / (8 * n * (n - 1))
    )
    mean = (n**2 - float(np.sum(groups**2))) / 4
    z = (statistic - mean) / math.sqrt(variance)
    return float(z), float(2 * scipy.stats.norm.sf(abs(z))), statistic / pairs


def _crossing(excess: Callable[[float], float], start: float, end: float) -> float | None:
    """Where the excess first becomes positive between start and end; None if it does not."""
    # Quadratic spacing: most crossings lie near the estimate.
    points = start + (end - start) * np.linspace(0, 1, 61)[1:] ** 2
    before = start
    for point in points:
        if excess(float(point)) > 0:
            return float(scipy.optimize.brentq(excess, before, float(point), xtol=1e-10))
        before = float(point)
    return None


# --------------------------------------------------------------------------------------- MCP-Mod


@dataclass(frozen=True)
class _ContrastTest:
    """One candidate's contrast test of MCP-Mod."""

    candidate: str
    t: float
    p_adjusted: float
    contrast: np.ndarray


@dataclass(frozen=True)
class _MultipleContrasts:
    """Tests in the order of the candidates, with their one-sided critical value."""

    tests: tuple[_ContrastTest, ...]
    critical_value: float


def _multiple_contrasts(
    means: Any, covariance: Any, df: int, candidates: Mapping[str, ArrayLike], alpha: float = 0.025
) -> _MultipleContrasts:
    """Optimal contrasts of candidate shapes, their one-sided tests and the critical value.

    ``covariance`` is that of the (k,) means by rising dose; ``df`` 0 is the normal case.
    """
    mu, s = np.asarray(means, float), np.asarray(covariance, float)
    inverse = np.linalg.inv(s)
    one = np.ones(mu.size)
    contrasts = []
    for name, shape in candidates.items():
        target = np.asarray(shape, float)
        if np.ptp(target) == 0:
            raise ValueError(f"candidate {name} is flat over these doses")
        weights = inverse @ (target - (one @ inverse @ target) / (one @ inverse @ one))
        contrasts.append(weights / np.linalg.norm(weights))
    block = np.array(contrasts)
    spread = block @ s @ block.T
    scale = np.sqrt(np.diag(spread))
    t = block @ mu / scale
    correlation = spread / np.outer(scale, scale)
    largest, rank = modelling.sphere_maxima(correlation)
    adjusted = [modelling.max_t_tail(float(value), largest, rank, df) for value in t]
    tests = tuple(
        _ContrastTest(name, float(ti), float(ai), ci)
        for name, ti, ai, ci in zip(candidates, t, adjusted, contrasts, strict=True)
    )
    critical = modelling.critical_max_t(largest, rank, df, alpha)
    return _MultipleContrasts(tests, critical)


# ------------------------------------------------------------------------------------- the plan

#: Parameters of the candidate models of MCP-Mod that need a guess.
PARAMETERS: dict[str, tuple[str, ...]] = {
    **{model: tuple(bounds) for model, bounds in BOUNDS.items()},
    "quadratic": ("delta",),
    "loglinear": ("offset",),
}
#: Candidates where the plan names none: shares of the largest dose (hill as it is).
GUESSES: dict[str, dict[str, float]] = {
    "linear": {},
    "emax": {"ed50": 0.2},
    "sigmoid_emax": {"ed50": 0.5, "hill": 4.0},
    "exponential": {"delta": 0.5},
}


#: Statistic of a model that is not computable.
_MAIN = {
    "linear": "slope",
    "mixed": "slope",
    "trend": "trend_z",
    "emax": "emax",
    "sigmoid_emax": "emax",
    "mcpmod": "mcp_t",
    "williams": "williams_t",
}


def analyse(analysis: DoseResponseSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``dose_response``, by dose or exposure."""
    for endpoint in endpoints_of(analysis):
        for kind in analysis.require_one:
            if name := getattr(analysis, kind):
                yield from _one_driver(Driver(analysis, tables, endpoint, kind, str(name)))


@dataclass(frozen=True)
class Driver:
    """An endpoint and what it responds to: the column ``name`` of a dose, or an exposure."""

    analysis: DoseResponseSpec
    tables: Tables
    endpoint: str
    kind: str
    name: str

    def frame(self, visit: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str], str]:
        """Complete cases with ``value``, ``driver`` and the covariates of one visit, and a note."""
        analysis, tables, name = self.analysis, self.tables, self.name
        covariates, at = list(analysis.covariates), ""
        if self.kind == "dose":
            values = typed(participant_columns(analysis, tables, [name])[name])
            if values.dtype == object:
                raise NotComputable(f"column {name} is not numeric; a dose must be a number")
        else:
            values, seen = sheet_values(analysis, tables, "exposure", name, visit)
            at = f"exposure at {seen}" if seen not in ("all", visit) else ""
        frame = frame.assign(driver=values.reindex(frame.index))
        frame = with_covariates(frame, analysis, tables, endpoint=self.endpoint, names=covariates)
        frame, note = complete_cases(frame, ["value", "driver", *covariates], analysis, tables)
        if frame.empty:
            raise NotComputable(f"no participant has both {self.endpoint} and {name}")
        if frame["driver"].nunique() < 2:
            raise NotComputable(f"{name} is {frame['driver'].iloc[0]:g} for every participant")
        return frame, covariates, join_notes(at, note)


def _one_driver(driver: Driver) -> Iterator[StatisticRow]:
    models = as_list(driver.analysis.models)
    head = {"endpoint": driver.endpoint, "group": driver.name}
    try:
        by_visit = endpoint_by_visit(driver.analysis, driver.tables, driver.endpoint)
    except NotComputable as reason:
        for model in models:
            yield not_computable(_MAIN[model], str(reason), method=model, **head)
        return
    if "mixed" in models:
        rows = _mixed_rows(driver, by_visit)
        yield from guarded(rows, "slope", method="mixed", **head)
    for visit, values in by_visit:
        for model in [model for model in models if model != "mixed"]:
            rows = _at_visit(driver, visit, values, model)
            yield from guarded(rows, _MAIN[model], visit=visit, method=model, **head)


def _at_visit(
    driver: Driver, visit: str, values: pd.DataFrame, model: str
) -> Iterator[StatisticRow]:
    frame, covariates, note = driver.frame(visit, values)
    if covariates and model not in {"linear", "mcpmod"}:
        raise NotComputable(f"{model} takes no covariates; use linear or mcpmod")
    kernels: dict[str, Callable[..., Iterator[StatisticRow]]] = {
        "linear": _linear_rows,
        "trend": _trend_rows,
        "emax": _emax_rows,
        "sigmoid_emax": partial(_emax_rows, sigmoid=True),
        "mcpmod": _mcpmod_rows,
        "williams": _williams_rows,
    }
    for row in kernels[model](driver.analysis, frame, covariates, driver.name):
        yield row.within(values.attrs["said"], note, n=len(frame))


def _linear_rows(
    analysis: DoseResponseSpec, frame: pd.DataFrame, covariates: list[str], name: str
) -> Iterator[StatisticRow]:
    alpha = analysis.alpha
    plan = design(
        frame,
        covariates=["driver", *covariates],
        reference_levels=analysis.reference_levels,
    )
    y = frame["value"].to_numpy(float)
    fit = fit_linear(plan.matrix, y)
    result, theirs = fit.term(1, alpha), second_ols(plan.matrix, y)
    adjusted, library = adjusted_words(covariates), "statsmodels OLS"
    curved = _curvature_p(frame["driver"].to_numpy(float), y, fit, plan.matrix)
    yield result.row(
        "slope",
        compare(result.estimate, float(theirs[1]), library, scale=result.se, tolerance=1e-6),
        method=f"linear model by least squares, change per unit of {name}{adjusted}; "
        f"t interval, df {fit.df}",
        note=join_notes(
            f"quadratic term p {curved:.3g}" if math.isfinite(curved) else "",
            f"residuals: Shapiro-Wilk p {influence(plan.matrix, y).shapiro_p:.3g}",
        ),
    )
    yield fit.term(0, alpha).row(
        "intercept",
        method=f"linear model by least squares, mean at {name} 0"
        + (f" and covariates 0{adjusted}" if covariates else ""),
    )
    other = 1 - np.sum((y - plan.matrix @ theirs) ** 2) / np.sum((y - y.mean()) ** 2)
    yield Estimate(fit.r_squared).row(
        "r_squared",
        compare(fit.r_squared, float(other), library, tolerance=1e-6),
        method=f"linear model by least squares on {name}{adjusted}",
    )


def _mixed_rows(
    driver: Driver, by_visit: Sequence[tuple[str, pd.DataFrame]]
) -> Iterator[StatisticRow]:
    """Slope on the dose or exposure of the same visit, all visits together, random participants."""
    from corelab.pharmacodynamics.mmrm import fit_linear_mixed

    analysis, endpoint, name = driver.analysis, driver.endpoint, driver.name
    frames: list[pd.DataFrame] = []
    covariates: list[str] = []
    said: list[str] = []
    for visit, values in by_visit:
        if driver.kind == "exposure" and not analysis.exposure_visit:
            seen = sheet_values(analysis, driver.tables, "exposure", name, visit)[1]
            if seen not in ("all", visit):
                said.append(f"no {name} at {visit}: left out")
                continue
        try:
            frame, covariates, _ = driver.frame(visit, values)
        except NotComputable as reason:
            said.append(f"{visit} left out: {reason}")
            continue
        said.append(f"{visit}: {values.attrs['said']}" if values.attrs["said"] else "")
        frames.append(frame.assign(visit=visit))
    long = pd.concat(frames) if frames else pd.DataFrame()
    if not len(long) or not long.index.duplicated().any():
        raise NotComputable(
            f"no participant has {endpoint} and {name} at two visits; use linear for one visit"
        )
    also = [*["visit"] * (len(set(long["visit"])) > 1), *covariates]
    plan = design(long, covariates=["driver", *also], reference_levels=analysis.reference_levels)
    y, subject = long["value"].to_numpy(float), long.index.to_numpy()
    people = long.index.nunique()
    fit, between, within = fit_linear_mixed(subject, y, plan.matrix, np.ones((len(y), 1)))
    result = fit.kenward_roger(np.eye(len(plan.terms))[1], analysis.alpha)
    spread = float(between[0, 0])
    # Values of a participant that differ more than those of two: the covariance stays as it is.
    few = people <= MOST_PARTICIPANTS
    theirs = _mixed_check(subject, y, plan.matrix) if spread > 0 and few else None
    why = "does not allow the negative variance found here"
    if spread > 0:
        why = "did not converge" if few else f"left out: more than {MOST_PARTICIPANTS} participants"
    second = Second(method=f"statsmodels MixedLM {why}")
    if theirs is not None:
        library = "statsmodels MixedLM"
        second = compare(result.estimate, theirs, library, tolerance=1e-2, scale=result.se)
    yield result.row(
        "slope",
        second,
        n=people,
        method=f"mixed model, change per unit of {name} at the same visit, random participants, "
        f"REML, Kenward-Roger, df {result.df:.6g}{adjusted_words(also)}",
        note=join_notes(
            f"{len(y)} values of {people} participants",
            f"variance between participants {spread:.4g}, within {within:.4g}",
            *said,
        ),
    )


def _mixed_check(subject: np.ndarray, y: np.ndarray, matrix: np.ndarray) -> float | None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    scaled, back = conditioned(matrix)
    fit, _ = attempt(
        lambda: MixedLM((y - y.mean()) / y.std(), scaled, subject).fit(reml=True), "MixedLM"
    )
    good = fit is not None and fit.converged
    return float((back @ fit.fe_params)[1] * y.std()) if good else None


def _curvature_p(driver: np.ndarray, y: np.ndarray, fit: LinearFit, matrix: np.ndarray) -> float:
    """The p of a quadratic term added to the model; nan where the doses do not allow one."""
    centred = driver - driver.mean()
    wider = np.column_stack([matrix, centred**2])
    if np.linalg.matrix_rank(wider) <= matrix.shape[1] or y.size <= wider.shape[1]:
        return math.nan
    try:
        return fit_linear(wider, y).term(-1).p_value
    except NotComputable:
        return math.nan


def _emax_rows(
    analysis: DoseResponseSpec,
    frame: pd.DataFrame,
    covariates: list[str],
    name: str,
    sigmoid: bool = False,
) -> Iterator[StatisticRow]:
    d, y = frame["driver"].to_numpy(float), frame["value"].to_numpy(float)
    fit = _fit_emax(d, y, sigmoid=sigmoid)
    model = f"{'sigmoid ' * sigmoid}Emax model by least squares"
    bound = "ed50 at the edge of its search interval: the doses do not determine it"
    if sigmoid:
        bound = "ed50 or hill at the edge of its search interval"
    bound *= fit.at_bound
    theirs = None if fit.at_bound or sigmoid else _curve_fit(d, y, fit)
    # Two parameters beyond the mean; Davies' problem makes this F test approximate.
    f = (float(np.sum((y - y.mean()) ** 2)) - fit.rss) / 2 / (fit.rss / fit.df)
    for place, parameter in enumerate(("emax", "ed50", "hill")[: 2 + sigmoid], start=1):
        value, error = getattr(fit, parameter), fit.standard_errors[place]
        limits = _profile_limits(d, y, fit, parameter, analysis.alpha)
        low, high = (one if math.isfinite(one) else math.nan for one in limits)
        tested = parameter == "emax" and not sigmoid
        second = Second()
        if theirs is not None:
            scale, library = max(abs(value), error), "scipy.optimize.curve_fit"
            second = compare(value, theirs[place], library, scale=scale, tolerance=1e-5)
        yield Estimate(value, low, high).row(
            parameter,
            second,
            p_value=float(scipy.stats.f.sf(f, 2, fit.df)) if tested else math.nan,
            method=f"{model}, profile interval (F)"
            + "; p: F test against a constant, approximate" * tested,
            note=join_notes(
                bound,
                "" if all(map(math.isfinite, limits)) else "limit not determined",
                f"asymptotic SE {error:.4g}",
            ),
        )
    yield Estimate(fit.e0).row(
        "e0",
        method=f"{model}, response without drug",
        note=join_notes(bound, f"asymptotic SE {fit.standard_errors[0]:.4g}"),
    )


def _curve_fit(d: np.ndarray, y: np.ndarray, fit: _EmaxFit) -> list[float] | None:
    """The same model by scipy's Levenberg-Marquardt from its own start; None if it fails."""
    highest, lowest = y[d == d.max()].mean(), y[d == d.min()].mean()
    # The fit has local minima; the library starts at our ed50's order of magnitude only.
    start = [lowest, highest - lowest or 1.0, 10 ** round(math.log10(fit.ed50))]
    # It warns where its covariance is singular; only the estimates are wanted.
    fit_, _ = attempt(
        lambda: scipy.optimize.curve_fit(
            lambda dose, e0, emax, ed50: e0 + emax * dose / (ed50 + dose),
            d,
            y,
            p0=start,
            maxfev=20000,
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
        ),
        "scipy.optimize.curve_fit",
    )
    if fit_ is None:
        return None
    found = fit_[0]
    rss = float(np.sum((y - found[0] - found[1] * d / (found[2] + d)) ** 2))
    return [float(v) for v in found] if rss <= fit.rss * (1 + 1e-6) else None


def _trend_rows(
    analysis: DoseResponseSpec, frame: pd.DataFrame, covariates: list[str], name: str
) -> Iterator[StatisticRow]:
    d, y = frame["driver"].to_numpy(float), frame["value"].to_numpy(float)
    z, p_value, share = _jonckheere(d, y)
    yield Estimate(z, p_value=p_value).row(
        "trend_z",
        method=f"Jonckheere-Terpstra test of an ordered trend over {name}, normal "
        "approximation with tie correction, two-sided",
        note=f"{100 * share:.1f} % of pairs of participants from two doses rise with the dose "
        "(ties split)",
    )


def _direction(analysis: DoseResponseSpec) -> tuple[float, str]:
    """Sign that makes the expected response rise, and its word."""
    return (-1.0, "falling") if analysis.direction == "decreasing" else (1.0, "rising")


def _williams_rows(
    analysis: DoseResponseSpec, frame: pd.DataFrame, covariates: list[str], name: str
) -> Iterator[StatisticRow]:
    direction, side = _direction(analysis)
    values, doses = direction * frame["value"].to_numpy(float), frame["driver"].to_numpy(float)
    alpha = analysis.alpha / 2
    tested = True
    for dose, t, p in reversed(modelling.williams(doses, values)):
        yield Estimate(t, p_value=p).row(
            "williams_t",
            group=f"{name}={dose:g}|{name}={doses.min():g}",
            method=f"Williams' test of a {side} response against dose {doses.min():g}, "
            f"one-sided, multivariate t; step-down from the highest dose at {alpha:g}",
            note="" if tested else "not tested: a higher dose is not significant",
        )
        tested = tested and p < alpha


def _mcpmod_rows(
    analysis: DoseResponseSpec, frame: pd.DataFrame, covariates: list[str], name: str
) -> Iterator[StatisticRow]:
    from statsmodels.regression.linear_model import OLS

    doses = np.sort(frame["driver"].unique())
    if doses.size < 3:
        raise NotComputable(f"MCP-Mod needs three doses, there are {doses.size}")
    if doses.size > 12:
        raise NotComputable(f"{doses.size} distinct values of {name}: MCP-Mod compares dose groups")
    indicator = (frame["driver"].to_numpy()[:, None] == doses).astype(float)
    extra = design(frame, covariates=covariates).matrix[:, 1:]
    extra = extra - extra.mean(axis=0)
    matrix = np.column_stack([indicator, extra])
    # Contrasts do not feel a shift of the response, and rounding does.
    y = frame["value"].to_numpy(float) - float(frame["value"].mean())
    fit, k = fit_linear(matrix, y), doses.size
    models = _candidate_models(analysis, float(doses.max()))
    shapes = {n: standard_shape(one.model, doses, **one.guesses) for n, one in models.items()}
    direction, side = _direction(analysis)
    alpha = analysis.alpha / 2
    result = _multiple_contrasts(
        direction * fit.coefficients[:k], fit.covariance[:k, :k], fit.df, shapes, alpha
    )
    largest = max(result.tests, key=lambda test: test.t)
    theirs = OLS(y, matrix).fit()
    for test in result.tests:
        weights = np.concatenate([direction * test.contrast, np.zeros(extra.shape[1])])
        other = float(np.squeeze(theirs.t_test(weights).tvalue))
        best = test is largest and test.t > result.critical_value
        yield Estimate(test.t, p_value=test.p_adjusted).row(
            "mcp_t",
            compare(test.t, other, "statsmodels OLS.t_test of the contrast"),
            group=f"{name}|{test.candidate}",
            method=f"MCP-Mod contrast test, one-sided for a {side} response, p by "
            f"multivariate t with df {fit.df}; critical value {result.critical_value:.4f} "
            f"at {alpha:g}",
            note="largest contrast: the model that the plan would fit" * best,
        )
    yield from modelling.mod_rows(
        analysis,
        frame["driver"].to_numpy(float),
        direction * frame["value"].to_numpy(float),
        extra,
        {
            models[test.candidate].model: models[test.candidate].guesses
            for test in result.tests
            if test.t > result.critical_value
        },
        name,
    )


@dataclass(frozen=True)
class _CandidateModel:
    """A candidate of MCP-Mod: its model, and guesses of the model's parameters."""

    model: str
    guesses: dict[str, float]


def _candidate_models(analysis: DoseResponseSpec, top: float) -> dict[str, _CandidateModel]:
    """Candidates of MCP-Mod by name: a list of models (guesses of :data:`GUESSES`) or of blocks
    ``{model: emax, ed50: 0.3}``, or name -> block; without the key those of :data:`GUESSES`.
    """
    given = analysis.candidates or list(GUESSES)
    if isinstance(given, Mapping):
        listed = [(str(name), spec) for name, spec in given.items()]
    else:
        listed = [("", spec) for spec in given]
    found: dict[str, _CandidateModel] = {}
    for named, spec in listed:
        block = {"model": spec} if isinstance(spec, str) else dict(spec or {})
        model = str(block.pop("model", named))
        name = str(block.pop("name", "") or named or model)
        if model not in PARAMETERS:
            raise NotComputable(
                f"unknown candidate model '{model}'; known: {', '.join(PARAMETERS)}"
            )
        guesses = {key: float(value) for key, value in block.items()}
        guesses = guesses or {
            k: share * (top if k != "hill" else 1.0) for k, share in GUESSES.get(model, {}).items()
        }
        missing = set(PARAMETERS[model]) - set(guesses)
        if missing - {"offset"} or set(guesses) - set(PARAMETERS[model]):
            raise NotComputable(
                f"candidate {name}: model {model} has the guesses "
                f"{', '.join(PARAMETERS[model]) or 'none'}, not {', '.join(guesses) or 'none'}"
            )
        if name in found:
            name = f"{name} {', '.join(f'{k}={v:g}' for k, v in guesses.items())}"
        found[name] = _CandidateModel(model, guesses)
    return found


@dataclass(frozen=True)
class ResponseBand:
    """Fitted response with its pointwise confidence band."""

    driver: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def response_band(
    driver: Any, response: Any, *, model: str = "linear", alpha: float = 0.05, points: int = 101
) -> ResponseBand:
    """Mean response over the range of dose or exposure with a pointwise band (delta method).

    Examples
    --------
    >>> response_band([0, 1, 2, 3], [0.1, 0.9, 2.2, 2.9], points=2).mean.round(2).tolist()
    [0.07, 2.98]
    """
    d, y = np.asarray(driver, float), np.asarray(response, float)
    grid = np.linspace(d.min(), d.max(), points)
    if model == "linear":
        fit = fit_linear(np.column_stack([np.ones(d.size), d]), y)
        gradient = np.column_stack([np.ones(points), grid])
        mean, covariance, df = gradient @ fit.coefficients, fit.covariance, fit.df
    else:
        curve = _fit_emax(d, y, sigmoid=model == "sigmoid_emax")
        gradient = _gradient(grid, curve.emax, curve.ed50, curve.hill, model == "sigmoid_emax")
        mean, covariance, df = curve.predict(grid), curve.covariance, curve.df
    half = scipy.stats.t.ppf(1 - alpha / 2, df) * np.sqrt(
        np.einsum("ip,pq,iq->i", gradient, covariance, gradient)
    )
    return ResponseBand(grid, mean, mean - half, mean + half)
