"""Random numbers that depend on the trial's seed and on names, never on the order of jobs."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random generator of one named purpose.

    Examples
    --------
    >>> a, b = generator(1, "001", "warp"), generator(1, "001", "warp")
    >>> float(a.random()) == float(b.random())
    True
    >>> float(generator(1, "002", "warp").random()) == float(generator(1, "001", "warp").random())
    False
    """
    text = "/".join([str(int(seed)), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
