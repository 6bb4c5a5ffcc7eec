"""Blocks ``charter``, ``review``, ``attestations`` and ``certificate`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from corelab.settings.base import DATE, Absent, NotNegative, Settings, Text, pattern


class CharterSettings(Settings):
    """Texts of the imaging charter that only the sponsor can write; a mandatory one left empty is
    listed.
    """

    summary: str = ""
    """Chapter 1, added to what the program writes"""
    study_overview: str = ""
    """Chapter 2: protocol, indication, aims, design"""
    responsibilities: str = ""
    """Chapter 3"""
    site_qualification: str = ""
    """Chapter 4.1"""
    image_submission: str = ""
    """Chapter 4.3: who sends which images when, how they are de-identified"""
    quality_assurance_plan: str = ""
    """Chapter 4.5: periodic quality assurance and the correction plan"""
    clinical_data: str = ""
    """Chapter 5: clinical data that readers are given, or why not applicable"""
    assessment_criteria: str = ""
    """Chapter 6, added to the endpoints"""
    visit_assessment: str = ""
    """Chapter 7.2: what a reader does, sees and locks"""
    adjudication: str = ""
    """Chapter 7.3, added to the rules of reading.adjudication"""
    clinical_assessment: str = ""
    """Chapter 7.4, or why not applicable"""
    reader_quality: str = ""
    """Chapter 8: qualification, bias, training, replacement"""
    transfer_and_storage: str = ""
    """Chapter 9"""
    assessment_quality: str = ""
    """Chapter 10"""
    references: str = ""
    """Chapter 11"""
    people: Mapping[str, str] = {}
    """Role -> name, for the team list"""
    intra_reader_cv_percent_max: NotNegative | None = None
    """Limit of the charter on the difference within a reader, coefficient of variation, %"""


class ReviewSettings(Settings):
    """Review desk, where people accept or exclude what the pipeline made."""

    decisions: str | None = None
    """Table of decisions, append-only and hash-chained; default <results>/review/qc_decisions.tsv
    """
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port on this machine where the review target serves the desk; 0 takes a free one"""


class Attestation(Settings):
    """Who stated it, and when."""

    by: Text
    """Name and role"""
    at: Annotated[str, pattern(DATE)]
    """Date, ISO 8601"""
    document: str | Absent = None
    """Where it is stated"""


class CertificateSettings(Settings):
    """Certificate of reproduced endpoints."""

    numeric_tolerance: NotNegative = 1e-08
    """Tolerance besides rounding for closed forms"""
