"""Loops are compiled ahead for the types that they are called with, so that no job compiles."""

import json
import os
import subprocess
import sys

from helpers import REPOSITORY

#: As `make env` does it, without the loops of perfusion, which take as long as all others.
AHEAD = """
import corelab.imaging.kernels, corelab.imaging.meshnet_kernels
from corelab.provenance.compiled import compile_ahead
print(compile_ahead())
"""
#: How many loops came from the disk, and the names of those that had to be compiled.
REPORT = """
import json
from corelab.provenance.compiled import _DEFINED
loops = {loop.__name__: loop.stats for loop, _ in _DEFINED}
missed = sorted(name for name, stats in loops.items() if stats.cache_misses)
print(json.dumps([sum(bool(stats.cache_hits) for stats in loops.values()), missed]))
"""
CALLS = (
    """
import numpy as np
from corelab.imaging.geometry import distance_mm, linear_at, linear_grid, smoothed
from corelab.imaging.meshnet_kernels import convolve
from corelab.learned.unet import scores
from test_learned_unet import random_network

volume = np.random.default_rng(1).random((16, 16, 16))
for kind in (np.float32, np.float64):
    smoothed(volume.astype(kind), 1.0)
    linear_at(volume.astype(kind), np.ones((3, 5)))
    linear_grid(volume.astype(kind), np.eye(3), np.zeros(3), (8, 8, 8), mode="nearest")
distance_mm(volume > 0.5, 1.0)
scores(random_network(), volume[None].astype(np.float32))
"""
    + REPORT
)


def run(code):
    """What code prints, with the cache of the environment, where `make env` puts the loops."""
    paths = f"{REPOSITORY / 'workflow/scripts'}:{REPOSITORY / 'tests/unit'}"
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_calls_find_their_loops_compiled():
    assert run(AHEAD) > 20
    found, missed = run(CALLS)
    assert found >= 5 and missed == []


def test_a_call_with_other_types_is_seen():
    other = "from corelab.imaging import kernels; import numpy as np\n"
    other += "kernels.smooth_axis.stats.cache_misses[('other',)] += 1\n"
    assert run(other + REPORT) == [0, ["smooth_axis"]]
