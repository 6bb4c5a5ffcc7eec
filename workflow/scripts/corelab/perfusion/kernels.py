"""Compiled loops over voxels. Imported only when a map is computed (numba takes a second).

Each voxel is worked out alone and in a fixed order of additions, so neither the number of
threads nor the position of a voxel in its block changes a bit of the result.
"""

from __future__ import annotations

import math

import numpy as np

from corelab.provenance.compiled import compiled

#: Frames that an inner product takes at once.
STRIDE = 4
#: Atoms of one transit time (their delays), filled up to whole registers.
GROUP = 32


#: Additions may be taken in any order that suits the processor's registers, and values are finite.
#: The order is the same for every voxel, so that a result still depends on nothing but its curve.
_FAST = {"contract", "reassoc", "nnan", "nsz"}
#: log2(e).
_BITS_PER_E = np.float32(1.4426950408889634)


@compiled(_FAST)
def _peak(residue, wrap):  # type: ignore[no-untyped-def]
    """Height and position (in frames, by parabola) of the highest sample."""
    n = residue.shape[0]
    height = residue[0]
    for k in range(1, n):
        height = max(height, residue[k])
    top = 0
    while residue[top] < height:
        top += 1
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


@compiled(_FAST, "i8, i8, f4[:,::1], f8[::1], i8[::1]")
def summary(first, last, curves, area, top):  # type: ignore[no-untyped-def]
    """Sum and index of the highest frame of each curve."""
    for v in range(first, last):
        total = 0.0
        highest = curves[v, 0]
        for k in range(curves.shape[1]):
            total += curves[v, k]
            highest = max(highest, curves[v, k])
        at = 0
        while curves[v, at] < highest:
            at += 1
        area[v] = total
        top[v] = at


@compiled(_FAST)
def _product(curve, matrix, out):  # type: ignore[no-untyped-def]
    """Product ``curve @ matrix``, STRIDE frames at a time."""
    n_frames, length = matrix.shape
    out[:] = np.float32(0.0)
    whole = n_frames - n_frames % STRIDE
    for k in range(0, whole, STRIDE):
        x0, x1, x2, x3 = curve[k], curve[k + 1], curve[k + 2], curve[k + 3]
        for m in range(length):
            out[m] += (
                x0 * matrix[k, m]
                + x1 * matrix[k + 1, m]
                + x2 * matrix[k + 2, m]
                + x3 * matrix[k + 3, m]
            )
    for k in range(whole, n_frames):
        x0 = curve[k]
        for m in range(length):
            out[m] += x0 * matrix[k, m]


@compiled(_FAST, "i8, i8, f4[:,::1], f4[:,::1], b1, f4[::1], f4[::1]")
def linear(first, last, curves, operator, wrap, height, position):  # type: ignore[no-untyped-def]
    """Residue ``curves @ operator`` of each voxel; its peak into height and position."""
    residue = np.empty(operator.shape[1], np.float32)
    for v in range(first, last):
        _product(curves[v], operator, residue)
        height[v], position[v] = _peak(residue, wrap)


@compiled(_FAST)
def _roughness(residue):  # type: ignore[no-untyped-def]
    """Highest sample, and sum of absolute second differences."""
    top = max(residue[0], residue[-1])
    total = np.float32(0.0)
    for m in range(1, residue.shape[0] - 1):
        top = max(top, residue[m])
        total += abs(residue[m + 1] - np.float32(2.0) * residue[m] + residue[m - 1])
    return top, total


