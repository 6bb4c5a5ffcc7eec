"""World coordinates of voxels: volumes, grids, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

#: Two grids are one grid when no voxel of theirs lies further apart than this.
SAME_PLACE_MM = 0.1


def voxel_volume_ml(image: Any) -> float:
    """Volume of one voxel, from the determinant of the affine.

    The determinant holds for oblique and flipped grids, where a product of header spacings
    holds only if the header agrees with itself.

    Parameters
    ----------
    image
        Any nibabel spatial image (world coordinates in mm).

    Returns
    -------
    float
        Volume in mL.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.diag([-1.2, 1.2, 5, 1]))
    >>> round(voxel_volume_ml(image), 6)
    0.0072
    """
    return _voxel_volume_mm3(image.affine) / 1000.0


def _voxel_volume_mm3(affine: NDArray[Any]) -> float:
    """Absolute determinant as a triple product, which is exact where an LU is not (diagonals)."""
    x, y, z = np.asarray(affine, float)[:3, :3].T
    return float(abs(np.dot(np.cross(x, y), z)))


def mask_volume_ml(mask_image: Any) -> float:
    """Volume of the nonzero voxels of a mask.

    Parameters
    ----------
    mask_image
        A nibabel image; every voxel that is not zero counts whole. NaN does not count.

    Returns
    -------
    float
        Volume in mL: number of nonzero voxels times the absolute determinant of the affine, over
        1000. An empty mask is 0.0, a true result.

    Examples
    --------
    >>> voxels = np.zeros((10, 10, 10), np.uint8); voxels[2:4, 2:4, 2:7] = 1
    >>> mask_volume_ml(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])))
    0.4
    """
    voxels = np.asanyarray(mask_image.dataobj)
    count = int(np.count_nonzero(voxels))
    if np.issubdtype(voxels.dtype, np.inexact):
        count -= int(np.count_nonzero(np.isnan(voxels)))
    return count * _voxel_volume_mm3(mask_image.affine) / 1000.0


def voxel_sizes_mm(affine: NDArray[Any]) -> NDArray[np.float64]:
    """Distance between neighbouring voxels along each array axis, in mm.

    Examples
    --------
    >>> voxel_sizes_mm(np.diag([-1.2, 1.2, 5.0, 1.0])).tolist()
    [1.2, 1.2, 5.0]
    """
    return np.sqrt((np.asarray(affine, float)[:3, :3] ** 2).sum(axis=0))


def affine_distance_mm(first: NDArray[Any], second: NDArray[Any], shape: Sequence[int]) -> float:
    """Greatest distance between the places that two affines give to one voxel of a grid.

    Parameters
    ----------
    first, second
        Affines (4, 4), voxel to world in mm.
    shape
        Shape of the grid; the first three count. The greatest distance lies at a corner.

    Returns
    -------
    float
        Distance in mm.

    Examples
    --------
    >>> affine_distance_mm(np.eye(4), np.diag([1, 1, 1.1, 1]), (10, 10, 11))
    1.0
    """
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in shape[:3]], indexing="ij"))
    corners = np.vstack([ends.reshape(3, -1), np.ones(8)])
    shift = (np.asarray(first, float) - np.asarray(second, float)) @ corners
    return float(np.round(np.sqrt((shift[:3] ** 2).sum(axis=0)).max(), 9))


def in_memory(image: Any) -> nib.Nifti1Image:
    """Image whose voxels are read: those of a file are unpacked each time that they are used.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    >>> in_memory(image).get_data_dtype()
    dtype('uint8')
    """
    return nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)


def same_grid(first: Any, second: Any, *, tolerance_mm: float = SAME_PLACE_MM) -> bool:
    """Whether two images have the same voxels in the same places.

    Examples
    --------
    >>> scan = nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4))
    >>> same_grid(scan, nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    True
    """
    return first.shape[:3] == second.shape[:3] and (
        affine_distance_mm(first.affine, second.affine, first.shape) <= tolerance_mm
    )


def resample_to(image: Any, reference: Any, *, order: int) -> nib.Nifti1Image:
    """Resample an image onto another image's grid by world coordinates (the headers alone).

    Parameters
    ----------
    image
        3D or 4D image (each frame is resampled by itself).
    reference
        Image whose first three axes give the grid.
    order
        Spline order: 0 (nearest voxel) for masks and labels, 1 (linear) for images.

    Returns
    -------
    nibabel.Nifti1Image
        On the grid of ``reference``, in the data type of ``image`` for order 0, else float32.
        What lies outside of ``image`` is 0.

    Raises
    ------
    ValueError
        If ``order`` is not 0 to 3.

    Examples
    --------
    >>> fine = nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4))
    >>> coarse = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.diag([2.0, 2, 2, 1]))
    >>> resample_to(fine, coarse, order=0).shape
    (4, 4, 4)
    """
    from scipy import ndimage

    if order not in (0, 1, 2, 3):
        raise ValueError(f"order is {order}; it must be 0 (labels), 1 (linear), 2 or 3")
    voxels = np.asanyarray(image.dataobj)
    if order > 0:
        voxels = np.asarray(voxels, dtype=np.float32)
    shape = tuple(int(size) for size in reference.shape[:3])
    if image.shape[:3] == shape and np.allclose(image.affine, reference.affine, atol=1e-6):
        return nib.Nifti1Image(voxels.copy(), reference.affine)
    to_voxel = np.linalg.inv(image.affine) @ reference.affine
    # Snapping to 1e-9 voxel keeps a nearest-voxel choice from hanging on the last bit.
    to_voxel = np.round(to_voxel, 9)

    matrix, offset = to_voxel[:3, :3], to_voxel[:3, 3]
    along_axes = order == 0 and not (matrix - np.diag(np.diag(matrix))).any()

    def one(frame: NDArray[Any]) -> NDArray[Any]:
        if order == 1:
            return linear_grid(
                frame, to_voxel[:3, :3], to_voxel[:3, 3], shape, mode="grid-constant"
            )
        out = np.zeros(shape, dtype=voxels.dtype)
        if along_axes:  # Equal to the general case voxel by voxel, in a tenth of the time.
            places = [
                m * np.arange(n) + o for m, n, o in zip(np.diag(matrix), shape, offset, strict=True)
            ]
            inside = [(x >= 0) & (x <= n - 1) for x, n in zip(places, frame.shape, strict=True)]
            taken = [np.floor(x[i] + 0.5).astype(int) for x, i in zip(places, inside, strict=True)]
            out[np.ix_(*inside)] = frame[np.ix_(*taken)]
            return out
        ndimage.affine_transform(  # type: ignore[call-overload]
            frame,
            matrix,
            offset=offset,
            output_shape=shape,
            output=out,
            order=order,
            mode="grid-constant" if order else "constant",
        )
        return out

    if voxels.ndim == 3:
        out = one(voxels)
    else:
        out = np.stack([one(voxels[..., t]) for t in range(voxels.shape[3])], axis=-1)
    return nib.Nifti1Image(out, reference.affine)


def distance_mm(mask: NDArray[np.bool_], sizes: Any = 1.0) -> NDArray[np.float64]:
    """Distance of each voxel of a mask to the nearest one outside it (0 outside).

    The values are those of ``scipy.ndimage.distance_transform_edt``, in a quarter of the time.

    Parameters
    ----------
    mask
        2D or 3D.
    sizes
        Voxel sizes in mm, one or one for each axis.

    Examples
    --------
    >>> distance_mm(np.array([[False, True, True]]), (1.0, 2.0)).tolist()
    [[0.0, 2.0, 4.0]]
    """
    mask = np.ascontiguousarray(mask, dtype=bool)
    if mask.all():
        # There is nothing to be near to.
        from scipy import ndimage

        return np.asarray(ndimage.distance_transform_edt(mask, sampling=sizes))
    from corelab.imaging.kernels import squared_distances

    spacing = np.ones(3)
    spacing[3 - mask.ndim :] = sizes
    out = squared_distances(mask.reshape((1,) * (3 - mask.ndim) + mask.shape), spacing)
    return np.asarray(np.sqrt(out, out=out).reshape(mask.shape))


def smoothed(values: NDArray[Any], sigma: Any, *, truncate: float = 4.0) -> NDArray[Any]:
    """A 3D array smoothed by a Gaussian, mirrored at its edges.

    The values are those of ``scipy.ndimage.gaussian_filter``, in half the time; float64 stays
    float64, all else gives float32.

    Parameters
    ----------
    values
        Array of three axes.
    sigma
        Standard deviation in voxels, one or one for each axis.
    truncate
        Reach of the filter in standard deviations.

    Examples
    --------
    >>> point = np.zeros((1, 1, 5)); point[0, 0, 2] = 1
    >>> smoothed(point, (0, 0, 0.5)).round(3).ravel().tolist()
    [0.0, 0.106, 0.787, 0.106, 0.0]
    """
    from corelab.imaging.kernels import smooth_axis

    values = _floats(values)
    for axis, width in enumerate(np.broadcast_to(np.asarray(sigma, float), 3)):
        if width <= 1e-15:
            continue
        away = np.arange(int(truncate * width + 0.5) + 1)
        heights = np.exp(-0.5 / (width * width) * away**2)
        both = np.concatenate([heights[:0:-1], heights])
        outer, size = int(np.prod(values.shape[:axis])), values.shape[axis]
        lines = values.reshape(outer, size, -1)
        out = np.empty_like(lines)
        smooth_axis(lines, heights / both.sum(), out)
        values = out.reshape(values.shape)
    return values


def without_holes(mask: NDArray[np.bool_], *, within_slices: bool = False) -> NDArray[np.bool_]:
    """A 3D mask with what it encloses.

    The values are those of ``scipy.ndimage.binary_fill_holes``, in half the time.

    Parameters
    ----------
    mask
        Boolean, three axes.
    within_slices
        Fill each plane of the first two axes by itself.

    Examples
    --------
    >>> ring = np.ones((3, 3, 1), bool); ring[1, 1] = False
    >>> bool(without_holes(ring)[1, 1, 0]), bool(without_holes(ring, within_slices=True)[1, 1, 0])
    (False, True)
    """
    from corelab.imaging.kernels import around

    mask = np.ascontiguousarray(mask, dtype=bool)
    box = box_of(mask)
    filled = mask.copy()
    # The edge of the box stands for all that lies around it.
    filled[box] = ~around(np.ascontiguousarray(mask[box]), within_slices)
    return filled


def box_of(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds all of a 3D mask; empty for an empty mask.

    Examples
    --------
    >>> mask = np.zeros((4, 5, 6), bool); mask[1:3, 2, 4:] = True
    >>> [(part.start, part.stop) for part in box_of(mask)]
    [(1, 3), (2, 3), (4, 6)]
    """
    lines = [np.asarray(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    ends = [np.flatnonzero(line)[[0, -1]] if line.any() else np.array([0, -1]) for line in lines]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _linear_mode(mode: str) -> int:
    from corelab.imaging import kernels

    modes = {
        "constant": kernels.CONSTANT,
        "nearest": kernels.NEAREST,
        "grid-constant": kernels.GRID_CONSTANT,
    }
    return modes[mode]


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    kept = values.dtype if values.dtype == np.float64 else np.float32
    return np.ascontiguousarray(values, dtype=kept)


def linear_grid(
    values: NDArray[Any],
    matrix: NDArray[Any],
    shift: Any,
    shape: Sequence[int],
    *,
    mode: str = "constant",
    beyond: float = 0.0,
) -> NDArray[Any]:
    """A 3D array at ``matrix @ index + shift`` of a grid, linear between voxels.

    The values are those of ``scipy.ndimage.affine_transform`` with order 1, in a quarter of the
    time; float64 stays float64, all else gives float32.

    Parameters
    ----------
    values
        Array of three axes.
    matrix, shift
        (3, 3) and (3,), voxels of the grid to voxels of ``values``.
    shape
        Shape of the grid.
    mode, beyond
        Outside of the array: ``constant`` (``beyond``), ``nearest`` (the edge) or
        ``grid-constant`` (voxels of ``beyond`` around it).

    Examples
    --------
    >>> ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    >>> linear_grid(ramp, np.eye(3), (0, 0, 0.5), (1, 1, 4), mode="nearest").ravel().tolist()
    [0.5, 1.5, 2.5, 3.0]
    """
    from corelab.imaging import kernels

    values = _floats(values)
    out = np.empty(tuple(int(size) for size in shape), dtype=values.dtype)
    places = (np.ascontiguousarray(one, dtype=np.float64) for one in (matrix, shift))
    kernels.linear_grid(values, *places, _linear_mode(mode), float(beyond), out)
    return out


def linear_at(
    values: NDArray[Any],
    points: Any,
    *,
    mode: str = "constant",
    beyond: float = 0.0,
    dtype: Any = None,
) -> NDArray[Any]:
    """A 3D array at places in voxels, (3, ...), as :func:`linear_grid`.

    The values are those of ``scipy.ndimage.map_coordinates`` with order 1; ``dtype`` is that of
    the result, if it is another one than that of ``values``.

    Examples
    --------
    >>> ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    >>> linear_at(ramp, np.array([[0, 0], [0, 0], [0.5, 9]]), beyond=7).tolist()
    [0.5, 7.0]
    """
    from corelab.imaging import kernels

    values = _floats(values)
    points = _floats(np.asarray(points))
    out = np.empty(points.shape[1:], dtype=dtype or values.dtype)
    flat = np.ascontiguousarray(points.reshape(3, -1))
    kernels.linear_points(values, flat, _linear_mode(mode), float(beyond), out.reshape(-1))
    return out


def orthonormal_affine(affine: NDArray[Any], shape: Sequence[int]) -> NDArray[np.float64]:
    """The nearest affine without shear: same voxel sizes, same centre of the grid.

    Parameters
    ----------
    affine
        Affine (4, 4).
    shape
        Shape of the grid, of which the centre stays where it is.

    Returns
    -------
    numpy.ndarray
        Affine (4, 4) whose direction cosines are orthonormal (polar decomposition).

    Examples
    --------
    >>> bent = np.eye(4); bent[0, 1] = 1e-4
    >>> cosines = orthonormal_affine(bent, (5, 5, 5))[:3, :3]
    >>> bool(np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-7))
    True
    """
    affine = np.asarray(affine, float)
    sizes = voxel_sizes_mm(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)
    out = np.eye(4)
    out[:3, :3] = (left @ right) * sizes
    centre = np.append((np.asarray(shape[:3], float) - 1) / 2, 1.0)
    out[:3, 3] = (affine @ centre)[:3] - out[:3, :3] @ centre[:3]
    return out
