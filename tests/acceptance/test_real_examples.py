"""The ready studies of config/examples on real patients' data, where the data are there."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import data_folder
from workflow_runs import snakemake

pytestmark = pytest.mark.acceptance


def run(name, folder, tmp_path, *targets):
    done = snakemake(
        "--configfile",
        f"config/examples/{name}/config.yaml",
        "--config",
        f"results_dir={tmp_path}",
        *[f"data_dir={folder}"] * bool(folder),
        "--",
        *(targets or ["all"]),
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return tmp_path / name


def measurements(results):
    return pd.read_csv(
        results / "endpoints" / "measurements.tsv",
        sep="\t",
        dtype={"participant_id": str, "visit": str},
        na_values="n/a",
        keep_default_na=False,
        float_precision="round_trip",
    )


def test_published_numbers_of_the_symposium(tmp_path):
    """Every printed number gets its verdict; the report names the ten that differ."""
    target = str(tmp_path / "published" / "verification" / "certificate.tsv")
    run("published", "", tmp_path, target)
    rows = pd.read_csv(target, sep="\t", na_values="n/a", keep_default_na=False)
    assert rows["published_id"].nunique() == 74
    assert rows["verdict"].value_counts().to_dict() == {
        "reproduced": 82,
        "within_rounding": 23,
        "different": 10,
        "not_computable": 1,
    }


def test_soop(tmp_path):
    """120 lesions of SOOP (Absher 2024): volumes and 31 territory shares exactly as published."""
    folder = data_folder("stroke/soop_mni_lesions")
    results = run("soop", folder, tmp_path, "statistics", "endpoints")
    truth = pd.read_csv(folder / "artery.tsv", sep="\t", float_precision="round_trip").set_index(
        "participant_id"
    )
    rows = measurements(results)
    volumes = rows[rows["endpoint"] == "infarct_volume"].set_index("participant_id")["value"]
    assert len(volumes) == 120
    assert (volumes * 1000 == truth.loc[volumes.index, "lesion_volume"]).all()
    shares = rows[rows["endpoint"] == "territory_fraction"].pivot_table(
        index="participant_id", columns="region", values="value"
    )
    regions = list(truth.columns[1:])
    assert len(regions) == 31
    assert (shares[regions] == truth.loc[shares.index, regions]).all().all()
    image = nib.load(results / "maps" / "infarct_frequency.nii.gz")
    counts = np.asanyarray(image.dataobj) * 120
    assert image.shape == (157, 189, 136)
    assert np.abs(counts - np.rint(counts)).max() < 1e-4
    table = pd.read_csv(results / "statistics" / "pharmacodynamics.tsv", sep="\t", na_values="n/a")
    people = pd.read_csv(folder / "participants.tsv", sep="\t").set_index("participant_id")["nihss"]
    both = pd.concat([volumes, pd.to_numeric(people, errors="coerce")], axis=1).dropna()
    expected = both["value"].rank().corr(both["nihss"].rank())
    assert table["estimate"][0] == pytest.approx(expected, abs=1e-12)
    assert table["n"][0] == len(both)


@pytest.mark.slow
def test_ads(tmp_path):
    """One acute stroke: segmented, and compared with a network's mask (which is no truth)."""
    folder = data_folder("stroke/ads_subject02")
    results = run("ads", folder, tmp_path)
    rows = measurements(results)
    volumes = rows[(rows["endpoint"] == "infarct_volume") & (rows["status"] == "ok")]
    by_source = volumes.set_index("source")["value"]
    assert by_source["DAGMNet"] == pytest.approx(31 * 1.2 * 1.2 * 5 / 1000, rel=0.1)
    assert 0.0 < by_source["pipeline"] < 5.0
    table = pd.read_csv(results / "statistics" / "overlap.tsv", sep="\t", na_values="n/a")
    score = table[(table["statistic"] == "dice") & (table["participant_id"] == "Subject02")]
    assert score["estimate"].iloc[0] > 0.3
    record = json.loads(next((results / "derivatives").glob("*/normalise.json")).read_text())
    assert record["status"] == "ok", record["reason"]


@pytest.mark.slow
def test_isles(tmp_path):
    """ISLES'22: ADC in 10^-3 mm2/s with negative values is recognised, converted and told."""
    results = run("isles", data_folder("stroke/isles22_case0001"), tmp_path)
    record = json.loads(next((results / "derivatives").glob("*/*/prepare.json")).read_text())
    adc = next(scan for scan in record["scans"] if scan["kind"] == "adc")
    output = " ".join(adc["notes"])
    assert adc["unit"] == "mm2/s" and "10^-3" in output and "negative" in output
    rows = measurements(results)
    value = rows[(rows["endpoint"] == "infarct_volume") & (rows["source"] == "pipeline")]
    assert value["status"].iloc[0] == "ok" and value["value"].iloc[0] > 0


@pytest.mark.slow
def test_glioma(tmp_path):
    """Five algorithms on one glioma: pairwise Dice 0.834 to 0.969; the consensus beside them."""
    results = run("glioma", data_folder("glioma/tcga_fg_6692"), tmp_path)
    table = pd.read_csv(results / "statistics" / "overlap.tsv", sep="\t", na_values="n/a")
    pairs = table[
        (table["analysis_id"] == "overlap_algorithms")
        & (table["statistic"] == "dice")
        & (table["participant_id"] == "TCGA-FG-6692")
    ]
    assert len(pairs) == 10
    assert pairs["estimate"].min() == pytest.approx(0.834, abs=0.001)
    assert pairs["estimate"].max() == pytest.approx(0.969, abs=0.001)
    fused = table[(table["analysis_id"] == "overlap_consensus") & (table["statistic"] == "dice")]
    assert fused["estimate"].iloc[0] > 0.97
    rows = measurements(results)
    assert {"whole_tumour_volume", "enhancing_volume", "oedema_volume"} <= set(
        rows.loc[(rows["source"] == "pipeline") & (rows["status"] == "ok"), "endpoint"]
    )
    found = pd.read_csv(results / "endpoints" / "features.tsv", sep="\t", na_values="n/a")
    shape = found[(found["series"] == "mask") & (found["feature"] == "morph_vol_approx")]
    by_source = shape.set_index("source")["value"] / 1000
    assert set(by_source.index) == {
        "hnfnetv1",
        "isen",
        "sanet0",
        "scan",
        "yixinmpl",
        "consensus:majority",
    }
    drawn = rows[(rows["endpoint"] == "enhancing_volume") & rows["source"].isin(by_source.index)]
    for source, value in drawn.set_index("source")["value"].items():
        assert by_source[source] == pytest.approx(value, rel=1e-6)
    assert found.groupby(["source", "series"]).size().min() > 20
    assert {"T1c", "FLAIR"} <= set(found["series"])
