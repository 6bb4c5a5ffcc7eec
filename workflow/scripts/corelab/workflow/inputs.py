"""Input files and parameters of jobs, from the study and its config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from corelab.provenance.places import own_weights
from corelab.records.images import InsertRow, ScanRow
from corelab.study.model import Study
from corelab.study.models import configured_models, model_files

#: Columns of a scan's row that change when other rows of the sheet, or its file, do.
_HIDDEN = {"line", "exists", "bytes", "simulated"}


Function = TypeVar("Function", bound=Callable[..., Any])


def inspected(function: Function) -> Function:
    """Keep the signature of a function of a rule, which Snakemake asks for in each of its jobs.

    Examples
    --------
    >>> inspect.signature(inspected(lambda wildcards: 1)).parameters.keys()
    odict_keys(['wildcards'])
    """
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def plain_rows(rows: Iterable[ScanRow | InsertRow]) -> list[dict[str, Any]]:
    """Rows of a sheet as parameters: without empty cells and what other rows of the sheet change.

    Examples
    --------
    >>> plain_rows([ScanRow("dwi", "a.nii", "s1", line=3)])[0]["path"]
    'a.nii'
    """
    return [
        {k: v for k, v in row.to_json().items() if v is not None and k not in _HIDDEN}
        for row in rows
    ]


def sheet_paths(study: Study, *names: str) -> dict[str, str]:
    """Paths of sheets by name; a list of sheets has names such as ``measurements[1]``."""
    return {key: str(path) for key, path in study.sheet_paths.items() if key.split("[")[0] in names}


def sheet_files(study: Study, *names: str) -> list[str]:
    """Sheets of the study by name, without missing ones."""
    wanted = sheet_paths(study, *names)
    return [path for key, path in wanted.items() if study.sheet_paths[key].is_file()]


def network_files(study: Study, block: str) -> list[str]:
    """Files of the networks that a block of the config names; a missing one is a finding."""
    files = [
        file
        for key, weights in configured_models(study.settings)
        if key.startswith(block)
        for file in model_files(weights)
    ]
    if study.settings.brain_extraction.method == "learned" and block == "brain_extraction.":
        files.append(own_weights("brain"))
    external = study.settings.segmentation.external
    if block == "segmentation." and any(one.kind == "learned" for one in external):
        files.append(own_weights("infarct"))
    return [str(file) for file in files if file.is_file()]


def program_files(study: Study) -> list[str]:
    """Containers and weights of segmentation programs; a change of one reruns their jobs."""
    files = [file for program in study.settings.segmentation.external for file in program.files]
    return files + network_files(study, "segmentation.")


def atlas_files(study: Study) -> list[str]:
    """Files of the configured atlases."""
    return [path for atlas in study.settings.atlases for path in (atlas.path, atlas.labels)]
