"""Compiled loops of :mod:`corelab.imaging.meshnet`: dilated 3D convolution, plane by plane.

One thread and a fixed order of additions: the same bytes each time on the same type of processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.provenance.compiled import compiled

#: Output channels computed together: three sets of nine weights fill the registers of AVX-512.
TOGETHER = 3
LINEAR, RELU, ELU, GELU = range(4)

# Sums are in the written order (no "reassoc"); products and sums may be fused.
_FUSED = {"contract", "nsz", "arcp"}


@compiled(_FUSED)
def erf(x: Any) -> Any:
    """Error function in float32, to 5e-7: a rational function, so that loops become vectors."""
    x = min(max(x, np.float32(-4.0)), np.float32(4.0))
    q = x * x
    top = np.float32(-2.72614225801306e-10)
    top = top * q + np.float32(2.77068142495902e-08)
    top = top * q + np.float32(-2.10102402082508e-06)
    top = top * q + np.float32(-5.69250639462346e-05)
    top = top * q + np.float32(-7.34990630326855e-04)
    top = top * q + np.float32(-2.95459980854025e-03)
    top = top * q + np.float32(-1.60960333262415e-02)
    below = np.float32(-1.45660718464996e-05)
    below = below * q + np.float32(-2.13374052778905e-04)
    below = below * q + np.float32(-1.68282697438203e-03)
    below = below * q + np.float32(-7.37332916720468e-03)
    below = below * q + np.float32(-1.42647390514189e-02)
    return x * top / below


@compiled(_FUSED, "f4[:,:,::1], f4[::1], f4[::1], i8, f4[:,:,::1], i8")
def activate(
    raw: NDArray[np.float32],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    activation: int,
    padded: NDArray[np.float32],
    before: int,
) -> None:
    """Write activation(raw * scale + shift) into the middle of a padded plane.

    ``raw`` is (channels, Y, X), ``padded`` (channels, >= before + Y, >= before + X).
    """
    channels, rows, columns = raw.shape
    half, one = np.float32(0.5), np.float32(1.0)
    root = np.float32(np.sqrt(0.5))
    for c in range(channels):
        a, b = scale[c], shift[c]
        for y in range(rows):
            source = raw[c, y]
            target = padded[c, y + before, before : before + columns]
            if activation == GELU:
                for x in range(columns):
                    v = source[x] * a + b
                    target[x] = half * v * (one + erf(v * root))
            elif activation == RELU:
                for x in range(columns):
                    target[x] = max(source[x] * a + b, np.float32(0.0))
            elif activation == ELU:
                for x in range(columns):
                    v = source[x] * a + b
                    target[x] = v if v > 0 else np.float32(np.expm1(v))
            else:
                for x in range(columns):
                    target[x] = source[x] * a + b


@compiled(_FUSED)
def _add_taps(
    plane: NDArray[np.float32],
    weights: NDArray[np.float32],
    y: int,
    dilation: int,
    sums: NDArray[np.float32],
) -> None:
    """Add a 3 x 3 dilated convolution of one padded plane to one row of three output channels.

    ``plane`` is (channels, Y + 2 dilation, X + 2 dilation), ``weights`` (channels, 9, 3),
    ``sums`` (3, X).
    """
    d, size = dilation, sums.shape[1]
    s0, s1, s2 = sums[0], sums[1], sums[2]
    for c in range(plane.shape[0]):
        # Slices instead of offsets: an index that may be negative keeps loops from vectors.
        above, middle, below = plane[c, y], plane[c, y + d], plane[c, y + 2 * d]
        r0, r1, r2 = above[:size], above[d : d + size], above[2 * d : 2 * d + size]
        r3, r4, r5 = middle[:size], middle[d : d + size], middle[2 * d : 2 * d + size]
        r6, r7, r8 = below[:size], below[d : d + size], below[2 * d : 2 * d + size]
        w = weights[c]
        u0, u1, u2, u3, u4 = w[0, 0], w[1, 0], w[2, 0], w[3, 0], w[4, 0]
        u5, u6, u7, u8 = w[5, 0], w[6, 0], w[7, 0], w[8, 0]
        v0, v1, v2, v3, v4 = w[0, 1], w[1, 1], w[2, 1], w[3, 1], w[4, 1]
        v5, v6, v7, v8 = w[5, 1], w[6, 1], w[7, 1], w[8, 1]
        t0, t1, t2, t3, t4 = w[0, 2], w[1, 2], w[2, 2], w[3, 2], w[4, 2]
        t5, t6, t7, t8 = w[5, 2], w[6, 2], w[7, 2], w[8, 2]
        for x in range(size):
            a0, a1, a2 = r0[x], r1[x], r2[x]
            a3, a4, a5 = r3[x], r4[x], r5[x]
            a6, a7, a8 = r6[x], r7[x], r8[x]
            s0[x] += (
                u0 * a0 + u1 * a1 + u2 * a2 + u3 * a3 + u4 * a4 + u5 * a5 + u6 * a6 + u7 * a7
                + u8 * a8
            )  # fmt: skip
            s1[x] += (
                v0 * a0 + v1 * a1 + v2 * a2 + v3 * a3 + v4 * a4 + v5 * a5 + v6 * a6 + v7 * a7
                + v8 * a8
            )  # fmt: skip
            s2[x] += (
                t0 * a0 + t1 * a1 + t2 * a2 + t3 * a3 + t4 * a4 + t5 * a5 + t6 * a6 + t7 * a7
                + t8 * a8
            )  # fmt: skip


@compiled(_FUSED, "UniTuple(f4[:,:,::1], 3), f4[:,:,:,:,::1], i8, f4[:,:,::1]")
def convolve(
    planes: Any,
    weights: NDArray[np.float32],
    dilation: int,
    out: NDArray[np.float32],
) -> None:
    """One plane of a 3 x 3 x 3 dilated convolution, without bias.

    Parameters
    ----------
    planes
        Three padded planes (channels, Y + 2 dilation, X + 2 dilation): z - dilation, z, z +
        dilation.
    weights
        (groups of three output channels, 3, channels, 9, 3), see
        :func:`grouped`.
    dilation
        In voxels.
    out
        (output channels, Y, X), overwritten.
    """
    channels, rows, columns = out.shape
    sums = np.empty((TOGETHER, columns), np.float32)
    for y in range(rows):
        for g in range(weights.shape[0]):
            sums[:] = np.float32(0.0)
            _add_taps(planes[0], weights[g, 0], y, dilation, sums)
            _add_taps(planes[1], weights[g, 1], y, dilation, sums)
            _add_taps(planes[2], weights[g, 2], y, dilation, sums)
            for j in range(min(TOGETHER, channels - TOGETHER * g)):
                out[TOGETHER * g + j, y] = sums[j]


def grouped(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights as :func:`convolve` reads them: (groups of outputs, 3, inputs, 9, three outputs).

    ``weights`` is (3, 3, 3, inputs, outputs); missing outputs of the last group are 0.
    """
    inputs, outputs = weights.shape[3:]
    groups = -(-outputs // TOGETHER)
    padded = np.zeros((3, 9, inputs, groups * TOGETHER), np.float32)
    padded[..., :outputs] = weights.reshape(3, 9, inputs, outputs)
    split = padded.reshape(3, 9, inputs, groups, TOGETHER)
    return np.ascontiguousarray(split.transpose(3, 0, 2, 1, 4))


@compiled({"fast"}, "f4[:,:,::1], f8[:,::1]")
def moments(plane: NDArray[np.float32], total: NDArray[np.float64]) -> None:
    """Add the sum and the sum of squares of each channel of a plane to ``total`` (channels, 2)."""
    for c in range(plane.shape[0]):
        for y in range(plane.shape[1]):
            row = plane[c, y]
            first, second = np.float32(0.0), np.float32(0.0)
            for x in range(row.shape[0]):
                first += row[x]
                second += row[x] * row[x]
            total[c, 0] += first
            total[c, 1] += second
