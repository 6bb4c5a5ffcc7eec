"""Diffusion of a real head that is not our template (Colin27), with an infarct of known place.

Tissue comes from Colin27's own T1 by intensity, the infarct from a real lesion's mask in MNI
space (SOOP), the truth of its place in the template's space from 30 landmarks that people placed
on both heads (AFIDs), joined by a thin-plate spline. The landmarks scatter by about 1 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

#: Landmarks of the ventricular horns: outliers of this head (see the data's README).
LEFT_OUT = (29, 30)
B_VALUE_S_MM2 = 1000.0
_B0 = {"csf": 0.66, "grey": 0.33, "white": 0.24}
_ADC_MM2_S = {"csf": 3.0e-3, "grey": 0.83e-3, "white": 0.74e-3}
_INFARCT_B0, _INFARCT_ADC_MM2_S = 1.2, 0.48e-3


@dataclass(frozen=True)
class ColinVisit:
    """Files of the visit, and what is true of the infarct."""

    files: dict[str, Path]
    volume_ml: float
    centre_mni_mm: np.ndarray
    centre_error_mm: float
    """Standard error of the true centre (jackknife over the landmarks)."""


def landmarks(path: Path) -> np.ndarray:
    """Landmarks (n, 3) in RAS mm, in the order of their numbers, without the outliers."""
    table = pd.read_csv(path, comment="#", header=None)
    number = table[11].astype(int).to_numpy()
    points = table[[1, 2, 3]].to_numpy(float)[np.argsort(number)]
    keep = ~np.isin(np.sort(number), LEFT_OUT)
    return points[keep]


def colin_visit(data: Path, folder: Path, lesion: Path, seed: int = 3) -> ColinVisit:
    """Write b0, DWI and ADC of Colin27 with the lesion; the T1 is the head's own."""
    folder.mkdir(parents=True, exist_ok=True)
    t1_path = data / "registration/afids/ch2.nii.gz"
    t1: Any = nib.as_closest_canonical(nib.load(t1_path))
    fractions, outside = _tissue(t1)
    inside = _on_grid(lesion, t1)
    rng = np.random.default_rng(seed)
    parenchyma = fractions["grey"] + fractions["white"]
    volume_ml = float((inside * parenchyma).sum()) / 1000.0
    b0 = sum(_B0[name] * fractions[name] for name in _B0)
    dwi = sum(
        _B0[name] * np.exp(-B_VALUE_S_MM2 * _ADC_MM2_S[name]) * fractions[name] for name in _B0
    )
    tissue_b0 = _B0["grey"] * fractions["grey"] + _B0["white"] * fractions["white"]
    water = np.exp(-B_VALUE_S_MM2 * _INFARCT_ADC_MM2_S)
    tissue_dwi = dwi - _B0["csf"] * np.exp(-3.0) * fractions["csf"]
    dwi = dwi + inside * (tissue_b0 * _INFARCT_B0 * water - tissue_dwi)
    b0 = b0 + inside * tissue_b0 * (_INFARCT_B0 - 1) + 0.05 * outside
    dwi = dwi + 0.02 * outside
    grid, affine = _scan_grid(t1)
    signals = {}
    for name, values, sigma in (("b0", b0, 0.012), ("dwi", dwi, 0.007)):
        sampled = ndimage.map_coordinates(values.astype(np.float32), grid, order=1)
        sampled = sampled.reshape(*grid.shape[1:3], -1, _SAMPLES).mean(-1)
        noisy = sampled + sigma * rng.standard_normal(sampled.shape)
        signals[name] = np.hypot(noisy, sigma * rng.standard_normal(sampled.shape))
    ratio = np.log(np.maximum(signals["b0"], 1e-3) / np.maximum(signals["dwi"], 1e-3))
    adc = np.where(
        ndimage.uniform_filter(signals["b0"], 3) > 0.08, np.clip(ratio / B_VALUE_S_MM2, 0, 4e-3), 0
    )
    files = {"T1w": t1_path}
    for name, values in (*((k, v * 2000) for k, v in signals.items()), ("adc", adc)):
        files[name] = folder / f"colin_{name}.nii.gz"
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), files[name])
    weight = inside * parenchyma
    centre = np.array([(weight * axis).sum() for axis in _world(t1)]) / weight.sum()
    truth, error = to_template(data, centre)
    return ColinVisit(files, volume_ml, truth, error)


