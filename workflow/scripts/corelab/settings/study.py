"""Blocks ``study``, ``inputs``, ``visits`` and ``phantom`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from corelab.settings.base import UNIQUE, Count, Positive, Settings, Text, Texts, pattern


class StudySettings(Settings):
    """What is studied."""

    id: Annotated[str, pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    """Name of the study; its results lie in <results_dir>/<id>"""
    title: str = ""
    """Title shown in reports"""
    sap_version: str = ""
    """Version of the statistical analysis plan"""
    blinded: bool = False
    """Show codes instead of arm names in reports"""
    disease: Literal["stroke", "glioma"] = "stroke"
    """Decides which lesions are segmented from which scans"""
    dose_unit: str = ""
    """Unit of the column dose, for sentences and axes (mg/kg)"""
    design: Literal["randomised", "single_arm", "other"] | None = None
    """Design of the trial; a single arm demands central reading of every subject"""


class InputSettings(Settings):
    """Sheets; paths are absolute, or relative to the working directory, or else to data_dir."""

    participants: Text
    """Sheet of subjects"""
    scans: str | None = None
    """Sheet of scan files"""
    reads: str | None = None
    """Sheet of values by readers"""
    outcomes: str | None = None
    """Sheet of clinical values"""
    exposures: str | None = None
    """Sheet of drug values"""
    events: str | None = None
    """Sheet of times to events"""
    phantoms: str | None = None
    """Sheet of phantom inserts"""
    rereads: str | None = None
    """Sheet of reads made again after the lock, columns as the reads"""
    reference_cases: str | None = None
    """Sheet of reference cases of known truth, mixed into the packages of readers"""
    measurements: tuple[Text, ...] = ()
    """Tables of numbers of other software"""
    covariates: tuple[Text, ...] = ()
    """Further tables with participant_id, joined to the participants sheet"""
    data_dir: str | None = None
    """Folder that relative paths of the scans sheet start from"""


class VisitSettings(Settings):
    """Visits in time."""

    order: Texts = ()
    """Visits in order; default order of first appearance"""
    baseline: str | None = None
    """Baseline visit; default the first"""


class PhantomSettings(Settings):
    """Scans are simulated by the workflow; paths of the scans sheet are relative to
    <results>/<study>/phantom.
    """

    trial: Literal["stroke", "glioblastoma"]
    """Which simulated trial"""
    seed: Count = 20260101
    """Seed of everything random"""
    flavour: Literal["full", "testing", "hard"] = "full"
    """full, testing (coarse voxels), or hard (stroke: what real scans have and simulated heads
    lack)
    """
    scanner_scale: Mapping[str, Positive] = {}
    """<site>/<scanner> -> factor by which a simulated phantom scan is off"""
    shapes: Annotated[Texts, UNIQUE] = ()
    """Where the infarcts of the stroke trial get their shapes: files of masks (NIfTI), or [model]
    for the model fitted to public masks; none gives the smooth territory of one artery
    """
