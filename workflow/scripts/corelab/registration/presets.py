"""Presets of registration: what is done at which resolution, as data (``presets/*.json``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from corelab.provenance.products import read_json
from corelab.settings.registration import RegistrationSettings

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Stage:
    """One stage of ANTs: its words, and the levels of its pyramid."""

    transform: str
    metric: str
    bins: int
    sampling_rate: float | None
    iterations: Sequence[int]
    shrink: Sequence[int]
    smoothing_vox: Sequence[float]
    #: Threshold and window.
    convergence: tuple[float, int]


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
        """Default handling of the lesion; ``mask`` for a backend of another package."""
        return str(self.data["lesion"].get(backend, "mask"))

    def lesion_margin_mm(self, backend: str) -> float:
        """Margin around the lesion that the metric does not see, in mm."""
        margins = self.data["lesion_margin_mm"]
        return float(margins.get(backend, max(margins.values())))

    def stages(self, backend: str, fit: str) -> tuple[Stage, ...]:
        """Stages of ANTs for a fit; raises as :meth:`steps`."""
        return tuple(Stage(**stage) for stage in self.steps(backend, fit))

    def steps(self, backend: str, fit: str) -> Any:
        """Steps of a backend for a fit.

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


def lesion_handling(settings: RegistrationSettings) -> str:
    """How the lesion is handled: as configured, else as the preset does with the backend.

    Examples
    --------
    >>> lesion_handling(RegistrationSettings())
    'fill'
    """
    return settings.lesion or load_preset(settings.preset).lesion(settings.backend)


def described(settings: RegistrationSettings) -> dict[str, str | int]:
    """Settings of a fit for a sidecar.

    Examples
    --------
    >>> described(RegistrationSettings(preset="testing"))["backend"]
    'ants_greedy'
    """
    return {
        "preset": settings.preset,
        "backend": settings.backend,
        "lesion": lesion_handling(settings),
        "longitudinal": settings.longitudinal,
        "seed": settings.seed,
        "threads": 1,
    }
