"""The same study under other Pythons, byte for byte: `make determinism PYTHONS="python3.12 ..."`.

Each interpreter gets an environment of its own from requirements.lock (hash-checked, about 4 minutes
and 3.7 GB each), in build/env-NAME unless --environments says where. A study of tables, with report
and submission, is computed by each, and by the Python that runs this; then every product is compared.

What may differ, and why, is listed at TOLERATED; anything else is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "workflow" / "scripts")]

import yaml  # noqa: E402
from workflow_runs import tables_study  # noqa: E402

#: Not products: they tell of a run.
TOLD = {"logs", "benchmarks", "jobs"}
#: File (pattern) -> why it may differ between versions of Python.
TOLERATED: dict[str, str] = {}
#: Tests that need no workflow and few seconds, run under each Python.
QUICK_TESTS = (
    "tests/unit/test_provenance.py",
    "tests/unit/test_study.py",
    "tests/unit/test_agreement_kernels.py",
    "tests/unit/test_imaging_geometry.py",
    "tests/unit/test_reading_adjudication.py",
)


def environment(python: str, folder: Path) -> Path:
    """The interpreter of an environment made from the lock; made if it is not there."""
    there = folder / "bin" / "python"
    done = folder / ".lock.sha256"
    lock = REPOSITORY / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if done.is_file() and done.read_text().strip() == digest:
        return there
    print(f"{python}: setting up {folder}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(there), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--prefer-binary", "-r", str(lock)], check=True)
    done.write_text(digest + "\n")
    return there


def clean() -> dict[str, str]:
    """The surroundings of a run: no Python of another environment shines through."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SNAKEMAKE_PROFILE"}
    return {k: v for k, v in os.environ.items() if k not in hidden}


def computed(python: Path, config: Path, work: Path, cores: int) -> dict[str, str]:
    """Compute the study with an interpreter; path of each product -> its sha256."""
    work.mkdir(parents=True)
    command = [
        str(python), "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"),
        "--workflow-profile", str(REPOSITORY / "profiles" / "default"),
        "--cores", str(cores), "--configfile", str(config),
    ]  # fmt: skip
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=work, env=clean(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{python}: exit code {done.returncode}\n{done.stdout[-6000:]}")
    version = subprocess.run([str(python), "-V"], capture_output=True, text=True, check=True).stdout
    print(f"{version.strip():<14} {time.monotonic() - start:6.0f} s", flush=True)
    results = work / "results"
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.relative_to(results).parts[1] not in TOLD
    }


def tolerated(name: str) -> str | None:
    """Why a product may differ; None if it may not."""
    return next((why for pattern, why in TOLERATED.items() if re.search(pattern, name)), None)


def main() -> int:
    """Compare; 0 if nothing differs but what is tolerated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=["python3.12"])
    parser.add_argument("--environments", type=Path, default=REPOSITORY / "build")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--no-tests", action="store_true", help="leave the quick unit tests out")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="corelab-pythons-") as name:
        folder = Path(name)
        config = tables_study(folder / "study")
        config.write_text(
            yaml.safe_dump(yaml.safe_load(config.read_text()) | {"results_dir": "results"})
        )
        expected = computed(Path(sys.executable), config, folder / "here", arguments.cores)
        for number, python in enumerate(arguments.pythons):
            other = environment(python, arguments.environments / f"env-{Path(python).name}")
            if not arguments.no_tests:
                subprocess.run(
                    [str(other), "-m", "pytest", "-q", *QUICK_TESTS],
                    cwd=REPOSITORY, env=clean(), check=True,
                )  # fmt: skip
            found = computed(other, config, folder / f"other-{number}", arguments.cores)
            names = sorted(set(expected) | set(found))
            different = [one for one in names if expected.get(one) != found.get(one)]
            for one in different:
                print(f"  differs: {one} ({tolerated(one) or 'NOT TOLERATED'})")
                wrong += tolerated(one) is None
            print(f"  {python}: {len(names)} products, {len(different)} differ", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
