"""Sample size for imaging endpoints: closed forms, and what a better repeatability saves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import optimize, stats


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
    total = sum(shares)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares add up to {total:g}, not 1")
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    spread = 1 - sum(share**3 for share in shares)
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
