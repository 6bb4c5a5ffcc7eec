"""Series on a fine grid: analysed on one of about 1 mm, with maps and masks on their own grid.

A native CT grid (512 x 512, 0.45 mm) holds five times the voxels of the 1 mm that a perfusion
signal resolves. Averaging neighbours first costs nothing in resolution after smoothing, and takes
a share of the noise, of the time and of the memory.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

#: Voxels finer than this in the plane (mm) are averaged to about 1 mm.
FINE_MM = 0.75
WORKING_MM = 1.0


def blocks(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    """Voxels along each in-plane axis that are averaged.

    Examples
    --------
    >>> blocks(np.diag([0.45, 0.45, 5.0, 1.0]), (512, 512, 16, 40))
    (2, 2)
    """
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[:2]
    along = [
        max(1, round(WORKING_MM / size)) if size < FINE_MM and n > 64 else 1
        for size, n in zip(sizes, shape[:2], strict=True)
    ]
    return along[0], along[1]


def averaged(values: np.ndarray, along: tuple[int, int]) -> np.ndarray:
    """Block means (float32) of (x, y, z) or (x, y, z, t); the last block repeats the edge.

    Examples
    --------
    >>> averaged(np.arange(6.0).reshape(3, 2, 1), (2, 2))[..., 0].tolist()
    [[1.5], [4.5]]
    """
    parts = []
    for axis, size in enumerate(along):
        n = values.shape[axis]
        parts.append(np.minimum(np.arange(-(-n // size) * size), n - 1).reshape(-1, size))
    shape = (len(parts[0]), len(parts[1]), *values.shape[2:])
    mean = np.zeros(shape, np.float32)
    for i in range(along[0]):
        for j in range(along[1]):
            mean += values[np.ix_(parts[0][:, i], parts[1][:, j])]
    return mean / np.float32(along[0] * along[1])


def coarse_affine(affine: np.ndarray, along: tuple[int, int]) -> np.ndarray:
    """Affine of the block means.

    Examples
    --------
    >>> coarse_affine(np.eye(4), (2, 2))[:2, 3].tolist()
    [0.5, 0.5]
    """
    steps = np.array([*along, 1.0])
    coarse = affine @ np.diag([*steps, 1.0])
    coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((steps - 1.0) / 2.0)
    return np.asarray(coarse)


def refined(series: Any, along: tuple[int, int], brain: np.ndarray, affine: np.ndarray) -> Any:
    """An analysed series of the coarse grid back on the fine grid, each value repeated over its
    block.

    ``along`` is of :func:`blocks`; ``brain`` and ``affine`` of the fine grid. Masks end where the
    fine brain ends; vessels' voxels are the middle of their block.
    """
    coarse, fine = series.brain.shape, brain.shape
    step = np.array([*along, 1])

    def repeated(array: np.ndarray) -> np.ndarray:
        if array.shape[:3] != coarse:
            return array
        # Written once: a fine series is the largest array of the analysis.
        full = np.empty((coarse[0] * along[0], coarse[1] * along[1], *array.shape[2:]), array.dtype)
        cells = full.reshape(coarse[0], along[0], coarse[1], along[1], *array.shape[2:])
        cells[...] = array[:, None, :, None]
        return full[: fine[0], : fine[1]]

    def spread(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return repeated(value)
        if isinstance(value, dict):
            return {name: spread(one) for name, one in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            changes = {f.name: spread(getattr(value, f.name)) for f in fields(value)}
            if "voxels" in changes:
                middle = changes["voxels"] * step + step // 2
                changes["voxels"] = np.minimum(middle, np.array(fine) - 1)
            return replace(value, **changes)
        return value

    whole = spread(series)
    # Slices without signal are no brain.
    brain = brain & whole.brain.any(axis=(0, 1))
    masks = {name: getattr(whole, name) & brain for name in ("tissue", "grey")}
    return replace(whole, affine=affine, brain=brain, **masks)
