"""Are left and right the same in all images of a visit?

A header or a converter that swaps left and right leaves a head that looks right: no template
notices, since templates are symmetric, and a lesion then lies in the wrong hemisphere. But no
head is its own mirror image. An image and the visit's reference are compared as they are and
with the image mirrored; what fits better is reported. Where the difference is within chance, the
verdict is ``not_assessable``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to, same_grid, smoothed
from corelab.records.images import AcquisitionRow, Scan
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS

#: What others are compared with, best first; perfusion maps come from their series.
_KINDS = ("T1w", "T1c", "FLAIR", "T2w", "dwi", "b0", "adc", "gre", "ncct", "ctp", "dsc")
#: Edge of the voxels that are compared, in mm.
_VOXEL_MM = 3.0
#: Half width of a patch and edge of a block, in voxels.
_PATCH, _BLOCK = 2, 7
#: Mean difference over its standard error from which a verdict is given. Blocks next to each
#: other are not independent, so this is far beyond what chance would need.
MIN_Z = 5.0
#: The better fit must be better by this share of the other's.
MIN_GAIN = 0.03
#: Both hypotheses must have had a fair fit: least overlap (Dice) of the two brains.
MIN_OVERLAP = 0.85
#: Soft tissue on CT (HU); bone and air would leave the brain one bin of a histogram.
CT_KINDS, BRAIN_WINDOW_HU = ("ncct", "ctp"), (0.0, 100.0)

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class LeftRight:
    """Advantage of an image's fit over that of its mirror image.

    Attributes
    ----------
    gain
        Local squared correlation as it is over that mirrored, less 1 (positive: as it is fits).
    z
        Mean difference over blocks by its standard error.
    verdict
        ``pass``, ``fail`` (mirrored fits better) or ``not_assessable``.
    """

    gain: float
    z: float
    verdict: str


def left_right_rows(
    scans: Sequence[Scan], brain_masks: Mapping[str, str], read: Callable[[str], Any]
) -> list[AcquisitionRow]:
    """Rows of the criterion ``left_right``: each image of a visit against its reference.

    Parameters
    ----------
    scans
        Usable scans of the visit.
    brain_masks
        Grid -> path of its brain mask.
    read
        Gives the image of a path of these.

    Returns
    -------
    list of AcquisitionRow
        ``value`` is the gain; no row where the visit has one image.
    """
    ranked = sorted(
        (scan for scan in scans if scan.kind in _KINDS and scan.grid in brain_masks),
        key=lambda scan: _KINDS.index(scan.kind),
    )
    rows: list[AcquisitionRow] = []
    heads: dict[str | None, LeftRight | None] = {}
    references: dict[str, _Reference] = {}
    for scan in ranked:
        first = next(one for one in ranked if one.grid == scan.grid)
        if scan is ranked[0]:
            heads[scan.grid] = None
            continue
        # Others of a grid are compared with its first one, which takes no fit.
        other = ranked[0] if scan is first else first
        if other.scan_id not in references:
            references[other.scan_id] = _reference(*_image_and_mask(other, brain_masks, read))
        found = _compared(references[other.scan_id], _image_and_mask(scan, brain_masks, read))
        if scan is first:
            heads[scan.grid] = found
        else:
            found = _by_way_of(found, heads[scan.grid])
        against = f"against {ranked[0].kind} ({ranked[0].scan_id})"
        reasons = {
            FAIL: f"left and right are swapped {against}",
            NOT_ASSESSABLE: f"too alike to distinguish {against}",
        }
        rows.append(
            AcquisitionRow(
                scan.kind,
                "left_right",
                round(found.gain, 4),
                f"as {ranked[0].kind}",
                found.verdict,
                reasons.get(found.verdict),
                scan.scan_id,
            )
        )
    return rows


def _by_way_of(found: LeftRight, head: LeftRight | None) -> LeftRight:
    """Clear images that are swapped only against an image that is swapped itself."""
    if head is None:
        return found
    if NOT_ASSESSABLE in (found.verdict, head.verdict):
        return LeftRight(found.gain, found.z, NOT_ASSESSABLE)
    sign = 1 if head.verdict == PASS else -1
    gain = sign * found.gain
    return LeftRight(gain, sign * found.z, PASS if gain > 0 else FAIL)


def _image_and_mask(
    scan: Scan, brain_masks: Mapping[str, str], read: Callable[[str], Any]
) -> tuple[Any, Any]:
    image = read(scan.file)
    if len(image.shape) == 4:
        image = nib.Nifti1Image(np.asarray(image.dataobj).mean(axis=3), image.affine)
    if scan.kind in CT_KINDS:
        image = nib.Nifti1Image(np.clip(_array(image), *BRAIN_WINDOW_HU), image.affine)
    return image, read(brain_masks[str(scan.grid)])


#: An image, its mask, and both on the small grid.
_Reference = tuple[tuple[Any, Any], tuple[Any, Any]]


def _reference(image: Any, mask: Any) -> _Reference:
    return (image, mask), _small(image, mask)


def left_right(reference: tuple[Any, Any], image: tuple[Any, Any]) -> LeftRight:
    """Compare an image with a reference, as it is and mirrored.

    Parameters
    ----------
    reference, image
        (nibabel image, brain mask on its grid), both in scanner coordinates. They may differ in
        contrast: what is compared is the squared correlation within patches of 15 mm.

    Returns
    -------
    LeftRight

    Notes
    -----
    Where both lie on one grid they are compared voxel by voxel, else after a rigid fit of either
    hypothesis from the centres of the brains (SimpleITK, mutual information), so that neither
    has an advantage.
    """
    return _compared(_reference(*reference), image)


def _compared(reference_and_small: _Reference, image: tuple[Any, Any]) -> LeftRight:
    reference, (fixed, fixed_mask) = reference_and_small
    scores = []
    alike = same_grid(reference[0], image[0])
    moving = image if alike else _small(*image)
    for mirrored in (False, True):
        if alike:
            # What swaps the voxels of one of two images on a grid does so about its centre.
            whole = _flipped(image[0]) if mirrored else image[0]
            voxels, mask = _small(whole, reference[1])
        else:
            turned = tuple(_flipped(one) for one in moving) if mirrored else moving
            voxels, mask = _fitted(fixed, fixed_mask, *turned)
        scores.append((_array(voxels), _array(mask) > 0.5))
    brain = _array(fixed_mask) > 0.5
    overlaps = [2.0 * (brain & there).sum() / (brain.sum() + there.sum()) for _, there in scores]
    if min(overlaps) < MIN_OVERLAP:
        return LeftRight(0.0, 0.0, NOT_ASSESSABLE)
    inside = brain & scores[0][1] & scores[1][1]
    either = [_local_correlation(_array(fixed), voxels, inside) for voxels, _ in scores]
    return _judged(either[0], either[1], inside)


def _judged(as_is: Volume, mirrored: Volume, inside: NDArray[np.bool_]) -> LeftRight:
    """Mean difference over blocks, its z and the verdict."""
    index = np.argwhere(inside)
    if len(index) < 20 * _BLOCK**2:
        return LeftRight(0.0, 0.0, NOT_ASSESSABLE)
    blocks = np.ravel_multi_index(tuple((index // _BLOCK).T), (99, 99, 99))
    _, inverse, counts = np.unique(blocks, return_inverse=True, return_counts=True)
    difference = np.bincount(inverse, (as_is - mirrored)[inside]) / counts
    difference = difference[counts >= _BLOCK**3 // 4]
    base = min(float(as_is[inside].mean()), float(mirrored[inside].mean()))
    if len(difference) < 10 or base <= 0:
        return LeftRight(0.0, 0.0, NOT_ASSESSABLE)
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    mean = float(difference.mean())
    z = mean / error if error > 0 else 0.0
    gain = mean / base
    clear = abs(z) >= MIN_Z and abs(gain) >= MIN_GAIN
    return LeftRight(gain, z, (PASS if gain > 0 else FAIL) if clear else NOT_ASSESSABLE)


def _local_correlation(first: Volume, second: Volume, inside: NDArray[np.bool_]) -> Volume:
    """Squared correlation within the patch around each voxel, of what lies inside."""
    from scipy import ndimage

    weight = inside.astype(np.float32)

    def mean(values: Volume) -> Volume:
        return np.asarray(ndimage.uniform_filter(values * weight, 2 * _PATCH + 1), np.float32)

    share = np.maximum(mean(np.ones_like(first)), 1e-6)
    a, b = (one - one[inside].mean() for one in (first, second))
    mean_a, mean_b = mean(a) / share, mean(b) / share
    covariance = mean(a * b) / share - mean_a * mean_b
    spread_a = np.maximum(mean(a * a) / share - mean_a**2, 0) + 1e-3 * a[inside].var()
    spread_b = np.maximum(mean(b * b) / share - mean_b**2, 0) + 1e-3 * b[inside].var()
    return np.asarray(covariance**2 / (spread_a * spread_b), np.float32)


# --- the two on one small grid -----------------------------------------------------------------


def _small(image: Any, mask: Any) -> tuple[Any, Any]:
    """Image and mask on isotropic voxels along their own axes, with a margin around the brain."""
    inside = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    if not len(inside):
        inside = np.array([[0, 0, 0], np.array(mask.shape) - 1])
    sizes = np.sqrt((np.asarray(image.affine)[:3, :3] ** 2).sum(axis=0))
    low, high = inside.min(axis=0) - 8 / sizes, inside.max(axis=0) + 8 / sizes
    shape = np.ceil((high - low) * sizes / _VOXEL_MM).astype(int) + 1
    affine = np.array(image.affine, float)
    affine[:3, :3] = affine[:3, :3] / sizes * _VOXEL_MM
    affine[:3, 3] = nib.affines.apply_affine(image.affine, low)
    grid = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
    values = np.asarray(image.dataobj, np.float32)
    # Block means before sampling, else small voxels would be skipped and noise kept.
    blurred = smoothed(values, np.maximum(_VOXEL_MM / sizes / 2 - 0.5, 0) * 0.8)
    small = resample_to(nib.Nifti1Image(blurred, image.affine), grid, order=1)
    held = np.asarray(mask.dataobj, np.float32)
    return small, resample_to(nib.Nifti1Image(held, mask.affine), grid, order=1)


def _array(image: Any) -> Volume:
    return np.asarray(image.dataobj, np.float32)


def _flipped(image: Any) -> Any:
    """Mirrored along the array axis that is nearest to left-right, the grid as it was."""
    axis = int(np.argmax(np.abs(np.asarray(image.affine)[0, :3])))
    return nib.Nifti1Image(np.flip(_array(image), axis).copy(), image.affine)


def _fitted(fixed: Any, fixed_mask: Any, moving: Any, moving_mask: Any) -> tuple[Any, Any]:
    """Moving image and mask on the fixed grid after a rigid fit."""
    import SimpleITK as sitk

    # The metric sums per thread: with their number the last bits would change, and the path.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    target, source, mask = (_to_sitk(one) for one in (fixed, moving, moving_mask))
    start = sitk.Euler3DTransform()
    centre = _centre(fixed_mask)
    start.SetCenter(centre.tolist())
    start.SetTranslation((_centre(moving_mask) - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(sitk.Cast(_to_sitk(fixed_mask) > 0.5, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.REGULAR)
    # Samples are moved within their voxels at random: without a seed, by the clock.
    method.SetMetricSamplingPercentage(0.5, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.02, 60)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1.0, 0.0])
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(target, source)
    out = [
        sitk.GetArrayFromImage(sitk.Resample(one, target, start, sitk.sitkLinear, 0.0)).T
        for one in (source, mask)
    ]
    return tuple(nib.Nifti1Image(np.ascontiguousarray(one), fixed.affine) for one in out)  # type: ignore[return-value]


def _centre(mask: Any) -> NDArray[np.float64]:
    """Centre of a mask in ITK's coordinates (left, posterior, superior)."""
    inside = np.argwhere(_array(mask) > 0.5)
    centre = inside.mean(axis=0) if len(inside) else (np.array(mask.shape) - 1) / 2
    return nib.affines.apply_affine(mask.affine, centre) * [-1, -1, 1]


def _to_sitk(image: Any) -> Any:
    import SimpleITK as sitk

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, float)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    made = sitk.GetImageFromArray(_array(image).T)
    made.SetSpacing(sizes.tolist())
    made.SetOrigin(affine[:3, 3].tolist())
    made.SetDirection((affine[:3, :3] / sizes).ravel().tolist())
    return made
