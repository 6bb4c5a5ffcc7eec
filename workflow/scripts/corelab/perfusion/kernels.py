"""Compiled loops over voxels. Imported only when a map is computed (compiling takes a second).

Each voxel is worked out alone and in a fixed order of additions, so neither the number of
threads nor the position of a voxel in its block changes a bit of the result. Nothing is cached
on disk.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

BLOCK = 8192
#: Frames that the inner product over atoms takes at once; curves are padded to a multiple.
STRIDE = 4


def thread_count(threads: int | None) -> int:
    """Threads to use: as asked, else OMP_NUM_THREADS, else the cores that this process may use."""
    if threads is not None:
        return max(1, int(threads))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_blocks(kernel: Callable[..., None], n: int, threads: int | None, *arrays: Any) -> None:
    """Call ``kernel(first, last, *arrays)`` for blocks of voxels, on several threads."""
    starts = range(0, n, BLOCK)
    if not n:
        return
    # One call first: compiling must not happen on two threads at once.
    kernel(0, min(BLOCK, n), *arrays)
    with ThreadPoolExecutor(thread_count(threads)) as pool:
        jobs = [pool.submit(kernel, s, min(s + BLOCK, n), *arrays) for s in starts if s]
        for job in jobs:
            job.result()


@njit(nogil=True)
def _peak(residue, wrap):  # type: ignore[no-untyped-def]
    """Height and position (in frames, by parabola) of the highest sample."""
    n = residue.shape[0]
    top = 0
    for k in range(1, n):
        if residue[k] > residue[top]:
            top = k
    height = residue[top]
    position = float(top)
    if wrap or 0 < top < n - 1:
        before = residue[(top - 1) % n]
        after = residue[(top + 1) % n]
        curvature = before - 2.0 * height + after
        if abs(curvature) > 1e-12:
            shift = 0.5 * (before - after) / curvature
            position += min(0.5, max(-0.5, shift))
    if wrap and position > n / 2.0:
        position -= n
    return height, position


@njit(nogil=True)
def linear(first, last, curves, operator, wrap, height, position):  # type: ignore[no-untyped-def]
    """Residue ``curves @ operator`` of each voxel; its peak into height and position."""
    n_frames = curves.shape[1]
    length = operator.shape[1]
    residue = np.empty(length, np.float32)
    for v in range(first, last):
        residue[:] = np.float32(0.0)
        for k in range(n_frames):
            x = curves[v, k]
            for m in range(length):
                residue[m] += x * operator[k, m]
        height[v], position[v] = _peak(residue, wrap)


@njit(nogil=True)
def oscillation(  # type: ignore[no-untyped-def]
    first, last, curves, analysis, synthesis, counts, limits, height, position, level_used
):
    """Residue with as many frequencies as its oscillation index allows.

    ``counts[level]`` basis functions (strongest first) are kept at a truncation level, from the
    highest threshold to the lowest; the lowest threshold whose index is below the limit wins,
    and the highest where none is. ``limits[0]`` is for the height of the peak, ``limits[1]``
    for its time.
    """
    n_frames, n_basis = analysis.shape
    length = synthesis.shape[1]
    amplitude = np.empty(n_basis, np.float32)
    residue = np.empty(length, np.float32)
    for v in range(first, last):
        amplitude[:] = np.float32(0.0)
        for k in range(n_frames):
            x = curves[v, k]
            for m in range(n_basis):
                amplitude[m] += x * analysis[k, m]
        residue[:] = np.float32(0.0)
        used = 0
        for level in range(counts.shape[0]):
            if level > 0 and counts[level] == used:
                continue
            while used < counts[level]:
                a = amplitude[used]
                for m in range(length):
                    residue[m] += a * synthesis[used, m]
                used += 1
            top = residue[0]
            for m in range(1, length):
                top = max(top, residue[m])
            roughness = np.float32(0.0)
            for m in range(1, length - 1):
                roughness += abs(residue[m + 1] - np.float32(2.0) * residue[m] + residue[m - 1])
            if level == 0 or (top > 0.0 and roughness < limits[0] * length * top):
                height[v] = top
                level_used[v] = level
            if level == 0 or (top > 0.0 and roughness < limits[1] * length * top):
                position[v] = _peak(residue, True)[1]


@njit(nogil=True, fastmath={"contract"})
def _match_four(curves, row, atoms, match):  # type: ignore[no-untyped-def]
    """Inner products of four curves with all atoms: every atom is read once for four voxels."""
    n_frames, n_atoms = atoms.shape
    match[:] = np.float32(0.0)
    for k in range(0, n_frames, STRIDE):
        p0, p1 = curves[row, k], curves[row, k + 1]
        p2, p3 = curves[row, k + 2], curves[row, k + 3]
        q0, q1 = curves[row + 1, k], curves[row + 1, k + 1]
        q2, q3 = curves[row + 1, k + 2], curves[row + 1, k + 3]
        r0, r1 = curves[row + 2, k], curves[row + 2, k + 1]
        r2, r3 = curves[row + 2, k + 2], curves[row + 2, k + 3]
        s0, s1 = curves[row + 3, k], curves[row + 3, k + 1]
        s2, s3 = curves[row + 3, k + 2], curves[row + 3, k + 3]
        for m in range(n_atoms):
            a0, a1, a2, a3 = atoms[k, m], atoms[k + 1, m], atoms[k + 2, m], atoms[k + 3, m]
            match[0, m] += (p0 * a0 + p1 * a1) + (p2 * a2 + p3 * a3)
            match[1, m] += (q0 * a0 + q1 * a1) + (q2 * a2 + q3 * a3)
            match[2, m] += (r0 * a0 + r1 * a1) + (r2 * a2 + r3 * a3)
            match[3, m] += (s0 * a0 + s1 * a1) + (s2 * a2 + s3 * a3)


@njit(nogil=True, fastmath={"contract"})
def posterior(first, last, curves, atoms, parameters, half_precision, sigma, out):  # type: ignore[no-untyped-def]
    """Posterior means and SDs over a grid of unit-length atoms.

    ``curves`` (v, t) and ``atoms`` (t, m) are padded with zeros to a multiple of STRIDE frames,
    the curves to three rows more than there are voxels; ``parameters`` (m, 3): area per unit
    amplitude, MTT, delay; ``out`` (v, 10): CBV, MTT, delay, Tmax, CBF, then their SDs (CBV and
    CBF as area and area/s).
    """
    n_atoms = atoms.shape[1]
    four = np.empty((4, n_atoms), np.float32)
    for v in range(first, last):
        if (v - first) % 4 == 0:
            _match_four(curves, v, atoms, four)
        match = four[(v - first) % 4]
        best = np.float32(0.0)
        for m in range(n_atoms):
            best = max(best, match[m])
        reference = float(best) * float(best)
        weight = 0.0
        s_area = s_area2 = s_mtt = s_mtt2 = s_delay = s_delay2 = 0.0
        s_tmax = s_tmax2 = s_flow = s_flow2 = 0.0
        # Atoms e^-12 times less likely than the best one change no digit that is reported.
        cut = reference - 12.0 / half_precision
        for m in range(n_atoms):
            a = max(float(match[m]), 0.0)
            if a * a < cut:
                continue
            w = math.exp((a * a - reference) * half_precision)
            unit = parameters[m, 0]
            mtt = parameters[m, 1]
            delay = parameters[m, 2]
            tmax = delay + 0.5 * mtt
            area = a * unit
            # The amplitude itself is uncertain by sigma around its least-squares value.
            area_variance = (sigma * unit) ** 2
            flow = area / mtt
            weight += w
            s_area += w * area
            s_area2 += w * (area * area + area_variance)
            s_mtt += w * mtt
            s_mtt2 += w * mtt * mtt
            s_delay += w * delay
            s_delay2 += w * delay * delay
            s_tmax += w * tmax
            s_tmax2 += w * tmax * tmax
            s_flow += w * flow
            s_flow2 += w * (flow * flow + area_variance / (mtt * mtt))
        area = s_area / weight
        mtt = s_mtt / weight
        delay = s_delay / weight
        tmax = s_tmax / weight
        flow = s_flow / weight
        out[v, 0] = area
        out[v, 1] = mtt
        out[v, 2] = delay
        out[v, 3] = tmax
        # E[CBF] overestimates flow (short transit times weigh too much); CBV / E[MTT] does not.
        out[v, 4] = area / mtt
        out[v, 5] = math.sqrt(max(s_area2 / weight - area * area, 0.0))
        out[v, 6] = math.sqrt(max(s_mtt2 / weight - mtt * mtt, 0.0))
        out[v, 7] = math.sqrt(max(s_delay2 / weight - delay * delay, 0.0))
        out[v, 8] = math.sqrt(max(s_tmax2 / weight - tmax * tmax, 0.0))
        out[v, 9] = math.sqrt(max(s_flow2 / weight - flow * flow, 0.0))


@njit(nogil=True, fastmath={"contract"})
def similar(  # type: ignore[no-untyped-def]
    first, last, index, series, guide, support, offsets, weights, half_precision, bias, out
):
    """Mean of the neighbours whose guide curves are like the voxel's own (TIPS filter).

    ``index`` (n, 3) voxels; ``series`` and ``guide`` (x, y, z, t); ``offsets`` (m, 3) with
    spatial ``weights`` (m,); ``bias`` is what noise alone adds to the mean squared difference.
    """
    nx, ny, nz, nt = series.shape
    total = np.empty(nt, np.float32)
    for v in range(first, last):
        x, y, z = index[v, 0], index[v, 1], index[v, 2]
        total[:] = np.float32(0.0)
        norm = np.float32(0.0)
        for m in range(offsets.shape[0]):
            a, b, c = x + offsets[m, 0], y + offsets[m, 1], z + offsets[m, 2]
            if a < 0 or a >= nx or b < 0 or b >= ny or c < 0 or c >= nz or not support[a, b, c]:
                continue
            gap = np.float32(0.0)
            for t in range(nt):
                step = guide[x, y, z, t] - guide[a, b, c, t]
                gap += step * step
            excess = max(gap / np.float32(nt) - bias, np.float32(0.0))
            weight = weights[m] * math.exp(-excess * half_precision)
            norm += weight
            for t in range(nt):
                total[t] += np.float32(weight) * series[a, b, c, t]
        for t in range(nt):
            out[x, y, z, t] = total[t] / norm
