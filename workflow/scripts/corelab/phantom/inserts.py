"""Digital quality phantoms: inserts of certified value or volume, as a scanner would show them.

A scanner that is in order shows what is certified, with blur, noise and partial volume; one that
is not has a scale error, in its values (ADC, HU) or in its slice spacing (volumes).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import save_image
from corelab.imaging.inserts import DIFFUSION_UNITS
from corelab.records.images import InsertRow
from corelab.terms.endpoints import VOLUME_UNITS_ML

_SHAPE = (128, 128, 24)
_SIZES_MM = (1.5, 1.5, 4.0)
#: Radius of the ring on which inserts stand, of an insert with a value, and of its mask, in mm.
_RING_MM, _INSERT_MM, _MASK_MM = 55.0, 14.0, 11.0
_PHANTOM_MM = 85.0
_SUBSAMPLES = 3
#: Background, noise SD and what surrounds the phantom, by kind of scan.
_SCENE = {
    "adc": {"background": 2.0e-3, "noise": 1.5e-5, "outside": 0.0},
    "ncct": {"background": 30.0, "noise": 3.0, "outside": -1000.0},
}
#: Contrast of an insert whose volume is certified.
_VOLUME_VALUE = {"adc": 0.5e-3, "ncct": 65.0}


def simulate_inserts(
    rows: Sequence[InsertRow],
    image_path: str | os.PathLike[str],
    mask_path: str | os.PathLike[str],
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> None:
    """Write a phantom scan and the labels of its inserts.

    Parameters
    ----------
    rows
        Of one scan, of kind adc or ncct, with one whole number as ``label_values`` each; all values
        or all volumes (ValueError otherwise).
    image_path, mask_path
        Where image and labels go.
    scale
        Error of the scanner: values are multiplied by it; of volumes the slice spacing is.
    seed
        Of the noise; the file's name is mixed in.

    Examples
    --------
    >>> import tempfile
    >>> row = InsertRow("A", "S", "2025", "adc", "a", "mm2/s", 6e-4, label_values="1")
    >>> paths = [Path(tempfile.mkdtemp(), name) for name in ("a.nii.gz", "labels.nii.gz")]
    >>> simulate_inserts([row], *paths)
    >>> image, labels = (np.asarray(nib.load(path).dataobj) for path in paths)
    >>> round(float(image[labels == 1].mean()) * 1e4, 1)
    6.0
    """
    kind = rows[0].kind
    if kind not in _SCENE or any(row.kind != kind for row in rows):
        raise ValueError(f"a digital phantom is of one kind of {', '.join(_SCENE)}, not {kind}")
    volumes = [row.unit in VOLUME_UNITS_ML for row in rows]
    if any(volumes) != all(volumes):
        raise ValueError("inserts of one scan are values or volumes, not both")
    scene = _SCENE[kind]
    x, y, z = _grid_mm()
    voxels = np.full(x.shape, scene["outside"], np.float32)
    voxels[np.hypot(x, y) <= _PHANTOM_MM] = scene["background"]
    labels = np.zeros(_SHAPE, np.uint8)
    coarse_x, coarse_y, coarse_z = _grid_mm(1)
    for number, row in enumerate(rows):
        angle = 2 * np.pi * number / len(rows)
        at = (_RING_MM * np.cos(angle), _RING_MM * np.sin(angle))
        assert row.certified_value is not None and row.label_values is not None
        certified = row.certified_value
        if volumes[0]:
            radius = _radius_mm(certified * VOLUME_UNITS_ML[row.unit])
            voxels[_ball(x, y, z, at, radius)] = _VOLUME_VALUE[kind]
            inside = _ball(coarse_x, coarse_y, coarse_z, at, radius)
        else:
            factor = DIFFUSION_UNITS[row.unit] if kind == "adc" else 1.0
            voxels[np.hypot(x - at[0], y - at[1]) <= _INSERT_MM] = certified / factor
            inside = np.hypot(coarse_x - at[0], coarse_y - at[1]) <= _MASK_MM
        labels[inside] = int(row.label_values)
    scan: np.ndarray = _block_means(voxels)
    mixed = np.random.default_rng([seed, zlib.crc32(Path(image_path).name.encode())])
    scan = ndimage.gaussian_filter(scan, (0.5, 0.5, 0)) + mixed.normal(0, scene["noise"], _SHAPE)
    affine = np.diag([*_SIZES_MM, 1.0])
    if volumes[0]:
        affine[2, 2] *= scale
    else:
        scan = scan * scale
    affine[:3, 3] = -(np.array(_SHAPE) - 1) / 2 * np.diag(affine)[:3]
    parameters = {"scale": scale, "seed": seed, "inserts": [row.to_json() for row in rows]}
    for values, path, dtype, unit in (
        (scan, image_path, np.float32, "mm2/s" if kind == "adc" else "HU"),
        (labels, mask_path, np.uint8, "label"),
    ):
        image = nib.Nifti1Image(values.astype(dtype), affine)
        save_image(image, path, sidecar={"unit": unit, "parameters": parameters}, dtype=dtype)


def _grid_mm(subsamples: int = _SUBSAMPLES) -> list[NDArray[np.float32]]:
    """World coordinates of the centres of subvoxels, the centre of the scan at 0."""
    axes = []
    for number, size in zip(_SHAPE, _SIZES_MM, strict=True):
        step = size / subsamples
        count = number * subsamples
        axes.append(((np.arange(count) - (count - 1) / 2) * step).astype(np.float32))
    return list(np.meshgrid(*axes, indexing="ij"))


def _block_means(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    n = _SUBSAMPLES
    shape = [part for number in _SHAPE for part in (number, n)]
    return np.asarray(voxels.reshape(shape).mean(axis=(1, 3, 5)))


def _radius_mm(volume_ml: float) -> float:
    return float((3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3))


def _ball(x: Any, y: Any, z: Any, at: tuple[float, float], radius_mm: float) -> NDArray[np.bool_]:
    return np.asarray((x - at[0]) ** 2 + (y - at[1]) ** 2 + z**2 <= radius_mm**2)
