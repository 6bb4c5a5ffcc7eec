"""The sheets of the simulated trial, as an earlier reading and a clinic would have left them.

36 participants have tables; the images of six of them are simulated (:mod:`corelab.phantom.scans`)
and the volumes of the others come from an earlier pipeline run (source ``supplied``) and from a
second software (``software-b``), each with an error of stated size.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corelab.phantom.design import (
    CONTOUR_VISIT,
    CONTOURED,
    DIFFUSION_KINDS,
    Participant,
    Rater,
    TrialSpec,
    enrol,
    infarct_volume_ml,
    repeats,
    seen_at,
    volume_readings,
)
from corelab.phantom.seeds import generator
from corelab.provenance.products import write_table
from corelab.study.naming import session_entity, subject_entity
from corelab.terms.endpoints import ENDPOINT_UNITS
from corelab.terms.kinds import DATATYPES

if TYPE_CHECKING:
    import pandas as pd

_FIRST_DAY = datetime(2025, 1, 13, 8, 0)
_FIRST_READ = datetime(2026, 2, 2, 9, 0)
_VISIT_DAY = {"baseline": 0, "day5": 5}
_WITHDRAWN_REASON = "participant withdrew consent after the baseline visit"
_MISSED_REASON = "participant did not come to the day 5 visit"


def scan_path(participant_id: str, visit: str, kind: str, reader: str | None = None) -> str:
    """Path of a simulated scan, relative to the phantom folder of the study's results.

    Examples
    --------
    >>> scan_path("001", "day5", "mask-infarct", "reader-1")
    'sub-001/ses-day5/dwi/sub-001_ses-day5_label-infarct_desc-reader1_mask.nii.gz'
    """
    subject, session = subject_entity(participant_id), session_entity(visit)
    if kind.startswith("mask-"):
        folder = "dwi"
        desc = (reader or "truth").replace("-", "")
        name = f"label-{kind.removeprefix('mask-')}_desc-{desc}_mask"
    else:
        folder, name = DATATYPES[kind], kind
    return f"{subject}/{session}/{folder}/{subject}_{session}_{name}.nii.gz"


def sheets(spec: TrialSpec) -> dict[str, pd.DataFrame]:
    """All sheets of the trial.

    Examples
    --------
    >>> tables = sheets(TrialSpec())
    >>> list(tables), tables["scans"]["participant_id"].nunique()
    (['participants', 'scans', 'reads', 'outcomes', 'exposures', 'measurements'], 6)
    """
    import pandas as pd

    people = enrol(spec)
    rows = {
        "participants": [_participant_row(person) for person in people],
        "scans": [row for person in people for row in _scan_rows(spec, person)],
        "reads": _read_rows(spec),
        "outcomes": [row for person in people for row in _outcome_rows(spec, person)],
        "exposures": [_exposure_row(person) for person in people],
        "measurements": [row for person in people for row in _measurement_rows(spec, person)],
    }
    return {name: pd.DataFrame(own) for name, own in rows.items()}


def write_sheets(spec: TrialSpec, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the sheets as TSV."""
    return [
        write_table(table, Path(folder) / f"{name}.tsv", list(table.columns))
        for name, table in sheets(spec).items()
    ]


def _participant_row(person: Participant) -> dict[str, Any]:
    return {
        "participant_id": person.participant_id,
        "arm": person.arm,
        "dose": person.dose_mg_kg,
        "site": person.site,
        "age": person.age_years,
        "sex": person.sex,
        "onset_to_ct_min": person.onset_to_ct_min,
        "withdrawn": "yes" if person.withdrawn else "no",
    }


def _scan_rows(spec: TrialSpec, person: Participant) -> list[dict[str, Any]]:
    rows = []
    for visit, kinds in spec.schedule.get(person.participant_id, {}).items():
        rng = generator(spec.seed, person.participant_id, visit, "clock")
        start = _FIRST_DAY + timedelta(
            days=9 * int(person.participant_id) + _VISIT_DAY[visit],
            minutes=int(rng.integers(0, 600)),
        )
        contours: list[tuple[str, str | None]] = []
        if visit == CONTOUR_VISIT and person.participant_id in CONTOURED and "dwi" in kinds:
            contours = [("mask-infarct", reader.name) for reader in spec.readers]
        for order, (kind, reader) in enumerate([(kind, None) for kind in kinds] + contours):
            # The diffusion images are one acquisition, and a contour bears the time of its image.
            together = reader is not None or kind in DIFFUSION_KINDS
            first = min((kinds.index(k) for k in DIFFUSION_KINDS if k in kinds), default=order)
            minutes = 4 * (first if together else order)
            rows.append(
                {
                    "participant_id": person.participant_id,
                    "visit": visit,
                    "kind": kind,
                    "path": scan_path(person.participant_id, visit, kind, reader),
                    "reader": reader,
                    "repeat": 1,
                    "space": "native",
                    "acquired_at": (start + timedelta(minutes=minutes)).isoformat(),
                }
            )
    return rows


def _aspects_readings(spec: TrialSpec) -> dict[tuple[str, str, int], int]:
    """ASPECTS by (participant, reader, repeat): a latent score that falls with the core."""
    found = {}
    for person in enrol(spec):
        latent = true_aspects(person)
        for reader in spec.readers:
            for repeat in range(1, repeats(person) + 1):
                rng = generator(
                    spec.seed, person.participant_id, reader.name, str(repeat), "aspects"
                )
                score = latent + reader.aspects_bias + reader.aspects_sd * rng.standard_normal()
                found[person.participant_id, reader.name, repeat] = int(
                    np.clip(np.rint(score), 0, 10)
                )
    return found


