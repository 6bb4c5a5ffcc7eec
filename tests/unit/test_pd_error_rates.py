"""Type I error and coverage of every primary method at n = 60, in fewer runs than the bench.

``make bench`` decides on 2000 and more trials (4 to 6 %, 93 to 97 %). Here a method fails when so
few runs cannot come from rates inside these windows (binomial, one in 10 000 at each side), and a
method that is wrong, as a Wald interval without its small-sample correction, must fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from pd_error_rates import COVERAGE, ERROR, METHODS, N, Rates, Simulated, rates, student
from scipy import stats

from corelab.pharmacodynamics.proportions import _fisher_p, _two_shares_p, risk_difference

#: What one simulated trial costs more than a few milliseconds.
DEAR = {
    "two-part, ratio of means": 20,
    "multiple imputation": 25,
    "multiple imputation, covariate": 30,
    "Emax, Emax profile": 60,
    "indirect effect": 60,
    "clustered log-rank": 100,
    "Gray's test": 150,
    "GEE of responders": 60,
    "GEE of grades": 150,
    "random intercept of grades": 25,
    "mixed exposure-response": 60,
    "interval-censored log-rank": 60,
    "interval-censored hazard ratio": 60,
    **{name: 120 for name in METHODS if name.startswith(("quantile", "MMRM"))},
}
RUNS = 400


@pytest.mark.parametrize("name", METHODS)
def test_level_and_coverage(name):
    runs = DEAR.get(name, RUNS)
    found = rates(name, runs)
    assert found.computed > 0.95
    assert found.could_be_honest(runs), found


def test_the_window_catches_a_wrong_method(monkeypatch):
    """Intervals 15 % too short: 90.4 % coverage and a level of 9.6 %."""

    def too_short(rng, planted):
        _, low, high, truth = student(rng, planted)
        middle, half = (low + high) / 2, 0.85 * (high - low) / 2
        return (0.0 if abs(middle) > half else 1.0), middle - half, middle + half, truth

    monkeypatch.setitem(METHODS, "short", Simulated(too_short))
    found = rates("short", 2000)
    assert not found.could_be_honest(2000) and not found.honest


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5])
def test_two_shares_by_enumeration(share):
    """No simulation is needed for 31 x 31 tables: Fisher's own test has 0.9 to 2.7 % here."""
    n = N // 2
    chance = stats.binom.pmf(np.arange(n + 1), n, share)
    level = coverage = fisher = 0.0
    for a in range(n + 1):
        for b in range(n + 1):
            weight = chance[a] * chance[b]
            level += weight * (_two_shares_p(a, n, b, n)[0] < 0.05)
            fisher += weight * (_fisher_p(a, n, b, n) < 0.05)
            gap = risk_difference(a, n, b, n)
            low, high = gap.ci_low, gap.ci_high
            coverage += weight * (low <= 0 <= high)
    assert ERROR[0] <= level <= ERROR[1] and fisher < 0.03
    # Newcombe's interval is conservative for rare events.
    assert COVERAGE[0] <= coverage <= (COVERAGE[1] if share > 0.1 else 0.98)


def test_windows_are_those_of_the_acceptance():
    assert ERROR == (0.04, 0.06) and COVERAGE == (0.93, 0.97)
    assert Rates(math.nan, (0.95,), 1.0).honest and not Rates(0.03, (0.95,), 1.0).honest
    assert Rates(0.03, (), 1.0).could_be_honest(400)
    assert not Rates(0.03, (), 1.0).could_be_honest(20_000)
