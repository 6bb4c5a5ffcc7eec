"""fit_perfusion against analytic tissue curves; faults told in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from perfusion_tiles import arterial_curve, tissue_curve

from corelab.perfusion import PerfusionError, bayes, fit_perfusion
from corelab.perfusion.concentration import TISSUE_FACTOR

TIMES = np.arange(0, 75, 1.0)
ENGINES = ("ssvd", "bsvd", "osvd", "tikhonov", "bayes")


def tissues(times=TIMES, mtts=(4.0, 6.0, 10.0), cbv=4.0, delay=0.0, family="box"):
    return np.stack(
        [tissue_curve(family, times, cbv_ml_100g=cbv, mtt_s=m, delay_s=delay) for m in mtts]
    )


@pytest.mark.parametrize("method", ENGINES)
def test_engines_recover_volume_and_order_of_flow(method):
    maps = fit_perfusion(
        tissues(), TIMES, arterial_curve(TIMES), "concentration", method,
        tissue_factor=TISSUE_FACTOR,
    )  # fmt: skip
    np.testing.assert_allclose(maps.cbv_ml_100g, 4.0, rtol=0.05)
    assert (np.diff(maps.cbf_ml_100g_min) < 0).all()
    np.testing.assert_allclose(
        maps.mtt_s, 60 * maps.cbv_ml_100g / maps.cbf_ml_100g_min, rtol=1e-3
    )  # the central volume theorem


def test_bayes_recovers_flow_transit_time_and_delay():
    maps = fit_perfusion(
        tissues(delay=2.0), TIMES, arterial_curve(TIMES), "concentration", "bayes",
        tissue_factor=TISSUE_FACTOR,
    )  # fmt: skip
    truth = np.array([4.0, 6.0, 10.0])
    np.testing.assert_allclose(maps.mtt_s, truth, rtol=0.08)
    np.testing.assert_allclose(maps.delay_s, 2.0, atol=0.3)
    np.testing.assert_allclose(maps.tmax_s, 2.0 + truth / 2, atol=0.4)
    assert (maps.cbf_sd_ml_100g_min > 0).all()


@pytest.mark.parametrize("method", ["bsvd", "osvd", "bayes"])
@pytest.mark.parametrize("delay", [-2.0, 0.0, 3.0, 6.0])
def test_delay_moves_tmax_and_leaves_flow(method, delay):
    artery = arterial_curve(TIMES)
    # Exponential: a residue with one peak (a box has a flat top, whose time is not defined).
    moved = tissues(delay=delay, family="exponential")
    at = fit_perfusion(moved, TIMES, artery, "concentration", method)
    without = fit_perfusion(tissues(family="exponential"), TIMES, artery, "concentration", method)
    np.testing.assert_allclose(at.tmax_s - without.tmax_s, delay, atol=0.25)
    # osvd truncates in steps of 5 %, one of which changes a slow residue's height by up to 10 %.
    np.testing.assert_allclose(at.cbf_ml_100g_min, without.cbf_ml_100g_min, rtol=0.10)


def test_ssvd_cannot_see_tissue_that_is_early():
    # Wu 2003: the Toeplitz matrix is causal, so a negative delay has no place in its residue.
    artery = arterial_curve(TIMES)
    tissue = tissues(delay=-3.0, family="exponential")
    early = fit_perfusion(tissue, TIMES, artery, "concentration", "ssvd")
    circular = fit_perfusion(tissue, TIMES, artery, "concentration", "bsvd")
    assert (early.tmax_s >= 0).all()
    assert (circular.tmax_s < 0).all()


@pytest.mark.parametrize("method", ENGINES)
def test_result_does_not_depend_on_threads_or_on_neighbours(method):
    rng = np.random.default_rng(1)
    signal = np.tile(tissues(), (4000, 1)) + rng.normal(0, 1, (12000, len(TIMES)))
    artery = arterial_curve(TIMES)
    # What bayes learns from all curves together is given.
    flat = np.ones((len(bayes.FAMILIES), len(bayes.TRANSIT_TIMES_S), len(bayes.DELAYS_S)))
    keywords = {"sigma": 1.0, "prior": flat} if method == "bayes" else {}
    one = fit_perfusion(signal, TIMES, artery, "concentration", method, threads=1, **keywords)
    two = fit_perfusion(signal, TIMES, artery, "concentration", method, threads=2, **keywords)
    mask = np.arange(len(signal)) % 3 == 0
    part = fit_perfusion(signal, TIMES, artery, "concentration", method, mask=mask, **keywords)
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, two.arrays()[name])
        if name != "cbf_sd_ml_100g_min" and not name.endswith("sd_s"):
            np.testing.assert_array_equal(values[mask], part.arrays()[name][mask])
        assert np.isnan(part.arrays()[name][~mask]).all()


def test_dsc_signal_gives_what_its_concentration_gives():
    concentration = tissues() / 10.0
    artery = arterial_curve(TIMES) / 10.0
    as_signal = [500 * np.exp(-0.03 * c) for c in (concentration, artery)]
    direct = fit_perfusion(concentration, TIMES, artery, "concentration", "osvd")
    signal = fit_perfusion(as_signal[0], TIMES, as_signal[1], "dsc", "osvd", echo_time_s=0.03)
    np.testing.assert_allclose(signal.cbf_ml_100g_min, direct.cbf_ml_100g_min, rtol=1e-3)
    np.testing.assert_allclose(signal.tmax_s, direct.tmax_s, atol=1e-2)


def test_ctp_signal_gives_tissue_in_physical_units():
    maps = fit_perfusion(35 + tissues(), TIMES, 40 + arterial_curve(TIMES), "ctp", "osvd")
    np.testing.assert_allclose(maps.cbv_ml_100g, 4.0, rtol=0.05)
    assert maps.tissue_factor == pytest.approx((0.55 / 0.75) / 1.04)


def test_irregular_frames_are_resampled():
    times = np.concatenate([np.arange(0, 40, 1.0), np.arange(40, 75, 3.0)])
    even = fit_perfusion(tissues(), TIMES, arterial_curve(TIMES), "concentration", "osvd")
    uneven = fit_perfusion(tissues(times), times, arterial_curve(times), "concentration", "osvd")
    assert uneven.interval_s == 1.0
    np.testing.assert_allclose(uneven.cbf_ml_100g_min, even.cbf_ml_100g_min, rtol=0.05)


def test_missing_values_stay_where_they_are():
    signal = np.tile(tissues(), (2, 1))
    signal[0, 20] = np.nan
    signal[1] = np.nan
    maps = fit_perfusion(signal, TIMES, arterial_curve(TIMES), "concentration", "osvd")
    assert np.isnan(maps.cbf_ml_100g_min[1]) and np.isfinite(maps.cbf_ml_100g_min[[0, 2, 3]]).all()
    np.testing.assert_allclose(maps.cbf_ml_100g_min[0], maps.cbf_ml_100g_min[3], rtol=0.1)


def test_shape_is_kept():
    signal = np.broadcast_to(tissues()[:, None, None], (3, 2, 4, len(TIMES)))
    maps = fit_perfusion(signal, TIMES, arterial_curve(TIMES), "concentration", "bsvd")
    assert maps.cbf_ml_100g_min.shape == (3, 2, 4)
    single = fit_perfusion(tissues()[0], TIMES, arterial_curve(TIMES), "concentration", "bsvd")
    assert single.cbf_ml_100g_min.shape == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"times_s": TIMES[:-1]}, "frame times for"),
        ({"times_s": TIMES[::-1]}, "do not increase"),
        ({"aif": np.zeros(75)}, "no bolus"),
        ({"aif": -arterial_curve(TIMES)}, "no bolus"),
        ({"aif": np.ones(10)}, "arterial curve has 10"),
        ({"aif": np.full(75, np.nan)}, "not finite"),
        ({"modality": "pet"}, "unknown modality"),
        ({"method": "svd"}, "unknown method"),
        ({"modality": "dsc"}, "echo time"),
        ({"modality": "dsc", "echo_time_s": 30.0}, "milliseconds"),
        ({"mask": np.ones(5, bool)}, "mask has shape"),
    ],
)
def test_bad_input_is_told(change, words):
    good = {
        "signal": tissues(), "times_s": TIMES, "aif": arterial_curve(TIMES),
        "modality": "concentration", "method": "osvd",
    }  # fmt: skip
    with pytest.raises(PerfusionError, match=words):
        fit_perfusion(**{**good, **change})


def test_posterior_sd_covers_truth():
    """Nominal 68 % intervals of the transit time cover about that share in the model's family."""
    rng = np.random.default_rng(2)
    mtts = np.geomspace(3.5, 15, 20)
    clean = tissues(mtts=mtts, family="linear")
    signal = np.repeat(clean, 60, axis=0) + rng.normal(0, 1.0, (1200, len(TIMES)))
    maps = fit_perfusion(signal, TIMES, arterial_curve(TIMES), "concentration", "bayes", sigma=1.0)
    inside = np.abs(maps.mtt_s - np.repeat(mtts, 60)) <= maps.mtt_sd_s
    assert 0.55 < inside.mean() < 0.90
