"""Acquisition of each kind of scan: grid, timing, and position of the head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.phantom.anatomy import Anatomy, rigid
from corelab.phantom.conditions import Conditions, draw_conditions
from corelab.phantom.design import CONTOUR_VISIT, DIFFUSION_KINDS, TrialSpec
from corelab.phantom.seeds import generator

#: Where the middle of the head is, in template mm.
_HEAD_CENTRE_MM = (0.0, -14.0, 6.0)
#: Middle of a perfusion slab.
_SLAB_CENTRE_MM = (0.0, -17.0, 20.0)
_CT_KINDS = ("ncct", "ctp")


@dataclass(frozen=True)
class Protocol:
    """Acquisition of one kind of scan.

    Attributes
    ----------
    voxel_mm, shape
        Voxel size and grid; the third axis runs along the slices.
    samples
        Points per voxel along the slice thickness over which the object is averaged.
    frames, interval_s
        Of a dynamic scan.
    tilt_degrees
        Range of the angle between the slices and the axial plane.
    """

    voxel_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    samples: int
    sidecar: dict[str, Any]
    frames: int = 1
    interval_s: float = 0.0
    tilt_degrees: tuple[float, float] = (-6.0, 6.0)

    @property
    def frame_times_s(self) -> NDArray[np.float64]:
        """Start of each frame, s."""
        return np.arange(self.frames, dtype=np.float64) * np.float64(self.interval_s)


_MR: dict[str, Any] = {
    "Modality": "MR",
    "Manufacturer": "Simulated",
    "MagneticFieldStrength": 3.0,
    "InstitutionName": "Corelab phantom",
}
_CT: dict[str, Any] = {
    "Modality": "CT",
    "Manufacturer": "Simulated",
    "InstitutionName": "Corelab phantom",
}
_DIFFUSION = {**_MR, "EchoTime": 0.085, "RepetitionTime": 5.0, "FlipAngle": 90}

_FULL = {
    "T1w": Protocol(
        (1.0, 1.0, 1.0),
        (184, 232, 180),
        1,
        {**_MR, "EchoTime": 0.0029, "RepetitionTime": 2.3, "InversionTime": 0.9, "FlipAngle": 9},
        tilt_degrees=(-3.0, 3.0),
    ),
    "FLAIR": Protocol(
        (1.0, 1.0, 5.0),
        (192, 232, 32),
        3,
        {**_MR, "EchoTime": 0.12, "RepetitionTime": 9.0, "InversionTime": 2.5},
    ),
    "b0": Protocol((1.2, 1.2, 5.0), (160, 192, 32), 3, {**_DIFFUSION, "b_value": 0}),
    "dwi": Protocol((1.2, 1.2, 5.0), (160, 192, 32), 3, {**_DIFFUSION, "b_value": 1000}),
    "adc": Protocol((1.2, 1.2, 5.0), (160, 192, 32), 3, {**_DIFFUSION}),
    "ncct": Protocol(
        (0.9, 0.9, 5.0),
        (208, 256, 32),
        3,
        {**_CT, "KVP": 120, "XRayExposure": 300},
        tilt_degrees=(4.0, 12.0),
    ),
    "ctp": Protocol(
        (1.2, 1.2, 5.0),
        (160, 192, 20),
        3,
        {**_CT, "KVP": 80, "XRayExposure": 150, "ContrastBolusVolume": 40},
        frames=40,
        interval_s=1.5,
        tilt_degrees=(2.0, 8.0),
    ),
    "dsc": Protocol(
        (1.8, 1.8, 5.0),
        (108, 128, 22),
        3,
        {**_MR, "EchoTime": 0.03, "RepetitionTime": 1.5, "FlipAngle": 65},
        frames=50,
        interval_s=1.5,
    ),
}


def _coarse(kind: str, full: Protocol) -> Protocol:
    """The same field of view with 2.5 x 2.5 x 6 mm voxels (T1w 2 mm) and 30 frames of 2 s."""
    voxel = (2.0, 2.0, 2.0) if kind == "T1w" else (2.5, 2.5, 6.0)
    extent = np.asarray(full.shape) * full.voxel_mm
    shape = tuple(int(np.ceil(e / v)) for e, v in zip(extent, voxel, strict=True))
    coarse = replace(full, voxel_mm=voxel, shape=cast(tuple[int, int, int], shape))
    if full.frames == 1:
        return coarse
    sidecar = dict(full.sidecar)
    if "RepetitionTime" in sidecar:
        sidecar["RepetitionTime"] = 2.0
    return replace(coarse, frames=30, interval_s=2.0, sidecar=sidecar)


def protocol(spec: TrialSpec, participant_id: str, visit: str, kind: str) -> Protocol:
    """Protocol of one scan, including where a site did not keep to the charter.

    Examples
    --------
    >>> protocol(TrialSpec(), "005", "day5", "dwi").voxel_mm
    (1.2, 1.2, 7.0)
    """
    if kind not in _FULL:
        raise KeyError(f"scan kind {kind!r} is not simulated; known: {', '.join(_FULL)}")
    if spec.flavour == "testing":
        return _coarse(kind, _FULL[kind])
    if spec.flavour == "hard":
        return _hard(kind, _FULL[kind], draw_conditions(spec.seed, participant_id))
    if kind in DIFFUSION_KINDS and (participant_id, visit) == ("005", CONTOUR_VISIT):
        return replace(_FULL[kind], voxel_mm=(1.2, 1.2, 7.0), shape=(160, 192, 23), samples=4)
    return _FULL[kind]


def _hard(kind: str, full: Protocol, conditions: Conditions) -> Protocol:
    """The full protocol with the conditions' slices, tilt and lost height."""
    x, y, thickness = full.voxel_mm
    nx, ny, slices = full.shape
    height = thickness * slices
    if conditions.slice_mm is not None and thickness > 2:
        thickness = conditions.slice_mm
    slices = int(np.ceil((height - conditions.cut_off_mm) / thickness))
    return replace(
        full,
        voxel_mm=(x, y, thickness),
        shape=(nx, ny, slices),
        samples=max(full.samples, int(np.ceil(thickness / 2))) if thickness > 2 else full.samples,
        tilt_degrees=conditions.tilt_degrees or full.tilt_degrees,
    )


