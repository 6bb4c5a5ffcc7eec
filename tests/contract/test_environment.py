"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib

import yaml
from helpers import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

LOCK = (REPOSITORY / "requirements.lock").read_text()
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", LOCK, re.M))


def _name(text):
    return re.sub(r"[-_.]+", "-", text).lower()


def test_every_range_is_met_by_the_lock():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = {_name(name): version for name, version in PINS.items()}
    for text in project["dependencies"]:
        requirement = Requirement(text)
        version = pins.get(_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements.lock (make lock)"
        assert requirement.specifier.contains(Version(version), prereleases=True), text


def test_lock_is_hashed_and_names_no_host():
    entries = re.findall(r"^[A-Za-z0-9_.-]+==.*?(?=^[A-Za-z0-9_.-]+==|\Z)", LOCK, re.M | re.S)
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK


def test_environment_installs_the_lock_and_nothing_else():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.lock"]}]


def test_installed_versions_are_the_locked_ones():
    from importlib.metadata import version

    for name in ("numpy", "pandas", "scipy", "antspyx", "snakemake", "pingouin", "lifelines"):
        pinned = set(re.findall(rf"^{name}==([^ ;\\]+)", LOCK, re.M))
        assert version(name) in pinned
