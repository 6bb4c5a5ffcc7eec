"""Consensus, regions and settings: analytic cases."""

from __future__ import annotations

import numpy as np
import pytest

from corelab.segmentation import (
    aspects,
    majority_vote,
    net_water_uptake_percent,
    region_share,
    staple,
)
from corelab.settings.segmentation import InfarctThresholds, SegmentationSettings


def test_majority_and_ties():
    readers = [
        np.array([1, 1, 2, 0, 4]),
        np.array([1, 2, 2, 0, 4]),
        np.array([0, 2, 1, 0, 0]),
        np.array([0, 1, 1, 4, 1]),
    ]
    labels, tied = majority_vote(readers)
    assert tied.tolist() == [True, True, True, False, False]
    assert labels.tolist() == [0, 0, 0, 0, 4]
    assert majority_vote(readers, ties="lowest")[0].tolist() == [0, 1, 1, 0, 4]
    assert majority_vote(readers, ties="highest")[0].tolist() == [1, 2, 2, 0, 4]


def test_labels_stored_with_a_rounding_error_are_rounded():
    labels, _ = majority_vote([np.array([1.000015, 2.00003]), np.array([1.0, 2.0])])
    assert labels.tolist() == [1, 2]


def test_majority_refuses():
    with pytest.raises(ValueError, match="two masks or more"):
        majority_vote([np.zeros(3)])
    with pytest.raises(ValueError, match="one grid"):
        majority_vote([np.zeros(3), np.zeros(4)])
    with pytest.raises(ValueError, match="background, lowest or highest"):
        majority_vote([np.zeros(3), np.zeros(3)], ties="reader-1")  # type: ignore[arg-type]


def test_staple_recovers_readers_performance():
    # Readers simulated with known sensitivity and specificity (Warfield 2004, section III)
    rng = np.random.default_rng(4)
    truth = np.zeros((30, 30, 30), bool)
    truth[8:22, 8:22, 8:22] = True
    want = [(0.95, 0.98), (0.9, 0.95), (0.7, 0.97), (0.85, 0.9)]
    masks = [
        np.where(truth, rng.random(truth.shape) < p, rng.random(truth.shape) > q) for p, q in want
    ]
    found = staple(masks)
    assert found.sensitivity == pytest.approx([p for p, _ in want], abs=0.03)
    assert found.specificity == pytest.approx([q for _, q in want], abs=0.03)
    agree = 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum())
    vote = majority_vote(masks, ties="highest")[0] > 0
    assert agree >= 2 * (vote & truth).sum() / (vote.sum() + truth.sum())


def test_staple_of_empty_masks_is_empty():
    assert not staple([np.zeros((5, 5, 5))] * 3).mask.any()


def test_net_water_uptake():
    # issue 4, point 4: 36 against 40 HU gives 10.0 %
    assert net_water_uptake_percent(36.0, 40.0) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="between 20 and 80 HU"):
        net_water_uptake_percent(5.0, 8.0)


def test_aspects_counts_regions_and_shares():
    atlas = np.zeros((20, 10, 5))
    for n in range(10):
        atlas[2 * n : 2 * n + 2] = n + 1.000015  # labels are found stored like that
    regions = {
        n + 1: name
        for n, name in enumerate(["C", "L", "IC", "I", "M1", "M2", "M3", "M4", "M5", "M6"])
    }
    lesion = np.zeros(atlas.shape, bool)
    assert aspects(lesion, atlas, regions)[0] == 10
    lesion[:4] = True
    lesion[4, 0, 0] = True  # one voxel of the third region
    score, share = aspects(lesion, atlas, regions)
    assert score == 8
    assert share["IC"] == pytest.approx(0.01)
    assert aspects(lesion, atlas, regions, min_share=0.0)[0] == 7
    assert aspects(np.ones(atlas.shape, bool), atlas, regions)[0] == 0
    assert region_share(lesion, atlas, [1, 2, 3, 4]) == pytest.approx(201 / 400)
    with pytest.raises(ValueError, match="ten regions"):
        aspects(lesion, atlas, {1: "C"})
    with pytest.raises(ValueError, match="no voxel"):
        region_share(lesion, atlas, [99])


def test_default_limits_that_do_not_enclose_a_threshold_are_dropped():
    assert "edge_share" in InfarctThresholds(edge_share=0.5).limits
    assert "edge_share" not in InfarctThresholds(edge_share=0.9).limits
    given = InfarctThresholds(edge_share=0.9, limits={"edge_share": (1, 0.5)})
    assert given.limits == {"edge_share": (1, 0.5)}
    assert InfarctThresholds.model_validate(given.plain()) == given


@pytest.mark.parametrize(
    "wrong", [{"infract": {}}, {"infarct": {"adc_below": 1}}, {"infarct": {"z_peak": "high"}}]
)
def test_wrong_thresholds_are_refused(wrong):
    with pytest.raises(ValueError, match="validation error"):
        SegmentationSettings.model_validate(wrong)


def test_every_default_lies_within_its_limits():
    for section, values in SegmentationSettings():
        for name, pair in getattr(values, "limits", {}).items():
            assert min(pair) <= getattr(values, name) <= max(pair), (section, name)
