"""Location of a lesion: atlas regions and hemispheres."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import load_image, resample_to, same_grid
from corelab.segmentation.hypodensity import aspects, region_share
from corelab.settings.measurement import AtlasSettings
from corelab.study.naming import region_name


@dataclass(frozen=True)
class Atlas:
    """A label image in MNI152 space: whole-number labels, closest RAS.

    ``regions``: label -> ``<index>_<name>``, only labels that the table names. ``voxels``: label ->
    number of voxels, the denominators of territory fractions. ``aspects``, ``mca``: side (``left``,
    ``right``) -> labels of its ten ASPECTS regions, and of its territory of the middle cerebral
    artery; empty where the config names none.
    """

    name: str
    image: nib.Nifti1Image
    regions: dict[int, str]
    voxels: dict[int, int]
    aspects: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    mca: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _read_labels(path: str | Path) -> dict[int, str]:
    """Labels of an atlas: a TSV with ``index`` and ``name``, or lines ``1|ACAL|...``."""
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
    names = _read_labels(labels)
    counts = np.bincount(values.ravel(), minlength=max(names) + 1)
    return Atlas(
        name,
        nib.Nifti1Image(values, image.affine),
        {index: region_name(index, text) for index, text in sorted(names.items())},
        {index: int(counts[index]) for index in sorted(names)},
    )


def load_atlas(settings: AtlasSettings) -> Atlas:
    """Load an atlas of the config (``name``, ``path``, ``labels``, and what its labels serve).

    Raises ValueError if ``aspects`` or ``mca`` names a label that the table lacks or that has no
    voxel.
    """
    atlas = _load_atlas(settings.name, settings.path, settings.labels)
    served = {
        use: {"left": sides.left, "right": sides.right} if sides else {}
        for use, sides in (("aspects", settings.aspects), ("mca", settings.mca))
    }
    for use, sides in served.items():
        absent = sorted({k for labels in sides.values() for k in labels if not atlas.voxels.get(k)})
        if absent:
            raise ValueError(
                f"atlas '{atlas.name}': {use} names the labels {absent}, which its table does not "
                "have or its image has no voxel of; correct the config"
            )
    return replace(atlas, aspects=served["aspects"], mca=served["mca"])


def _on_grid(mask: nib.Nifti1Image, atlas: Atlas) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Lesion on the grid of the atlas (by nearest voxel), and its labels."""
    on_grid = mask if same_grid(mask, atlas.image) else resample_to(mask, atlas.image, order=0)
    return np.asanyarray(on_grid.dataobj) > 0, np.asanyarray(atlas.image.dataobj)


def aspects_rows(
    mask: nib.Nifti1Image, atlas: Atlas, *, min_share: float
) -> list[tuple[str, str, float, str, str | None]]:
    """ASPECTS, and the share of the MCA's territory, of an infarct in the atlas' space.

    A region is hit when more than ``min_share`` of it is infarct. Rows of endpoint, region, value,
    unit, what to know: ``aspects`` (10 less the regions hit, of the side with more of them; Barber
    2000, Lancet 355:1670), ``mca_fraction`` per side, and ``mca_above_third`` (1 where more than a
    third of one side's territory is infarct); none without ``aspects`` or ``mca`` of the atlas.

    Examples
    --------
    >>> labels = np.repeat(np.arange(1, 21, dtype=np.int32), 4)[:, None, None]
    >>> names = {k: f"{k}_M{k}" for k in range(1, 21)}
    >>> atlas = Atlas("a", nib.Nifti1Image(labels, np.eye(4)), names, dict.fromkeys(names, 4),
    ...               {"left": tuple(range(1, 11)), "right": tuple(range(11, 21))})
    >>> mask = nib.Nifti1Image((labels < 3).astype(np.uint8), np.eye(4))
    >>> aspects_rows(mask, atlas, min_share=0.2)
    [('aspects', 'all', 8.0, 'score', 'left: 1_M1, 2_M2')]
    """
    if not atlas.aspects and not atlas.mca:
        return []
    inside, labels = _on_grid(mask, atlas)
    rows: list[tuple[str, str, float, str, str | None]] = []
    found = {}
    for side, chosen in atlas.aspects.items():
        names = {k: atlas.regions[k] for k in chosen}
        score, share = aspects(inside, labels, names, min_share=min_share)
        found[side] = score, [name for name, part in share.items() if part > min_share]
    if found:
        side, (score, hit) = min(found.items(), key=lambda item: (item[1][0], item[0]))
        hits = f"{side}: {', '.join(hit)}" if hit else "no region is hit"
        rows.append(("aspects", "all", float(score), "score", hits))
    shares = {side: region_share(inside, labels, chosen) for side, chosen in atlas.mca.items()}
    rows += [("mca_fraction", side, share, "fraction", None) for side, share in shares.items()]
    if shares:
        above = float(max(shares.values()) > 1.0 / 3.0)
        rows.append(("mca_above_third", "all", above, "indicator", "1: above a third, 0: not"))
    return rows


def territory_fractions(mask: nib.Nifti1Image, atlas: Atlas) -> dict[str, float]:
    """Region -> share of its voxels (atlas grid, 0 to 1) that a lesion in the atlas' space covers.

    A mask on another grid is brought there by nearest voxel; a region without voxels is NaN.

    Examples
    --------
    >>> labels = np.zeros((4, 4, 4), np.int32); labels[:2] = 1; labels[2:] = 2
    >>> atlas = Atlas("a", nib.Nifti1Image(labels, np.eye(4)), {1: "1_L", 2: "2_R"}, {1: 32, 2: 32})
    >>> mask = np.zeros((4, 4, 4), np.uint8); mask[0] = 1
    >>> territory_fractions(nib.Nifti1Image(mask, np.eye(4)), atlas)
    {'1_L': 0.5, '2_R': 0.0}
    """
    inside, labels = _on_grid(mask, atlas)
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
