"""The demo against the truth that it was simulated from.

Runs the demo in the checkout (results/demo); where it has run already, only what changed reruns.
"""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY
from phantom_truth import scan_to_template
from workflow_runs import snakemake

from corelab.measurement.overlap import generalised_dice
from corelab.phantom.design import TrialSpec
from corelab.phantom.scene import build_scene
from corelab.phantom.truth import true_masks
from corelab.registration import template_brain_mask, transform_points

pytestmark = [pytest.mark.slow, pytest.mark.acceptance]
DEMO = REPOSITORY / "results" / "demo"
TEXT = {"participant_id": str, "visit": str}


def table(name):
    return pd.read_csv(DEMO / name, sep="\t", dtype=TEXT, na_values="n/a", keep_default_na=False)


@pytest.fixture(scope="module", autouse=True)
def demo():
    done = snakemake()
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture(scope="module")
def beside_truth():
    """The pipeline's volumes beside the truth on the grid that they were drawn on."""
    truth = table("phantom/truth.tsv")
    truth = truth[truth["kind"].isin(["dwi", "ctp", "dsc", "ncct"]) & (truth["region"] == "all")]
    rows = table("endpoints/measurements.tsv")
    rows = rows[(rows["source"] == "pipeline") & (rows["region"] == "all")]
    both = truth.merge(
        rows, on=["participant_id", "visit", "endpoint"], suffixes=("_true", "_found")
    )
    return both[both["endpoint"].str.endswith("_volume")]


def records(stage):
    return [
        json.loads(p.read_text()) for p in sorted((DEMO / "derivatives").glob(f"*/*/{stage}.json"))
    ]


def test_every_value_is_there(beside_truth):
    assert (beside_truth["status"] == "ok").all(), beside_truth.loc[
        beside_truth["status"] != "ok", ["participant_id", "visit", "endpoint", "reason"]
    ]
    assert (beside_truth["endpoint"] == "infarct_volume").sum() == 11


@pytest.mark.parametrize(
    ("endpoint", "share", "ml"),
    [
        ("infarct_volume", 0.10, 1.0),
        ("core_volume", 0.15, 3.0),
        ("hypoperfused_volume", 0.15, 3.0),
        ("haematoma_volume", 0.10, 1.0),
    ],
)
def test_volumes(beside_truth, endpoint, share, ml):
    rows = beside_truth[beside_truth["endpoint"] == endpoint]
    assert len(rows) >= 3
    error = (rows["value_found"] - rows["value_true"]).abs()
    allowed = np.maximum(ml, share * rows["value_true"])
    assert (error <= allowed).all(), rows.assign(error=error)[
        ["participant_id", "visit", "value_true", "value_found", "error"]
    ].to_string()


def test_infarct_dice():
    spec = TrialSpec()
    checked = 0
    for record in records("segment"):
        for mask in record["masks"]:
            if (mask["label"], mask["source"], mask["status"]) == ("infarct", "pipeline", "ok"):
                scene = build_scene(spec, record["participant_id"])
                truth, view = true_masks(scene, record["visit"], "dwi")
                found = nib.load(DEMO / mask["path"])
                # The pipeline's file is in closest-RAS order, the simulated one in the scanner's.
                drawn = nib.as_closest_canonical(
                    nib.Nifti1Image(truth["infarct"].astype(np.uint8), view.affine)
                )
                score = generalised_dice([np.asanyarray(one.dataobj) > 0 for one in (found, drawn)])
                assert score >= 0.80, (record["participant_id"], record["visit"], score)
                checked += 1
    assert checked == 11


def test_target_registration_error():
    """Mean over template brain points of |truth(fit(y)) - y|."""
    spec = TrialSpec()
    mask = template_brain_mask()
    rng = np.random.default_rng(1)
    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    points = rng.permutation(voxels)[:3000] @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    for path in sorted((DEMO / "derivatives").glob("*/normalise.json")):
        record = json.loads(path.read_text())
        assert record["status"] == "ok", record["reason"]
        anchor = record["anchor"]
        chain = record["transforms"][anchor["visit"]][anchor["grid"]]
        native = transform_points(
            points, [DEMO / p for p in chain["to_mni"]], chain["whichtoinvert"]
        )
        back = scan_to_template(
            spec, record["participant_id"], anchor["visit"], anchor["kind"], native
        )
        error_mm = np.linalg.norm(back - points, axis=1).mean()
        limit = 2.0 if record["method"] == "syn" else 4.0
        assert error_mm <= limit, (record["participant_id"], record["method"], error_mm)


def test_interval_of_the_dose_effect_covers_the_truth():
    truth = table("phantom/truth.tsv").set_index("endpoint")["value"]["dose_slope:infarct_growth"]
    rows = table("statistics/pharmacodynamics.tsv")
    slope = rows[(rows["analysis_id"] == "dose_growth") & (rows["statistic"] == "slope")].iloc[0]
    assert slope["ci_low"] <= truth <= slope["ci_high"]
    assert slope["n"] >= 30


def test_interval_of_the_reader_bias_covers_the_truth():
    truth = table("phantom/truth.tsv").set_index("endpoint")["value"]["bias:reader-1|reader-2"]
    rows = table("statistics/agreement.tsv")
    bias = rows[
        (rows["analysis_id"] == "inter_reader")
        & (rows["statistic"] == "bias")
        & (rows["group"] == "reader-1|reader-2")
    ].iloc[0]
    assert bias["ci_low"] <= truth <= bias["ci_high"]


def test_only_the_planted_scan_is_outside_the_charter():
    rows = table("endpoints/acquisition.tsv")
    failed = rows[(rows["verdict"] == "fail") & ~rows["criterion"].str.startswith("gate:")]
    assert set(
        zip(failed["participant_id"], failed["visit"], failed["criterion"], strict=True)
    ) == {("005", "day5", "slice_thickness_mm_max")}
