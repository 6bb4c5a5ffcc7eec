"""Block ``registration`` of the config."""

from __future__ import annotations

from typing import Annotated, Literal

from corelab.settings.base import Number, OneOrMore, Registered, Settings


class RegistrationLimits(Settings):
    """Quality limits; a fit outside them is a failed registration.

    They catch failures (wrong side up, half a head), they do not rank good fits.
    """

    rigid_dice_min: Number = 0.75
    """Overlap of the brains, within a subject"""
    rigid_rotation_deg_max: Number = 45.0
    """Rotation, within a subject"""
    rigid_information_loss_max: Number = 0.01
    """Normalised mutual information lost against the start, within a subject"""
    rigid_inverse_consistency_mm_max: Number = 3.0
    """Distance of the fits of the two directions, between visits"""
    dice_min: Number = 0.85
    """Overlap of the brains, to the template"""
    coverage_min: Number = 0.25
    """Share of the template's brain that the image shows"""
    information_min: Number = 1.01
    """Normalised mutual information over the brain (1 is none), to the template"""
    scale_min: Number = 0.60
    """Scale of the affine fit, along each axis"""
    scale_max: Number = 1.70
    """Scale of the affine fit, along each axis"""
    folds_max: Number = 0.001
    """Share of the brain where the deformation folds"""
    jacobian_max: Number = 20.0
    """Change of volume by the deformation"""
    inverse_consistency_mm_max: Number = 1.0
    """Distance of deformation and inverse, to the template"""
    ventricle_offset_mm_max: Number = 3.0
    """Offset of the ventricles; beyond it a deformable fit has a warning and is not failed"""
    volume_checked_from_ml: Number = 10.0
    """Masks of this volume and more are checked by volume_discrepancy_percent_max"""
    volume_discrepancy_percent_max: Number = 10.0
    """Volume in MNI against the native volume times the Jacobian"""


class RegistrationSettings(Settings):
    """Registration to MNI152 and between the scans of a subject."""

    preset: Literal["testing", "fast", "precise", "jcog0911a2"] = "fast"
    """Accuracy against time"""
    backend: Annotated[str, Registered("registrars")] = "ants_greedy"
    """Program that registers"""
    lesion: Literal["mask", "fill", "none"] | None = None
    """How the lesion is kept from pulling the fit; default what the preset says for the backend
    (jcog0911a2 none; else fill, or mask where another program fits)
    """
    longitudinal: Literal["halfway", "direct"] = "halfway"
    """Follow-up to baseline: rigid in the space half-way between the visits, or directly"""
    figures: bool = True
    """Draw every fit and mask, and the contact sheet of the cohort"""
    seed: OneOrMore = 1
    """Seed of the optimiser"""
    ct_template: str | None = None
    """CT template in MNI152 space, if the user has one"""
    limits: RegistrationLimits = RegistrationLimits.model_construct()
