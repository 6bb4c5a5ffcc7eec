"""10,000 participants: memory and time stay bounded (issue: every statistic within 60 s and 1 GB)."""

import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics import survival
from corelab.pharmacodynamics.competing import fit_fine_gray
from corelab.pharmacodynamics.modelling import _fit_model
from corelab.pharmacodynamics.ordinal import _hierarchical_scores, _win_statistics
from corelab.pharmacodynamics.quantile import _check_loss, _quantile_coefficients
from corelab.pharmacodynamics.random_intercept import fit_random_intercept

N = 10_000


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def peak(call):
    """Result, and megabytes that numpy asked for at most."""
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_fine_gray_keeps_no_square(rng):
    x = rng.normal(size=(N, 4))
    t, s = rng.exponential(np.exp(-0.3 * x[:, 0]), N), rng.integers(0, 3, N)
    fit, used = peak(lambda: fit_fine_gray(t, s, x))
    assert used < 50
    assert abs(fit.coefficients[1]) < 5 * fit.covariance[1, 1] ** 0.5


def test_pairs_of_a_win_ratio_are_small_integers(rng):
    a, b = rng.integers(0, 7, (2, N // 2, 1)).astype(float)
    a[:9] = np.nan
    wins, used = peak(lambda: _win_statistics(_hierarchical_scores(a, b, ["low"])))
    assert used < 250
    assert wins.wins + wins.losses + wins.ties == N**2 / 4 and wins.ties > 9 * N / 2


def test_far_rows_of_a_quantile_are_summed(rng):
    n = 1501
    x = np.column_stack([np.ones(n), np.arange(n) % 2, rng.normal(size=n)])
    y = x @ [1.0, 0.5, 2.0] + rng.standard_t(3, n)
    for share in (0.13, 0.5):
        whole = _quantile_coefficients(x, y, share)
        # Also from a plane that is not near: rows join until no side changes.
        for near in (whole + 0.02, np.zeros(3)):
            again = _quantile_coefficients(x, y, share, near)
            ours, theirs = (_check_loss(y - x @ b, share) for b in (again, whole))
            assert ours == pytest.approx(theirs, rel=1e-12)
            assert again == pytest.approx(whole, abs=1e-9)


def test_a_dose_model_is_fitted_to_the_doses(rng):
    dose = np.tile([0.0, 1, 2, 5], N // 4)
    z = rng.normal(size=(N, 2))
    y = 3 * dose / (1 + dose) + z @ [1.0, -1.0] + rng.normal(size=N)
    start = time.process_time()
    fit = _fit_model("sigmoid_emax", dose, y, z)
    assert time.process_time() - start < 2
    matrix = np.column_stack([np.ones(N), dose ** fit.parameters["hill"], z])
    matrix[:, 1] /= matrix[:, 1] + fit.parameters["ed50"] ** fit.parameters["hill"]
    left = y - matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]
    assert fit.rss == pytest.approx(float(left @ left), rel=1e-9)


def test_a_random_intercept_of_many(rng):
    who, x = np.repeat(np.arange(1000), 3), rng.normal(size=(3000, 2))
    grade = np.digitize(x[:, 0] + rng.normal(size=1000)[who] + rng.logistic(size=3000), [0, 1])
    fit, used = peak(lambda: fit_random_intercept(who, grade, x))
    assert used < 50
    assert fit.coefficients[0] == pytest.approx(1.0, abs=0.25)
    assert fit.spread == pytest.approx(1.0, abs=0.25)


def test_a_cox_model_of_many_agrees_with_lifelines(rng):
    """lifelines stops at a relative change of the likelihood of 1e-9 unless it is told not to."""
    ids = [f"p{k:05d}" for k in range(2000)]
    age = rng.normal(60, 9, len(ids))
    drawn = rng.exponential(100 * np.exp(-0.02 * (age - 60)))
    events = pd.DataFrame({"participant_id": ids, "endpoint": "os", "time_days": drawn + 1})
    people = pd.DataFrame({"participant_id": ids, "age": age, "site": np.arange(len(ids)) % 20})
    tables = Tables(pd.DataFrame(), people, events=events.assign(event=1.0))
    analysis = {"id": "a", "type": "survival", "event_endpoint": "os", "method": "cox"}
    rows = run({**analysis, "covariates": ["age"], "strata": ["site"]}, tables)
    assert rows.loc[0, "second_estimate"] == pytest.approx(rows.loc[0, "estimate"], rel=1e-6)


def test_cox_model_of_ten_thousand_takes_few_steps():
    # The likelihood is about -4e4: a limit of 1e-12 on its fall is below its rounding, and each
    # step was halved to nothing.
    rng = np.random.default_rng(0)
    z = rng.normal(size=(10_000, 1))
    t = rng.exponential(np.exp(-0.5 * z[:, 0]))
    sets = survival._risk_sets(t, np.ones(t.size), z, np.zeros(t.size, int), "efron")
    calls = []

    def derivatives(beta):
        calls.append(beta)
        return survival._cox_derivatives(beta, z, sets)

    beta = survival._cox_maximum(derivatives, 1)[0]
    assert len(calls) < 15
    assert beta[0] == pytest.approx(0.5, abs=0.05)
