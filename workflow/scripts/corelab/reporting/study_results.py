"""Results as the jobs of the report and the submission read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelab.plan.runner import study_tables
from corelab.reporting.results import Results, read_results
from corelab.study.model import read_study


def study_results(part: Mapping[str, Any], files: Any) -> Results:
    """Results as a job reads them.

    Parameters
    ----------
    part
        Parameter ``study`` of the job (:meth:`corelab.study.model.Study.part`).
    files
        Input of the job: ``exhibits``, and ``submission`` (its index) where the job follows it.
    """
    study = read_study(part)
    submission = getattr(files, "submission", None)
    return read_results(
        study.folder,
        study.settings,
        study_tables(study),
        exhibits=list(files.exhibits),
        conformance=submission and Path(submission).parent / "datasets" / "conformance.tsv",
    )
