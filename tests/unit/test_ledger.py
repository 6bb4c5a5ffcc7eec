"""The ledger of jobs: what is known of a job whatever became of it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import REPOSITORY

from corelab.provenance import ledger
from corelab.provenance.products import atomic_path, write_text
from corelab.provenance.progress import scan_failures

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow" / "scripts")}
JOB = """
import sys, time, tempfile, pathlib
from types import SimpleNamespace
from corelab.provenance.job import UserError, job
from corelab.provenance.progress import scan_failures
from corelab.provenance.products import atomic_path, write_text
class Cards(dict):
    pass
study = pathlib.Path(sys.argv[1])
out = study / "endpoints" / "a.tsv"
with job(SimpleNamespace(threads=1, rule="measure", log=[str(study / "logs/measure/sub-1_ses-a.log")],
         output=[str(out)], wildcards=Cards(subject="sub-1", session="ses-a"),
         params=SimpleNamespace(code="c1"))):
    {what}
"""


def run_job(study, what, **options):
    return subprocess.Popen(
        [sys.executable, "-c", JOB.format(what=what), str(study)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def entry(study):
    return next(iter(ledger.entries(study)))[1]


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_a_done_job_leaves_the_hash_of_its_outputs(tmp_path):
    assert run_job(tmp_path, "write_text('x', out)").wait() == 0
    found = entry(tmp_path)
    assert found.state == "done" and found.code == "c1"
    digest = ledger.file_sha256(tmp_path / "endpoints" / "a.tsv")
    assert list(found.outputs.values()) == [ledger.Left(digest, 1)]
    assert ledger.failures(tmp_path) == []
    assert ledger.corrupted_outputs(tmp_path, {"measure": "c1"}) == []
    # Code that changed while Snakemake's memory was lost is seen too.
    assert len(ledger.corrupted_outputs(tmp_path, {"measure": "c2"})) == 1
    (tmp_path / "endpoints" / "a.tsv").write_text("")
    wrong = ledger.corrupted_outputs(tmp_path, {"measure": "c1"})
    assert wrong == [str(tmp_path / "endpoints" / "a.tsv")]
    ledger.quarantine(wrong, tmp_path)
    assert not (tmp_path / "endpoints" / "a.tsv").exists()


def test_what_is_never_made_anew_is_never_set_aside(tmp_path):
    """Another secret would be other pseudonyms; without the lock there is nothing to hold against."""
    for name in ("key.tsv", "sample.tsv", "lock.json"):
        path = tmp_path / "reading" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("made")
        place = ledger.Place(tmp_path, "read_packages", name)
        with ledger.recorded(place, outputs=[str(path)], code="old"):
            pass
    wrong = ledger.corrupted_outputs(tmp_path, {"read_packages": "new"})
    assert wrong == [str(tmp_path / "reading" / "sample.tsv")]


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("raise UserError('mend the sheet')", "mend the sheet"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failed_job_leaves_its_cause(tmp_path, what, cause):
    assert run_job(tmp_path, what).wait() == 1
    (one,) = ledger.failures(tmp_path)
    assert (one.subject, one.visit, one.step, one.cause) == ("sub-1", "ses-a", "measure", cause)
    assert one.log.endswith("logs/measure/sub-1_ses-a.log")


def test_a_damaged_record_is_told_with_all_others(tmp_path):
    folder = tmp_path / "derivatives" / "sub-1" / "ses-a"
    folder.mkdir(parents=True)
    (folder / "prepare.json").write_text('{"scans": [')
    whole = {"participant_id": "1", "visit": "a", "status": "failed", "reason": "no tissue"}
    (folder / "segment.json").write_text(json.dumps(whole))
    stages = {stage: [f"derivatives/sub-1/ses-a/{stage}.json"] for stage in ("prepare", "segment")}
    damaged, other = scan_failures(tmp_path, stages)
    assert (damaged.subject, damaged.visit, damaged.step) == ("sub-1", "ses-a", "prepare")
    assert "damaged" in damaged.cause and damaged.log.endswith("logs/prepare/sub-1_ses-a.log")
    assert (other.subject, other.cause) == ("1", "no tissue")


def test_a_killed_job_is_known_and_its_rubbish_is_cleared(tmp_path):
    started = tmp_path / "endpoints"
    what = "temporary = atomic_path(out).__enter__(); temporary.write_text('half'); time.sleep(60)"
    job = run_job(tmp_path, what)
    wait_until(lambda: started.is_dir() and list(started.glob(".tmp-*")))
    running = entry(tmp_path)
    assert running.alive
    assert Path(running.scratch).stat().st_mode & 0o777 == 0o700
    job.kill()
    job.wait()
    assert not running.alive
    (one,) = ledger.failures(tmp_path)
    assert "killed" in one.cause
    assert ledger.clear_leftovers(tmp_path) == 2
    assert not list(started.iterdir()) and not Path(running.scratch).exists()


def test_a_terminated_job_cleans_up_itself(tmp_path):
    what = "context = atomic_path(out)\n    with context as t: t.write_text('half'); time.sleep(60)"
    job = run_job(tmp_path, what)
    wait_until(lambda: list(tmp_path.glob("endpoints/.tmp-*")))
    scratch = entry(tmp_path).scratch
    job.send_signal(signal.SIGTERM)
    assert job.wait() == 1
    assert not list((tmp_path / "endpoints").iterdir()) and not Path(scratch).exists()
    assert "signal 15" in ledger.failures(tmp_path)[0].cause


def test_the_next_run_waits_for_a_job_that_lives_on(tmp_path):
    job = run_job(tmp_path, "time.sleep(1.5)")
    wait_until(lambda: list((tmp_path / "jobs").rglob("*.json")))
    messages = []
    start = time.monotonic()
    assert ledger.wait_for_others(tmp_path, messages.append, poll_s=0.05) == 1
    assert time.monotonic() - start > 0.3 and f"kill {job.pid}" in messages[0]
    assert job.wait() == 0
    assert ledger.wait_for_others(tmp_path, messages.append) == 0


def test_a_number_of_a_process_that_was_given_again_is_not_the_job(tmp_path):
    mine = ledger.Entry("running", pid=os.getpid(), host=ledger.socket.gethostname())
    assert replace(mine, started=ledger._started(os.getpid())).alive
    assert not replace(mine, started="1").alive


def test_two_runs_never_have_one_folder(tmp_path):
    first, second = ledger.FolderLock(tmp_path), ledger.FolderLock(tmp_path)
    assert first.acquire() is None
    assert f"process {os.getpid()}" in second.acquire()


def test_two_writers_never_mix(tmp_path):
    """Both write the same product again and again; a reader sees one or the other, whole."""
    program = (
        "import sys\nfrom corelab.provenance.products import write_text\n"
        "for _ in range(60): write_text(sys.argv[1] * 200_000, sys.argv[2])"
    )
    target = tmp_path / "product.tsv"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, letter, str(target)], env=ENVIRONMENT)
        for letter in "ab"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            text = target.read_text()
            assert text in ("a" * 200_000, "b" * 200_000)
            seen.add(text[0])
    assert all(writer.wait() == 0 for writer in writers)
    assert [path.name for path in tmp_path.iterdir()] == ["product.tsv"]


def test_a_full_disk_leaves_the_old_product(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        write_text("old", mount / "a.tsv")
        with pytest.raises(OSError) as error:
            write_text("x" * 4_000_000, mount / "a.tsv")
        assert error.value.errno == errno.ENOSPC
        assert (mount / "a.tsv").read_text() == "old"
        assert [path.name for path in mount.iterdir()] == ["a.tsv"]
        # The ledger cannot be written either; the job still ends with an exit code and cleans up.
        (mount / "filler").write_bytes(
            b"x" * (os.statvfs(mount).f_bavail * os.statvfs(mount).f_bsize)
        )
        job = run_job(mount, "write_text('x' * 4_000_000, out)")
        assert job.wait() != 0 and not list(mount.glob("endpoints/*"))
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        with pytest.raises(OSError) as error, atomic_path(mount / "a.tsv") as temporary:
            temporary.write_text("new")
        assert error.value.errno == errno.EROFS
        assert (mount / "a.tsv").read_text() == "old"
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_file_that_no_rule_declares_is_held_against_its_job_too(tmp_path):
    """A table's dictionary is written beside it; half of it sets the table aside."""
    what = "write_text('x', out); write_text('{}', out.with_suffix('.json'))"
    assert run_job(tmp_path, what).wait() == 0
    table = tmp_path / "endpoints" / "a.tsv"
    assert list(entry(tmp_path).beside) == [str(table.with_suffix(".json"))]
    assert ledger.corrupted_outputs(tmp_path, {}) == []
    table.with_suffix(".json").write_text("{")
    assert ledger.corrupted_outputs(tmp_path, {}) == [str(table)]
    table.with_suffix(".json").unlink()
    assert ledger.corrupted_outputs(tmp_path, {}) == [str(table)]


