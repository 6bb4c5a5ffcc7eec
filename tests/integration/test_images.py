"""The path of images, end to end, on a coarse simulated trial."""

import gzip
import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from workflow_runs import snakemake

from corelab.phantom.design import TrialSpec
from corelab.phantom.trial import write_sheets

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three participants with coarse scans; the sheets name them, the workflow simulates them."""
    folder = tmp_path_factory.mktemp("images")
    write_sheets(TrialSpec.testing(), folder)
    scans = pd.read_csv(folder / "scans.tsv", sep="\t", dtype=str, keep_default_na=False)
    # This visit has nothing that the others have not.
    again = (scans["participant_id"] == "002") & (scans["visit"] == "baseline")
    scans[~again].to_csv(folder / "scans.tsv", sep="\t", index=False)
    config = {
        "study": {"id": "coarse"},
        "results_dir": str(folder / "results"),
        "inputs": {
            name: str(folder / f"{name}.tsv") for name in ("participants", "scans", "reads")
        },
        "phantom": {"trial": "stroke", "flavour": "testing"},
        "visits": {"order": ["baseline", "day5", "day90"], "baseline": "baseline"},
        "registration": {"preset": "testing"},
        "analyses": [
            {
                "id": "contours",
                "type": "overlap",
                "label": "infarct",
                "sources": ["pipeline", "reader-1", "reader-2"],
            },
        ],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake("--configfile", str(path))
    assert done.returncode == 0, done.stdout[-8000:]
    return folder, path


@pytest.fixture(scope="module")
def rows(study):
    table = pd.read_csv(
        study[0] / "results" / "coarse" / "endpoints" / "measurements.tsv",
        sep="\t",
        dtype={"participant_id": str},
        na_values="n/a",
        keep_default_na=False,
    )
    return table


def test_every_stage_gave_its_endpoint(rows):
    pipeline = rows[
        (rows["source"] == "pipeline") & (rows["status"] == "ok") & (rows["region"] == "all")
    ]
    assert {
        "infarct_volume",
        "core_volume",
        "hypoperfused_volume",
        "penumbra_volume",
        "infarct_growth",
    } <= set(pipeline["endpoint"])
    # Only a ghost core is a difference of volumes, and may be negative.
    volumes = pipeline["endpoint"].str.endswith("_volume") & (
        pipeline["endpoint"] != "ghost_core_volume"
    )
    assert (pipeline.loc[volumes, "value"] >= 0).all()


def test_volumes_are_near_the_truth(study, rows):
    truth = pd.read_csv(
        study[0] / "results" / "coarse" / "phantom" / "truth.tsv",
        sep="\t",
        dtype={"participant_id": str},
        na_values="n/a",
        keep_default_na=False,
    )
    true = truth[(truth["endpoint"] == "infarct_volume") & (truth["kind"] == "dwi")]
    found = rows[(rows["endpoint"] == "infarct_volume") & (rows["source"] == "pipeline")]
    both = true.merge(found, on=["participant_id", "visit"], suffixes=("_true", "_found"))
    both = both.dropna(subset=["value_found"])
    assert len(both) == 4  # every visit with scans
    difference = (both["value_found"] - both["value_true"]).abs()
    # Coarse voxels (2.5 x 2.5 x 6 mm): twice the tolerance of the full trial.
    assert (difference <= np.maximum(2.0, 0.2 * both["value_true"])).all(), both[
        ["participant_id", "visit", "value_true", "value_found"]
    ]


def test_products_have_sidecars_with_their_hash(study):
    folder = study[0] / "results" / "coarse" / "derivatives"
    masks = sorted(folder.rglob("*_mask.nii.gz"))
    assert masks
    for mask in masks:
        sidecar = json.loads(mask.with_name(mask.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["sha256"] == hashlib.sha256(mask.read_bytes()).hexdigest(), mask


def test_pages_and_maps_are_there(study):
    results = study[0] / "results" / "coarse"
    assert (results / "report" / "index.html").stat().st_size < 6e6
    assert (results / "maps" / "infarct_frequency.nii.gz").is_file()
    sidecar = json.loads((results / "maps" / "infarct_frequency.json").read_text())
    assert sidecar["n_mapped"] == 3


def test_second_run_has_nothing_to_do(study):
    assert "Nothing to be done" in snakemake("-n", "--configfile", str(study[1])).stdout


def test_another_folder_and_another_number_of_cores_give_the_same_bytes(study, tmp_path):
    """All stages of one participant again. Tables are compared in test_faults.py."""
    config = yaml.safe_load(study[1].read_text())
    source = study[0] / "results" / "coarse"
    config["results_dir"] = str(tmp_path / "elsewhere")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    results = tmp_path / "elsewhere" / "coarse"
    shutil.copytree(source / "phantom", results / "phantom")
    target = results / "derivatives" / "sub-002" / "measure.json"
    # In processes of their own: another hash seed, and nothing loaded before.
    done = snakemake("--configfile", str(path), "--", str(target), cores=1, anew=True)
    assert done.returncode == 0, done.stdout[-4000:]
    first = json.loads((source / "provenance" / "manifest.json").read_text())["products"]
    made = {
        file.relative_to(results).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (results / "derivatives" / "sub-002").rglob("*")
        if file.is_file()
    }
    ends = ("prepare.json", "segment.json", "normalise.json", "measure.json", "_mask.nii.gz")
    assert all(any(name.endswith(e) for name in made) for e in ends)
    assert {name for name, content in made.items() if first[name]["sha256"] != content} == set()


@pytest.mark.slow
def test_one_bad_scan_does_not_stop_the_others(study, tmp_path):
    """A truncated scan becomes a row with its reason; everybody else is measured."""
    source = study[0] / "results" / "coarse" / "phantom"
    data = tmp_path / "data"
    shutil.copytree(source, data)
    bad = next(data.rglob("sub-001_ses-baseline_adc.nii.gz"))
    raw = gzip.decompress(bad.read_bytes())
    bad.write_bytes(gzip.compress(raw[: len(raw) // 2]))
    config = yaml.safe_load(study[1].read_text())
    config |= {"phantom": None, "results_dir": str(tmp_path / "results"), "analyses": []}
    config["inputs"] |= {"data_dir": str(data)}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake("--configfile", str(path), "--", "endpoints")
    assert done.returncode == 0, done.stdout[-6000:]
    table = pd.read_csv(
        tmp_path / "results" / "coarse" / "endpoints" / "measurements.tsv",
        sep="\t",
        dtype={"participant_id": str},
        na_values="n/a",
        keep_default_na=False,
    )
    flow = (tmp_path / "results" / "coarse" / "endpoints" / "flow.tsv").read_text()
    assert "truncated" in flow or "cut" in flow or "damaged" in flow
    others = table[
        (table["participant_id"] != "001")
        & (table["endpoint"] == "infarct_volume")
        & (table["source"] == "pipeline")
        & (table["visit"] == "baseline")
    ]
    assert (others["status"] == "ok").all() and len(others) == 1
