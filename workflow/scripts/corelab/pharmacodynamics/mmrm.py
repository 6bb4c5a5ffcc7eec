"""Mixed model for repeated measures: arms over visits, missing visits without imputation.

Fixed effects arm x visit, baseline x visit and covariates; within-subject covariance
unstructured by default, restricted maximum likelihood. A structure other than unstructured is
used only where the plan names it, or names a ladder (``covariance: [us, toeph, ar1h]``): then the
first that converges, and the note says which were tried and why they failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics.analysis_set import (
    Levels,
    coded,
    endpoint_by_visit,
    levels_of,
    require_full_rank,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.mixed import Block, MixedFit, Structure, fit_reml
from corelab.pharmacodynamics.scales import covariates_of, scaled
from corelab.provenance.two_computations import ComputationsDisagree, attempt, compare
from corelab.settings.analyses.comparison import STRUCTURES, ComparisonSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes


def _unit_basis(m: int) -> np.ndarray:
    """Symmetric unit matrices of the lower triangle, row by row."""
    rows, columns = np.tril_indices(m)
    basis = np.zeros((rows.size, m, m))
    basis[np.arange(rows.size), rows, columns] = 1
    basis[np.arange(rows.size), columns, rows] = 1
    return basis


def _elements(covariance: np.ndarray) -> np.ndarray:
    return covariance[np.tril_indices(covariance.shape[0])]


def _matrices(elements: np.ndarray, groups: int, m: int) -> np.ndarray:
    """(groups, m, m) symmetric matrices of their lower triangles, one after the other."""
    found = np.zeros((groups, m, m))
    found[:, *np.tril_indices(m)] = elements.reshape(groups, -1)
    return found + np.tril(found, -1).transpose(0, 2, 1)


def _structure(name: str, m: int) -> Structure:
    """Map from unconstrained parameters to the lower triangle of the visits' covariance.

    Parameters are logarithms of standard deviations, then correlations on a scale on which every
    value gives a positive definite matrix (``us``, ``ar1``, ``adh``) or nearly every one.
    """
    distance = np.abs(np.subtract.outer(np.arange(m), np.arange(m)))

    def unstructured(theta: np.ndarray) -> np.ndarray:
        root = np.zeros((m, m))
        root[np.tril_indices(m)] = theta
        root[np.diag_indices(m)] = np.exp(np.diag(root))
        return _elements(root @ root.T)

    def scaled(theta: np.ndarray, correlation: np.ndarray, deviations: int) -> np.ndarray:
        sd = np.exp(theta[:deviations])
        sd = np.repeat(sd, m) if deviations == 1 else sd
        return _elements(correlation * np.outer(sd, sd))

    def autoregressive(theta: np.ndarray) -> np.ndarray:
        return scaled(theta, np.tanh(theta[-1]) ** distance, len(theta) - 1)

    def symmetric(theta: np.ndarray) -> np.ndarray:
        # rho in (-1 / (m - 1), 1), where compound symmetry is positive definite.
        low = -1 / (m - 1)
        rho = low + (1 - low) / (1 + np.exp(-theta[-1]))
        return scaled(theta, np.where(distance == 0, 1.0, rho), len(theta) - 1)

    def toeplitz(theta: np.ndarray) -> np.ndarray:
        rho = np.concatenate([[1.0], np.tanh(theta[len(theta) - m + 1 :])])
        return scaled(theta, rho[distance], len(theta) - m + 1)

    def antedependence(theta: np.ndarray) -> np.ndarray:
        step = np.concatenate([[0.0], np.cumsum(np.log(np.abs(np.tanh(theta[m:])) + 1e-300))])
        sign = np.concatenate([[1.0], np.cumprod(np.sign(np.tanh(theta[m:])))])
        size = np.exp(-np.abs(np.subtract.outer(step, step)))
        return scaled(theta, size * np.outer(sign, sign), m)

    return {
        "us": unstructured,
        "ar1": autoregressive,
        "ar1h": autoregressive,
        "cs": symmetric,
        "csh": symmetric,
        "toep": toeplitz,
        "toeph": toeplitz,
        "adh": antedependence,
    }[name]


def _start(name: str, residual_sd: np.ndarray, rho: float) -> np.ndarray:
    """Starting values from the residuals of least squares."""
    m = residual_sd.size
    logs, common = np.log(residual_sd), np.array([np.log(residual_sd).mean()])
    rho = float(np.clip(rho, 0.05, 0.9))
    if name == "us":
        correlation = np.where(np.eye(m) == 1, 1.0, rho)
        root = np.linalg.cholesky(correlation * np.outer(residual_sd, residual_sd))
        root[np.diag_indices(m)] = np.log(np.diag(root))
        return root[np.tril_indices(m)]
    low = -1 / (m - 1)
    tail = {
        "ar1": [math.atanh(rho)],
        "cs": [math.log((rho - low) / (1 - rho))],
        "toep": [math.atanh(rho)] * (m - 1),
        "adh": [math.atanh(rho)] * (m - 1),
    }[{"ar1h": "ar1", "csh": "cs", "toeph": "toep"}.get(name, name)]
    return np.concatenate([common if name in {"ar1", "cs", "toep"} else logs, tail])


@dataclass(frozen=True)
class _Mmrm:
    """``visit_covariance`` is (m, m), or (groups, m, m) where groups have their own; ``tried`` are
    the structures before ``structure``, with the reason why they failed.
    """

    fit: MixedFit
    terms: tuple[str, ...]
    visit_covariance: np.ndarray
    structure: str
    tried: tuple[str, ...]

    def contrast(self, weights: Any, alpha: float = 0.05, df: str = "satterthwaite") -> Estimate:
        """Linear combination of fixed effects; ``df`` is satterthwaite or kenward_roger."""
        w = np.asarray(weights, float)
        if df == "kenward_roger":
            return self.fit.kenward_roger(w, alpha)
        return self.fit.satterthwaite(w, alpha)


def _fit_mmrm(
    subject: Any,
    visit: Any,
    values: Any,
    matrix: Any,
    terms: Sequence[str],
    *,
    covariance: str | Sequence[str] = "us",
    group: Any = None,
) -> _Mmrm:
    """Fit an MMRM by the first covariance structure that converges.

    ``visit`` is (n,) 0 .. m - 1 in time order, ``matrix`` (n, p) of full rank with ``terms``; each
    ``group`` of subjects has a covariance of its own.
    """
    y, x = np.asarray(values, float), np.asarray(matrix, float)
    visits, names = np.asarray(visit, int), np.asarray(subject).astype(str)
    require_full_rank(x, terms)
    _, where, order = np.unique(names, return_index=True, return_inverse=True)
    m = int(visits.max()) + 1
    seen = _seen(order, visits, m)
    labels = np.zeros(where.size, int)
    if group is not None:
        labels = np.unique(np.asarray(group).astype(str)[where], return_inverse=True)[1]
    groups = int(labels.max()) + 1
    blocks = _blocks(order, visits, y, x, seen, labels)
    residuals = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    wide = np.full(seen.shape, np.nan)
    wide[order, visits] = residuals
    starts = [_spread(wide[labels == g], float(np.abs(y).max())) for g in range(groups)]
    tried: list[str] = []
    for name in [covariance] if isinstance(covariance, str) else covariance:
        if name not in STRUCTURES:
            raise ValueError(f"unknown covariance structure '{name}'; known: {STRUCTURES}")
        structure = _of_groups(_structure(name, m), groups)
        start = np.concatenate([_start(name, *one) for one in starts])
        try:
            fit = fit_reml(blocks, start, structure, linear=structure if name == "us" else None)
        except NotComputable as reason:
            tried.append(f"{name}: {reason}")
            continue
        sigma = _matrices(fit.s, groups, m)
        return _Mmrm(fit, tuple(terms), sigma if groups > 1 else sigma[0], name, tuple(tried))
    raise NotComputable("no covariance structure of the plan converged (" + "; ".join(tried) + ")")


def _seen(order: np.ndarray, visits: np.ndarray, m: int) -> np.ndarray:
    """(subjects, m) whether there is a value."""
    seen = np.zeros((order.max() + 1, m), int)
    np.add.at(seen, (order, visits), 1)
    if (seen > 1).any():
        raise ValueError(
            "two values of one participant at one visit; duplicates are never averaged"
        )
    if m < 2 or not (seen.sum(axis=1) > 1).any():
        raise NotComputable("no participant has two visits; use ancova for one visit")
    return seen


def _spread(residuals: np.ndarray, size: float) -> tuple[np.ndarray, float]:
    """Standard deviation of each visit and the mean correlation of visits, to start from."""
    if np.isnan(residuals).all(axis=0).any():
        raise NotComputable("a group with its own covariance has no value at a visit")
    sd = np.nanstd(residuals, axis=0)
    if not np.all(sd > 1e-10 * size):
        raise NotComputable("the model reproduces every value of a visit: no residual variance")
    together = pd.DataFrame(residuals / sd).corr().to_numpy()
    rho = float(together[np.triu_indices(sd.size, 1)].mean())
    return sd, rho if math.isfinite(rho) else 0.3


def _of_groups(structure: Structure, groups: int) -> Structure:
    """The same structure for each group, with parameters of its own."""
    return lambda theta: np.concatenate([structure(part) for part in np.split(theta, groups)])


def _blocks(
    order: np.ndarray,
    visits: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    seen: np.ndarray,
    labels: np.ndarray,
) -> list[Block]:
    """Subjects by group and pattern of missing visits."""
    rows = np.lexsort((visits, order))
    patterns, which = np.unique(np.column_stack([labels, seen]), axis=0, return_inverse=True)
    which = which.ravel()
    unit = _unit_basis(seen.shape[1])
    blocks = []
    for number, (label, *pattern) in enumerate(patterns):
        chosen = rows[which[order[rows]] == number]
        there = np.flatnonzero(pattern)
        size = there.size
        basis = np.zeros((labels.max() + 1, *unit.shape))
        basis[label] = unit
        basis = basis.reshape(-1, *unit.shape[1:])
        blocks.append(
            Block(
                x[chosen].reshape(-1, size, x.shape[1]),
                y[chosen].reshape(-1, size),
                basis[:, there][:, :, there],
            )
        )
    return blocks


def fit_linear_mixed(
    subject: Any, values: Any, matrix: Any, random: Any, *, ml: bool = False
) -> tuple[MixedFit, np.ndarray, float]:
    """Linear mixed model with one grouping factor and unstructured random effects.

    Parameters
    ----------
    subject
        (n,) identifiers.
    values
        (n,) responses.
    matrix
        (n, p) fixed effects.
    random
        (n, r) design of the random effects.
    ml
        Maximum likelihood instead of REML.

    Returns
    -------
    fit, random_covariance, residual_variance
        The fit (with Satterthwaite and Kenward-Roger contrasts), (r, r) covariance of the random
        effects, and the residual variance.

    Examples
    --------
    >>> x = np.column_stack([np.ones(12), np.tile([0.0, 1, 2], 4)])
    >>> y = np.array([1.0, 2.1, 2.9, 2, 3.3, 3.9, 0.5, 1.2, 2.6, 3, 3.9, 5.3])
    >>> fit, _, _ = fit_linear_mixed(np.repeat(list("abcd"), 3), y, x, x[:, :1])
    >>> fit.coefficients.round(3).tolist()
    [1.617, 1.025]
    """
    y, x, z = (np.asarray(item, float) for item in (values, matrix, random))
    _, order = np.unique(np.asarray(subject).astype(str), return_inverse=True)
    r = z.shape[1]
    units = _unit_basis(r)
    # Subjects with one design of their random effects share a block.
    alike: dict[tuple[int, bytes], list[np.ndarray]] = {}
    for chosen in np.split(np.argsort(order, kind="stable"), np.cumsum(np.bincount(order))[:-1]):
        alike.setdefault((chosen.size, z[chosen].tobytes()), []).append(chosen)
    blocks = []
    for members in alike.values():
        zi, rows = z[members[0]], np.array(members)
        basis = np.concatenate(
            [np.einsum("ar,krs,bs->kab", zi, units, zi), np.eye(zi.shape[0])[None]]
        )
        blocks.append(Block(x[rows], y[rows], basis))
    residuals = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    scale = np.log(np.maximum(np.std(z, axis=0) + np.abs(z.mean(axis=0)), 1e-8))
    half = 0.5 * np.log(np.var(residuals) / 2)
    root = np.diag(half - scale)

    between = _structure("us", r)

    def mapping(theta: np.ndarray) -> np.ndarray:
        return np.append(between(theta[:-1]), np.exp(2 * theta[-1]))

    start = np.append(root[np.tril_indices(r)], half)
    fit = fit_reml(blocks, start, mapping, ml=ml, linear=mapping)
    return fit, _matrices(fit.s[:-1], 1, r)[0], float(fit.s[-1])


# ------------------------------------------------------------------------------------- the plan


def analyse_mmrm(analysis: ComparisonSpec, tables: Tables, endpoint: str) -> Iterator[StatisticRow]:
    """Rows of a comparison by MMRM: difference and least-squares mean per visit.

    Rows of ``overall`` and ``contrasts`` have ``all`` or the name of the contrast as visit.
    """
    rows = _mmrm_rows(analysis, tables, endpoint)
    yield from guarded(rows, "mean_difference", endpoint=endpoint, method="mmrm")


@dataclass(frozen=True)
class Long(Levels):
    """Rows of all visits: ``value``, ``visit``, the arm and the covariates ``names``; ``said`` and
    ``note`` tell how the reference was chosen, and counts.
    """

    visits: Sequence[str] = ()
    names: Sequence[str] = ()
    said: str = ""
    note: str = ""

    def people(self, levels: Sequence[str], visit: str | None = None) -> int:
        """Participants of some levels, of all visits or with a value at one."""
        rows = self.frame[~self.frame.index.duplicated()]
        if visit in self.visits:
            rows = self.frame[self.frame["visit"] == visit]
        return int(rows[self.by].map(str).isin(levels).sum())


def long_table(analysis: ComparisonSpec, tables: Tables, endpoint: str) -> Long:
    """Rows of all visits with arm and covariates, on the scale of the analysis."""
    by_visit = endpoint_by_visit(analysis, tables, endpoint)
    visits, by = [visit for visit, _ in by_visit], analysis.arms
    labelled = with_labels(analysis, by)
    long = pd.concat([frame.assign(visit=visit) for visit, frame in by_visit])
    names = covariates_of(analysis)
    long = with_covariates(long, labelled, tables, endpoint=endpoint, names=[by, *names])
    total = len(long)
    long = long.dropna(subset=["value", by, *names])
    long = scaled(analysis, long)
    counts = long.index.value_counts()
    note = (
        f"{len(counts)} participants, {len(long)} values at {len(visits)} visits, "
        f"{int((counts < len(visits)).sum())} participants without every visit"
    )
    if len(long) < total:
        note += f"; {total - len(long)} values without arm or covariate left out"
    reference, others, said = levels_of(long[by], by, analysis.reference)
    return Long(long, by, reference, others, visits, names, said, note)


def fixed_effects(long: Long, interactions: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """One column per visit, arm x visit, and the covariates, with visit where so planned."""
    frame, visits, by = long.frame, long.visits, long.by
    at = frame["visit"].to_numpy()
    columns = [(at == visit).astype(float) for visit in visits]
    terms = [f"visit={visit}" for visit in visits]
    for level in long.others:
        inside = (frame[by].map(str) == level).to_numpy(float)
        for visit in visits:
            columns.append(inside * (at == visit))
            terms.append(f"{by}={level}:visit={visit}")
    for name in long.names:
        for term, column in coded(frame[name]):
            if name in interactions:
                columns += [column * (at == visit) for visit in visits]
                terms += [f"{term}:visit={visit}" for visit in visits]
            else:
                columns.append(column)
                terms.append(term)
    return np.column_stack(columns), terms


def _mmrm_rows(analysis: ComparisonSpec, tables: Tables, endpoint: str) -> Iterator[StatisticRow]:
    alpha, own = analysis.alpha, analysis.covariance_by_arm
    long = long_table(analysis, tables, endpoint)
    visits, by, frame = long.visits, long.by, long.frame
    if len(visits) < 2:
        raise NotComputable(
            f"{endpoint} has values at {visits[0]} only; an MMRM needs two visits (use ancova)"
        )
    interactions = ["baseline"] if analysis.interactions is None else analysis.interactions
    matrix, terms = fixed_effects(long, interactions)
    ladder = as_list(analysis.covariance) or ["us"]
    number = frame["visit"].map({visit: i for i, visit in enumerate(visits)}).to_numpy()
    subject = frame.index.to_numpy()
    model = _fit_mmrm(
        subject,
        number,
        frame["value"],
        matrix,
        terms,
        covariance=ladder,
        group=frame[by].map(str) if own else None,
    )
    df = analysis.df or ("kenward_roger" if model.structure == "us" else "satterthwaite")
    second = _statsmodels_check(subject, number, frame["value"].to_numpy(float), matrix, model)
    method = (
        f"MMRM, REML, covariance {model.structure}{' by arm' * own}, {df.replace('_', '-')} df; "
        f"visit, {by} x visit"
        + "".join(f", {n} x visit" if n in interactions else f", {n}" for n in long.names)
        + f"; -2 RLL {model.fit.minus_two_log_likelihood:.4f}"
    )
    tried = f"planned order of covariances {', '.join(ladder)}" if len(ladder) > 1 else ""
    tried = join_notes(tried, "failed: " + "; ".join(model.tried) if model.tried else "")
    planned = [(*one, None) for one in visit_contrasts(analysis, visits).items()]
    for name, shares, at in [*planned, *((v, {v: 1.0}, v) for v in visits)]:
        words = " + ".join(f"{w:.4g} x {visit}" for visit, w in shares.items())
        for level in long.others:
            weights = weights_of(terms, by, level, shares)
            result = model.contrast(weights, alpha, df)
            check = Second()
            if at is not None:
                check = _second(result, second, int(weights.argmax()))
            yield result.row(
                "mean_difference",
                check,
                visit=name,
                group=long.group(level),
                n=long.people([level, long.reference], at),
                method=method,
                note=join_notes(
                    long.said,
                    f"contrast of visits: {words}" * (at is None),
                    long.note,
                    f"df {result.df:.4g}",
                    tried,
                ),
            )
        for level in (long.reference, *long.others) if at is not None else ():
            weights = _visit_mean(frame, terms, by, level, name)
            yield model.contrast(weights, alpha, df).row(
                "adjusted_mean",
                visit=name,
                group=f"{by}={level}",
                p_value=math.nan,
                n=long.people([level], at),
                method=method,
                note="covariates at their means, levels of a factor weighted equally",
            )


def visit_contrasts(analysis: ComparisonSpec, visits: Sequence[str]) -> dict[str, dict[str, float]]:
    """Named combinations of the visits' effects; ``overall: true`` is their mean."""
    found: dict[str, dict[str, float]] = {}
    if analysis.overall:
        found["all"] = {visit: 1 / len(visits) for visit in visits}
    for name, shares in (analysis.contrasts or {}).items():
        unknown = set(shares) - set(visits)
        if unknown:
            raise NotComputable(
                f"contrast {name} names the visit {', '.join(sorted(unknown))}; the model has "
                + ", ".join(visits)
            )
        found[str(name)] = {str(visit): float(weight) for visit, weight in shares.items()}
    return found


