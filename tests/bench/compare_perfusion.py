"""Our engines beside open peers: same curves, same artery, same voxels, in one run.

On the Manhart brain (a simulator made by others; GPL-3.0, found by CORELAB_TEST_DATA) and on simulated
heads whose residue functions and arterial shapes no constant was chosen on. A peer that is not
installed is left out, with a line that says so:

- osipy: importable (``pip install osipy``; on Python 3.11 put its unpacked wheel on PYTHONPATH);
- PyPeT (or its parent ctp_csvd): CORELAB_PYPET names a clone with ``ctp_tools/ctp.py``.

    python tests/bench/compare_perfusion.py            # prints the table of docs/perfusion.md
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from corelab.perfusion import fit_perfusion
from corelab.perfusion.concentration import TISSUE_FACTOR, Baseline, bolus_arrival
from corelab.perfusion.fit import ENGINES
from corelab.perfusion.tissue import NOISE_AIM_HU, NOISE_AIM_SHARE, denoise

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' helpers

#: CBF, CBV, MTT, Tmax of curves (n, t) with an artery (t,) at times (t,) and noise SD.
Engine = Callable[[np.ndarray, np.ndarray, np.ndarray, float], dict[str, np.ndarray]]
#: Residue functions and seed of the heads; clinical_cases of other seeds served to develop.
HEAD_FAMILIES = ("gamma3", "exponential", "lognormal0.8", "linear", "gamma5", "weibull2")
HEAD_SEED = 7001
FLOW_UNIT, VOLUME_UNIT = 6000.0 * TISSUE_FACTOR, 100.0 * TISSUE_FACTOR


def ours(method: str) -> Engine:
    """One of our engines."""

    def fit(
        curves: np.ndarray, times: np.ndarray, aif: np.ndarray, sigma: float
    ) -> dict[str, np.ndarray]:
        maps = fit_perfusion(
            curves, times, aif, "concentration", method, tissue_factor=TISSUE_FACTOR,
            sigma=sigma if method == "bayes" else None, threads=1,
            baseline_frames=bolus_arrival(aif) + 1,
        )  # fmt: skip
        return {
            "cbf": maps.cbf_ml_100g_min, "cbv": maps.cbv_ml_100g, "mtt": maps.mtt_s,
            "tmax": maps.tmax_s,
        }  # fmt: skip

    return fit


def osipy_engine() -> Engine | None:
    """Circular SVD of osipy, or None where it is not installed."""
    found = importlib.util.find_spec("osipy")
    if found is None or not found.submodule_search_locations:
        return None
    if sys.version_info < (3, 12):
        # Its pipelines are written in the syntax of Python 3.12; the engines are not.
        pipeline = types.ModuleType("osipy.pipeline")
        pipeline.__path__ = [f"{next(iter(found.submodule_search_locations))}/pipeline"]
        sys.modules["osipy.pipeline"] = pipeline
    import osipy

    deconvolver = osipy.get_deconvolver("cSVD")

    def fit(
        curves: np.ndarray, times: np.ndarray, aif: np.ndarray, sigma: float
    ) -> dict[str, np.ndarray]:
        block = np.asarray(curves, np.float32)[:, None, None, :]
        found = deconvolver.deconvolve(
            concentration=block, aif=np.asarray(aif, np.float32), time=np.asarray(times),
            mask=np.ones(block.shape[:3], bool),
        )  # fmt: skip
        flow, mtt = (np.asarray(v, float).reshape(-1) for v in (found.cbf, found.mtt))
        delay = np.asarray(found.delay, float).reshape(-1)
        return {"cbf": flow * FLOW_UNIT, "cbv": flow * mtt * VOLUME_UNIT, "mtt": mtt, "tmax": delay}

    return fit


def pypet_engine() -> Engine | None:
    """Block-circulant SVD of PyPeT's parent, its blood volume and transit time times the interval."""
    folder = os.environ.get("CORELAB_PYPET")
    if not folder or not (Path(folder) / "ctp_tools" / "ctp.py").exists():
        return None
    sys.path.insert(0, folder)
    from ctp_tools.ctp import runDeconv

    def fit(
        curves: np.ndarray, times: np.ndarray, aif: np.ndarray, sigma: float
    ) -> dict[str, np.ndarray]:
        block = np.asarray(curves, float).T[:, None, None, :]
        mask = np.ones(block.shape[1:], bool)
        mtt, cbv, cbf, tmax = (
            np.asarray(v, float).reshape(-1)
            for v in runDeconv(block, times, mask, aif, method="bcSVD1")
        )
        step = float(np.median(np.diff(times)))
        return {"cbf": cbf * FLOW_UNIT, "cbv": cbv * step * VOLUME_UNIT, "mtt": mtt * step,
                "tmax": tmax}  # fmt: skip

    return fit


