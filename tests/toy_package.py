"""A package with a toy of each kind that another package can add, as pip would leave it."""

from __future__ import annotations

from pathlib import Path

TOY = '''
"""One toy of each kind that another package can add."""
import numpy as np

from corelab.perfusion.deconvolution import Residue
from corelab.registration.registrar import Registrar, Transform
from corelab.segmentation.segmenter import Segmentation, check_grid


def engine(problem):
    """Flow 0.01 per second and Tmax 2 s everywhere."""
    one = np.ones(len(problem.curves), np.float32)
    return Residue(0.01 * one, 2 * one, 0 * one)


class Backend(Registrar):
    name = "toy_backend"

    @classmethod
    def missing(cls):
        return None

    def _fit(self, fit):
        return Transform(fit.kind, np.eye(4))


class Segmenter:
    def __init__(self, entry, affine):
        self.label, self.source = entry.label, f"pipeline:{entry.id}"

    def __call__(self, images, brain, voxel_size_mm, parameters):
        voxel = check_grid(images, brain, voxel_size_mm)
        volume = float(brain.sum() * np.prod(voxel)) / 1000
        return Segmentation(self.label, self.source, brain, volume, volume, volume, {})


def extractor(settings):
    return lambda image, kind: (np.asarray(image.dataobj) > 0, None), {"made_by": "toy"}
'''
#: The module of analyses: an edit of it concerns no image.
TOY_ANALYSIS = '''
"""A toy of an analysis type and of a statistic."""
from typing import ClassVar, Literal

from pydantic import Field

from corelab.settings.analyses.base import AnalysisSpec, AnalysisType
from corelab.terms.statistics import Statistic


class Spec(AnalysisSpec):
    """A toy."""

    kind: ClassVar = AnalysisType("toy_type", "Toy analysis", figure="", headline=("toy_ratio",))
    type: Literal["toy_type"]
    toy_factor: float = Field(2.0, description="Factor of the toy")

    @staticmethod
    def analyse(analysis, tables):
        yield {"statistic": "toy_ratio", "estimate": analysis.toy_factor, "endpoint": "all"}


STATISTIC = Statistic("toy_ratio", "Toy ratio", null=1.0, scale="ratio")
'''
POINTS = """
[corelab.engines]
toy_engine = toy_corelab:engine
[corelab.registrars]
toy_backend = toy_corelab:Backend
[corelab.segmenters]
toy_segmenter = toy_corelab:Segmenter
[corelab.brain_extractors]
toy_extractor = toy_corelab:extractor
[corelab.analysis_types]
toy_type = toy_analysis:Spec
[corelab.statistics]
toy_ratio = toy_analysis:STATISTIC
"""


def write_package(folder: Path) -> Path:
    """Write the package into a folder that is then put on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy_corelab.py").write_text(TOY)
    (folder / "toy_analysis.py").write_text(TOY_ANALYSIS)
    info = folder / "corelab_toy-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corelab-toy\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(POINTS)
    return folder