def placement(spec: TrialSpec, participant_id: str, visit: str, kind: str) -> NDArray[np.float64]:
    """4 x 4 rigid transform from subject space to the scanner of one scan.

    Each session (MR and CT apart) lays the head down anew; between scans of a session it moves a
    little. The three diffusion images are one acquisition and do not move against each other.

    Examples
    --------
    >>> spec = TrialSpec()
    >>> a, b, c = (placement(spec, "001", "baseline", k) for k in ("b0", "adc", "ncct"))
    >>> bool(np.allclose(a, b)), bool(np.allclose(a, c))
    (True, False)
    """
    session = "CT" if kind in _CT_KINDS else "MR"
    rng = generator(spec.seed, participant_id, visit, session, "placement")
    reach = 1.6 if session == "CT" else 1.0
    lying = rigid(rng.uniform(-4, 4, 3) * reach, rng.uniform(-7, 7, 3) * reach)
    series = "diffusion" if kind in DIFFUSION_KINDS else kind
    rng = generator(spec.seed, participant_id, visit, series, "motion")
    return rigid(rng.normal(0, 0.5, 3), rng.normal(0, 0.7, 3)) @ lying


def grid_affine(
    spec: TrialSpec, anatomy: Anatomy, visit: str, kind: str
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Voxel-to-scanner affine and shape of one scan; slices are oblique by a few degrees.

    CT and echo-planar images are stored with x running to the left, as converters write them.
    """
    plan = protocol(spec, anatomy.participant_id, visit, kind)
    series = "diffusion" if kind in DIFFUSION_KINDS else kind
    rng = generator(spec.seed, anatomy.participant_id, visit, series, "grid")
    low, high = plan.tilt_degrees
    orientation = rigid(
        [rng.uniform(low, high), rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)], [0] * 3
    )
    centre = _SLAB_CENTRE_MM if kind in ("ctp", "dsc") else _HEAD_CENTRE_MM
    moved = placement(spec, anatomy.participant_id, visit, kind)
    middle = moved[:3, :3] @ anatomy.to_subject(np.array(centre)) + moved[:3, 3]
    middle = middle + rng.uniform(-2, 2, 3)
    if spec.flavour == "hard":
        # What the field of view loses, it loses at the crown.
        lost = draw_conditions(spec.seed, anatomy.participant_id).cut_off_mm
        middle = middle - orientation[:3, 2] * lost / 2
    sizes = np.array(plan.voxel_mm)
    if kind not in ("T1w", "FLAIR"):
        sizes[0] = -sizes[0]
    affine = np.eye(4)
    affine[:3, :3] = orientation[:3, :3] @ np.diag(sizes)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(plan.shape) - 1) / 2)
    # A NIfTI qform holds the rotation as a float32 quaternion, which is coarse near half a turn
    # (x to the left is one): take the grid that the header can say, so that the truth is exact.
    header = nib.Nifti1Header()
    header.set_qform(affine, code=1)
    return header.get_qform(), plan.shape
