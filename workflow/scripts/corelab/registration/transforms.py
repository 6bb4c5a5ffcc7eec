"""Transforms between images: reading, writing, composing and applying them.

A transform is kept as the list of files that ANTs takes: ITK affine matrices (``.mat``) and
displacement fields (``.nii.gz``). ITK counts millimetres in LPS (left, posterior, superior),
nibabel in RAS; everything that leaves this module is in RAS.

**Direction.** A list that brings an *image* from ``moving`` to ``fixed`` maps *points* from
``fixed`` to ``moving``, in the order of the list: to fill a voxel of the fixed grid, one asks where
in the moving image it lies.

Applying is done here with nibabel and scipy, not by ITK: ITK takes the qform of a header where
nibabel takes the sform, and reads a truncated file as zeros silently. A test holds the
results against ``ants.apply_transforms``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import io, ndimage

from corelab.imaging.geometry import linear_at
from corelab.imaging.nifti import packed
from corelab.provenance.products import atomic_path

#: Turns RAS millimetres into LPS and back.
RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FLIP = np.array([-1, -1, 1], dtype=np.float32)

#: Points handled at once, so that a 1 mm template grid needs megabytes and not gigabytes.
_CHUNK = 1 << 20

INTERPOLATIONS = ("linear", "nearest", "label")


@dataclass(frozen=True)
class Affine:
    """A 4x4 matrix on RAS millimetres."""

    matrix: np.ndarray

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of shape (n, 3)."""
        return points_mm @ self.matrix[:3, :3].T + self.matrix[:3, 3]


@dataclass(frozen=True)
class Warp:
    """A displacement field: RAS millimetres to be added, on a grid with a RAS affine.

    Outside the field's grid the displacement is zero, as in ITK.
    """

    displacement_mm: np.ndarray  # (3, nx, ny, nz)
    affine: np.ndarray

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of shape (n, 3)."""
        to_voxel = np.linalg.inv(self.affine)
        voxel = (points_mm @ to_voxel[:3, :3].T + to_voxel[:3, 3]).T
        shape = np.array(self.displacement_mm.shape[1:])[:, None]
        inside = np.all((voxel >= -0.5) & (voxel <= shape - 0.5), axis=0)
        places = np.ascontiguousarray(voxel[:, inside])
        moved = np.array(points_mm, dtype=float)
        for axis, component in enumerate(self.displacement_mm):
            moved[inside, axis] += linear_at(component, places, mode="nearest", dtype=np.float64)
        return moved


Step = Affine | Warp


def write_affine(matrix: np.ndarray, path: str | Path) -> Path:
    """Write a 4x4 matrix on RAS points as an ITK affine file (MATLAB 4, LPS).

    Parameters
    ----------
    matrix
        Maps RAS millimetres of the fixed space to RAS millimetres of the moving space.
    path
        Ends in ``.mat``.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> shift = np.eye(4); shift[:3, 3] = 1, 2, 3
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_affine(write_affine(shift, pathlib.Path(folder, "a.mat")))[:3, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    lps = RAS_LPS @ np.asarray(matrix, dtype=float) @ RAS_LPS
    parameters = np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])[:, None]
    with atomic_path(path) as temporary:
        io.savemat(
            str(temporary),
            {"AffineTransform_double_3_3": parameters, "fixed": np.zeros((3, 1))},
            format="4",
        )
    return Path(path)


def read_affine(path: str | Path) -> np.ndarray:
    """Read an ITK affine file as a 4x4 matrix on RAS points (fixed to moving).

    Raises
    ------
    ValueError
        If the file holds no three-dimensional affine, rigid or Euler matrix.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bool((read_affine(write_affine(np.eye(4), f"{folder}/a.mat")) == np.eye(4)).all())
    True
    """
    content = io.loadmat(str(path))
    names = [name for name in content if name.endswith("_3_3") and content[name].size == 12]
    if len(names) != 1 or "fixed" not in content:
        raise ValueError(
            f"{path}: no 3D matrix transform in it (found {sorted(content)}); "
            "expected an ITK .mat file with 12 parameters"
        )
    parameters = content[names[0]].ravel().astype(float)
    linear = parameters[:9].reshape(3, 3)
    centre = content["fixed"].ravel().astype(float)
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = parameters[9:] + centre - linear @ centre
    return RAS_LPS @ lps @ RAS_LPS