@compiled(
    _FAST,
    "i8, i8, f4[:,::1], f4[:,::1], f4[:,::1], i8[::1], f4[::1], f4[::1], f4[::1], i4[::1]",
)
def oscillation(  # type: ignore[no-untyped-def]
    first, last, curves, analysis, synthesis, counts, limits, height, position, level_used
):
    """Residue with as many frequencies as its oscillation index allows.

    ``counts[level]`` basis functions (strongest first, a cosine and a sine of each frequency) are
    kept at a truncation level, from the highest threshold to the lowest; the lowest threshold
    whose index is below the limit wins, and the highest where none is. ``limits[0]`` is for the
    height of the peak, ``limits[1]`` for its time.
    """
    length = synthesis.shape[1]
    amplitude = np.empty(analysis.shape[1], np.float32)
    residue = np.empty(length, np.float32)
    timed = np.empty(length, np.float32)
    for v in range(first, last):
        _product(curves[v], analysis, amplitude)
        residue[:] = np.float32(0.0)
        used = 0
        for level in range(counts.shape[0]):
            if level > 0 and counts[level] == used:
                continue
            while used < counts[level]:
                a, b = amplitude[used], amplitude[used + 1]
                for m in range(length):
                    residue[m] += a * synthesis[used, m] + b * synthesis[used + 1, m]
                used += 2
            top, roughness = _roughness(residue)
            if level == 0 or (top > 0.0 and roughness < limits[0] * length * top):
                height[v] = top
                level_used[v] = level
            if level == 0 or (top > 0.0 and roughness < limits[1] * length * top):
                timed[:] = residue
        position[v] = _peak(timed, True)[1]


@compiled(_FAST)
def _match_four(curves, row, atoms, match):  # type: ignore[no-untyped-def]
    """Inner products of four curves with all atoms: every atom is read once for four voxels."""
    n_frames, n_atoms = atoms.shape
    match[:] = np.float32(0.0)
    for k in range(0, n_frames, STRIDE):
        p0, p1, p2, p3 = curves[row, k : k + STRIDE]
        q0, q1, q2, q3 = curves[row + 1, k : k + STRIDE]
        r0, r1, r2, r3 = curves[row + 2, k : k + STRIDE]
        s0, s1, s2, s3 = curves[row + 3, k : k + STRIDE]
        for m in range(n_atoms):
            a0, a1, a2, a3 = atoms[k, m], atoms[k + 1, m], atoms[k + 2, m], atoms[k + 3, m]
            match[0, m] += p0 * a0 + p1 * a1 + p2 * a2 + p3 * a3
            match[1, m] += q0 * a0 + q1 * a1 + q2 * a2 + q3 * a3
            match[2, m] += r0 * a0 + r1 * a1 + r2 * a2 + r3 * a3
            match[3, m] += s0 * a0 + s1 * a1 + s2 * a2 + s3 * a3


@compiled(_FAST)
def _group_peaks(match, peaks):  # type: ignore[no-untyped-def]
    """Highest match of every group of atoms; returns the highest of all, at least 0."""
    best = np.float32(0.0)
    for g in range(match.shape[0]):
        high = np.float32(0.0)
        for j in range(GROUP):
            high = max(high, match[g, j])
        peaks[g] = high
        best = max(best, high)
    return best


@compiled(_FAST)
def _power(y):  # type: ignore[no-untyped-def]
    """Two to the y as a mantissa and the bits of a float32 power of two; good to 2e-7.

    Unlike the library's exponential, a loop of it works on a whole register at once. Callers write
    the bits to an int32 array that they view as float32.
    """
    whole = np.floor(y + np.float32(0.5))
    x = y - whole
    p = np.float32(1.5403530e-4)
    p = p * x + np.float32(1.3333558e-3)
    p = p * x + np.float32(9.6181291e-3)
    p = p * x + np.float32(5.5504109e-2)
    p = p * x + np.float32(2.4022651e-1)
    p = p * x + np.float32(6.9314718e-1)
    p = p * x + np.float32(1.0)
    return p, (np.int32(whole) + np.int32(127)) << np.int32(23)


@compiled(_FAST)
def _weights(match, best, half_precision, alive, power, weight):  # type: ignore[no-untyped-def]
    """exp((match^2 - best^2) x half_precision) of a group of atoms, into ``weight``.

    ``power`` is scratch whose bits are read as float32.
    """
    scale = half_precision * _BITS_PER_E
    for j in range(GROUP):
        a = max(match[j], np.float32(0.0))
        y = max((a - best) * (a + best) * scale, np.float32(-100.0))
        p, power[j] = _power(y)
        weight[j] = p * alive[j]
    factor = power.view(np.float32)
    for j in range(GROUP):
        weight[j] *= factor[j]


