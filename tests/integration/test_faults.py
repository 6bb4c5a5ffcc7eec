"""Pulled plugs: whatever dies or is lost, running again gives what an undisturbed run gives."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import workflow_runs
import yaml
from helpers import REPOSITORY
from workflow_runs import jobs, snakemake, tables_study

from corelab.provenance import ledger

pytestmark = pytest.mark.integration
PROFILE = ("--workflow-profile", str(REPOSITORY / "profiles" / "default"))
SNAKEFILE = ("--snakefile", str(REPOSITORY / "Snakefile"))


def products(folder):
    """Product -> SHA-256, from the manifest of a run."""
    path = folder / "results" / "tables" / "provenance" / "manifest.json"
    return json.loads(path.read_text())["products"]


def run(folder, config, *more):
    folder.mkdir(exist_ok=True)
    return snakemake(*SNAKEFILE, *PROFILE, "--configfile", str(config), *more, cwd=folder)


def process(log, folder, config, *before, cores=2, **environment):
    """Run in a process started anew, maybe by a program before it; not waited for."""
    return subprocess.Popen(
        [
            *before, sys.executable, "-m", "snakemake", *SNAKEFILE, *PROFILE,
            "--cores", str(cores), "--configfile", str(config),
        ],
        cwd=folder, env=workflow_runs.environment() | environment, start_new_session=True,
        stdout=log.open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study of tables whose run is killed, loses its memory and half a file, and goes on.

    It goes on without any network, on one core, with another locale, time zone and hash seed.
    """
    folder = tmp_path_factory.mktemp("faults")
    config = tables_study(folder / "study")
    content = yaml.safe_load(config.read_text()) | {"results_dir": "results"}
    config.write_text(yaml.safe_dump(content))
    work = folder / "another place"
    work.mkdir()
    results = work / "results" / "tables"
    head = process(folder / "killed.log", work, config)
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
    other._handle.close()
    # What Snakemake remembers is lost, and a table is cut in half.
    shutil.rmtree(work / ".snakemake")
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    status = run(work, config, "--", "status").stdout
    alone = ["unshare", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # not allowed here; the rest still holds
    log = folder / "again.log"
    again = process(
        log, work, config, *alone, cores=1, LC_ALL="C", TZ="Asia/Kathmandu",
        PYTHONHASHSEED="12345", COLUMNS="40",
    ).wait()  # fmt: skip
    output = log.read_text()
    assert again == 0, output[-6000:]
    return SimpleNamespace(work=work, config=config, refused=refused, status=status, output=output)


def test_the_run_tells_its_plan_and_its_end(tables_run):
    output = tables_run.log
    assert "Jobs: " in output and "to do, 0 done" in output
    assert "Participants: 12 pass, 0 review, 0 fail, 0 excluded." in output
    assert f"sha256 {json.loads(tables_run.manifest)['products_sha256']}" in output
    assert "jobs done" in output and "Finished jobid" not in output


def test_two_runs_at_once_in_the_same_results_are_refused(killed):
    assert killed.refused.returncode != 0 and "is writing into" in killed.refused.stdout


def test_killed_run_lost_memory_and_half_a_file_under_other_settings(killed, tables_run):
    """The same bytes as those of an undisturbed run with a network and other settings."""
    assert "jobs at work" in killed.status
    assert "are made again" in killed.output
    assert products(killed.work) == json.loads(tables_run.manifest)["products"]
    assert not list((killed.work / "results" / "tables").rglob(".tmp-*"))


@pytest.fixture
def finished(killed, tmp_path):
    """A copy of the finished run without Snakemake's memory."""
    work = tmp_path / "work"
    shutil.copytree(killed.work, work, ignore=shutil.ignore_patterns(".snakemake"))
    return work


def test_every_table_damaged_and_memory_lost(killed, finished):
    folder, before = finished / "results" / "tables", products(killed.work)
    names = [name for name in before if name.startswith(("endpoints/", "statistics/"))]
    victims = [folder / name for name in names if name.endswith(".tsv")]
    assert len(victims) > 15
    for path in victims:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    targets = [path.relative_to(finished).as_posix() for path in victims]
    done = run(finished, killed.config, "--", *targets)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "are made again" in done.stdout
    for name in names:
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == before[name]["sha256"], name
    assert (folder / "jobs/quarantine/endpoints/measurements.tsv").is_file()


def test_a_damaged_table_comes_back_though_all_is_made_from_it(killed, finished):
    work, config = finished, killed.config
    lost = "results/tables/endpoints/flow.json"
    (work / lost).unlink()
    done = run(work, config, "--", "statistics")
    assert done.returncode == 0, done.stdout[-6000:]
    for name in (lost, "results/tables/endpoints/measurements.tsv"):
        assert (work / name).read_bytes() == (killed.work / name).read_bytes()
    assert jobs(done.stdout)["collect"] == 1
    # What came again changes no other job's inputs, and none of it is a failed job.
    assert "Nothing to be done" in run(work, config, "--", "statistics").stdout
    assert run(work, config, "--", "status").stdout.count("terminated unexpectedly") == 0


def test_random_kills_leave_the_same_products(tmp_path):
    """A short `make chaos`: three kills in a row, then the same bytes as undisturbed."""
    done = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "tests" / "chaos" / "chaos.py")),
            *("--kills", "3", "--row", "3", "--seed", "3", "--within", "3", "--minutes", "15"),
            *("--target", "endpoints"),
        ],
        env=workflow_runs.environment() | {"TMPDIR": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 manifests differ" in done.stdout
