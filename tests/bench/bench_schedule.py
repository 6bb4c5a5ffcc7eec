"""Scheduling of 10 000 visits on 1 to 1 000 nodes, simulated from measured costs of jobs.

Costs are CPU seconds of the demo's benchmark files, with the coefficient of variation seen there. One
Slurm job is one subject (profiles/slurm); it starts Snakemake twice. The head plans once, submits at a
limited rate, and the cohort jobs run after the last subject on one core.
"""

from __future__ import annotations

import heapq

import numpy as np

#: CPU s per job (mean); per visit, but normalise per subject.
COST_S = {"prepare": 27.0, "segment": 4.3, "perfuse": 48.0, "measure": 2.6, "normalise": 52.0}
VARIATION = 0.5
SLURM_START_S = 8.0
SUBMITTED_PER_S = 5.0
PLANNING_S = 60.0
#: Collecting, maps, statistics, report and manifest of 10 000 visits, one after the other.
COHORT_S = 900.0
CORES_PER_NODE = 16


def subject_seconds(subjects: int, visits: int, seed: int = 1) -> np.ndarray:
    """Seconds of each subject's Slurm job on one core."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(np.log1p(VARIATION**2))

    def drawn(mean: float, shape: tuple[int, ...]) -> np.ndarray:
        return mean * rng.lognormal(-(spread**2) / 2, spread, shape)

    total = drawn(COST_S["normalise"], (subjects,))
    for name in ("prepare", "segment", "perfuse", "measure"):
        total += drawn(COST_S[name], (subjects, visits)).sum(axis=1)
    return total + SLURM_START_S


def makespan_s(seconds: np.ndarray, cores: int) -> float:
    """Time until the last job has ended: submitted one after the other, each on the first free core."""
    free = [0.0] * min(cores, len(seconds))
    heapq.heapify(free)
    end = 0.0
    for number, duration in enumerate(seconds):
        submitted = PLANNING_S + number / SUBMITTED_PER_S
        begin = max(submitted, heapq.heappop(free))
        heapq.heappush(free, begin + duration)
        end = max(end, begin + duration)
    return end + COHORT_S


def table() -> list[tuple[int, float, float, float]]:
    """Nodes, makespan (h), speed-up against one node, efficiency."""
    seconds = subject_seconds(3334, 3)
    one = makespan_s(seconds, CORES_PER_NODE)
    rows = []
    for nodes in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        span = makespan_s(seconds, nodes * CORES_PER_NODE)
        rows.append((nodes, span / 3600, one / span, one / span / nodes))
    return rows


def main() -> None:
    """Print the table of docs/scale.md."""
    print("nodes  makespan_h  speed-up  efficiency")
    for nodes, hours, speed, share in table():
        print(f"{nodes:>5}  {hours:>10.2f}  {speed:>8.1f}  {share:>10.2f}")


if __name__ == "__main__":
    main()
