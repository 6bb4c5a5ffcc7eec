"""The workflow through a real Slurm, byte for byte as on this machine alone: `make slurm-test`.

A study of tables and a coarse simulated subject are computed locally, then through Slurm as plain
jobs, as job arrays, and as one group per subject. Slurm must be up (tests/cluster/slurm.sh up).
`--demo` takes the whole demo, registered by the preset `testing`, in groups (an hour on two cores);
`--tables statistics` leaves out report and submission (minutes less).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "workflow" / "scripts")]

from workflow_runs import tables_study  # noqa: E402

from corelab.phantom.design import TrialSpec  # noqa: E402
from corelab.phantom.trial import write_sheets  # noqa: E402

SLURM = [
    "--workflow-profile", str(REPOSITORY / "profiles" / "slurm"),
    "--latency-wait", "10",
    "--slurm-init-seconds-before-status-checks", "4",
    "--default-resources", "mem_mb=1000", "runtime=10",
    "--slurm-no-account",
]  # fmt: skip
MODES = {
    "plain": ["--groups", "none=none"],
    "arrays": ["--groups", "none=none", "--slurm-array-jobs", "all"],
    "groups": [],
}


def image_study(folder: Path) -> Path:
    """One subject of the coarse trial, at two visits."""
    write_sheets(TrialSpec.testing(), folder)
    for name in ("participants", "scans", "reads"):
        path = folder / f"{name}.tsv"
        with open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        people = sorted({row["participant_id"] for row in rows})
        kept = [r for r in rows if r["participant_id"] == people[0]]
        if name == "scans":
            kept = [r for r in kept if r["kind"] in {"dwi", "adc"} and r["visit"] != "day90"]
        with open(path, "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0], delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
    config = {
        "study": {"id": "one"},
        "results_dir": "results",
        "inputs": {n: str(folder / f"{n}.tsv") for n in ("participants", "scans")},
        "phantom": {"trial": "stroke", "flavour": "testing"},
        "registration": {"preset": "testing"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def demo_study(folder: Path) -> Path:
    """The demo, registered by the preset for tests."""
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    config["registration"]["preset"] = "testing"
    config["inputs"] = {
        name: [str(REPOSITORY / one) for one in given]
        if isinstance(given, list)
        else str(REPOSITORY / given)
        for name, given in config["inputs"].items()
    }
    if config.get("published"):
        config["published"] = str(REPOSITORY / config["published"])
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def products(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all products (not logs, benchmarks and the ledger of jobs)."""
    skipped = {"logs", "benchmarks", "jobs"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[1] not in skipped
    }


def run(name: str, folder: Path, options: list[str], config: Path, target: str) -> dict[str, str]:
    """Compute a study in a folder of its own; its products."""
    work = folder / name
    work.mkdir(parents=True)
    content = yaml.safe_load(config.read_text()) | {"results_dir": "results"}
    (work / "config.yaml").write_text(yaml.safe_dump(content))
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"),
        *options, "--configfile", "config.yaml", "--", target,
    ]  # fmt: skip
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stdout[-6000:]}")
    print(f"{name:<16} rc 0  {seconds:6.1f} s", flush=True)
    return products(work / "results")


def main() -> None:
    """Run all modes that were asked for and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="*", default=list(MODES), choices=list(MODES))
    parser.add_argument("--status", default="squeue", choices=["squeue", "sacct"])
    parser.add_argument("--tables", default="all", help="target of the study of tables")
    parser.add_argument("--demo", action="store_true", help="groups compute the demo too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corelab-slurm-") as name:
        folder = Path(name)
        studies = {
            "tables": (tables_study(folder / "tables-study"), arguments.tables),
            "images": (image_study(folder / "images-study"), "endpoints"),
        }
        wanted = {"plain": ["images", "tables"], "arrays": ["images"], "groups": ["images"]}
        if arguments.demo:
            studies["demo"] = (demo_study(folder / "demo-study"), "all")
            wanted["groups"].append("demo")
        local = ["--workflow-profile", str(REPOSITORY / "profiles" / "default"), "--cores", "2"]
        expected: dict[str, dict[str, str]] = {}
        wrong = []
        for mode in arguments.modes:
            options = [*SLURM, "--slurm-status-command", arguments.status, *MODES[mode]]
            for study in wanted[mode]:
                if study not in expected:
                    expected[study] = run(f"local-{study}", folder, local, *studies[study])
                found = run(f"{mode}-{study}", folder, options, *studies[study])
                names = set(found) | set(expected[study])
                different = sorted(n for n in names if found.get(n) != expected[study].get(n))
                print(
                    f"  {len(names)} products, {len(different)} differ from the local run",
                    flush=True,
                )
                wrong += [f"{mode}: {one}" for one in different]
        if wrong:
            raise SystemExit("different:\n" + "\n".join(wrong))
    print("Slurm gives what this machine alone gives.")


if __name__ == "__main__":
    main()
