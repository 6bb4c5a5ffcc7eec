"""Planning a part of a study."""

import re

import pytest
from workflow_runs import snakemake, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planning")
    rows = ["participant_id|visit|kind|path"]
    for person in ("1", "2"):
        for visit in ("baseline", "day5"):
            for kind in ("dwi", "adc", "ctp"):
                path = folder / f"{person}_{visit}_{kind}.nii.gz"
                path.write_bytes(b"not read while jobs are planned")
                rows.append(f"{person}|{visit}|{kind}|{path}")
    return write_study(
        folder,
        {"visits": {"order": ["baseline", "day5"], "baseline": "baseline"}},
        participants="participant_id|site\n1|a\n2|b",
        scans="\n".join(rows),
    )


def test_one_site_is_planned_alone(study):
    output = snakemake("-n", "--configfile", str(study), "--config", "site=b", "--", "site").stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    assert jobs["prepare"] == "2" and jobs["measure"] == "1" and jobs["normalise"] == "1"
    wrong = snakemake("-n", "--configfile", str(study), "--config", "site=c", "--", "site")
    assert wrong.returncode != 0 and "No participant is of the site c. Sites: a, b" in wrong.stdout
