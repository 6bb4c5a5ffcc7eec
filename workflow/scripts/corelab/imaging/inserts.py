"""Phantom scans: each insert's value or volume, its noise and its uniformity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.faults import ImageFault
from corelab.imaging.geometry import resample_to, same_grid, voxel_sizes_mm, voxel_volume_ml
from corelab.imaging.nifti import conform
from corelab.imaging.values import chosen_labels
from corelab.study.checks import VOLUME_UNITS_ML

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
_KEYS = ("site", "scanner", "acquired_at", "kind", "insert", "role", "unit", "certified_value")


def measure_inserts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Measure the inserts of phantom scans.

    Parameters
    ----------
    rows
        Rows of the phantoms sheet with ``path`` and ``mask_path`` resolved: one insert each. A row
        with ``measured_value`` and no path is passed on; a row of a volume may have a mask alone,
        whose volume is then meant.

    Returns
    -------
    list of dict
        Columns of ``endpoints/phantoms.tsv``. A fault of a file is a status.

    Examples
    --------
    >>> row = {"site": "A", "scanner": "S", "acquired_at": "2025-01-01", "kind": "adc", "unit":
    ...        "mm2/s", "insert": "1", "certified_value": 1e-3, "measured_value": 1.01e-3}
    >>> found = measure_inserts([row])[0]; found["measured_value"], found["quantity"]
    (0.00101, 'value')
    """
    images: dict[tuple[str, str], Any] = {}
    made = []
    for row in rows:
        volume = row["unit"] in VOLUME_UNITS_ML
        out: dict[str, Any] = {key: row.get(key) for key in _KEYS}
        out |= {"quantity": "volume" if volume else "value", "status": "ok", "reason": None}
        out["role"] = out["role"] or "other"
        if row.get("path") or row.get("mask_path"):
            try:
                out |= _measured(row, volume, images)
            except ImageFault as fault:
                out |= {"status": "failed", "reason": str(fault)}
        else:
            out["measured_value"] = row.get("measured_value")
            if out["measured_value"] is None:
                out |= {"status": "failed", "reason": "neither an image nor a measured value"}
        made.append(out)
    return made


def _measured(
    row: Mapping[str, Any], volume: bool, images: dict[tuple[str, str], Any]
) -> dict[str, Any]:
    if not row.get("mask_path"):
        raise ImageFault(
            f"the insert {row['insert']} has an image and no mask", "fill in the column mask_path"
        )
    mask_image = conform(row["mask_path"], kind="mask-insert").image
    labels, name = np.asanyarray(mask_image.dataobj), Path(row["mask_path"]).name
    inside = chosen_labels(labels, row.get("label_values"), name, [])
    if inside.sum() < _FEW_VOXELS:
        raise ImageFault(
            f"the mask of the insert {row['insert']} has {int(inside.sum())} voxels, at least "
            f"{_FEW_VOXELS} are needed",
            "check mask_path and label_values",
        )
    if not row.get("path"):
        if not volume:
            raise ImageFault(
                f"the insert {row['insert']} has a mask and no image", "fill in the column path"
            )
        count = int(inside.sum())
        factor = 1 / VOLUME_UNITS_ML[str(row["unit"])]
        return {"measured_value": count * voxel_volume_ml(mask_image) * factor, "n_voxels": count}
    # HU and arbitrary units are taken as the header scales them: a phantom is no head.
    kind = "adc" if row["kind"] == "adc" else None
    key = (str(row["path"]), str(kind))
    if key not in images:
        images[key] = conform(row["path"], kind=kind).image
    image = images[key]
    if not same_grid(image, mask_image):
        mask = nib.Nifti1Image(inside.astype(np.uint8), mask_image.affine)
        inside = np.asanyarray(resample_to(mask, image, order=0).dataobj) > 0
        if inside.sum() < _FEW_VOXELS:
            raise ImageFault(
                f"the mask of the insert {row['insert']} lies outside of its image",
                "check that mask and image are of one scan",
            )
    voxels = np.asarray(image.dataobj, np.float64)
    if volume:
        factor = 1 / VOLUME_UNITS_ML[str(row["unit"])]
        return insert_volume(voxels, inside, image.affine, factor)
    factor = _value_factor(row)
    found = insert_values(voxels * factor, inside, voxel_sizes_mm(image.affine))
    if row["unit"] == "HU":
        found["uniformity_percent"] = None
    return found


def _value_factor(row: Mapping[str, Any]) -> float:
    if row["kind"] != "adc":
        return 1.0
    unit = str(row["unit"]).replace("²", "2")
    if unit not in DIFFUSION_UNITS:
        raise ImageFault(
            f"'{row['unit']}' is no unit of a diffusion coefficient that is known here",
            "write one of " + ", ".join(DIFFUSION_UNITS),
        )
    return DIFFUSION_UNITS[unit]


def insert_values(
    voxels: NDArray[np.float64], inside: NDArray[np.bool_], sizes_mm: NDArray[np.float64]
) -> dict[str, Any]:
    """Mean, SD, signal to noise and uniformity of an insert.

    Uniformity is the ACR's integral uniformity, 100 (1 - (high - low) / (high + low)), of the
    highest and lowest mean over 1 cm2 within a slice of the insert.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.linspace(90, 110, 41)[:, None, None], (41, 41, 3))
    >>> found = insert_values(ramp, np.ones(ramp.shape, bool), np.array([1.0, 1, 5]))
    >>> round(found["measured_value"]), round(found["uniformity_percent"], 2)
    (100, 92.25)
    """
    from scipy import ndimage

    values = voxels[inside]
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    found: dict[str, Any] = {
        "measured_value": mean,
        "measured_sd": sd,
        "n_voxels": int(values.size),
        "snr": mean / sd if sd > 0 else None,
        "uniformity_percent": None,
        "uniformity_range": None,
    }
    width = [max(1, round(np.sqrt(_UNIFORMITY_AREA_MM2) / size)) for size in sizes_mm[:2]]
    box = (width[0], width[1], 1)
    filled = ndimage.uniform_filter(np.where(inside, voxels, 0.0), box, mode="constant")
    share = ndimage.uniform_filter(inside.astype(float), box, mode="constant")
    whole = inside & (share > 0.999)
    if whole.sum() >= 2:
        high, low = float(filled[whole].max()), float(filled[whole].min())
        found["uniformity_range"] = (high - low) / 2
        if low > 0:
            found["uniformity_percent"] = 100.0 * (1 - (high - low) / (high + low))
    return found


def insert_volume(
    voxels: NDArray[np.float64],
    inside: NDArray[np.bool_],
    affine: NDArray[Any],
    factor: float = 1.0,
) -> dict[str, Any]:
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
    >>> bool(found["measured_value"] == ball.sum() / 1000)
    True
    """
    from scipy import ndimage

    sizes = voxel_sizes_mm(affine)
    away = ndimage.distance_transform_edt(~inside, sampling=sizes)
    deep = ndimage.distance_transform_edt(inside, sampling=sizes)
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
    return {
        "measured_value": count * unit_ml * factor,
        "n_voxels": int((part > 0.5).sum()),
    }


def resolved(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Rows with relative paths made to start from a folder (for use without the workflow).

    Examples
    --------
    >>> resolved([{"path": "a.nii", "mask_path": None}], Path("/x"))[0]["path"]
    '/x/a.nii'
    """
    return [
        {
            **row,
            **{
                key: str(folder / row[key]) if row.get(key) else None
                for key in ("path", "mask_path")
            },
        }
        for row in rows
    ]
