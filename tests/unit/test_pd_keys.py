"""Every key of every type is read, or is an error of the preflight.

For each type and each key of the schema: the analysis with the key gives other rows than without
it, or :func:`corelab.settings.analyses.keys.unread` names the key.
"""

import numpy as np
import pandas as pd
import pytest
from helpers import planned, run

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.multiplicity import adjust_families
from corelab.settings.analyses import SPECS
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.keys import unread
from corelab.study.schema import load_schema

N = 60
#: Keys of every type, and those of each.
COMMON = set(AnalysisSpec.model_fields)
KEYS = {kind: set(spec.model_fields) - COMMON for kind, spec in SPECS.items()}
#: Shown by the report, or read by the plan's record and the multiplicity procedure.
ELSEWHERE = {"id", "type", "title", "label", "note", "objective", "family", "estimand"}
ELSEWHERE |= {"missing_data", "sensitivity"}


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(5)
    ids = [f"p{k:02d}" for k in range(N)]
    arm = np.tile(["placebo", "low", "high"], N // 3)
    dose = np.select([arm == "low", arm == "high"], [1.0, 3.0], 0.0)
    age = rng.normal(60, 8, N).round()
    rows = []
    for k, who in enumerate(ids):
        level = 20 + 4 * rng.normal()
        for place, visit in enumerate(("base", "day5", "day30")):
            gain = place * (4 - dose[k]) + rng.normal(0, 2) + 0.1 * (age[k] - 60)
            value = max(level + gain, 0.5)
            for source, more in (("pipeline", 0.0), ("reader", rng.normal(0, 1))):
                for region, share in (("all", 1.0), ("1_left", 0.4)):
                    if visit == "day30" and k % 7 == 0:
                        continue
                    kept = value * share + more
                    rows.append((who, visit, "v", source, 1, region, max(kept, 0.1), "ok"))
            part = 0.0 if k % 5 == 0 and visit != "base" else value / 3 + place * rng.normal()
            rows.append((who, visit, "w", "pipeline", 1, "all", max(part, 0.0), "ok"))
    measurements = pd.DataFrame(
        rows,
        columns=["participant_id", "visit", "endpoint", "source", "repeat", "region", "value"]
        + ["status"],
    )
    people = pd.DataFrame(
        {"participant_id": ids, "arm": arm, "dose": dose, "age": age}
        | {"site": rng.choice(list("ab"), N), "grade": rng.choice([1.0, 2.0, 3.0], N)}
        | {"other": rng.choice(["x", "y"], N), "clusters": np.repeat(np.arange(12), 5)}
    )
    score = np.clip((2.5 - 0.6 * dose + rng.normal(0, 1.2, N)).round(), 0, 6)
    outcomes = pd.concat(
        pd.DataFrame({"participant_id": ids, "visit": v, "outcome": name, "value": x})
        for name, v, x in (
            ("mrs", "day30", score),
            ("mrs", "day5", np.clip(score + rng.integers(0, 2, N), 0, 6)),
            ("nihss", "day30", score * 2 + rng.normal(0, 2, N)),
        )
    )
    times = rng.exponential(100 + 40 * dose) + 1
    events = pd.concat(
        pd.DataFrame(
            {"participant_id": ids, "endpoint": name, "criterion": c, "assessor": a}
        ).assign(time_days=times * f, event=(rng.random(N) < 0.8).astype(float))
        for name, c, a, f in (
            ("os", "one", "r1", 1.0),
            ("os", "two", "r1", 0.9),
            ("pfs", "one", "r1", 0.6),
            ("death", "one", "r1", 1.1),
            ("death", "one", "r2", 1.2),
        )
    )
    exposures = pd.DataFrame(
        {"participant_id": np.tile(ids, 2), "exposure": "conc"}
        | {"visit": np.repeat(["base", "day5"], N)}
        | {"value": np.concatenate([dose * 2 + rng.random(N), dose + rng.random(N)])}
    )
    return Tables(
        measurements,
        people,
        outcomes=outcomes,
        events=events,
        exposures=exposures,
        visit_order=("base", "day5", "day30"),
        baseline="base",
    )


BASES = {
    "comparison": {"endpoint": "v", "by": "arm", "visit": "day30", "derivation": "change"},
    "dose_response": {"endpoint": "v", "dose": "dose", "visit": "day5", "models": ["linear"]},
    "ordinal": {"outcome": "mrs", "by": "arm"},
    "quantile": {"endpoint": "v", "by": "arm", "visit": "day5", "quantiles": [0.5]}
    | {"resamples": 10},
    "survival": {"event_endpoint": "pfs", "by": "arm"},
    "mediation": {"endpoint": "v", "outcome": "nihss", "by": "arm", "visit": "day5"}
    | {"resamples": 20, "derivation": "change"},
    "surrogacy": {"endpoint": "v", "outcome": "nihss", "by": "arm", "visit": "day5"}
    | {"resamples": 20, "derivation": "change"},
}
IMPUTED = {"method": "multiple_imputation", "imputations": 4}
MCPMOD = {"models": ["mcpmod"], "direction": "decreasing"}
RESPONDER = {"derivation": "responder", "responder": "change <= 3", "method": "binary"}
OF_FAMILY = {"family": "f", "method": "mmrm", "visit": ["day5", "day30"]}
#: Key -> value and what the analysis needs beside it to have the key an effect.
CHANGES = {
    "endpoint": ("w", {}),
    "visit": ("day30", {"visit": "day5"}),
    "source": ("reader", {}),
    "region": ("1_left", {}),
    "derivation": ("percent_change", {}),
    "baseline": ("day5", {"visit": "day30", "derivation": "change"}),
    "responder": ("change <= 0", RESPONDER),
    "nonresponder_imputation": (True, RESPONDER),
    "zeros": ({"offset": 2.0}, {"derivation": "log_ratio", "endpoint": "w"}),
    "covariates": (["age"], {}),
    "categorical": (["grade"], {"covariates": ["grade"]}),
    "by": ("site", {}),
    "reference": ("high", {}),
    "method": ("welch", {}),
    "scale": ("cube_root", {}),
    "covariance": ("cs", {"method": "mmrm", "visit": None}),
    "covariance_by_arm": (True, {"method": "mmrm", "visit": None}),
    "df": ("satterthwaite", {"method": "mmrm", "visit": None}),
    "interactions": (["age"], {"method": "mmrm", "visit": None, "covariates": ["age"]}),
    "overall": (True, {"method": "mmrm", "visit": None}),
    "contrasts": ({"late": {"day30": 1, "day5": -1}}, {"method": "mmrm", "visit": None}),
    "robust": ("hc3", {}),
    "subgroups": (["site"], {}),
    "imputations": (6, IMPUTED),
    "imputation": ("j2r", IMPUTED),
    "imputation_model": ("within_arm", IMPUTED),
    "auxiliary": (["age"], IMPUTED),
    "deltas": ([1.0], IMPUTED),
    "deltas_reference": ([1.0], IMPUTED),
    "tipping_point": (True, IMPUTED),
    "seed": (3, IMPUTED),
    "resamples": (50, {"method": "two_part", "endpoint": "w", "derivation": "value"}),
    "dose": ("age", {}),
    "exposure": ("conc", {}),
    "exposure_visit": ("base", {"exposure": "conc"}),
    "models": (["trend"], {}),
    "candidates": (["linear", "emax"], MCPMOD),
    "direction": ("decreasing", {"models": ["mcpmod"]}),
    "target_effect": (1.0, {**MCPMOD, "resamples": 5}),
    "outcome": ("nihss", {}),
    "outcome_visit": ("day5", {}),
    "better": ("high", {}),
    "cut": (2, {}),
    "reference_levels": ({"site": "b"}, {"covariates": ["site"]}),
    "utilities": ({str(g): 1 - g / 6 for g in range(7)}, {}),
    "hierarchy": (["mrs", {"outcome": "nihss", "better": "low"}], {}),
    "odds_by_cut": (True, {}),
    "quantiles": ([0.4], {}),
    "cluster": ("clusters", {}),
    "event_endpoint": ("death", {"assessor": "r1"}),
    "criterion": ("two", {"event_endpoint": "os"}),
    "assessor": ("r2", {"event_endpoint": "death"}),
    "strata": (["site"], {}),
    "landmark_days": (20, {}),
    "competing_endpoint": ("os", {"method": "finegray", "criterion": "one"}),
    "tau_days": (50, {"method": "rmst"}),
    "visit_days": (
        {"base": 0, "day5": 5, "day30": 30},
        {"method": "time_varying", "endpoint": "v", "by": None},
    ),
    "population": ("age > 55", {}),
    "alpha": (0.1, {}),
    "alternative": ("less", {}),
    "adjustment": ("hochberg", OF_FAMILY),
    "primary_visit": ("day5", OF_FAMILY),
    "primary_contrast": ("low", OF_FAMILY),
    "primary_statistic": ("adjusted_mean", OF_FAMILY),
    "weight": (1.0, {**OF_FAMILY, "adjustment": "graphical", "primary_contrast": "low"}),
    "passes_to": (
        {"y": 1.0},
        {"weight": 1.0, **OF_FAMILY, "adjustment": "graphical", "primary_contrast": "low"},
    ),
}
#: Where the key has an effect beside other keys than in a comparison.
OWN = {
    **{(kind, "outcome"): ("mrs", {}) for kind in ("mediation", "surrogacy")},
    ("dose_response", "resamples"): (
        7,
        {**MCPMOD, "target_effect": 1.0, "resamples": 5, "alpha": 0.9},
    ),
    ("dose_response", "seed"): (7, {**MCPMOD, "target_effect": 1.0, "resamples": 5, "alpha": 0.9}),
    ("dose_response", "derivation"): ("change", {}),
    ("dose_response", "zeros"): ({"offset": 2.0}, {"derivation": "log_ratio", "endpoint": "w"}),
    ("dose_response", "responder"): ("change <= 0", {k: RESPONDER[k] for k in list(RESPONDER)[:2]}),
    ("comparison", "strata"): (["site"], {"method": "mann_whitney"}),
    ("quantile", "resamples"): (30, {"quantiles": [0.5]}),
    ("quantile", "seed"): (7, {"resamples": 30}),
    ("quantile", "outcome_visit"): ("day30", {"outcome": "mrs"}),
    ("quantile", "cluster"): ("clusters", {"resamples": 20}),
    ("survival", "method"): ("rmst", {}),
    ("mediation", "resamples"): (30, {}),
    ("surrogacy", "resamples"): (30, {"cluster": "site"}),
    ("mediation", "seed"): (7, {}),
    ("surrogacy", "seed"): (7, {}),
    ("surrogacy", "cluster"): ("site", {}),
    ("ordinal", "endpoint"): ("v", {"by": None}),
    ("dose_response", "reference_levels"): ({"site": "b"}, {"covariates": ["site"]}),
    ("survival", "endpoint"): ("v", {}),
    **{
        (kind, key): (CHANGES[key][0], {"by": None, "endpoint": "v", **more})
        for kind in ("ordinal", "survival")
        for key, more in (
            ("visit", {}),
            ("source", {}),
            ("region", {}),
            ("derivation", {}),
            ("baseline", {"derivation": "change", "visit": "day30"}),
            ("responder", {"derivation": "responder", "responder": "change <= 3"}),
            ("nonresponder_imputation", {"derivation": "responder", "responder": "change <= 3"}),
            ("zeros", {"derivation": "log_ratio", "endpoint": "w", "visit": "day5"}),
        )
    },
    **{
        (kind, "nonresponder_imputation"): (
            True,
            {"derivation": "responder", "responder": "change <= 3", "visit": "day30"},
        )
        for kind in ("dose_response", "quantile", "mediation", "surrogacy")
    },
    **{
        (kind, "responder"): (
            "change <= 0",
            {"derivation": "responder", "responder": "change <= 3"},
        )
        for kind in ("quantile", "mediation", "surrogacy")
    },
}


def rows_of(analysis, tables):
    """Rows with their adjusted p, of a plan of this analysis and another of its family."""
    frame = run(analysis, tables)
    spec = planned(analysis)
    other = AnalysisSpec(id="y", type="", family=spec.family, adjustment=spec.adjustment)
    more = pd.DataFrame(
        [
            {"analysis_id": "y", "statistic": "slope", "group": "all", "p_value": 0.04}
            | {"visit": "all", "endpoint": "n/a"}
        ]
    )
    every = pd.concat([frame, more], ignore_index=True)
    return adjust_families(every, [spec, other]).fillna("").astype(str)


def cleaned(analysis):
    return {key: value for key, value in analysis.items() if value is not None}


@pytest.mark.parametrize("kind", BASES)
def test_every_key_that_is_read_changes_the_rows(kind, tables):
    silent = []
    for key in [*sorted(KEYS[kind]), "population", "alpha", "alternative"]:
        value, more = OWN.get((kind, key), CHANGES[key])
        base = cleaned({"id": "x", "type": kind, **BASES[kind], **more})
        changed = cleaned({**base, key: value})
        if any(name == key for name, *_ in unread(changed)):
            silent.append(f"{key}: refused")
            continue
        before = base if base.get(key) != value else {k: v for k, v in base.items() if k != key}
        if rows_of(before, tables).equals(rows_of(changed, tables)):
            silent.append(key)
    assert not silent, silent


@pytest.mark.parametrize(
    "key",
    ["adjustment", "weight", "passes_to"]
    + ["primary_visit", "primary_contrast", "primary_statistic"],
)
def test_keys_of_a_family_change_the_adjusted_p(key, tables):
    value, more = CHANGES[key]
    base = {"id": "x", "type": "comparison", **BASES["comparison"], **more}
    before = {k: v for k, v in base.items() if k != key or key == "adjustment"}
    assert not [k for k, *_ in unread({**base, key: value})]
    old = rows_of(before, tables) if key != "primary_contrast" else rows_of(base, tables)
    assert not old.equals(rows_of({**base, key: value}, tables))


@pytest.mark.parametrize("kind", BASES)
def test_every_other_key_of_the_schema_is_refused(kind):
    keys = load_schema("config")["$defs"]["analysis"]["properties"]
    for key in set(keys) - COMMON - KEYS[kind]:
        named = [k for k, *_ in unread({"type": kind, **BASES[kind], key: "x"})]
        assert key in named, key
    assert KEYS[kind] <= set(keys)
