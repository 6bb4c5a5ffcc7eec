"""Sheets and truth of the simulated glioblastoma trial."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corelab.phantom import truth
from corelab.phantom.glioma_design import (
    ASSESSORS,
    EARLY_DAYS,
    FEATURE_SOURCES,
    KINDS,
    LABELS,
    PLANTED,
    READERS,
    UNRELIABLE,
    VISITS,
    GliomaSpec,
    cohort,
    draw,
    feature_values,
    features,
    volume_ml,
)
from corelab.phantom.glioma_scans import true_masks
from corelab.phantom.seeds import generator
from corelab.phantom.truth import truth_row
from corelab.provenance.products import write_table
from corelab.study.columns import RADIOMICS_PREFIX
from corelab.study.naming import session_entity, subject_entity
from corelab.terms.labels import VOLUME_ENDPOINTS

if TYPE_CHECKING:
    import pandas as pd

#: SD of a reader's volume about the truth, share of the volume.
READER_SD = {"reader-1": 0.04, "reader-2": 0.07}


def scan_path(
    participant_id: str, visit: str, kind: str, reader: str | None = None, repeat: int = 1
) -> str:
    """Path of a simulated scan, relative to the phantom folder of the study's results.

    Examples
    --------
    >>> scan_path("001", "preop", "mask-enhancing", "reader-1")
    'visits/sub-001_ses-preop/mask-enhancing_reader-1.nii.gz'
    """
    visit_folder = f"{subject_entity(participant_id)}_{session_entity(visit)}"
    if repeat != 1:
        return f"rescans/{visit_folder}/{kind}_run-{repeat}.nii.gz"
    drawn = f"_{reader}" if reader else ""
    return f"visits/{visit_folder}/{kind}{drawn}.nii.gz"


def sheets(spec: GliomaSpec) -> dict[str, pd.DataFrame]:
    """All sheets of the trial.

    Examples
    --------
    >>> tables = sheets(GliomaSpec())
    >>> len(tables["participants"]), tables["scans"]["participant_id"].nunique()
    (88, 8)
    """
    people = cohort(spec)
    import pandas as pd

    rows: dict[str, list[dict[str, Any]]] = {
        "participants": [
            {
                "participant_id": name,
                "arm": person.arm,
                "site": f"site-{1 + int(name) % 4}",
                "age": person.age,
                "sex": "F" if person.female else "M",
                "mgmt": person.mgmt,
                "idh": person.idh,
            }
            for name, person in people.items()
        ],
        "scans": [row for name in spec.imaged for row in _scan_rows(spec, name)],
        "reads": [row for name in people for row in _read_rows(spec, name)],
        "events": [row for name in people for row in _event_rows(spec, name)],
        "features": _feature_rows(spec),
    }
    return {name: pd.DataFrame(own) for name, own in rows.items()}


def write_sheets(spec: GliomaSpec, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the sheets as TSV."""
    return [
        write_table(table, Path(folder) / f"{name}.tsv", list(table.columns), sort=False)
        for name, table in sheets(spec).items()
    ]


def _scan_rows(spec: GliomaSpec, name: str) -> list[dict[str, Any]]:
    wanted: list[tuple[str, str, str | None, int]] = []
    for visit in VISITS:
        wanted += [(visit, kind, None, 1) for kind in KINDS]
        wanted += [(visit, f"mask-{label}", reader, 1) for label in LABELS for reader in READERS]
    if name in spec.rescanned:
        wanted += [("preop", kind, None, 2) for kind in KINDS]
    return [
        {
            "participant_id": name,
            "visit": visit,
            "kind": kind,
            "path": scan_path(name, visit, kind, reader, repeat),
            "reader": reader,
            "repeat": repeat,
            "space": "native",
        }
        for visit, kind, reader, repeat in wanted
    ]


def _read_rows(spec: GliomaSpec, name: str) -> list[dict[str, Any]]:
    """Volumes that both readers measured, of participants whose images are not here."""
    if name in spec.imaged:
        return []
    person, found = cohort(spec)[name], []
    for reader in READERS:
        for visit in VISITS:
            rng = generator(spec.seed, name, visit, reader, "reading")
            read = {
                label: volume_ml(person, visit, label)
                * float(np.exp(READER_SD[reader] * rng.standard_normal()))
                for label in LABELS
            }
            read["whole-tumour"] = max(read["whole-tumour"], read["enhancing"])
            values = {label: round(value, 2) for label, value in read.items()}
            values["oedema"] = round(values["whole-tumour"] - values["enhancing"], 2)
            found += [
                {
                    "participant_id": name,
                    "visit": visit,
                    "endpoint": VOLUME_ENDPOINTS[label],
                    "reader": reader,
                    "value": value,
                    "unit": "mL",
                    "repeat": 1,
                    "role": "reader",
                }
                for label, value in values.items()
            ]
    return found


