"""Pulled plugs: whatever dies or is lost, running again gives what an undisturbed run gives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers import REPOSITORY
from workflow_runs import jobs, snakemake, tables_study

from corelab.provenance import ledger

pytestmark = pytest.mark.integration
PROFILE = ("--workflow-profile", str(REPOSITORY / "profiles" / "default"))
SNAKEFILE = ("--snakefile", str(REPOSITORY / "Snakefile"))


def manifest(folder):
    path = folder / "results" / "tables" / "provenance" / "manifest.json"
    return json.loads(path.read_text())["products"]


def run(folder, config, *more, **options):
    folder.mkdir(exist_ok=True)
    return snakemake(
        *SNAKEFILE, *PROFILE, "--configfile", str(config), *more, cwd=folder, **options
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of tables, computed once undisturbed with two cores."""
    folder = tmp_path_factory.mktemp("faults")
    config = tables_study(folder / "study")
    content = yaml.safe_load(config.read_text()) | {"results_dir": "results"}
    config.write_text(yaml.safe_dump(content))
    done = run(folder / "undisturbed", config)
    assert done.returncode == 0, done.stdout[-6000:]
    return folder, config, done.stdout


def test_the_run_tells_its_plan_and_its_end(study):
    folder, _, output = study
    assert "Jobs: " in output and "to do, 0 done" in output
    assert "Participants: 12 pass, 0 review, 0 fail, 0 excluded." in output
    whole = json.loads((folder / "undisturbed/results/tables/provenance/manifest.json").read_text())
    assert f"sha256 {whole['products_sha256']}" in output
    assert "jobs done" in output and "Finished jobid" not in output


def test_no_network_one_core_another_place_and_other_settings(study, monkeypatch):
    """The same bytes without any network, from another folder, locale, time zone and hash seed."""
    folder, config, _ = study
    alone = ["unshare", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # not allowed here; the rest still holds
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "SNAKEMAKE_PROFILE"}},
        "LC_ALL": "C",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "12345",
        "COLUMNS": "40",
    }
    work = folder / "another place"
    work.mkdir()
    done = subprocess.run(
        [
            *alone, sys.executable, "-m", "snakemake", *SNAKEFILE, *PROFILE, "--cores", "1",
            "--configfile", str(config),
        ],
        cwd=work, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert manifest(work) == manifest(folder / "undisturbed")


def test_killed_run_lost_memory_and_half_a_file(study):
    folder, config, _ = study
    work = folder / "killed"
    work.mkdir()
    results = work / "results" / "tables"
    head = subprocess.Popen(
        [
            sys.executable, "-m", "snakemake", *SNAKEFILE, *PROFILE, "--cores", "2",
            "--configfile", str(config),
        ],
        cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    table = results / "endpoints" / "measurements.tsv"
    end = time.monotonic() + 240
    while not table.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    # Only Snakemake dies; jobs at work live on, and the next run waits for them.
    head.send_signal(signal.SIGKILL)
    head.wait()
    assert table.is_file()
    # A second person starts a run in the same results from elsewhere.
    other = ledger.FolderLock(results)
    assert other.acquire() is None
    refused = run(work, config, "--nolock", "--rerun-incomplete")
    assert refused.returncode != 0 and "is writing into" in refused.stdout
    other._handle.close()
    # What Snakemake remembers is lost, and a table is cut in half.
    shutil.rmtree(work / ".snakemake")
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    output = run(work, config, "--", "status").stdout
    assert "jobs at work" in output
    done = run(work, config)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "are made again" in done.stdout
    assert manifest(work) == manifest(folder / "undisturbed")
    assert not list(results.rglob(".tmp-*"))


def test_every_table_damaged_and_memory_lost(study):
    folder, config, _ = study
    work = folder / "damaged"
    shutil.copytree(folder / "undisturbed", work)
    shutil.rmtree(work / ".snakemake")
    for kind in ("endpoints", "statistics"):
        victims = list((work / "results" / "tables" / kind).rglob("*.tsv"))
        assert len(victims) > 5
        for path in victims:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run(work, config)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "are made again" in done.stdout
    assert manifest(work) == manifest(folder / "undisturbed")
    assert (work / "results/tables/jobs/quarantine/endpoints/measurements.tsv").is_file()


def test_a_damaged_table_comes_back_though_all_is_made_from_it(study):
    folder, config, _ = study
    work = folder / "one damaged"
    shutil.copytree(folder / "undisturbed", work)
    shutil.rmtree(work / ".snakemake")
    lost = "results/tables/endpoints/flow.json"
    (work / lost).unlink()
    done = run(work, config, "--", "statistics")
    assert done.returncode == 0, done.stdout[-6000:]
    for name in (lost, "results/tables/endpoints/measurements.tsv"):
        assert (work / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
    assert jobs(done.stdout)["collect"] == 1
    # What came again changes no other job's inputs, and none of it is a failed job.
    assert "Nothing to be done" in run(work, config, "--", "statistics").stdout
    assert run(work, config, "--", "status").stdout.count("terminated unexpectedly") == 0


def test_random_kills_leave_the_same_products(tmp_path):
    """A short `make chaos`: three kills in a row, then the same bytes as undisturbed."""
    done = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "tests" / "chaos" / "chaos.py")),
            *("--kills", "3", "--row", "3", "--seed", "3", "--within", "4", "--minutes", "15"),
        ],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 manifests differ" in done.stdout
