"""Filling of a lesion while a scan is registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging.geometry import distance_mm, linear_at, smoothed
from corelab.registration.preparation import dilated, voxel_mm, widened
from corelab.registration.transforms import Affine, Step, transform_points

#: From this correlation with the other side on, a lesion shows the anatomy it lies in. Measured:
#: 0.88 to 0.96 for a lesion that dims the tissue, 0.14 for one that replaces it.
ANATOMY_CORRELATION = 0.6
#: Fewer voxels than this within a lesion say nothing about the correlation.
ANATOMY_VOXELS = 300
#: The border of a lesion, which no correlation should see, is this wide (mm).
RIM_MM = 2.0


@dataclass(frozen=True)
class Filling:
    """An image whose lesion is filled, and with what.

    Attributes
    ----------
    image
        The image with tissue in place of the lesion.
    own_tissue, other_side
        Shares of the lesion's voxels that its own tissue, with healthy intensities, and the tissue
        of the other side stand in for. The rest has the mean of its surroundings.
    anatomy_correlation
        Correlation of the largest lesion with the other side; None if it cannot be computed.
    """

    image: nib.Nifti1Image
    own_tissue: float
    other_side: float
    anatomy_correlation: float | None


def filled_lesion(
    image: nib.Nifti1Image,
    lesion: np.ndarray,
    to_template: Sequence[Step],
    to_image: Sequence[Step],
) -> Filling:
    """Give a lesion the look of healthy tissue, so that it does not mislead a registration.

    Two sources. The **other side** (enantiomorphic filling): the mirror is that of the symmetric
    template, reached through a first fit: a point of the lesion goes to the template, its x
    changes sign, and the value is read where the mirrored point lies in the image; intensities
    are matched around the lesion. And the lesion's **own tissue**: many lesions dim the tissue but
    keep its anatomy (a fresh infarct on T1), which then shows where a border lies far better than
    the other side can. Where a lesion correlates with the other side, its intensities are mapped
    on those of the other side (a line through matched quantiles), softly across its border.
    What neither can give is filled with the local mean of the healthy tissue.

    Parameters
    ----------
    image
        Brain only.
    lesion
        Boolean, on the image's grid. Its connected parts are treated one by one.
    to_template, to_image
        Steps that map points of the image to the template and back.

    References
    ----------
    Nachev P et al., NeuroImage 2008;39:1215-1226 (the other side). The choice between the two
    sources was measured on simulated subjects: docs/registration.md.

    Examples
    --------
    >>> data = np.ones((21, 9, 9), np.float32); data[4, 4, 4] = 0
    >>> affine = np.eye(4); affine[:3, 3] = -10, -4, -4       # x = -6 is diseased, x = 6 is not
    >>> filling = filled_lesion(nib.Nifti1Image(data, affine), data == 0, [], [])
    >>> round(float(filling.image.get_fdata()[4, 4, 4]), 3), filling.other_side, filling.own_tissue
    (1.0, 1.0, 0.0)
    """
    mirrored, usable = _from_other_side(image, lesion, to_template, to_image)
    data = np.asarray(image.dataobj, dtype=np.float32)
    parts, _ = ndimage.label(lesion)
    sizes = np.bincount(parts.ravel())
    boxes = ndimage.find_objects(parts)
    margin = np.ceil(4 * RIM_MM / voxel_mm(image.affine)).astype(int)
    result, own, found = mirrored.copy(), np.zeros(lesion.shape, bool), None
    # The largest first; a small one cannot show whether it keeps the anatomy.
    for part in sorted(range(1, len(sizes)), key=lambda part: (-sizes[part], part)):
        if sizes[part] < ANATOMY_VOXELS:
            break
        box = widened(boxes[part - 1], margin, lesion.shape)
        here, place = data[box], parts[box] == part
        correlation, line = _own_anatomy(here, mirrored[box], place, usable[box], image.affine)
        found = correlation if found is None else found
        if line is None:
            continue
        # Up to its border the tissue is left as it is; the other side is a guess there.
        free = dilated(place, image.affine, 2 * RIM_MM) & (~lesion[box] | place) & (here > 0)
        soft = smoothed(place.astype(np.float32), 1.0 / voxel_mm(image.affine))
        result[box][free] = (here + soft * (np.polyval(line, here) - here))[free]
        own[box] |= place
    diseased = max(int(lesion.sum()), 1)
    return Filling(
        nib.Nifti1Image(result.astype(np.float32), image.affine),
        own_tissue=float(own.sum() / diseased),
        other_side=float((usable & lesion & ~own).sum() / diseased),
        anatomy_correlation=found,
    )


def _own_anatomy(
    data: np.ndarray,
    mirrored: np.ndarray,
    place: np.ndarray,
    usable: np.ndarray,
    affine: np.ndarray,
) -> tuple[float | None, np.ndarray | None]:
    """Correlation of a lesion with the other side; the line that gives it healthy intensities."""
    depth = distance_mm(place, voxel_mm(affine))
    inside = (depth > RIM_MM) & usable & (data > 0)
    if inside.sum() < ANATOMY_VOXELS:
        return None, None
    # A millimetre of smoothing: the two sides lie that far apart, and noise is no anatomy.
    sigma = 1.0 / voxel_mm(affine)
    here = smoothed(data, sigma)[inside]
    there = smoothed(mirrored, sigma)[inside]
    if here.std() == 0 or there.std() == 0:
        return None, None
    correlation = float(np.corrcoef(here, there)[0, 1])
    if correlation < ANATOMY_CORRELATION:
        return correlation, None
    quantiles = np.linspace(2, 98, 33)
    line = np.polyfit(np.percentile(here, quantiles), np.percentile(there, quantiles), 1)
    return correlation, line


def _from_other_side(
    image: nib.Nifti1Image,
    lesion: np.ndarray,
    to_template: Sequence[Step],
    to_image: Sequence[Step],
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities with the lesion filled from the other side, and where that could give them."""
    data = np.array(image.dataobj, dtype=np.float32)
    region = dilated(lesion, image.affine, RIM_MM) & (data > 0) | lesion
    ring = dilated(lesion, image.affine, 12.0) & ~region & (data > 0)
    healthy = ((~region) & (data > 0)).astype(np.float32)

    def other_side(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = transform_points(Affine(image.affine)(places.astype(float)), list(to_template))
        points[:, 0] *= -1
        back = transform_points(points, list(to_image))
        voxel = Affine(np.linalg.inv(image.affine))(back).T
        return linear_at(data, voxel), linear_at(healthy, voxel) > 0.9

    sigma = 4.0 / voxel_mm(image.affine)
    weight = smoothed(healthy, sigma)
    local = smoothed(data * healthy, sigma) / np.maximum(weight, 1e-6)
    result = np.where(region, np.where(weight > 1e-3, local, data), data)
    given = np.zeros(lesion.shape, bool)
    if not region.any() or not ring.any():
        return result, given
    mirrored_ring, ring_usable = other_side(np.argwhere(ring))
    values, usable = other_side(np.argwhere(region))
    if ring_usable.sum() >= 20 and usable.any():
        here = np.median(data[ring][ring_usable])
        there = np.median(mirrored_ring[ring_usable])
        gain = here / there if there > 0 else 1.0
        at = tuple(np.argwhere(region)[usable].T)
        result[at] = values[usable] * gain
        given[at] = True
    return result, given
