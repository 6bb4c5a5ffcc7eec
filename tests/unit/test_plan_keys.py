"""Every key of a plan is read or refused: changed, it changes the result or gives a finding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.measurement.selection import NotComputable, Tables
from corelab.settings.analyses import SPECS
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.keys import unread
from corelab.study.schema import load_schema

SCHEMA = load_schema("config")["$defs"]["analysis"]["properties"]
COMMON = set(AnalysisSpec.model_fields)
KEYS = {kind: set(spec.model_fields) - COMMON for kind, spec in SPECS.items()}
N = 24
VISITS = ("d0", "d5", "d9")
COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]


def _value(rng, i, v, scale):
    return float(np.round(scale * (3 + i % 7 + v + rng.gamma(2.0, 1.5)), 1))


@pytest.fixture(scope="module")
def tables():
    """24 participants, two arms, three visits, three readers of whom two read twice, a zero."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(N):
        for v, visit in enumerate(VISITS):
            if i == 5 and visit == "d9":
                continue
            for e, endpoint in enumerate(("vol", "other", "score")):
                truth = _value(rng, i, v, 1 + e)
                for r, source in enumerate(("pipeline", "r1", "r2")):
                    for repeat in (1, 2)[: 1 + (r > 0)]:
                        for region in ("all", "1_left"):
                            own = truth + rng.normal(0, 1.2 + 0.3 * (i % 2) * r)
                            number = round(abs(own)) % 9 if endpoint == "score" else max(own, 0.3)
                            if endpoint == "vol" and i == 3 and visit == "d5":
                                number = 0.0
                            rows.append(
                                (f"s{i:02d}", visit, endpoint, source, repeat, region, number, "ok")
                            )
    people = pd.DataFrame({
        "participant_id": [f"s{i:02d}" for i in range(N)],
        "arm": ["drug" if i % 2 else "placebo" for i in range(N)],
        "site": [f"c{i % 3}" for i in range(N)],
        "patient": [f"p{i // 2}" for i in range(N)],
        "age": [50.0 + i * 7 % 31 for i in range(N)],
        "stage": [float(i % 3) for i in range(N)],
    })  # fmt: skip
    outcomes = pd.DataFrame(
        [(f"s{i:02d}", visit, name, float((3 * i + k) % 6))
         for i in range(N) for visit in ("d9", "d90") for k, name in enumerate(("mrs", "nihss"))
         if not (visit == "d9" and i % 5 == 0)],
        columns=["participant_id", "visit", "outcome", "value"],
    )  # fmt: skip
    exposures = pd.DataFrame(
        [(f"s{i:02d}", visit, "auc", float((5 * i + k) % 11))
         for i in range(N) for k, visit in enumerate(("d0", "d5"))],
        columns=["participant_id", "visit", "exposure", "value"],
    )  # fmt: skip
    overlap = pd.DataFrame(
        [(f"s{i:02d}", visit, "infarct", a, b, 1, "dice", 0.5 + (7 * i + k) % 10 / 25, "ok", None)
         for i in range(N) for k, visit in enumerate(VISITS[:2])
         for a, b in (("pipeline", "r1"), ("pipeline", "r2"), ("r1", "r2"))],
        columns=["participant_id", "visit", "label", "source_a", "source_b", "repeat", "metric",
                 "value", "status", "reason"],
    )  # fmt: skip
    return Tables(
        pd.DataFrame(rows, columns=COLUMNS), people, outcomes=outcomes, exposures=exposures,
        overlap=overlap, visit_order=VISITS, baseline="d0",
    )  # fmt: skip


