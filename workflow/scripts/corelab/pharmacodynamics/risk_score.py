"""Analyses of type ``radiomics``: feature reproducibility and the supervised risk score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from corelab.agreement.icc import intraclass_correlation_many
from corelab.measurement.selection import NotComputable, Tables, as_list, population
from corelab.pharmacodynamics.analysis_set import (
    Design,
    complete_cases,
    design,
    with_covariates,
)
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.supervised_components import (
    Prevalidated,
    SupervisedComponents,
    cross_validate,
    permutation_p,
    prevalidate,
    scaled,
    train,
)
from corelab.pharmacodynamics.time_to_event import (
    concordance_row,
    event_times,
    hazard_rows,
    logrank_row,
    median_row,
)
from corelab.settings.analyses.radiomics import RadiomicsSpec
from corelab.terms.results import Estimate, StatisticRow, join_notes, not_computable


def _feature_table(analysis: RadiomicsSpec, tables: Tables) -> pd.DataFrame:
    """Features of the plan's series, labels and visit: long, with one ``name`` per feature."""
    rows = tables.radiomics
    if rows.empty or "feature" not in rows.columns:
        raise NotComputable("no radiomics features in this study")
    keep = rows["participant_id"].isin(population(analysis, tables)["participant_id"])
    for column, key in (
        ("series", "series"),
        ("label", "labels"),
        ("visit", "visit"),
        ("source", "sources"),
    ):
        wanted = [str(item) for item in as_list(getattr(analysis, key))]
        if wanted and wanted != ["all"]:
            # Shape belongs to the mask, whichever series are requested.
            keep &= rows[column].isin([*wanted, "mask"] if column == "series" else wanted)
    rows = rows[keep].copy()
    if rows.empty:
        raise NotComputable("no features of these series, labels and visit in the population")
    if len(set(rows["visit"])) > 1:
        first = [v for v in tables.visit_order if v in set(rows["visit"])] or sorted(
            set(rows["visit"])
        )
        rows = rows[rows["visit"] == first[0]]
    rows["repeat"] = 1 if "repeat" not in rows else pd.to_numeric(rows["repeat"]).astype(int)
    rows["name"] = rows["series"] + "/" + rows["label"] + "/" + rows["feature"]
    return rows


