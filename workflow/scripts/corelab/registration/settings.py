"""Settings of registration: the block ``registration`` of the config, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corelab.registration.backends import BACKENDS
from corelab.registration.presets import RegistrationSettings, load_preset

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
    given = dict(settings or {})
    unknown = set(given) - {
        *("preset", "backend", "lesion", "longitudinal", "seed", "ct_template", "limits"),
        "figures",  # of the workflow, not of a fit
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
    if backend not in BACKENDS:
        raise ValueError(f"registration.backend is {backend!r}; choose of {sorted(BACKENDS)}")
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
