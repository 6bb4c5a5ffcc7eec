"""A small results folder with known content, for the tests of the reporting package.

Not a simulated trial (corelab.phantom is that): brain-like images from the packaged MNI152
template, tables with numbers that a test can recognise, and the faults that a report must tell.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from corelab.measurement.selection import Tables
from corelab.provenance.products import read_table, write_json, write_table
from corelab.reporting.pictures import template_on
from corelab.reporting.results import Results, read_measurements, read_results
from corelab.settings.config import Config
from corelab.study.columns import (
    ACQUISITION,
    FINDINGS,
    FLOW,
    MEASUREMENTS,
    OVERLAP,
    STATISTICS,
)
from corelab.study.naming import derivative, mask_path, subject_entity, visit_folder

ARMS = ("placebo", "low", "high")
DOSES = {"placebo": 0, "low": 50, "high": 100}
HOSTILE = "S-31<script>alert(1)</script>"


def analyses() -> list[dict[str, Any]]:
    return [
        {
            "id": "growth-by-arm",
            "type": "comparison",
            "title": "Infarct growth by arm",
            "endpoint": "infarct_growth",
            "by": "arm",
            "reference": "placebo",
            "method": "ancova",
            "covariates": ["age"],
            "visit": "day5",
            "objective": "primary",
            "family": "primary",
        },
        {
            "id": "growth-by-dose",
            "type": "dose_response",
            "endpoint": "infarct_growth",
            "dose": "dose",
            "visit": "day5",
            "models": ["linear", "emax"],
            "objective": "primary",
        },
        {
            "id": "readers",
            "type": "agreement",
            "endpoint": "infarct_volume",
            "sources": ["reader-1", "reader-2"],
            "repeats": "between",
            "objective": "secondary",
        },
        {
            "id": "masks",
            "type": "overlap",
            "label": "infarct",
            "sources": ["pipeline", "reader-1"],
            "objective": "secondary",
        },
        {
            "id": "volume-mrs",
            "type": "correlation",
            "endpoint": "infarct_volume",
            "visit": "day5",
            "outcome": "mrs",
            "outcome_visit": "day90",
            "method": ["spearman"],
            "objective": "secondary",
        },
        {
            "id": "growth-exposure",
            "type": "correlation",
            "endpoint": "infarct_growth",
            "visit": "day5",
            "exposure": "auc",
            "method": "pearson",
            "population": 'arm != "placebo"',
            "objective": "secondary",
        },
        {
            "id": "mrs-shift",
            "type": "ordinal",
            "outcome": "mrs",
            "by": "arm",
            "reference": "placebo",
            "objective": "secondary",
        },
    ]


def config(**study: Any) -> dict[str, Any]:
    return {
        "study": {
            "id": "fab",
            "title": "Neuroprotection in acute stroke: a fabricated three-arm trial",
            "sap_version": "1.0",
            "blinded": False,
            "disease": "stroke",
            **study,
        },
        "results_dir": "results",
        "inputs": {"participants": "participants.tsv", "measurements": [], "covariates": []},
        "visits": {"order": ["baseline", "day5", "day90"], "baseline": "baseline"},
        "acquisition": {"use_defaults": True, "dwi": {"slice_thickness_mm_max": 5.0}},
        "registration": {"preset": "fast", "backend": "ants", "lesion": "mask", "seed": 1},
        "segmentation": {"consensus": {"method": "none", "readers": []}},
        "perfusion": {
            "core": {"engine": "bayes", "parameter": "rcbf", "below": 0.3, "early_below": 0.2},
            "hypoperfusion": {"engine": "osvd", "tmax_s_above": 6.0},
            "registry_engine": "osvd",
        },
        "measurement": {"frequency_denominator": "mapped"},
        "analyses": analyses(),
    }


def participants(number: int = 36) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for k in range(number):
        arm = ARMS[k % 3]
        rows.append(
            {
                "participant_id": HOSTILE if k == 30 else f"S-{k + 1:02d}",
                "arm": arm,
                "dose": str(DOSES[arm]),
                "site": f"site-{k % 3 + 1}",
                "age": str(int(rng.integers(48, 86))),
                "sex": "F" if rng.random() < 0.45 else "M",
            }
        )
    return pd.DataFrame(rows).astype(object)


def _outcomes(people: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(5)
    outcomes = pd.DataFrame(
        {
            "participant_id": people["participant_id"],
            "visit": "day90",
            "outcome": "mrs",
            "value": rng.integers(0, 7, len(people)),
            "unit": "score",
        }
    )
    treated = people[people["arm"] != "placebo"]
    exposures = pd.DataFrame(
        {
            "participant_id": treated["participant_id"],
            "visit": "baseline",
            "exposure": "auc",
            "value": treated["dose"].astype(float) * rng.lognormal(0, 0.3, len(treated)),
            "unit": "ug*h/mL",
        }
    )
    return outcomes, exposures


def _row_id(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12]


def measurements(people: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []

    def add(pid: str, visit: str, endpoint: str, source: str, value: Any, **other: Any) -> None:
        row = {
            "participant_id": pid,
            "visit": visit,
            "endpoint": endpoint,
            "source": source,
            "repeat": 1,
            "region": "all",
            "value": value,
            "unit": "mL",
            "status": "ok",
            "reason": None,
            "scan_ids": f"{pid}_{visit}_dwi",
            **other,
        }
        keys = ("participant_id", "visit", "endpoint", "source", "repeat", "region")
        row["row_id"] = _row_id(*(row[key] for key in keys))
        rows.append(row)

    for k, person in enumerate(people.itertuples()):
        base = float(rng.lognormal(2.5, 0.8))
        growth = 9.0 - 0.05 * float(person.dose) + float(rng.normal(0, 4))
        pid = str(person.participant_id)
        add(pid, "baseline", "infarct_volume", "pipeline", base)
        if k == 5:
            gone = {"status": "missing", "reason": "visit day5 not done"}
            add(pid, "day5", "infarct_volume", "pipeline", None, **gone)
            add(pid, "day5", "infarct_growth", "pipeline", None, **gone)
        else:
            later = max(base + growth, 0.0)
            add(pid, "day5", "infarct_volume", "pipeline", later)
            add(pid, "day5", "infarct_growth", "pipeline", later - base)
        if k < 18:
            for reader, bias in (("reader-1", 0.0), ("reader-2", 1.2)):
                for repeat in (1, 2):
                    value = max(base + bias + float(rng.normal(0, 0.9)), 0.0)
                    add(pid, "baseline", "infarct_volume", reader, value, repeat=repeat)
        if k < 6:
            add(pid, "baseline", "core_volume", "pipeline", 0.6 * base, unit="mL")
            add(pid, "baseline", "hypoperfused_volume", "pipeline", 4.1 * base)
            ratio = {"status": "not_computable", "reason": "core volume is 0"} if k == 4 else {}
            add(
                pid,
                "baseline",
                "mismatch_ratio",
                "pipeline",
                None if k == 4 else 6.8,
                unit="ratio",
                **ratio,
            )
            for region in ("1_ACAL", "2_ACAR", "3_MCAL"):
                add(
                    pid,
                    "day5",
                    "territory_fraction",
                    "pipeline",
                    float(rng.uniform(0, 0.3)),
                    unit="fraction",
                    region=region,
                )
    return pd.DataFrame(rows)


def _statistics() -> dict[str, list[dict[str, Any]]]:
    def row(
        analysis: str,
        statistic: str,
        estimate: Any,
        low: Any = None,
        high: Any = None,
        **other: Any,
    ) -> dict[str, Any]:
        return {
            **dict.fromkeys(STATISTICS),
            "analysis_id": analysis,
            "population": "all",
            "endpoint": "infarct_volume",
            "visit": "all",
            "participant_id": "all",
            "group": "all",
            "statistic": statistic,
            "estimate": estimate,
            "ci_low": low,
            "ci_high": high,
            "ci_level": 0.95 if low is not None else None,
            "n": 18,
            "method": "definition of the statistic",
            "note": "",
            **other,
        }

    pair = {"group": "reader-1|reader-2"}
    growth = {"endpoint": "infarct_growth", "visit": "day5", "n": 35}
    dose = {**growth, "group": "dose"}
    agreement = [
        row("readers", "icc_1_1", 0.9801234, 0.947, 0.9926, **pair),
        row(
            "readers",
            "icc_a_1",
            0.98112345,
            0.9512,
            0.99283,
            second_estimate=0.98112345,
            second_method="pingouin.intraclass_corr ICC(A,1)",
            method="two-way random, absolute agreement, single rater; McGraw and Wong interval",
            **pair,
        ),
        row("readers", "icc_c_1", 0.9872, 0.9660, 0.9952, **pair),
        row("readers", "ccc", 0.9799, 0.9512, 0.9918, **pair),
        row("readers", "bias", -1.18234, -1.7123, -0.6513, **pair),
        row("readers", "loa_lower", -3.3112, -4.2312, -2.3911, **pair),
        row("readers", "loa_upper", 0.9465, 0.0271, 1.8659, **pair),
        row("readers", "within_sd", 0.7678, 0.5760, 1.1510, **pair),
        row("readers", "repeatability_coefficient", 2.128, 1.597, 3.190, **pair),
        row(
            "readers", "kappa", None, note="not_computable: values are volumes, not grades", **pair
        ),
    ]
    overlap = [
        row("masks", "dice", 0.8612, 0.8204, 0.9021, n=11, group="pipeline|reader-1", note="mean"),
        row("masks", "hd95_mm", 3.42, 2.61, 4.43, n=11, group="pipeline|reader-1", note="mean"),
        row(
            "masks",
            "dice",
            0.8712,
            participant_id="S-01",
            visit="baseline",
            n=1,
            group="pipeline|reader-1",
        ),
    ]
    contrast = "arm={}|arm=placebo"
    pharmacodynamics = [
        row(
            "growth-by-arm",
            "mean_difference",
            -4.8123,
            -8.1021,
            -1.5224,
            p_value=0.00533,
            **growth | {"group": contrast.format("high")},
            method="ANCOVA adjusted for age, HC3",
        ),
        row(
            "growth-by-arm",
            "mean_difference",
            -2.2031,
            -5.5219,
            1.1157,
            p_value=0.1873,
            **growth | {"group": contrast.format("low")},
            method="ANCOVA adjusted for age, HC3",
        ),
        row("growth-by-dose", "slope", -0.04812, -0.0811, -0.0151, p_value=0.0054, **dose),
        row("growth-by-dose", "emax", None, note="not_computable: the data do not bend", **dose),
        row(
            "volume-mrs",
            "spearman_rho",
            0.5112,
            0.2123,
            0.7231,
            p_value=0.0014,
            visit="day5",
            n=35,
            group="infarct_volume|mrs",
        ),
        row(
            "growth-exposure",
            "pearson_r",
            -0.3481,
            -0.6612,
            0.0712,
            p_value=0.0973,
            **{**growth, "n": 23, "group": "infarct_growth|auc", "population": 'arm != "placebo"'},
        ),
        row(
            "mrs-shift",
            "common_odds_ratio",
            1.8123,
            0.7212,
            4.5532,
            p_value=0.2061,
            endpoint="mrs",
            visit="day90",
            n=36,
            group="arm=high|arm=placebo",
        ),
    ]
    return {
        "agreement": agreement,
        "overlap": overlap,
        "pharmacodynamics": pharmacodynamics,
        "survival": [],
        "radiomics": [],
        "phantom": [],
    }


def _save(folder: Path, path: str, data: np.ndarray, affine: np.ndarray) -> str:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), target)
    return path


def _brain() -> tuple[np.ndarray, np.ndarray]:
    affine = np.diag([2.4, 2.4, 6.0, 1.0])
    affine[:3, 3] = (-96, -132, -68)
    return template_on(affine, (80, 96, 28)), affine


def _ellipsoid(
    shape: tuple[int, ...], centre: tuple[float, ...], radius: tuple[float, ...]
) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    return sum(((grid[k] - centre[k]) / radius[k]) ** 2 for k in range(3)) <= 1


def _scan(pid: str, visit: str, kind: str, path: str | None, **other: Any) -> dict[str, Any]:
    return {
        "scan_id": f"{pid}_{visit}_{kind}" + (f"_{other['reader']}" if other.get("reader") else ""),
        "kind": kind,
        "label": None,
        "reader": None,
        "repeat": 1,
        "space": "native",
        "source": f"{pid}/{visit}/{kind}.nii.gz",
        "sha256": hashlib.sha256(f"{pid}{visit}{kind}".encode()).hexdigest(),
        "path": path,
        "unit": "a.u.",
        "shape": [80, 96, 28],
        "voxel_size_mm": [2.4, 2.4, 6.0],
        "grid": "g1",
        "status": "ok",
        "reason": None,
        "remedy": None,
        "notes": [],
        "metadata": {},
        **other,
    }


def _images(folder: Path, people: pd.DataFrame) -> None:
    brain, affine = _brain()
    rng = np.random.default_rng(11)
    inside = brain > 0
    for k, pid in enumerate([str(p) for p in people["participant_id"][:6]]):
        for visit in ("baseline", "day5"):
            if k == 5 and visit == "day5":
                continue
            size = (5 + k) * (1.0 if visit == "baseline" else 1.25)
            lesion = _ellipsoid(brain.shape, (26, 50, 16), (size, size * 1.3, size * 0.45)) & inside
            kind = "dwi" if visit == "baseline" else "FLAIR"
            folder_of = "dwi" if kind == "dwi" else "anat"
            level = float(np.percentile(brain[inside], 90))
            noise = rng.normal(0, 0.03 * level, brain.shape)
            data = ((brain * 0.55 + 0.7 * level * lesion + noise) * inside).clip(0)
            path = _save(
                folder, derivative(pid, visit, folder_of, kind), data.astype(np.float32), affine
            )
            mask = mask_path(pid, visit, "infarct", kind=kind)
            _save(folder, mask, lesion.astype(np.uint8), affine)
            scans = [_scan(pid, visit, kind, path)]
            if visit == "baseline" and k < 3:
                other = np.roll(lesion, 1, axis=0)
                drawn = mask_path(pid, visit, "infarct", kind=kind, desc="reader-1")
                _save(folder, drawn, other.astype(np.uint8), affine)
                scans.append(
                    _scan(
                        pid,
                        visit,
                        "mask-infarct",
                        drawn,
                        label="infarct",
                        reader="reader-1",
                        unit="label",
                    )
                )
            if k == 4:
                scans.append(
                    _scan(
                        pid,
                        visit,
                        "ncct",
                        None,
                        status="failed",
                        reason="the file ends early (gzip)",
                        remedy="copy it again",
                    )
                )
            here = folder / visit_folder(pid, visit)
            write_json(
                {
                    "stage": "prepare",
                    "participant_id": pid,
                    "visit": visit,
                    "status": "ok",
                    "reason": None,
                    "scans": scans,
                    "brain_masks": {},
                    "reference": "g1",
                    "acquisition": [],
                    "transforms": {
                        "g1": {
                            "to": "g1",
                            "path": None,
                            "method": "identity",
                            "quality": {},
                            "status": "ok",
                        }
                    },
                },
                here / "prepare.json",
            )
            write_json(
                {
                    "stage": "segment",
                    "participant_id": pid,
                    "visit": visit,
                    "masks": [
                        {
                            "label": "infarct",
                            "source": "pipeline",
                            "desc": None,
                            "path": mask,
                            "kind": kind,
                            "grid": "g1",
                            "scan_ids": [f"{pid}_{visit}_{kind}"],
                            "status": "ok",
                            "reason": None,
                            "parameters": {"adc_below": 620e-6},
                            "quality": {},
                        }
                    ],
                },
                here / "segment.json",
            )
            if visit == "baseline" and k in (0, 1):
                tmax = np.where(lesion, 9.0, 2.0) * inside
                write_json(
                    {
                        "stage": "perfuse",
                        "participant_id": pid,
                        "visit": visit,
                        "maps": [
                            {
                                "quantity": "tmax",
                                "engine": "osvd",
                                "unit": "s",
                                "path": _save(
                                    folder,
                                    derivative(pid, visit, "perf", "map", desc="tmax"),
                                    tmax.astype(np.float32),
                                    affine,
                                ),
                            }
                        ],
                        "masks": [],
                        "gates": [
                            {
                                "criterion": "frame_interval_s",
                                "value": 1.5,
                                "limit": "<= 2",
                                "verdict": "pass",
                                "basis": "",
                            },
                            {
                                "criterion": "motion_mm",
                                "value": 3.4,
                                "limit": "< 3",
                                "verdict": "fail" if k else "pass",
                                "basis": "",
                            },
                        ],
                        "quantities": [],
                        "figures": {},
                        "status": "ok",
                        "reason": None,
                    },
                    here / "perfuse.json",
                )
        write_json(
            {
                "stage": "normalise",
                "participant_id": pid,
                "anchor": {"visit": "baseline", "grid": "g1", "kind": "dwi"},
                "method": "affine",
                "preset": "fast",
                "status": "ok",
                "reason": None,
                "template": {"name": "MNI152NLin2009aSym", "file": "template.nii.gz"},
                "transforms": {},
                "masks": [],
                "quality": {"brain_overlap_dice": 0.96 - 0.01 * k},
            },
            folder / "derivatives" / subject_entity(pid) / "normalise.json",
        )
    share = np.zeros(brain.shape, np.float32)
    for radius in (5, 7, 9, 10, 11, 12):
        share += (
            _ellipsoid(brain.shape, (26, 50, 16), (radius, radius * 1.3, radius * 0.45)) & inside
        )
    _save(folder, "maps/infarct_frequency.nii.gz", (share / 6).astype(np.float32), affine)
    write_json(
        {"label": "infarct", "denominator": "mapped", "n": 6, "maximum": 1.0},
        folder / "maps/infarct_frequency.json",
    )


def _tables(folder: Path, people: pd.DataFrame) -> None:
    write_table(measurements(people), folder / "endpoints/measurements.tsv", MEASUREMENTS)
    for name, rows in _statistics().items():
        frame = pd.DataFrame(rows, columns=list(STATISTICS))
        write_table(frame, folder / f"statistics/{name}.tsv", STATISTICS)
    acquisition = [
        {
            "participant_id": pid,
            "visit": "baseline",
            "kind": "dwi",
            "criterion": "slice_thickness_mm_max",
            "value": 6.5 if pid == "S-03" else 5,
            "limit": 5,
            "verdict": "fail" if pid == "S-03" else "pass",
        }
        for pid in people["participant_id"][:6]
    ]
    checks = pd.DataFrame(acquisition, columns=list(ACQUISITION))
    write_table(checks, folder / "endpoints/acquisition.tsv", ACQUISITION)
    flow = [
        ("scans listed", 74, 73, "file not there", 1),
        ("scans readable", 73, 71, "file ends early", 2),
        ("visits with a value", 71, 71, None, 0),
    ]
    write_table(
        pd.DataFrame(flow, columns=list(FLOW)), folder / "endpoints/flow.tsv", FLOW, sort=False
    )
    overlap = [
        {
            **dict.fromkeys(OVERLAP),
            "participant_id": f"S-0{k}",
            "visit": "baseline",
            "label": "infarct",
            "source_a": "pipeline",
            "source_b": "reader-1",
            "repeat": 1,
            "metric": "dice",
            "value": 0.84 + 0.02 * k,
            "status": "ok",
        }
        for k in (1, 2, 3)
    ]
    write_table(pd.DataFrame(overlap), folder / "endpoints/overlap.tsv", OVERLAP)
    findings = [
        {
            "severity": "warning",
            "sheet": "scans.tsv",
            "row": 12,
            "column": "path",
            "value": "S-05/day5/ncct.nii.gz",
            "message": "the file cannot be decoded",
            "remedy": "copy it again",
        },
        {
            "severity": "note",
            "sheet": "participants.tsv",
            "row": 32,
            "column": "participant_id",
            "value": HOSTILE,
            "message": "the id holds unusual characters",
            "remedy": "nothing: it is escaped",
        },
    ]
    write_table(pd.DataFrame(findings), folder / "preflight/findings.tsv", FINDINGS)


@lru_cache(maxsize=1)
def _original() -> tuple[Path, pd.DataFrame]:
    root = Path(tempfile.mkdtemp(prefix="corelab-fabricated-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    people = participants()
    folder = root / "results" / "fab"
    _tables(folder, people)
    _images(folder, people)
    outcomes, exposures = _outcomes(people)
    write_table(outcomes, root / "outcomes.tsv", list(outcomes.columns))
    write_table(exposures, root / "exposures.tsv", list(exposures.columns))
    return folder, people


def _sheet(given: str | None, columns: tuple[str, ...]) -> pd.DataFrame:
    if not given:
        return pd.DataFrame(columns=list(columns))
    numeric = [name for name in ("value", "time_days", "event") if name in columns]
    return read_table(given, numeric=numeric)


def tables_of(folder: Path, settings: Config, people: pd.DataFrame) -> Tables:
    """What the analyses of a study saw."""
    measured, inputs = read_measurements(folder), settings.inputs
    order = [*settings.visits.order]
    order += [v for v in measured["visit"].dropna().unique() if v not in order]
    people = people.assign(participant_id=people["participant_id"].astype(str))
    if "dose" in people:
        people["dose"] = pd.to_numeric(people["dose"], errors="coerce")
    head = ("participant_id", "visit")
    return Tables(
        measured,
        people.reset_index(drop=True),
        outcomes=_sheet(inputs.outcomes, (*head, "outcome", "value", "unit")),
        exposures=_sheet(inputs.exposures, (*head, "exposure", "value", "unit")),
        events=_sheet(inputs.events, ("participant_id", "endpoint", "time_days", "event")),
        visit_order=tuple(order),
        baseline=settings.visits.baseline or (order[0] if order else None),
    )


def fabricated_results(
    folder: Path, config: dict[str, Any], people: pd.DataFrame, **given: Any
) -> Results:
    """Results of a study, given as :func:`fabricated_study` returns it."""
    settings = Config.model_validate(config)
    return read_results(folder, settings, tables_of(folder, settings, people), **given)


def with_config(results: Results, **blocks: Any) -> Results:
    """The same results under a config with other blocks."""
    settings = Config.model_validate({**results.settings.plain(), **blocks})
    return replace(results, settings=settings)


def fabricated_study(
    target: Path, *, images: bool = True, **study: Any
) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """A copy of the study below ``target``: its results folder, config and participants."""
    original, people = _original()
    folder = target / "results" / "fab"
    shutil.copytree(original, folder)
    if not images:
        shutil.rmtree(folder / "derivatives")
        shutil.rmtree(folder / "maps")
    full = config(**study)
    for name in ("outcomes", "exposures"):
        full["inputs"][name] = str(shutil.copy(original.parents[1] / f"{name}.tsv", target))
    return folder, full, people.copy()


def tables_only(target: Path) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """The least that is a study: one table of measurements, ids alone, no plan."""
    folder = target / "results" / "least"
    people = pd.DataFrame({"participant_id": ["1", "2"]}, dtype=object)
    rows = measurements(participants(2)).assign(
        participant_id=lambda f: f["participant_id"].str[-1:]
    )
    write_table(rows, folder / "endpoints/measurements.tsv", MEASUREMENTS)
    return folder, {"study": {"id": "least"}, "inputs": {"participants": "p.tsv"}}, people