BASE = {
    "agreement": {"endpoint": "vol", "sources": ["r1", "r2"], "resamples": 40},
    "overlap": {"label": "infarct"},
    "phantom": {"truth": "r1", "endpoint": "vol"},
    "correlation": {"endpoint": "vol", "outcome": "mrs", "visit": "d5"},
    "diagnostic": {"endpoint": "vol", "outcome": "mrs", "positive_above": 2, "visit": "d5"},
    "sample_size": {"endpoint": "vol", "sources": ["r1", "r2"], "difference": 2.0, "resamples": 40},
}
_CHANGE = {"derivation": "change"}
_SCORES = {"endpoint": "score", "measure_level": "ordinal"}
_ALONE = {"sources": None, "difference": None, "resamples": None}
_RESPONDER = {"derivation": "responder", "responder": "change > 1"}
#: Type -> key -> (what the analysis has besides its base, the changed value).
CHANGED = {
    "agreement": {
        "endpoint": ({}, "other"),
        "visit": ({}, "d5"),
        "region": ({}, "1_left"),
        "derivation": ({}, "change"),
        "baseline": (_CHANGE, "d5"),
        "sources": ({}, "all"),
        "by_visit": ({}, True),
        "repeats": ({"resamples": None}, "within"),
        "linked": ({}, True),
        "scale": ({}, "cube_root"),
        "measure_level": ({}, "interval"),
        "categories": ({**_SCORES, "sources": "all"}, list(range(12))),
        "icc_form": ({}, "icc_c_1"),
        "weights": (_SCORES, "linear"),
        "strata": ({}, ["site"]),
        "compare_pairs": ({"sources": "all"}, True),
        "delta": ({}, 3.0),
        "by": ({}, "arm"),
        "reference": ({"by": "arm"}, "drug"),
        "cluster": ({}, "none"),
        "clustering": ({}, "pooled"),
        "method": ({}, "quantile"),
        "limits_ci": ({"visit": "d5"}, "approximate"),
        "limits_coverage": ({}, 0.8),
        "exceeds": ({}, 0.5),
        "no_worse_ratio": ({}, 1.5),
        "unit_check": ({"endpoint": "mixed"}, "checked"),
        "resamples": ({"visit": "d5"}, 60),
        "seed": ({"visit": "d5"}, 5),
    },
    "overlap": {
        "visit": ({}, "d0"),
        "sources": ({}, ["r1", "r2"]),
        "by_visit": ({}, True),
        "cluster": ({}, "none"),
    },
    "phantom": {
        "truth": ({}, "r2"),
        "endpoint": ({}, "other"),
        "sources": ({}, ["pipeline"]),
        "visit": ({}, "d5"),
        "region": ({}, "1_left"),
    },
    "correlation": {
        "endpoint": ({}, "other"),
        "visit": ({}, "d9"),
        "region": ({}, "1_left"),
        "derivation": ({}, "change"),
        "baseline": ({"derivation": "change", "visit": "d9"}, "d5"),
        "source": ({}, "r1"),
        "responder": (_RESPONDER, "change > 3"),
        "zeros": ({"derivation": "log_ratio"}, {"offset": 1.0}),
        "nonresponder_imputation": ({**_RESPONDER, "visit": "d9"}, True),
        "endpoint_y": ({}, "other"),
        "source_y": ({"outcome": None, "endpoint_y": "other"}, "r2"),
        "visit_y": ({"outcome": None, "endpoint_y": "other"}, "d0"),
        "outcome": ({}, "nihss"),
        "outcome_visit": ({"visit": "d9"}, "d90"),
        "exposure": ({}, "auc"),
        "exposure_visit": ({"outcome": None, "exposure": "auc"}, "d0"),
        "scale": ({}, "cube_root"),
        "method": ({}, "spearman"),
        "covariates": ({"method": "partial", "covariates": ["age"]}, ["age", "stage"]),
        "categorical": ({"method": "partial", "covariates": ["stage"]}, ["stage"]),
        "by": ({}, "arm"),
        "reference": ({"by": "arm"}, "drug"),
        "compare_pairs": ({"endpoint": ["vol", "other"]}, True),
        "ci": ({"method": "spearman"}, "fisher"),
        "resamples": ({"ci": "bca", "resamples": 40}, 60),
        "seed": ({"ci": "bca", "resamples": 40}, 5),
        "alternative": ({}, "less"),
        "reliability": ({"method": "attenuation", "reliability": 0.9}, 0.7),
        "reliability_y": ({"method": "attenuation", "reliability": 0.9}, 0.7),
        "reliability_sources": ({"method": "attenuation"}, ["r1", "r2"]),
        "summaries": ({}, [{"name": "a", "r": 0.5, "n": 30}]),
    },
    "diagnostic": {
        "endpoint": ({}, "other"),
        "visit": ({}, "d9"),
        "region": ({}, "1_left"),
        "derivation": ({"sources": ["r1", "r2"]}, "change"),
        "baseline": ({"sources": ["r1", "r2"], "derivation": "change", "visit": "d9"}, "d5"),
        "source": ({}, "r1"),
        "responder": (_RESPONDER, "change > 3"),
        "zeros": ({"derivation": "log_ratio"}, "refuse"),
        "nonresponder_imputation": ({**_RESPONDER, "visit": "d9"}, True),
        "sources": ({}, ["r1", "r2"]),
        "outcome": ({}, "nihss"),
        "outcome_visit": ({"visit": "d9"}, "d90"),
        "positive_above": ({}, 3),
        "positive_from": ({}, 8.0),
        "ci": ({}, "logit"),
        "compare_pairs": ({"endpoint": ["vol", "other"]}, False),
        "alternative": ({}, "greater"),
    },
    "sample_size": {
        "endpoint": ({}, "other"),
        "visit": ({}, "d9"),
        "region": ({}, "1_left"),
        "sources": ({}, ["pipeline", "r1"]),
        "method": ({}, ["means", "survival"]),
        "reliability": ({"sd": 5.0, "sources": None, "resamples": None}, 0.8),
        "difference": ({}, 3.0),
        "sd": ({}, 5.0),
        "power": ({}, 0.8),
        "per_arm": ({}, 40),
        "icc_targets": ({}, [0.95]),
        "reads": ({}, [3]),
        "width": ({**_ALONE, "method": "icc", "reliability": 0.8, "width": 0.2}, 0.1),
        "raters": ({**_ALONE, "method": "icc", "reliability": 0.8, "width": 0.2}, 3),
        "exceeds": ({**_ALONE, "method": "icc_exceeds", "reliability": 0.8, "exceeds": 0.6}, 0.7),
        "shares": ({**_ALONE, "method": "ordinal", "odds_ratio": 2.0, "shares": [0.5, 0.5]}, [0.2, 0.8]),
        "odds_ratio": ({**_ALONE, "method": "ordinal", "odds_ratio": 2.0, "shares": [0.5, 0.5]}, 3.0),
        "correlation": (
            {**_ALONE, "difference": 2.0, "method": "mmrm", "sd": 5.0, "correlation": 0.5, "retention": [1.0, 0.8]},
            0.7,
        ),
        "retention": (
            {**_ALONE, "difference": 2.0, "method": "mmrm", "sd": 5.0, "correlation": 0.5, "retention": [1.0, 0.8]},
            [1.0, 0.9],
        ),
        "hazard_ratio": ({**_ALONE, "method": "survival", "hazard_ratio": 0.7}, 0.6),
        "event_share": ({**_ALONE, "method": "survival", "hazard_ratio": 0.7}, 0.5),
        "limits_coverage": ({**_ALONE, "method": "limits", "sd": 5.0, "width": 2.0}, 0.9),
        "resamples": ({}, 60),
        "seed": ({}, 5),
    },
}  # fmt: skip


