"""One participant's anatomy: the template under a smooth diffeomorphism and an affine, both known.

Spaces (world coordinates in mm, RAS):

* template: MNI152 2009a symmetric;
* subject: the participant's own head, before it is laid into a scanner;
* scanner: the subject's head after a rigid placement that differs from scan to scan.

``to_template`` and ``to_subject`` are the truth of target registration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from corelab.imaging.geometry import linear_at
from corelab.phantom.seeds import generator

Points = NDArray[np.float64]

_CORNER_MM = np.array([-126.0, -162.0, -126.0])  # of the box on which displacements are known
_COARSE_MM = 6.0
_COARSE_SHAPE = (43, 50, 43)
_SMOOTHNESS_MM, _MEAN_DISPLACEMENT_MM = 19.0, 3.6  # SD of the velocity's Gaussian; over the brain
#: Edge that scipy lays around an array before it fits a spline to it.
_RIM = 12
_KNOT_VOXELS = 3  # a mapping is evaluated at every 3rd voxel and interpolated between


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Mapping between one participant's head and the template.

    Attributes
    ----------
    linear, shift_mm
        The affine part: ``linear @ point + shift_mm`` leads from subject towards template.
    displacement_mm
        The nonlinear part, (3, nx, ny, nz) on a 3 mm grid, linear between the nodes:
        ``to_template(p) = q + displacement(q)`` with ``q = linear @ p + shift_mm``.
    """

    participant_id: str
    linear: NDArray[np.float64]
    shift_mm: NDArray[np.float64]
    displacement_mm: NDArray[np.float32]

    def _displace(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        from corelab.imaging.kernels import displacements

        out = np.empty(points_mm.shape)
        displacements(self.displacement_mm, points_mm, _CORNER_MM, _COARSE_MM / 2, out)
        return out

    def to_template(self, points_mm: ArrayLike) -> Points:
        """Map subject points (..., 3) to template points, mm.

        Examples
        --------
        >>> anatomy = make_anatomy(1, "001")
        >>> point = np.array([[30.0, -10.0, 20.0]])
        >>> back = anatomy.to_subject(anatomy.to_template(point))
        >>> bool(np.abs(back - point).max() < 0.01)
        True
        """
        points = np.asarray(points_mm, dtype=np.float64)
        flat = _affine(points.reshape(-1, 3), self.linear, self.shift_mm)
        return cast(Points, (flat + self._displace(flat)).reshape(points.shape))

    def to_subject(self, points_mm: ArrayLike) -> Points:
        """Map template points (..., 3) to subject points, mm, by fixed-point iteration.

        ArithmeticError if it does not come to rest within 0.001 mm (a folded field).
        """
        points = np.asarray(points_mm, dtype=np.float64)
        target = points.reshape(-1, 3)
        guess = target.copy()
        for _ in range(100):
            step = target - guess - self._displace(guess)
            guess += step
            if not step.size or float(np.abs(step).max()) < 1e-3:
                break
        else:
            raise ArithmeticError(
                f"the deformation of participant {self.participant_id} cannot be inverted: the "
                f"last step is {float(np.abs(step).max()):.3g} mm"
            )
        inverse = np.linalg.inv(self.linear)
        return _affine(guess - self.shift_mm, inverse, np.zeros(3)).reshape(points.shape)

    def grid_to_template(
        self, voxel_to_subject: NDArray[np.float64], shape: tuple[int, int, int]
    ) -> NDArray[np.float32]:
        """Template coordinates of every voxel of a grid, (3, *shape), mm.

        Evaluated at every 3rd voxel and interpolated linearly, within about 0.1 mm of
        :meth:`to_template`.
        """
        knots = [np.minimum(np.arange(0, n + _KNOT_VOXELS, _KNOT_VOXELS), n) for n in shape]
        index = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).astype(np.float64)
        world = _affine(index.reshape(-1, 3), voxel_to_subject[:3, :3], voxel_to_subject[:3, 3])
        field = np.moveaxis(self.to_template(world).reshape(index.shape), -1, 0).astype(np.float32)
        return _stretch(np.ascontiguousarray(field), knots, shape)


