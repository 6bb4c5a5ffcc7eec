"""Degenerate but legal trial data against every kind of analysis: rows with a reason, no crash.

The short form runs each analysis on the data sets that broke one before; the long form, all pairs.
"""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import planned, run

from corelab.measurement.selection import NotComputable, Tables
from corelab.plan import failures, runner

NOISE = np.random.default_rng(0).normal(0, 1, 2000)
VISITS = ("base", "day5")


def spread(i, visit):
    return 20 + 3 * NOISE[i] + (5 + NOISE[i + 500] if visit == "day5" else 0)


def two(i):
    return "drug" if i % 2 else "placebo"


def grade(i):
    return int(abs(NOISE[i + 900]) * 2) % 6


def times(i):
    return abs(NOISE[i + 1200]) * 300 + 1, int(NOISE[i + 1500] > -0.3)


def study(n=24, value=spread, arm=two, outcome=grade, event=times, dose=None, age=None):
    ids = [f"s{i:03d}" for i in range(n)]
    rows = [(p, v, value(i, v)) for i, p in enumerate(ids) for v in VISITS]
    values = pd.DataFrame(rows, columns=["participant_id", "visit", "value"]).dropna()
    values = values.assign(endpoint="v", source="pipeline", repeat=1, region="all", status="ok")
    people = pd.DataFrame({"participant_id": ids, "arm": [arm(i) for i in range(n)]})
    people["dose"] = [float(dose(i)) if dose else float(i % 3) for i in range(n)]
    people["age"] = [float(age(i)) if age else 50.0 + (i * 7) % 31 for i in range(n)]
    people["site"] = [f"c{i % 3}" for i in range(n)]
    outcomes = pd.DataFrame({"participant_id": ids, "visit": "day90", "outcome": "mrs"})
    outcomes["value"] = [float(outcome(i)) for i in range(n)]
    events = pd.DataFrame({"participant_id": ids, "endpoint": "os"})
    events[["time_days", "event"]] = [list(map(float, event(i))) for i in range(n)]
    events["last_free_days"] = np.maximum(events["time_days"] - 20, 0.0)
    other = events.assign(endpoint="death", event=np.arange(n) % 3 == 0).astype({"event": float})
    events = pd.concat([events, other])
    exposures = pd.DataFrame({"participant_id": ids, "exposure": "conc", "visit": "base"})
    exposures["value"] = people["dose"] * 2
    return Tables(
        values,
        people,
        outcomes=outcomes,
        events=events,
        exposures=exposures,
        visit_order=VISITS,
        baseline="base",
    )


def none_at(visit):
    return lambda i, v: None if v == visit else spread(i, v)


