"""Planning is quickened; the plan stays as it is."""

import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY
from workflow_runs import snakemake, write_study

PLAIN = """
import sys
import corelab.provenance.planning as planning
if sys.argv.pop(1) == "plain":
    planning.quicken = lambda: None
from snakemake.cli import main
main(sys.argv[1:])
"""


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


def asked(how, config, *options):
    done = subprocess.run(
        [
            *(sys.executable, "-c", PLAIN, how, "--cores", "4"),
            *("--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", str(config)),
            *options,
        ],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(REPOSITORY / "workflow/scripts"),
        },
    )
    return done.stdout


def planned(how, config):
    """Every job with its reason, and every file with its inputs and state; words sorted."""
    told = asked(how, config, "-n", "--quiet", "host").rsplit("Job stats:", 1)[0]
    told = re.sub(r"(?m)^\[.*\]$", "", told)
    jobs = re.split(r"(?m)^Job \d+: ", told)[1:]
    files = asked(how, config, "--detailed-summary").splitlines()
    return (
        sorted(" ".join(sorted(re.split(r"[\s,]+", job.strip()))) for job in jobs),
        sorted("\t".join(",".join(sorted(c.split(","))) for c in f.split("\t")) for f in files),
    )


def test_the_plan_stays_as_it_is(study):
    plain = planned("plain", study)
    assert len(plain[0]) == 42 and len(plain[1]) > 60
    assert planned("quickened", study) == plain


def test_the_plan_of_what_is_half_done_stays_too(study):
    """Files that are there, one of them newer than what was made from it."""
    folder = study.parent / "results" / "s" / "derivatives"
    for person in ("1", "2"):
        for visit in ("baseline", "day5"):
            for name in ("segment", "prepare"):  # the masks are older than their images
                path = folder / f"sub-{person}" / f"ses-{visit}" / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{name} {person} {visit}")
    plain = planned("plain", study)
    assert sum("Updated" in job for job in plain[0]) >= 4
    assert planned("quickened", study) == plain


def test_one_site_is_planned_alone(study):
    told = snakemake("-n", "--configfile", str(study), "--config", "site=b", "--", "site").stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", told, re.M))
    assert jobs["measure"] == "2" and jobs["normalise"] == "1"
    wrong = snakemake("-n", "--configfile", str(study), "--config", "site=c", "--", "site")
    assert wrong.returncode != 0 and "No participant is of the site c. Sites: a, b" in wrong.stdout