@lru_cache(maxsize=1)
def engines() -> dict[str, Engine]:
    """Ours, and the peers that are there."""
    found = {method: ours(method) for method in ENGINES}
    for name, peer in (("osipy cSVD", osipy_engine()), ("PyPeT bcSVD1", pypet_engine())):
        if peer is None:
            print(f"{name}: not installed, left out")
        else:
            found[name] = peer
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient."""
    return float(2.0 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def manhart(noise_hu: float, seed: int = 1) -> dict[str, dict[str, float]]:
    """Engines on the Manhart brain with white noise, filtered as in the pipeline."""
    from scipy.io import loadmat

    root = os.environ.get("CORELAB_TEST_DATA", "")
    phantom = loadmat(Path(root) / "perfusion" / "manhart_ctp_phantom" / "phantom.mat")
    truth = {name: np.asarray(phantom[name], float)[:, :, None] for name in ("cbf", "cbv", "mtt")}
    labels = phantom["brain"][:, :, None]
    tissue = np.isin(labels, (1, 2, 3, 4, 5, 6)) & (truth["mtt"] > 0)
    aif = np.asarray(phantom["aif"], float).ravel()
    times = np.arange(len(aif), dtype=float)
    series = np.moveaxis(np.asarray(phantom["ctp"], np.float32), 0, -1)[:, :, None, :]
    series = series + np.random.default_rng(seed).normal(0, noise_hu, series.shape)
    baseline = Baseline(0, 7, 6)
    change = (series - series[..., :7].mean(axis=-1, keepdims=True)).astype(np.float32)
    aim = min(NOISE_AIM_HU, NOISE_AIM_SHARE * float(change[tissue].mean(axis=0).max()))
    clean = denoise(change, tissue, np.array([0.9, 0.9, 5.0]), baseline, aim, threads=1)
    curves = clean.concentration[tissue]
    true = {name: values[tissue] for name, values in truth.items()}
    normal = np.isin(labels[tissue], (1, 2))
    true_core = true["cbf"] < 0.3 * np.median(true["cbf"][normal])
    rows = {}
    for name, engine in engines().items():
        start = time.process_time()
        found = engine(curves, times, aif, clean.noise)
        cpu = time.process_time() - start
        core = found["cbf"] < 0.3 * np.median(found["cbf"][normal])
        row = {"cpu_s": cpu, "core_dice": overlap(core, true_core),
               "core_ml": float(core.sum() - true_core.sum()) * 0.9 * 0.9 * 5.0 / 1000.0}  # fmt: skip
        for quantity in ("cbf", "cbv", "mtt"):
            x, y = true[quantity], np.nan_to_num(found[quantity])
            row[f"{quantity}_r"] = float(np.corrcoef(x, y)[0, 1])
            row[f"{quantity}_slope"] = float(np.polyfit(x, y, 1)[0])
        rows[name] = row
    return rows


def heads(count: int = 6) -> dict[str, list[dict[str, float]]]:
    """Engines on simulated heads, each for core and Tmax by the rules of the pipeline."""
    from dataclasses import replace

    from perfusion_heads import clinical_cases, simulate_head

    from corelab.perfusion import lesions
    from corelab.perfusion.series import SeriesOptions, analyse_series

    rows: dict[str, list[dict[str, float]]] = {}
    for number, drawn in enumerate(clinical_cases(HEAD_SEED, count, HEAD_FAMILIES)):
        case = replace(drawn, shape=(107, 128, 8), voxel_mm=(1.8, 1.8, 5.0),
                       interval_s=(1.0, 1.5, 2.0)[number % 3])  # fmt: skip
        head = simulate_head(case)
        brain = head.tissue | ndimage.binary_closing(head.tissue, np.ones((3, 3, 1)), iterations=4)
        series = analyse_series(
            *(head.signal, head.affine, head.times_s, "ctp", brain),
            SeriesOptions(engines=("bsvd",), threads=1),
        )
        inside = series.tissue
        curves = series.concentration[inside]
        for name, engine in engines().items():
            maps = {
                key: np.full(inside.shape, np.nan, np.float32) for key in ("cbf", "mtt", "tmax")
            }
            found = engine(curves, head.times_s, series.input.curve, series.noise)
            for key in maps:
                maps[key][inside] = found[key]
            unread = lesions.untimed_tissue(inside, maps["cbf"])
            late = lesions.delayed_tissue(maps["tmax"], inside, 6.0, series.voxel_ml, unread)
            sides = lesions.hemispheres(series.plane, head.affine, inside, late, series.voxel_ml)
            normal = sides.healthy & (np.nan_to_num(maps["tmax"], nan=np.inf) < 4.0)
            reference = lesions.reference_value(
                maps["cbf"], normal, rule="contralateral", tissue=inside
            )
            core = lesions.reduced_flow(maps["cbf"], reference, 0.30, late, inside, series.voxel_ml)
            true = (head.delay_s + 0.5 * head.mtt_s)[inside & head.tissue]
            gap = maps["tmax"][inside & head.tissue] - true
            rows.setdefault(name, []).append(
                {
                    "late_percent": 100.0 * (late.sum() / head.hypoperfused.sum() - 1.0),
                    "late_dice": overlap(late, head.hypoperfused),
                    "core_ml": float(core.sum() - head.core.sum()) * series.voxel_ml,
                    "core_dice": overlap(core, head.core),
                    "tmax_mae_s": float(np.nanmean(np.abs(gap))),
                    "artery_hu": case.artery_peak_hu,
                }
            )
    return rows


def main() -> None:
    """Print both tables in the form of docs/perfusion.md."""
    root = os.environ.get("CORELAB_TEST_DATA", "")
    if (Path(root) / "perfusion" / "manhart_ctp_phantom" / "phantom.mat").exists():
        for noise_hu in (6.0, 14.0):
            print(f"\nManhart brain, {noise_hu:g} HU\n")
            print(
                "| engine | CBF r / slope | CBV r / slope | MTT r / slope | core mL, Dice | CPU s |"
            )
            print("| --- | --- | --- | --- | --- | --- |")
            for name, row in manhart(noise_hu).items():
                pairs = [
                    f"{row[q + '_r']:.3f} / {row[q + '_slope']:.2f}" for q in ("cbf", "cbv", "mtt")
                ]
                core = f"{row['core_ml']:+.1f}, {row['core_dice']:.2f}"
                print(f"| `{name}` | {' | '.join(pairs)} | {core} | {row['cpu_s']:.2f} |")
    else:
        print("Manhart brain: not found (set CORELAB_TEST_DATA), left out")
    print("\nHeads\n")
    print(
        "| engine | Tmax > 6 s: mean (worst) %, Dice mean (least) | Tmax MAE s | core bias / MAE mL, Dice |"
    )
    print("| --- | --- | --- | --- |")
    for name, found in heads().items():
        column = {key: np.array([row[key] for row in found]) for key in found[0]}
        late, dice = column["late_percent"], column["late_dice"]
        print(
            f"| `{name}` | {late.mean():+.1f} ({np.abs(late).max():.1f}), {dice.mean():.3f} "
            f"({dice.min():.3f}) | {column['tmax_mae_s'].mean():.2f} | {column['core_ml'].mean():+.1f} "
            f"/ {np.abs(column['core_ml']).mean():.1f}, {column['core_dice'].mean():.2f} |"
        )


if __name__ == "__main__":
    main()
