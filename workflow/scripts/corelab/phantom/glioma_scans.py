"""Simulated scans of a glioblastoma before and after surgery.

The tumour is a set of nested shells of one irregular potential (mm, in template space): necrosis,
enhancing rim, oedema. Shell radii are found by bisection so that the volumes in the participant's
own space are those of the design. Surgery leaves a cavity filled with fluid, and a crescent of rim
where the resection was not complete; after a biopsy only, the tumour has grown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import save_image
from corelab.phantom.anatomy import make_anatomy, rigid
from corelab.phantom.conditions import TumourConditions, draw_tumour_conditions
from corelab.phantom.glioma_design import READERS, GliomaSpec, cohort, volume_ml
from corelab.phantom.head import (
    TISSUES,
    Head,
    bisect,
    linear_placed,
    load_head,
    template_axes,
)
from corelab.phantom.lesion import subject_points
from corelab.phantom.scans import bias_field, rician
from corelab.phantom.scene import View
from corelab.phantom.seeds import generator

Array = NDArray[np.float32]

#: Voxel size (mm) and grid of all four images: one three-dimensional protocol of one session.
_VOXEL_MM = 2.0
_SHAPE = (92, 116, 90)
_MR = {"Modality": "MR", "Manufacturer": "Simulated", "MagneticFieldStrength": 3.0}
_SIDECAR: Mapping[str, dict[str, Any]] = {
    "T1w": {**_MR, "EchoTime": 0.0029, "RepetitionTime": 2.3, "FlipAngle": 9},
    "T1c": {**_MR, "EchoTime": 0.0029, "RepetitionTime": 2.3, "FlipAngle": 9},
    "T2w": {**_MR, "EchoTime": 0.1, "RepetitionTime": 5.5},
    "FLAIR": {**_MR, "EchoTime": 0.12, "RepetitionTime": 9.0, "InversionTime": 2.5},
}
#: Signal of normal tissue (1 = white matter on T1w) and of the shell of the head.
_TISSUE = {
    "T1w": {"grey": 0.62, "white": 0.85, "csf": 0.2},
    "T1c": {"grey": 0.66, "white": 0.87, "csf": 0.2},
    "T2w": {"grey": 0.48, "white": 0.38, "csf": 1.0},
    "FLAIR": {"grey": 0.5, "white": 0.38, "csf": 0.07},
}
_SHELL = {
    "T1w": {"film": 0.2, "bone": 0.03, "marrow": 0.42, "scalp": 0.85, "muscle": 0.38, "eye": 0.22},
    "T1c": {"film": 0.25, "bone": 0.03, "marrow": 0.48, "scalp": 0.9, "muscle": 0.5, "eye": 0.22},
    "T2w": {"film": 0.9, "bone": 0.02, "marrow": 0.25, "scalp": 0.5, "muscle": 0.2, "eye": 0.95},
    "FLAIR": {"film": 0.1, "bone": 0.02, "marrow": 0.25, "scalp": 0.55, "muscle": 0.2, "eye": 0.1},
}
#: Signal of the tumour's parts; the rim of T1c is multiplied by the participant's contrast.
_TUMOUR = {
    "T1w": {"necrosis": 0.42, "rim": 0.62, "solid": 0.60, "oedema": 0.58, "cavity": 0.22},
    "T1c": {"necrosis": 0.45, "rim": 1.35, "solid": 0.62, "oedema": 0.60, "cavity": 0.22},
    "T2w": {"necrosis": 0.90, "rim": 0.66, "solid": 0.68, "oedema": 0.80, "cavity": 1.0},
    "FLAIR": {"necrosis": 0.62, "rim": 0.72, "solid": 0.74, "oedema": 0.90, "cavity": 0.10},
}
_NOISE = {"T1w": 0.018, "T1c": 0.018, "T2w": 0.02, "FLAIR": 0.018}
_BORDER_MM = 1.5
#: SD (mm) of a reader's outline about the true one.
WAVER_MM = {"reader-1": 0.5, "reader-2": 0.9}


@dataclass(frozen=True, eq=False)
class Tumour:
    """A tumour at one visit: shells of a potential on every second voxel of the template.

    Attributes
    ----------
    potential_mm, side
        Irregular distance from the centre (mm), and the cosine towards the residual (-1 to 1).
    levels_mm
        Border of ``necrosis``, ``core`` (outer border of the rim) and ``whole``.
    crescent
        After surgery rim remains where ``side`` exceeds it (above 1: none); None: no surgery.
    """

    potential_mm: Array
    side: Array
    levels_mm: Mapping[str, float]
    crescent: float | None


def _soft(value: NDArray[np.floating]) -> Array:
    return np.clip(value / _BORDER_MM + 0.5, 0, 1).astype(np.float32)


def _parts(
    potential: NDArray[np.floating],
    side: NDArray[np.floating],
    parenchyma: NDArray[np.floating],
    levels: Mapping[str, float],
    crescent: float | None,
) -> dict[str, Array]:
    """Fractions of necrosis, rim, oedema and cavity; tumour displaces all tissue, oedema not."""
    core = _soft(levels["core"] - potential)
    inner = np.minimum(core, _soft(levels["necrosis"] - potential))
    shell = core - inner
    oedema = np.clip(_soft(levels["whole"] - potential) - core, 0, 1) * parenchyma
    if crescent is None:
        return {"necrosis": inner, "rim": shell, "oedema": oedema, "cavity": np.zeros_like(core)}
    stays = np.clip((side - np.float32(crescent)) * 12 + 0.5, 0, 1).astype(np.float32)
    rim = shell * stays
    return {"necrosis": np.zeros_like(core), "rim": rim, "oedema": oedema, "cavity": core - rim}


def _bisect(measure: Any, low: float, high: float, wanted_ml: float, what: str) -> float:
    """Argument at which a rising volume reaches ``wanted_ml``."""
    if measure(high) < wanted_ml:
        raise ValueError(f"there is no space for {wanted_ml:.1f} mL of {what} in this head")
    return sum(bisect(measure, wanted_ml, low, high, 26)) / 2


def _noise_field(rng: np.random.Generator, shape: tuple[int, ...], sigma_voxels: float) -> Array:
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape).astype(np.float32), sigma_voxels, mode="wrap"
    )
    return cast(Array, noise / noise.std())


def _conditions_of(spec: GliomaSpec, name: str) -> TumourConditions:
    """Difficulties of one participant's tumour and images (none, unless the trial is hard)."""
    hard = spec.flavour == "hard"
    return draw_tumour_conditions(spec.seed, name) if hard else TumourConditions()


