"""Type I error and coverage at n = 60, the fast form of tests/acceptance/test_pd_simulations.py."""

from __future__ import annotations

import numpy as np
import pytest

from corelab.pharmacodynamics.comparison import welch_t
from corelab.pharmacodynamics.correlation import pearson
from corelab.pharmacodynamics.linear import fit_linear
from corelab.pharmacodynamics.skewed import fit_gamma, rank_ancova

N, REPETITIONS = 60, 1500
ARM = np.repeat([0.0, 1.0], N // 2)
X = np.column_stack([np.ones(N), ARM])


def _welch(rng, effect):
    y = rng.normal(10, 4, N) + effect * ARM
    return welch_t(y[ARM == 1], y[ARM == 0])


def _ancova(rng, effect):
    base = rng.normal(20, 5, N)
    y = 5 - 0.3 * base + effect * ARM + rng.normal(0, 4, N)
    return fit_linear(np.column_stack([X, base]), y).contrast([0, 1, 0])


def _gamma(rng, effect):
    return fit_gamma(X, rng.gamma(2.0, np.exp(1 + effect * ARM) / 2)).term(1)


def _pearson(rng, effect):
    x = rng.normal(size=N)
    return pearson(x, effect * x + np.sqrt(1 - effect**2) * rng.normal(size=N))


@pytest.mark.parametrize(
    ("kernel", "effect"), [(_welch, 2.0), (_ancova, -3.0), (_gamma, -0.5), (_pearson, 0.5)]
)
def test_level_and_coverage(kernel, effect):
    """Monte-Carlo error of 1500 repetitions is 0.56 %: the window is 5 % plus or minus 1.7 %."""
    rng = np.random.default_rng(60)
    null = [kernel(rng, 0.0).p_value < 0.05 for _ in range(REPETITIONS)]
    assert 0.033 <= np.mean(null) <= 0.067
    found = [kernel(rng, effect) for _ in range(REPETITIONS)]
    inside = [r.ci_low <= effect <= r.ci_high for r in found]
    assert 0.933 <= np.mean(inside) <= 0.967


def test_rank_ancova_keeps_its_level_with_zeros():
    rng = np.random.default_rng(61)
    hits = []
    for _ in range(REPETITIONS):
        y = np.where(rng.random(N) < 0.4, 0.0, rng.lognormal(2, 1, N))
        hits.append(rank_ancova(y, ARM, rng.normal(size=(N, 1))).p_value < 0.05)
    assert 0.033 <= np.mean(hits) <= 0.067
