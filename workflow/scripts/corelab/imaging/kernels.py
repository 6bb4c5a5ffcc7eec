"""Compiled loops over volumes, imported where they are called (numba takes half a second).

No freedom of floating-point arithmetic is given to the compiler: distances, interpolated values
and counts are those of the functions of scipy and numpy that the loops stand for, to the last bit.
"""

from __future__ import annotations

import math

import numpy as np

from corelab.provenance.compiled import compiled


@compiled(())
def _lowest(line, size, kept, bounds, out):  # type: ignore[no-untyped-def]
    """Lower envelope of the parabolas ``line[q] + (size (p - q))**2``.

    Felzenszwalb, Huttenlocher: Distance transforms of sampled functions. Theory of Computing
    2012;8:415-428. ``kept`` and ``bounds`` are scratch of the length of the line, and one more.
    """
    n, count = line.shape[0], 0
    square = size * size
    for q in range(n):
        if line[q] == math.inf:
            continue
        while count > 0:
            p = kept[count - 1]
            cross = ((line[q] - line[p]) / (square * (q - p)) + (q + p)) / 2.0
            if cross > bounds[count - 1]:
                break
            count -= 1
        if count == 0:
            cross = -math.inf
        kept[count] = q
        bounds[count] = cross
        count += 1
    if count == 0:
        out[:] = math.inf
        return
    bounds[count] = math.inf
    at = 0
    for p in range(n):
        while bounds[at + 1] < p:
            at += 1
        away = (p - kept[at]) * size
        out[p] = line[kept[at]] + away * away


@compiled((), "b1[:,:,::1], f8[::1]")
def squared_distances(mask, sizes):  # type: ignore[no-untyped-def]
    """Squared distance of every voxel of a 3D mask to the nearest voxel that is not in it."""
    nx, ny, nz = mask.shape
    out = np.empty(mask.shape, np.float64)
    steps = np.full((ny, nz), -1, np.int32)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    steps[y, z] = 0
                elif steps[y, z] >= 0:
                    steps[y, z] += 1
                out[x, y, z] = steps[y, z]
    steps[:] = -1
    for x in range(nx - 1, -1, -1):
        for y in range(ny):
            for z in range(nz):
                if out[x, y, z] == 0:
                    steps[y, z] = 0
                    continue
                if steps[y, z] >= 0:
                    steps[y, z] += 1
                    if out[x, y, z] < 0 or steps[y, z] < out[x, y, z]:
                        out[x, y, z] = steps[y, z]
                away = out[x, y, z] * sizes[0]
                out[x, y, z] = math.inf if away < 0 else away * away
    longest = max(ny, nz)
    kept, bounds = np.empty(longest, np.int64), np.empty(longest + 1, np.float64)
    column, found = np.empty(ny, np.float64), np.empty(ny, np.float64)
    row = np.empty(nz, np.float64)
    for x in range(nx):
        for z in range(nz):
            largest = 0.0
            for y in range(ny):
                column[y] = out[x, y, z]
                largest = max(largest, column[y])
            if largest == 0.0:
                continue
            _lowest(column, sizes[1], kept, bounds, found)
            for y in range(ny):
                out[x, y, z] = found[y]
        for y in range(ny):
            largest = 0.0
            for z in range(nz):
                row[z] = out[x, y, z]
                largest = max(largest, row[z])
            if largest > 0.0:
                _lowest(row, sizes[2], kept, bounds, out[x, y])
    return out


#: What :func:`_linear` takes beyond the edge of an array: a value that fills up points outside, the
#: edge itself, or a value in every voxel around the array.
CONSTANT, NEAREST, GRID_CONSTANT = range(3)


@compiled(())
def _inside(values, a, b, c, mode, beyond):  # type: ignore[no-untyped-def]
    """One voxel, or what lies around the array."""
    nx, ny, nz = values.shape
    if mode == GRID_CONSTANT and (a < 0 or b < 0 or c < 0 or a >= nx or b >= ny or c >= nz):
        return beyond
    # For a place inside, a neighbour beyond the edge has the weight 0.
    a, b, c = min(max(a, 0), nx - 1), min(max(b, 0), ny - 1), min(max(c, 0), nz - 1)
    return np.float64(values[a, b, c])


