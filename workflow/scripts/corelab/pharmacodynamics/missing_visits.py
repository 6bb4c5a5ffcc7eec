"""Missing visits: multiple imputation under missing at random, and the tipping point beyond it.

The values of all visits (on the scale of the analysis), every covariate of the analysis model, the
auxiliary variables and the arm are jointly normal; what is missing is drawn given what was seen,
with the parameters drawn too (data augmentation: Tanner and Wong 1987; Schafer 1997, chapter 5). So
each visit has its own effect of arm, covariates and baseline, and one covariance: the model of the
"five macros" and of rbmi. ``imputation_model: within_arm`` has such a model for each arm.

Reference-based imputation (Carpenter, Roger, Kenward, J Biopharm Stat 2013;23:1352): after the last
value that was seen, the mean of a treated participant is that of the reference arm (``j2r``), is so
at every visit (``cr``), or has the reference's increments (``cir``); gaps before it stay missing at
random. Each completed data set is analysed by ANCOVA; estimates are combined by Rubin's rules with
the degrees of freedom of Barnard and Rubin (Biometrika 1999;86:948).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    population,
    zeros_rule,
)
from corelab.pharmacodynamics.analysis_set import (
    Levels,
    coded,
    design,
    endpoint_by_visit,
    levels_of,
    participant_columns,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.estimates import guarded, t_estimate
from corelab.pharmacodynamics.linear import fit_linear
from corelab.pharmacodynamics.scales import covariates_of, on_scale
from corelab.settings.analyses.base import SEED
from corelab.settings.analyses.comparison import IMPUTATIONS, ComparisonSpec, Shifts
from corelab.terms.results import Estimate, StatisticRow, join_notes

BURN_IN, THINNING = 200, 10
#: What is assumed of values after the last one seen; the key ``imputation``.
STRATEGIES = {
    "mar": "missing at random",
    "j2r": "jump to reference",
    "cr": "copy reference",
    "cir": "copy increments in reference",
}


@dataclass(frozen=True)
class _Draws:
    """Completed data sets (imputations, n, m) with the parameters that each was drawn with."""

    completed: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def _impute_normal(
    values: Any,
    imputations: int = IMPUTATIONS,
    *,
    seed: int = SEED,
) -> np.ndarray:
    """(imputations, n, m): a matrix with its missing cells (nan) drawn, jointly normal columns."""
    y = np.asarray(values, float)
    if not np.isnan(y).any():
        return np.repeat(y[None], imputations, axis=0)
    return _draw_normal(y, imputations, seed=seed).completed


def _draw_normal(values: Any, imputations: int = IMPUTATIONS, *, seed: int = SEED) -> _Draws:
    """As :func:`_impute_normal`, with the parameters of each draw."""
    y = np.asarray(values, float)
    n, m = y.shape
    gone = np.isnan(y)
    complete = int(np.sum(~gone.any(axis=1)))
    if complete < m + 2:
        raise NotComputable(
            f"{complete} participants have every visit and covariate; an imputation model of {m} "
            f"variables needs {m + 2}"
        )
    generator = np.random.default_rng(seed)
    # Numbers of comparable size: the scale is taken out and put back.
    centre, scale = np.nanmean(y, axis=0), np.nanstd(y, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = np.where(gone, 0.0, (y - centre) / scale)
    patterns = [_Pattern.of(row, gone) for row in np.unique(gone[gone.any(axis=1)], axis=0)]
    drawn = np.empty((imputations, n, m))
    means, covariances = np.empty((imputations, m)), np.empty((imputations, m, m))
    for step in range(BURN_IN + imputations * THINNING):
        mean, covariance = _draw_parameters(z, generator)
        for pattern in patterns:
            _draw_missing(z, pattern, mean, covariance, generator)
        kept, rest = divmod(step - BURN_IN, THINNING)
        if step >= BURN_IN and rest == 0:
            drawn[kept] = np.where(gone, centre + scale * z, y)
            means[kept] = centre + scale * mean
            covariances[kept] = covariance * np.outer(scale, scale)
    return _Draws(drawn, means, covariances)


def _reference_based(
    draws: _Draws, visits: Any, given: Any, arms: Any, gone: Any, strategy: str, *, seed: int
) -> np.ndarray:
    """Values after the last one seen drawn again as in the reference arm: j2r, cr or cir.

    ``visits``, ``given`` and ``arms`` are the columns of the visits after baseline, of what their
    means depend on, and of the indicators of the other arms; ``gone`` is (n, visits).
    """
    lost = np.asarray(gone, bool)
    visits = list(visits)
    known = [*given, *arms]
    seen = ~lost
    last = np.where(seen.any(axis=1), lost.shape[1] - 1 - seen[:, ::-1].argmax(axis=1), -1)
    treated = (draws.completed[0][:, list(arms)] != 0).any(axis=1)
    generator = np.random.default_rng(seed)
    result = draws.completed.copy()
    for k, table in enumerate(draws.completed):
        mean, cov = draws.means[k], draws.covariances[k]
        slopes = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, visits)])
        rest = cov[np.ix_(visits, visits)] - cov[np.ix_(visits, known)] @ slopes
        own = mean[visits] + (table[:, known] - mean[known]) @ slopes
        reference = own - table[:, list(arms)] @ slopes[len(given) :]
        for end in range(-1, len(visits) - 1):
            rows = np.flatnonzero(treated & (last == end))
            if not rows.size:
                continue
            old, new = np.arange(end + 1), np.arange(end + 1, len(visits))
            expected = own[rows].copy()
            expected[:, new] = reference[rows][:, new]
            if strategy == "cr":
                expected = reference[rows].copy()
            elif strategy == "cir" and end >= 0:
                expected[:, new] += (own - reference)[rows][:, [end]]
            weights = np.linalg.solve(rest[np.ix_(old, old)], rest[np.ix_(old, new)])
            spread = rest[np.ix_(new, new)] - rest[np.ix_(new, old)] @ weights
            root = np.linalg.cholesky((spread + spread.T) / 2)
            at = table[np.ix_(rows, [visits[i] for i in old])] - expected[:, old]
            noise = generator.normal(size=(rows.size, new.size)) @ root.T
            result[k][np.ix_(rows, [visits[i] for i in new])] = (
                expected[:, new] + at @ weights + noise
            )
    return result


def _draw_parameters(
    z: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance given complete data, Jeffreys' prior."""
    n, m = z.shape
    mean = z.mean(axis=0)
    scatter = (z - mean).T @ (z - mean) + 1e-9 * np.eye(m)
    # Inverse Wishart by Bartlett's decomposition of the Wishart of its inverse.
    factor = np.linalg.cholesky(np.linalg.inv(scatter))
    bartlett = np.tril(generator.normal(size=(m, m)), -1)
    bartlett[np.diag_indices(m)] = np.sqrt(generator.chisquare(n - 1 - np.arange(m)))
    root = factor @ bartlett
    covariance = np.linalg.inv(root @ root.T)
    covariance = (covariance + covariance.T) / 2
    return generator.multivariate_normal(mean, covariance / n, method="cholesky"), covariance


