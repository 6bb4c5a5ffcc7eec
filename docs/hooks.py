"""Pages of the site that are files of the repository: config keys, changes, contributing, tests."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Page of the site -> file of the repository.
GENERATED = {
    "configuration.md": "config/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "tests.md": "tests/README.md",
}


def on_files(files, config):
    """Add the generated pages."""
    for page, source in GENERATED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files
