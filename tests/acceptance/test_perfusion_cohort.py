"""The head cohort, end to end from raw signal (targets: issue 3, point 7)."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from perfusion_heads import clinical_cases, cohort, simulate_head, slice_times_s

from corelab.imaging import brain_mask
from corelab.perfusion import lesions
from corelab.perfusion.gates import FAIL, WARN, judge
from corelab.perfusion.series import SeriesOptions, analyse_series, gate_values
from corelab.perfusion.visit import _volume_gates

#: Gates that tell that a volume is not as accurate as on most heads.
LATE_DOUBTS = ("hypoperfused_uncertainty", "hypoperfused_wrong_share", "tissue_cnr")
CORE_DOUBTS = ("core_wrong_share", "tissue_cnr")
pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def dice(a, b):
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())


def analysed(case):
    """Truth and finding of one case: volumes (mL), overlap, share of true artery."""
    head = simulate_head(case)
    brain = brain_mask(nib.Nifti1Image(head.signal, head.affine), case.modality)
    found = analyse_series(
        head.signal,
        head.affine,
        head.times_s,
        case.modality,
        brain,
        SeriesOptions(
            echo_time_s=0.03, slice_times_s=slice_times_s(case) if case.shuttle_s else None
        ),
    )
    bayes = found.maps["bayes"]
    flow = bayes.cbf_ml_100g_min
    unread = lesions.untimed_tissue(found.tissue, flow, bayes.tmax_sd_s)
    late = lesions.delayed_tissue(bayes.tmax_s, found.tissue, 6.0, found.voxel_ml, unread)
    sides = lesions.hemispheres(found.plane, head.affine, found.tissue, late, found.voxel_ml)
    normal = sides.healthy & (np.nan_to_num(bayes.tmax_s, nan=np.inf) < lesions.NORMAL_TMAX_S)
    reference = lesions.reference_value(flow, normal, rule="contralateral", tissue=found.tissue)
    values = gate_values(found)
    level = lesions.level_in_noise(0.30, values["tissue_cnr"])
    core = lesions.reduced_flow(flow, reference, level, late, found.tissue, found.voxel_ml)
    lesion = case.side != "none"
    reach = lesions.volume_range(bayes.tmax_s, found.tissue, 6.0, found.voxel_ml, unread)
    values |= _volume_gates(core, late, found.tissue, reach, found.voxel_ml)
    values["hypoperfused_wrong_share"] = lesions.likely_wrong_delay(
        bayes.tmax_s, bayes.tmax_sd_s, late, found.tissue, 6.0
    )
    values["core_wrong_share"] = lesions.likely_wrong_core(
        flow, bayes.cbf_sd_ml_100g_min, core, level * reference.values
    )
    verdicts = {row.criterion: row.verdict for row in judge(case.modality, values)}
    return {
        "family": case.family if lesion else "none",
        "core_error_ml": (core.sum() - head.core.sum()) * found.voxel_ml,
        "core_ml": head.core.sum() * found.voxel_ml,
        "core_dice": dice(core, head.core) if lesion else np.nan,
        "late_error_ml": (late.sum() - head.hypoperfused.sum()) * found.voxel_ml,
        "late_dice": dice(late, head.hypoperfused),
        "late_ml": head.hypoperfused.sum() * found.voxel_ml,
        "true_artery": bool((head.arteries[tuple(found.input.artery.voxels.T)] > 0.3).all()),
        "side": sides.affected == case.side,
        "interval": verdicts["frame_interval_s"],
        "late_doubted": any(verdicts[name] in (WARN, FAIL) for name in LATE_DOUBTS),
        "core_doubted": any(verdicts[name] in (WARN, FAIL) for name in CORE_DOUBTS),
    }


def check(rows, factor=1.0):
    for family in sorted({row["family"] for row in rows} - {"none"}):
        cases = [row for row in rows if row["family"] == family]
        errors = np.array([row["core_error_ml"] for row in cases])
        overlaps = np.array([row["core_dice"] for row in cases])
        assert abs(errors.mean()) <= 2.0 * factor, (family, errors)
        assert np.abs(errors).mean() <= 3.0 * factor, (family, errors)
        assert overlaps.mean() >= 0.80 / factor, (family, overlaps)
        late = np.array([row["late_error_ml"] for row in cases])
        whole = np.array([row["late_ml"] for row in cases])
        assert np.abs(late).mean() <= factor * max(10.0, 0.05 * whole.mean()), (family, late)
    for row in rows:
        if row["family"] == "none":
            assert row["core_error_ml"] <= 1.0 * factor


def test_cohort_volumes_and_arteries():
    rows = [analysed(case) for case in cohort()]
    check(rows)
    assert sum(row["true_artery"] for row in rows) >= 23
    assert all(row["side"] for row in rows)


def test_heads_that_no_constant_was_chosen_on():
    """Other seeds and boluses, and more noise, than the cohort's: the same targets."""
    cases = [
        replace(
            cohort(noise=6.0)[number],
            seed=5000 + number,
            bolus_arrival_s=5.0 + number * 7 % 6,
            artery_peak_hu=200.0 + 25 * (number * 5 % 9),
        )
        for number in (2, 5, 9, 12)
    ]
    rows = [analysed(case) for case in cases]
    check(rows)
    assert all(row["side"] and row["true_artery"] for row in rows)


