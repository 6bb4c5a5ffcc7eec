"""Heads to train on: the same for the same seed, of every kind, with a brain where one is."""

import numpy as np
import pytest
from train.heads import brain_sample
from train.infarcts import infarct_sample

from corelab.learned import brain, infarct


@pytest.mark.parametrize("sample", [brain_sample, infarct_sample])
def test_a_seed_gives_the_same_head(sample):
    one, again, other = sample(7), sample(7), sample(8)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[0] != other[0]).any()


def test_heads_have_a_whole_brain():
    for seed in range(4):
        image, mask = brain_sample(seed)
        assert image.shape == mask.shape == brain.SHAPE and image.dtype == np.float32
        assert 300 < mask.sum() * 0.008 < 3300  # mL, cut fields of view included
        assert image.min() >= 0 and image.max() <= 1


def test_infarcts_are_dark_on_adc_and_bright_on_dwi():
    excess, deficit = [], []
    for seed in range(10):
        image, mask = infarct_sample(seed)
        assert image.shape == (2, *infarct.SHAPE) and mask.shape == infarct.SHAPE
        inside = mask > 0
        normal = (image[0] > 0.25) & ~inside
        if inside.sum() < 100:
            continue
        excess.append(np.median(image[0][inside]) / np.median(image[0][normal]))
        if image[1].any():
            deficit.append(np.median(image[1][inside]) / np.median(image[1][normal]))
    assert np.median(excess) > 1.1 and np.median(deficit) < 0.9