def write_warp(warp: Warp, path: str | Path) -> Path:
    """Write a displacement field as ANTs stores it (five axes, vectors in LPS), same bytes always.

    Examples
    --------
    >>> import tempfile
    >>> field = np.zeros((3, 4, 4, 4), np.float32); field[0] = 2.0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = read_warp(write_warp(Warp(field, np.eye(4)), f"{folder}/w.nii.gz"))
    >>> bool((again.displacement_mm == field).all())
    True
    """
    lps = np.moveaxis(warp.displacement_mm, 0, -1)[:, :, :, None, :] * _FLIP
    image = nib.Nifti1Image(lps.astype(np.float32), warp.affine)
    image.header.set_intent("vector")
    image.set_qform(warp.affine, 1)
    image.set_sform(warp.affine, 1)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        temporary.write_bytes(packed(image.to_bytes()))
    return Path(path)


def read_warp(path: str | Path) -> Warp:
    """Read an ANTs displacement field.

    Raises
    ------
    ValueError
        If the image is not a field of three-dimensional vectors.

    Examples
    --------
    >>> import tempfile
    >>> warp = Warp(np.zeros((3, 4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_warp(write_warp(warp, f"{folder}/w.nii.gz")).displacement_mm.shape
    (3, 4, 5, 6)
    """
    image: Any = nib.load(str(path))
    if image.ndim != 5 or image.shape[3:] != (1, 3):
        raise ValueError(f"{path}: shape {image.shape} is not a displacement field (x, y, z, 1, 3)")
    lps = np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0, :]
    ras = np.moveaxis(lps * _FLIP, -1, 0)
    return Warp(np.ascontiguousarray(ras), image.affine)


def read_steps(paths: Sequence[str | Path], inverted: Sequence[bool] | None = None) -> list[Step]:
    """Read a list of transform files; neighbouring matrices become one.

    Parameters
    ----------
    paths
        In ANTs order.
    inverted
        Which matrices to invert (``whichtoinvert``); default none.

    Raises
    ------
    ValueError
        If the two lists differ in length, or a displacement field is to be inverted.

    Examples
    --------
    >>> import tempfile
    >>> shift = np.eye(4); shift[0, 3] = 5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_affine(shift, f"{folder}/a.mat")
    ...     steps = read_steps([file, file, file], [False, True, False])
    >>> len(steps), float(steps[0].matrix[0, 3])
    (1, 5.0)
    """
    flags = [False] * len(paths) if inverted is None else list(inverted)
    if len(flags) != len(paths):
        raise ValueError(f"{len(paths)} transforms but {len(flags)} marks of inversion")
    steps: list[Step] = []
    for path, inverse in zip(paths, flags, strict=True):
        if Path(path).suffix == ".mat":
            matrix = read_affine(path)
            matrix = np.linalg.inv(matrix) if inverse else matrix
            before = steps[-1] if steps else None
            if isinstance(before, Affine):
                steps[-1] = Affine(matrix @ before.matrix)  # the earlier one acts first
            else:
                steps.append(Affine(matrix))
        elif inverse:
            raise ValueError(f"{path}: a displacement field cannot be inverted; give its inverse")
        else:
            steps.append(read_warp(path))
    return steps


