"""Heads to train on: the same for the same seed, of every kind, with a brain where one is."""

import numpy as np
from train.heads import brain_sample

from corelab.learned import brain


def test_a_seed_gives_the_same_head():
    one, again, other = brain_sample(7), brain_sample(7), brain_sample(8)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[0] != other[0]).any()


def test_heads_have_a_whole_brain():
    for seed in range(4):
        image, mask = brain_sample(seed)
        assert image.shape == mask.shape == brain.SHAPE and image.dtype == np.float32
        assert 300 < mask.sum() * 0.008 < 3300  # mL, cut fields of view included
        assert image.min() >= 0 and image.max() <= 1
