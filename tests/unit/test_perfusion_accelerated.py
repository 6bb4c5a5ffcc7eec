"""Engines on a card: the same maps as the compiled loops, and a clear word where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from perfusion_tiles import arterial_curve, tissue_curve

from corelab.perfusion import accelerated, fit_perfusion
from corelab.perfusion import fit as fit_module
from corelab.perfusion.fit import ENGINES

TIMES = np.arange(40) * 1.5
ARTERY = arterial_curve(TIMES)


@pytest.fixture(scope="module")
def curves():
    rng = np.random.default_rng(3)
    clean = [
        tissue_curve(family, TIMES, cbv_ml_100g=c, mtt_s=m, delay_s=d)
        for family in ("exponential", "linear", "box")
        for c in (1.5, 4.0)
        for m in (4.0, 9.0)
        for d in (0.0, 2.5, 6.0)
    ]
    noisy = np.repeat(np.stack(clean), 8, axis=0)
    return (noisy + rng.normal(0.0, 1.1, noisy.shape)).astype(np.float32)


def libraries():
    yield pytest.param(accelerated._numpy_device, id="numpy")
    try:
        import torch

        name = f"PyTorch {torch.__version__}"
        yield pytest.param(
            lambda: accelerated._torch_device(torch, "cpu", name), id="torch on its CPU device"
        )
        here = torch.cuda.is_available()
    except ImportError:
        here = False
    missing = pytest.mark.skipif(not here, reason="no CUDA device, or neither PyTorch nor CuPy")
    yield pytest.param(lambda: accelerated.find_device("cuda"), id="cuda", marks=missing)


@pytest.mark.parametrize("library", list(libraries()))
@pytest.mark.parametrize("method", ENGINES)
def test_same_maps_to_one_in_ten_thousand(curves, method, library, monkeypatch):
    expected = fit_perfusion(curves, TIMES, ARTERY, "concentration", method, sigma=1.1).arrays()
    monkeypatch.setattr(fit_module, "find_device", lambda name: library())
    found = fit_perfusion(
        curves, TIMES, ARTERY, "concentration", method, sigma=1.1, device="cuda"
    ).arrays()
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        # 1e-4 of the map's range: a difference of two sums has no relative precision near 0.
        scale = np.nanpercentile(np.abs(values), 99)
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


def test_a_card_that_is_not_there_is_told_and_never_replaced(curves, monkeypatch):
    def absent():
        raise ImportError("No module named 'cupy'")

    monkeypatch.setattr(accelerated, "_cupy", absent)
    monkeypatch.setattr(accelerated, "_torch", absent)
    with pytest.raises(accelerated.DeviceError, match=r"perfusion\.device is cuda, but no"):
        fit_perfusion(curves, TIMES, ARTERY, "concentration", "bsvd", device="cuda")


def test_unknown_device_is_refused():
    with pytest.raises(accelerated.DeviceError, match="unknown device 'tpu'"):
        accelerated.find_device("tpu")
