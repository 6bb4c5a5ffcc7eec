"""Blocks ``trial``, ``analysis_sets`` and ``cohort_flows`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from corelab.settings.base import Absent, Count, Settings, Text, Texts, one_of_keys, pattern


class TrialEndpoint(Settings):
    """Definition of an endpoint of the trial."""

    name: str
    """Endpoint of the measurements, reads or outcomes"""
    standing: Literal["primary", "secondary", "safety", "selection", "exploratory"]
    """What it is for in the trial"""
    definition: str
    """Definition in words, with unit"""
    source: str | Absent = None
    """Who gives the value: pipeline, readers, site"""


class TrialSettings(Settings):
    """What trial this design is modelled on, and what imaging was for."""

    name: str
    """Name of the trial"""
    citation: str
    """Where it was published"""
    drug: str | Absent = None
    """Drug and control"""
    imaging_role: str
    """What imaging was for in the trial"""
    role_source: str | Absent = None
    """Where the role of imaging is stated"""
    modalities: Texts | Absent = None
    """Modalities that were used"""
    functions: Texts | Absent = None
    """Functions of the pipeline that the design needs"""
    endpoints: tuple[TrialEndpoint, ...] | Absent = None
    """Definitions of the endpoints"""


class AnalysisSets(Settings):
    """Populations of the trial as flags of the data set ADSL (ITTFL, FASFL, SAFFL, PPROTFL), each
    by an expression over the participants sheet; without ITTFL, who has an arm is in it.
    """

    ITTFL: Text | Absent = None
    """Intent to treat, as an expression"""
    FASFL: Text | Absent = None
    """Full analysis set, as an expression"""
    SAFFL: Text | Absent = None
    """Safety population, as an expression"""
    PPROTFL: Text | Absent = None
    """Per protocol, as an expression"""


class Exclusion(Settings):
    """A criterion of exclusion."""

    exclude: str
    """Expression over participants columns and status flags"""
    reason: str
    """What the figure says"""
    stage: str | Absent = None
    """Stage of the flow; default eligibility"""


class DeclaredStep(Settings):
    """A published exclusion with its number."""

    reason: str
    """Why"""
    n_excluded: Count
    """How many"""
    stage: str | Absent = None
    """Stage of the flow"""


class DeclaredFlow(Settings):
    """Counts as published."""

    n_in: Count
    """Number that enters"""
    steps: tuple[DeclaredStep, ...]
    """Exclusions in order"""
    split: Mapping[str, Count] | Absent = None
    """Parts of the number at the end, name -> count"""


class OverlappingSubsets(Settings):
    """Two overlapping subsets of the end of another flow."""

    flow: str
    """Name of the flow"""
    first: Annotated[Mapping[str, Count], Field(min_length=1, max_length=1)]
    """Name and count of a subset"""
    second: Annotated[Mapping[str, Count], Field(min_length=1, max_length=1)]
    """Name and count of the other"""


class CohortFlow(Settings):
    """A flow of participants."""

    model_config = one_of_keys("criteria", "declared", "pooled", "subsets")
    name: Annotated[str, pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the flow"""
    title: str | Absent = None
    """Title of its figure"""
    start: str | Absent = None
    """What the first box says; default screened"""
    end: str | Absent = None
    """What the last box says; default analysed"""
    by: str | Absent = None
    """Participants column that the last box is split by"""
    expected: Count | Absent = None
    """Number at the end as published; another number is an error"""
    citation: str | Absent = None
    """Where declared counts are from"""
    criteria: Annotated[tuple[Exclusion, ...], Field(min_length=1)] | Absent = None
    """Ordered exclusions; who meets several leaves by the first"""
    declared: DeclaredFlow | Absent = None
    pooled: Annotated[Texts, Field(min_length=2)] | Absent = None
    """Names of flows whose ends are added"""
    subsets: OverlappingSubsets | Absent = None
