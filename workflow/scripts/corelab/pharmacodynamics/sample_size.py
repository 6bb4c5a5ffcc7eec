"""Sample size for imaging endpoints: closed forms, and what a better repeatability saves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from corelab.measurement.selection import NotComputable, Tables, as_list, measured
from corelab.pharmacodynamics.analysis_set import endpoints_of
from corelab.pharmacodynamics.estimates import guarded
from corelab.provenance.two_computations import compare
from corelab.settings.analyses.base import Placed
from corelab.settings.analyses.sample_size import SampleSizeSpec
from corelab.terms.results import Estimate, Second, StatisticRow, not_computable

#: Fewest participants per arm, before rounding up.
SMALLEST = 1.5


def _two_arm_means(difference: float, sd: float, power: float = 0.9, alpha: float = 0.05) -> float:
    """Participants per arm of a two-sample t test (exact, non-central t), not rounded.

    Not below 1.5, which is two when rounded up: a variance needs two participants.
    """
    effect = abs(difference) / sd
    if effect == 0:
        raise ValueError("difference 0 has no sample size")

    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    rough = 2 * (z / effect) ** 2

    def missing(n: float) -> float:
        return _power_two_arms(difference, sd, n, alpha) - power

    fewest = max(SMALLEST, 0.9 * rough)
    if effect > 50 or missing(fewest) >= 0:
        return SMALLEST
    return float(optimize.brentq(missing, fewest, 2 * rough + 10, xtol=1e-9))


def _ordinal_total(
    odds_ratio: float, shares: Sequence[float], power: float = 0.9, alpha: float = 0.05
) -> float:
    """Total participants of two arms, ordinal outcome (Whitehead, Stat Med 1993;12:2257).

    ``shares`` of the categories are averaged over the arms.
    """
    total = math.fsum(shares)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares add up to {total:g}, not 1")
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    spread = 1 - math.fsum(share**3 for share in shares)
    return float(12 * z**2 / (math.log(odds_ratio) ** 2 * spread))


def _shifted_shares(shares: Sequence[float], odds_ratio: float) -> list[float]:
    """Shares after a proportional-odds shift towards the first category."""
    result, before, cumulated = [], 0.0, 0.0
    for share in shares[:-1]:
        cumulated += share
        odds = odds_ratio * cumulated / (1 - cumulated)
        now = odds / (1 + odds)
        result.append(now - before)
        before = now
    return [*result, 1 - before]


def _icc_precision(icc: float, raters: int, width: float, alpha: float = 0.05) -> float:
    """Participants for an ICC with a confidence interval of a given width (Bonett 2002)."""
    z = stats.norm.ppf(1 - alpha / 2)
    k = raters
    spread = (1 - icc) ** 2 * (1 + (k - 1) * icc) ** 2
    return float(8 * z**2 * spread / (k * (k - 1) * width**2) + 1)


def _per_arm_with_error(
    difference: float,
    sd_true: float,
    icc: float,
    reads: int = 1,
    power: float = 0.9,
    alpha: float = 0.05,
) -> float:
    """Participants per arm when the endpoint is read with reliability ``icc``, ``reads`` averaged.

    The variance of the mean of m reads is sd_true^2 (1 + (1 - icc) / (m icc)).
    """
    if not 0 < icc <= 1:
        raise ValueError(f"icc {icc:g} must lie in (0, 1]")
    sd = sd_true * math.sqrt(1 + (1 - icc) / (reads * icc))
    return _two_arm_means(difference, sd, power, alpha)


def _power_two_arms(difference: float, sd: float, per_arm: float, alpha: float = 0.05) -> float:
    """Power of a two-sample t test with ``per_arm`` participants in each arm."""
    df = 2 * per_arm - 2
    critical = stats.t.ppf(1 - alpha / 2, df)
    shift = abs(difference) / sd * math.sqrt(per_arm / 2)
    # The lower tail as the mirrored upper one: scipy's nct.cdf is nan far out.
    return float(stats.nct.sf(critical, df, shift) + stats.nct.sf(critical, df, -shift))


def _icc_exceeding(
    icc: float, threshold: float, raters: int, power: float = 0.9, alpha: float = 0.05
) -> float:
    """Participants to show that an ICC exceeds a threshold at the one-sided level ``alpha``
    (Walter, Eliasziw and Donner, Stat Med 1998;17:101).
    """
    if not threshold < icc < 1:
        raise NotComputable(f"the ICC {icc:g} must lie between the threshold {threshold:g} and 1")
    odds, null = icc / (1 - icc), threshold / (1 - threshold)
    ratio = (1 + raters * null) / (1 + raters * odds)
    z = stats.norm.ppf(1 - alpha) + stats.norm.ppf(power)
    return float(1 + 2 * z**2 * raters / ((raters - 1) * math.log(ratio) ** 2))


def _kappa_precision(
    kappa: float, shares: Sequence[float], width: float, alpha: float = 0.05
) -> float:
    """Participants for Cohen's kappa with a confidence interval of a given width.

    Both raters have the given shares; the table is (1 - kappa) p_i p_j + kappa p_i on the diagonal
    (Donner and Eliasziw's common correlation model), the variance Fleiss, Cohen and Everitt's.
    """
    p = np.asarray(shares, float)
    if abs(p.sum() - 1) > 1e-6:
        raise NotComputable(f"shares add up to {p.sum():g}, not 1")
    table = (1 - kappa) * np.outer(p, p) + kappa * np.diag(p)
    if (table < 0).any():
        raise NotComputable(f"no table of these shares has a kappa of {kappa:g}")
    expected = float(p @ p)
    observed = float(np.trace(table))
    influence = np.eye(p.size) * (1 - expected) - (1 - observed) * (p[:, None] + p[None, :])
    centre = observed * expected - 2 * expected + observed
    variance = (float(np.sum(table * influence**2)) - centre**2) / (1 - expected) ** 4
    z = stats.norm.ppf(1 - alpha / 2)
    return float((2 * z / width) ** 2 * variance)


def _limits_precision(sd: float, width: float, share: float = 0.95, alpha: float = 0.05) -> float:
    """Pairs for limits of agreement (``share`` of differences) with intervals of a full width.

    Bland and Altman 1999: 2 t SD sqrt(1/n + z^2 / (2 (n - 1))).
    """
    z = 1.96 if share == 0.95 else float(stats.norm.ppf((1 + share) / 2))

    def excess(n: float) -> float:
        t = float(stats.t.ppf(1 - alpha / 2, n - 1))
        return 2 * t * sd * math.sqrt(1 / n + z**2 / (2 * (n - 1))) - width

    if excess(2.0) <= 0:
        return 2.0
    high = 4.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, high / 2, high, xtol=1e-9))


def _mmrm_per_arm(
    difference: float,
    sd: float,
    correlation: float,
    retention: Sequence[float],
    power: float = 0.9,
    alpha: float = 0.05,
) -> float:
    """Participants per arm of an MMRM at its last visit (Lu, Luo and Chen 2008), not rounded.

    Information of a participant who leaves after visit j is that of visits 1 to j; visits correlate
    alike, both arms lose alike. R longpower::power.mmrm.
    """
    kept = np.asarray(retention, float)
    if (np.diff(kept) > 1e-12).any():
        raise NotComputable("retention must not rise from visit to visit")
    j = kept.size
    if correlation <= -1 / max(j - 1, 1):
        raise NotComputable(f"{j} visits cannot all correlate by {correlation:g}")
    leaving = kept - np.append(kept[1:], 0.0)
    information = np.zeros((j, j))
    for last in range(1, j + 1):
        visits = np.full((last, last), float(correlation))
        np.fill_diagonal(visits, 1.0)
        information[:last, :last] += leaving[last - 1] * np.linalg.inv(visits)
    inflation = float(np.linalg.inv(information)[-1, -1])
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return float(2 * inflation * (z * sd / difference) ** 2)


# ------------------------------------------------------------------------------------- the plan

#: Methods of a planned sample size with the keys that each needs.
NEEDS = {
    "means": ("difference",),
    "icc": ("reliability", "width"),
    "icc_exceeds": ("reliability", "exceeds"),
    "kappa": ("reliability", "shares", "width"),
    "limits": ("sd", "width"),
    "mmrm": ("difference", "sd", "correlation", "retention"),
    "ordinal": ("odds_ratio", "shares"),
    "survival": ("hazard_ratio",),
}


def analyse(analysis: SampleSizeSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``sample_size``.

    ``method: means`` goes from measured repeatability (ICC(A,1) of reads, or a given reliability)
    to participants per arm, or from ``per_arm`` to power, with better reliabilities and numbers of
    averaged reads to compare with; the other methods need the keys in :data:`NEEDS` and no data.
    """
    for endpoint, method in itertools.product(endpoints_of(analysis), analysis.methods):
        statistic = "n_per_arm" if method in {"means", "mmrm"} else "n_total"
        rows = (
            _planned_rows(analysis, tables, endpoint)
            if method == "means"
            else _closed_form(analysis, method)
        )
        absent = [key for key in NEEDS[method] if getattr(analysis, key) is None]
        if absent:
            reason = f"sample size {method} needs {', '.join(absent)}"
            yield not_computable(statistic, reason, endpoint=endpoint)
        else:
            yield from guarded(rows, statistic, endpoint=endpoint)


def _closed_form(analysis: SampleSizeSpec, method: str) -> Iterator[StatisticRow]:
    """Sample sizes that follow from planned numbers alone."""
    if method == "mmrm":
        per_arm, text = _mmrm_size(analysis)
        yield _size_row("n_per_arm", method, per_arm, text)
        size = 2.0 * math.ceil(per_arm)
    elif method in {"icc", "icc_exceeds", "kappa", "limits"}:
        size, text = _precision_size(analysis, method)
    else:
        size, text = _outcome_size(analysis, method)
    yield _size_row("n_total", method, size, text)


def _size_row(statistic: str, group: str, size: float, text: str) -> StatisticRow:
    rounded = float(math.ceil(size - 1e-9 * (statistic == "n_total")))
    note = f"unrounded {size:.2f}"
    return Estimate(rounded).row(statistic, group=group, method=text, note=note)


def _number(analysis: SampleSizeSpec, key: str) -> float:
    return float(getattr(analysis, key))


def _mmrm_size(analysis: SampleSizeSpec) -> tuple[float, str]:
    """Participants per arm of an MMRM, and the method in words."""
    power, alpha = analysis.power, analysis.alpha
    kept = [float(v) for v in as_list(analysis.retention)]
    keys = ("difference", "sd", "correlation")
    difference, sd, correlation = (_number(analysis, key) for key in keys)
    return _mmrm_per_arm(difference, sd, correlation, kept, power, alpha), (
        f"MMRM at the last of {len(kept)} visits, difference {difference:g}, SD "
        f"{sd:g}, correlation {correlation:g}, power {power:g}, two-sided "
        f"level {alpha:g} (Lu 2008)"
    )


def _precision_size(analysis: SampleSizeSpec, method: str) -> tuple[float, str]:
    """Participants of a study of agreement, and the method in words."""
    power, alpha, raters = analysis.power, analysis.alpha, analysis.raters
    if method == "limits":
        share, sd = analysis.limits_coverage, _number(analysis, "sd")
        width = _number(analysis, "width")
        return _limits_precision(sd, width, share, alpha), (
            f"limits of agreement ({100 * share:g} %) with intervals of width "
            f"{width:g}, SD of differences {sd:g} (Bland-Altman 1999)"
        )
    reliability = _number(analysis, "reliability")
    if method == "icc_exceeds":
        least = _number(analysis, "exceeds")
        return _icc_exceeding(reliability, least, raters, power, alpha), (
            f"ICC {reliability:g} shown to exceed {least:g}, {raters} "
            f"readings each, power {power:g}, one-sided level {alpha:g} (Walter 1998)"
        )
    width = _number(analysis, "width")
    if method == "icc":
        return _icc_precision(reliability, raters, width, alpha), (
            f"ICC {reliability:g} with an interval of width {width:g}, "
            f"{raters} readings each (Bonett 2002)"
        )
    shares = [float(v) for v in analysis.shares or ()]
    return _kappa_precision(reliability, shares, width, alpha), (
        f"kappa {reliability:g} with an interval of width {width:g}, two "
        "raters with the given shares (Fleiss-Cohen-Everitt variance)"
    )


def _outcome_size(analysis: SampleSizeSpec, method: str) -> tuple[float, str]:
    """Participants of a trial of an ordinal outcome or of survival, and the method in words."""
    power, alpha = analysis.power, analysis.alpha
    if method == "ordinal":
        odds, control = _number(analysis, "odds_ratio"), [float(v) for v in analysis.shares or ()]
        treated = _shifted_shares(control, odds)
        mean = [(c + t) / 2 for c, t in zip(control, treated, strict=True)]
        return _ordinal_total(odds, mean, power, alpha), (
            f"common odds ratio {odds:g}, two arms alike, power {power:g}, "
            f"two-sided level {alpha:g} (Whitehead 1993)"
        )
    from corelab.pharmacodynamics.survival import schoenfeld_events

    ratio, share = _number(analysis, "hazard_ratio"), float(analysis.event_share)
    events = math.ceil(schoenfeld_events(ratio, power, alpha))
    return events / share, (
        f"log-rank test of a hazard ratio of {ratio:g}: {events} "
        f"events, {100 * share:g} % of participants with one, power {power:g}, two-sided level "
        f"{alpha:g} (Schoenfeld 1983)"
    )


@dataclass(frozen=True)
class _Reliability:
    """Reliability of one read, SD of one read, and the reads behind them."""

    icc: Estimate
    sd: float
    ratings: np.ndarray | None = None
    sd_measured: bool = False

    def limits(self, reads: int, analysis: SampleSizeSpec) -> tuple[float, float]:
        """Limits of that SD: participants are resampled, SD and reliability follow."""
        from corelab.agreement.estimates import bootstrap_weights
        from corelab.agreement.icc import weighted_icc

        if self.ratings is None or (reads == 1 and not self.sd_measured):
            return math.nan, math.nan
        found = []
        for weights in bootstrap_weights(
            len(self.ratings),
            resamples=analysis.resamples,
            seed=analysis.seed,
        ):
            icc = np.clip(weighted_icc(self.ratings, weights, "icc_a_1"), 0.0, 1.0)
            sd = _pooled_sd(self.ratings, weights) if self.sd_measured else self.sd
            found.append(sd * np.sqrt(icc + (1 - icc) / reads))
        values = np.concatenate(found)
        alpha = analysis.alpha
        low, high = np.nanquantile(values, [alpha / 2, 1 - alpha / 2])
        return float(low), float(high)


def _pooled_sd(ratings: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """SD of one read: root of the mean of every reader's variance, participants weighted."""
    size = weights.sum(axis=1)[:, None]
    centred = ratings - ratings.mean(axis=0)
    mean = weights @ centred / size
    variances = (weights @ centred**2 / size - mean**2) * size / (size - 1)
    return np.asarray(np.sqrt(np.maximum(variances.mean(axis=1), 0.0)))


def _measured(analysis: SampleSizeSpec, tables: Tables, endpoint: str) -> _Reliability:
    """Reliability and SD of one read, given in the plan or measured."""
    given = analysis.reliability
    if given is not None:
        if analysis.sd is None:
            raise NotComputable("a given reliability needs the SD of the endpoint in sd")
        return _Reliability(Estimate(float(given), method="given in the plan"), float(analysis.sd))
    sources = as_list(analysis.sources)
    if not sources:
        raise NotComputable("name sources (readers) or a reliability")
    ratings, visit = ratings_of(analysis, tables, endpoint, sources)
    from corelab.agreement import intraclass_correlation

    icc = intraclass_correlation(ratings, alpha=analysis.alpha)["icc_a_1"]
    planned = analysis.sd
    sd = float(planned or _pooled_sd(ratings, np.ones((1, len(ratings))))[0])
    how = f"ICC(A,1) of {', '.join(sources)} at {visit}, {len(ratings)} participants"
    found = Estimate(icc.estimate, icc.ci_low, icc.ci_high, n=len(ratings), method=how)
    return _Reliability(found, sd, ratings, planned is None)


def ratings_of(
    analysis: Placed, tables: Tables, endpoint: str, sources: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Reads as (participants, readers) or (participants, repeats) for one source, complete rows.

    Raises
    ------
    NotComputable
        If fewer than three participants have them all.
    """
    rows = measured(analysis, tables, endpoint=endpoint, sources=sources)
    if rows.empty:
        raise NotComputable(f"no value of {endpoint} from {', '.join(sources)}")
    key = "repeat" if len(sources) == 1 else "source"
    if key == "source":
        rows = rows.sort_values("repeat").drop_duplicates(["participant_id", "visit", "source"])
    # The visit with most reads: others would mix change with error.
    visit = str(rows.groupby("visit").size().sort_values(kind="stable").index[-1])
    wide = rows[rows["visit"] == visit].pivot_table(
        index="participant_id", columns=key, values="value", aggfunc="first"
    )
    wide = wide.dropna()
    if wide.shape[1] < 2 or len(wide) < 3:
        raise NotComputable(
            f"{len(wide)} participants with {wide.shape[1]} reads of {endpoint} at {visit}; the "
            "repeatability needs two reads of three participants"
        )
    return wide.to_numpy(float), visit


def _planned_rows(
    analysis: SampleSizeSpec, tables: Tables, endpoint: str
) -> Iterator[StatisticRow]:
    alpha, power = analysis.alpha, analysis.power
    difference = float(analysis.difference or 0.0)
    found = _measured(analysis, tables, endpoint)
    icc, sd = found.icc.estimate, found.sd
    if difference == 0:
        raise NotComputable("a difference of 0 has no sample size")
    if sd == 0:
        raise NotComputable("the endpoint does not vary between participants")
    if not 0 < icc <= 1:
        raise NotComputable(f"the reliability {icc:.3g} is not above 0: reads carry no signal")
    yield found.icc.row("icc_a_1", method=f"reliability of one read: {found.icc.method}")
    usual = _per_arm_with_error(difference, sd * math.sqrt(icc), icc, 1, power, alpha)
    for reads in map(int, as_list(analysis.reads) or [1, 2]):
        limits = found.limits(reads, analysis)
        row = _per_arm_row(analysis, sd * math.sqrt(icc), icc, reads, usual, limits)
        yield replace(row, group=f"reads={reads}")
    for value in map(float, as_list(analysis.icc_targets)):
        row = _per_arm_row(analysis, sd * math.sqrt(icc), value, 1, usual)
        yield replace(row, group=f"icc={value:g}")
    if analysis.per_arm is not None:
        per_arm = float(analysis.per_arm)
        yield Estimate(_power_two_arms(difference, sd, per_arm, alpha)).row(
            "power",
            group=f"per_arm={per_arm:g}",
            method=f"two-sample t test, difference {difference:g}, SD {sd:.4g}, two-sided "
            f"level {alpha:g}",
        )


def _per_arm_row(
    analysis: SampleSizeSpec,
    sd_true: float,
    reliability: float,
    reads: int,
    usual: float,
    limits: tuple[float, float] = (math.nan, math.nan),
) -> StatisticRow:
    """Participants per arm; ``limits`` are those of the SD, ``usual`` the size to compare with."""
    from statsmodels.stats.power import TTestIndPower

    alpha, power, difference = analysis.alpha, analysis.power, float(analysis.difference or 0.0)
    size = _per_arm_with_error(difference, sd_true, reliability, reads, power, alpha)
    spread = sd_true * math.sqrt(1 + (1 - reliability) / (reads * reliability))
    checked = Second()
    # Its search does not end at sizes of one or two.
    if size > 3:
        theirs = TTestIndPower().solve_power(abs(difference) / spread, power=power, alpha=alpha)
        library = "statsmodels TTestIndPower"
        checked = compare(size, float(theirs), library, tolerance=1e-4, scale=size)
    low, high = math.nan, math.nan
    if all(math.isfinite(v) and v > 0 for v in limits):
        low, high = (float(math.ceil(_two_arm_means(difference, v, power, alpha))) for v in limits)
    saved = 2 * (math.ceil(usual) - math.ceil(size))
    return Estimate(float(math.ceil(size)), low, high).row(
        "n_per_arm",
        checked,
        method=f"two-sample t test, difference {difference:g}, power {power:g}, two-sided "
        f"level {alpha:g}; SD of the mean of {reads} read(s) {spread:.4g} with reliability "
        f"{reliability:.3f}; limits: bootstrap of participants (SD, reliability), rounded up",
        note=f"unrounded {size:.2f}; {saved} participants of both arms saved against one "
        "read at the measured reliability",
    )
