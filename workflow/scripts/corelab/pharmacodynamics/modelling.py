"""The Mod step of MCP-Mod and Williams' test.

Mod (Bretz, Pinheiro, Branson, Biometrics 2005;61:738): every model whose candidate is significant
is fitted by least squares; Akaike's criterion selects one and weighs all; the target dose is the
smallest at which the response exceeds that at the lowest dose by the target effect. Its interval is
a bootstrap within dose groups that repeats fit and averaging. Williams: Biometrics 1971;27:103.
Many-to-one tests and contrasts share the tail of the largest of correlated t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable
from corelab.settings.analyses.dose_response import DoseResponseSpec
from corelab.terms.results import Estimate, StatisticRow, join_notes, not_computable

#: Search intervals as multiples of the largest dose (hill as it is), as DoseFinding::defBnds.
BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "linear": {},
    "emax": {"ed50": (0.001, 1.5)},
    "sigmoid_emax": {"ed50": (0.001, 1.5), "hill": (0.5, 10.0)},
    "exponential": {"delta": (0.1, 2.0)},
    "quadratic": {},
    "loglinear": {},
}


def saturation(dose: np.ndarray, ed50: float, hill: float) -> np.ndarray:
    """Share of the largest effect that a sigmoid Emax model reaches at the doses."""
    # d^h / (ed50^h + d^h), written so that neither power overflows.
    with np.errstate(divide="ignore"):
        ratio = np.where(dose > 0, np.log(np.maximum(dose, 1e-300)) - math.log(ed50), -np.inf)
    return 1.0 / (1.0 + np.exp(np.clip(-hill * ratio, -700, 700))) * (dose > 0)


def standard_shape(name: str, doses: Any, **parameters: float) -> np.ndarray:
    """Standardised mean (0 at dose 0, rising) of a candidate model at the (k,) doses.

    ``linear``, ``emax`` (ed50), ``sigmoid_emax`` (ed50, hill), ``exponential`` (delta),
    ``quadratic`` (delta, negative) or ``loglinear`` (offset), with these parameters.

    Examples
    --------
    >>> standard_shape("emax", [0.0, 1.0, 3.0], ed50=1.0).tolist()
    [0.0, 0.5, 0.75]
    """
    d = np.asarray(doses, float)
    if name == "linear":
        return d
    if name == "emax":
        return saturation(d, parameters["ed50"], 1.0)
    if name == "sigmoid_emax":
        return saturation(d, parameters["ed50"], parameters["hill"])
    if name == "exponential":
        return np.expm1(d / parameters["delta"])
    if name == "quadratic":
        return d + parameters["delta"] * d**2
    if name == "loglinear":
        offset = parameters.get("offset", 0.01 * d.max())
        return np.log(d + offset) - math.log(offset)
    raise ValueError(f"unknown candidate model '{name}'")


@dataclass(frozen=True)
class _ModelFit:
    """A dose-response model by least squares.

    ``slopes`` are the coefficients of the shape (two of the quadratic model), ``aic`` is n log(rss
    / n) + 2 (parameters + 1).
    """

    model: str
    parameters: dict[str, float]
    slopes: np.ndarray
    rss: float
    aic: float

    def effect(self, dose: Any, lowest: float) -> np.ndarray:
        """Response above that at the lowest dose."""
        d = np.append(np.asarray(dose, float), lowest)
        top = self.parameters.get("_top", float(d.max()))
        found = _shape(self.model, d, self.parameters, top) @ self.slopes
        return found[:-1] - found[-1]

    def target_dose(self, effect: float, lowest: float, highest: float) -> float:
        """Smallest dose of the range with the effect; nan where none has it."""
        grid = np.linspace(lowest, highest, 1001)
        above = np.flatnonzero(self.effect(grid, lowest) >= effect)
        if not above.size or above[0] == 0:
            return math.nan
        low, high = grid[above[0] - 1], grid[above[0]]
        return float(
            scipy.optimize.brentq(lambda d: float(self.effect([d], lowest)[0]) - effect, low, high)
        )


def _shape(model: str, d: np.ndarray, parameters: Mapping[str, float], top: float) -> np.ndarray:
    if model == "quadratic":
        return np.column_stack([d, d**2])
    own = {k: v for k, v in parameters.items() if not k.startswith("_")}
    if model == "loglinear":
        own.setdefault("offset", 0.01 * top)
    return standard_shape(model, d, **own)[:, None]


def _fit_model(
    model: str,
    dose: Any,
    response: Any,
    extra: Any = None,
    guesses: Mapping[str, float] | None = None,
) -> _ModelFit:
    """Fit one model of :data:`BOUNDS` with linear covariates ``extra`` (n, q).

    ``guesses`` has the offset of ``loglinear``.
    """
    d, y = np.asarray(dose, float), np.asarray(response, float)
    rest = np.empty((d.size, 0)) if extra is None else np.asarray(extra, float)
    top = float(d.max())
    fixed = {"_top": top}
    if model == "loglinear" and guesses and "offset" in guesses:
        fixed["offset"] = float(guesses["offset"])
    # Values of one dose have one mean: the sums of squares are those of the doses, with the
    # covariates projected, plus what lies within doses.
    levels, place = np.unique(d, return_inverse=True)
    basis, frame = np.linalg.qr(np.column_stack([np.eye(levels.size)[place], rest]))
    target = basis.T @ y
    within = float(np.sum((y - basis @ target) ** 2))
    by_dose, others = frame[:, : levels.size], frame[:, levels.size :]
    names = list(BOUNDS[model])
    bounds = [
        [math.log(b * (1.0 if n == "hill" else top)) for b in BOUNDS[model][n]] for n in names
    ]

    def solve(values: Any) -> tuple[float, np.ndarray, dict[str, float]]:
        own = {**fixed, **{n: math.exp(v) for n, v in zip(names, values, strict=True)}}
        with np.errstate(over="ignore"):
            block = _shape(model, levels, own, top)
        if not np.isfinite(block).all():
            return math.inf, np.zeros(block.shape[1]), own
        shape = by_dose @ np.column_stack([np.ones(levels.size), block])
        matrix = np.column_stack([shape, others])
        beta = np.linalg.lstsq(matrix, target, rcond=None)[0]
        left = target - matrix @ beta
        return float(left @ left) + within, beta[1 : 1 + block.shape[1]], own

    best: Sequence[float] = []
    if names:
        grids = [np.linspace(low, high, 25) for low, high in bounds]
        trials = np.array(np.meshgrid(*grids)).reshape(len(names), -1).T
        start = trials[int(np.argmin([solve(t)[0] for t in trials]))]
        least, most = np.transpose(bounds)

        def cost(v: Any) -> float:
            return solve(np.clip(v, least, most))[0]

        found: Any = scipy.optimize.minimize(
            cost,
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 400},
        )
        best = list(np.clip(found.x, least, most))
    rss, slopes, own = solve(best)
    count = 1 + slopes.size + len(names) + rest.shape[1]
    return _ModelFit(model, own, slopes, rss, y.size * math.log(rss / y.size) + 2 * (count + 1))


def mod_rows(
    analysis: DoseResponseSpec,
    dose: np.ndarray,
    response: np.ndarray,
    extra: np.ndarray,
    models: Mapping[str, Mapping[str, float]],
    name: str,
) -> Iterator[StatisticRow]:
    """Rows of the Mod step: weights of the models and the target dose, by model and averaged.

    ``dose`` and ``response`` are (n,), the response rising where the drug works, ``extra`` (n, q)
    covariates; ``models`` has the guesses of the models of significant candidates, ``name`` is the
    dose's, for the column group.
    """
    planned = analysis.target_effect is not None
    if not models:
        if planned:
            reason = "no candidate is significant, so no model is fitted"
            yield not_computable("target_dose", reason, group=name)
        return
    fits = _fits(models, dose, response, extra)
    weights = _weights(fits)
    chosen = min(fits, key=lambda kind: fits[kind].aic)
    for kind, fit in fits.items():
        own = ", ".join(f"{k} {v:.4g}" for k, v in fit.parameters.items() if k[0] != "_")
        yield Estimate(weights[kind]).row(
            "model_weight",
            group=f"{name}|{kind}",
            method="weight exp(-AIC / 2) among the models of significant candidates",
            note=join_notes(f"AIC {fit.aic:.4f}", own, "selected" * (kind == chosen)),
        )
    if planned:
        for row in _target_rows(analysis, dose, response, extra, models, fits):
            selected = "selected by AIC" * (row.group == chosen)
            yield replace(row.within(selected), group=f"{name}|{row.group}")


def _fits(
    models: Mapping[str, Mapping[str, float]],
    dose: np.ndarray,
    response: np.ndarray,
    extra: np.ndarray,
) -> dict[str, _ModelFit]:
    return {k: _fit_model(k, dose, response, extra, guesses) for k, guesses in models.items()}


def _weights(fits: Mapping[str, _ModelFit]) -> dict[str, float]:
    least = min(fit.aic for fit in fits.values())
    raw = {kind: math.exp(-(fit.aic - least) / 2) for kind, fit in fits.items()}
    return {kind: value / sum(raw.values()) for kind, value in raw.items()}


def _doses(
    fits: Mapping[str, _ModelFit], effect: float, lowest: float, highest: float
) -> dict[str, float]:
    """Target dose by model, and averaged over the models that reach the effect."""
    found = {kind: fit.target_dose(effect, lowest, highest) for kind, fit in fits.items()}
    there = {kind: weight for kind, weight in _weights(fits).items() if np.isfinite(found[kind])}
    total = sum(there.values())
    found["average"] = (
        sum(weight * found[kind] for kind, weight in there.items()) / total if total else math.nan
    )
    return found


def _target_rows(
    analysis: DoseResponseSpec,
    dose: np.ndarray,
    response: np.ndarray,
    extra: np.ndarray,
    models: Mapping[str, Mapping[str, float]],
    fits: Mapping[str, _ModelFit],
) -> Iterator[StatisticRow]:
    """Target dose of each model and of their average, named by the group."""
    effect, alpha = abs(float(analysis.target_effect or 0.0)), analysis.alpha
    lowest, highest = float(dose.min()), float(dose.max())
    resamples = analysis.resamples
    generator = np.random.default_rng(analysis.seed)
    members = [np.flatnonzero(dose == level) for level in np.unique(dose)]
    drawn: dict[str, list[float]] = {kind: [] for kind in (*fits, "average")}
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(own, own.size) for own in members])
        again = _fits(models, dose[rows], response[rows], extra[rows])
        for kind, value in _doses(again, effect, lowest, highest).items():
            # A sample in which no dose reaches the effect: beyond the range.
            drawn[kind].append(value if math.isfinite(value) else math.inf)
    for kind, value in _doses(fits, effect, lowest, highest).items():
        if not math.isfinite(value):
            reason = f"no dose up to {highest:g} has an effect of {effect:g}"
            yield not_computable("target_dose", reason, group=kind)
            continue
        limits = np.quantile(drawn[kind], [alpha / 2, 1 - alpha / 2], method="nearest")
        low, high = (float(one) if math.isfinite(one) else math.nan for one in limits)
        beyond = float(np.mean(np.isinf(drawn[kind])))
        yield Estimate(value, low, high).row(
            "target_dose",
            group=kind,
            method=f"smallest dose with an effect of {effect:g} over dose {lowest:g}; "
            f"percentile bootstrap within doses, {resamples} resamples",
            note=join_notes(
                f"{100 * beyond:.1f} % of resamples do not reach the effect" if beyond else "",
                "" if math.isfinite(high) else f"upper limit beyond dose {highest:g}",
            ),
        )


def williams(dose: Any, response: Any) -> list[tuple[float, float, float]]:
    """Williams' test of a response (n,) that rises with the dose (n,), against the lowest dose.

    Returns
    -------
    list of (dose, t, p)
        For each dose above the lowest, one-sided; the test of a dose stands only if those of
        higher doses are significant.

    Examples
    --------
    >>> dose = np.repeat([0.0, 1, 2], 8)
    >>> found = williams(dose, dose + np.tile([0.5, -0.5], 12))
    >>> [row[0] for row in found], found[1][2] < 0.01
    ([1.0, 2.0], True)
    """
    d, y = np.asarray(dose, float), np.asarray(response, float)
    levels = np.unique(d)
    if levels.size < 2:
        raise NotComputable("Williams' test needs two doses")
    sizes = np.array([np.sum(d == level) for level in levels], float)
    means = np.array([y[d == level].mean() for level in levels])
    df = y.size - levels.size
    if df < 1:
        raise NotComputable("no residual degrees of freedom")
    rest = sum(float(np.sum((y[d == level] - y[d == level].mean()) ** 2)) for level in levels)
    if rest <= 1e-24 * float(y @ y):
        raise NotComputable("no variance within doses")
    sd = math.sqrt(rest / df)
    found = []
    for k in range(1, levels.size):
        weights = _amalgamations(sizes[: k + 1])
        error = math.sqrt(1 / sizes[k] + 1 / sizes[0])
        t = float((weights @ means[: k + 1]).max()) / (sd * error)
        found.append((float(levels[k]), t, _williams_tail(t, sizes[: k + 1], df)))
    return found


def _amalgamations(sizes: np.ndarray) -> np.ndarray:
    """Weights of the means of doses u .. k less that of the lowest, u = 1 .. k.

    The largest of these differences is the isotonic estimate at dose k.
    """
    k = sizes.size - 1
    weights = np.zeros((k, k + 1))
    weights[:, 0] = -1.0
    for u in range(1, k + 1):
        weights[u - 1, u:] = sizes[u:] / sizes[u:].sum()
    return weights


def _williams_tail(t: float, sizes: Any, df: int) -> float:
    """P(Williams' statistic of the highest of these doses > t), no dose having an effect.

    It is the largest of k correlated differences, so the multivariate t gives it; ``sizes`` are of
    the lowest dose first, ``df`` is 0 for known variance.
    """
    n = np.asarray(sizes, float)
    weights = _amalgamations(n)
    spread = weights / n @ weights.T / (1 / n[-1] + 1 / n[0])
    return max_t_tail(t, *sphere_maxima(spread), df)


def max_t_tail(value: float, largest: np.ndarray, rank: int, df: int) -> float:
    """P(max of correlated t > value), given the largest component of points on the sphere.

    T = (R / S) m(U) with U uniform on the sphere and (R / S)^2 / rank distributed as F: only the
    direction needs points, the radius is exact, so that a few thousand directions give 1e-5.
    """

    def tail(x: np.ndarray) -> np.ndarray:
        return scipy.stats.chi2.sf(x * rank, rank) if df == 0 else scipy.stats.f.sf(x, rank, df)

    radius = np.full(largest.shape, np.inf)
    np.divide(value**2, rank * largest**2, out=radius, where=largest != 0)
    beyond = tail(radius)
    if value >= 0:
        return float(np.mean(np.where(largest > 0, beyond, 0.0)))
    return float(np.mean(np.where(largest >= 0, 1.0, 1.0 - beyond)))


def max_abs_t(t: Any, correlation: Any, df: int, alpha: float = 0.05) -> tuple[np.ndarray, float]:
    """Two-sided p of each of several correlated t for the largest of them, and the critical value.

    Examples
    --------
    One t alone is Student's.

    >>> p, critical = max_abs_t([2.0], [[1.0]], 10)
    >>> round(float(p[0]), 3), round(critical, 3)
    (0.073, 2.228)
    """
    r = np.asarray(correlation, float)
    largest, rank = sphere_maxima(np.block([[r, -r], [-r, r]]))
    p = np.array([max_t_tail(abs(float(value)), largest, rank, df) for value in np.atleast_1d(t)])
    return p, critical_max_t(largest, rank, df, alpha, 1000.0)


def critical_max_t(
    largest: np.ndarray, rank: int, df: int, alpha: float, highest: float = 100.0
) -> float:
    """Value that the largest of correlated t exceeds with probability alpha."""
    return float(
        scipy.optimize.brentq(
            lambda c: max_t_tail(c, largest, rank, df) - alpha, 0.0, highest, xtol=1e-8
        )
    )


def sphere_maxima(correlation: np.ndarray) -> tuple[np.ndarray, int]:
    """Largest contrast in each of 2^14 directions of a fixed Sobol sequence, and the rank."""
    values, vectors = np.linalg.eigh(correlation)
    # Contrasts of few doses are linearly dependent: only the directions that exist count.
    keep = values > 1e-10 * values.max()
    root = vectors[:, keep] * np.sqrt(values[keep])
    rank = int(keep.sum())
    if rank == 1:
        points = np.array([[1.0], [-1.0]])
    else:
        uniform = scipy.stats.qmc.Sobol(rank, scramble=True, rng=np.random.default_rng(7)).random(
            2**14
        )
        points = scipy.stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12))
        points = np.concatenate([points, -points])
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (points @ root.T).max(axis=1), rank
