"""Simulated tables of the trials in ``config/presets``: endpoints with a planted effect.

Tables only, no images: participants, measurements, reads, outcomes and events as the core lab of
such a trial would have them, and ``truth.tsv`` with the effects that were planted. Nothing here
resembles the published results; numbers of participants are the simulation's own. The presets run
on these tables as they stand::

    python tests/preset_trials.py config/presets/simulated
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from corelab.phantom.seeds import generator
from corelab.provenance.products import write_table

SEED = 20261121
#: Shares of the modified Rankin scale, 0 to 6, in a control arm.
RANKIN = (0.10, 0.14, 0.14, 0.16, 0.20, 0.10, 0.16)


@dataclass(frozen=True)
class Arm:
    """One arm and what is true of it.

    Attributes
    ----------
    name, dose
        Name and dose in the unit of the trial (0 for control).
    haemorrhage
        Probability of intracranial haemorrhage on follow-up.
    reperfusion
        Mean fraction of the hypoperfused volume that is gone at follow-up.
    recanalisation
        Probability of recanalisation.
    growth
        Mean log ratio of lesion (or haematoma) volume at follow-up and baseline.
    odds
        Odds of a better grade of the modified Rankin scale, relative to control.
    hazard
        Hazard of death relative to control.
    """

    name: str
    dose: float = 0.0
    haemorrhage: float = 0.05
    reperfusion: float = 0.3
    recanalisation: float = 0.25
    growth: float = 0.4
    odds: float = 1.0
    hazard: float = 1.0


@dataclass(frozen=True)
class Trial:
    """Design of a simulated trial.

    Attributes
    ----------
    name
        As the preset.
    arms
        Control first.
    per_arm
        Participants in each arm.
    follow_up
        Visit of the follow-up images.
    kinds
        Which tables are simulated: ``haemorrhage``, ``perfusion``, ``infarct``, ``haematoma``,
        ``rankin``, ``glioma``.
    late
        Visit of the final infarct, where it is another than ``follow_up``.
    missing
        Share of follow-up volumes that are missing.
    """

    name: str
    arms: tuple[Arm, ...]
    per_arm: int
    follow_up: str
    kinds: tuple[str, ...]
    late: str = ""
    missing: float = 0.05


_LYSIS = ("haemorrhage", "rankin")
_MRI = ("perfusion", "infarct", "haemorrhage", "rankin")

TRIALS: Mapping[str, Trial] = {
    trial.name: trial
    for trial in (
        Trial(
            "ecass_ninds",
            (Arm("placebo"), Arm("alteplase", 1.0, haemorrhage=0.2, odds=1.6)),
            150,
            "day1",
            _LYSIS,
        ),
        Trial("eaft", (Arm("placebo"), Arm("anticoagulant", 1.0, 0.09)), 120, "event", _LYSIS),
        Trial(
            "lmwh", (Arm("placebo"), Arm("nadroparin", 1.0, 0.08, odds=1.5)), 100, "day10", _LYSIS
        ),
        Trial(
            "mast_e",
            (Arm("placebo", haemorrhage=0.08), Arm("streptokinase", 1.5, 0.30, odds=0.8)),
            110,
            "day5",
            ("haemorrhage", "infarct", "rankin"),
        ),
        Trial(
            "ecass_ii",
            (Arm("placebo", haemorrhage=0.1), Arm("alteplase", 0.9, 0.22, growth=0.2, odds=1.3)),
            140,
            "day7",
            ("haemorrhage", "infarct", "rankin"),
        ),
        Trial(
            "ppa",
            (Arm("unexposed", haemorrhage=0.30), Arm("exposed", 1.0, 0.55)),
            130,
            "event",
            ("haemorrhage",),
        ),
        Trial(
            "pravastatin",
            (Arm("placebo", haemorrhage=0.12), Arm("pravastatin", 40.0, 0.08)),
            160,
            "event",
            ("haemorrhage",),
        ),
        Trial(
            "dias",
            (
                Arm("placebo", 0.0, 0.02, 0.20, 0.20, 0.50),
                Arm("62.5ug_kg", 62.5, 0.03, 0.35, 0.35, 0.40, 1.2),
                Arm("90ug_kg", 90.0, 0.04, 0.48, 0.50, 0.30, 1.6),
                Arm("125ug_kg", 125.0, 0.05, 0.62, 0.68, 0.20, 2.0),
            ),
            35,
            "hour8",
            _MRI,
            "day30",
        ),
        Trial(
            "rfviia",
            (
                Arm("placebo", 0.0, growth=0.30),
                Arm("40ug_kg", 40.0, growth=0.18),
                Arm("80ug_kg", 80.0, growth=0.12),
                Arm("160ug_kg", 160.0, growth=0.08),
            ),
            60,
            "hour24",
            ("haematoma", "rankin"),
        ),
        Trial(
            "dedas",
            (
                Arm("placebo", 0.0, 0.02, 0.25, 0.25, 0.45),
                Arm("90ug_kg", 90.0, 0.03, 0.40, 0.40, 0.35, 1.3),
                Arm("125ug_kg", 125.0, 0.04, 0.58, 0.60, 0.20, 1.8),
            ),
            30,
            "hour8",
            _MRI,
            "day30",
        ),
        Trial(
            "defuse",
            (Arm("alteplase", 0.9, 0.1, 0.45, 0.45, 0.35, 1.0),),
            75,
            "hour6",
            _MRI,
            "day30",
        ),
        Trial(
            "epithet",
            (
                Arm("placebo", 0.0, 0.03, 0.30, 0.30, 0.55),
                Arm("alteplase", 0.9, 0.07, 0.55, 0.55, 0.20, 1.5),
            ),
            60,
            "day4",
            _MRI,
            "day90",
        ),
        Trial(
            "fast",
            (
                Arm("placebo", 0.0, growth=0.28),
                Arm("20ug_kg", 20.0, growth=0.20),
                Arm("80ug_kg", 80.0, growth=0.10),
            ),
            90,
            "hour24",
            ("haematoma", "rankin"),
        ),
        Trial(
            "dias_ii",
            (
                Arm("placebo", 0.0, 0.02, 0.35, 0.35, 0.35),
                Arm("90ug_kg", 90.0, 0.03, 0.40, 0.40, 0.33),
                Arm("125ug_kg", 125.0, 0.05, 0.45, 0.45, 0.30),
            ),
            55,
            "hour24",
            _MRI,
            "day30",
        ),
        Trial(
            "tnk",
            (
                Arm("alteplase", 0.9, 0.08, 0.55, 0.40, 0.30),
                Arm("tenecteplase_0.1", 0.1, 0.05, 0.68, 0.55, 0.18, 1.4),
                Arm("tenecteplase_0.25", 0.25, 0.05, 0.82, 0.75, 0.05, 2.0),
            ),
            40,
            "hour24",
            _MRI,
            "day90",
        ),
        Trial(
            "jcog0911a2",
            (Arm("tmz"), Arm("tmz_ifn", 1.0, hazard=1.0)),
            59,
            "post_op",
            ("glioma",),
        ),
    )
}


@dataclass
class _Sheets:
    """Rows of the sheets as they are made."""

    measurements: list[tuple[object, ...]] = field(default_factory=list)
    reads: list[tuple[object, ...]] = field(default_factory=list)
    outcomes: list[tuple[object, ...]] = field(default_factory=list)
    events: list[tuple[object, ...]] = field(default_factory=list)
    truth: list[tuple[object, ...]] = field(default_factory=list)


def simulate_trial(name: str, seed: int = SEED) -> dict[str, pd.DataFrame]:
    """Sheets of one simulated trial.

    Parameters
    ----------
    name
        One of :data:`TRIALS`.
    seed
        Of everything random.

    Returns
    -------
    dict
        ``participants``, those of ``measurements``, ``reads``, ``outcomes`` and ``events`` that
        the trial has, and ``truth`` (endpoint, visit, derivation, group, statistic, truth).

    Examples
    --------
    >>> sheets = simulate_trial("epithet")
    >>> len(sheets["participants"]), sorted(sheets)
    (120, ['measurements', 'outcomes', 'participants', 'reads', 'truth'])
    >>> simulate_trial("epithet")["measurements"].equals(sheets["measurements"])
    True
    """
    trial = TRIALS[name]
    rng = generator(seed, "trial", name)
    people = _participants(trial, rng)
    sheets = _Sheets()
    makers: Mapping[str, Callable[..., None]] = {
        "haemorrhage": _haemorrhage,
        "perfusion": _perfusion,
        "infarct": _infarct,
        "haematoma": _haematoma,
        "rankin": _rankin,
        "glioma": _glioma,
    }
    for kind in trial.kinds:
        makers[kind](trial, people, sheets, rng)
    return {"participants": people.drop(columns=["_arm"]), **_frames(sheets)}


def _frames(sheets: _Sheets) -> dict[str, pd.DataFrame]:
    columns = {
        "measurements": ["participant_id", "visit", "endpoint", "source", "value", "unit"],
        "reads": ["participant_id", "visit", "endpoint", "reader", "value", "unit", "role"],
        "outcomes": ["participant_id", "visit", "outcome", "value", "unit"],
        "events": ["participant_id", "endpoint", "time_days", "event", "criterion"],
        "truth": ["endpoint", "visit", "derivation", "group", "statistic", "truth"],
    }
    return {
        name: pd.DataFrame(getattr(sheets, name), columns=heads)
        for name, heads in columns.items()
        if getattr(sheets, name)
    }


def _participants(trial: Trial, rng: np.random.Generator) -> pd.DataFrame:
    n = trial.per_arm * len(trial.arms)
    arms = np.repeat(np.arange(len(trial.arms)), trial.per_arm)[rng.permutation(n)]
    onset = np.round(rng.gamma(6.0, 35.0, n)).astype(int) + 40
    return pd.DataFrame(
        {
            "participant_id": [f"{k + 1:03d}" for k in range(n)],
            "_arm": arms,
            "arm": [trial.arms[k].name for k in arms],
            "dose": [f"{trial.arms[k].dose:g}" for k in arms],
            "site": [f"site-{k}" for k in rng.integers(1, 9, n)],
            "age": np.clip(np.round(rng.normal(69, 10, n)), 30, 95).astype(int),
            "sex": np.where(rng.random(n) < 0.45, "F", "M"),
            "nihss_baseline": np.clip(np.round(rng.gamma(5.0, 2.6, n)), 1, 30).astype(int),
            "onset_to_treatment_min": onset,
            "per_protocol": np.where(rng.random(n) < 0.93, "true", "false"),
        }
    )


def _contrasts(
    trial: Trial, value: Callable[[Arm], float], ratio: bool = False
) -> list[tuple[str, float]]:
    """Planted contrast of each arm with the control."""
    control = trial.arms[0]
    return [
        (
            f"arm={arm.name}|arm={control.name}",
            value(arm) / value(control) if ratio else value(arm) - value(control),
        )
        for arm in trial.arms[1:]
    ]


def _rounded(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def _read_twice(
    person: str, visit: str, endpoint: str, call: int, rng: np.random.Generator, error: float
) -> list[tuple[object, ...]]:
    """Two readers with errors of their own, and the final read, which is the truth."""
    calls = [call if rng.random() > error else 1 - call for _ in range(2)]
    rows = [(f"reader-{k + 1}", value, "reader") for k, value in enumerate(calls)]
    rows.append(("consensus", call, "adjudicator"))
    return [
        (person, visit, endpoint, reader, str(value), "flag", role) for reader, value, role in rows
    ]


def _haemorrhage(
    trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator
) -> None:
    visit = trial.follow_up
    for person, arm in zip(people["participant_id"], people["_arm"], strict=True):
        call = int(rng.random() < trial.arms[arm].haemorrhage)
        sheets.reads += _read_twice(person, visit, "haemorrhage", call, rng, 0.03)
    for group, truth in _contrasts(trial, lambda arm: arm.haemorrhage):
        sheets.truth.append(("haemorrhage", visit, "value", group, "risk_difference", truth))


def _perfusion(
    trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator
) -> None:
    visit = trial.follow_up
    for person, arm in zip(people["participant_id"], people["_arm"], strict=True):
        before = float(rng.lognormal(np.log(90), 0.5))
        core = before * float(rng.beta(2, 8))
        # Independent of the baseline volume, so that the mean is the planted one at any.
        mean = trial.arms[arm].reperfusion
        gone = float(rng.beta(4 * mean, 4 * (1 - mean)))
        rows = [
            (person, "baseline", "hypoperfused_volume", "supplied", _rounded(before), "mL"),
            (person, "baseline", "core_volume", "supplied", _rounded(core), "mL"),
        ]
        if rng.random() > trial.missing:
            later = before * (1 - gone)
            rows.append((person, visit, "hypoperfused_volume", "supplied", _rounded(later), "mL"))
        sheets.measurements += rows
        call = int(rng.random() < trial.arms[arm].recanalisation)
        sheets.reads += _read_twice(person, visit, "recanalisation", call, rng, 0.06)
    for group, truth in _contrasts(trial, lambda arm: 100 * arm.reperfusion):
        name = "reperfusion_percent"
        sheets.truth.append((name, visit, "value", group, "mean_difference", truth))
    for group, truth in _contrasts(trial, lambda arm: arm.recanalisation):
        sheets.truth.append(("recanalisation", visit, "value", group, "risk_difference", truth))


def _volumes(
    trial: Trial,
    people: pd.DataFrame,
    sheets: _Sheets,
    rng: np.random.Generator,
    endpoint: str,
    visit: str,
    median_ml: float,
    spread: float,
) -> None:
    """Volumes whose log ratio between follow-up and baseline is normal about the arm's mean."""
    for person, arm in zip(people["participant_id"], people["_arm"], strict=True):
        before = float(rng.lognormal(np.log(median_ml), 0.7))
        ratio = float(np.exp(rng.normal(trial.arms[arm].growth, spread)))
        sheets.measurements.append(
            (person, "baseline", endpoint, "supplied", _rounded(before), "mL")
        )
        if rng.random() > trial.missing:
            sheets.measurements.append(
                (person, visit, endpoint, "supplied", _rounded(before * ratio), "mL")
            )
    for group, truth in _contrasts(trial, lambda arm: arm.growth):
        sheets.truth.append((endpoint, visit, "log_ratio", group, "mean_difference", truth))


