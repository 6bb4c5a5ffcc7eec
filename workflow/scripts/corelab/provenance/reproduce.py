"""REPRODUCE.md: the exact commands that repeat a run, and what has to come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelab import __version__
from corelab.provenance.manifest import Manifest
from corelab.provenance.places import ROOT
from corelab.provenance.products import file_sha256, write_json, write_text

#: Products whose digests a person compares first.
FIRST = (
    "endpoints/measurements.tsv",
    "statistics/agreement.tsv",
    "statistics/pharmacodynamics.tsv",
    "statistics/survival.tsv",
    "verification/certificate.tsv",
    "report/analysis_results.tsv",
)


def _reproduce_text(manifest: Manifest, lock_sha256: str) -> str:
    """The text of ``REPRODUCE.md``; ``lock_sha256`` is of ``requirements.lock``."""
    first = {name: product.sha256 for name, product in manifest.products if name in FIRST}
    lines = [
        f"# How to repeat the run of {manifest.study_id}",
        "",
        f"Corelab {__version__}, plan fingerprint `{manifest.plan_fingerprint}`.",
        "",
        "1. The same program and versions:",
        "",
        "   ```",
        "   make env",
        f"   sha256sum requirements.lock   # {lock_sha256}",
        "   ```",
        "",
        "2. The same inputs, under the names below, where `provenance/config.json` looks for them",
        "   (relative to the working directory, or to `--config data_dir=FOLDER`).",
        "",
        "3. The same command, from the repository's root, with this folder's config:",
        "",
        "   ```",
        "   .venv/bin/snakemake --configfile THIS_FOLDER/provenance/config.json",
        "   .venv/bin/snakemake verify --configfile THIS_FOLDER/provenance/config.json",
        "   ```",
        "",
        "   To compare with this run: target `compare` with `--config compare_with=THIS_FOLDER`.",
        "",
        "## What has to come out",
        "",
        f"All {len(manifest.products)} products together: `{manifest.products_sha256}`",
        "",
        "| product | sha256 |",
        "| --- | --- |",
        *(f"| {name} | `{first[name]}` |" for name in FIRST if name in first),
        "",
        "Equal on one kind of machine; on another, image stages may differ in the last bits, and",
        "`compare` says by how much, beside the noise floor.",
        "",
        "## Inputs",
        "",
        "| input | sha256 |",
        "| --- | --- |",
        *(f"| {item.name} | `{item.sha256}` |" for item in manifest.sources),
        "",
        "## Versions",
        "",
        *(f"- {name} {version}" for name, version in manifest.software.items()),
        "",
    ]
    return "\n".join(lines)


def write_reproduce(manifest: Manifest, config: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``provenance/REPRODUCE.md`` and ``provenance/config.json``.

    Parameters
    ----------
    manifest
        Of the study.
    config
        As given by the user, before defaults: the run's whole config.
    folder
        The study's folder.
    """
    lock = ROOT / "requirements.lock"
    digest = file_sha256(lock) if lock.is_file() else "no lock file beside the program"
    target = Path(folder) / "provenance"
    write_json(dict(config), target / "config.json")
    write_text(_reproduce_text(manifest, digest), target / "REPRODUCE.md")