@compiled(())
def _linear(values, x, y, z, mode, beyond):  # type: ignore[no-untyped-def]
    """Value at a place in voxels, linear between the eight around it."""
    nx, ny, nz = values.shape
    if mode == CONSTANT and not (0 <= x <= nx - 1 and 0 <= y <= ny - 1 and 0 <= z <= nz - 1):
        return beyond
    a, b, c = math.floor(x), math.floor(y), math.floor(z)
    x0, y0, z0 = 1.0 - (x - a), 1.0 - (y - b), 1.0 - (z - c)
    x1, y1, z1 = 1.0 - x0, 1.0 - y0, 1.0 - z0
    if 0 <= a < nx - 1 and 0 <= b < ny - 1 and 0 <= c < nz - 1:
        total = values[a, b, c] * x0 * y0 * z0
        total += values[a, b, c + 1] * x0 * y0 * z1
        total += values[a, b + 1, c] * x0 * y1 * z0
        total += values[a, b + 1, c + 1] * x0 * y1 * z1
        total += values[a + 1, b, c] * x1 * y0 * z0
        total += values[a + 1, b, c + 1] * x1 * y0 * z1
        total += values[a + 1, b + 1, c] * x1 * y1 * z0
        return total + values[a + 1, b + 1, c + 1] * x1 * y1 * z1
    total = 0.0
    for corner in range(8):
        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
        value = _inside(values, a + i, b + j, c + k, mode, beyond)
        total += value * (x1 if i else x0) * (y1 if j else y0) * (z1 if k else z0)
    return total