def _single(rows: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """The rows, which have one value per feature and participant (and further keys)."""
    doubled = rows.duplicated(["participant_id", "name", *keys])
    if doubled.any():
        first = rows[doubled].iloc[0]
        raise ValueError(
            f"two values of feature {first['name']} for participant {first['participant_id']}; "
            "duplicates are never averaged"
        )
    return rows


def analyse(analysis: RadiomicsSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``radiomics``.

    The ICC of every feature over readers, over ``<source>:perturbed-<n>`` and over repeated scans;
    features with any of them below ``min_icc`` are left out of the risk score.
    """
    head = {"endpoint": "radiomics"}
    try:
        rows = _feature_table(analysis, tables)
    except NotComputable as reason:
        yield not_computable("c_index", str(reason), **head)
        return
    head["visit"] = str(rows["visit"].iloc[0])
    icc: dict[str, float] = {}
    for kind, of_kind in _comparisons(rows).items():
        for row in _icc_rows(of_kind, kind, analysis.alpha):
            name = row.group.partition("|")[0]
            # The least reproducible comparison decides; nan (no variance) decides too.
            icc[name] = float(np.fmin(icc.get(name, math.inf), row.estimate))
            if not math.isfinite(row.estimate):
                icc[name] = math.nan
            yield row.within(**head)
    if analysis.model != "none":
        yield from guarded(_superpc_rows(analysis, tables, rows, icc), "c_index", **head)


def _comparisons(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What is varied -> rows with a column ``rating`` that names the variants."""
    perturbed = rows["source"].str.contains(":perturbed-")
    first = rows["repeat"] == 1
    found = {}
    if len(set(rows.loc[~perturbed & first, "source"])) > 1:
        part = rows[~perturbed & first]
        found["masks"] = part.assign(rating=part["source"])
    if perturbed.any():
        origin = rows["source"].str.partition(":perturbed-")[0]
        part = rows[first & origin.isin(set(origin[perturbed]))]
        found["perturbed masks"] = part.assign(rating=part["source"])
    for source, part in rows[~perturbed & (rows["series"] != "mask")].groupby("source", sort=True):
        if (part["repeat"] > 1).any() and "repeated scans" not in found:
            found["repeated scans"] = part.assign(
                rating=f"{source} scan " + part["repeat"].map(str)
            )
    return found


def _icc_rows(rows: pd.DataFrame, kind: str, alpha: float) -> list[StatisticRow]:
    """ICC(A,1) of every feature over the ratings, participants who have them all."""
    names, ratings = sorted(set(rows["name"])), sorted(set(rows["rating"]))
    people = sorted(set(rows["participant_id"]))
    index = pd.MultiIndex.from_product([names, people, ratings])
    keys = ["name", "participant_id", "rating"]
    values = _single(rows, "rating").set_index(keys)["value"].reindex(index).to_numpy(float)
    cube = values.reshape(len(names), len(people), len(ratings))
    complete = np.isfinite(cube).all(axis=2)
    how = f"ICC(A,1) over {kind}: {', '.join(ratings)}; McGraw and Wong's interval"
    result: list[StatisticRow] = []
    # Features that the same participants have are fitted together.
    patterns, member = np.unique(complete, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        chosen = np.flatnonzero(member.ravel() == number)
        n = int(pattern.sum())
        many = None
        if n >= 2 and len(ratings) >= 2:
            many = intraclass_correlation_many(cube[chosen][:, pattern], alpha=alpha)["icc_a_1"]
        for place, feature in enumerate(chosen):
            group = names[feature] if kind == "masks" else f"{names[feature]}|{kind}"
            found = Estimate(math.nan)
            if many is not None:
                limits = float(many.ci_low[place]), float(many.ci_high[place])
                found = Estimate(float(many.estimate[place]), *limits)
            why = "fewer than two participants with every rating" if many is None else "no variance"
            row = found.row("icc_a_1", group=group, n=n, method=how)
            if not math.isfinite(found.estimate):
                row = not_computable("icc_a_1", why, group=group, n=n, method=how)
            result.append(row)
    return sorted(result, key=lambda row: row.group)


def _features(
    analysis: RadiomicsSpec, tables: Tables, rows: pd.DataFrame, icc: Mapping[str, float]
) -> tuple[pd.DataFrame, list[str], str]:
    """Complete cases of reproducible features with times; their names, and words on them."""
    sources = set(rows["source"])
    source = analysis.source or ("pipeline" if "pipeline" in sources else sorted(sources)[0])
    own = _single(rows[(rows["source"] == source) & (rows["repeat"] == 1)])
    wide = own.pivot_table(
        index="participant_id", columns="name", values="value", aggfunc="first", sort=True
    ).astype(float)
    least, event = analysis.min_icc, analysis.event_endpoint
    dropped = [n for n in wide.columns if least is not None and not icc.get(n, math.inf) >= least]
    wide = wide.drop(columns=dropped)
    constant = wide.columns[wide.std() == 0]
    frame = wide.drop(columns=constant).dropna(axis=1, how="all")
    frame = frame.join(event_times(analysis, tables, event), how="inner").dropna()
    names = [c for c in frame.columns if c not in ("time_days", "event")]
    needed = 2 * analysis.folds
    if len(frame) < needed or not names:
        raise NotComputable(
            f"{len(frame)} participants with every feature and {event}, {len(names)} features; "
            f"{analysis.folds}-fold cross-validation needs {needed}"
        )
    said = join_notes(
        f"source {source}",
        f"{len(names)} features",
        f"{len(dropped)} below ICC {least:g}" if dropped else "",
        f"{len(constant)} constant" if len(constant) else "",
    )
    return frame, names, said


def _superpc_rows(
    analysis: RadiomicsSpec, tables: Tables, rows: pd.DataFrame, icc: Mapping[str, float]
) -> Iterator[StatisticRow]:
    frame, names, said = _features(analysis, tables, rows, icc)
    n = len(frame)
    # Features have units of their own: they enter on one scale, that of each training set.
    raw = frame[names].to_numpy(float).T
    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    planned = analysis.threshold
    fixed = float(planned) if isinstance(planned, (int, float)) else None
    folds, seed = analysis.folds, analysis.seed
    threshold = fixed
    if threshold is None:
        threshold = cross_validate(raw, t, e, n_folds=folds, seed=seed)
    x = scaled(raw, np.ones(n, bool))
    model = train(x, t, e, threshold)
    chosen = "fixed" if fixed is not None else "cross-validated"
    how = f"supervised principal components, threshold {threshold:.4g} ({chosen})"
    yield Estimate(float(model.selected.size), n=n).row("n_selected", method=how, note=said)
    for row in _importance_rows(model, x, names):
        yield replace(row, n=n, method=f"{row.method}; {how}")
    validated = prevalidate(raw, t, e, threshold=fixed, n_folds=folds, seed=seed)
    for person, risk, high in zip(frame.index, validated.risk, validated.high_risk, strict=True):
        for statistic, value, note in (
            ("risk_score", risk, ""),
            ("risk_group", high, "1 high, 0 low risk"),
        ):
            yield Estimate(float(value), n=1).row(
                statistic,
                participant_id=str(person),
                group="risk=high" if high else "risk=low",
                method=f"from a model that did not see the participant; {how}",
                note=note,
            )
    outer = f"{how}; {folds}-fold outer cross-validation"
    for row in _risk_group_rows(analysis, frame, validated):
        yield replace(row, method=f"{row.method}; {outer}")
    yield from _adjusted_rows(analysis, tables, frame, validated.high_risk)
    permutations = analysis.permutations
    if permutations:
        c, p = permutation_p(
            raw, t, e, permutations=permutations, threshold=fixed, n_folds=folds, seed=seed
        )
        yield Estimate(p, p_value=p, n=n).row(
            "permutation_p",
            method=f"whole procedure on {permutations} permutations; concordance {c:.4f}",
        )


def _importance_rows(
    model: SupervisedComponents, x: np.ndarray, names: list[str]
) -> Iterator[StatisticRow]:
    importance = model.importance(x)
    for position in model.selected:
        score = model.scores[position]
        risk = "high" if score > 0 else "low"
        yield Estimate(float(importance[position])).row(
            "importance",
            group=names[position],
            method="correlation with the first component",
            note=f"Cox score {score:.4g}: {risk} risk with a higher value",
        )


def _risk_group_rows(
    analysis: RadiomicsSpec, frame: pd.DataFrame, validated: Prevalidated
) -> Iterator[StatisticRow]:
    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    alpha, risk, high = analysis.alpha, validated.risk, validated.high_risk
    row = concordance_row(t, e, risk, alpha, "Harrell's concordance of the pre-validated risk")
    yield replace(row, group=f"risk|{analysis.event_endpoint}")
    groups = np.where(high, "high", "low")
    for level in ("high", "low"):
        inside = groups == level
        if inside.any():
            yield replace(median_row(t[inside], e[inside], alpha), group=f"risk={level}")
    if np.unique(groups).size < 2:
        raise NotComputable("cross-validation puts everybody into one risk group")
    pair = "risk=high|risk=low"
    yield replace(logrank_row(t, e, groups), group=pair)
    single = Design(high.astype(float)[:, None], ("risk=high",))
    for row in hazard_rows(frame, single, alpha, {"risk=high": pair}, "risk group alone"):
        if row.statistic == "hazard_ratio":
            yield row


def _adjusted_rows(
    analysis: RadiomicsSpec, tables: Tables, frame: pd.DataFrame, high: np.ndarray
) -> Iterator[StatisticRow]:
    """Hazard ratio of the risk group given the covariates."""
    names = list(analysis.covariates)
    if not names:
        return
    table = frame[["time_days", "event"]].assign(risk_high=high.astype(float))
    table = with_covariates(table, analysis, tables, endpoint=None, names=names)
    table, note = complete_cases(table, names, analysis, tables)
    plan = design(
        table, covariates=["risk_high", *names], reference_levels=analysis.reference_levels
    ).slopes()
    groups = {term: f"{term} given risk" for term in plan.terms}
    groups["risk_high"] = "risk=high|risk=low given " + ", ".join(names)
    words = f"multivariable with {', '.join(names)}"
    for row in hazard_rows(table, plan, analysis.alpha, groups, words):
        if row.statistic == "hazard_ratio":
            yield row.noted(note)
