"""The demo's jobs on two cores, simulated from its plan and measured costs: no core stands idle."""

import heapq
import random
import re
from types import SimpleNamespace

import pytest
import yaml
from helpers import REPOSITORY
from workflow_runs import snakemake

from corelab.study.loading import load_study
from corelab.workflow.cohort import cohort_of
from corelab.workflow.costs import Limits, priorities

#: Seconds of a job, mean of a demo that kept both cores busy (`s` of the benchmark files: their
#: `cpu_time` is not looked at between 15 and 45 s); other jobs take the time of a start.
COST_S = {
    **{"simulate_visit": 17.0, "normalise": 38.2, "prepare": 19.7, "perfuse": 22.1},
    **{"quality_figures": 6.5, "segment": 7.5, "measure": 4.3, "simulate_truth": 10.0},
    **{"analyse": 8.5, "draw": 10.5},
}
START_S = 1.0
#: Jobs before which nothing can start, and the first result to look at.
AT_ONCE = {"check_inputs", "preflight", "first_page"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Jobs of the demo by number: rule, priority and the jobs whose products it takes."""
    folder = str(tmp_path_factory.mktemp("schedule"))
    text = snakemake("--dag", "--config", f"results_dir={folder}").stdout
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    study = load_study(config | {"results_dir": folder})
    cohort = cohort_of(study)
    stages = priorities(cohort, Limits(study, cohort).scans_mb)
    waits = {}
    for before, after in re.findall(r"(\d+) -> (\d+)", text):
        waits.setdefault(int(after), set()).add(int(before))
    labels = dict(re.findall(r'(\d+)\[label = "([^"]+)"', text))
    jobs = {}
    for number, label in sorted((int(number), label) for number, label in labels.items()):
        # The scans of a subject of the stroke trial are a rule of their own: simulate_<subject>.
        rule = re.sub(r"^simulate_sub-.*", "simulate_visit", label.split("\\n")[0])
        priority = stages.get(rule, 100 if rule in AT_ONCE else 0)
        if callable(priority):
            priority = priority(SimpleNamespace(**_wildcards(label, waits.get(number), labels)))
        jobs[number] = rule, priority, waits.get(number, set())
    assert len(jobs) > 75
    return jobs


def _wildcards(label, before, labels):
    """Participant of a job: its own label leaves out what the job before it has."""
    (subject,) = set(re.findall(r"sub-[0-9]+", label)) or _subjects(before, labels)
    return {"subject": subject}


def _subjects(before, labels):
    return {name for job in before for name in re.findall(r"sub-[0-9]+", labels[str(job)])}


def _run(plan, cores, seed):
    """Greedy schedule as Snakemake's: ready jobs of the highest priority first, ties at random.

    Returns the start and end of each job.
    """
    tie = random.Random(seed)
    order = sorted(plan, key=lambda n: (-plan[n][1], tie.random()))
    times, running, now, done = {}, [], 0.0, set()
    while len(done) < len(plan):
        ready = [n for n in order if n not in times and plan[n][2] <= done]
        for number in ready[: cores - len(running)]:
            end = now + COST_S.get(plan[number][0], START_S)
            times[number] = now, end
            heapq.heappush(running, (end, number))
        now, number = heapq.heappop(running)
        done.add(number)
    return times


def _ends(plan, times, rule):
    return sorted(times[number][1] for number in plan if plan[number][0] == rule)


def _busy(plan, times):
    """Mean number of busy cores until the first job of the whole cohort's measurements."""
    first = min(times[number][0] for number in plan if plan[number][0] == "collect")
    return sum(min(end, first) - start for start, end in times.values() if start < first) / first


@pytest.mark.parametrize("seed", range(5))
def test_two_cores_are_busy_until_the_cohort_jobs_begin(plan, seed):
    assert _busy(plan, _run(plan, 2, seed)) >= 1.8


@pytest.mark.parametrize("seed", range(5))
def test_images_of_the_first_participant_come_early(plan, seed):
    times = _run(plan, 2, seed)
    drawn = _ends(plan, times, "quality_figures")
    assert len(drawn) == 6
    assert drawn[0] < 0.3 * max(end for _, end in times.values())


def test_without_priorities_they_come_late(plan):
    plain = {number: (rule, 0, before) for number, (rule, _, before) in plan.items()}
    late = [_ends(plain, _run(plain, 2, seed), "quality_figures")[0] for seed in range(5)]
    early = [_ends(plan, _run(plan, 2, seed), "quality_figures")[0] for seed in range(5)]
    assert sum(late) > 1.3 * sum(early)
    assert max(early) <= min(late)
