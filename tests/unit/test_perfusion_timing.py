"""Tmax without bias, the prior that a scan teaches, fine grids, and compiled loops on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from perfusion_heads import HeadCase, clinical_cases, simulate_head, transit_residue
from perfusion_tiles import gamma_bolus
from scipy.signal import fftconvolve

from corelab.perfusion import bayes, coarse, fit_perfusion, kernels
from corelab.perfusion.tissue import _rows
from corelab.provenance import compiled

FINE_S = 0.05
TINY = {"shape": (40, 48, 4), "voxel_mm": (4.8, 4.8, 20.0)}


def population(family, interval_s, noise_share, n=1200, seed=0):
    """Curves of a head: 80 % normal, the rest of every severity up to a Tmax of 10 s.

    The artery is one as in patients: 12 s wide, 180 HU, with a second pass.
    """
    rng = np.random.default_rng(seed)
    fine = np.arange(0, 55, FINE_S)
    artery = gamma_bolus(fine, arrival_s=7, shape=4, scale_s=2.4, peak=180)
    artery += gamma_bolus(fine, arrival_s=20, shape=3, scale_s=6, peak=30)
    times = np.arange(0, 52, interval_s)
    severity = np.where(rng.random(n) < 0.2, rng.random(n), 0.0)
    transit = np.geomspace(3.0, 13.0, 24)
    which = np.abs(np.log(4.4 * (1 + severity)[:, None] / transit)).argmin(axis=1)
    delay = 0.9 + 4.7 * severity + 0.2 * rng.random(n)
    shapes = []
    for mtt in transit:
        residue = transit_residue(family, fine, mtt) / mtt
        residue[0] *= 0.5
        shapes.append(0.04 * fftconvolve(artery, residue)[: len(fine)] * FINE_S)
    curves = np.array(
        [np.interp(times - d, fine, shapes[k], left=0) for k, d in zip(which, delay, strict=True)]
    )
    sigma = noise_share * float(np.median(curves.max(axis=1)))
    curves += rng.normal(0, sigma, curves.shape)
    return curves, times, np.interp(times, fine, artery), delay + 0.5 * transit[which], sigma


@pytest.mark.parametrize("family", ["exponential", "gamma3", "linear", "lognormal0.7", "box"])
def test_tmax_at_three_percent_noise(family):
    curves, times, artery, truth, sigma = population(family, 1.0, 0.03)
    maps = fit_perfusion(curves, times, artery, "concentration", "bayes", sigma=sigma)
    gap = maps.tmax_s - truth
    assert np.abs(gap).mean() <= 0.40
    # At the limit that parts hypoperfused from other tissue there must be no bias.
    assert abs(gap[np.abs(truth - 6) < 1].mean()) <= 0.30
    old = fit_perfusion(curves, times, artery, "concentration", "osvd").tmax_s - truth
    assert np.abs(gap).mean() <= np.abs(old).mean() + 0.05


@pytest.mark.parametrize("interval_s", [1.5, 2.0, 3.0])
def test_volume_above_six_seconds_does_not_depend_on_the_interval(interval_s):
    curves, times, artery, truth, sigma = population("linear", interval_s, 0.06, n=3000)
    tmax = fit_perfusion(curves, times, artery, "concentration", "bayes", sigma=sigma).tmax_s
    assert abs((tmax > 6).sum() / (truth > 6).sum() - 1) <= 0.08


def test_prior_shows_the_residue_function_of_the_scan():
    curves, times, artery, _, sigma = population("box", 1.0, 0.03)
    shares = fit_perfusion(
        curves, times, artery, "concentration", "bayes", sigma=sigma
    ).family_weights
    assert dict(zip(bayes.FAMILIES, shares, strict=True))["box"] > 0.7


def test_prior_can_be_given_and_must_fit_the_grid():
    curves, _, artery, _, sigma = population("linear", 1.5, 0.05, n=300)
    found = bayes.estimate(curves, artery, 1.5, sigma=sigma)
    again = bayes.estimate(curves[:50], artery, 1.5, sigma=sigma, prior=found.prior)
    assert found.prior.sum() == pytest.approx(1.0)
    # The noise of a curve is never below 1 % of the others' peak; here it is far above.
    np.testing.assert_array_equal(again.tmax_s, found.tmax_s[:50])
    with pytest.raises(ValueError, match=r"the prior has shape \(2,\)"):
        bayes.estimate(curves, artery, 1.5, sigma=sigma, prior=np.ones(2))


def test_a_curve_that_no_model_fits_is_less_certain():
    curves, times, artery, _, sigma = population("linear", 1.5, 0.03, n=300)
    odd = curves.copy()
    odd[0] += 10 * sigma * (-1.0) ** np.arange(len(times))
    prior = bayes.estimate(curves, artery, 1.5, sigma=sigma).prior
    plain, noisy = (bayes.estimate(c, artery, 1.5, sigma=sigma, prior=prior) for c in (curves, odd))
    assert noisy.tmax_sd_s[0] > 2 * plain.tmax_sd_s[0]
    np.testing.assert_array_equal(noisy.tmax_sd_s[1:], plain.tmax_sd_s[1:])


def test_similarity_filter_against_its_definition():
    rng = np.random.default_rng(2)
    series = rng.normal(0, 1, (5, 4, 1, 11)).astype(np.float32)
    guide = rng.normal(0, 0.3, series.shape).astype(np.float32)
    support = rng.random((5, 4, 1)) < 0.8
    offsets = np.array([(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
    weights = np.array([1.0, 0.5, 0.5, 0.4, 0.4], np.float32)
    index, row_of, steps = _rows(support, offsets)
    out = np.empty((int(support.sum()), 11), np.float32)
    by_slice = np.moveaxis(support, 2, 0)
    rows = [np.moveaxis(values, 2, 0)[by_slice] for values in (series, guide)]
    kernels.similar(
        0, len(out), index, row_of, *rows, steps, weights, np.float32(5.0), np.float32(0.02), out
    )
    for row, (z, x, y) in enumerate(np.argwhere(by_slice)):
        total, norm = np.zeros(11), 0.0
        for (i, j, k), weight in zip(offsets, weights, strict=True):
            a, b, c = x + i, y + j, z + k
            if 0 <= a < 5 and 0 <= b < 4 and support[a, b, c]:
                excess = max(((guide[x, y, z] - guide[a, b, c]) ** 2).mean() - 0.02, 0.0)
                factor = weight * np.exp(-5.0 * excess)
                total += factor * series[a, b, c]
                norm += factor
        np.testing.assert_allclose(out[row], total / norm, atol=2e-5)


def test_clinical_cases_are_as_in_patients():
    cases = clinical_cases(3, 60, ("exponential", "linear"))
    peaks = np.array([case.artery_peak_hu for case in cases])
    widths = np.array([2.355 * case.artery_shape**0.5 * case.artery_scale_s for case in cases])
    top = [case.bolus_arrival_s + case.artery_shape * case.artery_scale_s for case in cases]
    assert peaks.min() >= 45 and peaks.max() <= 350 and (peaks < 100).any()
    assert widths.min() >= 8 and widths.max() <= 28 and widths.std() > 2
    assert min(top) >= 8 and max(top) <= 28
    assert cases == clinical_cases(3, 60, ("exponential", "linear"))
    assert cases != clinical_cases(4, 60, ("exponential", "linear"))


def test_graded_rim_has_every_severity():
    case = HeadCase("graded", rim_mm=15.0, hypoperfused_ml=150.0, **TINY)
    head = simulate_head(case)
    tmax = head.delay_s + 0.5 * head.mtt_s
    np.testing.assert_array_equal(head.hypoperfused, head.tissue & (tmax > 6.0))
    assert (head.core <= head.hypoperfused).all() and head.core.any()
    between = ((tmax > 4.5) & (tmax < 7.5)).sum() / head.hypoperfused.sum()
    stepped = simulate_head(replace(case, rim_mm=0.0))
    tmax = stepped.delay_s + 0.5 * stepped.mtt_s
    assert between > 0.2 > ((tmax > 5.5) & (tmax < 7.5)).sum() / stepped.hypoperfused.sum()


@dataclass(frozen=True)
class _Vessel:
    curve: np.ndarray
    voxels: np.ndarray


@dataclass(frozen=True)
class _Series:
    affine: np.ndarray
    brain: np.ndarray
    tissue: np.ndarray
    grey: np.ndarray
    maps: dict
    input: _Vessel
    noise: float = 1.0


def test_fine_grids_come_back_on_their_own_grid():
    affine = np.diag([0.45, 0.45, 5.0, 1.0])
    along = coarse.blocks(affine, (101, 130, 2, 9))
    assert along == (2, 2)
    fine = np.random.default_rng(0).random((101, 130, 2)) > 0.4
    mean = coarse.averaged(fine, along)
    assert mean.shape == (51, 65, 2)
    brain = mean >= 0.5
    series = _Series(
        coarse.coarse_affine(affine, along), brain, brain, brain,
        {"tmax": np.arange(brain.size, dtype=float).reshape(brain.shape)},
        _Vessel(np.zeros(9), np.array([[50, 64, 1]])),
    )  # fmt: skip
    back = coarse.refined(series, along, fine, affine)
    assert back.brain.shape == back.tissue.shape == back.maps["tmax"].shape == fine.shape
    assert back.maps["tmax"][7, 9, 1] == series.maps["tmax"][3, 4, 1]
    assert not (back.tissue & ~fine).any()
    assert back.input.voxels.tolist() == [[100, 129, 1]] and len(back.input.curve) == 9
    np.testing.assert_array_equal(back.affine, affine)


def test_compiled_loops_work_where_nothing_can_be_written(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(compiled.sys, "prefix", str(blocked))
    compiled._cache_folder.cache_clear()
    try:
        assert compiled._cache_folder() is None
        assert compiled.compiled({"contract"})(lambda x: x + 1.0)(2.0) == 3.0
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
        compiled._cache_folder.cache_clear()
        assert compiled._cache_folder() == tmp_path / "kept"
    finally:
        compiled._cache_folder.cache_clear()
