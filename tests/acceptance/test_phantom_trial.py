"""The full simulated trial: truth on every scan's grid (about 40 s of CPU)."""

from __future__ import annotations

import numpy as np
import pytest

from corelab.phantom.design import TrialSpec
from corelab.phantom.lesion import subject_points, tissue_at
from corelab.phantom.scans import perfusion_truth
from corelab.phantom.scene import build_scene, view_scan
from corelab.phantom.truth import trial_truth

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
FULL = TrialSpec()


def test_volumes_counted_on_all_grids_are_the_planned_ones():
    truth = trial_truth(FULL)
    planned = truth[truth["kind"].isna()].set_index(["participant_id", "visit", "endpoint"])[
        "value"
    ]
    counted = truth[truth["kind"].notna()]
    for row in counted.itertuples():
        key = (row.participant_id, row.visit, row.endpoint)
        if key in planned.index and row.unit == "mL":
            # Penumbra and growth are differences and carry the error of both terms.
            terms = 2 if row.endpoint in ("penumbra_volume", "infarct_growth") else 1
            assert row.value == pytest.approx(planned[key], rel=0.03 * terms, abs=0.3), row


@pytest.mark.parametrize("participant_id", FULL.imaged)
def test_lesion_is_where_and_as_large_as_planned(participant_id):
    scene = build_scene(FULL, participant_id)
    points = subject_points(scene.anatomy)
    tissue = tissue_at(scene.head, points)
    core, hypoperfused = scene.lesion.fractions(points, "core", "hypoperfused")
    plan = scene.participant.lesion
    assert float((core * tissue).sum(dtype=float)) * 0.008 == pytest.approx(plan.core_ml, abs=0.05)
    other = (points[0] * plan.side) < 0
    assert (hypoperfused * tissue)[other].sum() < 0.01 * (hypoperfused * tissue).sum()


@pytest.mark.parametrize("participant_id", ["001", "002", "003", "005", "006"])
def test_core_follows_from_30_percent_of_contralateral_flow(participant_id):
    scene = build_scene(FULL, participant_id)
    truth = perfusion_truth(scene, view_scan(scene, "baseline", "ctp"))
    normal = (truth.delay_s == 0) & (truth.parenchyma > 0.9)
    reference = np.median(truth.cbf_ml_100g_min[normal])
    below = (truth.cbf_ml_100g_min < 0.30 * reference) & truth.hypoperfused
    dice = 2 * (below & truth.core).sum() / (below.sum() + truth.core.sum())
    assert dice > 0.93
    assert below.sum() == pytest.approx(truth.core.sum(), rel=0.08)
