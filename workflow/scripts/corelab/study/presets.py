"""Trial designs to build on: ``preset: epithet`` takes the design of that trial."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from corelab.provenance.places import ROOT

FOLDER = ROOT / "config" / "presets"
#: What belongs to one study and is never taken from a preset.
OWN = ("inputs", "results_dir", "preset", "data_dir", "published", "locked_plan", "phantom")


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def with_preset(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the design of its preset beneath it; keys that are given stand.

    Blocks are merged key by key; a list that is given, such as ``analyses``, replaces the
    preset's. An unknown preset is left to the schema's and the study's checks, which name it.

    Parameters
    ----------
    config
        As parsed from the config file.

    Examples
    --------
    >>> full = with_preset({"preset": "epithet", "study": {"id": "mine"},
    ...     "inputs": {"participants": "p.tsv"}})
    >>> full["study"]["id"], full["inputs"], full["visits"]["baseline"]
    ('mine', {'participants': 'p.tsv'}, 'baseline')
    """
    name = config.get("preset")
    path = FOLDER / f"{name}.yaml"
    if not name or not path.is_file():
        return copy.deepcopy(dict(config))
    design = yaml.safe_load(path.read_text(encoding="utf-8"))
    design = {key: value for key, value in design.items() if key not in OWN}
    design["study"] = {k: v for k, v in design.get("study", {}).items() if k != "id"}
    return _under(design, config)


def _under(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _under(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
