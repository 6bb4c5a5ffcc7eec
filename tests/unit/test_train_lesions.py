"""Simulated patients to train lesions on: the same for the same seed, with what the labels say."""

import numpy as np
from train.tumours import tumour_sample

from corelab.learned.lesions import SHAPE


def test_a_seed_gives_the_same_patient():
    one, other = tumour_sample(6), tumour_sample(7)
    # Patients share a head with their neighbours: what is kept must not change them.
    again = tumour_sample(6)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[0] != other[0]).any()
    assert one[0].shape[-3:] == one[1].shape == SHAPE and one[0].dtype == np.float32


def test_tumours_look_like_what_the_labels_say():
    found = [tumour_sample(seed) for seed in range(20, 32)]
    assert set(np.unique(np.concatenate([labels.ravel() for _, labels in found]))) == {0, 1, 2, 3}
    for channel, label in ((1, 2), (0, 3)):  # oedema is bright on FLAIR, enhancement on T1c
        brighter = [
            image[channel][labels == label].mean() - image[channel][labels == 0].mean()
            for image, labels in found
            if (labels == label).sum() > 50
        ]
        assert len(brighter) >= 5 and np.mean(np.array(brighter) > 0) > 0.9
