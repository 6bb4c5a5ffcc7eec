"""Two scans of one subject, and one scan and the template: the fits behind the two stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging import ImageFault, load_image
from corelab.imaging.template import template_brain_mask, template_image
from corelab.registration.doubtful import doubtful, judged_by_donor, with_better_mask
from corelab.registration.filling import filled_lesion
from corelab.registration.halfway import halfway_rigid
from corelab.registration.heads import Head
from corelab.registration.preparation import (
    CT_KINDS,
    brain_only,
    centred,
    coarsened,
    dilated,
    voxel_mm,
)
from corelab.registration.presets import lesion_handling, load_preset
from corelab.registration.quality import (
    best_start,
    field_quality,
    overlap,
    rotation_deg,
    rounded,
    similarity,
    ventricle_offset_mm,
    ventricle_warning,
    verdict,
)
from corelab.registration.registrar import Registrar, Transform
from corelab.registration.transforms import Step, apply_transforms
from corelab.settings.registration import RegistrationSettings

_RIGID_CHECKS = {"rigid_dice_min": "dice", "rigid_rotation_deg_max": "rotation_deg"}
_HALFWAY_CHECKS = {"rigid_inverse_consistency_mm_max": "inverse_consistency_mm"}
_TEMPLATE_CHECKS = {
    "dice_min": "dice",
    "coverage_min": "coverage",
    "information_min": "mutual_information",
    "scale_min": "scale",
    "scale_max": "scale",
    "folds_max": "folds",
    "jacobian_max": "jacobian_max",
    "inverse_consistency_mm_max": "inverse_consistency_mm",
}


@dataclass(frozen=True)
class RigidFit:
    """A rigid fit, its figures, and the reason if it breaks a limit (else None)."""

    transform: Transform
    quality: Mapping[str, float | str | None]
    reason: str | None


def fit_rigid(
    registrar: Registrar,
    fixed: Head,
    moving: Head,
    settings: RegistrationSettings,
    *,
    halfway: bool = False,
) -> RigidFit:
    """Rigid fit of two scans of one subject.

    ``halfway`` refines it in the space between the two, which treats both alike: for two visits.
    Where a brain mask cannot be trusted, or the two do not agree after the fit, see
    :mod:`corelab.registration.doubtful`.

    Raises
    ------
    RegistrationFault
        If the backend could not do it.
    """
    own = fixed, moving
    first: np.ndarray | None = None
    if doubtful(fixed, moving):
        fixed, moving, first = with_better_mask(registrar, fixed, moving, settings)
    fixed_mm, moving_mm = load_preset(settings.preset).grid_mm("rigid")
    still = fixed.stripped(settings, fixed_mm)
    moved = moving.stripped(settings, moving_mm)
    start, begun = best_start(still, moved, centred(still, moved))
    before = similarity(still, moved, Transform("rigid", start).to_fixed)
    transform = registrar.rigid(still, moved, start=start if first is None else first)
    symmetry: dict[str, float] = {}
    if halfway:
        # Both scans on voxels of one size, or the finer one would have the say.
        alike = [head.stripped(settings, fixed_mm) for head in (fixed, moving)]
        transform, symmetry = halfway_rigid(registrar, alike[0], alike[1], transform.matrix)
    after = similarity(still, moved, transform.to_fixed)
    dice, seen = overlap(own[0].brain, own[1].brain, transform.to_fixed, transform.to_moving)
    quality: dict[str, float | str | None] = {
        "start": begun,
        "mutual_information_before": before["mutual_information"],
        "mutual_information": after["mutual_information"],
        "dice": dice,
        "coverage": seen,
        "rotation_deg": rotation_deg(transform.matrix),
        **symmetry,
    }
    checks = {**_RIGID_CHECKS, **(_HALFWAY_CHECKS if halfway else {})}
    if first is not None:
        # The Dice is reported, but a mask that cannot be trusted judges nothing.
        del checks["rigid_dice_min"]
        judged, reason = judged_by_donor(*own, transform.matrix, start, settings)
        quality |= asdict(judged)
        broken = verdict(quality, settings.limits, checks)
        return RigidFit(transform, rounded(quality), broken or reason)
    reason = verdict(quality, settings.limits, checks)
    loss = before["mutual_information"] - after["mutual_information"]
    allowed = settings.limits.rigid_information_loss_max
    if reason is None and not loss <= allowed:
        reason = f"mutual information fell by {loss:.4g} in the fit, more than {allowed:g}"
    if dice < settings.limits.rigid_dice_min:
        # Two masks of plausible volume that do not agree: one of them may be wrong, or the fit.
        still_head, moved_head = (replace(head, verdict="warn") for head in own)
        again = fit_rigid(registrar, still_head, moved_head, settings, halfway=halfway)
        if again.reason is None:
            return again
    return RigidFit(transform, rounded(quality), reason)


@dataclass(frozen=True)
class TemplateFit:
    """A fit to the template.

    Attributes
    ----------
    transform, quality, reason
        As of :class:`RigidFit`.
    warning
        A figure beyond a limit that does not fail the fit, in words; None if there is none.
    lesion
        What was done about the lesion: ``requested``, ``used``, ``excluded_ml``, ``note`` and,
        for a filled one, what it was filled with: see
        :class:`~corelab.registration.filling.Filling`.
    """

    transform: Transform
    quality: Mapping[str, float | str | None]
    reason: str | None
    lesion: dict[str, Any]
    warning: str | None = None


def fit_to_template(
    registrar: Registrar,
    head: Head,
    lesion: np.ndarray,
    settings: RegistrationSettings,
) -> TemplateFit:
    """Fit a scan to MNI152: affine, and deformable where scan and preset allow it.

    Parameters
    ----------
    registrar
        Backend.
    head
        Moving scan.
    lesion
        Boolean, on the scan's grid; may be empty.
    settings
        Checked settings.

    Raises
    ------
    RegistrationFault
        If the backend could not do it.
    """
    preset = load_preset(settings.preset)
    brain = np.asarray(head.brain.dataobj) != 0
    excluded, handled = _handled_lesion(lesion, brain, head, settings)

    fixed_mm, moving_mm = preset.grid_mm("affine")
    fixed, moving = _template(head, settings, fixed_mm), head.stripped(settings, moving_mm)
    bend = preset.has_deformable and head.suits_deformable
    mask = _metric_mask(excluded, moving)
    transform = registrar.affine(fixed, moving, metric_mask=mask, first_pass=bend)
    if bend:
        fixed_mm, moving_mm = preset.grid_mm("deformable")
        fixed, moving = _template(head, settings, fixed_mm), head.stripped(settings, moving_mm)
        transform = _deformable(
            registrar, fixed, moving, excluded, transform.matrix, handled, lesion, head
        )
    template_brain = template_brain_mask()
    dice, seen = overlap(template_brain, head.brain, transform.to_fixed, transform.to_moving)
    quality: dict[str, float | str | None] = {
        "dice": dice,
        "coverage": seen,
        **similarity(fixed, moving, transform.to_fixed),
        "edge_correlation": _edge_correlation(fixed, moving, transform.to_fixed),
        **field_quality(transform, template_brain),
    }
    warning = None
    if bend:
        place = nib.Nifti1Image(lesion.astype(np.uint8), head.image.affine)
        offset_mm = ventricle_offset_mm(moving, transform.to_fixed, place)
        quality["ventricle_offset_mm"] = offset_mm
        warning = ventricle_warning(offset_mm, settings.limits.ventricle_offset_mm_max)
    reason = verdict(quality, settings.limits, _TEMPLATE_CHECKS)
    return TemplateFit(transform, rounded(quality), reason, handled, warning)


def _deformable(
    registrar: Registrar,
    fixed: nib.Nifti1Image,
    moving: nib.Nifti1Image,
    excluded: nib.Nifti1Image | None,
    start: np.ndarray,
    handled: dict[str, Any],
    lesion: np.ndarray,
    head: Head,
) -> Transform:
    """Deformable fit with the lesion masked, filled or left as it is."""
    mask = _metric_mask(excluded, moving)
    if handled["used"] != "fill" or mask is None:
        return registrar.deformable(fixed, moving, start=start, metric_mask=mask)
    # The mirror goes through a first fit: by the affine one alone the two sides of a brain lie
    # millimetres apart, and tissue from the wrong gyrus misleads more than none.
    first = registrar.deformable(fixed, moving, start=start, metric_mask=mask, first_pass=True)
    image = nib.Nifti1Image(lesion.astype(np.uint8), head.image.affine)
    place = np.asarray(apply_transforms(image, moving, [], "label").dataobj) != 0
    filling = filled_lesion(moving, place, first.to_moving, first.to_fixed)
    handled |= rounded(
        {
            "filled_with_own_tissue": filling.own_tissue,
            "filled_from_other_side": filling.other_side,
            "anatomy_correlation": filling.anatomy_correlation,
        }
    )
    return registrar.deformable(fixed, filling.image, start=start)


def _handled_lesion(
    lesion: np.ndarray, brain: np.ndarray, head: Head, settings: RegistrationSettings
) -> tuple[nib.Nifti1Image | None, dict[str, Any]]:
    """The region kept out of the metric (None: nothing), and what the record says about it."""
    voxel_ml = abs(float(np.linalg.det(head.image.affine[:3, :3]))) / 1000.0
    wanted = lesion_handling(settings)
    handled: dict[str, Any] = {
        "requested": wanted,
        "used": "none",
        "excluded_ml": 0.0,
        "note": None,
    }
    if wanted == "none":
        return None, handled
    if not lesion.any():
        handled["note"] = "no lesion mask, nothing to exclude"
        return None, handled
    margin = load_preset(settings.preset).lesion_margin_mm(settings.backend)
    region = dilated(lesion, head.image.affine, margin)
    share = float((region & brain).sum() / brain.sum())
    if share > 0.5:
        handled["note"] = (
            f"the lesion masks with their margin cover {share:.0%} of the brain; with so little "
            "left there is nothing to fit by, so they were not excluded"
        )
        return None, handled
    handled |= {"used": wanted, "excluded_ml": round(float(region.sum()) * voxel_ml, 3)}
    return nib.Nifti1Image(region.astype(np.uint8), head.image.affine), handled


def _metric_mask(
    excluded: nib.Nifti1Image | None, moving: nib.Nifti1Image
) -> nib.Nifti1Image | None:
    """Mask of the metric on the grid of the moving image."""
    if excluded is None:
        return None
    left_out = np.asarray(apply_transforms(excluded, moving, [], "nearest").dataobj)
    return nib.Nifti1Image((left_out == 0).astype(np.uint8), moving.affine)


def _template(head: Head, settings: RegistrationSettings, spacing_mm: float) -> nib.Nifti1Image:
    """Template to fit to: T1, or the user's CT template for CT."""
    if head.kind not in CT_KINDS or settings.ct_template is None:
        return _t1_template(spacing_mm)
    try:
        template = load_image(settings.ct_template)
    except ImageFault as fault:
        # A template that cannot be read is the study's fault, not this scan's.
        raise ValueError(f"registration.ct_template: {fault}") from fault
    mask = apply_transforms(template_brain_mask(), template, [], "label")
    place = np.asarray(mask.dataobj) != 0
    if not place.any():
        raise ValueError(
            f"registration.ct_template {settings.ct_template} does not lie in MNI152 space: "
            "the template's brain is outside of it"
        )
    cut, _ = brain_only(template, place, margin_mm=0.0)
    return coarsened(cut, spacing_mm)


@cache
def _t1_template(spacing_mm: float) -> nib.Nifti1Image:
    brain = np.asarray(template_brain_mask().dataobj) != 0
    cut, _ = brain_only(template_image(), brain, margin_mm=0.0)
    return coarsened(cut, spacing_mm)


def _edge_correlation(fixed: nib.Nifti1Image, moving: nib.Nifti1Image, steps: list[Step]) -> float:
    """Correlation of the gradient magnitudes of template and moved scan over the brain.

    Edges of the brain surface are left out: every brain-extracted image has them.
    """
    spacing = voxel_mm(fixed.affine)
    moved = apply_transforms(moving, fixed, steps, "linear")
    inner = ndimage.binary_erosion(np.asarray(fixed.dataobj) > 0, iterations=int(6 / spacing[0]))
    edges = [
        ndimage.gaussian_gradient_magnitude(np.asarray(image.dataobj, np.float32), 2.0 / spacing)
        for image in (fixed, moved)
    ]
    inner &= np.asarray(moved.dataobj) != 0
    if inner.sum() < 100:
        return float("nan")
    return float(np.corrcoef(edges[0][inner], edges[1][inner])[0, 1])