@compiled(
    (),
    "f4[:,:,::1], f8[:,::1], f8[::1], i8, f8, f4[:,:,::1]",
    "f8[:,:,::1], f8[:,::1], f8[::1], i8, f8, f8[:,:,::1]",
)
def linear_grid(values, matrix, shift, mode, beyond, out):  # type: ignore[no-untyped-def]
    """Values at ``matrix @ index + shift`` for every voxel of ``out``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x = i * matrix[0, 0] + j * matrix[0, 1] + k * matrix[0, 2] + shift[0]
                y = i * matrix[1, 0] + j * matrix[1, 1] + k * matrix[1, 2] + shift[1]
                z = i * matrix[2, 0] + j * matrix[2, 1] + k * matrix[2, 2] + shift[2]
                out[i, j, k] = _linear(values, x, y, z, mode, beyond)


@compiled(
    (),
    "f4[:,:,::1], f8[:,::1], i8, f8, f4[::1]",
    "f4[:,:,::1], f8[:,::1], i8, f8, f8[::1]",
    "f8[:,:,::1], f8[:,::1], i8, f8, f8[::1]",
)
def linear_points(values, points, mode, beyond, out):  # type: ignore[no-untyped-def]
    """Values at places in voxels, (3, n)."""
    for n in range(out.shape[0]):
        x, y, z = np.float64(points[0, n]), np.float64(points[1, n]), np.float64(points[2, n])
        out[n] = _linear(values, x, y, z, mode, beyond)


#: Points that are placed at a time: a loop without jumps, which the processor takes several by one.
_BLOCK = 1024


@compiled(
    {"contract"},
    "f4[:,::1], f4[:,::1], f4[::1], f4, u1[::1], UniTuple(i8, 3), u1[::1], i8[:,::1]",
)
def class_counts(matrix, points, origin, per_mm, table, shape, bins, counts):  # type: ignore[no-untyped-def]
    """Count points by the class of the voxel (``table``) in which they lie, and by their bin.

    ``points`` are (3, n) in mm, ``matrix`` (3, 4) takes them to the space of the table. Sums are
    nested as a fused product of matrices has them.
    """
    half, zero = np.float32(0.5), np.float32(0.0)
    last = (np.float32(shape[0] - 1), np.float32(shape[1] - 1), np.float32(shape[2] - 1))
    rows, columns = np.int32(shape[1]), np.int32(shape[2])
    m, n = matrix, bins.shape[0]
    cell = np.empty(_BLOCK, np.int32)
    for first in range(0, n, _BLOCK):
        size = min(_BLOCK, n - first)
        for i in range(size):
            x, y, z = points[0, first + i], points[1, first + i], points[2, first + i]
            a = (m[0, 2] * z + (m[0, 1] * y + m[0, 0] * x)) + m[0, 3] - origin[0]
            b = (m[1, 2] * z + (m[1, 1] * y + m[1, 0] * x)) + m[1, 3] - origin[1]
            c = (m[2, 2] * z + (m[2, 1] * y + m[2, 0] * x)) + m[2, 3] - origin[2]
            a = min(max(a * per_mm + half, zero), last[0])
            b = min(max(b * per_mm + half, zero), last[1])
            c = min(max(c * per_mm + half, zero), last[2])
            cell[i] = (np.int32(a) * rows + np.int32(b)) * columns + np.int32(c)
        for i in range(size):
            counts[table[cell[i]], bins[first + i]] += 1


@compiled((), "f4[:,:,::1], f4[:,:,::1], f4[::1], f4, f4, f4, i8")
def least_surface(gain, share, per_mm, primal, dual, price, iterations):  # type: ignore[no-untyped-def]
    """Primal-dual iterations of the cut of :mod:`corelab.imaging.brain`; ``share`` is changed."""
    nx, ny, nz = gain.shape
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    up = (dual * per_mm[0], dual * per_mm[1], dual * per_mm[2])
    flow_x, flow_y, flow_z = np.zeros_like(gain), np.zeros_like(gain), np.zeros_like(gain)
    ahead = share.copy()
    for _ in range(iterations):
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    here = ahead[x, y, z]
                    a, b, c = flow_x[x, y, z], flow_y[x, y, z], flow_z[x, y, z]
                    if x < nx - 1:
                        a += up[0] * (ahead[x + 1, y, z] - here)
                    if y < ny - 1:
                        b += up[1] * (ahead[x, y + 1, z] - here)
                    if z < nz - 1:
                        c += up[2] * (ahead[x, y, z + 1] - here)
                    length = np.sqrt(a * a + b * b + c * c)
                    shrink = one / max(one, length / price)
                    flow_x[x, y, z] = a * shrink
                    flow_y[x, y, z] = b * shrink
                    flow_z[x, y, z] = c * shrink
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    change = gain[x, y, z]
                    if x < nx - 1:
                        change += per_mm[0] * flow_x[x, y, z]
                    if x > 0:
                        change -= per_mm[0] * flow_x[x - 1, y, z]
                    if y < ny - 1:
                        change += per_mm[1] * flow_y[x, y, z]
                    if y > 0:
                        change -= per_mm[1] * flow_y[x, y - 1, z]
                    if z < nz - 1:
                        change += per_mm[2] * flow_z[x, y, z]
                    if z > 0:
                        change -= per_mm[2] * flow_z[x, y, z - 1]
                    moved = min(max(share[x, y, z] + primal * change, zero), one)
                    ahead[x, y, z] = two * moved - share[x, y, z]
                    share[x, y, z] = moved


@compiled(())
def _mirrored(index, size):  # type: ignore[no-untyped-def]
    """Index of the voxel that stands for one beyond the edge: c b a | a b c | c b a."""
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@compiled(
    (),
    "f4[:,:,::1], f8[::1], f4[:,:,::1]",
    "f8[:,:,::1], f8[::1], f8[:,:,::1]",
)
def smooth_axis(values, weights, out):  # type: ignore[no-untyped-def]
    """Sums along the middle axis, mirrored at its ends; ``weights`` from the centre outwards."""
    outer, n, inner = values.shape
    reach = weights.shape[0] - 1
    line, sums = np.empty(n + 2 * reach), np.empty(max(n, _BLOCK))
    for o in range(outer):
        if inner == 1:
            for i in range(n + 2 * reach):
                line[i] = values[o, _mirrored(i - reach, n), 0]
            for i in range(n):
                sums[i] = line[i + reach] * weights[0]
            for away in range(reach, 0, -1):
                for i in range(n):
                    sums[i] += (line[i + reach - away] + line[i + reach + away]) * weights[away]
            for i in range(n):
                out[o, i, 0] = sums[i]
            continue
        for first in range(0, inner, _BLOCK):
            size = min(_BLOCK, inner - first)
            for i in range(n):
                here = values[o, i, first : first + size]
                for k in range(size):
                    sums[k] = np.float64(here[k]) * weights[0]
                for away in range(reach, 0, -1):
                    low = values[o, _mirrored(i - away, n), first : first + size]
                    high = values[o, _mirrored(i + away, n), first : first + size]
                    for k in range(size):
                        sums[k] += (np.float64(low[k]) + np.float64(high[k])) * weights[away]
                for k in range(size):
                    out[o, i, first + k] = sums[k]


@compiled((), "b1[:,:,::1], b1")
def around(mask, within_slices):  # type: ignore[no-untyped-def]
    """What is not in a 3D mask and is connected by faces with the edge of the array, or slice."""
    nx, ny, nz = mask.shape
    held = mask.reshape(-1)
    found = np.zeros(held.shape[0], np.bool_)
    stack, count = np.empty(held.shape[0], np.int32), 0
    for at in range(held.shape[0]):
        x, y, z = at // (ny * nz), at // nz % ny, at % nz
        edge = x == 0 or y == 0 or x == nx - 1 or y == ny - 1
        if not within_slices:
            edge = edge or z == 0 or z == nz - 1
        if edge and not held[at]:
            found[at] = True
            stack[count] = at
            count += 1
    while count:
        count -= 1
        at = stack[count]
        x, y, z = at // (ny * nz), at // nz % ny, at % nz
        for side in range(4 if within_slices else 6):
            if side < 2:
                there, step = x + 2 * side - 1, ny * nz
                inside = 0 <= there < nx
            elif side < 4:
                there, step = y + 2 * side - 5, nz
                inside = 0 <= there < ny
            else:
                there, step = z + 2 * side - 9, 1
                inside = 0 <= there < nz
            beside = at + step if side & 1 else at - step
            if inside and not held[beside] and not found[beside]:
                found[beside] = True
                stack[count] = beside
                count += 1
    return found.reshape(mask.shape)


@compiled(())
def _placed(values, points, origin, step, mode, beyond, cell, share, out):  # type: ignore[no-untyped-def]
    """Values at at most a block of places; ``cell`` and ``share`` are scratch of its size."""
    nx, ny, nz = values.shape
    flat, across, along = values.reshape(-1), ny * nz, nz
    for n in range(out.shape[0]):
        x = np.float64((points[0, n] - origin[0]) / step)
        y = np.float64((points[1, n] - origin[1]) / step)
        z = np.float64((points[2, n] - origin[2]) / step)
        a, b, c = np.floor(x), np.floor(y), np.floor(z)
        share[0, n], share[1, n], share[2, n] = x - a, y - b, z - c
        inside = (a >= 0) & (b >= 0) & (c >= 0) & (a < nx - 1) & (b < ny - 1) & (c < nz - 1)
        index = (np.int32(a) * np.int32(ny) + np.int32(b)) * np.int32(nz) + np.int32(c)
        cell[n] = index if inside else np.int32(-1)
    for n in range(out.shape[0]):
        p = cell[n]
        if p < 0:
            x = np.float64((points[0, n] - origin[0]) / step)
            y = np.float64((points[1, n] - origin[1]) / step)
            z = np.float64((points[2, n] - origin[2]) / step)
            out[n] = _linear(values, x, y, z, mode, beyond)
            continue
        q, r, s = p + along, p + across, p + across + along
        a, b, c, d = flat[p], flat[p + 1], flat[q], flat[q + 1]
        e, f, g, h = flat[r], flat[r + 1], flat[s], flat[s + 1]
        if a == b == c == d == e == f == g == h == 0:  # air is most of a head's image
            out[n] = 0
            continue
        x0, y0, z0 = 1.0 - share[0, n], 1.0 - share[1, n], 1.0 - share[2, n]
        x1, y1, z1 = 1.0 - x0, 1.0 - y0, 1.0 - z0
        total = a * x0 * y0 * z0
        total += b * x0 * y0 * z1
        total += c * x0 * y1 * z0
        total += d * x0 * y1 * z1
        total += e * x1 * y0 * z0
        total += f * x1 * y0 * z1
        total += g * x1 * y1 * z0
        out[n] = total + h * x1 * y1 * z1


@compiled((), "f4[:,:,::1], f4[:,::1], f4[::1], f4, i8, f8, f4[::1]")
def linear_placed(values, points, origin, step, mode, beyond, out):  # type: ignore[no-untyped-def]
    """Values at places in mm, (3, n), of a grid along the axes from ``origin`` in steps."""
    cell, share = np.empty(_BLOCK, np.int32), np.empty((3, _BLOCK), np.float64)
    for n in range(0, out.shape[0], _BLOCK):
        part, to = points[:, n : n + _BLOCK], out[n : n + _BLOCK]
        _placed(values, part, origin, step, mode, beyond, cell, share, to)


@compiled((), "f4[:,:,::1], f4[:,::1], f4[::1], f4, f8[:,::1], f4[::1], f4, f4[:,::1]")
def soft_shares(values, points, origin, step, box, levels, width, out):  # type: ignore[no-untyped-def]
    """How far values at places in mm lie below levels, 0 to 1 over ``width``: (levels, n).

    It is 0 at places outside of ``box`` (lowest and highest place).
    """
    half, zero, one = np.float32(0.5), np.float32(0.0), np.float32(1.0)
    mode = np.int64(NEAREST)  # no constant: what is called would be compiled once more for it
    cell, share = np.empty(_BLOCK, np.int32), np.empty((3, _BLOCK), np.float64)
    found = np.empty(_BLOCK, np.float32)
    for first in range(0, out.shape[1], _BLOCK):
        part, to = points[:, first : first + _BLOCK], out[:, first : first + _BLOCK]
        here = found[: to.shape[1]]
        reached = False
        for n in range(here.shape[0]):
            inside = True
            for axis in range(3):
                inside &= (part[axis, n] >= box[0, axis]) & (part[axis, n] <= box[1, axis])
            reached |= inside
        if not reached:
            to[:] = zero
            continue
        _placed(values, part, origin, step, mode, 0.0, cell, share, here)
        for level in range(levels.shape[0]):
            for n in range(here.shape[0]):
                to[level, n] = min(max((levels[level] - here[n]) / width + half, zero), one)


@compiled(
    (),
    "f4[:,:,:,::1], f8[:,::1], f8[::1], f8, f8[:,::1]",
    "f4[:,:,:,::1], f8[::1,:], f8[::1], f8, f8[:,::1]",
)
def displacements(field, points, origin, step, out):  # type: ignore[no-untyped-def]
    """Vectors (n, 3) of a field (3, ...) at points (n, 3) in mm."""
    for n in range(out.shape[0]):
        x = (points[n, 0] - origin[0]) / step
        y = (points[n, 1] - origin[1]) / step
        z = (points[n, 2] - origin[2]) / step
        for axis in range(3):
            out[n, axis] = _linear(field[axis], x, y, z, np.int64(NEAREST), 0.0)


@compiled((), "f4[:,:,:,::1], UniTuple(i8[::1], 3), UniTuple(f4[::1], 3), f4[:,:,:,::1]")
def stretched(knots, left, share, out):  # type: ignore[no-untyped-def]
    """Fields (c, ...) between knots, linear along the first axis, then the second and third.

    ``left`` and ``share`` have for each axis the knot before a voxel and the way to the next.
    """
    plane = np.empty(knots.shape[2:], knots.dtype)
    line = np.empty(knots.shape[3], knots.dtype)
    for c in range(out.shape[0]):
        for x in range(out.shape[1]):
            a, part = left[0][x], share[0][x]
            for j in range(plane.shape[0]):
                for k in range(plane.shape[1]):
                    low = knots[c, a, j, k]
                    plane[j, k] = (knots[c, a + 1, j, k] - low) * part + low
            for y in range(out.shape[2]):
                a, part = left[1][y], share[1][y]
                for k in range(line.shape[0]):
                    line[k] = (plane[a + 1, k] - plane[a, k]) * part + plane[a, k]
                for z in range(out.shape[3]):
                    a, part = left[2][z], share[2][z]
                    out[c, x, y, z] = (line[a + 1] - line[a]) * part + line[a]


@compiled((), "f4[:,:,::1], UniTuple(f4[:,:,::1], 4), f4[::1], f4[:,:,::1]")
def composed(outer, head, values, out):  # type: ignore[no-untyped-def]
    """Mix an image of a 2 mm grid, which fills what is not brain, and tissues of the 1 mm grid.

    ``outer`` is interpolated along the first axis, then the second and third. ``head`` is the
    fraction of brain and those of the tissues, which have ``values``.
    """
    brain, first, second, third = head
    half, one = np.float32(0.5), np.float32(1.0)
    plane, line = np.empty(outer.shape[1:], np.float32), np.empty(outer.shape[2], np.float32)
    for x in range(out.shape[0]):
        a = x // 2
        for j in range(plane.shape[0]):
            for k in range(plane.shape[1]):
                low = outer[a, j, k]
                plane[j, k] = half * (outer[a + 1, j, k] + low) if x % 2 else low
        for y in range(out.shape[1]):
            a = y // 2
            for k in range(line.shape[0]):
                low = plane[a, k]
                line[k] = half * (plane[a + 1, k] + low) if y % 2 else low
            for z in range(out.shape[2]):
                a = z // 2
                value = half * (line[a + 1] + line[a]) if z % 2 else line[a]
                value *= one - brain[x, y, z]
                value += first[x, y, z] * values[0]
                value += second[x, y, z] * values[1]
                out[x, y, z] = value + third[x, y, z] * values[2]


@compiled((), "f4[:,:,::1], f8[:,::1], f8, i8")
def stamp_tube(field, points, radius, reach):  # type: ignore[no-untyped-def]
    """Fill balls about points (n, 3), in voxels, into a field of fractions."""
    for n in range(points.shape[0]):
        p, q, r = points[n, 0], points[n, 1], points[n, 2]
        a, b, c = math.floor(p), math.floor(q), math.floor(r)
        for x in range(max(a - reach, 0), min(a + reach + 1, field.shape[0])):
            for y in range(max(b - reach, 0), min(b + reach + 1, field.shape[1])):
                for z in range(max(c - reach, 0), min(c + reach + 1, field.shape[2])):
                    squared = ((x - p) * (x - p) + (y - q) * (y - q)) + (z - r) * (z - r)
                    share = min(max(radius + 0.5 - math.sqrt(squared), 0.0), 1.0)
                    field[x, y, z] = max(np.float64(field[x, y, z]), share)


@compiled((), "f4[:,::1], f8[::1], f8[::1], f8[::1], f8, f4[::1], f4[:,::1]")
def table_curves(table, place, delay, times, step, amplitude, out):  # type: ignore[no-untyped-def]
    """Curves (n, t): rows of a table between its rows, later by a delay, times an amplitude."""
    rows, columns = table.shape
    for n in range(out.shape[0]):
        x = place[n]
        a = math.floor(x)
        x0 = 1.0 - (x - a)
        x1 = 1.0 - x0
        for t in range(times.shape[0]):
            y = max(times[t] - delay[n], 0.0) / step
            if x > rows - 1 or y > columns - 1:
                out[n, t] = 0
                continue
            b = math.floor(y)
            y0 = 1.0 - (y - b)
            y1 = 1.0 - y0
            # Beyond the last row or column lies the weight 0.
            c, d = min(a + 1, rows - 1), min(b + 1, columns - 1)
            value = table[a, b] * x0 * y0
            value += table[a, d] * x0 * y1
            value += table[c, b] * x1 * y0
            value += table[c, d] * x1 * y1
            out[n, t] = np.float32(value) * amplitude[n]


@compiled((), "f8[:,:,::1], i8, f8[:,::1], f8[:,:,::1]")
def cubic_between(coefficients, first, weights, out):  # type: ignore[no-untyped-def]
    """Cubic splines at and midway between nodes, of which node 0 is ``first`` in coefficients.

    ``weights`` has the four weights of a node's neighbours, at it and midway to the next.
    """
    size = (out.shape[2] + 1) // 2
    sums = np.empty((2, size), np.float64)
    for x in range(out.shape[0]):
        for y in range(out.shape[1]):
            sums[:] = 0.0
            for i in range(4):
                for j in range(4):
                    u, v = weights[x % 2, i], weights[y % 2, j]
                    line = coefficients[first - 1 + x // 2 + i, first - 1 + y // 2 + j]
                    for k in range(4):
                        near = line[first - 1 + k : first - 1 + k + size]
                        for odd in range(2):
                            w = weights[odd, k]
                            for z in range(size):
                                sums[odd, z] += near[z] * u * v * w
            for z in range(out.shape[2]):
                out[x, y, z] = sums[z % 2, z // 2]
