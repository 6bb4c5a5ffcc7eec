"""Degenerate but legal data: rows with the cause, never an exception, never NaN without a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.measurement.selection import NotComputable, Tables

COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]
NOISE = np.random.default_rng(0).normal(size=4000)


def usual(i, v, r):
    return 20 + 3 * NOISE[i] + (5 + NOISE[i + 500]) * (v > 0) + 0.5 * NOISE[i + 900] * (r > 0)


#: Name -> participants, visits, value, outcome.
DATA = {
    "usual": (20, 2, usual, lambda i: abs(int(2 * NOISE[i + 1200]))),
    "all equal": (20, 2, lambda i, v, r: 10, lambda i: 2),
    "all zero": (20, 2, lambda i, v, r: 0, lambda i: 0),
    "two values": (20, 2, lambda i, v, r: 5 + 4 * (i % 2), lambda i: 1 + 3 * (i % 2)),
    "two participants": (2, 2, usual, lambda i: i),
    "three participants": (3, 1, usual, lambda i: i),
    "one participant, many visits": (1, 12, lambda i, v, r: usual(v, 0, r), lambda i: 1),
    "no second reader": (20, 1, lambda i, v, r: usual(i, v, r) if r < 1 else None, lambda i: i % 3),
    "gaps": (20, 2, lambda i, v, r: None if (i + r) % 3 else usual(i, v, r), lambda i: i % 4),
    "large offset": (20, 2, lambda i, v, r: 1e6 + 1e-6 * usual(i, v, r), lambda i: i % 3),
    "tiny": (20, 2, lambda i, v, r: 1e-12 * usual(i, v, r), lambda i: i % 3),
    "separated": (20, 1, lambda i, v, r: 100.0 * (i % 2) + i, lambda i: 5 * (i % 2)),
}
ANALYSES = [
    {"type": "agreement", "sources": "all", "resamples": 20, **keys}
    for keys in (
        {"method": ["regression", "quantile", "tolerance"], "exceeds": 0.75, "by": "arm"},
        {"measure_level": "ordinal", "by_visit": True},
        {"measure_level": "nominal"},
        {"clustering": "pooled", "scale": "log"},
        {"derivation": "percent_change"},
        {"cluster": "arm", "strata": ["arm", "size"], "compare_pairs": True},
        {"repeats": "within"},
    )
]
ANALYSES += [
    {"type": "correlation", "outcome": "mrs", "visit": "v0", **keys}
    for keys in (
        {"method": ["pearson", "spearman", "kendall"], "by": "arm"},
        {"method": ["partial", "partial_spearman", "semi_partial"], "covariates": ["age"]},
        {"method": "spearman", "ci": "bca", "resamples": 20},
        {"method": "attenuation", "reliability_sources": ["r1", "r2"]},
        {"scale": "log"},
    )
]
ANALYSES += [
    {"type": "correlation", "outcome": "mrs", "method": "repeated"},
    {"type": "diagnostic", "outcome": "mrs", "positive_above": 2, "positive_from": 20},
    {"type": "diagnostic", "outcome": "mrs", "positive_above": 2, "sources": ["r1", "r2"]},
    {"type": "diagnostic", "outcome": "mrs", "ci": "logit", "derivation": "change"},
    {"type": "sample_size", "sources": ["r1", "r2"], "difference": 5, "resamples": 20},
    {"type": "sample_size", "reliability": 0.9, "sd": 10, "difference": 0},
]


def tables_of(people, visits, value, outcome):
    ids = [f"s{i:02d}" for i in range(people)]
    rows = [
        (pid, f"v{v}", "infarct_volume", source, 1, "all", float(number), "ok")
        for i, pid in enumerate(ids)
        for v in range(visits)
        for r, source in enumerate(("pipeline", "r1", "r2"))
        if (number := value(i, v, r)) is not None
    ]
    sheet = pd.DataFrame({
        "participant_id": ids,
        "arm": ["drug" if i % 2 else "placebo" for i in range(people)],
        "age": [50.0 + 7 * i % 31 for i in range(people)],
    })  # fmt: skip
    outcomes = pd.DataFrame(
        [(pid, "v9", "mrs", float(outcome(i))) for i, pid in enumerate(ids)],
        columns=["participant_id", "visit", "outcome", "value"],
    )
    order = tuple(f"v{v}" for v in range(visits))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return Tables(frame, sheet, outcomes=outcomes, visit_order=order, baseline="v0")


@pytest.mark.parametrize("name", sorted(DATA))
@pytest.mark.filterwarnings("ignore")
def test_rows_with_the_cause(name):
    tables = tables_of(*DATA[name])
    for keys in ANALYSES:
        analysis = {"id": "a", "endpoint": "infarct_volume", **keys}
        try:
            found = run(analysis, tables)
        except NotComputable:
            continue
        assert len(found), keys
        silent = found["estimate"].isna() & ~found["note"].str.contains(
            "not_computable|exploratory"
        )
        assert not silent.any(), (keys, found.loc[silent, ["statistic", "note"]].to_dict("records"))
        numbers = found[["estimate", "ci_low", "ci_high"]].astype(float)
        assert not np.isinf(numbers).any().any(), keys
        size = 1e-9 * (1 + numbers["estimate"].abs())
        wrong = (numbers["ci_low"] > numbers["estimate"] + size) | (
            numbers["ci_high"] < numbers["estimate"] - size
        )
        assert not wrong.any(), (keys, found.loc[wrong, ["statistic", "ci_low", "estimate"]])
