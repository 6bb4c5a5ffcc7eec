"""Quality of a scan, measured in its voxels: noise, ghosting, motion, brain cut off.

Each number is an estimate with a definition that stands in its docstring; limits are the
charter's (:mod:`corelab.imaging.acquisition`). Slices lie along the axis of the largest voxel
edge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Slices and directions with fewer voxels than this are not assessed.
_MIN_VOXELS = 50
#: Median absolute deviation to SD of a normal distribution.
_MAD_TO_SD = 1.482602218505602


def image_quality(
    image: Any, brain: NDArray[np.bool_] | None, names: Iterable[str], *, ct: bool = False
) -> dict[str, float | None]:
    """Measure the requested quantities.

    Parameters
    ----------
    image
        nibabel image, 3D or 4D (of which the mean over frames is used, but for motion).
    brain
        Brain mask on its grid; None where there is none, then only ghosting can be measured.
    names
        Of ``brain_cut_percent, snr, noise_sd, ghosting_percent, motion_mm``.
    ct
        A CT has no ghosting and no background in the MR sense.

    Returns
    -------
    dict
        Name -> value, None where it cannot be measured.

    Examples
    --------
    >>> import nibabel as nib
    >>> brain = np.ones((40, 40, 6), bool); brain[:, :, 0] = False
    >>> image = nib.Nifti1Image(np.random.default_rng(0).normal(100, 5, brain.shape), np.eye(4))
    >>> round(image_quality(image, brain, ["snr"])["snr"])
    20
    """
    wanted = list(names)
    found: dict[str, float | None] = dict.fromkeys(wanted)
    if not wanted:
        return found
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    sizes = np.sqrt((np.asarray(image.affine)[:3, :3] ** 2).sum(axis=0))
    axis = 2 if sizes.max() <= sizes[2] * 1.0001 else int(np.argmax(sizes))
    frames = np.moveaxis(voxels, axis, 2)
    in_plane_mm = [float(sizes[index]) for index in range(3) if index != axis]
    volume = frames.mean(axis=3) if frames.ndim == 4 else frames
    mask = None if brain is None else np.moveaxis(np.asarray(brain, bool), axis, 2)
    if mask is not None and mask.sum() >= 20 * _MIN_VOXELS:
        if "brain_cut_percent" in found:
            found["brain_cut_percent"] = brain_cut_percent(mask)
        if {"snr", "noise_sd"} & set(found):
            # Frames of a series have noise of their own; their mean would hide it.
            noise = noise_sd(frames[..., 0] if frames.ndim == 4 else frames, mask)
            signal = float(np.median(volume[mask]))
            measured = {"noise_sd": noise, "snr": signal / noise if noise else None}
            found |= {name: measured[name] for name in measured if name in found}
        if "motion_mm" in found:
            found["motion_mm"] = (
                frame_motion_mm(frames, in_plane_mm, float(sizes[axis]))
                if frames.ndim == 4
                else slice_motion_mm(volume, mask, in_plane_mm)
            )
    if "ghosting_percent" in found and not ct:
        found["ghosting_percent"] = ghosting_percent(volume)
    return found


def brain_cut_percent(mask: NDArray[np.bool_]) -> float:
    """Brain area on the outermost slice where it is larger, percent of the largest area.

    A head that is covered whole has 0 at the top and the cut of the medulla, a few percent, at
    the bottom.

    Examples
    --------
    >>> mask = np.zeros((10, 10, 3), bool); mask[:, :, 1] = True; mask[:5, :, 2] = True
    >>> brain_cut_percent(mask)
    50.0
    """
    areas = mask.sum(axis=(0, 1))
    return 100.0 * float(max(areas[0], areas[-1]) / areas.max())


def noise_sd(volume: NDArray[Any], mask: NDArray[np.bool_]) -> float | None:
    """SD of white noise within a mask, free of what varies smoothly (Donoho and Johnstone 1994).

    The diagonal Haar detail (a - b - c + d) / 2 of 2 x 2 neighbours in a slice has the SD of the
    noise and no linear trend; its median absolute deviation is robust against edges. In images
    that were interpolated in plane the noise is correlated and this is too low.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> ramp = np.linspace(0, 500, 64)[:, None, None] + rng.normal(0, 7, (64, 64, 10))
    >>> round(noise_sd(ramp, np.ones(ramp.shape, bool)), 1)
    7.0
    """
    detail = (volume[:-1, :-1] - volume[1:, :-1] - volume[:-1, 1:] + volume[1:, 1:]) / 2
    inside = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    values = detail[inside]
    if values.size < 10 * _MIN_VOXELS:
        return None
    sd = _MAD_TO_SD * float(np.median(np.abs(values - np.median(values))))
    return sd if sd > 0 else None


def ghosting_percent(volume: NDArray[Any]) -> float | None:
    """Percent signal ghosting: |mean of one direction's air - the other's| / (2 signal) x 100.

    As the ACR defines it for its phantom (ghosts lie along the phase-encoding direction only),
    with the air between the head and the edge of the image, in the slices of the middle half.
    None where the air is empty (masked by the scanner) or too narrow.

    Examples
    --------
    >>> head = np.zeros((64, 64, 8)); head[20:44, 20:44] = 100; head += 1
    >>> ghosted = head.copy(); ghosted[4:18, 22:42] += 8; ghosted[46:60, 22:42] += 8
    >>> round(ghosting_percent(head), 2), round(ghosting_percent(ghosted), 1) > 3
    (0.0, True)
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    if volume.min() == volume.max():
        return None
    number = volume.shape[2]
    middle = volume[:, :, number // 4 : max(number - number // 4, number // 4 + 1)]
    # A third of the tissue's level: above any ghost, below scalp and cerebrospinal fluid.
    threshold = 0.3 * float(np.median(middle[middle > threshold_otsu(middle.ravel())]))
    shares = []
    for index in range(middle.shape[2]):
        plane = middle[:, :, index]
        parts, count = ndimage.label(plane > threshold)
        if not count:
            continue
        largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        head = ndimage.binary_fill_holes(parts == largest)
        low, high = np.argwhere(head).min(axis=0), np.argwhere(head).max(axis=0)
        across = _strips(plane, low, high, 0)
        down = _strips(plane, low, high, 1)
        signal = float(np.median(plane[head]))
        if across.size < _MIN_VOXELS or down.size < _MIN_VOXELS or signal <= 0:
            continue
        if (across == 0).mean() > 0.5 or (down == 0).mean() > 0.5:
            continue
        shares.append(100.0 * abs(float(across.mean() - down.mean())) / signal)
    # Two strips in each direction: the ACR's sum over four regions halves to this mean.
    return float(np.median(shares)) if shares else None


def _strips(
    plane: NDArray[Any], low: NDArray[Any], high: NDArray[Any], axis: int
) -> NDArray[np.float64]:
    """Air before and after the head along an axis, as wide as the head, clear of both edges."""
    turned = plane if axis == 0 else plane.T
    start, stop = int(low[axis]) - 3, int(high[axis]) + 4
    left, right = int(low[1 - axis]), int(high[1 - axis]) + 1
    before = turned[2 : max(start, 2), left:right]
    after = turned[min(stop, turned.shape[0] - 2) : turned.shape[0] - 2, left:right]
    return np.concatenate([before.ravel(), after.ravel()]).astype(np.float64)


def slice_motion_mm(
    volume: NDArray[Any], mask: NDArray[np.bool_], in_plane_mm: Iterable[float]
) -> float | None:
    """Largest in-plane shift of a slice against the mean of its two neighbours.

    Slices of a 2D scan are acquired interleaved, so that a head that moves between them leaves
    steps; anatomy changes evenly and cancels in the mean of both neighbours. By phase correlation
    to a tenth of a voxel (Guizar-Sicairos 2008), in slices with at least half of the largest brain
    area.
    """
    from skimage.registration import phase_cross_correlation

    sizes = np.array(list(in_plane_mm))
    areas = mask.sum(axis=(0, 1))
    window = np.outer(np.hanning(volume.shape[0]), np.hanning(volume.shape[1]))
    shifts = []
    for index in range(1, volume.shape[2] - 1):
        if min(areas[index - 1 : index + 2]) < 0.5 * areas.max():
            continue
        around = (volume[:, :, index - 1] + volume[:, :, index + 1]) / 2
        shift, _, _ = phase_cross_correlation(
            around * window, volume[:, :, index] * window, upsample_factor=10, normalization=None
        )
        shifts.append(float(np.sqrt(((shift * sizes) ** 2).sum())))
    return max(shifts) if shifts else None


def frame_motion_mm(
    frames: NDArray[Any], in_plane_mm: Iterable[float], slice_mm: float
) -> float | None:
    """Largest shift of a frame against the mean of all frames, by phase correlation in 3D."""
    from skimage.registration import phase_cross_correlation

    sizes = np.array([*in_plane_mm, slice_mm])
    mean = frames.mean(axis=3)
    largest = 0.0
    for index in range(frames.shape[3]):
        shift, _, _ = phase_cross_correlation(
            mean, frames[..., index], upsample_factor=4, normalization=None
        )
        largest = max(largest, float(np.sqrt(((shift * sizes) ** 2).sum())))
    return largest
