"""Blocks ``registration`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from corelab.settings.base import Number, OneOrMore, Settings, registered


class RegistrationSettings(Settings):
    """Registration to MNI152 and between the scans of a subject."""

    preset: Literal["testing", "fast", "precise", "jcog0911a2"] = "fast"
    """Accuracy against time"""
    backend: Annotated[str, registered("registrars")] = "ants_greedy"
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
    limits: Mapping[str, Number] = {}
    """Quality limits; a fit outside them is a failed registration"""
