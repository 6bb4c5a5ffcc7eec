"""Sample size for imaging endpoints: closed forms, and what a better repeatability saves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, stats

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    measured,
    not_computable,
)
from corelab.pharmacodynamics.analysis_set import alpha_of, endpoints_of
from corelab.provenance.two_computations import compare


def two_arm_means(difference: float, sd: float, power: float = 0.9, alpha: float = 0.05) -> float:
    """Participants per arm of a two-sample t test (exact, non-central t), not rounded.

    Examples
    --------
    >>> round(two_arm_means(0.5, 1.0), 4)
    85.0313
    """
    effect = abs(difference) / sd
    if effect == 0:
        raise ValueError("difference 0 has no sample size")

    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    rough = 2 * (z / effect) ** 2

    def missing(n: float) -> float:
        df = 2 * n - 2
        critical, shift = stats.t.ppf(1 - alpha / 2, df), effect * math.sqrt(n / 2)
        # The lower tail as the mirrored upper one: scipy's nct.cdf is nan far out.
        reached = stats.nct.sf(critical, df, shift) + stats.nct.sf(critical, df, -shift)
        return float(reached) - power

    return float(optimize.brentq(missing, max(1.5, 0.9 * rough), 2 * rough + 10, xtol=1e-9))


def two_arm_ancova(
    difference: float,
    sd: float,
    correlation: float,
    power: float = 0.9,
    alpha: float = 0.05,
) -> float:
    """Participants per arm with the baseline as covariate (Borm et al. 2007): x (1 - rho^2).

    Examples
    --------
    >>> round(two_arm_ancova(0.5, 1.0, 0.7), 1)
    43.4
    """
    return (1 - correlation**2) * two_arm_means(difference, sd, power, alpha)


def ordinal_total(
    odds_ratio: float, shares: Sequence[float], power: float = 0.9, alpha: float = 0.05
) -> float:
    """Total participants of a two-arm trial with an ordinal outcome (Whitehead 1993), 1:1.

    Parameters
    ----------
    odds_ratio
        Common odds ratio to be detected.
    shares
        Expected share of each category, averaged over the arms; they add up to 1.
    power, alpha
        Power and two-sided level.

    Examples
    --------
    Whitehead (Stat Med 1993;12:2257): control 0.2, 0.5, 0.2, 0.1, log odds ratio 0.887: 187.

    >>> from corelab.pharmacodynamics.sample_size import shifted_shares
    >>> control = [0.2, 0.5, 0.2, 0.1]
    >>> treated = shifted_shares(control, math.exp(0.887))
    >>> mean = [(c + t) / 2 for c, t in zip(control, treated)]
    >>> round(ordinal_total(math.exp(0.887), mean), 2)
    186.99
    """
    total = math.fsum(shares)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares add up to {total:g}, not 1")
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    spread = 1 - math.fsum(share**3 for share in shares)
    return float(12 * z**2 / (math.log(odds_ratio) ** 2 * spread))


def shifted_shares(shares: Sequence[float], odds_ratio: float) -> list[float]:
    """Shares after a proportional-odds shift towards the first category.

    Examples
    --------
    >>> [round(v, 3) for v in shifted_shares([0.5, 0.5], 3.0)]
    [0.75, 0.25]
    """
    result, before, cumulated = [], 0.0, 0.0
    for share in shares[:-1]:
        cumulated += share
        odds = odds_ratio * cumulated / (1 - cumulated)
        now = odds / (1 + odds)
        result.append(now - before)
        before = now
    return [*result, 1 - before]


def icc_precision(icc: float, raters: int, width: float, alpha: float = 0.05) -> float:
    """Participants for an ICC with a confidence interval of a given width (Bonett 2002).

    Examples
    --------
    >>> round(icc_precision(0.85, 4, 0.2), 3)
    19.154
    """
    z = stats.norm.ppf(1 - alpha / 2)
    k = raters
    spread = (1 - icc) ** 2 * (1 + (k - 1) * icc) ** 2
    return float(8 * z**2 * spread / (k * (k - 1) * width**2) + 1)


def per_arm_with_error(
    difference: float,
    sd_true: float,
    icc: float,
    reads: int = 1,
    power: float = 0.9,
    alpha: float = 0.05,
) -> float:
    """Participants per arm when the endpoint is read with reliability ``icc``, ``reads`` averaged.

    The variance of the mean of m reads is sd_true^2 (1 + (1 - icc) / (m icc)).

    Examples
    --------
    How many a rise of the ICC from 0.7 to 0.9 saves:

    >>> round(per_arm_with_error(5, 10, 0.7)), round(per_arm_with_error(5, 10, 0.9))
    (121, 94)
    """
    if not 0 < icc <= 1:
        raise ValueError(f"icc {icc:g} must lie in (0, 1]")
    sd = sd_true * math.sqrt(1 + (1 - icc) / (reads * icc))
    return two_arm_means(difference, sd, power, alpha)


def power_two_arms(difference: float, sd: float, per_arm: float, alpha: float = 0.05) -> float:
    """Power of a two-sample t test with ``per_arm`` participants in each arm.

    Examples
    --------
    >>> round(power_two_arms(0.5, 1.0, 85.0313), 4)
    0.9
    """
    df = 2 * per_arm - 2
    critical = stats.t.ppf(1 - alpha / 2, df)
    shift = abs(difference) / sd * math.sqrt(per_arm / 2)
    return float(stats.nct.sf(critical, df, shift) + stats.nct.sf(critical, df, -shift))


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: Mapping[str, Any], tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``sample_size``: from measured repeatability to participants.

    Keys: ``endpoint``; ``sources`` (two readers or more, or one with repeats: ICC(A,1) of their
    reads is the reliability) or ``reliability`` (a number); ``difference`` to be detected; ``sd``
    of the endpoint as it is read (default: measured); ``power`` (default 0.9) or ``per_arm``
    (gives the power); ``icc_targets`` (better reliabilities to compare with) and ``reads``
    (numbers of reads that are averaged, default 1 and 2).
    """
    for endpoint in endpoints_of(analysis):
        head = {"endpoint": endpoint}
        try:
            for row in _planned_rows(analysis, tables, endpoint):
                yield {**head, **row}
        except NotComputable as reason:
            yield not_computable("n_per_arm", str(reason), **head)