DATA = {
    "all equal": study(value=lambda i, v: 10, outcome=lambda i: 2, event=lambda i: (100, 1)),
    "all zero": study(value=lambda i, v: 0, outcome=lambda i: 0, event=lambda i: (0, 1)),
    "follow-up zero": study(value=lambda i, v: 0 if v == "day5" else spread(i, v)),
    "no spread within arms": study(
        value=lambda i, v: 5 if i % 2 else 9,
        outcome=lambda i: 1 if i % 2 else 4,
        event=lambda i: (50, 1) if i % 2 else (90, 1),
    ),
    "one event": study(event=lambda i: (100 + i, int(i == 3)), outcome=lambda i: int(i < 3)),
    "all tied": study(event=lambda i: (100, 1)),
    "one per arm": study(n=2),
    "one arm": study(arm=lambda i: "drug"),
    "covariate is the arm": study(age=lambda i: i % 2, dose=lambda i: 1),
    "huge": study(value=lambda i, v: spread(i, v) * 1e12),
    "tiny": study(value=lambda i, v: spread(i, v) * 1e-12),
    "offset": study(value=lambda i, v: spread(i, v) * 1e-6 + 1e6),
}
MORE = {
    "as usual": study(),
    "baseline zero": study(value=lambda i, v: 0 if v == "base" else spread(i, v)),
    "no follow-up": study(value=none_at("day5")),
    "no values": study(value=lambda i, v: None),
    "single": study(n=1),
    "three": study(n=3),
    "no arms": study(arm=lambda i: None),
    "no events": study(event=lambda i: (100 + i, 0)),
    "events in the last": study(event=lambda i: (100, int(i < 4))),
    "separated": study(outcome=lambda i: i % 2, event=lambda i: (100 + i, i % 2)),
    "constant covariate": study(age=lambda i: 60),
    "linear in dose": study(value=lambda i, v: 10 + 2 * (i % 3), outcome=lambda i: i % 3),
    "negative": study(value=lambda i, v: spread(i, v) - 60),
    "ties": study(value=lambda i, v: float(int(spread(i, v)) // 10), outcome=lambda i: int(i < 3)),
}
COMPARED = {"type": "comparison", "endpoint": "v", "by": "arm", "visit": "day5"}
PLAN = [
    {**COMPARED, "method": "ancova", "derivation": "change", "covariates": ["age"]},
    {**COMPARED, "method": "welch", "derivation": "log_ratio"},
    {**COMPARED, "method": "mann_whitney", "derivation": "percent_change"},
    {**COMPARED, "method": "mmrm", "visit": None, "covariates": ["age"]},
    {**COMPARED, "method": "mmrm", "visit": None, "covariance_by_arm": True},
    {**COMPARED, "method": "gamma"},
    {**COMPARED, "method": "gee", "visit": None, "overall": True},
    {**COMPARED, "method": "gee", "derivation": "responder", "responder": "change <= 5"},
    {**COMPARED, "method": "glmm", "visit": None, "overall": True},
    {**COMPARED, "method": "glmm", "derivation": "responder", "responder": "change <= 5"},
    {**COMPARED, "method": "two_part", "resamples": 20},
    {**COMPARED, "method": "rank", "scale": "identity"},
    {**COMPARED, "method": "binary", "derivation": "responder", "responder": "change <= 0"},
    {**COMPARED, "method": "multiple_imputation", "derivation": "change", "imputations": 3},
    {**COMPARED, "method": "ancova", "family": "f", "adjustment": "dunnett"},
    {"type": "dose_response", "endpoint": "v", "dose": "dose", "visit": "day5"}
    | {"models": ["linear", "trend", "emax", "mcpmod"], "target_effect": 1.0, "resamples": 3},
    {"type": "dose_response", "endpoint": "v", "exposure": "conc", "models": ["linear", "mixed"]},
    {"type": "dose_response", "endpoint": "v", "dose": "dose", "models": ["mixed"]}
    | {"covariates": ["age"]},
    {"type": "ordinal", "outcome": "mrs", "by": "arm", "covariates": ["age"], "cut": 2}
    | {"odds_by_cut": True, "nonresponder_imputation": True},
    {"type": "ordinal", "outcome": "mrs", "endpoint": "v", "visit": "day5"},
    {"type": "quantile", "endpoint": "v", "by": "arm", "quantiles": [0.1, 0.5], "visit": "day5"}
    | {"resamples": 5},
    {"type": "quantile", "endpoint": "v", "by": "arm", "quantiles": [0.5], "covariates": ["age"]},
    {"type": "survival", "event_endpoint": "os", "by": "arm", "strata": ["site"]}
    | {"method": ["km", "cox", "logrank", "rmst"], "covariates": ["age"]},
    {"type": "survival", "event_endpoint": "os", "endpoint": "v", "visit": "day5"},
    {"type": "survival", "event_endpoint": "os", "by": "arm", "covariates": ["age"]}
    | {"method": ["interval", "cuminc", "finegray", "rmst"], "competing_endpoint": "death"},
    {"type": "survival", "event_endpoint": "os", "endpoint": "v", "method": "time_varying"}
    | {"visit_days": {"base": 0, "day5": 5}},
    {"type": "mediation", "endpoint": "v", "outcome": "mrs", "by": "arm", "visit": "day5"}
    | {"resamples": 10},
    {"type": "surrogacy", "endpoint": "v", "outcome": "mrs", "by": "arm", "visit": "day5"}
    | {"resamples": 10, "cluster": "site"},
]


def problems(analysis, tables):
    """Rows without a finite number or a reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frame = run({"id": "a", **analysis}, tables)
        except NotComputable:
            return []
    reported = frame["note"].fillna("").str.contains("^not_computable|not reached|not defined")
    estimates = frame["estimate"].astype(float)
    bad = frame[(~np.isfinite(estimates) & ~reported) | np.isinf(estimates)]
    return [f"{row.statistic} {row.group}: {row.estimate} {row.note}" for row in bad.itertuples()]


@pytest.mark.parametrize("name", DATA)
def test_known_degenerate_data_give_rows(name):
    found = [text for analysis in PLAN for text in problems(analysis, DATA[name])]
    assert not found


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.parametrize("name", MORE)
def test_further_degenerate_data_give_rows(name):
    found = [text for analysis in PLAN for text in problems(analysis, MORE[name])]
    assert not found


def test_an_unexpected_error_is_a_row_and_is_found_again(tmp_path, monkeypatch):
    from corelab.plan import run as plan
    from corelab.provenance.products import write_table
    from corelab.study.columns import STATISTICS

    def broken(analysis, tables):
        raise KeyError("no such thing")

    monkeypatch.setattr(plan, "analysis_types", lambda: {"ordinal": broken})
    monkeypatch.setattr(runner, "tables_of", lambda *_, **__: DATA["all equal"])

    class Study:
        settings = SimpleNamespace(locked_plan=None)

    analysis = planned({"id": "a1", "type": "ordinal", "outcome": "mrs"})
    frame = runner.run_analysis(analysis, Study(), "m", "o", log="logs/analyse/a1.log")
    assert frame.loc[0, "note"].startswith(failures.FAILED + "KeyError")
    assert math.isnan(frame.loc[0, "estimate"])
    folder = tmp_path / "statistics" / "by_analysis"
    folder.mkdir(parents=True)
    write_table(frame, folder / "a1.tsv", list(STATISTICS), sort=False)
    found = failures.failed_products(tmp_path)
    assert list(found) == [(folder / "a1.tsv").as_posix()]
    assert "a1: KeyError: 'no such thing'; log: logs/analyse/a1.log" in failures.failure_words(
        found
    )
    tables = [str(tmp_path / f"{n}.tsv") for n in ("pharmacodynamics", "survival")]
    summary = tmp_path / "analyses.tsv"
    runner.write_statistics([str(folder / "a1.tsv")], [analysis], tables, summary=summary)
    status = pd.read_csv(summary, sep="\t").loc[0]
    assert (status["status"], status["log"]) == ("failed", "logs/analyse/a1.log")


def test_a_figure_that_fails_is_an_alarm(tmp_path):
    from corelab.plan.drawing import write_figures
    from corelab.provenance.exhibits import Drawn, read_exhibits
    from corelab.settings.analyses.base import AnalysisSpec

    def fails():
        raise ZeroDivisionError("scale")

    exhibit = tmp_path / "exhibits" / "a.json"
    drawn = Drawn(None, "Pairs", "too few")
    tasks = [fails, lambda: [drawn]]
    planned = AnalysisSpec(id="a1", type="")
    reasons = write_figures(planned, lambda: tasks, exhibit, exhibit.with_suffix(""))
    assert reasons == ["Pairs: not drawn, too few."]
    (written,) = read_exhibits(tmp_path)
    assert "ZeroDivisionError: scale" in written.alarms[0].text
    found = failures.failed_products(tmp_path)
    cause = "ZeroDivisionError: scale Pairs: not drawn, too few."
    assert found[exhibit.as_posix()] == ("a1 (figure)", cause)
    # A figure that these data cannot give is no failure of the run.
    known = exhibit.with_name("b.json")
    known.write_text('{"caption": "Not drawn: no two sources have three targets in common."}')
    assert known.as_posix() not in failures.failed_products(tmp_path)
