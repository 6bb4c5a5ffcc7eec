"""A study read and checked: config and sheets, with all findings about them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corelab.records.images import InsertRow, ScanRow
from corelab.settings.config import Config
from corelab.settings.study import InputSettings
from corelab.study import checks
from corelab.study.findings import Finding, at, grouped_lines, in_config
from corelab.study.model import Study, scan_folders, visits_in_order
from corelab.study.models import model_findings
from corelab.study.presets import preset_names, with_preset
from corelab.study.schema import config_findings, sheet_findings
from corelab.study.sheets import exists, insert_rows, read_sheets, scan_rows
from corelab.study.units import common_units, unify

#: Sheets of which a study has one.
_NOT_ONE = ("measurements", "covariates", "data_dir")
SHEETS = tuple(name for name in InputSettings.model_fields if name not in _NOT_ONE)


class StudyError(ValueError):
    """A study that cannot be read; carries every finding."""

    def __init__(self, findings: Iterable[Finding]):
        self.findings = list(findings)
        super().__init__("\n".join(grouped_lines(self.findings)))


def _input_path(text: str, data_dir: Path | None) -> Path:
    """An input of the config: absolute, or from the working directory, or else from data_dir."""
    path = Path(text).expanduser()
    if path.is_absolute() or data_dir is None or exists(path):
        return path.absolute()
    beside = data_dir / path
    return (beside if exists(beside) else path).absolute()


def load_study(config: Mapping[str, Any]) -> Study:
    """Read and check a study's config and sheets; nothing is computed and no image is opened.

    Parameters
    ----------
    config
        As parsed from the config file.

    Returns
    -------
    Study
        With ``findings``; a study that is not ``sound`` must not be computed.

    Raises
    ------
    StudyError
        If the config itself violates its schema: then there is nothing to build on.
    """
    config = with_preset(config)
    wrong = config_findings(config)
    if wrong:
        raise StudyError(wrong)
    given = Config.model_validate(config)
    full, (data_dir, simulated) = given.plain(), scan_folders(given)
    findings = _resolved_inputs(full, data_dir)
    paths = _named_sheets(full, data_dir)
    sheets, found = read_sheets(paths, full["recode"], sheet_findings)
    findings += found
    scans: list[ScanRow] = []
    if "scans" in sheets:
        scans = scan_rows(sheets["scans"], paths["scans"], data_dir, simulated)
    phantoms: list[InsertRow] = []
    if "phantoms" in sheets:
        phantoms = insert_rows(sheets["phantoms"], paths["phantoms"], data_dir, simulated)
    names = {k: p.name for k, p in paths.items()}
    scan_paths = [(row.line, row.path) for row in scans]
    more_paths = [(row.line, row.path or "") for row in phantoms]
    every = [*scan_paths, *more_paths]
    if braces := list(_braces(full, paths, every, names.get("scans", "scans"))):
        raise StudyError(braces)
    settings, units = Config.model_validate(full), common_units(sheets)
    findings = [*checks.weighed(findings, settings, names), *unify(sheets, names, units)]
    findings += checks.cross_findings(settings, sheets, scans, names)
    findings += checks.phantom_findings(phantoms, names.get("phantoms", "phantoms"))
    return Study(
        full,
        sheets,
        tuple(scans),
        tuple(checks.said_once(findings)),
        paths,
        visits_in_order(settings, sheets),
        units,
        tuple(phantoms),
    )


def _braces(
    full: Mapping[str, Any],
    paths: Mapping[str, Path],
    rows: Iterable[tuple[int, str]],
    sheet: str,
) -> Iterator[Finding]:
    """Paths with braces: the workflow takes {batch1} in a path for a wildcard."""
    message = "the path has braces, which the workflow takes for a wildcard"
    remedy = "rename the file or folder without { and }"
    places = {"results_dir": full["results_dir"], **{f"inputs.{k}": p for k, p in paths.items()}}
    for key, path in places.items():
        if "{" in str(path) or "}" in str(path):
            yield in_config(key, str(path), message, remedy)
    for line, path in rows:
        if "{" in path or "}" in path:
            yield at(sheet, line, "path", path, message, remedy)


def _resolved_inputs(full: dict[str, Any], data_dir: Path | None) -> list[Finding]:
    """Make paths of the config absolute, in place; what is wrong with them and the preset."""
    found: list[Finding] = []

    def wrong(column: str, value: Any, message: str, remedy: str) -> None:
        found.append(in_config(column, value, message, remedy))

    if full["preset"] and full["preset"] not in preset_names():
        known = "known: " + ", ".join(preset_names())
        wrong("preset", full["preset"], "no such preset", known)
    if data_dir is not None and not data_dir.is_dir():
        named = str(full["data_dir"] or full["inputs"]["data_dir"])
        remedy = "correct inputs.data_dir, or give --config data_dir=FOLDER"
        wrong("data_dir", named, "the folder is missing", remedy)
    for atlas in full["atlases"]:
        for key in ("path", "labels"):
            atlas[key] = os.fspath(_input_path(atlas[key], data_dir))
    if full["locked_plan"]:
        full["locked_plan"] = os.fspath(_input_path(full["locked_plan"], data_dir))
        if not Path(full["locked_plan"]).is_file():
            remedy = "give the copy of statistics/plan.json that was kept at the lock"
            wrong("locked_plan", full["locked_plan"], "the file is missing", remedy)
    for part in (full["brain_extraction"], *full["segmentation"]["external"]):
        if part.get("weights"):
            part["weights"] = os.fspath(_input_path(part["weights"], data_dir))
    found += model_findings(Config.model_validate(full))
    if full["registration"]["ct_template"]:
        template = _input_path(full["registration"]["ct_template"], data_dir)
        full["registration"]["ct_template"] = os.fspath(template)
    return found


def _named_sheets(full: Mapping[str, Any], data_dir: Path | None) -> dict[str, Path]:
    """Key -> path of the sheets that the config names."""
    inputs = full["inputs"]
    named = {name: inputs[name] for name in SHEETS} | {"published": full["published"]}
    for name in ("measurements", "covariates"):
        named |= {f"{name}[{number}]": text for number, text in enumerate(inputs[name])}
    return {key: _input_path(text, data_dir) for key, text in named.items() if text}