def _run(analysis, tables):
    try:
        return run(analysis, tables)
    except NotComputable as reason:
        return pd.DataFrame({"note": [str(reason)]})


def _differs(one, other):
    return one.shape != other.shape or not one.fillna("n/a").equals(other.fillna("n/a"))


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in CHANGED.items() for key in keys]
)
def test_a_changed_key_changes_the_result(kind, key, tables):
    if key not in SCHEMA:
        pytest.skip("the schema has no such key")
    more, value = CHANGED[kind][key]
    base = {"id": "a", "type": kind, **BASE[kind], **more}
    if more.get("endpoint") == "mixed":
        rows = tables.measurements[tables.measurements["endpoint"] == "other"].copy()
        odd = (rows["participant_id"] == "s01") & (rows["source"] == "r2")
        rows.loc[rows["participant_id"] == "s01", "value"] = 60.0
        rows.loc[odd, "value"] = 0.08
        rows["endpoint"] = "infarct_volume"
        tables = Tables(rows, tables.participants, visit_order=VISITS, baseline="d0")
        base["endpoint"] = "infarct_volume"
    changed = {**base, key: value}
    assert not list(unread({k: v for k, v in changed.items() if v is not None}))
    assert _differs(_run(base, tables), _run(changed, tables)), f"{kind}.{key} is not read"


@pytest.mark.parametrize("kind", sorted(KEYS))
def test_every_key_of_a_type_is_tried_or_refused(kind):
    if kind in CHANGED:
        read = KEYS[kind]
        assert read <= set(CHANGED[kind]), read - set(CHANGED[kind])
    for key in set(SCHEMA) - KEYS[kind] - COMMON:
        found = [name for name, *_ in unread({"id": "a", "type": kind, key: "x"})]
        assert key in found, f"{kind} neither reads nor refuses {key}"


@pytest.mark.parametrize("kind", sorted(CHANGED))
def test_population_and_level_are_read_by_all(kind, tables):
    base = {"id": "a", "type": kind, **BASE[kind]}
    first = _run(base, tables)
    assert _differs(first, _run({**base, "population": 'arm == "drug"'}, tables))
    assert _differs(first, _run({**base, "alpha": 0.2}, tables))


@pytest.mark.parametrize(
    ("analysis", "key"),
    [
        ({"type": "correlation", "endpoint": "v", "outcome": "y"}, "seed"),
        ({"type": "correlation", "endpoint": "v", "outcome": "y"}, "covariates"),
        ({"type": "agreement", "endpoint": "v", "sources": "all"}, "weights"),
        ({"type": "agreement", "endpoint": "v", "sources": ["a", "b"]}, "compare_pairs"),
        ({"type": "agreement", "endpoint": "v", "sources": "all", "repeats": "within"}, "by"),
        ({"type": "diagnostic", "endpoint": "v", "outcome": "y", "sources": ["a"]}, "source"),
        ({"type": "sample_size", "endpoint": "v", "difference": 5}, "width"),
    ],
)
def test_a_key_without_what_it_acts_on_is_a_finding(analysis, key):
    found = list(unread({"id": "a", **analysis, key: "x"}))
    assert key in [name for name, *_ in found]


def test_unknown_values_are_findings():
    for kind, spec in SPECS.items():
        for key in set(spec.model_fields) - {"type"}:
            if spec.choices(key):
                found = list(unread({"id": "a", "type": kind, key: "no such thing"}))
                assert "does not know" in found[-1][1] and found[-1][0] == key
    assert not list(unread({"id": "a", "type": "correlation", "method": ["pearson"]}))
