"""Networks that the user supplies: their files, and what is known of them by their SHA-256.

Weights are not part of Corelab and nothing is downloaded. ``resources/models/models.lock.tsv``
names those that were tried, with licence and source; others run too, with a note.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from corelab.provenance.places import ROOT
from corelab.provenance.products import file_sha256, read_table
from corelab.settings.config import Config
from corelab.study.findings import Finding, in_config

LOCK = ROOT / "resources" / "models" / "models.lock.tsv"


@lru_cache(maxsize=1)
def _known_files() -> dict[str, dict[str, str]]:
    """Rows of the lock file by SHA-256."""
    rows = read_table(LOCK).to_dict("records")
    return {str(row["sha256"]): {str(k): str(v) for k, v in row.items()} for row in rows}


def known_model(sha256: Mapping[str, str]) -> dict[str, str] | None:
    """Row of the lock file of a model, by the SHA-256 of its files; None if one is unknown."""
    rows = [_known_files().get(value) for value in sha256.values()]
    if not rows or any(row is None for row in rows):
        return None
    return rows[0] if len({row["model"] for row in rows if row}) == 1 else None


def model_files(weights: str | Path) -> list[Path]:
    """Files of a TensorFlow.js layers model: its ``model.json`` and the weights that this names.

    Parameters
    ----------
    weights
        ``model.json``, or the folder that holds it.

    Returns
    -------
    list of Path
        Existing or not; of an unreadable ``model.json`` that file alone.

    Examples
    --------
    >>> [path.name for path in model_files("no/such/folder/model.json")]
    ['model.json']
    """
    path = Path(weights).expanduser()
    path = path / "model.json" if path.is_dir() else path
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        return [path, *(path.parent / str(name) for group in groups for name in group["paths"])]
    except (OSError, ValueError, KeyError, TypeError):
        return [path]


def configured_models(config: Config) -> Iterator[tuple[str, str]]:
    """Key and path of every network that a config names."""
    extraction = config.brain_extraction
    if extraction.method == "mindgrab" and extraction.weights:
        yield "brain_extraction.weights", extraction.weights
    for number, entry in enumerate(config.segmentation.external):
        if entry.kind == "meshnet" and entry.weights:
            yield f"segmentation.external.{number}.weights", entry.weights


def model_findings(config: Config) -> Iterator[Finding]:
    """Missing files of networks and repeated entries (errors), and weights that the lock file does
    not name (notes).
    """
    extraction = config.brain_extraction
    if extraction.method == "mindgrab" and not extraction.weights:
        message = f"brain_extraction.method is {extraction.method}, but no weights are named"
        remedy = "give the path of the network's model.json (docs/models.md), or use classical"
        yield in_config("brain_extraction.weights", "", message, remedy)
    known: set[tuple[str, str]] = set()
    for number, entry in enumerate(config.segmentation.external):
        if (entry.id, entry.label) in known:
            message = f"two entries give pipeline:{entry.id} a mask of {entry.label}"
            remedy = "give one of them another id: their files would have one name"
            yield in_config(f"segmentation.external.{number}.id", entry.id, message, remedy)
        known.add((entry.id, entry.label))
    for key, weights in configured_models(config):
        files = model_files(weights)
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            message = (
                f"{', '.join(missing)} is missing; weights are not shipped and never downloaded"
            )
            remedy = (
                "put model.json and the weights file that it names into one folder "
                "(docs/models.md), or correct the path"
            )
            yield in_config(key, weights, message, remedy)
        elif len(files) < 2:
            message = "the file is not a TensorFlow.js layers model: it has no weightsManifest"
            remedy = "give the path of the network's model.json"
            yield in_config(key, weights, message, remedy)
        elif known_model({path.name: file_sha256(path) for path in files}) is None:
            message = (
                "these weights are not in resources/models/models.lock.tsv: nobody has checked "
                "them with this software"
            )
            remedy = "check masks by eye, and record licence and source"
            yield in_config(key, weights, message, remedy, "note")
