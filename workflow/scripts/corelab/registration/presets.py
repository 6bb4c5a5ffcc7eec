"""Presets of registration: what is done at which resolution, as data (``presets/*.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from corelab.provenance.products import read_json

FOLDER = Path(__file__).parent / "presets"
LESION_HANDLING = ("mask", "fill", "none")
LONGITUDINAL = ("halfway", "direct")

#: Quality limits; ``settings["limits"]`` replaces single ones. Outside of them a registration
#: has failed. They catch failures (wrong side up, half a head), they do not rank good fits.
LIMITS: dict[str, float] = {
    # Rigid, within a subject.
    "rigid_dice_min": 0.75,
    "rigid_rotation_deg_max": 45.0,
    "rigid_information_loss_max": 0.01,
    # Between visits: how far the fits of the two directions are apart.
    "rigid_inverse_consistency_mm_max": 3.0,
    # To the template.
    "dice_min": 0.85,
    "coverage_min": 0.25,
    "information_min": 1.01,
    "scale_min": 0.60,
    "scale_max": 1.70,
    "folds_max": 0.001,
    "jacobian_max": 20.0,
    "inverse_consistency_mm_max": 1.0,
    # Beyond this a deformable fit is not failed but reported as a warning.
    "ventricle_offset_mm_max": 3.0,
    # A mask of at least this volume whose volume in MNI is further from its native volume times
    # the Jacobian than this was brought over wrongly.
    "volume_checked_from_ml": 10.0,
    "volume_discrepancy_percent_max": 10.0,
}


@dataclass(frozen=True)
class Preset:
    """One preset: ``data`` is the content of its JSON file.

    Attributes
    ----------
    name
        File name without ``.json``.
    data
        ``grids`` (voxel size in mm of fixed and moving image for each kind of fit),
        ``brain_margin_mm``, per backend how the ``lesion`` is handled and the
        ``lesion_margin_mm`` kept out of the metric (a local metric sees as far as its window),
        and per backend its steps.
    """

    name: str
    data: Mapping[str, Any]

    @property
    def has_deformable(self) -> bool:
        """Whether the preset goes beyond an affine fit."""
        return self.data["grids"].get("deformable") is not None

    def grid_mm(self, fit: str) -> tuple[float, float]:
        """Voxel size in mm of (fixed, moving) for ``rigid``, ``affine`` or ``deformable``."""
        fixed_mm, moving_mm = self.data["grids"][fit]
        return float(fixed_mm), float(moving_mm)

    def lesion(self, backend: str) -> str:
        """How the lesion is handled unless the config says otherwise."""
        return str(self.data["lesion"][backend])

    def lesion_margin_mm(self, backend: str) -> float:
        """How far around the lesion the metric is blind, in mm."""
        return float(self.data["lesion_margin_mm"][backend])

    def steps(self, backend: str, fit: str) -> Any:
        """What a backend is to do for a fit.

        Raises
        ------
        ValueError
            If the preset says nothing about it.
        """
        steps = self.data.get(backend, {}).get(fit)
        if steps is None:
            raise ValueError(
                f"the preset {self.name!r} has no {fit} fit for the backend {backend!r}; "
                f"add it to presets/{self.name}.json or choose another preset or backend"
            )
        return steps


@dataclass(frozen=True)
class RegistrationSettings:
    """Settings of registration after checking; see :func:`registration_settings`."""

    preset: Preset
    backend: str
    lesion: str
    longitudinal: str
    seed: int
    ct_template: str | None
    limits: Mapping[str, float]

    def describe(self) -> dict[str, Any]:
        """What belongs into a sidecar."""
        return {
            "preset": self.preset.name,
            "backend": self.backend,
            "lesion": self.lesion,
            "longitudinal": self.longitudinal,
            "seed": self.seed,
            "threads": 1,
        }


@cache
def load_preset(name: str) -> Preset:
    """Read a preset by name.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists those there are.

    Examples
    --------
    >>> load_preset("fast").grid_mm("deformable")
    (2.0, 1.0)
    """
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in known:
        raise ValueError(f"registration preset {name!r} is not known; choose of {known}")
    return Preset(name, read_json(FOLDER / f"{name}.json"))


def registration_settings(settings: Mapping[str, Any] | None) -> RegistrationSettings:
    """Check the block ``registration`` of the config and complete it with defaults.

    Parameters
    ----------
    settings
        ``preset`` (default ``fast``), ``backend`` (``ants_greedy``), ``lesion`` (that of the
        preset for the backend),
        ``longitudinal`` (``halfway``: visits are joined in the space between them),
        ``seed`` (1), ``ct_template`` (path or None), ``limits`` (see :data:`LIMITS`).

    Raises
    ------
    ValueError
        If a key, a choice or a limit is not known, or the seed is not a positive integer
        (without a seed the result differs from run to run).

    Examples
    --------
    >>> registration_settings({"preset": "testing"}).describe()["backend"]
    'ants_greedy'
    """
    from corelab.registration.registrar import backends

    given = dict(settings or {})
    unknown = set(given) - {
        *("preset", "backend", "lesion", "longitudinal", "seed", "ct_template", "limits"),
        "figures",  # asked of by the workflow, not by a fit
    }
    if unknown:
        raise ValueError(f"registration settings {sorted(unknown)} are not known")
    limits = dict(given.get("limits") or {})
    if set(limits) - set(LIMITS):
        raise ValueError(
            f"registration limits {sorted(set(limits) - set(LIMITS))} are not known; "
            f"there are {sorted(LIMITS)}"
        )
    preset = load_preset(given.get("preset") or "fast")
    backend = given.get("backend") or "ants_greedy"
    seed = given.get("seed", 1)
    if backend not in backends():
        raise ValueError(f"registration.backend is {backend!r}; choose of {sorted(backends())}")
    lesion = given.get("lesion") or preset.lesion(backend)
    if lesion not in LESION_HANDLING:
        raise ValueError(f"registration.lesion is {lesion!r}; choose of {LESION_HANDLING}")
    longitudinal = given.get("longitudinal") or "halfway"
    if longitudinal not in LONGITUDINAL:
        raise ValueError(f"registration.longitudinal is {longitudinal!r}; choose of {LONGITUDINAL}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 1:
        raise ValueError(
            f"registration.seed is {seed!r}; it must be an integer of 1 or more, for without "
            "a seed the same images give another result in every run"
        )
    return RegistrationSettings(
        preset=preset,
        backend=backend,
        lesion=lesion,
        longitudinal=longitudinal,
        seed=seed,
        ct_template=given.get("ct_template"),
        limits={**LIMITS, **limits},
    )
