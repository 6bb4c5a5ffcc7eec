"""Phantom scans: each insert's value or volume, its noise and its uniformity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from corelab.imaging.faults import ImageFault
from corelab.imaging.geometry import (
    distance_mm,
    resample_to,
    same_grid,
    voxel_sizes_mm,
    voxel_volume_ml,
)
from corelab.imaging.nifti import conform
from corelab.imaging.values import chosen_labels
from corelab.records.images import InsertRow
from corelab.study.columns import PHANTOMS
from corelab.terms.endpoints import VOLUME_UNITS_ML

#: Units of a diffusion coefficient and their factor from mm2/s.
DIFFUSION_UNITS = {
    "mm2/s": 1.0,
    "10^-3 mm2/s": 1e3,
    "1e-3 mm2/s": 1e3,
    "um2/ms": 1e3,
    "10^-6 mm2/s": 1e6,
    "1e-6 mm2/s": 1e6,
    "um2/s": 1e6,
    "m2/s": 1e-6,
}
#: Area over which ACR's integral uniformity takes means, in mm2.
_UNIFORMITY_AREA_MM2 = 100.0
#: Width of the shell around an insert that describes its surroundings, in mm.
_SHELL_MM = 4.0
_FEW_VOXELS = 10


@dataclass(frozen=True)
class InsertFigures:
    """What was measured of an insert; ``measured_value`` is its mean, or its volume in its unit."""

    measured_value: float | None = None
    measured_sd: float | None = None
    n_voxels: int | None = None
    snr: float | None = None
    uniformity_percent: float | None = None
    uniformity_range: float | None = None


@dataclass(frozen=True)
class Insert:
    """Row of ``endpoints/phantoms.tsv``; a fault of a file is a status."""

    row: InsertRow
    figures: InsertFigures = InsertFigures()
    status: str = "ok"
    reason: str | None = None

    @property
    def quantity(self) -> str:
        """``value`` (of the voxels) or ``volume``."""
        return "volume" if self.row.unit in VOLUME_UNITS_ML else "value"


def measure_inserts(rows: Sequence[InsertRow]) -> list[Insert]:
    """Measure the inserts of phantom scans.

    Parameters
    ----------
    rows
        One insert each. A row with ``measured_value`` and no path is passed on; a row of a volume
        may have a mask alone, whose volume is then meant.

    Examples
    --------
    >>> row = InsertRow("A", "S", "2025-01-01", "adc", "1", "mm2/s", 1e-3, measured_value=1.01e-3)
    >>> found = measure_inserts([row])[0]; found.figures.measured_value, found.quantity
    (0.00101, 'value')
    """
    images: dict[tuple[str, str], Any] = {}
    made = []
    for row in rows:
        found = Insert(row, InsertFigures(row.measured_value))
        if row.path or row.mask_path:
            try:
                found = Insert(row, _measured(row, found.quantity == "volume", images))
            except ImageFault as fault:
                found = Insert(row, status="failed", reason=str(fault))
        elif row.measured_value is None:
            found = replace(found, status="failed", reason="neither an image nor a measured value")
        made.append(found)
    return made


def inserts_frame(inserts: Sequence[Insert]) -> pd.DataFrame:
    """Table ``endpoints/phantoms.tsv``.

    Examples
    --------
    >>> inserts_frame([]).columns[:3].tolist()
    ['site', 'scanner', 'acquired_at']
    """
    rows = []
    for one in inserts:
        listed = {**one.row.to_json(), "role": one.row.role or "other", "quantity": one.quantity}
        rows.append({**listed, **asdict(one.figures), "status": one.status, "reason": one.reason})
    return pd.DataFrame(rows, columns=list(PHANTOMS), dtype=object)


def _measured(row: InsertRow, volume: bool, images: dict[tuple[str, str], Any]) -> InsertFigures:
    if not row.mask_path:
        raise ImageFault(
            f"the insert {row.insert} has an image and no mask", "fill in the column mask_path"
        )
    mask_image = conform(row.mask_path, kind="mask-insert").image
    labels, name = np.asanyarray(mask_image.dataobj), Path(row.mask_path).name
    inside = chosen_labels(labels, row.label_values, name, [])
    if inside.sum() < _FEW_VOXELS:
        raise ImageFault(
            f"the mask of the insert {row.insert} has {int(inside.sum())} voxels, at least "
            f"{_FEW_VOXELS} are needed",
            "check mask_path and label_values",
        )
    if not row.path:
        if not volume:
            raise ImageFault(
                f"the insert {row.insert} has a mask and no image", "fill in the column path"
            )
        count = int(inside.sum())
        factor = 1 / VOLUME_UNITS_ML[row.unit]
        return InsertFigures(count * voxel_volume_ml(mask_image) * factor, n_voxels=count)
    # HU and arbitrary units are taken as the header scales them: a phantom is no head.
    kind = "adc" if row.kind == "adc" else None
    key = (row.path, str(kind))
    if key not in images:
        images[key] = conform(row.path, kind=kind).image
    image = images[key]
    if not same_grid(image, mask_image):
        mask = nib.Nifti1Image(inside.astype(np.uint8), mask_image.affine)
        inside = np.asanyarray(resample_to(mask, image, order=0).dataobj) > 0
        if inside.sum() < _FEW_VOXELS:
            raise ImageFault(
                f"the mask of the insert {row.insert} lies outside of its image",
                "check that mask and image are of one scan",
            )
    voxels = np.asarray(image.dataobj, np.float64)
    if volume:
        factor = 1 / VOLUME_UNITS_ML[row.unit]
        return insert_volume(voxels, inside, image.affine, factor)
    factor = _value_factor(row)
    found = insert_values(voxels * factor, inside, voxel_sizes_mm(image.affine))
    return replace(found, uniformity_percent=None) if row.unit == "HU" else found


def _value_factor(row: InsertRow) -> float:
    if row.kind != "adc":
        return 1.0
    unit = row.unit.replace("²", "2")
    if unit not in DIFFUSION_UNITS:
        raise ImageFault(
            f"'{row.unit}' is no unit of a diffusion coefficient that is known here",
            "write one of " + ", ".join(DIFFUSION_UNITS),
        )
    return DIFFUSION_UNITS[unit]


def insert_values(
    voxels: NDArray[np.float64], inside: NDArray[np.bool_], sizes_mm: NDArray[np.float64]
) -> InsertFigures:
    """Mean, SD, signal to noise and uniformity of an insert.

    Uniformity is the ACR's integral uniformity, 100 (1 - (high - low) / (high + low)), of the
    highest and lowest mean over 1 cm2 within a slice of the insert.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.linspace(90, 110, 41)[:, None, None], (41, 41, 3))
    >>> found = insert_values(ramp, np.ones(ramp.shape, bool), np.array([1.0, 1, 5]))
    >>> round(found.measured_value), round(found.uniformity_percent, 2)
    (100, 92.25)
    """
    from scipy import ndimage

    values = voxels[inside]
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    percent = spread = None
    width = [max(1, round(np.sqrt(_UNIFORMITY_AREA_MM2) / size)) for size in sizes_mm[:2]]
    box = (width[0], width[1], 1)
    filled = ndimage.uniform_filter(np.where(inside, voxels, 0.0), box, mode="constant")
    share = ndimage.uniform_filter(inside.astype(float), box, mode="constant")
    whole = inside & (share > 0.999)
    if whole.sum() >= 2:
        high, low = float(filled[whole].max()), float(filled[whole].min())
        spread = (high - low) / 2
        percent = 100.0 * (1 - (high - low) / (high + low)) if low > 0 else None
    snr = mean / sd if sd > 0 else None
    return InsertFigures(mean, sd, int(values.size), snr, percent, spread)


def insert_volume(
    voxels: NDArray[np.float64],
    inside: NDArray[np.bool_],
    affine: NDArray[Any],
    factor: float = 1.0,
) -> InsertFigures:
    """Volume of an insert within its mask and a rim, by the share of each voxel that it fills.

    A voxel is filled by (value - surroundings) / (insert - surroundings): what partial volume and
    blur leave at the border counts in part, so that the volume of a sphere is right on a grid of
    thick slices. ``inside`` says where to look and need not be exact; within 4 mm of it there must
    be nothing else.

    Parameters
    ----------
    voxels, inside
        Image and rough mask (3D).
    affine
        Of the image; gives the volume of a voxel.
    factor
        Of the unit from mL.

    Examples
    --------
    >>> x, y, z = np.mgrid[-15:16, -15:16, -15:16]
    >>> ball = (x**2 + y**2 + z**2 < 100).astype(float)
    >>> found = insert_volume(50 * ball + 20, ball > 0, np.eye(4))
    >>> bool(found.measured_value == ball.sum() / 1000)
    True
    """

    sizes = voxel_sizes_mm(affine)
    away = distance_mm(~inside, sizes)
    deep = distance_mm(inside, sizes)
    core = inside & (deep > 0.5 * deep.max())
    shell = (away > _SHELL_MM) & (away <= 2.5 * _SHELL_MM)
    if shell.sum() < _FEW_VOXELS:
        raise ImageFault("the insert has no surroundings in its image", "scan the whole phantom")
    within, around = float(np.median(voxels[core])), float(np.median(voxels[shell]))
    noise = float(voxels[shell].std())
    if abs(within - around) <= 3 * noise:
        raise ImageFault(
            f"the insert ({within:.4g}) does not stand out from its surroundings ({around:.4g}, "
            f"SD {noise:.2g})",
            "check the mask; a volume needs contrast",
        )
    # Summed without clipping, noise cancels; clipped to 0 and 1 it would add up or be lost.
    part = ((voxels - around) / (within - around))[away <= _SHELL_MM]
    count = float(part.sum())
    unit_ml = abs(float(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000
    return InsertFigures(count * unit_ml * factor, n_voxels=int((part > 0.5).sum()))