def to_template(data: Path, point: np.ndarray) -> tuple[np.ndarray, float]:
    """A point of Colin27 in the template's space by the landmarks, and its standard error in mm.

    A thin-plate spline joins the landmarks; the error is the jackknife over them, so that it is
    small between landmarks (1 mm in the basal ganglia) and large far from all (3 to 6 mm at the
    lateral surface and in the cerebellar hemispheres).
    """
    afids = data / "registration/afids"
    here = landmarks(afids / "tpl-Colin27_afids.fcsv")
    there = landmarks(afids / "tpl-MNI152NLin2009bSym_afids.fcsv")

    def moved(keep: np.ndarray) -> np.ndarray:
        return RBFInterpolator(here[keep], there[keep], smoothing=5.0)(point[None])[0]

    n = len(here)
    without = np.array([moved(np.arange(n) != left_out) for left_out in range(n)])
    spread = ((without - without.mean(axis=0)) ** 2).sum()
    return moved(np.ones(n, bool)), float(np.sqrt((n - 1) / n * spread))


def _tissue(t1: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fractions of fluid, grey and white matter within the head's brain, and what is outside."""
    from corelab.imaging.brain import brain_mask

    values = ndimage.gaussian_filter(np.asarray(t1.dataobj, np.float32), 0.5)
    brain = brain_mask(t1, "T1w")
    inside = values[brain]
    centres = np.percentile(inside, [5, 45, 85])
    for _ in range(30):
        nearest = np.abs(inside[:, None] - centres).argmin(1)
        centres = np.array([inside[nearest == k].mean() for k in range(3)])
    csf, grey, white = centres
    share = np.clip((values - csf) / (grey - csf), 0, 1)
    whiteness = np.clip((values - grey) / (white - grey), 0, 1)
    fractions = {
        "csf": (1 - share) * brain,
        "grey": share * (1 - whiteness) * brain,
        "white": share * whiteness * brain,
    }
    head = ndimage.binary_fill_holes(values > 0.3 * grey)
    return fractions, (head & ~brain) * np.clip(values / white, 0, 1.5)


def _on_grid(mask: Path, t1: Any) -> np.ndarray:
    """A mask in MNI space as fractions on the head's grid (Colin27 lies in MNI space, roughly)."""
    from nibabel.processing import resample_from_to

    image: Any = nib.load(mask)
    soft = nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)
    moved = resample_from_to(soft, (t1.shape, t1.affine), order=1)
    return np.clip(np.asarray(moved.dataobj), 0, 1)


def _world(image: Any) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij")
    return np.moveaxis(nib.affines.apply_affine(image.affine, np.stack(axes, -1)), -1, 0)


_SAMPLES = 4


def _scan_grid(t1: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sample points (voxels of the T1) of 1.25 x 1.25 x 5 mm slices, tilted; and the affine."""
    angle = np.deg2rad(9.0)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    sizes, shape = np.array([1.25, 1.25, 5.0]), (144, 176, 32)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(sizes)
    centre = nib.affines.apply_affine(t1.affine, (np.array(t1.shape) - 1) / 2)
    affine[:3, 3] = centre + (3, 5, -4) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    steps = np.arange(shape[2] * _SAMPLES) / _SAMPLES + (1 / _SAMPLES - 1) / 2
    index = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), steps, indexing="ij"))
    world = nib.affines.apply_affine(affine, np.moveaxis(index, 0, -1))
    # The T1 stays where it is; the diffusion was scanned with the head 4 mm further on.
    voxels = nib.affines.apply_affine(np.linalg.inv(t1.affine), world - (0.0, 4.0, 0.0))
    return np.moveaxis(voxels, -1, 0), affine
