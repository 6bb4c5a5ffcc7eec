"""What ``pip install .`` brings: every file that the library reads besides its modules."""

import re
import tomllib

from helpers import REPOSITORY

SETUP = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
PACKAGE = REPOSITORY / "workflow" / "scripts" / "corelab"


def test_files_of_the_packages_are_installed():
    brought = set()
    for package, patterns in SETUP["package-data"].items():
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            brought |= set(folder.glob(pattern))
    files = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
    }
    assert files <= brought


def test_files_below_the_root_are_installed_in_the_same_places():
    brought = {}
    for folder, patterns in SETUP["data-files"].items():
        inside = folder.removeprefix("share/corelab").strip("/")
        for pattern in patterns:
            found = list(REPOSITORY.glob(pattern))
            assert found, pattern
            for path in found:
                brought[path] = f"{inside}/{path.name}".strip("/")
    assert all(str(path.relative_to(REPOSITORY)) == place for path, place in brought.items())
    # Each place that a module names by ROOT, as far as it is a file or a folder of files.
    for module in PACKAGE.rglob("*.py"):
        for names in re.findall(r'\bROOT((?: / "[\w.-]+")+)', module.read_text()):
            place = REPOSITORY.joinpath(*re.findall(r'"([^"]+)"', names))
            if place.suffix == ".md":
                continue  # written by the maintainers, in a clone
            inside = [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
            assert place.exists() and set(inside) & set(brought), (module.name, place)