def test_files_of_the_future_are_brought_back(tmp_path):
    assert run_job(tmp_path, "write_text('x', out)").wait() == 0
    table = tmp_path / "endpoints" / "a.tsv"
    later = time.time() + 3600
    os.utime(table, (later, later))
    assert ledger.clamp_future_mtimes(tmp_path) == 0, "nothing tells that the clock went back"
    os.utime(tmp_path / "jobs" / "measure", (later, later))
    assert ledger.clamp_future_mtimes(tmp_path) == 1
    assert table.stat().st_mtime <= time.time()
    assert ledger.clamp_future_mtimes(tmp_path) == 0


def test_an_entry_is_read_whatever_another_version_or_a_crash_left(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"state": "failed", "outputs": ["x.tsv"], "cause": "memory", "later": 1}')
    entry = ledger.Entry.read(path)
    assert (entry.state, dict(entry.outputs), entry.cause) == ("failed", {"x.tsv": None}, "memory")
    left = {"x.tsv": ledger.Left("00", 3)}
    done = ledger.Entry("done", "collect", "all", outputs=left, beside=left)
    done.write(path, durable=False)
    assert ledger.Entry.read(path) == done
    for damaged in ('{"state": "do', '{"state": "done", "outputs": {"x": {"size": 1}}}', "[]"):
        path.write_text(damaged)
        assert ledger.Entry.read(path) is None
