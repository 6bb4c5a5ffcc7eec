"""A package with a toy of each kind in a whole run: from the config to the report, and reruns."""

import json

import nibabel as nib
import numpy as np
import pytest
from toy_package import write_package
from workflow_runs import jobs, snakemake, write_study

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FILES = {
    "prepare": "derivatives/sub-1/ses-v/prepare.json",
    "segment": "derivatives/sub-1/ses-v/segment.json",
    "perfuse": "derivatives/sub-1/ses-v/perfuse.json",
    "normalise": "derivatives/sub-1/normalise.json",
}
CONFIG = {
    "study": {"id": "toy"},
    "visits": {"order": ["v"], "baseline": "v"},
    "registration": {"preset": "testing", "backend": "toy_backend"},
    "brain_extraction": {"method": "toy_extractor"},
    "perfusion": {"core": {"engine": "toy_engine"}},
    "segmentation": {
        "external": [
            {"id": "toy", "kind": "toy_segmenter", "label": "infarct", "inputs": {"dwi": "d.nii"}}
        ]
    },
    "analyses": [{"id": "toy", "type": "toy_type", "toy_factor": 3}],
}


def save(folder, name, voxels, seconds=0.0):
    image = nib.Nifti1Image(np.asarray(voxels, np.float32), np.diag([6.0, 6.0, 6.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if seconds:
        image.header["pixdim"][4] = seconds
    path = folder / f"{name}.nii.gz"
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One participant, one visit: DWI, and a bolus that passes a head of 6 mm voxels."""
    folder = tmp_path_factory.mktemp("toy")
    packages = write_package(folder / "site")
    x = np.mgrid[:30, :36, :26] - np.reshape([14.5, 17.5, 12.5], (3, 1, 1, 1))
    head = ((x / np.reshape([11.0, 14.0, 10.0], (3, 1, 1, 1))) ** 2).sum(0) < 1
    noise = np.random.default_rng(3).normal(0, 1, head.shape)
    dwi = np.where(head, 200 + 5 * noise, 0.0).clip(0)
    dwi[8:12, 14:19, 11:15] *= 2.2
    t = 1.5 * np.arange(40)
    bolus = np.clip(t - 12, 0, None) ** 3 * np.exp(-np.clip(t - 12, 0, None) / 1.5)
    bolus /= bolus.max()
    series = np.where(head, 300 + noise, 0.0)[..., None] * np.exp(-0.4 * bolus)
    (folder / "aif.tsv").write_text(
        "time_s\tvalue\n" + "".join(f"{a:g}\t{b:.6f}\n" for a, b in zip(t, bolus, strict=True))
    )
    files = {
        "dwi": save(folder, "dwi", dwi),
        "dsc": save(folder, "dsc", series, 1.5),
        "aif": folder / "aif.tsv",
    }
    rows = [f"1|v|{kind}|{path}|0.03" for kind, path in files.items()]
    config = write_study(
        folder,
        dict(CONFIG),
        participants="participant_id\n1",
        scans="\n".join(["participant_id|visit|kind|path|echo_time_s", *rows]),
    )
    results = folder / "results" / "toy"
    target = str(results / "report" / "index.html")
    done = snakemake("--configfile", str(config), "--", target, packages=packages)
    assert done.returncode == 0, done.stdout[-8000:]
    return packages, config, results


def test_every_stage_used_its_toy(study):
    record = {name: json.loads((study[2] / path).read_text()) for name, path in FILES.items()}
    assert record["prepare"]["brain_mask_quality"]["g1"]["method"] == "toy_extractor"
    assert any(mask["source"] == "pipeline:toy" for mask in record["segment"]["masks"])
    core = next(mask for mask in record["perfuse"]["masks"] if mask["source"] == "pipeline")
    assert core["status"] == "ok" and core["parameters"]["engine"] == "toy_engine"
    # The toy's identity is no fit to the template, and the gate says so.
    assert record["normalise"]["settings"]["backend"] == "toy_backend"
    assert record["normalise"]["status"] == "failed"
    table = (study[2] / "statistics" / "by_analysis" / "toy.tsv").read_text()
    assert "toy_ratio" in table


def test_the_report_shows_the_analysis_and_the_version_of_the_package(study):
    page = (study[2] / "report" / "index.html").read_text()
    assert "Toy analysis" in page and "Toy ratio" in page
    for name in ("report/methods.html", "submission/sop.md", "provenance/trace.tsv"):
        assert "corelab-toy" in (study[2] / name).read_text()


def planned(study):
    """Jobs of a dry run by rule."""
    packages, config, results = study
    target = str(results / "report" / "index.html")
    return jobs(
        snakemake("-n", "--configfile", str(config), "--", target, packages=packages).stdout
    )


def test_an_edit_of_the_package_reruns_the_rules_that_use_it(study):
    assert planned(study) == {}
    images = {"prepare", "segment", "perfuse", "normalise", "measure", "quality_figures"}
    with (study[0] / "toy_analysis.py").open("a") as file:
        file.write("\n# edited\n")
    found = set(planned(study))
    assert {"analyse", "statistics_tables", "report", "submission"} <= found
    assert not images & found
    with (study[0] / "toy_corelab.py").open("a") as file:
        file.write("\n# edited\n")
    assert images <= set(planned(study))
