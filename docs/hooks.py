"""Pages of the site that are not written by hand: the keys of the config, and the changes."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Page of the site -> file of the repository.
GENERATED = {"configuration.md": "config/README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files, config):
    """Add the generated pages."""
    for page, source in GENERATED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files
