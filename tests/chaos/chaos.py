"""Random kills of a run, its jobs and its memory; then the same manifest: `make chaos`.

A small study of tables is computed once undisturbed. Then lives of the same study are cut short at
random moments, several in a row, until the kills are used up; each time the next run goes on from
what it finds. After every such row the study is finished and the hash over all its products
compared. What is random comes from a seed, the moments from the machine. A run that ended before it
was hit counts as no kill.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "workflow" / "scripts")]

import yaml  # noqa: E402
from workflow_runs import tables_study  # noqa: E402

from corelab.provenance.ledger import entries  # noqa: E402

KINDS = ("job", "head", "both", "terminate", "memory", "clock", "half", "product")


#: What is no product: it tells of the runs, which differ.
TOLD = {"logs", "benchmarks", "jobs"}


def small_study(folder: Path) -> Path:
    """The tables study with one analysis, so that a life costs seconds."""
    path = tables_study(folder)
    config = yaml.safe_load(path.read_text())
    config["analyses"] = [a for a in config["analyses"] if a["type"] == "correlation"]
    path.write_text(yaml.safe_dump(config))
    return path


class Study:
    """A study in a working directory of its own."""

    def __init__(self, folder: Path, config: Path, target: str = "statistics") -> None:
        self.work, self.config, self.target = folder, config, target
        folder.mkdir(parents=True)
        self.results = folder / "results" / "tables"

    def start(self) -> subprocess.Popen[bytes]:
        """A run in a process group of its own."""
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"),
            "--workflow-profile", str(REPOSITORY / "profiles" / "default"),
            "--cores", "2", "--rerun-incomplete", "--configfile", str(self.config),
            "--config", "results_dir=results", "--", self.target,
        ]  # fmt: skip
        with open(self.work / "run.log", "ab") as log:
            return subprocess.Popen(command, cwd=self.work, stdout=log, stderr=log, process_group=0)

    def jobs(self) -> list[int]:
        """Processes of the jobs at work."""
        found = [entry for _, entry in entries(self.results) if entry.state == "running"]
        return [entry.pid for entry in found]

    def finish(self) -> str:
        """Run to the end; the hash of all products."""
        for _ in range(3):  # a job killed a moment ago makes one run fail, not two
            if self.start().wait() == 0:
                break
        else:
            raise SystemExit((self.work / "run.log").read_text()[-6000:])
        left = [p.name for p in self.results.rglob(".tmp-*")]
        if left:
            raise SystemExit(f"temporary files were left in {self.results}: {left}")
        return self.digest()

    def products(self) -> list[Path]:
        """All products, sorted."""
        return sorted(
            path
            for path in self.results.rglob("*")
            if path.is_file() and path.relative_to(self.results).parts[0] not in TOLD
        )

    def digest(self) -> str:
        """SHA-256 over names and bytes of all products."""
        whole = hashlib.sha256()
        for path in self.products():
            whole.update(f"{path.relative_to(self.results).as_posix()}\0".encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


def _kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def disturb(study: Study, kind: str, chance: random.Random, at_most_s: float) -> bool:
    """Start a run and cut it short, and hurt what it left; whether it was still at work."""
    head = study.start()
    output = study.work / "run.log"
    offset = output.stat().st_size
    # Planning takes seconds in which nothing is written; the interesting part begins with the jobs.
    for _ in range(6000):
        if head.poll() is not None or b"Jobs: " in output.read_bytes()[offset:]:
            break
        time.sleep(0.05)
    time.sleep(chance.uniform(0.0, at_most_s))
    at_work = head.poll() is None
    jobs = study.jobs()
    if kind == "job" and jobs:
        _kill(chance.choice(jobs))
        time.sleep(chance.uniform(0.0, 1.0))
        os.killpg(head.pid, signal.SIGKILL) if head.poll() is None else None
    elif kind == "head":
        _kill(head.pid)  # its jobs live on; the next run waits for them
    elif kind == "terminate":
        _kill(head.pid, signal.SIGTERM)
    elif head.poll() is None:
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    files = (
        sorted(p for p in study.results.rglob("*") if p.is_file()) if study.results.is_dir() else []
    )
    products = [
        p
        for p in study.products()
        if p.relative_to(study.results).parts[0] in {"endpoints", "statistics", "report"}
    ]
    if kind in {"memory", "half", "product"}:
        shutil.rmtree(study.work / ".snakemake", ignore_errors=True)
    if kind == "half" and products:
        victim = chance.choice(products)
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    if kind == "product" and products:
        chance.choice(products).unlink()
    if kind == "clock":
        # Each file by itself, which is worse than a clock that goes back; and their folders.
        for path in [*files, *(p for p in study.results.rglob("*") if p.is_dir())]:
            moment = path.stat().st_mtime - chance.choice((0, 86400, -3600))
            os.utime(path, (moment, moment))
    return at_work


def main() -> int:
    """Kill as often as asked; 0 if all were reached and nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--row", type=int, default=5, help="kills before the study is finished")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", default="statistics", help="all: report and submission too")
    parser.add_argument("--within", type=float, default=6.0, help="s from the first job to a kill")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this time")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="corelab-chaos-") as name:
        folder = Path(name)
        config = small_study(folder / "study")
        expected = Study(folder / "undisturbed", config, arguments.target).finish()
        print(f"undisturbed: {expected[:16]} in {time.monotonic() - start:.0f} s", flush=True)
        kills = different = number = 0
        while kills < arguments.kills and time.monotonic() - start < 60 * arguments.minutes:
            number += 1
            study = Study(folder / f"row-{number}", config, arguments.target)
            row = []
            while len(row) < min(arguments.row, arguments.kills - kills):
                kind = chance.choice(KINDS)
                if not disturb(study, kind, chance, arguments.within):
                    break  # the study was done before it could be hit
                row.append(kind)
            kills += len(row)
            found = study.finish()
            different += found != expected
            kept = Path(tempfile.gettempdir()) / f"{folder.name}-{study.work.name}"
            if found == expected:
                shutil.rmtree(study.work)
            else:
                shutil.move(study.work, kept)
            verdict = "same" if found == expected else f"DIFFERENT, kept in {kept}"
            print(f"row {number:>3}: {', '.join(row):<50} {verdict}", flush=True)
        print(f"{kills} kills in {number} rows, {different} manifests differ", flush=True)
    return int(different > 0 or kills < arguments.kills)


if __name__ == "__main__":
    raise SystemExit(main())
