"""Memory and time limits of jobs by the size of their scans, and their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from corelab.settings.analyses.base import RESAMPLES, AnalysisSpec, texts
from corelab.workflow.cohort import Cohort
from corelab.workflow.inputs import inspected, network_files

#: Size of a simulated scan that is not written yet, MB.
SIMULATED_MB = 26.0
#: Memory that a network needs for a whole head, MB; its weights are small.
NETWORK_MB = 1600


@dataclass(frozen=True)
class Cost:
    """Limits of a job as base and share per MB of its (compressed) scans.

    Attributes
    ----------
    mb, mb_per_mb
        Memory, MB.
    minutes, minutes_per_mb
        Time limit, min.
    """

    mb: float
    mb_per_mb: float
    minutes: float
    minutes_per_mb: float


#: From the benchmark files of the demo (largest: prepare 470 MB, segment 250, perfuse 690,
#: normalise 770, measure 150 MB, with 26 MB of scans), at least twice of that.
COSTS = {
    "prepare": Cost(800, 12, 20, 1.0),
    "segment": Cost(600, 8, 10, 0.3),
    "perfuse": Cost(900, 16, 20, 1.5),
    "normalise": Cost(1800, 8, 60, 0.5),
    "measure": Cost(500, 3, 10, 0.2),
    "radiomics": Cost(1200, 12, 60, 2.0),
}
#: Stages that may run a network, and the block of the config that names it.
_NETWORKS = {"prepare": "brain_extraction.", "segment": "segmentation."}

Limit = Callable[..., int]


def growing(mb: int) -> Limit:
    """Memory limit that grows with each attempt, MB.

    Examples
    --------
    >>> growing(2000)(None, attempt=2)
    4000
    """

    def memory(wildcards: Any, attempt: int) -> int:
        return mb * attempt

    return inspected(memory)


@dataclass(frozen=True, eq=False)
class Limits:
    """Memory and time limits of the jobs of visits and participants."""

    study: Any
    cohort: Cohort

    def scans_mb(self, wildcards: Any) -> float:
        """Size of the scans that a job of a visit or a participant reads, MB."""
        return self._scans_mb(wildcards.subject, getattr(wildcards, "session", None))

    @functools.cache  # noqa: B019 (one object in a process; memory and time limit both need it)
    def _scans_mb(self, subject: str, session: str | None) -> float:
        name, visits = self.cohort.subjects[subject]
        if session is not None:
            visits = [self.cohort.visits[subject, session][1]]
        rows = [row for visit in visits for row in self.study.visit_rows(name, visit)]
        return sum(SIMULATED_MB if row.simulated else (row.bytes or 0) / 1e6 for row in rows)

    def memory_of(self, stage: str) -> Limit:
        """Memory of a stage's jobs, MB; each attempt gets as much again."""
        cost, block = COSTS[stage], _NETWORKS.get(stage)
        base = cost.mb + NETWORK_MB * bool(block and network_files(self.study, block))

        def memory(wildcards: Any, attempt: int) -> int:
            return attempt * int(base + cost.mb_per_mb * self.scans_mb(wildcards))

        return inspected(memory)

    def runtime_of(self, stage: str) -> Limit:
        """Time limit of a stage's jobs, min; each attempt gets as much again."""
        cost = COSTS[stage]

        def runtime(wildcards: Any, attempt: int) -> int:
            size = self.scans_mb(wildcards)
            return attempt * int(cost.minutes + cost.minutes_per_mb * size)

        return inspected(runtime)


#: Order of jobs that are ready at the same time: what leads to the longest job (``normalise``)
#: first, so that the last of them does not run alone; short jobs at the ends fill the gaps.
STAGE_PRIORITIES = {
    "normalise": 50,
    "perfuse": 40,
    "prepare": 30,
    "segment": 30,
    "simulate_visit": 20,
    "measure": 10,
    "quality_figures": 5,
}
#: Added to the jobs of one participant, whose images are then the first result to look at.
FIRST = 100
#: Most that is added to the jobs of a participant with many scans: less than stages are apart.
LONG = 4
#: Participants up to which they have an order: a function costs planning time for every job.
FEW_PARTICIPANTS = 50