@compiled(_FAST)
def _sums(match, weight, delays, unit, variance):  # type: ignore[no-untyped-def]
    """Sums over a group of weight, delay, delay^2, area and area^2, each times weight."""
    s_one = s_delay = s_delay2 = s_area = s_area2 = np.float32(0.0)
    for j in range(GROUP):
        w, d, u = weight[j], delays[j], unit[j]
        a = max(match[j], np.float32(0.0))
        s_one += w
        s_delay += w * d
        s_delay2 += w * d * d
        s_area += w * a * u
        # The amplitude itself is uncertain by sigma around its least-squares value.
        s_area2 += w * (a * a + variance) * u * u
    return s_one, s_delay, s_delay2, s_area, s_area2


@compiled(
    _FAST,
    "i8, i8, f4[:,::1], f4[:,::1], f8[::1], f4[::1], f4[:,::1], f4[:,::1], f8, f8, f4[:,::1]",
)
def posterior(  # type: ignore[no-untyped-def]
    first, last, curves, atoms, transit, delays, unit, alive, sigma, freedom, out
):
    """Posterior means and SDs over a grid of unit-length atoms, in groups of one transit time.

    ``curves`` (v, t) and ``atoms`` (t, groups x GROUP) are padded with zeros to a multiple of
    STRIDE frames, the curves to three rows more than there are voxels; ``transit`` (groups,),
    ``delays`` (GROUP,); ``unit`` and ``alive`` (groups, GROUP): area per unit amplitude, and 0 for
    an atom that only fills its group up, else its prior; ``sigma`` of the noise, at least, and
    ``freedom``, the frames less the parameters of a model curve; ``out`` (v, 10): CBV, MTT, delay,
    Tmax, CBF, then their SDs (CBV and CBF as area and area/s).
    """
    n_groups = transit.shape[0]
    flat = np.empty((4, atoms.shape[1]), np.float32)
    four = flat.reshape((4, n_groups, GROUP))
    peaks = np.empty(n_groups, np.float32)
    power = np.empty(GROUP, np.int32)
    weight = np.empty(GROUP, np.float32)
    for v in range(first, last):
        if (v - first) % 4 == 0:
            _match_four(curves, v, atoms, flat)
        match = four[(v - first) % 4]
        best = _group_peaks(match, peaks)
        # A curve that no model curve fits to within the noise is noisier than the others.
        energy = np.float32(0.0)
        for k in range(curves.shape[1]):
            energy += curves[v, k] * curves[v, k]
        variance = max(np.float32(sigma * sigma), (energy - best * best) / np.float32(freedom))
        half_precision = np.float32(0.5) / variance
        # Atoms e^-12 times less likely than the best one change no digit that is reported.
        cut = best * best - np.float32(12.0) / half_precision
        total = s_area = s_area2 = s_mtt = s_mtt2 = s_delay = s_delay2 = 0.0
        s_tmax = s_tmax2 = s_flow = s_flow2 = 0.0
        for g in range(n_groups):
            if peaks[g] * peaks[g] < cut:
                continue
            _weights(match[g], best, half_precision, alive[g], power, weight)
            one, late, late2, area, area2 = _sums(match[g], weight, delays, unit[g], variance)
            mtt = transit[g]
            total += one
            s_area += area
            s_area2 += area2
            s_mtt += one * mtt
            s_mtt2 += one * mtt * mtt
            s_delay += late
            s_delay2 += late2
            s_tmax += late + 0.5 * mtt * one
            s_tmax2 += late2 + mtt * late + 0.25 * mtt * mtt * one
            s_flow += area / mtt
            s_flow2 += area2 / (mtt * mtt)
        area = s_area / total
        mtt = s_mtt / total
        delay = s_delay / total
        tmax = s_tmax / total
        flow = s_flow / total
        out[v, 0] = area
        out[v, 1] = mtt
        out[v, 2] = delay
        out[v, 3] = tmax
        # E[CBF] overestimates flow (short transit times weigh too much); CBV / E[MTT] does not.
        out[v, 4] = area / mtt
        out[v, 5] = math.sqrt(max(s_area2 / total - area * area, 0.0))
        out[v, 6] = math.sqrt(max(s_mtt2 / total - mtt * mtt, 0.0))
        out[v, 7] = math.sqrt(max(s_delay2 / total - delay * delay, 0.0))
        out[v, 8] = math.sqrt(max(s_tmax2 / total - tmax * tmax, 0.0))
        out[v, 9] = math.sqrt(max(s_flow2 / total - flow * flow, 0.0))


