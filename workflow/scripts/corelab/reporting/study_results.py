"""Results as the jobs of the report and the submission read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corelab.plan.runner import study_tables
from corelab.reporting.results import Results, read_results
from corelab.study.model import read_study


def study_results(
    part: Mapping[str, Any],
    *,
    features: Sequence[str | Path],
    exhibits: Iterable[str | Path],
    submission: str | Path | None = None,
) -> Results:
    """Results as a job reads them.

    Parameters
    ----------
    part
        Parameter ``study`` of the job (:meth:`corelab.study.model.Study.part`).
    features, exhibits
        Files of the job.
    submission
        ``submission/index.json``, where the job follows it.
    """
    study = read_study(part)
    conformance = submission and Path(submission).parent / "datasets" / "conformance.tsv"
    tables = study_tables(study, features)
    return read_results(
        study.folder, study.settings, tables, exhibits=list(exhibits), conformance=conformance
    )