@dataclass(frozen=True)
class _Pattern:
    """Rows that lack the same cells: columns, and where their blocks lie in the table (``known``,
    ``lost``) and in the covariance. Made once, since there are hundreds of draws.
    """

    seen: np.ndarray
    gone: np.ndarray
    known: tuple[np.ndarray, ...]
    lost: tuple[np.ndarray, ...]
    seen_seen: tuple[np.ndarray, ...]
    seen_gone: tuple[np.ndarray, ...]
    gone_seen: tuple[np.ndarray, ...]
    gone_gone: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, row: np.ndarray, table: np.ndarray) -> _Pattern:
        rows = np.flatnonzero((table == row).all(axis=1))
        seen, gone = np.flatnonzero(~row), np.flatnonzero(row)
        blocks = [
            (rows, seen),
            (rows, gone),
            (seen, seen),
            (seen, gone),
            (gone, seen),
            (gone, gone),
        ]
        return cls(seen, gone, *(np.ix_(*block) for block in blocks))


def _draw_missing(
    z: np.ndarray,
    pattern: _Pattern,
    mean: np.ndarray,
    covariance: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Draw the missing cells of the rows of one pattern, given their seen cells; in place."""
    seen, gone = pattern.seen, pattern.gone
    weights = np.linalg.solve(
        covariance[pattern.seen_seen], covariance[pattern.seen_gone]
    )  # empty if nothing is seen: the unconditional distribution
    rest = covariance[pattern.gone_gone] - covariance[pattern.gone_seen] @ weights
    root = np.linalg.cholesky((rest + rest.T) / 2 + 1e-12 * np.eye(gone.size))
    expected = mean[gone] + (z[pattern.known] - mean[seen]) @ weights
    z[pattern.lost] = expected + generator.normal(size=expected.shape) @ root.T


def _rubin(
    estimates: Any, variances: Any, complete_df: float = math.inf, alpha: float = 0.05
) -> tuple[Estimate, float]:
    """Estimates of completed data sets by Rubin's rules, and the share of missing information.

    ``complete_df`` are those that complete data would have had (Barnard and Rubin 1999).
    """
    q, u = np.asarray(estimates, float), np.asarray(variances, float)
    m = q.size
    within, between = float(u.mean()), float(q.var(ddof=1)) if m > 1 else 0.0
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    if between <= 1e-14 * within:
        df = complete_df
    else:
        old = (m - 1) / share**2
        if math.isinf(complete_df):
            df = old
        else:
            seen = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - share)
            df = old * seen / (old + seen)
    return t_estimate(float(q.mean()), math.sqrt(total), df, alpha), share


# ------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Completed(Levels):
    """Participants of an analysis with their visits, completed many times."""

    visits: Sequence[str] = ()
    drawn: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    gone: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    names: Sequence[str] = ()
    note: str = ""
    model: str = ""


def analyse_imputed(
    analysis: ComparisonSpec, tables: Tables, endpoint: str
) -> Iterator[StatisticRow]:
    """Rows of a comparison by multiple imputation, its shifts (``deltas``) and tipping point."""

    def rows() -> Iterator[StatisticRow]:
        arms = _completed(analysis, tables, endpoint)
        for place, visit in enumerate(arms.visits):
            if place == 0 or (analysis.visit and visit not in as_list(analysis.visit)):
                continue
            for level in arms.others:
                for row in _contrast_rows(analysis, arms, place, level):
                    yield row.within(visit=visit)

    place = {"endpoint": endpoint, "method": "multiple_imputation"}
    yield from guarded(rows(), "mean_difference", **place)


def _scale_of(analysis: ComparisonSpec) -> str:
    """Scale of the values; a log ratio is the change of logarithms."""
    if analysis.derivation == "log_ratio":
        return "log"
    return analysis.scale


def _wide(
    analysis: ComparisonSpec, tables: Tables, endpoint: str
) -> tuple[pd.DataFrame, list[str]]:
    """Values of every visit on the scale of the analysis, the baseline first."""
    baseline = analysis.baseline or tables.baseline
    if baseline is None:
        raise NotComputable("multiple imputation needs a baseline visit (visits.baseline)")
    raw = analysis.changed(derivation="value", visit=None)
    found = {v: frame["value"] for v, frame in endpoint_by_visit(raw, tables, endpoint)}
    if baseline not in found:
        raise NotComputable(f"no value of {endpoint} at the baseline visit {baseline}")
    visits = [baseline, *(v for v in found if v != baseline)]
    if len(visits) < 2:
        raise NotComputable(f"{endpoint} has values at {baseline} only")
    scale = _scale_of(analysis)
    offset = zeros_rule(analysis)[1] * (scale == "log")
    frames = {v: on_scale(found[v].to_frame("value"), scale, offset=offset) for v in visits}
    return pd.DataFrame({v: frame["value"] for v, frame in frames.items()}), visits


def _encoded(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Columns of the imputation model: numbers as they are, levels as indicators."""
    columns = [column for name in dict.fromkeys(names) for _, column in coded(frame[name])]
    return np.column_stack(columns) if columns else np.empty((len(frame), 0))


def _varying(block: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Columns of a block that are no combination of those before them and of ``beside``."""
    kept: list[int] = []
    for k in range(block.shape[1]):
        trial = np.column_stack([np.ones(len(block)), beside, block[:, [*kept, k]]])
        whole = trial[~np.isnan(trial).any(axis=1)]
        if (
            len(whole)
            and np.linalg.matrix_rank(whole, tol=1e-8 * max(1.0, np.abs(whole).max()))
            == (trial.shape[1])
        ):
            kept.append(k)
    return block[:, kept]


def _completed(analysis: ComparisonSpec, tables: Tables, endpoint: str) -> _Completed:
    strategy = analysis.imputation
    model = analysis.imputation_model
    if strategy != "mar" and model != "joint":
        raise NotComputable(f"imputation {strategy} needs imputation_model joint")
    wide, visits = _wide(analysis, tables, endpoint)
    by = analysis.arms
    labelled = with_labels(analysis, by)
    names = [name for name in covariates_of(analysis) if name != "baseline"]
    auxiliary = list(analysis.auxiliary)
    frame = participant_columns(labelled, tables, [by]).dropna()
    frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=[*names, *auxiliary])
    frame = frame.dropna(subset=names).sort_index()
    wide = wide.reindex(frame.index)
    # Who has no value at all tells nothing about a visit, and is counted out.
    frame, wide = frame[wide.notna().any(axis=1)], wide[wide.notna().any(axis=1)]
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    total = len(population(analysis, tables))
    lost = "" if len(frame) == total else f"{len(frame)} of {total} participants have any value"
    labels = frame[by].map(str).to_numpy()
    drawn = _drawn(
        analysis, wide, _encoded(frame, [*names, *auxiliary]), labels, (reference, *others)
    )
    used = [*names, *(f"{name} (auxiliary)" for name in auxiliary)]
    covered = "".join(f", {name}" for name in used)
    words = (
        f"one joint model of the visits, {by}{covered}"
        if model == "joint"
        else f"one model of the visits per {by}{covered}"
    )
    arms = (frame, by, reference, others)
    note, how = join_notes(said, lost), f"{STRATEGIES[strategy]}, {words}"
    return _Completed(*arms, visits, drawn, wide.isna().to_numpy(), names, note, how)


def _drawn(
    analysis: ComparisonSpec,
    wide: pd.DataFrame,
    known: np.ndarray,
    labels: np.ndarray,
    levels: Sequence[str],
) -> np.ndarray:
    """(imputations, n, visits): the visits, completed."""
    imputations = analysis.imputations
    seed = analysis.seed
    strategy = analysis.imputation
    values = wide.to_numpy(float)
    m = values.shape[1]
    if analysis.imputation_model == "within_arm":
        drawn = np.empty((imputations, *values.shape))
        for k, level in enumerate(levels):
            inside = labels == level
            own = _varying(known[inside], np.empty((int(inside.sum()), 0)))
            block = np.column_stack([values[inside], own])
            drawn[:, inside] = _impute_normal(block, imputations, seed=seed + 1000 * k)[:, :, :m]
        return drawn
    arms = np.column_stack([(labels == level).astype(float) for level in levels[1:]])
    known = _varying(known, arms)
    block = np.column_stack([values, known, arms])
    if strategy == "mar":
        return _impute_normal(block, imputations, seed=seed)[:, :, :m]
    found = _draw_normal(block, imputations, seed=seed)
    end = m + known.shape[1]
    return _reference_based(
        found,
        range(1, m),
        [0, *range(m, end)],
        range(end, end + arms.shape[1]),
        np.isnan(values[:, 1:]),
        strategy,
        seed=seed + 1,
    )[:, :, :m]


def _derived(analysis: ComparisonSpec, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    derivation = analysis.derivation
    if derivation == "value":
        return after
    if derivation in {"change", "log_ratio"}:
        return after - before
    raise NotComputable(
        f"multiple imputation takes derivation value, change or log_ratio, not {derivation}"
    )


def _fit_all(
    analysis: ComparisonSpec,
    arms: _Completed,
    place: int,
    level: str,
    delta: float,
    other: float = 0,
) -> tuple[Estimate, float]:
    """ANCOVA of every completed data set.

    Imputed values of the level are shifted by ``delta``, those of the reference by ``other``.
    """
    labels = arms.labels.to_numpy()
    lost = arms.gone[:, place]
    shift = delta * (lost & (labels == level)) + other * (lost & (labels == arms.reference))
    adjust = analysis.derivation != "value" or "baseline" in as_list(analysis.covariates)
    names: Sequence[str] = ["baseline", *arms.names] if adjust else arms.names
    estimates, variances, df = [], [], math.inf
    # Where every baseline value was seen the design is one, and its decomposition too.
    changing = adjust and bool(arms.gone[:, 0].any())
    plan = None
    for one in arms.drawn:
        before, after = one[:, 0], one[:, place] + shift
        if plan is None or changing:
            frame = arms.frame.assign(baseline=before)
            plan = design(frame, by=arms.by, reference=arms.reference, covariates=names)
        fit = fit_linear(plan.matrix, _derived(analysis, before, after))
        position = plan.index(f"{arms.by}={level}")
        estimates.append(float(fit.coefficients[position]))
        variances.append(float(fit.covariance[position, position]))
        df = float(fit.df)
    return _rubin(estimates, variances, df, analysis.alpha)


def _deltas(shifts: Shifts | None, visit: str) -> list[float]:
    """Shifts that concern a visit: plain numbers, and those of a mapping that names it."""
    found = []
    for item in shifts or ():
        if isinstance(item, Mapping):
            if visit in item:
                found.append(float(item[visit]))
        else:
            found.append(float(item))
    return found


def _contrast_rows(
    analysis: ComparisonSpec, arms: _Completed, place: int, level: str
) -> Iterator[StatisticRow]:
    labels, reference = arms.labels, arms.reference
    pooled, missing = _fit_all(analysis, arms, place, level, 0.0)
    imputed = {
        name: int(arms.gone[(labels == name).to_numpy(), place].sum())
        for name in (level, reference)
    }
    group = arms.group(level)
    counted = ", ".join(f"{n} of {name}" for name, n in imputed.items())
    head = {"group": group, "n": arms.size(level, reference)}
    method = (
        f"multiple imputation, {arms.model}, {len(arms.drawn)} imputations; "
        f"ANCOVA, {_scale_of(analysis)} scale; Rubin's rules, df {pooled.df:.4g}"
    )
    information = f"missing information {100 * missing:.1f} %"
    yield pooled.row(
        "mean_difference",
        method=method,
        note=join_notes(arms.note, f"imputed: {counted}", information),
        **head,
    )
    own = _deltas(analysis.deltas, arms.visits[place])
    others = _deltas(analysis.deltas_reference, arms.visits[place])
    for delta in own or [0.0] * bool(others):
        for other in others or [0.0]:
            also = f"|delta_reference={other:g}" if others else ""
            text = f", of {reference} by {other:g}" if others else ""
            yield _fit_all(analysis, arms, place, level, delta, other)[0].row(
                "mean_difference_at_delta",
                group=f"{group}|delta={delta:g}{also}",
                n=head["n"],
                method=f"{method}; imputed values of {level} shifted by {delta:g}{text}",
            )
    if analysis.tipping_point:
        rows = _tipping_rows(analysis, arms, place, level, pooled, imputed[level])
        yield from guarded(rows, "tipping_delta", **head)


def _tipping_rows(
    analysis: ComparisonSpec,
    arms: _Completed,
    place: int,
    level: str,
    pooled: Estimate,
    imputed: int,
) -> Iterator[StatisticRow]:
    """Shift of the imputed values of an arm at which its effect is no longer significant."""
    alpha = analysis.alpha
    if pooled.p_value >= alpha:
        raise NotComputable("no significant effect to tip")
    if not imputed:
        raise NotComputable(f"no value of {level} is imputed")
    # Against the effect: imputed patients of the arm do worse than those seen.
    sign = -math.copysign(1.0, pooled.estimate)
    spread = float(np.std(arms.drawn[:, :, place]))

    def p_at(size: float) -> float:
        result, _ = _fit_all(analysis, arms, place, level, sign * size)
        crossed = math.copysign(1.0, result.estimate) == sign
        return 1.0 if crossed else result.p_value

    low, high = 0.0, spread
    while p_at(high) < alpha:
        low, high = high, 2 * high
        if high > 100 * spread:
            raise NotComputable("no shift up to 100 SD tips the conclusion")
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if p_at(middle) >= alpha else (middle, high)
    yield Estimate(sign * high).row(
        "tipping_delta",
        method=f"smallest shift of the imputed values of {level} (against its effect) at which "
        f"p reaches {alpha:g}; multiple imputation, delta-adjusted",
        note=f"{imputed} values imputed; SD of the values {spread:.4g}",
    )