def test_graded_rims_and_arteries_as_in_patients():
    """Tmax > 6 s on heads whose residue functions, arteries and seeds served no choice.

    Frames of 1, 1.5 and 2 s, arteries as weak as they come. The limits hold wherever no gate
    doubts the volume, and no more than a tenth of the heads within them is doubted.
    """
    families = ("gamma3", "exponential", "lognormal0.8", "linear", "gamma5", "weibull2")
    rows = [
        analysed(
            replace(
                case,
                interval_s=(1.0, 1.5, 2.0)[number % 3],
                shape=(107, 128, 16),
                voxel_mm=(1.8, 1.8, 5.0),
            )
        )
        for number, case in enumerate(clinical_cases(7002, 8, families))
    ]
    for row in rows:
        row["volume"] = row["late_error_ml"] / row["late_ml"]
        row["late_good"] = abs(row["volume"]) <= 0.08 and row["late_dice"] >= 0.92
        lost = abs(row["core_error_ml"]) > max(3.0, 0.25 * row["core_ml"])
        row["core_good"] = not lost and row["core_dice"] >= 0.80
    print(*rows, sep="\n")
    for part in ("late", "core"):
        sure = [row for row in rows if not row[f"{part}_doubted"]]
        assert len(sure) >= 0.5 * len(rows), (part, rows)
        assert all(row[f"{part}_good"] for row in sure), (part, rows)
        good = [row for row in rows if row[f"{part}_good"]]
        assert len(good) - len(sure) <= max(1, 0.1 * len(good)), (part, rows)
    sure = [row for row in rows if not row["late_doubted"]]
    assert abs(np.mean([row["volume"] for row in sure])) <= 0.04, rows
    assert np.mean([row["late_dice"] for row in sure]) >= 0.95, rows
    sure = [row for row in rows if not row["core_doubted"]]
    assert abs(np.mean([row["core_error_ml"] for row in sure])) <= 2.0, rows
    assert np.mean([row["core_dice"] for row in sure]) >= 0.85, rows


def test_heads_on_a_shuttling_table():
    """Two positions 1.5 s apart, each seen every 3 s: no worse than a table that stands still.

    Frames 3 s apart are beyond what the engine holds (2 s): the core comes out up to 8 mL too large
    (docs/perfusion.md), and the gate frame_interval_s warns. The same heads, all slices at once
    every 3 s, show how much of it is the shuttle: at most 3 mL of the core and 10 mL of Tmax > 6 s.
    """
    still = cohort(interval_s=3.0, noise=4.0)
    moving = cohort(shuttle_s=1.5, interval_s=3.0, noise=4.0)
    for number in (12, 5):
        row, control = analysed(moving[number]), analysed(still[number])
        assert row["true_artery"] and row["side"]
        assert row["interval"] == control["interval"] == WARN
        assert abs(row["core_error_ml"]) <= abs(control["core_error_ml"]) + 3.0, (row, control)
        assert row["core_error_ml"] <= 8.5 and row["core_dice"] >= 0.80, row
        assert abs(row["late_error_ml"]) <= abs(control["late_error_ml"]) + 10.0, (row, control)


def test_cohort_after_motion():
    cases = cohort(motion_mm=2.0, motion_degrees=2.0)
    check([analysed(case) for case in (*cases[2:6], *cases[10:13], *cases[18:21])], factor=1.5)


def test_dsc_heads():
    cases = cohort(modality="dsc", noise=8.0)
    rows = [analysed(case) for case in (cases[3], cases[12], cases[20])]
    for row in rows:
        assert row["true_artery"] and row["side"]
        assert abs(row["core_error_ml"]) <= 5.0, row
        assert abs(row["late_error_ml"]) <= 15.0, row
