"""Coverage of every interval of the agreement package by simulation (nominal 95 %).

A short form runs everywhere; 2000 runs per interval (93 to 97 %) are marked slow.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import special

from corelab.agreement import (
    categorical,
    differences,
    direction,
    drift,
    icc,
    metrology,
    repeats,
)

TARGET, READER, NOISE = 3.0, 1.0, 1.5


def ratings(rng, n, k, reader=READER, target=TARGET, noise=NOISE):
    return (
        20
        + rng.normal(0, target, (n, 1))
        + rng.normal(0, reader, (1, k))
        + rng.normal(0, noise, (n, k))
    )


TRUE_ICC = {
    "icc_1_1": TARGET**2 / (TARGET**2 + NOISE**2),
    "icc_a_1": TARGET**2 / (TARGET**2 + READER**2 + NOISE**2),
    "icc_c_1": TARGET**2 / (TARGET**2 + NOISE**2),
    "icc_1_k": TARGET**2 / (TARGET**2 + NOISE**2 / 4),
    "icc_a_k": TARGET**2 / (TARGET**2 + (READER**2 + NOISE**2) / 4),
    "icc_c_k": TARGET**2 / (TARGET**2 + NOISE**2 / 4),
}


def icc_form(form):
    def one(rng):
        reader = 0.0 if form.startswith("icc_1") else READER
        return icc.intraclass_correlation(ratings(rng, 30, 4, reader))[form], TRUE_ICC[form]

    return one


def icc_incomplete(form, k):
    def one(rng):
        table = ratings(rng, 40, k)
        table[rng.random(table.shape) < 0.2] = np.nan
        found = icc.intraclass_correlation(table)[form]
        return found, TRUE_ICC[form]

    return one


def bland_altman(part, limits_ci="approximate"):
    def one(rng):
        a, b = ratings(rng, 30, 2, 0.0).T
        found = differences.bland_altman(a + 0.5, b, limits_ci=limits_ci)
        sd = NOISE * np.sqrt(2)
        truth = {"bias": 0.5, "loa_lower": 0.5 - 1.96 * sd, "loa_upper": 0.5 + 1.96 * sd}[part]
        return getattr(found, f"{part}_ci"), truth

    return one


def replicated(linked):
    def one(rng):
        n, m = 40, 3
        own = rng.normal(0, 1.0, (n, 1)) - rng.normal(0, 1.0, (n, 1))
        x = rng.normal(0, 1.5, (n, m))
        y = rng.normal(0, 1.0, (n, m))
        common = rng.normal(50, 5, (n, m if linked else 1))
        found = differences.bland_altman_replicated(common + own + x, common + y, linked=linked)
        return found.loa_upper_ci, 1.96 * np.sqrt(2 + 1.5**2 + 1)

    return one


def concordance(rng):
    n, shift = 40, 0.8
    a, b = ratings(rng, n, 2, 0.0).T
    variance = TARGET**2 + NOISE**2
    truth = 2 * TARGET**2 / (2 * variance + shift**2)
    return differences.concordance_correlation(a + shift, b), truth


def overall_concordance(rng):
    shift = np.array([0.0, 0.8, -0.5])
    table = ratings(rng, 40, 3, 0.0) + shift
    gap = sum((shift[i] - shift[j]) ** 2 for i in range(3) for j in range(i))
    variance = TARGET**2 + NOISE**2
    truth = 6 * TARGET**2 / (2 * 3 * variance + gap)
    return differences.overall_concordance(table), truth


def deming(rng):
    truth = rng.uniform(5, 30, 40)
    x, y = truth + rng.normal(0, 1, 40), 1 + 1.2 * truth + rng.normal(0, 1, 40)
    return differences.deming(x, y).slope, 1.2


def passing_bablok(rng):
    truth = rng.uniform(5, 30, 40)
    x, y = truth + rng.normal(0, 1, 40), 2 + truth + rng.normal(0, 1, 40)
    return differences.passing_bablok(x, y).slope, 1.0


def deviation(rng):
    difference = rng.normal(0.5, 2.0, 40)
    grid = np.linspace(2, 5, 30001)
    inside = special.ndtr((grid - 0.5) / 2) - special.ndtr((-grid - 0.5) / 2)
    truth = grid[np.searchsorted(inside, 0.9)]
    return differences.total_deviation_index(difference, np.zeros(40)), truth


def repeatability(name, truth):
    def one(rng):
        table = rng.uniform(20, 80, (30, 1)) + rng.normal(0, 2.0, (30, 2))
        return metrology.repeatability(table)[name], truth

    return one


def relative_repeatability(rng):
    level = rng.uniform(20, 80, (30, 1))
    table = level * (1 + rng.normal(0, 0.08, (30, 2)))
    return metrology.repeatability(table)["within_cv_percent"], 8.0


def measurement_error(rng):
    found = icc.standard_error_of_measurement(ratings(rng, 40, 6, 0.5))["sem"]
    return found, np.sqrt(0.25 + NOISE**2)


def grades(rng, n, k=2, cuts=(-0.8, 0.2, 1.0)):
    latent = rng.normal(0, 1, (n, 1)) + rng.normal(0, 0.5, (n, k))
    return np.searchsorted(np.array(cuts), latent)


_TRUTH: dict[str, float] = {}


def graded(name, coefficient, k=2, n=80):
    def one(rng):
        if name not in _TRUTH:
            _TRUTH[name] = coefficient(grades(np.random.default_rng(99), 100_000, k)).estimate
        return coefficient(grades(rng, n, k)), _TRUTH[name]

    return one


def kappa(weights):
    return lambda table: categorical.weighted_kappa(*table.T, weights)


def alpha_ordinal(table):
    resamples = 400 if len(table) < 1000 else 0
    return categorical.krippendorff_alpha(table, "ordinal", resamples=resamples)


def kappa_bootstrap(rng):
    name = "kappa_quadratic"
    if name not in _TRUTH:
        big = grades(np.random.default_rng(99), 200_000)
        _TRUTH[name] = categorical.weighted_kappa(*big.T).estimate
    found = categorical.weighted_kappa(*grades(rng, 80).T, resamples=400)
    return found.bootstrap_ci, _TRUTH[name]


def icc_difference(rng):
    truth = rng.normal(0, TARGET, (50, 1))
    x = truth + rng.normal(0, 1.0, (50, 2))
    y = truth + rng.normal(0, 2.0, (50, 2))
    found = icc.compare_intraclass_correlations(x, y, form="icc_c_1", resamples=400)
    return found, 9 / 10 - 9 / 13


def proportion(rng):
    return metrology.proportion(int(rng.binomial(60, 0.3)), 60), 0.3


def inter_intra(rng):
    truth = rng.normal(50, 10, (50, 1, 1))
    readings = truth + rng.normal(0, 1.5, (50, 3, 1)) + rng.normal(0, 1, (50, 3, 2))
    return repeats._inter_intra_ratio(readings), np.sqrt(1.5**2 + 1)


def differential_bias(rng):
    return direction._welch(rng.normal(1.5, 1, 25), rng.normal(0.5, 3, 35)), 1.0


def difference_of_shares(rng):
    k1, k2 = int(rng.binomial(60, 0.5)), int(rng.binomial(60, 0.3))
    return direction._newcombe(k1, 60, k2, 60), 0.2


def reader_effect(rng):
    table = ratings(rng, 30, 3, 0.0) + np.array([1.0, 0.0, -1.0])
    table[rng.random(table.shape) < 0.15] = np.nan
    wide = pd.DataFrame(table, columns=["a", "b", "c"])
    return drift.reader_effects(wide).effects["a"], 1.0


def replicated_bias(rng):
    common = rng.normal(50, 5, (40, 1))
    x, y = common + rng.normal(0, 1.5, (40, 3)) + 0.5, common + rng.normal(0, 1, (40, 3))
    return differences.bland_altman_replicated(x, y).bias_ci, 0.5


SHARED = 2.0


def visits(rng, k=2, people=30):
    """Unequal numbers of visits; a reader errs alike (SD 2) at all visits of a participant."""
    who = np.repeat(np.arange(people), rng.integers(1, 8, people))
    truth = 50 + rng.normal(0, 5, people)[who] + rng.normal(0, 3, who.size)
    own = rng.normal(0, SHARED, (people, k))[who] + rng.normal(0, 1, (who.size, k))
    return truth[:, None] + own, who


TARGETS = 5.0**2 + 3.0**2
ERRORS = SHARED**2 + 1.0
CLUSTERED_SD = np.sqrt(2 * ERRORS)


def clustered(kernel, truth, k=2):
    def one(rng):
        table, who = visits(rng, k)
        return kernel(table, who), truth

    return one


def clustered_limits(part, truth):
    return clustered(
        lambda t, who: getattr(differences.bland_altman(*t.T, clusters=who), f"{part}_ci"), truth
    )


def clustered_icc(form, truth, **more):
    return clustered(lambda t, w: icc.intraclass_correlation(t, clusters=w, **more)[form], truth)


def clustered_icc_incomplete(rng):
    table, who = visits(rng, 3, 20)
    table[rng.random(table.shape) < 0.15] = np.nan
    found = icc.intraclass_correlation(table, clusters=who)["icc_c_1"]
    return found, TARGETS / (TARGETS + ERRORS)


def clustered_reader(rng):
    table, who = visits(rng, 3)
    wide = pd.DataFrame(table + np.array([1.0, 0.0, -1.0]), columns=["a", "b", "c"])
    return drift.reader_effects(wide, clusters=who).effects["a"], 1.0


def clustered_grades(rng, people, k=2):
    who = np.repeat(np.arange(people), rng.integers(1, 6, people))
    latent = rng.normal(0, 0.8, people)[who] + rng.normal(0, 0.6, who.size)
    seen = latent[:, None] + rng.normal(0, 0.4, (people, k))[who]
    return np.searchsorted([-0.8, 0.2, 1.0], seen + rng.normal(0, 0.3, (who.size, k))), who


def clustered_graded(name, coefficient, k=2):
    def one(rng):
        if name not in _TRUTH:
            table, _ = clustered_grades(np.random.default_rng(99), 30_000, k)
            _TRUTH[name] = coefficient(table, None).estimate
        return coefficient(*clustered_grades(rng, 40, k)), _TRUTH[name]

    return one


def linked_pairs(rng):
    """Fault of the audit: 15 participants, 3 with 12 pairs, 12 with 2 (coverage .87)."""
    difference = np.full((15, 12), np.nan)
    for i, pairs in enumerate([12] * 3 + [2] * 12):
        difference[i, :pairs] = 0.5 + rng.normal(0, 2) + rng.normal(0, 1, pairs)
    found = differences.bland_altman_replicated(difference, 0 * difference, linked=True)
    return found.bias_ci, 0.5


_RATIO = TARGETS / (TARGETS + ERRORS)
CLUSTERED = {
    "clustered bias": clustered_limits("bias", 0.0),
    "clustered loa_lower": clustered_limits("loa_lower", -1.96 * CLUSTERED_SD),
    "clustered loa_upper": clustered_limits("loa_upper", 1.96 * CLUSTERED_SD),
    "clustered icc_a_1": clustered_icc("icc_a_1", _RATIO),
    "clustered icc_c_1": clustered_icc("icc_c_1", _RATIO),
    "clustered icc_c_1 of 3": clustered(
        lambda t, w: icc.intraclass_correlation(t, clusters=w)["icc_c_1"], _RATIO, 3
    ),
    "clustered icc_a_1 pooled": clustered_icc("icc_a_1", _RATIO, pooled=True),
    "clustered icc_c_1 incomplete": clustered_icc_incomplete,
    "clustered sem": clustered(
        lambda t, w: icc.standard_error_of_measurement(t, clusters=w)["sem"], np.sqrt(ERRORS)
    ),
    "clustered ccc": clustered(
        lambda t, w: differences.concordance_by_components(t, clusters=w), _RATIO
    ),
    "clustered within_sd": clustered(
        lambda t, w: metrology.repeatability(t, clusters=w)["within_sd"], np.sqrt(ERRORS)
    ),
    "clustered slope": clustered(
        lambda t, w: differences.regression_slope(t.mean(axis=1), t[:, 0] - t[:, 1], clusters=w),
        0.0,
    ),
    "clustered deming": clustered(lambda t, w: differences.deming(*t.T, clusters=w).slope, 1.0),
    "clustered total deviation": clustered(
        lambda t, w: differences.total_deviation_index(*t.T, clusters=w),
        1.6448536269514722 * CLUSTERED_SD,
    ),
    "clustered reader_effect": clustered_reader,
    "clustered kappa_quadratic": clustered_graded(
        "c_kappa", lambda t, w: categorical.weighted_kappa(*t.T, clusters=w)
    ),
    "clustered kappa_fleiss": clustered_graded(
        "c_fleiss", lambda t, w: categorical.chance_corrected(t, "fleiss", clusters=w), 3
    ),
    "clustered gwet_ac1": clustered_graded(
        "c_ac1", lambda t, w: categorical.chance_corrected(t, "gwet", clusters=w), 3
    ),
    "clustered percent": clustered_graded(
        "c_percent", lambda t, w: categorical.percent_agreement(t, clusters=w)
    ),
    "clustered alpha": clustered_graded(
        "c_alpha",
        lambda t, w: categorical.krippendorff_alpha(
            t, "ordinal", clusters=w, resamples=400 if len(t) < 1000 else 0
        ),
        3,
    ),
    "linked pairs, unequal numbers": linked_pairs,
}
INTERVALS = {
    **CLUSTERED,
    "inter_intra_sd_ratio": inter_intra,
    "differential_bias": differential_bias,
    "difference of shares": difference_of_shares,
    "reader_effect incomplete": reader_effect,
    "bias replicated": replicated_bias,
    **{form: icc_form(form) for form in TRUE_ICC},
    "icc_a_1 incomplete": icc_incomplete("icc_a_1", 4),
    "icc_c_1 incomplete": icc_incomplete("icc_c_1", 3),
    "bias": bland_altman("bias"),
    "loa_lower": bland_altman("loa_lower"),
    "loa_upper": bland_altman("loa_upper"),
    "loa_upper exact": bland_altman("loa_upper", "exact"),
    "loa_upper replicated": replicated(False),
    "loa_upper linked": replicated(True),
    "ccc": concordance,
    "ccc overall": overall_concordance,
    "deming slope": deming,
    "passing_bablok slope": passing_bablok,
    "total_deviation_index": deviation,
    "within_sd": repeatability("within_sd", 2.0),
    "repeatability_coefficient": repeatability("repeatability_coefficient", 1.96 * 8**0.5),
    "within_cv_percent": relative_repeatability,
    "sem": measurement_error,
    "kappa": graded("kappa", kappa("none")),
    "kappa_linear": graded("kappa_linear", kappa("linear")),
    "kappa_quadratic": graded("kappa_quadratic", kappa("quadratic")),
    "kappa_quadratic bootstrap": kappa_bootstrap,
    "kappa_fleiss": graded("kappa_fleiss", partial(categorical.chance_corrected, kind="fleiss"), 4),
    "gwet_ac1": graded("gwet_ac1", partial(categorical.chance_corrected, kind="gwet"), 3),
    "gwet_ac2": graded(
        "gwet_ac2", lambda t: categorical.chance_corrected(t, "gwet", weights="quadratic"), 3
    ),
    "alpha ordinal": graded("alpha_ordinal", alpha_ordinal, 3),
    "percent_agreement": graded("percent_agreement", categorical.percent_agreement),
    "percent_agreement of 4": graded("percent_agreement_4", categorical.percent_agreement, 4),
    "icc difference": icc_difference,
    "proportion": proportion,
}


def coverage(name, runs):
    covered = 0
    for run in range(runs):
        found, truth = INTERVALS[name](np.random.default_rng([run, 7]))
        low, high = found if isinstance(found, tuple) else (found.ci_low, found.ci_high)
        covered += low <= truth <= high
    return covered / runs


@pytest.mark.parametrize("name", sorted(INTERVALS))
def test_coverage_in_short(name):
    """Only a gross error shows in so few runs: 5 standard errors below 95 %."""
    runs = 24 if name == "clustered icc_c_1 incomplete" else 60  # 0.2 s each
    assert coverage(name, runs) >= 0.95 - 5 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.parametrize("name", sorted(INTERVALS))
def test_coverage(name):
    assert 0.93 <= coverage(name, 2000) <= 0.97


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.parametrize("people", [10_000, 2500])
def test_ten_thousand_targets_within_a_minute_and_a_gigabyte(people):
    import resource
    import time

    from helpers import run

    from corelab.measurement.selection import Tables

    rng = np.random.default_rng(0)
    who = np.repeat([f"s{i}" for i in range(people)], 10_000 // people)
    visit = np.tile([f"v{i}" for i in range(10_000 // people)], people)
    truth = rng.lognormal(3, 1, 10_000)
    frames = [
        pd.DataFrame(
            {
                "participant_id": who, "visit": visit, "endpoint": "infarct_volume",
                "source": source, "repeat": 1, "region": "all", "status": "ok",
                "value": truth * np.exp(rng.normal(0, 0.2, 10_000)),
            }
        )
        for source in ("r1", "r2", "r3")
    ]  # fmt: skip
    tables = Tables(pd.concat(frames), pd.DataFrame({"participant_id": sorted(set(who))}))
    start = time.process_time()
    plan = {"id": "a", "type": "agreement", "endpoint": "infarct_volume", "sources": "all"}
    assert run(plan, tables)["n"].max() == 10_000
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000