@lru_cache(maxsize=2)
def _head_half() -> tuple[Head, Array, Array]:
    """The head, and brain and parenchyma fractions on every second voxel."""
    head = load_head()
    return head, head.brain[::2, ::2, ::2], head.tissue[::2, ::2, ::2]


@lru_cache(maxsize=4)
def _make_tumour(spec: GliomaSpec, name: str, visit: str) -> Tumour:
    """The tumour of one participant at one visit, of the volumes in the design."""
    person = cohort(spec)[name]
    _, brain, parenchyma = _head_half()
    rng = generator(spec.seed, name, "tumour")
    side = -1.0 if person.left else 1.0
    centre = np.array([side * rng.uniform(28, 36), rng.uniform(-42, 22), rng.uniform(12, 32)])
    toward = rng.standard_normal(3)
    toward /= np.linalg.norm(toward)
    axes = template_axes(brain.shape, 2.0, np.float64)
    offset = [axis - c for axis, c in zip(axes, centre, strict=True)]
    stretch = rng.uniform(0.85, 1.2, 3)
    distance = np.sqrt(sum((d / s) ** 2 for d, s in zip(offset, stretch, strict=True)))
    potential = distance * (1 + 0.10 * _noise_field(rng, brain.shape, 5.0))
    # The falx and the brain's border hold the tumour back.
    across = np.maximum(0, 3.0 - side * axes[0])
    potential = (potential + 4.0 * across + 40.0 * (1 - brain)).astype(np.float32)
    cosine = sum(d * t for d, t in zip(offset, toward, strict=True))
    cosine = (cosine / np.maximum(distance, 1.0)).astype(np.float32)

    anatomy = make_anatomy(spec.seed, name)
    points = subject_points(anatomy)
    sampled, beside, tissue = (
        linear_placed(field, points, 2.0) for field in (potential, cosine, parenchyma)
    )
    near = sampled < 75
    sampled, beside, tissue = sampled[near], beside[near], tissue[near]
    voxel_ml = 0.008

    def volume(part: str, levels: Mapping[str, float], crescent: float | None = None) -> float:
        found = _parts(sampled, beside, tissue, levels, crescent)
        names = ("rim",) if part == "rim" else (part,)
        return float(sum(found[n].sum(dtype=np.float64) for n in names)) * voxel_ml

    def levels_for(enhancing_ml: float) -> dict[str, float]:
        """Radii of necrosis and rim whose volumes are those wanted."""
        flat = {"whole": 0.0, "necrosis": -1e3}
        core = _bisect(
            lambda r: volume("rim", {**flat, "core": r}),
            0.0,
            70.0,
            enhancing_ml * (1 + _conditions_of(spec, name).necrosis_share),
            "tumour",
        )
        inner = _bisect(
            lambda minus: volume("rim", {**flat, "core": core, "necrosis": -minus}),
            -core,
            0.0,
            enhancing_ml,
            "rim",
        )
        return {"core": core, "necrosis": -inner, "whole": core}

    biopsied = person.eor < 0
    grown = visit == "postop" and biopsied
    enhancing = volume_ml(person, "postop" if grown else "preop", "enhancing")
    levels = levels_for(enhancing)
    crescent = None
    if visit == "postop" and not biopsied:
        left = volume_ml(person, "postop", "enhancing")
        crescent = 2.0
        if left > 0:
            crescent = -_bisect(
                lambda c: volume("rim", levels, -c), -1.5, 1.5, left, "residual tumour"
            )
    oedema_ml = volume_ml(person, visit, "oedema")
    if crescent is None:  # what the rim encloses belongs to the whole, and so to its difference
        oedema_ml -= volume("necrosis", levels)
    levels["whole"] = _bisect(
        lambda r: volume("oedema", {**levels, "whole": r}, crescent),
        levels["core"],
        74.0,
        max(oedema_ml, 0.5),
        "oedema",
    )
    return Tumour(potential, cosine, levels, crescent)