#: Neighbours that count less than e to the minus this are left out.
_LEAST_LIKE = np.float32(12.0)


@compiled(_FAST)
def _alike(  # type: ignore[no-untyped-def]
    own, place, row_of, guide, offsets, weights, half_precision, bias, rows, unlike, power, weight
):
    """Rows of the neighbours that count, and their weights; returns how many there are."""
    n = 0
    share = np.float32(1.0) / np.float32(guide.shape[1])
    for m in range(offsets.shape[0]):
        row = row_of[place + offsets[m]]
        if row < 0:
            continue
        gap = np.float32(0.0)
        for t in range(guide.shape[1]):
            step = own[t] - guide[row, t]
            gap += step * step
        gap = max(gap * share - bias, np.float32(0.0)) * half_precision
        if gap > _LEAST_LIKE:
            continue
        rows[n] = row
        unlike[n] = gap
        weight[n] = weights[m]
        n += 1
    for m in range(n):
        p, power[m] = _power(-unlike[m] * _BITS_PER_E)
        weight[m] *= p
    factor = power.view(np.float32)
    for m in range(n):
        weight[m] *= factor[m]
    return n


@compiled(
    _FAST,
    "i8, i8, i8[::1], i4[::1], f4[:,::1], f4[:,::1], i8[::1], f4[::1], f4, f4, f4[:,::1]",
)
def similar(  # type: ignore[no-untyped-def]
    first, last, index, row_of, series, guide, offsets, weights, half_precision, bias, out
):
    """Mean of the neighbours whose curves are like the voxel's own (TIPS filter).

    ``index`` (n,) places of the voxels in ``row_of``, which gives the row of each voxel or -1 and
    is so wide that no neighbour lies outside; ``series``, ``guide`` and ``out`` (n, t); ``offsets``
    (m,) of the neighbours in ``row_of`` with spatial ``weights`` (m,); ``bias`` is what noise alone
    adds to the mean squared difference. The order of rows sets the speed: neighbours should lie
    near each other in memory.
    """
    nt, most = series.shape[1], offsets.shape[0]
    total, own = np.empty(nt, np.float32), np.empty(nt, np.float32)
    rows, power = np.empty(most, np.int32), np.empty(most, np.int32)
    unlike, weight = np.empty(most, np.float32), np.empty(most, np.float32)
    for v in range(first, last):
        own[:] = guide[v]
        total[:] = np.float32(0.0)
        n = _alike(
            own, index[v], row_of, guide, offsets, weights, half_precision, bias, rows, unlike,
            power, weight,
        )  # fmt: skip
        norm = np.float32(0.0)
        for m in range(n):
            norm += weight[m]
        whole = n - n % 4
        for m in range(0, whole, 4):
            # Four neighbours at once: the sum is read and written a quarter as often.
            a, b, c, d = weight[m], weight[m + 1], weight[m + 2], weight[m + 3]
            i, j, k, o = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
            for t in range(nt):
                total[t] += (
                    a * series[i, t] + b * series[j, t] + c * series[k, t] + d * series[o, t]
                )
        for m in range(whole, n):
            for t in range(nt):
                total[t] += weight[m] * series[rows[m], t]
        for t in range(nt):
            out[v, t] = total[t] / norm
