"""Errors that are common to the frames of a curve: level of the baseline, motion, slow noise."""

from __future__ import annotations

import numpy as np

from corelab.perfusion import fit_perfusion, lesions, motion, steadiness
from corelab.perfusion.bayes import _model_curves

TIMES = np.arange(0.0, 60.0, 1.5)
ARTERY = np.where(TIMES > 9, (TIMES - 9) ** 3 * np.exp(-(TIMES - 9) / 1.8), 0.0) * 20


def curves(n=400, noise=0.8, seed=0):
    """Weak curves of one tissue, the mean of their six noisy first frames subtracted."""
    atoms, grid = _model_curves(ARTERY, 1.5, families=("exponential",))
    atom = atoms[np.abs(grid - [10.0, 4.0]).sum(axis=1).argmin()]
    raw = 0.025 * atom + np.random.default_rng(seed).normal(0, noise, (n, len(TIMES)))
    return raw - raw[:, :6].mean(axis=1, keepdims=True)


def volumes(values, **options):
    maps = fit_perfusion(
        values, TIMES, ARTERY, "concentration", "bayes", sigma=0.8, tissue_factor=1.0, **options
    )
    return maps.cbv_ml_100g


def test_error_of_the_baseline_is_no_blood_volume():
    values = curves()
    spread = volumes(values, baseline_frames=6).std()
    # With the level taken as exact (as if it were the mean of very many frames) it is worse.
    exact = volumes(values, baseline_frames=len(TIMES) - 1).std()
    assert spread < 0.9 * exact, (spread, exact)


def test_a_level_that_follows_the_motion_is_no_bolus():
    away = np.zeros((len(TIMES), 3))
    away[16:, 1] = 4.0
    course = motion.main_course(motion.Motion(away, 0 * away, np.zeros(len(TIMES))), 6)
    rng = np.random.default_rng(1)
    values = curves(noise=0.3) + rng.normal(0, 0.6, (400, 1)) * course
    plain = np.abs(volumes(values, baseline_frames=6) - 2.5).mean()
    known = np.abs(volumes(values, baseline_frames=6, nuisance=course) - 2.5).mean()
    assert known < 0.7 * plain, (known, plain)


def test_noise_of_tissue_that_does_not_enhance_is_no_drift():
    """A weak bolus in a noisy series: what its reference tissue does by chance is not corrected."""
    rng = np.random.default_rng(3)
    x, y = np.indices((40, 40)) - 19.5
    brain = np.repeat(np.hypot(x, y)[..., None] < 16, 8, axis=2)
    series = np.full((40, 40, 8, 40), 30.0)
    series[np.hypot(x, y) < 6] = 6.0
    series += rng.normal(0, 7, series.shape)
    bolus = 3.5 * np.exp(-(((np.arange(40.0) - 18) / 5) ** 2))
    series[brain & (np.hypot(x, y)[..., None] > 7)] += bolus
    found = steadiness.find_drift(series, TIMES, brain, np.array([3.0, 3, 8]), 8)
    assert found.course is None and found.share < 0.1 and found.jump_share < 0.12, found


def test_tissue_without_flow_is_late_where_its_surroundings_are():
    tissue = np.ones((30, 30, 1), bool)
    tmax, flow = np.full(tissue.shape, 2.0), np.full(tissue.shape, 50.0)
    tmax[5:20, 5:20], flow[5:20, 5:20] = 9.0, 15.0
    for hole in (np.s_[10:14, 10:14], np.s_[24:28, 24:28]):
        tmax[hole], flow[hole] = 4.0, 0.5
    late = lesions.delayed_tissue(tmax, tissue, 6.0, 1.0, lesions.untimed_tissue(tissue, flow))
    assert late[10:14, 10:14].all() and not late[24:28, 24:28].any()
