"""Where a lesion lies: atlas regions and hemispheres."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import load_image, resample_to, same_grid
from corelab.study.naming import region_name


@dataclass(frozen=True)
class Atlas:
    """A label image in MNI152 space.

    Attributes
    ----------
    name
        As configured.
    image
        Whole-number labels, closest RAS.
    regions
        Label -> ``<index>_<name>``; only labels that the table names.
    voxels
        Label -> number of voxels, the denominators of territory fractions.
    """

    name: str
    image: nib.Nifti1Image
    regions: dict[int, str]
    voxels: dict[int, int]


def read_labels(path: str | Path) -> dict[int, str]:
    r"""Labels of an atlas: a TSV with ``index`` and ``name``, or lines ``1|ACAL|...``.

    Raises
    ------
    ValueError
        If neither form is found, or an index occurs twice.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.txt"); _ = file.write_text("1|ACAL|left|1\n2|ACAR|right|2\n")
    ...     read_labels(file)
    {1: 'ACAL', 2: 'ACAR'}
    """
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    lines = [line for line in lines if line.strip()]
    pairs: list[tuple[int, str]] = []
    if lines and "\t" in lines[0]:
        header = [cell.strip() for cell in lines[0].split("\t")]
        if not {"index", "name"} <= set(header):
            raise ValueError(f"{path}: the label table needs the columns index and name")
        for line in lines[1:]:
            cells = dict(zip(header, line.split("\t"), strict=False))
            pairs.append((int(cells["index"]), cells["name"].strip()))
    else:
        for number, line in enumerate(lines, 1):
            cells_ = line.split("|")
            if len(cells_) < 2 or not cells_[0].strip().isdigit():
                raise ValueError(
                    f"{path}: line {number} is neither a table row nor of the form 1|NAME|..."
                )
            pairs.append((int(cells_[0]), cells_[1].strip()))
    labels = dict(pairs)
    if len(labels) != len(pairs):
        raise ValueError(f"{path}: a label index occurs twice")
    return labels


@functools.lru_cache(maxsize=8)
def _load_atlas(name: str, path: str, labels: str) -> Atlas:
    # kind "mask-" makes the reader round labels that were stored as 1.000015.
    image = load_image(path, kind="mask-atlas")
    values = np.asanyarray(image.dataobj).astype(np.int32)
    names = read_labels(labels)
    counts = np.bincount(values.ravel(), minlength=max(names) + 1)
    return Atlas(
        name,
        nib.Nifti1Image(values, image.affine),
        {index: region_name(index, text) for index, text in sorted(names.items())},
        {index: int(counts[index]) for index in sorted(names)},
    )


def load_atlas(settings: Mapping[str, Any]) -> Atlas:
    """Load an atlas of the config (``name``, ``path``, ``labels``)."""
    return _load_atlas(settings["name"], str(settings["path"]), str(settings["labels"]))


def territory_fractions(mask: nib.Nifti1Image, atlas: Atlas) -> dict[str, float]:
    """Share of every atlas region that a lesion covers, on the atlas grid.

    Parameters
    ----------
    mask
        Lesion mask in the atlas' space; on another grid it is brought there by nearest voxel.
    atlas
        Labels and the voxel count of every region.

    Returns
    -------
    dict
        Region -> lesion voxels in the region / voxels of the region, 0 to 1; a region without
        voxels on this grid is NaN.

    Examples
    --------
    >>> labels = np.zeros((4, 4, 4), np.int32); labels[:2] = 1; labels[2:] = 2
    >>> atlas = Atlas("a", nib.Nifti1Image(labels, np.eye(4)), {1: "1_L", 2: "2_R"}, {1: 32, 2: 32})
    >>> mask = np.zeros((4, 4, 4), np.uint8); mask[0] = 1
    >>> territory_fractions(nib.Nifti1Image(mask, np.eye(4)), atlas)
    {'1_L': 0.5, '2_R': 0.0}
    """
    on_grid = mask if same_grid(mask, atlas.image) else resample_to(mask, atlas.image, order=0)
    inside = np.asanyarray(on_grid.dataobj) > 0
    labels = np.asanyarray(atlas.image.dataobj)
    covered = np.bincount(labels[inside], minlength=max(atlas.regions, default=0) + 1)
    return {
        region: float(covered[index] / atlas.voxels[index]) if atlas.voxels[index] else float("nan")
        for index, region in atlas.regions.items()
    }


def hemisphere_fractions(mask: nib.Nifti1Image) -> dict[str, float]:
    """Share of a lesion left and right of the midline (x = 0) of MNI152 space.

    An empty lesion has no share: both are NaN. Voxels whose centre lies on the midline count half
    to each side.

    Examples
    --------
    >>> mask = np.ones((4, 1, 1), np.uint8)
    >>> affine = np.eye(4); affine[0, 3] = -2.5
    >>> hemisphere_fractions(nib.Nifti1Image(mask, affine))
    {'left': 0.75, 'right': 0.25}
    """
    where: NDArray[Any] = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    if len(where) == 0:
        return {"left": float("nan"), "right": float("nan")}
    x_mm = where @ mask.affine[0, :3] + mask.affine[0, 3]
    left = float((x_mm < -1e-6).sum() + 0.5 * (np.abs(x_mm) <= 1e-6).sum()) / len(x_mm)
    return {"left": left, "right": 1.0 - left}