def _measured(
    analysis: Mapping[str, Any], tables: Tables, endpoint: str
) -> tuple[float, float, float, float, int, str]:
    """Reliability with its limits, SD of one read, participants, and where they come from."""
    given = analysis.get("reliability")
    if given is not None:
        if analysis.get("sd") is None:
            raise NotComputable("a given reliability needs the SD of the endpoint in sd")
        return float(given), math.nan, math.nan, float(analysis["sd"]), 0, "given in the plan"
    sources = [str(name) for name in as_list(analysis.get("sources"))]
    if not sources:
        raise NotComputable("name sources (readers) or a reliability")
    ratings, visit = ratings_of(analysis, tables, endpoint, sources)
    from corelab.agreement import intraclass_correlation

    icc = intraclass_correlation(ratings)["icc_a_1"]
    sd = float(analysis.get("sd") or ratings[:, 0].std(ddof=1))
    how = f"ICC(A,1) of {', '.join(sources)} at {visit}, {len(ratings)} participants"
    return icc.estimate, icc.ci_low, icc.ci_high, sd, len(ratings), how


def ratings_of(
    analysis: Mapping[str, Any], tables: Tables, endpoint: str, sources: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Reads as (participants, readers) or (participants, repeats) for one source, complete rows.

    Raises
    ------
    NotComputable
        If fewer than three participants have them all.
    """
    rows = measured({**analysis, "derivation": "value"}, tables, endpoint=endpoint, sources=sources)
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
    analysis: Mapping[str, Any], tables: Tables, endpoint: str
) -> Iterator[dict[str, Any]]:
    from statsmodels.stats.power import TTestIndPower

    alpha, power = alpha_of(analysis), float(analysis.get("power", 0.9))
    if analysis.get("difference") is None:
        raise NotComputable("name the difference to be detected")
    difference = float(analysis["difference"])
    icc, low, high, sd, n, how = _measured(analysis, tables, endpoint)
    if not 0 < icc <= 1:
        raise NotComputable(f"the reliability {icc:.3g} is not above 0: reads carry no signal")
    yield {
        "statistic": "icc_a_1",
        "estimate": icc,
        "ci_low": low,
        "ci_high": high,
        "n": n or math.nan,
        "method": f"reliability of one read: {how}",
    }
    sd_true = sd * math.sqrt(icc)
    plan = [(f"reads={m}", icc, m) for m in map(int, as_list(analysis.get("reads")) or [1, 2])]
    plan += [(f"icc={value:g}", float(value), 1) for value in as_list(analysis.get("icc_targets"))]
    usual = per_arm_with_error(difference, sd_true, icc, 1, power, alpha)
    for group, reliability, reads in plan:
        size = per_arm_with_error(difference, sd_true, reliability, reads, power, alpha)
        spread = sd_true * math.sqrt(1 + (1 - reliability) / (reads * reliability))
        theirs = TTestIndPower().solve_power(abs(difference) / spread, power=power, alpha=alpha)
        # The limits of the reliability are those of the size, the other way round.
        limits = [
            per_arm_with_error(difference, sd * math.sqrt(v), v, reads, power, alpha)
            if math.isfinite(v) and 0 < v <= 1 and group.startswith("reads=")
            else math.nan
            for v in (high, low)
        ]
        saved = 2 * (math.ceil(usual) - math.ceil(size))
        yield {
            "statistic": "n_per_arm",
            "group": group,
            "estimate": float(math.ceil(size)),
            "ci_low": math.ceil(min(limits)) if all(map(math.isfinite, limits)) else math.nan,
            "ci_high": math.ceil(max(limits)) if all(map(math.isfinite, limits)) else math.nan,
            "method": f"two-sample t test, difference {difference:g}, power {power:g}, two-sided "
            f"level {alpha:g}; SD of the mean of {reads} read(s) {spread:.4g} with reliability "
            f"{reliability:.3f}; limits from those of the reliability, rounded up",
            **compare(size, float(theirs), "statsmodels TTestIndPower", tolerance=1e-4, scale=size),
            "note": f"unrounded {size:.2f}; {saved} participants of both arms saved against one "
            "read at the measured reliability",
        }
    if analysis.get("per_arm") is not None:
        per_arm = float(analysis["per_arm"])
        yield {
            "statistic": "power",
            "group": f"per_arm={per_arm:g}",
            "estimate": power_two_arms(difference, sd, per_arm, alpha),
            "method": f"two-sample t test, difference {difference:g}, SD {sd:.4g}, two-sided "
            f"level {alpha:g}",
        }