def transform_points(
    points_mm: np.ndarray,
    transforms: Sequence[str | Path | Affine | Warp],
    inverted: Sequence[bool] | None = None,
) -> np.ndarray:
    """Map points through transforms, RAS millimetres in and out.

    Parameters
    ----------
    points_mm
        Shape (n, 3). With the list that brings an image from native space to the template these
        are points of the template, and the result are points of native space.
    transforms
        Files in ANTs order, or steps that are read already.
    inverted
        Which of the files (matrices only) to invert.

    Returns
    -------
    numpy.ndarray
        Shape (n, 3), float64.

    Examples
    --------
    >>> import tempfile
    >>> shift = np.eye(4); shift[:3, 3] = 10, 0, 0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_affine(shift, f"{folder}/a.mat")
    ...     forth = transform_points(np.array([[1.0, 2, 3]]), [file])
    ...     back = transform_points(forth, [file], [True])
    >>> forth.tolist(), back.tolist()
    ([[11.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]])
    """
    points = np.array(points_mm, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points_mm has shape {points.shape}; expected (n, 3)")
    for step in _as_steps(transforms, inverted):
        points = step(points)
    return points


def apply_transforms(
    image: nib.Nifti1Image,
    reference: nib.Nifti1Image,
    transforms: Sequence[str | Path | Affine | Warp],
    interpolation: str = "linear",
    *,
    inverted: Sequence[bool] | None = None,
) -> nib.Nifti1Image:
    """Bring an image onto the grid of a reference.

    Parameters
    ----------
    image
        3D image in moving space.
    reference
        Gives shape and affine of the result.
    transforms, inverted
        As in :func:`transform_points`: the list that brings an image from moving to fixed.
    interpolation
        ``linear`` (outside the image: 0), ``nearest``, or ``label``: each label's indicator is
        interpolated linearly and the largest wins, which for a mask is the 0.5 level of its smooth
        surface. The labels are the values that occur.

    Returns
    -------
    nibabel.Nifti1Image
        float32 for ``linear``, else the dtype of the image's data.

    Examples
    --------
    >>> import tempfile
    >>> data = np.zeros((5, 5, 5), np.uint8); data[3, 2, 2] = 1
    >>> mask = nib.Nifti1Image(data, np.eye(4))
    >>> shift = np.eye(4); shift[0, 3] = 1         # fixed point x lies at moving point x + 1
    >>> moved = apply_transforms(mask, mask, [Affine(shift)], "nearest")
    >>> np.argwhere(np.asarray(moved.dataobj)).tolist()
    [[2, 2, 2]]
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation {interpolation!r}; known: {', '.join(INTERPOLATIONS)}")
    if image.ndim != 3:
        raise ValueError(f"apply_transforms takes 3D images, this one has shape {image.shape}")
    steps = _as_steps(transforms, inverted)
    shape = reference.shape[:3]
    if not steps and image.shape == shape and np.array_equal(image.affine, reference.affine):
        kept = np.float32 if interpolation == "linear" else None
        return nib.Nifti1Image(np.array(image.dataobj, kept), image.affine)
    sampler = Sampler(np.asarray(image.dataobj), image.affine, interpolation)
    result = np.zeros(shape, sampler.dtype)
    box = tuple(slice(0, size) for size in shape)
    if all(isinstance(step, Affine) for step in steps):
        # Matrices alone: the corners of what is not 0 bound which part of the grid it can reach.
        matrix = np.eye(4)
        for step in steps:
            matrix = step.matrix @ matrix  # type: ignore[union-attr]
        corners = Affine(np.linalg.inv(matrix @ reference.affine))(sampler.corners_mm)
        box = grid_box(corners, shape)
    part_shape = tuple(part.stop - part.start for part in box)
    origin = reference.affine.copy()
    origin[:3, 3] += reference.affine[:3, :3] @ [part.start for part in box]
    values = np.zeros(int(np.prod(part_shape)), sampler.dtype)
    for part, points in grid_points(part_shape, origin):
        for step in steps:
            points = step(points)
        values[part] = sampler(points)
    result[box] = values.reshape(part_shape)
    moved = nib.Nifti1Image(result, reference.affine)
    moved.set_qform(reference.affine, 1)
    moved.set_sform(reference.affine, 1)
    return moved


class Sampler:
    """Values of an image at world points; points far from anything but 0 cost nothing.

    Interpolations as in :func:`apply_transforms`. ``corners_mm`` are the eight world points
    (RAS) around all that is not 0; beyond them every value is 0.
    """

    def __init__(self, data: np.ndarray, affine: np.ndarray, interpolation: str) -> None:
        self.interpolation = interpolation
        self.to_voxel = np.linalg.inv(affine)
        self.dtype = np.dtype(np.float32) if interpolation == "linear" else data.dtype
        occupied = ndimage.find_objects((data != 0).astype(np.uint8))
        self.empty = not occupied
        self.corners_mm = np.empty((0, 3))
        if self.empty:
            return
        # One voxel of zeros around what is not zero: interpolation at the rim needs it.
        low = np.array([s.start for s in occupied[0]])
        high = np.array([s.stop for s in occupied[0]])
        self.data = np.pad(data[occupied[0]], 1)
        self.offset = low - 1
        self.size = high - low + 2
        ends = np.array([self.offset, self.offset + self.size - 1])
        picks = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        voxel = ends[picks, np.arange(3)]
        self.corners_mm = voxel @ affine[:3, :3].T + affine[:3, 3]
        if interpolation == "label":
            self.labels = [value for value in np.unique(self.data) if value != 0]

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """Values at points of shape (n, 3)."""
        values = np.zeros(len(points_mm), self.dtype)
        if self.empty:
            return values
        voxel = (points_mm @ self.to_voxel[:3, :3].T + (self.to_voxel[:3, 3] - self.offset)).T
        near = np.all((voxel > 0) & (voxel < (self.size - 1)[:, None]), axis=0)
        voxel = voxel[:, near]
        if self.interpolation == "linear":
            values[near] = linear_at(self.data, voxel, dtype=np.float32)
        elif self.interpolation == "nearest":
            values[near] = ndimage.map_coordinates(self.data, voxel, order=0, mode="constant")
        else:
            best = np.full(voxel.shape[1], 0.5, np.float32)
            chosen = np.zeros(voxel.shape[1], self.dtype)
            for label in self.labels:
                share = linear_at(self.data == label, voxel)
                wins = share >= best
                chosen[wins], best[wins] = label, share[wins]
            values[near] = chosen
        return values


def jacobian_determinant(warp: Warp) -> np.ndarray:
    """Determinant of the Jacobian of a displacement field at each of its voxels.

    Above 1 the moving image is shrunk on its way to the fixed grid, below 0 the field folds.
    Central differences within, one-sided at the rim.

    Examples
    --------
    >>> grid = np.indices((6, 6, 6)).astype(float)
    >>> stretched = Warp(0.1 * grid, np.eye(4))      # x -> 1.1 x on every axis
    >>> round(float(jacobian_determinant(stretched)[3, 3, 3]), 6)
    1.331
    """
    to_voxel = np.linalg.inv(warp.affine)[:3, :3]
    jacobian = np.empty((*warp.displacement_mm.shape[1:], 3, 3), np.float32)
    for axis, component in enumerate(warp.displacement_mm):
        by_voxel = np.stack(np.gradient(component.astype(np.float32)), axis=-1)
        jacobian[..., axis, :] = by_voxel @ to_voxel.astype(np.float32)
        jacobian[..., axis, axis] += 1.0
    return np.asarray(np.linalg.det(jacobian))


def grid_points(shape: Sequence[int], affine: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """World points (RAS millimetres) of a grid, piece by piece, in the order of a flat C array.

    Examples
    --------
    >>> [(part.start, points.tolist()) for part, points in grid_points((1, 1, 2), np.eye(4))]
    [(0, [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])]
    """
    total = int(np.prod(shape))
    for start in range(0, total, _CHUNK):
        part = slice(start, min(start + _CHUNK, total))
        voxel = np.stack(np.unravel_index(np.arange(part.start, part.stop), tuple(shape)), axis=1)
        yield part, voxel @ affine[:3, :3].T + affine[:3, 3]


def _as_steps(transforms: Sequence[Any], inverted: Sequence[bool] | None) -> list[Step]:
    if all(isinstance(item, (str, Path)) for item in transforms):
        return read_steps(transforms, inverted)
    if inverted is not None or not all(isinstance(item, (Affine, Warp)) for item in transforms):
        raise ValueError("give transform files (with marks of inversion) or steps, not a mixture")
    return list(transforms)


def grid_box(voxel: np.ndarray, shape: Sequence[int]) -> tuple[slice, ...]:
    """Part of a grid that holds voxel positions, with a rim of one; empty if there are none.

    Examples
    --------
    >>> grid_box(np.array([[2.5, 3.0], [4.0, 9.0]]), (9, 9))
    (slice(1, 6, None), slice(2, 9, None))
    """
    if not len(voxel):
        return tuple(slice(0, 0) for _ in shape)
    low = np.clip(np.floor(voxel.min(axis=0)).astype(int) - 1, 0, shape)
    high = np.clip(np.ceil(voxel.max(axis=0)).astype(int) + 2, low, shape)
    return tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