def first_subject(cohort: Cohort, scans_mb: Callable[[Any], float]) -> str:
    """The participant whose images come first: one with the least, for an early result.

    Parameters
    ----------
    cohort, scans_mb
        As of :func:`priorities`.

    Examples
    --------
    >>> cohort = Cohort({}, {f"sub-{n}": (n, ["a"]) for n in "312"}, {}, {}, ())
    >>> first_subject(cohort, lambda job: 26.0 * int(job.subject[-1]))
    'sub-1'
    """
    return min(
        list(cohort.subjects)[:FEW_PARTICIPANTS],
        key=lambda subject: scans_mb(SimpleNamespace(subject=subject)),
    )


def priorities(
    cohort: Cohort, scans_mb: Callable[[Any], float]
) -> dict[str, int | Callable[[Any], int]]:
    """Priority of the jobs of each image stage.

    Parameters
    ----------
    cohort
        Its :func:`first_subject` comes first.
    scans_mb
        Size of the scans of a participant (:meth:`Limits.scans_mb`). Of the others, those with
        most come first: the last chain of jobs, beside which little else is left, is a short one.

    Examples
    --------
    >>> cohort = Cohort({}, {f"sub-{n}": (n, ["a"]) for n in "1234"}, {}, {}, ())
    >>> found = priorities(cohort, lambda job: 26.0 * int(job.subject[-1]))["normalise"]
    >>> [found(SimpleNamespace(subject=subject)) for subject in cohort.subjects]
    [151, 52, 53, 54]
    """
    if not 1 < len(cohort.subjects) <= FEW_PARTICIPANTS:
        return dict(STAGE_PRIORITIES)
    subjects = list(cohort.subjects)
    by_size = sorted(subjects, key=lambda subject: scans_mb(SimpleNamespace(subject=subject)))
    more = {name: LONG * rank // len(subjects) for rank, name in enumerate(by_size, start=1)}
    more[first_subject(cohort, scans_mb)] += FIRST

    def of_stage(priority: int) -> Callable[[Any], int]:
        def of_job(wildcards: Any) -> int:
            return priority + more[wildcards.subject]

        return of_job

    return {stage: of_stage(priority) for stage, priority in STAGE_PRIORITIES.items()}


def priority_of(stages: Mapping[str, int | Callable[[Any], int]], stage: str, subject: str) -> int:
    """Priority of a stage for one subject, where the rule has no wildcard for it.

    Examples
    --------
    >>> priority_of({"simulate_visit": 20}, "simulate_visit", "sub-1")
    20
    """
    found = stages[stage]
    return found(SimpleNamespace(subject=subject)) if callable(found) else found


#: Analyses that share one job: at most so many, in a study of at most so many participants. In a
#: larger study each takes longer than the start of a job.
MOST_TOGETHER, MOST_PARTICIPANTS = 50, 1000
#: Methods that fit a model many times or iteratively, which take seconds to minutes.
_SLOW_METHODS = frozenset({"mmrm", "multiple_imputation", "gee", "glmm", "superpc"})


def takes_long(analysis: AnalysisSpec) -> bool:
    """Whether an analysis has a job of its own, so that several run at the same time.

    Examples
    --------
    >>> from corelab.settings.analyses import spec_of
    >>> plan = {"id": "a", "type": "agreement", "endpoint": "aspects", "sources": "all"}
    >>> takes_long(spec_of(plan)), takes_long(spec_of({**plan, "resamples": 10_000}))
    (False, True)
    """
    resamples = getattr(analysis, "resamples", None) or 0
    methods = _SLOW_METHODS & set(texts(getattr(analysis, "method", None)))
    return resamples > RESAMPLES or bool(methods) or analysis.type == "radiomics"