def _event_rows(spec: GliomaSpec, name: str) -> list[dict[str, Any]]:
    """Death, progression by local RECIST, and by RANO of three assessors with their consensus."""
    person = cohort(spec)[name]
    rng = generator(spec.seed, name, "panel")

    more = ("criterion", "assessor", "confirmed", "later_time_days", "later_event")

    def row(endpoint: str, days: float, event: int, **given: Any) -> dict[str, Any]:
        head = {"participant_id": name, "endpoint": endpoint}
        empty = dict.fromkeys(more)
        return {**head, "time_days": int(days), "event": int(event), **empty, **given}

    found = [row("os", person.os_days, person.os_event)]
    recist = person.recist_days, person.recist_event
    local = row("pfs", *recist, criterion="RECIST", assessor="local")
    if person.recist_event and person.recist_days <= EARLY_DAYS:
        local |= {"confirmed": 0 if person.early else 1}
        if person.early:
            local["later_time_days"] = int(person.later_days)
            local["later_event"] = int(person.later_event)
    found.append(local)
    truth = person.rano_days, person.rano_event
    discord = rng.random() < spec.panel_discord_share
    deviant = int(rng.integers(len(ASSESSORS)))
    for number, assessor in enumerate(ASSESSORS):
        days, event = truth
        if discord and number == deviant:
            days = min(days + int(rng.integers(20, 70)), person.os_days)
            if days == truth[0]:
                event = 1 - event
        found.append(row("pfs", days, event, criterion="RANO", assessor=assessor))
    if discord:
        found.append(row("pfs", *truth, criterion="RANO", assessor="consensus"))
    return found


def _feature_rows(spec: GliomaSpec) -> list[dict[str, Any]]:
    names, people = features(), list(cohort(spec))
    found = []
    for source in FEATURE_SOURCES:
        values = feature_values(spec)[source]
        for column, participant in enumerate(people):
            for row, key in enumerate(names):
                if np.isfinite(values[row, column]):
                    found.append(
                        {
                            "participant_id": participant,
                            "visit": "preop",
                            "endpoint": RADIOMICS_PREFIX + ":".join(key),
                            "source": source,
                            "value": f"{values[row, column]:.3f}",
                        }
                    )
    return found


#: Columns of the truth table.
TRUTH = {**truth.TRUTH, "region": "'all', or the feature that an effect is about"}
#: Participants of the simulated population from which medians and R2 are taken.
POPULATION = 100_000


def write_truth(spec: GliomaSpec, path: str | os.PathLike[str]) -> Path:
    """Write the truth table of the trial."""
    import pandas as pd

    table = pd.DataFrame([*_effect_rows(spec), *_volume_rows(spec)], columns=list(TRUTH))
    return write_table(table, path, TRUTH)


def median_days(days: np.ndarray, event: np.ndarray) -> float:
    """Median of a large sample by Kaplan-Meier (censoring starts late, so ties do not matter).

    Examples
    --------
    >>> median_days(np.arange(1.0, 10.0), np.ones(9))
    5.0
    """
    order = np.argsort(days, kind="stable")
    at_risk = np.arange(days.size, 0, -1)
    survival = np.cumprod(1 - event[order] / at_risk)
    return float(days[order][int(np.argmax(survival <= 0.5))])


def _effect_rows(spec: GliomaSpec) -> list[dict[str, Any]]:
    people = draw(spec, POPULATION, generator(spec.seed, "population"))
    ratio = "ratio"
    found = [
        truth_row("all", "all", name, value, ratio, "hazard of death, all three in one Cox model")
        for name, value in (
            ("hazard_ratio:risk", spec.risk_hazard_ratio),
            ("hazard_ratio:mgmt", spec.mgmt_hazard_ratio),
            ("hazard_ratio:idh", spec.idh_hazard_ratio),
            ("hazard_ratio:arm", 1.0),
        )
    ]
    note = f"of a population of {POPULATION} drawn like the trial"
    for name in ("os", "rano", "recist"):
        median = median_days(people[f"{name}_days"].to_numpy(), people[f"{name}_event"].to_numpy())
        found.append(truth_row("all", "all", f"median_days:{name}", median, "days", note))
    all_seen = (people["os_event"] & people["rano_event"] & people["recist_event"]) == 1
    for name in ("rano", "recist"):
        r = np.corrcoef(people[f"{name}_days"][all_seen], people["os_days"][all_seen])[0, 1]
        found.append(
            truth_row(
                "all", "all", f"r_squared:{name}", float(r**2), ratio, note + ", all events seen"
            )
        )
    found += [
        truth_row("all", "preop", f"{name}:features", 1.0, "flag", note, region=":".join(key))
        for name, keys, note in (
            ("planted", PLANTED, "higher in high risk"),
            ("unreliable", UNRELIABLE, "two readers' masks do not reproduce it"),
        )
        for key in keys
    ]
    for name, person in cohort(spec).items():
        found.append(
            truth_row(name, "all", "risk_high", float(person.high), "flag", "latent risk group")
        )
    return found


def _volume_rows(spec: GliomaSpec) -> list[dict[str, Any]]:
    """Planned volumes of all participants, and volumes of true masks on the grid of the T1c."""
    found = []
    for name, person in cohort(spec).items():
        for visit in VISITS:
            found += [
                truth_row(
                    name, visit, VOLUME_ENDPOINTS[label], volume_ml(person, visit, label), "mL", ""
                )
                for label in (*LABELS, "oedema")
            ]
        found.append(
            truth_row(name, "postop", "extent_of_resection", person.eor, "percent", "enhancing")
        )
    for name in spec.imaged:
        for visit in VISITS:
            masks, voxel_ml = true_masks(spec, name, visit)
            found += [
                truth_row(
                    name,
                    visit,
                    VOLUME_ENDPOINTS[label],
                    float(masks[label].sum()) * voxel_ml,
                    "mL",
                    "voxels of which at least half is the region",
                    kind="T1c",
                )
                for label in (*LABELS, "oedema")
            ]
    return found
