"""The whole config of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from corelab.settings.acquisition import AcquisitionSettings, DicomSettings, PhantomQaSettings
from corelab.settings.base import UNIQUE, Number, Settings, Text, fingerprint, pattern
from corelab.settings.measurement import (
    AtlasSettings,
    MeasurementSettings,
    NoiseFloorSettings,
    RecoverySettings,
    SerialImagingSettings,
)
from corelab.settings.perfusion import PerfusionSettings
from corelab.settings.radiomics import RadiomicsSettings
from corelab.settings.reading import ReadingSettings
from corelab.settings.registration import RegistrationSettings
from corelab.settings.report import (
    Attestation,
    CertificateSettings,
    CharterSettings,
    ReviewSettings,
)
from corelab.settings.segmentation import BrainExtractionSettings, SegmentationSettings
from corelab.settings.study import InputSettings, PhantomSettings, StudySettings, VisitSettings
from corelab.settings.trial import AnalysisSets, CohortFlow, TrialSettings


class Config(Settings):
    """The whole configuration of one study. Keys that are absent take the defaults given here."""

    study: StudySettings
    results_dir: Text = "results"
    """Folder of all results; relative to the working directory, or absolute"""
    inputs: InputSettings
    data_dir: str | None = None
    """Given with --config: takes the place of inputs.data_dir"""
    row: str | None = None
    """Given with --config for the trace target: the row_id to trace"""
    bids: str | None = None
    """Given with --config for the index target: a BIDS folder"""
    compare_with: str | None = None
    """Given with --config for the compare target: another study's results folder"""
    site: str | int | None = None
    """Given with --config for the site target: the site whose subjects are processed (column site
    of participants)
    """
    without_failed: bool = False
    """Given with --config after jobs of some visits failed: the others are finished without them;
    their rows say which job failed and why
    """
    phantom: PhantomSettings | None = None
    atlases: tuple[AtlasSettings, ...] = ()
    """Region atlases; a territory_fraction row is written per region"""
    acquisition: AcquisitionSettings = AcquisitionSettings.model_construct()
    phantom_qa: PhantomQaSettings = PhantomQaSettings.model_construct()
    dicom: DicomSettings = DicomSettings.model_construct()
    registration: RegistrationSettings = RegistrationSettings.model_construct()
    brain_extraction: BrainExtractionSettings = BrainExtractionSettings.model_construct()
    segmentation: SegmentationSettings = SegmentationSettings.model_construct()
    perfusion: PerfusionSettings = PerfusionSettings.model_construct()
    radiomics: RadiomicsSettings = RadiomicsSettings.model_construct()
    measurement: MeasurementSettings = MeasurementSettings.model_construct()
    noise_floor: NoiseFloorSettings = NoiseFloorSettings.model_construct()
    recovery: RecoverySettings = RecoverySettings.model_construct()
    reading: ReadingSettings = ReadingSettings.model_construct()
    charter: CharterSettings = CharterSettings.model_construct()
    review: ReviewSettings = ReviewSettings.model_construct()
    visits: VisitSettings = VisitSettings.model_construct()
    attestations: Mapping[Annotated[str, Field(pattern=r"^C\d{2}[a-z]?$")], Attestation] = {}
    """Statements that only people can make (rows of docs/guideline_checklist.md) -> who made them
    and when; all others stay NOT ATTESTED
    """
    grades: Mapping[str, Annotated[tuple[Text, ...], Field(min_length=2), UNIQUE]] = {}
    """Endpoints that are graded in words -> every grade in its order, lowest first; in tables a
    grade is its place, from 0
    """
    recode: Mapping[str, Annotated[Mapping[str, Number], Field(min_length=1)]] = {}
    """Outcome, exposure or participants column -> word in its cells -> the number it stands for, as
    in {mrs: {dead: 6}, auc: {BLQ: 0.5}}; any other word is an error
    """
    published: str | None = None
    """Sheet of published endpoints to reproduce"""
    certificate: CertificateSettings = CertificateSettings.model_construct()
    preset: Annotated[str, pattern(r"^[a-z0-9_-]+$")] | None = None
    """A trial design of config/presets to build on; its keys take effect where this config has none
    (never its study id, inputs or results folder)
    """
    trial: TrialSettings | None = None
    locked_plan: str | None = None
    """plan.json of the locked plan (copy of statistics/plan.json at the lock); deviations from it
    are listed in statistics/plan_deviations.tsv
    """
    analysis_sets: AnalysisSets = AnalysisSets.model_construct()
    cohort_flows: tuple[CohortFlow, ...] = ()
    """Flows of participants, by criteria over the participants sheet or from declared counts;
    statistics/cohort_flow.tsv and a figure each
    """
    serial_imaging: SerialImagingSettings | None = None
    analyses: tuple[Mapping[str, Any], ...] = ()
    """The analysis plan"""

    @property
    def plan_fingerprint(self) -> str:
        """Fingerprint of the analysis plan."""
        return fingerprint({"analyses": self.analyses, "visits": self.visits.plain()})