def true_aspects(person: Participant) -> float:
    """ASPECTS before reading and rounding: 10 less one point per 5 mL of core."""
    return float(np.clip(10 - person.lesion.core_ml / 5, 0, 10))


def _read_rows(spec: TrialSpec) -> list[dict[str, Any]]:
    """Reads of volumes and of ASPECTS, each reader in an order of his own."""
    cases: dict[str, list[tuple[str, str, str, int, float, str]]] = {
        r.name: [] for r in spec.readers
    }
    for (participant_id, visit, reader, repeat), value in volume_readings(spec).items():
        cases[reader].append((participant_id, visit, "infarct_volume", repeat, value, "mL"))
    for (participant_id, reader, repeat), score in _aspects_readings(spec).items():
        cases[reader].append((participant_id, "baseline", "aspects", repeat, score, "score"))
    rows = []
    for reader, items in cases.items():
        rng = generator(spec.seed, reader, "presentation")
        # First reads come first, second reads weeks later; within each the order is random.
        keys = [(item[3], float(rng.random())) for item in items]
        for order, index in enumerate(sorted(range(len(items)), key=lambda i: keys[i]), start=1):
            participant_id, visit, endpoint, repeat, value, unit = items[index]
            at = _FIRST_READ + timedelta(
                days=42 * (repeat - 1) + (order - 1) // 24, minutes=15 * ((order - 1) % 24)
            )
            rows.append(
                {
                    "participant_id": participant_id,
                    "visit": visit,
                    "endpoint": endpoint,
                    "reader": reader,
                    "repeat": repeat,
                    "value": value,
                    "unit": unit,
                    "role": "reader",
                    "read_at": at.isoformat(),
                    "presentation_order": order,
                }
            )
    return rows


def _outcome_rows(spec: TrialSpec, person: Participant) -> list[dict[str, Any]]:
    """NIHSS follows the hypoperfused and then the infarcted volume; mRS the infarct and age."""
    rng = generator(spec.seed, person.participant_id, "outcome")
    baseline, later, latent = rng.standard_normal(3)
    lesion = person.lesion
    early = np.clip(np.rint(3 + 0.12 * lesion.hypoperfused_ml + 2.5 * baseline), 1, 30)
    late = np.clip(np.rint(0.25 * lesion.infarct_ml + 2.0 * later), 0, 40)
    aged = 0.2 + 0.05 * lesion.infarct_ml + 0.03 * (person.age_years - 70)
    mrs = np.clip(np.rint(aged + 0.9 * latent), 0, 6)
    values = (("baseline", "nihss", early), ("day5", "nihss", late), ("day90", "mrs", mrs))
    return [
        {
            "participant_id": person.participant_id,
            "visit": visit,
            "outcome": outcome,
            "value": int(value),
            "unit": "points",
        }
        for visit, outcome, value in values
        if seen_at(person, visit)
    ]


def _exposure_row(person: Participant) -> dict[str, Any]:
    return {
        "participant_id": person.participant_id,
        "exposure": "auc",
        "value": person.auc_ng_h_ml,
        "visit": "baseline",
        "unit": "ng*h/mL",
    }


def _measured(
    spec: TrialSpec, person: Participant, rater: Rater
) -> dict[tuple[str, str], float | None]:
    """Values of a software for a participant: (visit, endpoint) -> value, None where not seen."""

    def read(truth_ml: float, *names: str, share: float = 1.0) -> float:
        rng = generator(spec.seed, person.participant_id, rater.name, *names)
        error = rater.bias_ml + rater.sd_ml * share * rng.standard_normal()
        return round(max(truth_ml + error, 0.0), 2)

    lesion = person.lesion
    found: dict[tuple[str, str], float | None] = {}
    for visit in ("baseline", "day5"):
        truth = infarct_volume_ml(person, visit)
        seen = seen_at(person, visit)
        found[visit, "infarct_volume"] = read(truth, visit, "infarct") if seen else None
    core = read(lesion.core_ml, "core")
    # Hypoperfused tissue is the larger and the vaguer region: twice the error.
    hypoperfused = read(lesion.hypoperfused_ml, "hypoperfused", share=2.0)
    found["baseline", "core_volume"] = core
    found["baseline", "hypoperfused_volume"] = hypoperfused
    found["baseline", "penumbra_volume"] = round(hypoperfused - core, 2)
    found["baseline", "mismatch_ratio"] = round(hypoperfused / core, 4)
    before, after = found["baseline", "infarct_volume"], found["day5", "infarct_volume"]
    growth = None if before is None or after is None else round(after - before, 2)
    found["day5", "infarct_growth"] = growth
    return found


def _measurement_rows(spec: TrialSpec, person: Participant) -> list[dict[str, Any]]:
    raters = [spec.software]
    if person.participant_id not in spec.imaged:
        raters.append(spec.earlier)
    reason = _WITHDRAWN_REASON if person.withdrawn else _MISSED_REASON
    return [
        {
            "participant_id": person.participant_id,
            "visit": visit,
            "endpoint": endpoint,
            "source": rater.name,
            "repeat": 1,
            "region": "all",
            "value": value,
            "unit": ENDPOINT_UNITS[endpoint],
            "status": "missing" if value is None else "ok",
            "reason": reason if value is None else None,
        }
        for rater in raters
        for (visit, endpoint), value in _measured(spec, person, rater).items()
    ]