def _infarct(trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator) -> None:
    visit = trial.late or trial.follow_up
    _volumes(trial, people, sheets, rng, "infarct_volume", visit, 20.0, 0.5)


def _haematoma(
    trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator
) -> None:
    _volumes(trial, people, sheets, rng, "haematoma_volume", trial.follow_up, 18.0, 0.30)


def _rankin(trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator) -> None:
    """Grades from a logistic scale that the arm shifts (proportional odds hold exactly)."""
    edges = np.cumsum(RANKIN)[:-1]
    cuts = np.log(edges / (1 - edges))
    for person, arm in zip(people["participant_id"], people["_arm"], strict=True):
        latent = float(rng.logistic()) - float(np.log(trial.arms[arm].odds))
        grade = int(np.searchsorted(cuts, latent))
        sheets.outcomes.append((person, "day90", "mrs", str(grade), "score"))
    for group, truth in _contrasts(trial, lambda arm: 1 / arm.odds, ratio=True):
        sheets.truth.append(("mrs", "day90", "value", group, "common_odds_ratio", truth))


def _glioma(trial: Trial, people: pd.DataFrame, sheets: _Sheets, rng: np.random.Generator) -> None:
    """Volumes before and after resection, progression by two criteria, survival."""
    for person, arm in zip(people["participant_id"], people["_arm"], strict=True):
        enhancing = float(rng.lognormal(np.log(28), 0.7))
        oedema = float(rng.lognormal(np.log(70), 0.6))
        left = float(rng.beta(1.2, 6))
        for endpoint, before, after in (
            ("enhancing_volume", enhancing, enhancing * left),
            ("oedema_volume", oedema, oedema * float(rng.uniform(0.3, 1.1))),
        ):
            for visit, value in (("pre_op", before), (trial.follow_up, after)):
                sheets.measurements.append(
                    (person, visit, endpoint, "supplied", _rounded(value), "mL")
                )
        # More residual tumour, earlier death: a hazard ratio of 1.35 per factor e of volume.
        residual = np.log(max(enhancing * left, 0.1)) - np.log(3.0)
        rate = np.log(2) / 640 * trial.arms[arm].hazard * np.exp(0.3 * residual)
        death = float(rng.exponential(1 / rate)) + 20
        end = float(rng.uniform(700, 1600))
        progression = death * float(rng.beta(5, 4))
        sheets.events.append((person, "os", _rounded(min(death, end), 0), int(death <= end), None))
        for criterion, shift in (("local-RECIST", 1.0), ("central-RANO", 1.03)):
            seen = progression * shift * float(rng.lognormal(0, 0.12))
            seen = min(seen, death)
            sheets.events.append(
                (person, "pfs", _rounded(min(seen, end), 0), int(seen <= end), criterion)
            )
        days = min(death, end)
        sheets.outcomes.append((person, "follow_up", "os_days", _rounded(days, 0), "d"))
        sheets.outcomes.append((person, "follow_up", "died", str(int(death <= end)), "flag"))
    died = {row[0]: row[3] for row in sheets.outcomes if row[2] == "died"}
    people["died"] = people["participant_id"].map(died)
    for group, truth in _contrasts(trial, lambda arm: arm.hazard, ratio=True):
        sheets.truth.append(("os", "all", "value", group, "hazard_ratio", truth))
    sheets.truth.append(("os", "all", "value", "log residual volume", "log_hazard_ratio", 0.3))


COLUMNS = {
    "endpoint": "Endpoint or outcome",
    "visit": "Visit",
    "derivation": "Derivation of the analysis",
    "group": "Contrast",
    "statistic": "Statistic that the truth is about",
    "truth": "Planted value",
}


def write_trials(folder: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """Write the sheets of simulated trials, one folder each.

    Parameters
    ----------
    folder
        For the trials' folders.
    names
        Trials; default all.
    """
    written = []
    for name in names or TRIALS:
        for sheet, frame in simulate_trial(name).items():
            path = Path(folder) / name / f"{sheet}.tsv"
            words = COLUMNS if sheet == "truth" else dict.fromkeys(frame.columns, "")
            write_table(frame, path, list(words), sort=False)
            written.append(path)
    return written


if __name__ == "__main__":
    for made in write_trials(sys.argv[1] if len(sys.argv) > 1 else "config/presets/simulated"):
        print(made)
