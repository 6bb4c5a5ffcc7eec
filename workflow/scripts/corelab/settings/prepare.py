"""Blocks of the config that the stage ``prepare`` reads."""

from __future__ import annotations

from corelab.settings.acquisition import AcquisitionSettings, DicomSettings
from corelab.settings.base import Settings
from corelab.settings.segmentation import BrainExtractionSettings


class PrepareSettings(Settings):
    """What the stage ``prepare`` takes from the config."""

    acquisition: AcquisitionSettings = AcquisitionSettings.model_construct()
    dicom: DicomSettings = DicomSettings.model_construct()
    brain_extraction: BrainExtractionSettings = BrainExtractionSettings.model_construct()