@lru_cache(maxsize=2)
def _view_visit(spec: GliomaSpec, name: str, visit: str) -> View:
    """Lay the grid of a visit's scans through the participant's head."""
    anatomy = make_anatomy(spec.seed, name)
    rng = generator(spec.seed, name, visit, "placement")
    lying = rigid(rng.uniform(-4, 4, 3), rng.uniform(-6, 6, 3))
    middle = lying[:3, :3] @ anatomy.to_subject(np.array((0.0, -14.0, 6.0))) + lying[:3, 3]
    affine = np.diag([_VOXEL_MM] * 3 + [1.0])
    affine[:3, :3] = rigid(rng.uniform(-2, 2, 3), [0] * 3)[:3, :3] @ affine[:3, :3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(_SHAPE) - 1) / 2)
    # The grid that a NIfTI header can say, so that the truth is exact.
    header = nib.Nifti1Header()
    header.set_qform(affine, code=1)
    affine = header.get_qform()
    lost = round(_conditions_of(spec, name).cut_off_mm / _VOXEL_MM)
    shape = (_SHAPE[0], _SHAPE[1], _SHAPE[2] - lost)
    return View(affine, shape, 1, anatomy, np.linalg.inv(lying))


@lru_cache(maxsize=2)
def _normal(spec: GliomaSpec, name: str, visit: str) -> Mapping[str, Array]:
    """Fractions of every tissue and of the shell at the voxels of a visit, and the template's T1.

    All images of the visit are mixed from them.
    """
    head, _, _ = _head_half()
    view = _view_visit(spec, name, visit)
    found = {tissue: view.sample(getattr(head, tissue)) for tissue in TISSUES}
    found |= {"brain": view.sample(head.brain), "t1": view.sample(head.t1)}
    for shell, fraction in head.shell.items():
        outer = linear_placed(fraction, view.template_mm, 2.0, "constant")
        found[shell] = outer * (1 - found["brain"])
    return found


def _tumour_parts(
    spec: GliomaSpec, name: str, visit: str, waver: Array | None = None
) -> dict[str, Array]:
    """Fractions of the tumour's parts at the voxels of a visit."""
    view, tumour = _view_visit(spec, name, visit), _make_tumour(spec, name, visit)
    normal = _normal(spec, name, visit)
    potential, side = (
        linear_placed(field, view.template_mm, 2.0) for field in (tumour.potential_mm, tumour.side)
    )
    if waver is not None:
        potential = potential + waver
    tissue = normal["grey"] + normal["white"]
    parts = _parts(potential, side, tissue, tumour.levels_mm, tumour.crescent)
    silent = _conditions_of(spec, name).silent
    if silent > -1:
        share = np.clip((np.float32(silent) - side) * 12 + 0.5, 0, 1).astype(np.float32)
        parts["solid"] = parts["rim"] * share
        parts["rim"] = parts["rim"] - parts["solid"]
    return {part: fraction * normal["brain"] for part, fraction in parts.items()}


def _masks(parts: Mapping[str, Array]) -> dict[str, NDArray[np.bool_]]:
    enhancing = parts["rim"] >= 0.5
    whole = parts["rim"] + parts["necrosis"] + parts["oedema"] + parts.get("solid", 0) >= 0.5
    whole = whole | enhancing
    return {"enhancing": enhancing, "whole-tumour": whole, "oedema": whole & ~enhancing}


def true_masks(
    spec: GliomaSpec, name: str, visit: str
) -> tuple[dict[str, NDArray[np.bool_]], float]:
    """True masks on the grid of the images, and the volume of its voxels (mL).

    ``enhancing`` is the rim, ``whole-tumour`` rim, necrosis and oedema, ``oedema`` the difference.

    Examples
    --------
    >>> spec = GliomaSpec(flavour="testing")
    >>> masks, voxel_ml = true_masks(spec, "001", "preop")
    >>> wanted = volume_ml(cohort(spec)["001"], "preop", "enhancing")
    >>> bool(abs(masks["enhancing"].sum() * voxel_ml / wanted - 1) < 0.1)
    True
    """
    return _masks(_tumour_parts(spec, name, visit)), _view_visit(spec, name, visit).voxel_ml