def _affine(
    points: NDArray[np.floating], linear: NDArray[np.floating], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Affine map without BLAS, whose last bit may depend on the number of threads."""
    columns = [
        points[:, 0] * row[0] + points[:, 1] * row[1] + points[:, 2] * row[2] for row in linear
    ]
    return np.stack(columns, axis=-1) + shift


def _stretch(
    field: NDArray[np.float32], knots: Sequence[NDArray[np.int_]], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Linear interpolation of fields (c, ...) from knots along each axis to 0 .. n - 1."""
    from corelab.imaging.kernels import stretched

    lefts, shares = [], []
    for positions, n in zip(knots, shape, strict=True):
        target = np.arange(n)
        left = np.clip(np.searchsorted(positions, target, side="right") - 1, 0, len(positions) - 2)
        span = np.maximum(positions[left + 1] - positions[left], 1)
        lefts.append(left)
        shares.append(((target - positions[left]) / span).astype(np.float32))
    out = np.empty((len(field), *shape), np.float32)
    stretched(field, tuple(lefts), tuple(shares), out)
    return out


def rotation(degrees: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrix about x, then y, then z.

    Examples
    --------
    >>> np.round(rotation([0, 0, 90]) @ [1, 0, 0], 6).tolist()
    [0.0, 1.0, 0.0]
    """
    a, b, c = np.deg2rad(np.asarray(degrees, dtype=float))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return cast(NDArray[np.float64], about_z @ about_y @ about_x)


def rigid(degrees: ArrayLike, shift_mm: ArrayLike) -> NDArray[np.float64]:
    """4 x 4 rigid transform.

    Examples
    --------
    >>> rigid([0, 0, 0], [1, 2, 3])[:3, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(degrees)
    matrix[:3, 3] = np.asarray(shift_mm, dtype=float)
    return matrix


@lru_cache(maxsize=8)
def make_anatomy(seed: int, participant_id: str) -> Anatomy:
    """Draw one participant's anatomy.

    A Gaussian-smoothed random stationary velocity field is exponentiated by scaling and squaring
    (Arsigny et al. 2006, MICCAI), which makes a diffeomorphism; the affine turns by at most 4
    degrees, scales by at most 5 percent and shifts by a few mm.

    Examples
    --------
    >>> make_anatomy(1, "001").displacement_mm.shape
    (3, 85, 99, 85)
    """
    rng = generator(seed, participant_id, "anatomy")
    noise = rng.standard_normal((3, *_COARSE_SHAPE))
    sigma = _SMOOTHNESS_MM / _COARSE_MM
    velocity = np.stack([ndimage.gaussian_filter(part, sigma, mode="reflect") for part in noise])
    axes = [_CORNER_MM[a] + _COARSE_MM * np.arange(_COARSE_SHAPE[a]) for a in range(3)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    brain = (x / 70) ** 2 + ((y + 17) / 88) ** 2 + ((z - 8) / 72) ** 2 < 1
    length = np.sqrt((velocity**2).sum(axis=0))[brain].mean()
    velocity *= _MEAN_DISPLACEMENT_MM / length
    # Voxel units of the coarse grid while squaring.
    field = velocity / _COARSE_MM / 2**6
    index = np.stack(np.meshgrid(*(np.arange(n) for n in _COARSE_SHAPE), indexing="ij"))
    for _ in range(6):
        where = index + field
        field = field + np.stack([linear_at(part, where, mode="nearest") for part in field])
    fine = np.stack([_refine(part * _COARSE_MM) for part in field]).astype(np.float32)
    scales = rng.uniform(0.955, 1.045, 3)
    turn = rotation(rng.uniform(-4, 4, 3))
    return Anatomy(
        participant_id=participant_id,
        linear=turn @ np.diag(scales),
        shift_mm=rng.uniform(-4, 4, 3),
        displacement_mm=fine,
    )


def _refine(coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic spline interpolation from 6 to 3 mm (size n -> 2n - 1).

    The values are those of ``scipy.ndimage.map_coordinates`` with order 3 and mode ``nearest``.
    """
    from corelab.imaging.kernels import cubic_between

    # Weights of the node before, the node and the next two, at a node and midway to the next,
    # rounded as scipy rounds them.
    y = np.array([0.0, 0.5])
    z = 1 - y
    before, own, after = z * z * z / 6, y * y * (y - 2) * 3 + 4, z * z * (z - 2) * 3 + 4
    weights = np.stack([before, own / 6, after / 6, 1 - before - own / 6 - after / 6], axis=-1)
    coefficients = ndimage.spline_filter(np.pad(coarse, _RIM, mode="edge"), 3, mode="nearest")
    out = np.empty([2 * n - 1 for n in coarse.shape])
    cubic_between(coefficients, _RIM, weights, out)
    return out
