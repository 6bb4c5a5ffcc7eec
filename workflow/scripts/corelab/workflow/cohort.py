"""Participants and visits whose images a run processes, under their BIDS entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from corelab.provenance.ledger import Failure, failures
from corelab.study.model import Study
from corelab.study.naming import session_entity, subject_entity

#: Subject and session entity of a visit (``sub-001``, ``ses-day5``), which no id can break out of.
Visit = tuple[str, str]


@dataclass(frozen=True)
class Cohort:
    """Visits of a run; those with a failed job are left out if the study continues without them.

    Attributes
    ----------
    visits
        Subject and session entity -> participant and visit of the sheet, in the sheet's order.
    subjects
        Subject entity -> participant of the sheet and its visits.
    excluded
        Visits that are left out, with the cause.
    excluded_ids
        The same as ``participant|visit`` of the sheet, a parameter of jobs.
    failed_jobs
        The failed jobs, with participant and visit of the sheet, a parameter of jobs.
    """

    visits: Mapping[Visit, tuple[str, str]]
    subjects: Mapping[str, tuple[str, list[str]]]
    excluded: Mapping[Visit, str]
    excluded_ids: Mapping[str, str]
    failed_jobs: Sequence[Mapping[str, Any]]


def cohort_of(study: Study) -> Cohort:
    """Visits of a study with images, without those whose jobs failed if it continues without them.

    Parameters
    ----------
    study
        With ``without_failed`` in its config, failed jobs are read from the ledger of its folder.
    """
    visits = {(subject_entity(s), session_entity(v)): (s, v) for s, v in study.image_visits}
    subjects = {subject_entity(s): (s, list(v)) for s, v in study.image_subjects.items()}
    failed = failures(study.folder) if study.settings.without_failed else []
    return without_failed(visits, subjects, [one for one in failed if one.subject in subjects])


def without_failed(
    visits: Mapping[Visit, tuple[str, str]],
    subjects: Mapping[str, tuple[str, list[str]]],
    failed: Sequence[Failure],
) -> Cohort:
    """Leave out the visits of failed jobs; a job of a participant excludes all of its visits.

    Examples
    --------
    >>> visits = {("sub-1", "ses-a"): ("1", "a"), ("sub-1", "ses-b"): ("1", "b")}
    >>> job = Failure("sub-1", "ses-b", "segment", "no memory", "x.log", "x.json")
    >>> cohort = without_failed(visits, {"sub-1": ("1", ["a", "b"])}, [job])
    >>> cohort.subjects, cohort.excluded_ids
    ({'sub-1': ('1', ['a'])}, {'1|b': 'the job segment failed: no memory'})
    """
    excluded = {
        key: f"the job {job.step} failed: {job.cause}"
        for job in failed
        for key in visits
        if key[0] == job.subject and job.visit in ("", key[1])
    }
    kept = {key: ids for key, ids in visits.items() if key not in excluded}
    people = {subject for subject, _ in kept}
    return Cohort(
        kept,
        {
            subject: (name, [v for v in listed if (subject, session_entity(v)) in kept])
            for subject, (name, listed) in subjects.items()
            if subject in people
        },
        excluded,
        {"|".join(visits[key]): cause for key, cause in excluded.items()},
        [
            asdict(job)
            | {
                "subject": subjects[job.subject][0],
                "visit": visits.get((job.subject, job.visit), ("", ""))[1],
            }
            for job in failed
        ],
    )