def _reader_mask(
    spec: GliomaSpec, name: str, visit: str, label: str, reader: str
) -> tuple[NDArray[np.bool_], View]:
    """A reader's mask on the grid of the images: the true outline with that reader's hand."""
    view = _view_visit(spec, name, visit)
    rng = generator(spec.seed, name, visit, reader, "contour")
    waver = _noise_field(rng, (50, 60, 48), 2.0)
    shift = linear_placed(waver, view.template_mm, 4.0)
    parts = _tumour_parts(spec, name, visit, np.float32(WAVER_MM[reader]) * shift)
    return _masks(parts)[label], view


def _signal(spec: GliomaSpec, name: str, visit: str, kind: str, repeat: int) -> tuple[Array, View]:
    person, view = cohort(spec)[name], _view_visit(spec, name, visit)
    normal, parts = _normal(spec, name, visit), _tumour_parts(spec, name, visit)
    signal = sum(
        normal[part] * np.float32(value)
        for part, value in {**_TISSUE[kind], **_SHELL[kind]}.items()
    )
    if kind.startswith("T1"):
        # The template's own intensities keep the texture that fractions alone lack.
        own = np.float32(0.4) * normal["t1"] * normal["brain"]
        signal = signal * (1 - np.float32(0.35) * normal["brain"]) + own
    values = dict(_TUMOUR[kind])
    if kind == "T1c":
        values["rim"] *= person.contrast
    grain = _noise_field(generator(spec.seed, name, "texture"), (99, 117, 95), 1.2)
    grain = linear_placed(grain, view.template_mm, 2.0)
    tumour = sum(parts[part] * np.float32(values[part]) for part in parts)
    tumour = tumour * (1 + np.float32(person.texture) * grain)
    signal = signal * (1 - sum(parts.values())) + tumour
    rng, conditions = (
        generator(spec.seed, name, visit, kind, str(repeat), "noise"),
        _conditions_of(spec, name),
    )
    if conditions.bias > 0:
        field_rng = generator(spec.seed, name, visit, kind, "field")
        signal = signal * bias_field(view.shape, field_rng, conditions.bias)
    return rician(signal, _NOISE[kind] * conditions.noise, rng), view


def _exported(spec: GliomaSpec, name: str, visit: str, signal: Array) -> NDArray[Any]:
    """Voxels as they are stored: whole numbers, stripped of the skull, or z-scored."""
    export = _conditions_of(spec, name).export
    brain = _normal(spec, name, visit)["brain"] >= 0.5
    if export != "raw":
        signal = np.where(brain, signal, np.float32(0))
    if export == "z-scored":
        inside = signal[brain]
        return ((signal - inside.mean()) / inside.std()).astype(np.float32)
    return np.clip(np.rint(signal * 1000), 0, 32767).astype(np.int16)


def simulate_scan(
    spec: GliomaSpec,
    name: str,
    visit: str,
    kind: str,
    path: str | os.PathLike[str],
    *,
    reader: str | None = None,
    repeat: int = 1,
) -> Path:
    """Simulate one scan, or one reader's mask, and write it with its sidecar.

    Parameters
    ----------
    spec
        Of the trial.
    name, visit, kind, reader, repeat
        Of the row in the scans sheet.
    path
        Where the NIfTI goes (``.nii.gz``); arbitrary units, masks 0 and 1.

    Raises
    ------
    KeyError
        If the trial has no such participant, kind or reader.
    """
    if name not in spec.imaged:
        raise KeyError(f"participant {name!r} has no images in the simulated glioblastoma trial")
    if kind.startswith("mask-"):
        if reader not in READERS:
            raise KeyError(f"reader {reader!r}; the trial has {', '.join(READERS)}")
        mask, view = _reader_mask(spec, name, visit, kind.removeprefix("mask-"), reader)
        voxels: NDArray[Any] = mask.astype(np.uint8)
        sidecar = {"unit": "label", "Reader": reader, "simulated": True}
    else:
        signal, view = _signal(spec, name, visit, kind, repeat)
        voxels = _exported(spec, name, visit, signal)
        sidecar = {
            **_SIDECAR[kind],
            "SliceThickness": _VOXEL_MM,
            "unit": "a.u.",
            "simulated": True,
        }
        sidecar["echo_time_s"] = sidecar["EchoTime"]
        sidecar["repetition_time_s"] = sidecar["RepetitionTime"]
    return save_image(nib.Nifti1Image(voxels, view.affine), path, sidecar=sidecar)
