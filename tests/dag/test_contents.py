"""What runs again goes by the content of inputs, whatever their times; exactly, from dry runs."""

import json
import os
import re
from pathlib import Path

import pytest
from workflow_runs import jobs, snakemake, write_study

from corelab.provenance import ledger
from corelab.provenance.contents import used

VISIT = {"prepare": 1, "segment": 1, "measure": 1, "normalise": 1, "quality_figures": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two participants at two visits with everything done: empty products, and the ledger."""
    folder = tmp_path_factory.mktemp("contents")
    rows = ["participant_id|visit|kind|path"]
    for person in ("1", "2"):
        for visit in ("baseline", "day5"):
            scan = folder / f"{person}_{visit}_dwi.nii.gz"
            scan.write_bytes(f"scan of {person} {visit}".encode())
            rows.append(f"{person}|{visit}|dwi|{scan}")
    series = folder / "1_day5_dicom"
    series.mkdir()
    for number in range(3):
        (series / f"{number}.dcm").write_bytes(bytes([number]))
    rows.append(f"1|day5|dicom|{series}")
    config = write_study(
        folder,
        {"visits": {"order": ["baseline", "day5"], "baseline": "baseline"}},
        participants="participant_id\n1\n2",
        scans="\n".join(rows),
    )
    output = snakemake("--detailed-summary", "--configfile", str(config)).stdout
    results = folder / "results" / "s"
    made = re.findall(rf"(?m)^({re.escape(str(results))}\S+)\t", output)
    assert len(made) > 60
    for product in map(Path, made):
        product.parent.mkdir(parents=True, exist_ok=True)
        product.touch() if product.suffix else product.mkdir(exist_ok=True)
        os.utime(product, (2e9, 2e9))
    for person in ("1", "2"):
        for visit in ("baseline", "day5"):
            record = results / "derivatives" / f"sub-{person}" / f"ses-{visit}" / "prepare.json"
            read = [str(folder / f"{person}_{visit}_dwi.nii.gz")]
            read += [str(series)] * (person == "1" and visit == "day5")
            place = results / "jobs" / "prepare" / f"sub-{person}_ses-{visit}.json"
            left = {str(record): ledger.Left("", 0)}
            entry = ledger.Entry("done", "prepare", outputs=left, inputs=used(read, results))
            entry.write(place, durable=False)
    return folder, config, results


def planned(study):
    output = snakemake("-n", "--configfile", str(study[1]))
    assert output.returncode == 0, output.stdout[-3000:]
    return {} if "Nothing to be done" in output.stdout else jobs(output.stdout)


def replace(path, content, *, earlier_s=0.0):
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, (times.st_atime - earlier_s, times.st_mtime - earlier_s))


def test_nothing_is_to_do(study):
    assert planned(study) == {}


@pytest.mark.parametrize("earlier_s", [0.0, 864_000.0])
def test_other_content_with_the_same_or_an_older_time_reruns_that_visit(study, earlier_s):
    scan = study[0] / "2_day5_dwi.nii.gz"
    kept = scan.read_bytes()
    replace(scan, kept[::-1], earlier_s=earlier_s)
    try:
        found = planned(study)
        assert {name: found.get(name) for name in VISIT} == VISIT
        assert found["check_inputs"] == 1  # it reads the headers
        # The fit of the subject is made again, and with it what is measured in MNI152.
        alone = str(study[2] / "derivatives" / "sub-2" / "ses-day5" / "segment.json")
        output = snakemake("-n", "--configfile", str(study[1]), "--", alone)
        assert jobs(output.stdout) == {"prepare": 1, "segment": 1}
        other = str(study[2] / "derivatives" / "sub-1" / "ses-day5" / "segment.json")
        assert (
            "Nothing to be done"
            in snakemake("-n", "--configfile", str(study[1]), "--", other).stdout
        )
    finally:
        replace(scan, kept)
    assert planned(study) == {}


def test_one_slice_of_a_dicom_folder_reruns_that_visit(study):
    file = study[0] / "1_day5_dicom" / "1.dcm"
    kept = file.read_bytes()
    replace(file, b"9", earlier_s=864_000.0)
    try:
        found = planned(study)
        assert {name: found.get(name) for name in VISIT} == VISIT
    finally:
        replace(file, kept)
    assert planned(study) == {}


def test_touching_and_copying_reruns_nothing(study):
    later = 4e9
    for path in (*study[0].glob("*.nii.gz"), *study[0].glob("*dicom"), *study[0].glob("*/*.dcm")):
        os.utime(path, (later, later))
    assert planned(study) == {}
    scan = study[0] / "1_baseline_dwi.nii.gz"
    content = scan.read_bytes()
    scan.unlink()
    scan.write_bytes(content)
    assert planned(study) == {}


def test_a_job_that_failed_runs_again_also_where_all_that_follows_is_there(study):
    place = study[2] / "jobs" / "prepare" / "sub-1_ses-baseline.json"
    kept = place.read_text()
    record = study[2] / "derivatives" / "sub-1" / "ses-baseline" / "prepare.json"
    place.write_text(json.dumps({"state": "failed", "outputs": [str(record)], "cause": "memory"}))
    record.unlink()
    try:
        assert planned(study)["prepare"] == 1
    finally:
        place.write_text(kept)
        record.touch()
        os.utime(record, (2e9, 2e9))
    assert planned(study) == {}
