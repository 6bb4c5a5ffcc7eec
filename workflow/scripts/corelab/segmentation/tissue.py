"""Image operations that several segmentations share, with lengths in millimetres."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from corelab.imaging.geometry import distance_mm, linear_grid, smoothed, without_holes
from corelab.segmentation.scans import Image, Mask, NotSegmentable
from corelab.segmentation.segmenter import Evidence, GridImages
from corelab.settings.segmentation import ClusterThresholds

#: From the median absolute deviation to the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826
#: The four neighbours of a voxel in its axial plane.
IN_PLANE = ndimage.generate_binary_structure(3, 1)[:, :, 1:2]
#: Spread of a normal distribution that is cut at 2.5 SD.
CUT_SPREAD = 0.93


def centre_and_spread(values: NDArray[Any]) -> tuple[float, float]:
    """Median and 1.4826 x median absolute deviation.

    Examples
    --------
    >>> centre, spread = centre_and_spread(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    >>> centre, round(spread, 4)
    (3.0, 1.4826)
    """
    centre = float(np.median(values))
    return centre, MAD_TO_SD * float(np.median(np.abs(values - centre)))


def normal_tissue(
    values: Image,
    tissue: Mask,
    fault: str,
    statistic: Callable[[NDArray[Any]], tuple[float, float]] = centre_and_spread,
) -> tuple[float, float, Mask]:
    """Centre and spread of normal tissue, and its voxels.

    A large lesion shifts and widens the distribution: the statistic is taken once more without what
    lies 2.5 spreads from the centre.

    Raises
    ------
    NotSegmentable
        With the text ``fault``, if the values do not vary.

    Examples
    --------
    >>> values = np.random.default_rng(1).normal(5.0, 1.0, (20, 20, 20)); values[:4] = 20.0
    >>> centre, spread, near = normal_tissue(values, np.ones(values.shape, bool), "constant")
    >>> round(centre), round(spread, 1), bool(near[:4].any())
    (5, 1.0, False)
    """
    centre, spread = statistic(values[tissue])
    near = tissue & (np.abs(values - centre) < 2.5 * spread)
    if spread <= 0 or not near.any():
        raise NotSegmentable(fault)
    return *statistic(values[near]), near


def in_plane_axes(voxel_size_mm: Sequence[float]) -> tuple[int, ...]:
    """Axes along which neighbours are close enough to be averaged (all of an isotropic grid).

    Examples
    --------
    >>> in_plane_axes((1.2, 1.2, 5.0)), in_plane_axes((1.0, 1.0, 1.0))
    ((0, 1), (0, 1, 2))
    """
    least = min(voxel_size_mm)
    return tuple(axis for axis in range(3) if voxel_size_mm[axis] <= 1.8 * least)


def smooth_within(
    image: Image, mask: NDArray[Any], sigma_mm: float, voxel_size_mm: Sequence[float]
) -> Image:
    """Gaussian smoothing in plane that uses voxels of the mask only (normalised convolution).

    What lies outside (CSF, skull, air) neither bleeds in nor dims the edge. Outside the mask the
    result is 0. Method: Knutsson and Westin, normalized convolution, CVPR 1993.

    Examples
    --------
    >>> image = np.full((9, 9, 3), 2.0); image[:4] = 1000.0
    >>> mask = np.zeros((9, 9, 3), bool); mask[4:] = True
    >>> out = smooth_within(image, mask, 1.0, (1, 1, 5))
    >>> float(out[4, 4, 1].round(9)), float(out[0, 0, 0])
    (2.0, 0.0)
    """
    axes = in_plane_axes(voxel_size_mm)
    sigma = [sigma_mm / voxel_size_mm[axis] if axis in axes else 0.0 for axis in range(3)]
    weight = mask.astype(np.float64)
    total = smoothed(np.where(mask, image, 0.0) * weight, sigma, truncate=3.0)
    share = smoothed(weight, sigma, truncate=3.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mask, total / share, 0.0)


@dataclass(frozen=True)
class Field:
    """A smooth field over the brain, and the figures to judge it by.

    Parameters
    ----------
    values
        The additive field on the image's grid, mean 0 over the tissue.
    order
        Order of the polynomial; 0 where no field was found.
    range
        5-95 % range over the tissue, in the units of the values.
    at_outliers
        Share of the outliers' mean deviation from tissue that the field explains: near 0 for a
        field that is independent of the lesion, 1 for one that removes the lesion.
    refused
        A field was found but not used, because it follows the outliers.
    """

    values: Image
    order: int = 0
    range: float = 0.0
    at_outliers: float = 0.0
    refused: bool = False

    @property
    def quality(self) -> dict[str, float | int]:
        """Figures for a segmentation's ``quality``."""
        return {
            "field_range": self.range,
            "field_order": self.order,
            "field_at_outliers": self.at_outliers,
        }

    @property
    def flags(self) -> dict[str, str]:
        """Flag of a refused field (word -> sentence), else empty."""
        if not self.refused:
            return {}
        return {
            "field_refused": (
                "a smooth change of brightness over the brain follows the lesion and was not "
                "removed; check the extent of the lesion on the image"
            )
        }


#: Edge of the blocks whose means the field is fitted to.
_FIELD_BLOCK_MM = 6.0
#: Highest order of the field. A third-order polynomial absorbs a third of a hemispheric lesion.
_FIELD_ORDER = 2
#: Each further order has to narrow the histogram by this much (nats of its entropy).
_FIELD_GAIN_NATS = 0.04
#: Gains between which a field is taken in proportion where requested: DWI, whose cerebellum must
#: not become bright or normal with a lesion of a few mL elsewhere.
_FIELD_GAIN_SOFT_NATS = (0.01, 0.03)
#: A multiplicative field of a greater range that explains more of the outliers is refused.
_FIELD_RANGE_TRUSTED, _FIELD_SHARE_REFUSED = 0.3, 0.5


def fit_field(
    values: Image,
    tissue: Mask,
    voxel_size_mm: Sequence[float],
    *,
    trusted_range: float = np.inf,
    soft: bool = False,
) -> Field:
    """Smooth additive field: a polynomial of order 0 to 2, fitted to differences of neighbours.

    A field changes slowly everywhere; a lesion changes the image at its edge and nowhere else. So
    the polynomial's slope is fitted to the differences between neighbouring blocks of 6 mm, with
    Tukey's biweight: the few pairs of blocks across the edge of a lesion are outliers, however
    large the lesion is. Of no field, a linear and a quadratic one, the simplest is used whose
    corrected image has a narrow histogram (entropy). With too little tissue the field is 0.

    Methods: fit to the distribution of gradients after Zheng et al., IEEE Trans Pattern Anal Mach
    Intell 2009;31:2243; entropy as criterion after Mangin, MMBIA 2000.

    Parameters
    ----------
    values
        Image, or its logarithm for a multiplicative field.
    tissue
        Voxels to fit to.
    voxel_size_mm
        Voxel size.
    trusted_range
        A field of a greater range is refused where it explains most of the outliers.
    soft
        Use the quadratic field, times a weight that rises from 0 to 1 with the gain in entropy, so
        that no small change of the image switches the field on or off.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 48)[:, None, None] * np.ones((48, 48, 48))
    >>> lesion = np.zeros(x.shape); lesion[30:, 8:36, 8:40] = 1.0
    >>> image = 0.2 * x + lesion + np.random.default_rng(1).normal(0, 0.05, x.shape)
    >>> field = fit_field(image, np.ones(x.shape, bool), (2, 2, 2))
    >>> field.order, round(field.range, 1), bool(np.abs(field.values - 0.2 * x).max() < 0.02)
    (1, 0.4, True)
    """
    means, use, step = _block_means(values, tissue, voxel_size_mm)
    none = Field(np.zeros(values.shape))
    places = np.argwhere(use)
    if len(places) < 20 * len(_terms(_FIELD_ORDER)):
        return none
    low = places.min(axis=0)
    span = np.maximum(1, places.max(axis=0) - low)
    target, pairs = means[use], _neighbours(use)
    axes = [2.0 * (places[:, axis] - low[axis]) / span[axis] - 1.0 for axis in range(3)]
    least, best, refused = _entropy(target, target), none, False
    for order in range(_FIELD_ORDER if soft else 1, _FIELD_ORDER + 1):
        terms = _terms(order)
        matrix = np.stack([axes[0] ** i * axes[1] ** j * axes[2] ** k for i, j, k in terms], -1)
        slope = _slope(matrix, target, pairs)
        field = matrix @ slope
        entropy = _entropy(target - field, target)
        low_gain, high_gain = _FIELD_GAIN_SOFT_NATS if soft else (_FIELD_GAIN_NATS,) * 2
        if entropy > least - low_gain:
            continue
        if soft:
            weight = min(1.0, (least - entropy - low_gain) / (high_gain - low_gain))
            slope, field = weight * slope, weight * field
        extent, share = float(np.ptp(np.percentile(field, [5, 95]))), _explained(field, target)
        if extent > trusted_range and share > _FIELD_SHARE_REFUSED:
            refused = True
            continue
        # Outside the tissue's box a polynomial runs away: hold it at a little beyond the box.
        x, y, z = (
            np.clip(2.0 * ((np.arange(n) + 0.5) / s - 0.5 - first) / width - 1.0, -1.2, 1.2)
            for n, s, first, width in zip(values.shape, step, low, span, strict=True)
        )
        whole = np.zeros(values.shape)
        for (i, j, k), factor in zip(terms, slope, strict=True):
            whole += factor * (
                x[:, None, None] ** i * y[None, :, None] ** j * z[None, None, :] ** k
            )
        least, best = entropy, Field(whole - whole[tissue].mean(), order, extent, share)
    return replace(best, refused=refused)


def _terms(order: int) -> list[tuple[int, int, int]]:
    """Exponents of a polynomial of three variables, without the constant."""
    exponents = itertools.product(range(order + 1), repeat=3)
    return [(i, j, k) for i, j, k in exponents if 0 < i + j + k <= order]


def _block_means(
    values: Image, tissue: Mask, voxel_size_mm: Sequence[float]
) -> tuple[Image, Mask, list[int]]:
    """Mean over the tissue of each block, blocks at least half tissue, block size in voxels."""
    step = [max(1, round(_FIELD_BLOCK_MM / size)) for size in voxel_size_mm]
    corners = [np.arange(0, n, s) for n, s in zip(values.shape, step, strict=True)]

    def total(array: NDArray[Any]) -> Image:
        out = array.astype(np.float64)
        for axis in range(3):
            out = np.add.reduceat(out, corners[axis], axis=axis)
        return out

    count = total(tissue)
    means = total(np.where(tissue, values, 0.0)) / np.maximum(count, 1.0)
    return means, count >= 0.5 * np.prod(step), step


def _neighbours(use: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the blocks that are each other's neighbours along one axis."""
    number = np.full(use.shape, -1)
    number[use] = np.arange(use.sum())
    first, second = [], []
    for axis in range(3):
        moved = np.moveaxis(number, axis, 0)
        both = (moved[:-1] >= 0) & (moved[1:] >= 0)
        first.append(moved[:-1][both])
        second.append(moved[1:][both])
    return np.concatenate(first), np.concatenate(second)


def _slope(
    matrix: NDArray[np.float64],
    target: NDArray[np.float64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[Any]:
    """Coefficients whose differences meet the target's between neighbours (Tukey's biweight)."""
    difference = matrix[pairs[1]] - matrix[pairs[0]]
    wanted = target[pairs[1]] - target[pairs[0]]
    root = np.ones(wanted.size)
    slope: NDArray[Any] = np.zeros(matrix.shape[1])
    for _ in range(20):
        slope = np.linalg.lstsq(difference * root[:, None], wanted * root, rcond=None)[0]
        rest = wanted - difference @ slope
        # A window of 0.6 x 4.685 SD also leaves out most pairs of grey beside white matter.
        width = 0.6 * 4.685 * max(MAD_TO_SD * float(np.median(np.abs(rest))), 1e-9)
        root = np.maximum(1.0 - (rest / width) ** 2, 0.0)
    return slope


def _entropy(values: NDArray[np.float64], like: NDArray[np.float64]) -> float:
    """Entropy (nats) of the smoothed histogram; bins are a fifteenth of the spread of ``like``."""
    width = centre_and_spread(like)[1] / 15.0
    if width <= 0:
        return 0.0
    low, high = np.percentile(values, [1, 99])
    bins = np.clip((values - low) / width, -50, (high - low) / width + 50) + 50.0
    histogram = ndimage.gaussian_filter1d(np.bincount(bins.astype(int)).astype(float), 2.0)
    share = histogram[histogram > 0] / histogram.sum()
    return float(-(share * np.log(share)).sum())


def _explained(field: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Share of the outliers' mean deviation that the field explains; 0 without outliers."""
    rest = target - field
    centre, spread = centre_and_spread(rest)
    apart = rest > centre + 2.5 * spread
    if not 0.01 < apart.mean() < 0.5:
        return 0.0
    deviation = float(target[apart].mean() - target[~apart].mean())
    return float(field[apart].mean() - field[~apart].mean()) / max(deviation, 1e-9)


def flatten_field(
    image: Image, tissue: Mask, voxel_size_mm: Sequence[float], *, soft: bool = False
) -> tuple[Image, Field]:
    """Divide out a smooth multiplicative field, fitted to the logarithm of normal tissue.

    N4 with its defaults takes a lesion for field and costs half of the Dice, a third-order
    polynomial takes 0.6 of a hemispheric lesion's contrast; the field here cannot, see
    :func:`fit_field`.

    Returns
    -------
    image, field
        The image divided by the field, and the logarithm of the field.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 60)[:, None, None] * np.ones((60, 60, 60))
    >>> flat, field = flatten_field(100 * np.exp(0.2 * x), np.ones(x.shape, bool), (1, 1, 1))
    >>> bool(np.ptp(flat) / flat.mean() < 1e-6), bool(0.3 < field.range < 0.5)
    (True, True)
    """
    use = tissue & (image > 0)
    if not use.any():
        return image, Field(np.zeros(image.shape))
    logarithm = np.log(np.where(image > 0, image, 1.0))
    field = fit_field(logarithm, use, voxel_size_mm, trusted_range=_FIELD_RANGE_TRUSTED, soft=soft)
    return image / np.exp(field.values), field


def filled_slices(mask: Mask) -> Mask:
    """A mask with the holes of every slice filled.

    Examples
    --------
    >>> ring = np.ones((3, 3, 2), bool); ring[1, 1, 0] = False
    >>> bool(filled_slices(ring).all())
    True
    """
    return without_holes(mask, within_slices=True)


def label_components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected components (faces and edges) and their sizes in voxels, index 0 = background."""
    labels, n = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    return labels.astype(np.int32), np.bincount(labels.ravel(), minlength=n + 1)


def component_count(mask: Mask) -> int:
    """Number of connected components of a mask.

    Examples
    --------
    >>> component_count(np.array([[[1, 0, 1, 1]]], bool))
    2
    """
    return int(label_components(mask)[1].size - 1)


def remove_small_components(mask: Mask, min_ml: float, voxel_ml: float) -> Mask:
    """Drop connected components smaller than ``min_ml``.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool); mask[0, 0, 0] = True; mask[4:7, 4:7, 4:7] = True
    >>> int(remove_small_components(mask, 0.01, 0.001).sum())
    27
    """
    labels, sizes = label_components(mask)
    keep = sizes * voxel_ml >= min_ml
    keep[0] = False
    return keep[labels]


def grow(seed: Mask, allowed: Mask) -> Mask:
    """Hysteresis: the parts of ``allowed`` (united with the seeds) that touch a seed.

    Examples
    --------
    >>> seed = np.array([[[0, 1, 0, 0, 0]]], bool); allowed = np.array([[[1, 1, 1, 0, 1]]], bool)
    >>> grow(seed, allowed).astype(int).ravel().tolist()
    [1, 1, 1, 0, 0]
    """
    return ndimage.binary_propagation(
        seed, structure=ndimage.generate_binary_structure(3, 1), mask=allowed | seed
    )


def ball(radius_mm: float, voxel_size_mm: Sequence[float]) -> Mask:
    """Ellipsoidal neighbourhood of a radius in millimetres (flat where the slices are thick).

    Examples
    --------
    >>> ball(2.0, (1.0, 1.0, 5.0)).shape
    (5, 5, 1)
    """
    reach = [int(radius_mm / size + 1e-9) for size in voxel_size_mm]
    axes = [np.arange(-n, n + 1) * size for n, size in zip(reach, voxel_size_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius_mm**2 + 1e-9


def enlarged(mask: Mask, radius_mm: float, voxel_size_mm: Sequence[float]) -> Mask:
    """Dilation of a mask by :func:`ball`, as fast for large radii.

    Examples
    --------
    >>> mask = np.zeros((5, 5, 1), bool); mask[2, 2] = True
    >>> int(enlarged(mask, 1.0, (1.0, 1.0, 5.0)).sum())
    5
    """
    if not mask.any():
        return mask.copy()
    return distance_mm(~mask, voxel_size_mm) <= np.sqrt(radius_mm**2 + 1e-9)


def inscribed_radius_mm(mask: Mask, voxel_size_mm: Sequence[float]) -> Image:
    """Distance to the mask's edge, in axial planes: sheets and rims stay small everywhere.

    A falx, a tentorium or a bright rim is seen in an axial slice as a line; a haematoma as a
    disc.

    Examples
    --------
    >>> mask = np.zeros((11, 11, 1), bool); mask[5, :, 0] = True
    >>> float(inscribed_radius_mm(mask, (1.0, 1.0, 5.0)).max())
    1.0
    """
    out = np.zeros(mask.shape)
    for k in np.flatnonzero(mask.any((0, 1))):
        # The box of what the slice holds, with its border of background.
        across, along = (np.flatnonzero(mask[:, :, k].any(axis)) for axis in (1, 0))
        box = (
            slice(max(0, across[0] - 1), across[-1] + 2),
            slice(max(0, along[0] - 1), along[-1] + 2),
            k,
        )
        out[box] = distance_mm(mask[box], voxel_size_mm[:2])
    return out


def depth_mm(brain: Mask, voxel_size_mm: Sequence[float]) -> Image:
    """Distance of each brain voxel to the edge of the brain mask, in 3D."""
    return distance_mm(brain, tuple(voxel_size_mm))


@dataclass(frozen=True)
class MidPlane:
    """The plane between the hemispheres: ``normal . (x - point) = 0`` in millimetres."""

    point_mm: tuple[float, float, float]
    normal: tuple[float, float, float]
    symmetry: float

    def side(self, shape: tuple[int, ...], voxel_size_mm: Sequence[float]) -> Image:
        """Signed distance to the plane of every voxel in mm (positive to the right)."""
        x, y, z = (
            (np.arange(n) * size - p) * m
            for n, size, p, m in zip(shape, voxel_size_mm, self.point_mm, self.normal, strict=True)
        )
        return x[:, None, None] + y[None, :, None] + z[None, None, :]

    def reflect(self, image: Image, voxel_size_mm: Sequence[float] | NDArray[Any]) -> Image:
        """The image mirrored across the plane (linear interpolation, 0 outside)."""
        size = np.asarray(voxel_size_mm, float)
        normal = np.asarray(self.normal)
        # In millimetres y = x - 2 n (n.x - n.p); matrix and offset are that map in voxel units.
        householder = np.eye(3) - 2.0 * np.outer(normal, normal)
        offset = 2.0 * normal * float(normal @ np.asarray(self.point_mm))
        matrix = householder * size[None, :] / size[:, None]
        return linear_grid(np.asarray(image, np.float32), matrix, offset / size, image.shape)


def symmetry_feature(
    image: Image, brain: Mask, voxel_size_mm: Sequence[float], grid_mm: float
) -> tuple[Image, Mask, NDArray[Any]]:
    """Shape and clipped contrast of a brain on a coarse grid, to be compared with its mirror image.

    Returns
    -------
    feature, inside, sizes
        The feature, the brain on its grid, and the edges of its voxels in mm.
    """
    size = np.asarray(voxel_size_mm, float)
    step = [max(1, round(grid_mm / edge)) for edge in size]
    thin = tuple(slice(None, None, n) for n in step)
    weight = ndimage.uniform_filter(brain.astype(np.float32), step)[thin]
    value = ndimage.uniform_filter(np.where(brain, image, 0.0).astype(np.float32), step)[thin]
    inside = weight > 0.5
    centre, spread = centre_and_spread(value[inside] / weight[inside])
    contrast = np.where(inside, (value / np.maximum(weight, 0.5) - centre) / (spread or 1.0), 0.0)
    # Weight of shape against contrast: a large lesion breaks contrast, never much of the shape.
    return np.clip(contrast, -2.0, 2.0) + 4.0 * weight, inside, size * step


def most_symmetric(
    plane: Callable[[NDArray[Any]], MidPlane],
    feature: Image,
    sizes_mm: Sequence[float] | NDArray[Any],
    start: NDArray[Any],
    most_steps: int,
    penalty: Callable[[NDArray[Any]], float] = lambda v: 0.0,
) -> MidPlane:
    """Plane of three parameters of best mirror symmetry, by Nelder-Mead from a simplex."""

    def cost(v: NDArray[Any]) -> float:
        mirrored = plane(v).reflect(feature, sizes_mm)
        return float(np.mean(np.abs(feature - mirrored))) + penalty(v)

    found = optimize.minimize(
        cost,
        start[0],
        method="Nelder-Mead",
        options={"initial_simplex": start, "xatol": 0.1, "fatol": 1e-5, "maxiter": most_steps},
    )
    return plane(found.x)


def find_midplane(image: Image, brain: Mask, voxel_size_mm: Sequence[float]) -> MidPlane:
    """Plane of best mirror symmetry: brain shape and clipped contrast, by Nelder-Mead.

    The search runs on a grid of about 4 mm over offset, yaw and roll and starts at the centre of
    the brain mask with the grid's own left-right axis, so tilts up to about 20 degrees are found.

    Examples
    --------
    >>> x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in (60, 72, 50)], indexing="ij")
    >>> brain = ((x - 3) / 22) ** 2 + (y / 30) ** 2 + (z / 20) ** 2 < 1
    >>> plane = find_midplane(np.where(brain, 100.0 + abs(y), 0.0), brain, (2.0, 2.0, 2.0))
    >>> abs(plane.point_mm[0] - 66.0) < 1.0, abs(plane.normal[0]) > 0.999
    (True, True)
    """
    feature, inside, coarse = symmetry_feature(image, brain, voxel_size_mm, 4.0)
    point = np.array(ndimage.center_of_mass(inside)) * coarse

    def plane(v: NDArray[Any]) -> MidPlane:
        yaw, roll = np.deg2rad(v[1]), np.deg2rad(v[2])
        normal = np.array([1.0, np.tan(yaw), np.tan(roll)])
        normal /= np.linalg.norm(normal)
        x, y, z = point + np.array([v[0], 0.0, 0.0])
        return MidPlane((float(x), float(y), float(z)), tuple(map(float, normal)), 0.0)  # type: ignore[arg-type]

    start = np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, 5]], float)
    best = most_symmetric(plane, feature, coarse, start, 120)
    mirrored = best.reflect(feature, coarse)
    symmetry = float(np.corrcoef(feature.ravel(), mirrored.ravel())[0, 1])
    return MidPlane(best.point_mm, best.normal, symmetry)


def brightest_mirrored(
    score: Image,
    tissue: Mask,
    plane: MidPlane,
    voxel_size_mm: Sequence[float],
    *,
    around_mm: float = 3.0,
) -> tuple[Image, Image]:
    """Score at the mirrored place, the greatest within ``around_mm``, and the side in mm.

    Brains are not exactly symmetric: the greatest value near the mirrored place lets sulci and
    the air cells of the skull base meet their partners.
    """
    size = [2 * int(around_mm / edge) + 1 for edge in voxel_size_mm]
    greatest = ndimage.maximum_filter(np.where(tissue, score, -9.0), size)
    return plane.reflect(greatest, voxel_size_mm), plane.side(score.shape, voxel_size_mm)


def judged_maps(
    score: Image, tissue: Mask, image: Image, given: GridImages
) -> tuple[Mapping[str, Image], float]:
    """Maps that clusters are judged by, and the symmetry of the image.

    Returns
    -------
    maps, symmetry
        ``z`` (the score), ``mirrored`` (:func:`brightest_mirrored`), ``side_mm``, ``tissue`` and
        ``depth_mm``; correlation of the image with its mirror image.
    """
    plane = find_midplane(image, given.brain, given.voxel_size_mm)
    mirrored, side = brightest_mirrored(score, tissue, plane, given.voxel_size_mm)
    maps = {"z": score, "mirrored": mirrored, "side_mm": side, "tissue": tissue}
    return {**maps, "depth_mm": depth_mm(given.brain, given.voxel_size_mm)}, plane.symmetry


def within_edge(mask: Mask, score: Image, share: float) -> Mask:
    """Voxels whose score is at least ``share`` of their own cluster's upper quartile.

    The edge of a blurred lesion is where the signal is about half-way from normal tissue
    (score 0) to the lesion's core; a fixed limit near normal tissue widens small, conspicuous
    lesions by a voxel all round.

    Examples
    --------
    >>> score = np.array([0.0, 2.0, 9.0, 10.0, 10.0, 3.0]).reshape(6, 1, 1)
    >>> within_edge(score > 1, score, 0.5).astype(int).ravel().tolist()
    [0, 0, 1, 1, 1, 0]
    """
    labels, sizes = label_components(mask)
    limit = np.full(sizes.size, np.inf)
    for n, where in enumerate(ndimage.find_objects(labels), start=1):
        limit[n] = share * float(np.percentile(score[where][labels[where] == n], 75))
    return mask & (score > limit[labels])


def drop_artefacts(mask: Mask, evidence: Evidence, rules: ClusterThresholds) -> tuple[Mask, int]:
    """Drop small clusters that are faint, in the rim of the brain, or as bright on both sides.

    Parameters
    ----------
    mask
        Clusters to judge.
    evidence
        With the maps ``z``, ``mirrored`` (score at the mirrored place), ``depth_mm`` and
        ``side_mm``.
    rules
        ``artefact_below_ml`` (greater clusters stay), ``min_cluster_ml``, ``z_conspicuous`` with
        ``min_conspicuous_ml``, ``z_peak``, ``rim_mm``, ``asymmetry_z``, ``midline_mm``.

    Returns
    -------
    mask, dropped
        What stays, and the number of clusters that do not.
    """
    z, mirrored, depth, side = (
        evidence.maps[name] for name in ("z", "mirrored", "depth_mm", "side_mm")
    )
    labels, sizes = label_components(mask)
    keep = np.ones(sizes.size, bool)
    keep[0] = False
    for n, where in enumerate(ndimage.find_objects(labels), start=1):
        volume_ml = sizes[n] * evidence.voxel_ml
        if volume_ml >= rules.artefact_below_ml:
            continue
        inside = labels[where] == n
        bright, peak = float(np.median(z[where][inside])), float(z[where][inside].max())
        # A cluster at the midline is its own mirror image: no artefact by that.
        apart = abs(float(np.median(side[where][inside]))) > rules.midline_mm
        twin = float(np.median(mirrored[where][inside]))
        paired = apart and twin > bright - rules.asymmetry_z
        rim = float(np.percentile(depth[where][inside], 90)) < rules.rim_mm
        conspicuous = peak > rules.z_conspicuous
        least_ml = rules.min_conspicuous_ml if conspicuous else rules.min_cluster_ml
        faint = peak < rules.z_peak
        keep[n] = not (volume_ml < least_ml or faint or rim or paired)
    return keep[labels], int((~keep[1:]).sum())
