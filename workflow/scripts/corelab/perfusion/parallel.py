"""Voxels and frames on several threads, where the result cannot depend on their number."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

#: Voxels that a compiled loop is called with at a time.
BLOCK = 8192


def _thread_count(threads: int | None) -> int:
    """Threads to use: as requested, else OMP_NUM_THREADS, else the available cores."""
    if threads is not None:
        return max(1, int(threads))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_blocks(kernel: Callable[..., None], n: int, threads: int | None, *arrays: Any) -> None:
    """Call ``kernel(first, last, *arrays)`` for blocks of voxels, on several threads."""
    starts = range(0, n, BLOCK)
    if not n:
        return
    # No voxel first: compiling must not happen on two threads at once.
    kernel(0, 0, *arrays)
    with ThreadPoolExecutor(_thread_count(threads)) as pool:
        jobs = [pool.submit(kernel, s, min(s + BLOCK, n), *arrays) for s in starts]
        for job in jobs:
            job.result()


def over_frames(work: Callable[[int], None], n: int, threads: int | None) -> None:
    """Call ``work(frame)`` for every frame, on several threads; frames must not share anything."""
    with ThreadPoolExecutor(_thread_count(threads)) as pool:
        for _ in pool.map(work, range(n)):
            pass
