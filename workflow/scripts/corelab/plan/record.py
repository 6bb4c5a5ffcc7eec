"""The analysis plan as a record: fingerprinted, and compared with the plan that was locked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import read_json, write_json, write_table
from corelab.settings.base import fingerprint
from corelab.study.model import Study

DEVIATIONS = {
    "analysis_id": "Analysis of the plan; n/a for what concerns the whole plan",
    "what": "added, removed, changed or reordered",
    "key": "Key of the analysis that differs",
    "locked": "Its value in the locked plan, as JSON",
    "now": "Its value now, as JSON",
    "locked_fingerprint": "Fingerprint of the locked plan",
    "fingerprint": "Fingerprint of the plan as run",
}
#: Parts of a config that pre-specify the analysis beside the analyses themselves.
PARTS = ("visits", "cohort_flows", "serial_imaging")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def plan_record(study: Study) -> dict[str, Any]:
    """The plan of a study with its fingerprint and that of each analysis.

    Parameters
    ----------
    study
        As read from config and sheets.

    Returns
    -------
    dict
        ``study``, ``sap_version``, ``fingerprint``, ``analyses`` (as configured), their
        ``fingerprints`` by id, and the parts of :data:`PARTS`.
    """
    config = study.config
    return {
        "study": study.id,
        "sap_version": config["study"]["sap_version"],
        "fingerprint": study.settings.plan_fingerprint,
        "analyses": config["analyses"],
        "fingerprints": {a["id"]: fingerprint(a) for a in config["analyses"]},
        **{part: config[part] for part in PARTS},
    }


def deviations(locked: Mapping[str, Any], now: Mapping[str, Any]) -> pd.DataFrame:
    """What differs between the locked plan and the plan as run.

    Parameters
    ----------
    locked, now
        Records of :func:`plan_record`.

    Returns
    -------
    pandas.DataFrame
        Columns of :data:`DEVIATIONS`; empty where the plan is the locked one.

    Examples
    --------
    >>> a = {"id": "a", "type": "comparison", "alpha": 0.05}
    >>> locked = {"fingerprint": "x", "analyses": [a]}
    >>> b = {"id": "b", "type": "ordinal"}
    >>> now = {"fingerprint": "y", "analyses": [{**a, "alpha": 0.1}, b]}
    >>> deviations(locked, now)[["analysis_id", "what", "key", "locked", "now"]].values.tolist()
    [['a', 'changed', 'alpha', '0.05', '0.1'], ['b', 'added', 'id', None, '"b"']]
    """
    found: list[tuple[Any, ...]] = []
    before = {a["id"]: a for a in locked["analyses"]}
    after = {a["id"]: a for a in now["analyses"]}
    for name, analysis in after.items():
        if name not in before:
            found.append((name, "added", "id", None, _text(name)))
            continue
        old = before[name]
        for key in sorted(set(old) | set(analysis)):
            if old.get(key) != analysis.get(key):
                values = [_text(p[key]) if key in p else None for p in (old, analysis)]
                found.append((name, "changed", key, *values))
    found += [(n, "removed", "id", _text(n), None) for n in before if n not in after]
    kept = [[n for n in order if n in before and n in after] for order in (before, after)]
    if kept[0] != kept[1]:
        # The order is that of a fixed sequence.
        found.append((None, "reordered", "analyses", _text(kept[0]), _text(kept[1])))
    for part in PARTS:
        if part in locked and locked[part] != now.get(part):
            found.append((None, "changed", part, _text(locked[part]), _text(now.get(part))))
    frame = pd.DataFrame(found, columns=list(DEVIATIONS)[:5])
    return frame.assign(locked_fingerprint=locked["fingerprint"], fingerprint=now["fingerprint"])


def locked_plan(path: str | Path) -> dict[str, Any]:
    """Read a locked plan.

    Raises
    ------
    ValueError
        If the file is no plan, or its analyses do not have the fingerprint that it states.
    """
    try:
        record: dict[str, Any] = read_json(path)
        analyses, stated = record["analyses"], record["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no locked plan ({error!r}); give a copy of statistics/plan.json"
        ) from None
    found = fingerprint({"analyses": analyses, "visits": record.get("visits")})
    if found != stated:
        raise ValueError(
            f"{path}: the locked plan was edited: its analyses have the fingerprint {found}, it "
            f"states {stated}"
        )
    return record


def differs_from_lock(analysis: Mapping[str, Any], path: str | Path | None) -> bool:
    """Whether the locked plan lacks an analysis or has it otherwise; False without a lock."""
    if not path:
        return False
    before = {a["id"]: a for a in locked_plan(path)["analyses"]}
    return before.get(analysis["id"]) != dict(analysis)


def write_plan(study: Study, plan: str | Path, table: str | Path, exhibit: str | Path) -> None:
    """Write the plan, its deviations from the locked one, and both for the report.

    Parameters
    ----------
    study
        As read from config and sheets.
    plan, table, exhibit
        ``statistics/plan.json``, ``statistics/plan_deviations.tsv`` and the exhibit.
    """
    from corelab.provenance.exhibits import Alarm, write_exhibit

    record = plan_record(study)
    write_json(record, plan)
    path = study.settings.locked_plan
    if not path:
        frame = pd.DataFrame(columns=list(DEVIATIONS))
        title = "No locked plan was given"
        caption = (
            f"Plan as run, fingerprint {record['fingerprint']}. To lock it, keep a copy of "
            "statistics/plan.json and name it in locked_plan: later runs list what differs."
        )
    else:
        locked = locked_plan(path)
        frame = deviations(locked, record)
        title = (
            f"{len(frame)} deviations from the locked plan"
            if len(frame)
            else "The plan is the locked plan"
        )
        caption = (
            f"Locked plan: fingerprint {locked['fingerprint']}, version "
            f"{locked.get('sap_version') or 'n/a'}; plan as run: {record['fingerprint']}."
        )
    write_table(frame, table, DEVIATIONS, sort=False)
    alarms = [Alarm("warning", f"{title}; they are listed under Methods")] if len(frame) else []
    write_exhibit(
        exhibit,
        section="methods",
        title=title,
        caption=caption,
        table="statistics/plan_deviations.tsv" if len(frame) else "",
        columns={
            "analysis_id": "Analysis",
            "what": "What",
            "key": "Key",
            "locked": "Locked",
            "now": "As run",
        },
        alarms=alarms,
        order=10,
    )


TRIAL_ENDPOINTS = {
    "endpoint": "Endpoint of the measurements, reads or outcomes",
    "standing": "What it is for in the trial",
    "definition": "Definition, with unit",
    "given_by": "Who gives the value",
}


def write_trial(study: Study, table: str | Path, exhibit: str | Path) -> None:
    """Write what trial a design is modelled on: endpoints, and what imaging was for.

    Parameters
    ----------
    study
        With ``trial`` in its config.
    table, exhibit
        ``statistics/trial_endpoints.tsv`` and the exhibit.
    """
    from corelab.provenance.exhibits import write_exhibit

    trial = study.settings.trial
    assert trial is not None
    rows = [(one.name, one.standing, one.definition, one.source) for one in trial.endpoints or ()]
    frame = pd.DataFrame(rows, columns=list(TRIAL_ENDPOINTS))
    write_table(frame, table, TRIAL_ENDPOINTS, sort=False)
    said = [
        f"{trial.name} ({trial.citation}).",
        f"{trial.drug}." if trial.drug else "",
        f"Role of imaging: {trial.imaging_role}",
        f"Modalities: {', '.join(trial.modalities)}." if trial.modalities else "",
        f"Needs: {', '.join(trial.functions)}." if trial.functions else "",
        f"Stated in: {trial.role_source}." if trial.role_source else "",
    ]
    write_exhibit(
        exhibit,
        section="methods",
        title=f"Design: {trial.name}",
        caption=" ".join(part for part in said if part),
        table="statistics/trial_endpoints.tsv",
        columns={
            "endpoint": "Endpoint",
            "standing": "Standing",
            "definition": "Definition",
            "given_by": "Given by",
        },
        order=5,
    )
