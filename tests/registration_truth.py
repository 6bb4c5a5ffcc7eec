"""Simulated subjects with a known map to MNI152: acceptance tests and `make bench` share them.

The subject is the template under a known smooth map (affine of up to 4 degrees and 5 %, random
displacements of 3 to 4 mm on average, Jacobian 0.5 to 1.7), with a bias field, Rician noise,
a dark gap, skull and scalp, and a lesion of 28 to 41 mL that takes away 40 % of the T1 signal.
The map is defined from subject to template, so that the error |phi(T(y)) - y| needs no inversion.
Real anatomy differs from the template by more than a map: all figures are optimistic.
:data:`HARD` makes the heads harder: ventricles that are wide or displaced, another contrast with
partial volume lost to fluid (atrophy), anatomy that the template does not have, a finer map, dura,
more bias and noise, and a brain mask that is some per cent too large or too small, in patches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging import brain_mask, load_image
from corelab.imaging.template import template_ventricles
from corelab.registration import (
    apply_transforms,
    registrar,
    template_brain_mask,
    template_image,
    transform_points,
)
from corelab.registration.heads import Head
from corelab.registration.pairs import TemplateFit, fit_to_template
from corelab.registration.preparation import windowed
from corelab.settings.registration import RegistrationSettings


@dataclass(frozen=True)
class Subject:
    """A simulated head: ``phi`` maps world points of the subject to the template."""

    head: Head
    lesion: np.ndarray
    lesion_mni: np.ndarray
    phi: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Trouble:
    """What makes a simulated head harder than the template under a smooth map.

    Attributes
    ----------
    ventricles_mm
        Largest displacement of the ventricles' walls, outwards (inwards below 0).
    contrast
        Exponent of the intensities: above 1 grey matter is darker, and sulci are wider.
    strange
        Standard deviation of a factor on tissue, correlated over 4 mm: anatomy without partner.
    fine_mm
        Mean displacement of a map of 6 mm smoothness on top of the smooth one.
    mask_share
        Volume of the brain mask too much (+) or missing (-), as a share.
    dura
        Brightness of what lies on the brain in patches, as a share of white matter.
    sulci
        Half the width (in SD of a smooth random field) of sheets of fluid through the cortex that
        the template does not have.
    """

    ventricles_mm: float = 0.0
    contrast: float = 1.0
    strange: float = 0.0
    fine_mm: float = 0.0
    mask_share: float = 0.0
    dura: float = 0.0
    sulci: float = 0.0


#: Hard heads by name: arguments of :func:`subject`. Settings were chosen on these.
HARD: dict[str, dict[str, Any]] = {
    "wide": {"seed": 401, "mean_mm": 4.2, "side": -1, "noise": 0.06, "bias": 0.4,
             "trouble": Trouble(5.0, 1.5, 0.06, 0.5, 0.05, 0.6)},
    "tight": {"seed": 402, "mean_mm": 3.2, "side": 1, "noise": 0.06, "bias": 0.3,
              "trouble": Trouble(-1.5, 0.7, 0.06, 0.7, -0.05, 0.4)},
    "masked": {"seed": 403, "mean_mm": 4.2, "side": 1, "noise": 0.05, "bias": 0.4,
               "trouble": Trouble(2.0, 1.2, 0.08, 0.9, 0.08, 0.8)},
    "folded": {"seed": 404, "mean_mm": 4.2, "side": -1, "noise": 0.05, "bias": 0.3,
               "trouble": Trouble(3.0, 1.2, 0.12, 0.9, 0.05, 0.6, 0.15)},
}  # fmt: skip


def wall_field(push_mm: float) -> np.ndarray:
    """Displacement in template space that widens the ventricles of the subject by ``push_mm``."""
    fluid = np.asarray(template_ventricles().dataobj, dtype=np.float32)
    soft = ndimage.gaussian_filter(fluid, 5.0)
    field = np.stack(np.gradient(soft))
    return np.asarray(field * push_mm / np.sqrt((field**2).sum(0)).max(), np.float32)


@dataclass(frozen=True)
class Accuracy:
    """How far a fit is from the truth.

    Attributes
    ----------
    error_mm, error_p95_mm
        Mean and 95th percentile of the target registration error over the template's brain.
    lesion_percent, lesion_dice
        The lesion brought to MNI152 against the true one there.
    cpu_s
        Processor time of the fit (imports only if they were not done before).
    """

    error_mm: float
    error_p95_mm: float
    lesion_percent: float
    lesion_dice: float
    cpu_s: float
    fit: TemplateFit

    def __str__(self) -> str:
        return (
            f"{self.error_mm:.2f} mm (p95 {self.error_p95_mm:.2f}), lesion "
            f"{self.lesion_percent:+.1f} %, Dice {self.lesion_dice:.3f}, {self.cpu_s:.0f} CPU s"
        )


def random_field(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_voxel: Any, amplitude: float
) -> np.ndarray:
    """Smooth random vector field with a given root mean square."""
    coarse = [
        ndimage.gaussian_filter(
            rng.standard_normal(tuple(n // 4 + 1 for n in shape)), sigma_voxel / 4, mode="nearest"
        )
        for _ in range(3)
    ]
    field = np.stack(
        [
            ndimage.zoom(c, [n / m for n, m in zip(shape, c.shape, strict=True)], order=1)
            for c in coarse
        ]
    )
    return field * amplitude / np.sqrt((field**2).sum(0).mean())


def turned(degrees: Any) -> np.ndarray:
    """Rotation by three angles in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        part = np.eye(3)
        part[i, i] = part[j, j] = np.cos(angle)
        part[i, j], part[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ part
    return matrix


@cache
def subject(
    seed: int,
    mean_mm: float,
    side: int,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    noise: float = 0.04,
    bias: float = 0.22,
    tilt_deg: float = 0.0,
    lesion_scale: float = 1.0,
    cavity: bool = False,
    trouble: Trouble | None = None,
) -> Subject:
    """One simulated subject.

    Parameters
    ----------
    seed, mean_mm, side
        Of the random numbers; mean displacement beyond the affine; side of the lesion (-1 left).
    spacing
        Voxel size in mm.
    noise, bias
        Rician noise as a share of white matter; largest log of the bias field.
    tilt_deg
        The head is turned by this about the left-right axis in the scanner, beyond the usual.
    lesion_scale
        Size of the lesion's axes; 0.4 gives 2 to 3 mL.
    cavity
        The lesion is fluid, without the anatomy it lies in, instead of dimmed tissue.
    trouble
        What else is wrong; see :class:`Trouble` and :data:`HARD`.
    """
    rng = np.random.default_rng(seed)
    template = np.asarray(template_image().dataobj)
    origin = template_image().affine[:3, 3]
    brain_mni = np.asarray(template_brain_mask().dataobj) != 0
    linear = turned(rng.uniform(-4, 4, 3)) @ np.diag(1 + rng.uniform(-0.05, 0.05, 3))
    linear = linear @ turned([tilt_deg, 0, 0])
    centre = np.array([0.0, -18.0, 10.0])
    shift = centre + rng.uniform(-6, 6, 3) - linear @ centre
    field = random_field(rng, template.shape, 17, mean_mm * 1.62)
    more = np.random.default_rng(seed + 10_000)
    walls = None
    if trouble is not None:
        field = field + random_field(more, template.shape, 6, trouble.fine_mm * 1.62)
        walls = wall_field(trouble.ventricles_mm)

    def phi(points: np.ndarray) -> np.ndarray:
        moved = points @ linear.T + shift
        for part in (field, walls):
            if part is not None:
                voxel = (moved - origin).T
                moved = moved + np.stack(
                    [ndimage.map_coordinates(c, voxel, order=1, mode="nearest") for c in part],
                    axis=1,
                )
        return moved

    grid = np.indices(template.shape).reshape(3, -1).T + origin
    far = np.sqrt(
        (((grid - [38.0 * side, -10, 18]) / (np.array([20, 23, 19]) * lesion_scale)) ** 2).sum(1)
    )
    lesion_mni = (far.reshape(template.shape) < 1) & brain_mni

    sizes = np.array(spacing)
    extent = (192, 232, 192) if tilt_deg == 0 else (192, 240, 240)
    shape = tuple(round(n / s) for n, s in zip(extent, sizes, strict=True))
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = (-95, -135, -80) if tilt_deg == 0 else (-95, -138, -108)
    places = np.indices(shape).reshape(3, -1).T * sizes + affine[:3, 3]
    voxel = (phi(places) - origin).T

    def sampled(data: np.ndarray) -> np.ndarray:
        values = ndimage.map_coordinates(data.astype(np.float32), voxel, order=1, mode="constant")
        return np.asarray(values.reshape(shape))

    brain = sampled(brain_mni) > 0.5
    lesion = sampled(lesion_mni) > 0.5
    image = np.maximum(sampled(template), 0)
    if trouble is not None:
        image = _strange(image, brain, trouble, more)
    soft = ndimage.gaussian_filter(lesion.astype(np.float32), 0.7 / sizes)
    if cavity:
        image += soft * (0.3 * np.percentile(image[brain], 95) - image)
    else:
        image *= 1 - 0.4 * soft
    white = np.percentile(image[brain], 95)
    depth = ndimage.distance_transform_edt(~brain, sampling=sizes)
    shells = np.select([depth < 3, depth < 7, depth < 12], [0.15, 0.08, 0.9], 0.0) * white
    mask = brain
    if trouble is not None:
        patches = random_field(more, shape, 12 / sizes.mean(), 1.0)
        shells = np.where((depth < 4) & (patches[0] > 0.4), trouble.dura * white, shells)
        mask = _wrong_mask(brain, sizes, patches[1], trouble.mask_share)
    image = np.where(brain, image, shells)
    waves = random_field(rng, shape, 35 / sizes.mean(), 1.0)[0]
    image *= np.exp(bias * waves / np.abs(waves).max())
    random = noise * white * rng.standard_normal((2, *shape))
    image = np.hypot(image + random[0], random[1]).astype(np.float32)
    kind = "T1w" if max(spacing) < 1.6 else "FLAIR"
    head = Head(
        nib.Nifti1Image(image, affine),
        nib.Nifti1Image(mask.astype(np.uint8), affine),
        kind,
        "s",
        "p",
    )
    return Subject(head, lesion, lesion_mni, phi)


def _strange(
    image: np.ndarray, brain: np.ndarray, trouble: Trouble, rng: np.random.Generator
) -> np.ndarray:
    """Another contrast, and a texture that has no partner in the template."""
    white = np.percentile(image[brain], 95)
    curved = white * np.clip(image / white, 0, None) ** trouble.contrast
    texture = random_field(rng, image.shape, 4, 1.0)[0]
    found = curved * np.clip(1 + trouble.strange * texture / texture.std(), 0.3, 2)
    if trouble.sulci:
        sheet = random_field(rng, image.shape, 6, 1.0)[0]
        cortex = brain & ~ndimage.binary_erosion(brain, iterations=18)
        found[cortex & (np.abs(sheet) < trouble.sulci * sheet.std())] = 0.35 * white
    return np.asarray(found)


def _wrong_mask(
    brain: np.ndarray, sizes: np.ndarray, patches: np.ndarray, share: float
) -> np.ndarray:
    """Brain mask whose border is moved by up to some millimetres, smoothly from place to place."""
    depth = ndimage.distance_transform_edt(~brain, sampling=sizes)
    depth -= ndimage.distance_transform_edt(brain, sampling=sizes)
    wrong = depth - 2.0 * patches / patches.std()
    level = np.quantile(wrong, brain.mean() * (1 + share))
    return np.asarray(wrong <= level)


def accuracy(truth: Subject, settings: Mapping[str, Any]) -> Accuracy:
    """Fit a simulated subject to MNI152 and compare with its truth."""
    checked = RegistrationSettings.model_validate(settings)
    before = time.process_time()
    fit = fit_to_template(registrar(checked), truth.head, truth.lesion, checked)
    cpu_s = time.process_time() - before
    steps = fit.transform.to_fixed
    points = (
        np.argwhere(np.asarray(template_brain_mask().dataobj))[::37]
        + template_image().affine[:3, 3]
    )
    error_mm = np.linalg.norm(truth.phi(transform_points(points, steps)) - points, axis=1)
    mask = nib.Nifti1Image(truth.lesion.astype(np.uint8), truth.head.image.affine)
    moved = np.asarray(apply_transforms(mask, template_image(), steps, "label").dataobj) != 0
    both = (moved & truth.lesion_mni).sum()
    return Accuracy(
        error_mm=float(error_mm.mean()),
        error_p95_mm=float(np.percentile(error_mm, 95)),
        lesion_percent=float(100 * (moved.sum() / truth.lesion_mni.sum() - 1)),
        lesion_dice=float(2 * both / (moved.sum() + truth.lesion_mni.sum())),
        cpu_s=cpu_s,
        fit=fit,
    )


def landmarks(path: Path) -> np.ndarray:
    """Points of a 3D Slicer fiducial file (RAS, as its header must say), shape (n, 3), mm."""
    lines = path.read_text().splitlines()
    assert "# CoordinateSystem = 0" in lines, f"{path} is not in RAS"
    return np.array([line.split(",")[1:4] for line in lines if line[:1] != "#"], dtype=float)


def landmark_errors_mm(folder: Path, settings: Mapping[str, Any]) -> tuple[np.ndarray, TemplateFit]:
    """Distances of Colin27's anatomical landmarks (AFIDs) from the template's after a fit, mm.

    A real head with landmarks placed by people (Lau JC et al., Hum Brain Mapp 2019;40:4163-4179).
    About 1 mm of it is the scatter of the landmarks themselves.

    Returns
    -------
    tuple
        Distances of the 30 landmarks without the ventricular horns (29, 30), and the fit.
    """
    image = load_image(folder / "ch2.nii.gz")
    brain = nib.Nifti1Image(brain_mask(image, "T1w").astype(np.uint8), image.affine)
    checked = RegistrationSettings.model_validate(settings)
    head = Head(windowed(image, "T1w"), brain, "T1w", "s", "p")
    fit = fit_to_template(registrar(checked), head, np.zeros(image.shape, bool), checked)
    own = landmarks(folder / "tpl-Colin27_afids.fcsv")
    known = landmarks(folder / "tpl-MNI152NLin2009bSym_afids.fcsv")
    there = transform_points(own, fit.transform.to_moving)
    return np.delete(np.linalg.norm(there - known, axis=1), [28, 29]), fit


def affine_floor_mm(truth: Subject) -> float:
    """Mean error of the affine map that is fitted to the truth itself: no affine does better."""
    places = np.argwhere(np.asarray(truth.head.brain.dataobj))[::37]
    points = nib.affines.apply_affine(truth.head.image.affine, places)
    there = truth.phi(points)
    design = np.column_stack([points, np.ones(len(points))])
    best = design @ np.linalg.lstsq(design, there, rcond=None)[0]
    return float(np.linalg.norm(best - there, axis=1).mean())
