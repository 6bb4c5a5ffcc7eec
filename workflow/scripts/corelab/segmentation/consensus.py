"""Several readers' masks to one: majority vote and STAPLE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corelab.segmentation.scans import Mask

TieRule = Literal["background", "lowest", "highest"]


@dataclass(frozen=True)
class Staple:
    """STAPLE's consensus with what it estimated of each reader.

    ``probability`` is the voxelwise probability of the true segmentation, ``sensitivity`` and
    ``specificity`` have one value per reader in the order given.
    """

    mask: Mask
    probability: NDArray[np.float64]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]


def majority_vote(
    label_maps: Sequence[NDArray[Any]], *, ties: TieRule = "background"
) -> tuple[NDArray[np.int32], Mask]:
    """The label that most readers gave to each voxel.

    Parameters
    ----------
    label_maps
        Two or more masks or label maps on one grid; values are rounded (labels are found stored
        as 1.000015).
    ties
        What a voxel gets whose highest count two labels share: ``background`` (0, the careful
        choice), or the ``lowest`` or ``highest`` of the labels that tie.

    Returns
    -------
    labels, tied
        Consensus labels, and where there was a tie.

    Raises
    ------
    ValueError
        With fewer than two maps, on different grids, or with an unknown rule.

    Examples
    --------
    >>> readers = [np.array([1, 1, 0, 2]), np.array([1, 0, 0, 1]), np.array([0, 1, 0, 0])]
    >>> labels, tied = majority_vote(readers)
    >>> labels.tolist(), tied.tolist()
    ([1, 1, 0, 0], [False, False, False, True])
    >>> majority_vote(readers, ties="highest")[0].tolist()
    [1, 1, 0, 2]
    """
    maps = _stacked(label_maps)
    if ties not in ("background", "lowest", "highest"):
        raise ValueError(
            f"ties is '{ties}': it decides voxels without a majority; "
            "use background, lowest or highest"
        )
    values = np.unique(maps)
    best = np.zeros(maps.shape[1:], np.int32)
    most = np.zeros(maps.shape[1:], np.int32)
    tied = np.zeros(maps.shape[1:], bool)
    for value in values:  # ascending, so that "lowest" keeps the first and "highest" the last
        count = (maps == value).sum(axis=0)
        equal = count == most
        wins = (count >= most) if ties == "highest" else (count > most)
        tied = np.where(equal & (count > 0), True, np.where(count > most, False, tied))
        best = np.where(wins, value, best).astype(np.int32)
        most = np.maximum(most, count).astype(np.int32)
    if ties == "background":
        best[tied] = 0
    return best, tied


def staple(masks: Sequence[NDArray[Any]], *, threshold: float = 0.5) -> Staple:
    """Consensus weighted by each reader's estimated sensitivity and specificity (SimpleITK).

    Method: Warfield, Zou and Wells, IEEE Trans Med Imaging 2004;23:903. The field is cropped to
    where any reader marked something and 5 voxels around, because specificity (and through the
    prior the result) depends on how much empty background is counted.

    Raises
    ------
    ValueError
        With fewer than two masks or masks of different shapes.

    Examples
    --------
    >>> truth = np.zeros((12, 12, 12), np.uint8); truth[3:9, 3:9, 3:9] = 1
    >>> poor = np.zeros_like(truth); poor[2:5, 2:5, 2:5] = 1
    >>> found = staple([truth, truth, poor])
    >>> bool((found.mask == (truth > 0)).all()), found.sensitivity[0] > found.sensitivity[2]
    (True, True)
    """
    import SimpleITK as sitk

    stacked = _stacked(masks) != 0
    anywhere = stacked.any(axis=0)
    probability = np.zeros(anywhere.shape)
    if not anywhere.any():
        ones = (1.0,) * len(stacked)
        return Staple(anywhere, probability, ones, ones)
    box = tuple(
        slice(max(0, int(where.min()) - 5), int(where.max()) + 6) for where in np.nonzero(anywhere)
    )
    images = [sitk.GetImageFromArray(mask[box].astype(np.uint8)) for mask in stacked]
    engine = sitk.STAPLEImageFilter()
    engine.SetForegroundValue(1)
    engine.SetNumberOfThreads(1)
    probability[box] = sitk.GetArrayFromImage(engine.Execute(images))
    return Staple(
        probability > threshold,
        probability,
        tuple(float(value) for value in engine.GetSensitivity()),
        tuple(float(value) for value in engine.GetSpecificity()),
    )


def _stacked(masks: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Rounded label maps of one shape along a new first axis."""
    if len(masks) < 2:
        raise ValueError(f"a consensus needs two masks or more, {len(masks)} given")
    shapes = sorted({np.shape(mask) for mask in masks})
    if len(shapes) > 1:
        raise ValueError(
            f"the masks have the shapes {shapes}: bring them onto one grid before the vote"
        )
    return np.stack([np.rint(np.asarray(mask)).astype(np.int64) for mask in masks])
