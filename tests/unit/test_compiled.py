"""Loops are compiled ahead for the types that they are called with, so that no job compiles."""

import os
import subprocess
import sys

from helpers import REPOSITORY

#: As `make env` does it, without the loops of perfusion, which take as long as all others.
AHEAD = """
import corelab.imaging.kernels, corelab.imaging.meshnet_kernels
from corelab.provenance.compiled import compile_ahead
compile_ahead()
"""
CALLS = """
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


def run(cache, *words):
    paths = f"{REPOSITORY / 'workflow/scripts'}:{REPOSITORY / 'tests/unit'}"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": paths}
    subprocess.run([sys.executable, *words], check=True, env=environment)
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb*")}


def test_calls_find_their_loops_compiled(tmp_path):
    before = run(tmp_path, "-c", AHEAD)
    assert len(before) > 40
    assert run(tmp_path, "-c", CALLS) == before
