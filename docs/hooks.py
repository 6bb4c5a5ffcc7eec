"""Pages of the site that are files of the repository, and the demo's report where it was made."""

import shutil
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "results" / "demo" / "report"
#: Page of the site -> file of the repository.
GENERATED = {
    "configuration.md": "config/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "tests.md": "tests/README.md",
}
DEMO = "# The demo's report\n\n"
#: HTML in place of a Markdown link, whose target is copied after the pages are checked.
PRESENT = '<a href="demo/index.html">Open the report</a>: all pages, as `make demo` writes them.\n'
ABSENT = "This copy of the site was built without it: run `make docs-site`.\n"


def on_files(files, config):
    """Add the generated pages."""
    texts = {p: (ROOT / source).read_text(encoding="utf-8") for p, source in GENERATED.items()}
    texts["demo.md"] = DEMO + (PRESENT if REPORT.is_dir() else ABSENT)
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_post_build(config):
    """Copy the report beside the pages."""
    if REPORT.is_dir():
        shutil.copytree(REPORT, Path(config["site_dir"]) / "demo", dirs_exist_ok=True)
