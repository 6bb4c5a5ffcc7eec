"""What of a central read can be judged from config and sheets alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from corelab.settings.config import Config
from corelab.study.findings import Finding, at, in_config


def _design(config: Config, participants: pd.DataFrame) -> Iterator[Finding]:
    """A single-arm trial is read centrally, and all of it (CDE guideline, checklist C04)."""
    reading = config.reading
    arms = list(participants["arm"].dropna().unique()) if "arm" in participants else []
    if config.study.design != "single_arm":
        if len(arms) == 1 and config.study.design is None and reading.sample:
            message = f"all participants are in the arm {arms[0]}, and only a sample is read"
            remedy = "say study.design; a single-arm trial needs every subject read centrally"
            yield in_config("study.design", None, message, remedy, "warning")
        return
    if len(arms) > 1:
        message = f"the design is single_arm, but the participants sheet has {len(arms)} arms"
        yield in_config("study.design", "single_arm", message, "correct the design or the sheet")
    if not reading.adjudication:
        message = "a single-arm trial needs blinded independent central review (checklist C04)"
        remedy = "give the charter's rule for each endpoint in reading.adjudication"
        yield in_config("study.design", "single_arm", message, remedy)
    if reading.sample:
        message = "in a single-arm trial every subject is read centrally, not a sample of them"
        yield in_config("reading.sample", f"{reading.sample.share:g}", message, "leave it out")


def _sample(config: Config, participants: pd.DataFrame) -> Iterator[Finding]:
    sample = config.reading.sample
    for column in sample.strata or () if sample else ():
        if column not in participants:
            message = "no such column in the participants sheet"
            remedy = "known columns: " + ", ".join(map(str, participants.columns))
            yield in_config("reading.sample.strata", column, message, remedy)


def _references(sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Iterator[Finding]:
    """Reference cases are none of the study, and have one truth per endpoint."""
    sheet = sheets.get("reference_cases")
    if sheet is None or not {"reference_id", "endpoint", "value"} <= set(sheet.columns):
        return
    name = names["reference_cases"]
    people = sheets.get("participants", pd.DataFrame())
    known = set(people["participant_id"]) if "participant_id" in people else set()
    for line, one in sheet["reference_id"].items():
        if one in known:
            message = "a reference case has the id of a participant"
            yield at(name, line, "reference_id", one, message, "rename it")
    truths = sheet.dropna(subset=["value"]).groupby(["reference_id", "endpoint"])["value"].nunique()
    for one, endpoint in truths.index[truths > 1]:
        message = f"two true values of {endpoint}"
        yield at(name, None, "value", one, message, "keep one of them")


def _final_source(
    sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> Iterator[Finding]:
    """No reader or software may bear the name under which final reads stand."""
    for sheet, column in (("reads", "reader"), ("rereads", "reader"), ("measurements", "source")):
        frame = sheets.get(sheet)
        if frame is None or column not in frame:
            continue
        taken = {"final", "investigator"} if column == "reader" else {"final"}
        for one in sorted(set(frame[column].dropna())):
            if one in taken or one.startswith(("final:", "rereview:")):
                message = "this name is kept for what the workflow makes of the reads"
                name = names.get(sheet, sheet)
                yield at(name, None, column, one, message, "rename it")


def central_findings(
    config: Config, sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> list[Finding]:
    """Findings about the central read.

    ``sheets`` by name, indexed by line number; ``names``: sheet -> file name for the findings.
    """
    participants = sheets.get("participants", pd.DataFrame())
    return [
        *_design(config, participants),
        *_sample(config, participants),
        *_references(sheets, names),
        *_final_source(sheets, names),
    ]
