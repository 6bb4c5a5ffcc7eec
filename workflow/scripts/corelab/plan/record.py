"""The analysis plan as a record: fingerprinted, and compared with the plan that was locked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import read_json, write_json, write_table
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.base import fingerprint
from corelab.settings.config import Config
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


@dataclass(frozen=True)
class PlanRecord:
    """The plan of a study, ``statistics/plan.json``; a copy of it is a locked plan.

    Attributes
    ----------
    study, sap_version
        Of the config.
    fingerprint
        Of the analyses and the order of visits.
    analyses
        Entries of the plan, as configured, by id.
    parts
        Parts of the config by name, those of :data:`PARTS`.
    """

    study: str
    sap_version: str | None
    fingerprint: str
    analyses: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Config) -> PlanRecord:
        """The plan of a config."""
        return cls(
            settings.study.id,
            settings.study.sap_version,
            settings.plan_fingerprint,
            {entry["id"]: entry for entry in settings.analyses},
            settings.plain(*PARTS),
        )

    @classmethod
    def read(cls, path: str | Path) -> PlanRecord:
        """Read a plan.

        ValueError if the file is no plan, or its analyses do not have the fingerprint that it
        states.
        """
        try:
            content = read_json(path)
            analyses, stated = content["analyses"], content["fingerprint"]
            entries = {entry["id"]: entry for entry in analyses}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: no locked plan ({error!r}); give a copy of statistics/plan.json"
            ) from None
        found = fingerprint({"analyses": analyses, "visits": content.get("visits")})
        if found != stated:
            raise ValueError(
                f"{path}: the locked plan was edited: its analyses have the fingerprint {found}, "
                f"it states {stated}"
            )
        parts = {part: content[part] for part in PARTS if part in content}
        return cls(content.get("study", ""), content.get("sap_version"), stated, entries, parts)

    def write(self, path: str | Path) -> None:
        """Write the plan, with the fingerprint of each analysis."""
        content = {
            "study": self.study,
            "sap_version": self.sap_version,
            "fingerprint": self.fingerprint,
            "analyses": list(self.analyses.values()),
            "fingerprints": {name: fingerprint(entry) for name, entry in self.analyses.items()},
        }
        write_json({**content, **self.parts}, path)

    def has(self, analysis: AnalysisSpec) -> bool:
        """Whether the plan has an analysis as it is."""
        return self.analyses.get(analysis.id) == analysis.as_given()


def deviations(locked: PlanRecord, now: PlanRecord) -> pd.DataFrame:
    """What differs between the locked plan and the plan as run: columns of :data:`DEVIATIONS`.

    Examples
    --------
    >>> a = {"id": "a", "type": "comparison", "alpha": 0.05}
    >>> locked = PlanRecord("s", None, "x", {"a": a}, {})
    >>> b = {"id": "b", "type": "ordinal"}
    >>> now = PlanRecord("s", None, "y", {"a": {**a, "alpha": 0.1}, "b": b}, {})
    >>> deviations(locked, now)[["analysis_id", "what", "key", "locked", "now"]].values.tolist()
    [['a', 'changed', 'alpha', '0.05', '0.1'], ['b', 'added', 'id', None, '"b"']]
    """
    found: list[tuple[Any, ...]] = []
    before, after = locked.analyses, now.analyses
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
        if part in locked.parts and locked.parts[part] != now.parts.get(part):
            values = [_text(plan.parts.get(part)) for plan in (locked, now)]
            found.append((None, "changed", part, *values))
    frame = pd.DataFrame(found, columns=list(DEVIATIONS)[:5])
    return frame.assign(locked_fingerprint=locked.fingerprint, fingerprint=now.fingerprint)


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

    record = PlanRecord.of(study.settings)
    record.write(plan)
    path = study.settings.locked_plan
    if not path:
        frame = pd.DataFrame(columns=list(DEVIATIONS))
        title = "No locked plan was given"
        caption = (
            f"Plan as run, fingerprint {record.fingerprint}. To lock it, keep a copy of "
            "statistics/plan.json and name it in locked_plan: later runs list what differs."
        )
    else:
        locked = PlanRecord.read(path)
        frame = deviations(locked, record)
        title = (
            f"{len(frame)} deviations from the locked plan"
            if len(frame)
            else "The plan is the locked plan"
        )
        caption = (
            f"Locked plan: fingerprint {locked.fingerprint}, version "
            f"{locked.sap_version or 'n/a'}; plan as run: {record.fingerprint}."
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