def weights_of(
    terms: Sequence[str], by: str, level: str, shares: Mapping[str, float]
) -> np.ndarray:
    """Weights of the terms in a combination of a level's effects at the visits."""
    start = f"{by}={level}:visit="
    return np.array([shares.get(t[len(start) :], 0.0) * t.startswith(start) for t in terms])


def _second(result: Estimate, second: np.ndarray | None, position: int) -> Second:
    if second is None:
        return Second(method="statsmodels MixedLM has no such model, or stopped short")
    return compare(
        result.estimate,
        float(second[position]),
        "statsmodels MixedLM, random visit effects",
        tolerance=1e-2,
        scale=result.se,
    )


def _visit_mean(
    long: pd.DataFrame, terms: Sequence[str], by: str, level: str, visit: str
) -> np.ndarray:
    """Weights of a least-squares mean at a visit; covariates at their mean over participants."""
    people = long[~long.index.duplicated()]
    weights = np.zeros(len(terms))
    for position, term in enumerate(terms):
        own, _, at = term.partition(":visit=")
        if own.startswith("visit="):
            weights[position] = float(own == f"visit={visit}")
        elif own.startswith(f"{by}="):
            weights[position] = float(own == f"{by}={level}" and at == visit)
        elif at and at != visit:
            continue
        elif "=" in own:
            weights[position] = 1.0 / people[own.split("=")[0]].nunique()
        else:
            weights[position] = float(people[own].mean())
    return weights


def _statsmodels_check(
    subject: np.ndarray, visit: np.ndarray, y: np.ndarray, matrix: np.ndarray, model: _Mmrm
) -> np.ndarray | None:
    """Fixed effects by statsmodels' MixedLM with one random effect per visit.

    That is the unstructured model with a residual variance that is not identified, so only
    coefficients and likelihood can be compared. None where it stops short of our maximum.
    """
    if model.structure != "us" or model.visit_covariance.ndim == 3:
        return None
    from statsmodels.regression.mixed_linear_model import MixedLM

    indicator = (visit[:, None] == np.arange(visit.max() + 1)).astype(float)
    fit, _ = attempt(
        lambda: MixedLM(y, matrix, subject, exog_re=indicator).fit(reml=True, method="lbfgs"),
        "statsmodels MixedLM",
    )
    if fit is None:
        return None
    theirs = -2 * float(fit.llf)
    ours = model.fit.minus_two_log_likelihood
    if not math.isfinite(theirs) or theirs > ours + 1e-3:
        return None
    if theirs < ours - 1e-3:
        raise ComputationsDisagree(
            f"-2 restricted log likelihood: ours {ours:.6f}, statsmodels has a lower {theirs:.6f}"
        )
    return np.asarray(fit.fe_params, float)
