"""pyproject.toml, the two locks and environment.yml say the same."""

import re
import tomllib

import pytest
import yaml
from helpers import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

LOCK = (REPOSITORY / "requirements.lock").read_text()
DEVELOPMENT = (REPOSITORY / "requirements-dev.lock").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
#: What the project was ordered with; a user of environment.yml gets all of it.
NAMED = ["snakemake", "nipype", "antspyx", "nibabel", "numpy", "pandas", "pingouin", "pytest"]


def _pins(lock):
    """Name -> versions; a package may have one per version of Python."""
    found = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", lock, re.M):
        found.setdefault(_name(name), set()).add(version)
    return found


def _name(text):
    return re.sub(r"[-_.]+", "-", text).lower()


@pytest.mark.parametrize(
    ("lock", "ranges"),
    [
        (LOCK, PROJECT["project"]["dependencies"]),
        (DEVELOPMENT, PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
    ],
    ids=["run", "development"],
)
def test_every_range_is_met_by_the_lock(lock, ranges):
    pins = _pins(lock)
    for text in ranges:
        requirement = Requirement(text)
        versions = pins.get(_name(requirement.name))
        assert versions, f"{requirement.name} is missing in the lock (make lock)"
        for version in versions:
            assert requirement.specifier.contains(Version(version), prereleases=True), text


def test_development_lock_holds_the_run_lock_and_the_run_lock_no_test_tool():
    run, development = _pins(LOCK), _pins(DEVELOPMENT)
    assert {name: development.get(name) for name in run} == run
    assert not {"pytest", "ruff", "mypy", "mkdocs", "playwright"} & set(run)


@pytest.mark.parametrize("lock", [LOCK, DEVELOPMENT], ids=["run", "development"])
def test_lock_is_hashed_and_names_no_host(lock):
    entries = re.findall(r"^[A-Za-z0-9_.-]+==.*?(?=^[A-Za-z0-9_.-]+==|\Z)", lock, re.M | re.S)
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock


def test_environment_installs_the_development_lock_and_nothing_else():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    pip = {"pip": ["-r requirements-dev.lock"]}
    assert environment["dependencies"] == ["python=3.11", "pip", pip]
    assert set(NAMED) <= set(_pins(DEVELOPMENT))


def test_installed_versions_are_the_locked_ones():
    from importlib.metadata import version

    for name in ("numpy", "pandas", "scipy", "antspyx", "snakemake", "pingouin", "lifelines"):
        pinned = set(re.findall(rf"^{name}==([^ ;\\]+)", LOCK, re.M))
        assert version(name) in pinned
