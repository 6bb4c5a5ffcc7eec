"""Follow-up to baseline: a rigid fit in the space half-way between the two scans.

A direct fit treats the two scans unequally: the one that moves is interpolated, the other is not,
and a change between the visits is pulled towards one of them. Half-way, both are interpolated
once by the same amount, and the fit is made in both directions.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import linalg

from corelab.registration.quality import rotation_deg, sample_points
from corelab.registration.registrar import Registrar, Transform
from corelab.registration.transforms import Affine, apply_transforms


def rigid_part(matrix: np.ndarray) -> np.ndarray:
    """Nearest rigid matrix (polar decomposition of the linear part).

    Examples
    --------
    >>> rigid_part(np.diag([1.001, 1.0, 0.999, 1.0])).round(6).tolist() == np.eye(4).tolist()
    True
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, float)[:3, :3])
    found = np.array(matrix, dtype=float)
    found[:3, :3] = left @ right
    found[3] = 0, 0, 0, 1
    return found


def rigid_fraction(matrix: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The motion after a share of the way: exp(share * log(matrix)).

    Parameters
    ----------
    matrix
        Rigid 4x4, rotation below 180 degrees.
    share
        0 is the identity, 1 the matrix.

    Examples
    --------
    >>> shift = np.eye(4); shift[:3, 3] = 4, 0, -2
    >>> rigid_fraction(shift)[:3, 3].tolist()
    [2.0, 0.0, -1.0]
    """
    return rigid_part(linalg.expm(share * linalg.logm(rigid_part(matrix)).real))


def halfway_rigid(
    registrar: Registrar,
    first: nib.Nifti1Image,
    second: nib.Nifti1Image,
    start: np.ndarray,
) -> tuple[Transform, dict[str, float]]:
    """Refine a rigid map between two scans in the space half-way between them.

    Parameters
    ----------
    registrar
        Backend.
    first, second
        Brain only, in the order of the map.
    start
        4x4, points of the first to points of the second, of a direct fit.

    Returns
    -------
    tuple
        The transform (fixed: first, moving: second), and ``inverse_consistency_mm``, the mean
        distance over the brain between the fits of the two directions, with
        ``halfway_change_mm`` and ``halfway_change_deg``, what the refinement added.

    Notes
    -----
    With H = exp(log(start) / 2) both scans are resampled to one grid, the first by inv(H), the
    second by H. Residual maps D12 and D21 are fitted in the two directions; D is the point half-way
    between D12 and inv(D21) on the group, and the result is H D H. Exchanging the scans inverts
    the result up to the asymmetry of ``start``, which the refinement takes out to second order.

    References
    ----------
    Reuter M, Rosas HD, Fischl B. NeuroImage 2010;53:1181-1196 (the space half-way).
    """
    half = rigid_fraction(start)
    grid = _halfway_grid(first, second, half)
    from_first = apply_transforms(first, grid, [Affine(np.linalg.inv(half))])
    from_second = apply_transforms(second, grid, [Affine(half)])
    forth = registrar.rigid(from_first, from_second, start=np.eye(4)).matrix
    back = registrar.rigid(from_second, from_first, start=np.eye(4)).matrix
    # The mean on the group of rigid motions: half-way from the inverse of `back` to `forth`.
    other = np.linalg.inv(rigid_part(back))
    residual = other @ rigid_fraction(np.linalg.inv(other) @ forth)
    points = sample_points(np.asarray(from_first.dataobj) > 0, grid.affine, wanted=5000)
    apart = Affine(forth)(points) - Affine(other)(points)
    moved = Affine(residual)(points) - points
    figures = {
        "inverse_consistency_mm": float(np.linalg.norm(apart, axis=1).mean()),
        "halfway_change_mm": float(np.linalg.norm(moved, axis=1).mean()),
        "halfway_change_deg": rotation_deg(residual),
    }
    return Transform("rigid", rigid_part(half @ residual @ half)), figures


def _halfway_grid(
    first: nib.Nifti1Image, second: nib.Nifti1Image, half: np.ndarray
) -> nib.Nifti1Image:
    """Isotropic grid around both scans half-way, as coarse as the finer of their voxels."""
    to_middle = (half, np.linalg.inv(half))
    corners, sizes = [], []
    for image, matrix in zip((first, second), to_middle, strict=True):
        ends = np.array(image.shape[:3]) - 1
        picks = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * ends
        corners.append(Affine(matrix @ image.affine)(picks.astype(float)))
        sizes.append(np.linalg.norm(image.affine[:3, :3], axis=0).min())
    spacing = max(float(min(sizes)), 1.0)
    low, high = np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    return nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)
