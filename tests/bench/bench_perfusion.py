"""Speed of the perfusion engines, as ratios to a plain per-voxel SVD in the same run.

Seconds are those of the clock on two threads, and CPU seconds beside them: where others use the
machine, half of the CPU seconds is what two idle cores would need.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
from perfusion_heads import HeadPhantom, cohort, simulate_head
from perfusion_tiles import arterial_curve, tissue_curve
from scipy.linalg import toeplitz

from corelab.perfusion import fit_perfusion
from corelab.perfusion.series import SeriesOptions, analyse_series

VOXELS = 300_000
THREADS = 2
TARGET_S = {"osvd": 3.0, "bsvd": 0.3, "bayes": 3.0}


def plain_svd(curves: np.ndarray, aif: np.ndarray, interval_s: float) -> np.ndarray:
    """Truncated SVD as a textbook writes it: solve for one voxel after the other."""
    matrix = toeplitz(aif, np.zeros(len(aif))) * interval_s
    u, s, vt = np.linalg.svd(matrix)
    kept = np.where(s > 0.2 * s[0], 1.0 / s, 0.0)
    flow = np.empty(len(curves))
    for voxel, curve in enumerate(curves):
        flow[voxel] = (vt.T @ (kept * (u.T @ curve))).max()
    return flow


def main() -> list[dict[str, float | str]]:
    """Print and return one row per engine, and one for a whole case."""
    times = np.arange(40) * 1.5
    aif = arterial_curve(times)
    rng = np.random.default_rng(0)
    clean = np.stack(
        [
            tissue_curve("linear", times, cbv_ml_100g=c, mtt_s=m, delay_s=d)
            for c in (2.0, 4.0)
            for m in (4.0, 7.0, 12.0)
            for d in (0.0, 2.0, 5.0)
        ]
    )
    curves = clean[rng.integers(0, len(clean), VOXELS)].astype(np.float32)
    curves += rng.standard_normal(curves.shape, dtype=np.float32)
    start = time.process_time()
    plain_svd(curves[:20_000], aif, 1.5)
    plain_s = (time.process_time() - start) * VOXELS / 20_000
    rows: list[dict[str, float | str]] = []

    def timed(name: str, target_s: float, work: Callable[[], object]) -> None:
        start, used = time.perf_counter(), time.process_time()
        work()
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        rows.append(
            {
                "name": f"perfusion.{name}",
                "seconds": seconds,
                "cpu_seconds": cpu,
                "ratio_to_plain_svd": plain_s / cpu,
                "target_s": target_s,
            }
        )

    for method in ("ssvd", "bsvd", "tikhonov", "osvd", "bayes"):
        # Compiled loops take a second to compile: once per job, not once per scan.
        fit_perfusion(curves[:200], times, aif, "concentration", method)

        def fit(method: str = method) -> object:
            return fit_perfusion(curves, times, aif, "concentration", method, threads=THREADS)

        timed(method, TARGET_S.get(method, float("nan")), fit)
    from compare_perfusion import osipy_engine

    peer = osipy_engine()
    if peer is not None:
        timed("osipy_csvd", float("nan"), lambda: peer(curves, times, aif, 1.0))
    peer_s = next((float(row["cpu_seconds"]) for row in rows if "osipy" in str(row["name"])), None)
    for row in rows:
        row["ratio_to_osipy"] = (
            float("nan") if peer_s is None else float(row["cpu_seconds"]) / peer_s
        )
    for name, changes, target_s in (
        ("still", {}, 7.0),
        ("moved", {"motion_mm": 2.0, "motion_degrees": 2.0}, 60.0),
    ):
        head = simulate_head(cohort(**changes)[3])

        def case(head: HeadPhantom = head, moved: bool = bool(changes)) -> object:
            brain = np.asarray(head.tissue)
            found = analyse_series(
                head.signal, head.affine, head.times_s, "ctp", brain, SeriesOptions(threads=THREADS)
            )
            if found.motion_corrected != moved:
                raise SystemExit(f"motion was {'not ' * moved}corrected: the time says nothing")
            return found

        timed(f"case_{name}", target_s, case)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"plain per-voxel SVD, {VOXELS} voxels x 40 frames: {plain_s:.1f} CPU s (from 20000)")
    for row in rows:
        print(
            f"{row['name']:24s} {row['seconds']:7.2f} s   CPU {row['cpu_seconds']:7.2f} s"
            f"   ratio {row['ratio_to_plain_svd']:6.1f}   target {row['target_s']:g} s"
            f"   CPU / osipy's {row.get('ratio_to_osipy', float('nan')):.1f}"
        )
    print(f"peak memory {peak:.2f} GiB")
    return rows


if __name__ == "__main__":
    main()
