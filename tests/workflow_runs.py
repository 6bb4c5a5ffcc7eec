"""Running the workflow in tests: as a user would, in a process of its own."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import snakemake as snakemake_package
import yaml
from fork_client import request
from helpers import REPOSITORY

TRACKED = ("Snakefile", "workflow", "config", "profiles", "resources", "environment.yml")
SCRIPTS = REPOSITORY / "workflow" / "scripts"
SERVER = Path(__file__).with_name("fork_server.py")
SNAKEMAKE = Path(snakemake_package.__file__).with_name("__main__.py")

#: Variables of the tests' own process that a user's does not have.
OWN_VARIABLES = {"PYTHONPATH", "SNAKEMAKE_PROFILE", "PYTHONDONTWRITEBYTECODE"}


def environment() -> dict[str, str]:
    """Environment of a run, as a user has it."""
    return {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES}


@functools.cache
def _server(scripts: str) -> str:
    """Address of a process that has loaded Snakemake (tests/fork_server.py), one for all workers."""
    # Workers of pytest-xdist have the name of the run and the parent, which ends last, in common.
    name = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    last = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    # The path of a socket is short: not below a temporary folder of a test.
    folder = Path(f"/tmp/forks-{name}-{'library' if scripts else 'packages'}")
    folder.mkdir(mode=0o700, exist_ok=True)
    address = folder / "socket"
    with open(folder / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not address.exists():
            server = subprocess.Popen(
                [sys.executable, str(SERVER), str(last), str(address), scripts],
                env=environment() | {"NUMBA_NUM_THREADS": "1"},
                text=True,
                stdout=subprocess.PIPE,
            )
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
    return str(address)


def snakemake(
    *arguments: str,
    cwd: Path = REPOSITORY,
    cores: int = 2,
    packages: Path | None = None,
    anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a process of its own; stdout and stderr together as text.

    Parameters
    ----------
    arguments, cores
        Of its command line.
    cwd
        Folder to start it in.
    packages
        A folder that is put on Python's path.
    anew
        Start each job as a Python of its own, as a user's run does, instead of a child of a process
        that has loaded its modules (of a copy of the repository: what they import from elsewhere).
    """
    command = ["--cores", str(cores), *arguments]
    own = cwd == REPOSITORY or str(REPOSITORY / "Snakefile") in arguments
    with tempfile.TemporaryFile("w+") as output, open(os.devnull) as nothing:
        code = request(
            _server(str(SCRIPTS) if own and not (anew or packages) else ""),
            "snakemake",
            [str(SNAKEMAKE), *command],
            str(cwd),
            environment() | ({"PYTHONPATH": str(packages)} if packages else {}),
            [nothing.fileno(), output.fileno(), output.fileno()],
            path=str(cwd),
            forked="" if anew else str((REPOSITORY if own else cwd) / "workflow" / "scripts"),
        )
        output.seek(0)
        return subprocess.CompletedProcess(command, code, output.read())


def jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from the table that Snakemake prints."""
    found: dict[str, int] = {}
    for block in re.findall(r"job +count\n-+ +-+\n(.*?)\ntotal", output, re.S):
        found = {
            line.split()[0]: int(line.split()[1]) for line in block.splitlines() if line.strip()
        }
    return found


def write_study(folder: Path, config: dict, **sheets: str) -> Path:
    """Write sheets (name -> text with | between cells) and a config that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = config.setdefault("inputs", {})
    for name, text in sheets.items():
        lines = [line.strip() for line in text.strip().splitlines()]
        path = folder / f"{name}.tsv"
        path.write_text(
            "".join("\t".join(c.strip() for c in line.split("|")) + "\n" for line in lines)
        )
        if name == "measurements":
            inputs[name] = [str(path)]
        elif name == "published":
            config["published"] = str(path)
        else:
            inputs[name] = str(path)
    config.setdefault("study", {"id": "s"})
    config.setdefault("results_dir", str(folder / "results"))
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def copy_of_repository(folder: Path) -> Path:
    """A copy of what the workflow needs, to edit without touching the checkout."""
    for name in TRACKED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


def tables_study(folder: Path) -> Path:
    """A study of tables only: two readers, two visits, an outcome, an exposure."""
    import numpy as np

    rng = np.random.default_rng(7)
    people = [f"{n:03d}" for n in range(1, 13)]
    truth = {p: rng.gamma(3.0, 8.0) for p in people}
    arms = {p: ("placebo", "low", "high")[n % 3] for n, p in enumerate(people)}
    dose = {"placebo": 0, "low": 10, "high": 20}
    participants = "participant_id|arm|dose\n" + "\n".join(
        f"{p}|{arms[p]}|{dose[arms[p]]}" for p in people
    )
    reads, measurements = (
        ["participant_id|visit|endpoint|reader|value|unit|repeat"],
        ["participant_id|visit|endpoint|source|value|unit"],
    )
    for p in people:
        for visit, grown in (("baseline", 0.0), ("day5", 6.0 - 0.2 * dose[arms[p]])):
            for reader, bias in (("r1", 0.5), ("r2", -0.5)):
                for repeat in (1, 2):
                    value = max(0.0, truth[p] + grown + bias + rng.normal(0, 0.5))
                    reads.append(f"{p}|{visit}|infarct_volume|{reader}|{value:.4f}|mL|{repeat}")
            measurements.append(
                f"{p}|{visit}|infarct_volume|supplied|{truth[p] + grown + rng.normal(0, 0.3):.4f}|mL"
            )
    outcomes = "participant_id|visit|outcome|value\n" + "\n".join(
        f"{p}|day5|nihss|{min(42, round(truth[p] / 3))}" for p in people
    )
    exposures = "participant_id|exposure|value\n" + "\n".join(
        f"{p}|auc|{dose[arms[p]] * 3.0 + rng.normal(0, 1):.3f}" for p in people
    )
    config = {
        "study": {"id": "tables", "title": "Tables only"},
        "visits": {"order": ["baseline", "day5"], "baseline": "baseline"},
        "analyses": [
            {
                "id": "readers",
                "type": "agreement",
                "endpoint": "infarct_volume",
                "sources": ["r1", "r2"],
            },
            {
                "id": "severity",
                "type": "correlation",
                "endpoint": "infarct_volume",
                "outcome": "nihss",
                "method": "spearman",
                "objective": "primary",
            },
            {
                "id": "dose",
                "type": "dose_response",
                "endpoint": "infarct_volume",
                "dose": "dose",
                "derivation": "change",
                "visit": "day5",
                "models": "linear",
            },
        ],
    }
    return write_study(
        folder,
        config,
        participants=participants,
        reads="\n".join(reads),
        measurements="\n".join(measurements),
        outcomes=outcomes,
        exposures=exposures,
    )
