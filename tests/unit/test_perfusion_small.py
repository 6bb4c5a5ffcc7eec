"""Small parts of perfusion and radiomics, each by an example whose answer is known."""

import numpy as np
import pytest

from corelab.perfusion import (
    accelerated,
    arterial,
    bayes,
    concentration,
    deconvolution,
    fit,
    motion,
    series,
    steadiness,
    visit,
)
from corelab.radiomics.features import _ibsi_name
from corelab.radiomics.visit import _perturb_mask

T = np.arange(40.0)
ARTERY = T**3 * np.exp(-T / 1.5)


def test_the_array_library_of_tests():
    device = accelerated._numpy_device()
    height, position = accelerated.linear(device, np.eye(3, 6), np.eye(6, 8), True)
    assert device.name == "NumPy"
    assert (height.tolist(), position.tolist()) == ([1.0, 1.0, 1.0], [0.0, 1.0, 2.0])


def test_half_of_the_rise():
    assert arterial._half_rise_s(np.array([[0, 0, 4, 8, 2.0]]), np.arange(5.0)).tolist() == [2]


@pytest.mark.parametrize("family", ["exponential", "linear", "box", "gamma4", "plug0.3"])
def test_the_area_of_a_residue_function_is_the_transit_time(family):
    t = np.arange(0, 100, 0.01)
    assert round(float(bayes._residue_function(family, t, 4.0).sum() * 0.01), 1) == 4


def test_the_grid_of_model_curves():
    atoms, grid = bayes._model_curves(ARTERY, 1.0)
    assert atoms.shape == (2976, 40) and grid[0].tolist() == [2.5, -3.0]


def test_whitening_projects_nuisances_out_and_scales_the_level():
    white = bayes._whitening(8, 2, np.arange(8.0)[None])
    assert np.abs(white @ np.arange(8.0)).max() < 1e-9 and np.linalg.matrix_rank(white) == 7
    level = float(np.ones(8) @ bayes._whitening(8, 2, None) @ np.ones(8)) / 8
    assert round(level, 3) == 0.447  # 1 / sqrt(1 + 8 / 2)


def test_an_artery_with_less_noise():
    artery = 300 * np.exp(-(((T - 20) / 5) ** 2))
    noise = np.random.default_rng(0).normal(0, 5, 40)
    gap = bayes._steady_artery(artery + noise) - artery
    assert gap.std() < 0.9 * noise.std()
    parabola = np.arange(8.0) ** 2
    assert np.abs(bayes._local_parabolas(parabola) - parabola).max() < 1e-9


def test_the_prior_of_a_scan_with_one_residue_function():
    atoms, _ = bayes._model_curves(ARTERY, 1.0, families=("exponential", "box"))
    start = np.ones((2, 24, 31))
    found = bayes._learned_prior(0.04 * atoms[124:310], atoms, start, 1e-3, 36)
    assert found.sum(axis=(1, 2)).round(3).tolist() == [1.0, 0.0]


def test_frames_and_concentrations():
    weights = concentration._interpolation_matrix(np.array([0.0, 2.0]), np.array([0.5, 2.0]))
    assert weights.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    early = np.array([160, 110, 100, 101, 99, 100, 60.0])
    assert concentration._steady_state_start(early, 5) == 2
    assert concentration.regular_times(np.array([0.0, 1.0, 2.0, 3.001])) is None
    assert concentration.checked_times([0, 2, 4, 6, 8], 5).tolist() == [0, 2, 4, 6, 8]
    base = concentration.Baseline(0, 2, 1)
    found = concentration.to_concentration(np.array([30.0, 32, 41]), "ctp", base)
    assert found.tolist() == [-1.0, 1.0, 10.0]


def test_operators_of_deconvolution():
    limits = [round(deconvolution._oscillation_limit(s), 3) for s in (0.5, 1.0, 1.5, 2.0)]
    assert limits == [0.035, 0.05, 0.075, 0.095]
    curve = np.array([0.0, 6.0, 0.0, 0.0])
    assert deconvolution._smoothed_arterial(curve).tolist() == [0.0, 4.0, 1.0, 0.0]
    artery = ARTERY[:20]
    assert (artery @ deconvolution._linear_operator(artery, 1.0, "bsvd")).argmax() == 0


def test_maps_and_the_time_of_a_peak():
    zero = np.zeros(1)
    maps = fit.PerfusionMaps(zero, zero, zero, zero, zero, "osvd", 1.0, 1.0)
    assert sorted(maps.arrays())[:2] == ["cbf_ml_100g_min", "cbv_ml_100g"]
    t = np.arange(0, 20, 2.0)
    top = fit._peak_times(9 - (t[None] - 7.4) ** 2, np.array([4]), t)
    assert top.round(3).tolist() == [7.4]


def test_displacements():
    still, moved = np.zeros((2, 3)), np.array([[0, 0, 0], [1.0, 0, 0]])
    assert motion._framewise_displacement(moved, still).tolist() == [0.0, 1.0]
    assert motion._grid_centre((3, 5, 1), np.diag([2.0, 2, 2, 1])).tolist() == [2.0, 4.0, 0.0]


def test_runs_and_tails_of_curves():
    assert series._longest_run(np.array([2, 5, 6, 7, 9])) == 3
    assert series._longest_run(np.array([], int)) == 0
    assert series._second_rise(np.array([0, 4, 10, 5, 3, 6, 4.0])) == 0.3
    t = np.arange(0, 60, 1.0)
    curve = np.where(t < 10, t / 10, np.exp(-(t - 10) / 5))
    assert series._first_pass_tail(curve, t) < 0.01
    assert round(series._first_pass_tail(curve[:16], t[:16]), 1) == 0.4


def test_odd_frames():
    runs = list(steadiness._runs_of(np.array([False, True, True, False, True])))
    assert runs == [range(1, 3), range(4, 5)]
    curve = np.exp(-(((np.arange(30.0) - 12) / 5) ** 2))
    curve[[9, 20, 21]] += 0.5
    odd = steadiness._odd_frames(curve, np.arange(30.0), 0.2)
    assert np.flatnonzero(odd).tolist() == [9, 20, 21]


def test_volumes_are_judged():
    tissue = np.ones((10, 1, 1), bool)
    late = np.zeros_like(tissue)
    late[:4] = True
    found = visit._volume_gates(late & False, late, tissue, (3.0, 5.0), 1.0)
    assert found["hypoperfused_share"] == 0.4


def test_names_of_features_and_moved_masks():
    assert _ibsi_name("cm_joint_entr_d1_3d_v_mrg_fbs_w1.0", "3D_comb") == "cm_joint_entr_3D_comb"
    assert _ibsi_name("ngl_lde_d1_a0.0_2.5d", "2_5D_avg") == "ngl_lde_2_5D"
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    other = _perturb_mask(mask, (1, 1, 1), np.random.default_rng(1), sd_mm=0.8)
    assert other.any() and (other != mask).any()
