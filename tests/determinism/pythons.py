"""The same study under other Pythons, byte for byte: `make determinism PYTHONS="python3.12 ..."`.

Each interpreter gets an environment of its own from requirements.lock (hash-checked, about 4 minutes
and 3.7 GB each), in build/env-NAME unless --environments says where. A study of tables, with report
and submission, is computed by each, and by the Python that runs this; then every product is compared.

The study states the versions that computed it, so that a product may differ in them: of Python, and of
packages that the lock pins by Python. Each product that differs is therefore compared again without
those versions and without the hashes and sizes of other products that differ; then it has to be equal.
A PDF is set from a text beside it and differs with that text alone. Anything else is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
#: PDF -> the product with the same text, by name or by exchanging the ending.
SET_FROM = {"report.pdf": "index.html"}
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


def computed(python: Path, config: Path, work: Path, cores: int) -> dict[str, bytes]:
    """Compute the study with an interpreter; path of each product -> its bytes."""
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
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.relative_to(results).parts[1] not in TOLD
    }


def versions(products: dict[str, bytes]) -> dict[str, str]:
    """Software -> version, as the manifest states them."""
    name = next(one for one in products if one.endswith("provenance/manifest.json"))
    return json.loads(products[name])["software"]


def without_versions(
    products: dict[str, bytes], different: list[str], stated: set[str]
) -> dict[str, str]:
    """Products that differ, without the versions of some software and what follows from them."""
    follows = {json.loads(products[n])["products_sha256"]: n for n in different if _manifest(n)}
    follows |= {hashlib.sha256(products[n]).hexdigest(): n for n in different if n in products}
    sizes = {str(len(products[n])) for n in different if n in products}
    own = versions(products)
    found = {}
    for name in different:
        if name.endswith(".pdf") or name not in products:
            continue
        text = products[name].decode()
        for software in stated:
            between = r"(?:\W|softwareVersion|dt|dd|td|th)*"
            output = rf"(?i)(?<!\w)({re.escape(software)}{between}){re.escape(own[software])}(?!\w)"
            text = re.sub(output, r"\1VERSION", text)
        for digest, of in follows.items():
            for length in (64, 16, 12):
                text = text.replace(digest[:length], f"HASH OF {of}")
        found[name] = re.sub(
            r'("(?:size_bytes|bytes|contentSize)": "?)(\d+)',
            lambda size: size[1] + ("SIZE" if size[2] in sizes else size[2]),
            text,
        )
    return found


def _manifest(name: str) -> bool:
    return name.endswith("provenance/manifest.json")


def unexplained(here: dict[str, bytes], there: dict[str, bytes]) -> tuple[list[str], list[str]]:
    """Products that differ, and those of them that differ in more than stated versions."""
    names = sorted(set(here) | set(there))
    different = [name for name in names if here.get(name) != there.get(name)]
    ours, theirs = versions(here), versions(there)
    stated = {name for name in set(ours) & set(theirs) if ours[name] != theirs[name]}
    one, other = (without_versions(part, different, stated) for part in (here, there))
    wrong = {n for n in different if not n.endswith(".pdf") and one.get(n) != other.get(n)}
    for name in different:
        if name.endswith(".pdf"):
            path = Path(name)
            text = path.with_name(SET_FROM.get(path.name, f"{path.stem}.md")).as_posix()
            if text not in different or text in wrong:
                wrong.add(name)
    return different, sorted(wrong)


def main() -> int:
    """Compare; 0 if nothing differs but stated versions."""
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
            different, bad = unexplained(expected, found)
            for one in different:
                why = "in MORE than stated versions" if one in bad else "in stated versions only"
                print(f"  differs {why}: {one}")
            wrong += len(bad)
            print(f"  {python}: {len(found)} products, {len(different)} differ", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
