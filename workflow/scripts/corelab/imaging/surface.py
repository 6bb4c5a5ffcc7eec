"""A balloon that inflates inside the skull: the deformable surface of Smith (2002).

Method: S. M. Smith, Fast robust automated brain extraction, Human Brain Mapping 17:143-155 (2002),
written from the paper. It keeps a brain mask from leaking into neck and scalp where tissue of
the same intensity touches the brain; fine detail is left to the masks that it bounds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Voxel edge of the isotropic grid on which the surface moves.
GRID_MM = 2.0
_SUBDIVISIONS = 3
_ITERATIONS = 600
#: Depth of the intensity search below the surface: for the minimum, and for the maximum.
_SEARCH_MM = (20.0, 10.0)
#: Radii of curvature between which smoothing changes from strong to weak.
_RADII_MM = (3.33, 10.0)


def balloon(
    volume: NDArray[np.float32],
    middle: tuple[float, float, float],
    *,
    typical: float,
    threshold: float = 0.5,
) -> NDArray[np.bool_]:
    """Inside of a surface that was inflated from the middle to the dark rim of the brain.

    Parameters
    ----------
    volume
        3D array on a grid of :data:`GRID_MM`, brain brighter than what bounds it.
    middle
        Voxel (x, y, z) in the brain's middle.
    typical
        Median intensity of brain around the middle.
    threshold
        Fraction of the local brain intensity at which the surface stops; lower lets it go
        further out (Smith's fractional threshold).

    Returns
    -------
    numpy.ndarray
        Boolean, shape of ``volume``.

    Examples
    --------
    >>> grid = np.stack(np.meshgrid(*[np.arange(60.0)] * 3, indexing="ij")) - 30
    >>> ball = np.sqrt((grid**2).sum(axis=0)) < 22
    >>> inside = balloon(ball.astype(np.float32) * 100, (30, 30, 30), typical=100.0)
    >>> bool(2 * (inside & ball).sum() / (inside.sum() + ball.sum()) > 0.93)
    True
    """
    low, high = (float(value) for value in np.percentile(volume, [2.0, 98.0]))
    floor = low + 0.1 * (high - low)
    directions, faces, neighbours = _sphere()
    head = volume > floor
    radius = min((3 * float(head.sum()) / (4 * np.pi)) ** (1 / 3), 85.0 / GRID_MM)
    vertices = np.asarray(middle, float) + 0.5 * radius * directions
    curves = [1.0 / (r / GRID_MM) for r in _RADII_MM]
    mean_curve, steepness = sum(curves) / 2, 6.0 / (curves[0] - curves[1])
    depths = [np.arange(0.0, mm / GRID_MM + 0.5) for mm in _SEARCH_MM]
    for _ in range(_ITERATIONS):
        normals = _normals(vertices, faces)
        pull = neighbours @ vertices - vertices
        along = (pull * normals).sum(axis=1)
        tangential = pull - along[:, None] * normals
        edges = vertices[faces[:, 0]] - vertices[faces[:, 1]]
        length = float(np.sqrt((edges**2).sum(axis=1)).mean())
        curve = 2 * np.abs(along) / length**2
        smoothing = 0.5 * (1 + np.tanh(steepness * (curve - mean_curve)))
        below = _looked_up(volume, vertices, normals, depths[0])
        least = np.maximum(low, np.minimum(typical, below.min(axis=1)))
        most = np.minimum(typical, np.maximum(floor, below[:, : len(depths[1])].max(axis=1)))
        stop = (most - low) * threshold + low
        force = 2 * (least - stop) / np.maximum(most - low, 1e-6)
        step = smoothing * along + 0.05 * force * length
        vertices = vertices + 0.5 * tangential + step[:, None] * normals
        # In noise without a head the surface would run away.
        vertices = np.clip(vertices, -1.0, np.asarray(volume.shape, float))
    return _inside(vertices, faces, volume.shape)


def _looked_up(
    volume: NDArray[Any],
    vertices: NDArray[np.float64],
    normals: NDArray[np.float64],
    depths: NDArray[Any],
) -> NDArray[Any]:
    """Intensities (vertex, depth) along the inward normals, nearest voxel."""
    points = vertices[:, None, :] - depths[None, :, None] * normals[:, None, :]
    index = np.rint(points).astype(np.intp)
    for axis, size in enumerate(volume.shape):
        np.clip(index[..., axis], 0, size - 1, out=index[..., axis])
    return np.asarray(volume[index[..., 0], index[..., 1], index[..., 2]])


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.intp]) -> NDArray[np.float64]:
    """Outward unit normals at the vertices, from the faces around them."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(
                faces[:, k], weights=across[:, axis], minlength=len(vertices)
            )
    return normals / np.maximum(np.sqrt((normals**2).sum(axis=1, keepdims=True)), 1e-12)


@lru_cache(maxsize=1)
def _sphere() -> tuple[NDArray[np.float64], NDArray[np.intp], Any]:
    """Unit sphere from an icosahedron: vertices, outward faces, neighbour averaging matrix."""
    from scipy import sparse

    golden = (1 + 5**0.5) / 2
    points = [
        (-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0),
        (0, -1, golden), (0, 1, golden), (0, -1, -golden), (0, 1, -golden),
        (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1),
    ]  # fmt: skip
    faces = [
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11),
        (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6), (7, 1, 8),
        (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9),
        (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1),
    ]  # fmt: skip
    vertices = [np.asarray(point, float) / np.linalg.norm(point) for point in points]
    for _ in range(_SUBDIVISIONS):
        middles: dict[tuple[int, int], int] = {}
        finer = []
        for a, b, c in faces:
            ab, bc, ca = (
                _middle_vertex(pair, vertices, middles) for pair in ((a, b), (b, c), (c, a))
            )
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = finer
    corners = np.asarray(faces, dtype=np.intp)
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    count = len(vertices)
    touches = sparse.coo_matrix(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count)
    ).tocsr()
    averaging = sparse.diags(1.0 / np.asarray(touches.sum(axis=1)).ravel()) @ touches
    return np.asarray(vertices), corners, averaging


def _middle_vertex(
    pair: tuple[int, int],
    vertices: list[NDArray[np.float64]],
    middles: dict[tuple[int, int], int],
) -> int:
    """Index of the vertex halfway between two, made once for both faces that share the edge."""
    key = (min(pair), max(pair))
    if key not in middles:
        between = vertices[pair[0]] + vertices[pair[1]]
        vertices.append(between / np.linalg.norm(between))
        middles[key] = len(vertices) - 1
    return middles[key]


def _inside(
    vertices: NDArray[np.float64], faces: NDArray[np.intp], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Voxels within a closed surface: its faces are drawn densely and the hole is filled."""
    from scipy import ndimage

    a, b, c = (vertices[faces[:, k]] for k in range(3))
    longest = max(
        float(np.sqrt(((p - q) ** 2).sum(axis=1)).max()) for p, q in ((a, b), (b, c), (c, a))
    )
    steps = max(4, int(np.ceil(longest / 0.5)))
    drawn = np.zeros([size + 4 for size in shape], dtype=bool)
    for i in range(steps + 1):
        for j in range(steps + 1 - i):
            u, v = i / steps, j / steps
            index = np.rint(u * a + v * b + (1 - u - v) * c).astype(np.intp) + 2
            for axis, size in enumerate(drawn.shape):
                np.clip(index[:, axis], 0, size - 1, out=index[:, axis])
            drawn[index[:, 0], index[:, 1], index[:, 2]] = True
    return np.asarray(ndimage.binary_fill_holes(drawn)[2:-2, 2:-2, 2:-2], dtype=bool)
