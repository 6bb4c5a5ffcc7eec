"""Analyses of type ``radiomics``: feature reproducibility and the supervised risk score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.agreement.icc import intraclass_correlation_many
from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    not_computable,
    population,
)
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    complete_cases,
    design,
    join_notes,
    with_covariates,
)
from corelab.pharmacodynamics.supervised_components import (
    cross_validate,
    permutation_p,
    prevalidate,
    scaled,
    train,
)
from corelab.pharmacodynamics.survival import concordance, fit_cox, risk_order
from corelab.pharmacodynamics.time_to_event import (
    event_times,
    hazard_rows,
    logrank_row,
    median_row,
)
from corelab.provenance.two_computations import compare
from corelab.settings.analyses.radiomics import RadiomicsSpec


def feature_table(analysis: RadiomicsSpec, tables: Tables) -> pd.DataFrame:
    """Features of the plan's series, labels and visit: long, with one ``name`` per feature.

    Raises
    ------
    NotComputable
        If there are none.
    """
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


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    doubled = rows.duplicated(["participant_id", "name"])
    if doubled.any():
        first = rows[doubled].iloc[0]
        raise ValueError(
            f"two values of feature {first['name']} for participant {first['participant_id']}; "
            "duplicates are never averaged"
        )
    wide = rows.pivot_table(
        index="participant_id", columns="name", values="value", aggfunc="first", sort=True
    )
    return wide.astype(float)


def analyse(analysis: RadiomicsSpec, tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``radiomics``.

    Keys: ``series``, ``labels``, ``visit``; ``sources`` (whose masks are compared: the ICC of every
    feature over readers, over ``<source>:perturbed-<n>``, and over repeated scans); ``source`` (of
    the model); ``min_icc`` (features with any of these ICCs below it are left out);
    ``model: superpc`` with ``event_endpoint`` (default ``os``), ``threshold`` (a number, or
    cross-validated), ``folds`` (10), ``permutations`` (0), ``seed`` (1), ``covariates`` (of the
    multivariable model).
    """
    head = {"endpoint": "radiomics"}
    try:
        rows = feature_table(analysis, tables)
    except NotComputable as reason:
        yield not_computable("c_index", str(reason), **head)
        return
    visit = {"visit": str(rows["visit"].iloc[0])}
    icc: dict[str, float] = {}
    for kind, of_kind in _comparisons(rows).items():
        for row in _icc_rows(of_kind, kind, alpha_of(analysis)):
            name = str(row["group"]).partition("|")[0]
            # The least reproducible comparison decides; nan (no variance) decides too.
            icc[name] = float(np.fmin(icc.get(name, math.inf), row["estimate"]))
            if not math.isfinite(float(row["estimate"])):
                icc[name] = math.nan
            yield {**head, **visit, **row}
    if analysis.model == "none":
        return
    try:
        for row in _superpc_rows(analysis, tables, rows, icc):
            yield {**head, **visit, **row}
    except NotComputable as reason:
        yield not_computable("c_index", str(reason), **head, **visit)


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


def _icc_rows(rows: pd.DataFrame, kind: str, alpha: float) -> list[dict[str, Any]]:
    """ICC(A,1) of every feature over the ratings, participants who have them all."""
    names, ratings = sorted(set(rows["name"])), sorted(set(rows["rating"]))
    people = sorted(set(rows["participant_id"]))
    index = pd.MultiIndex.from_product([names, people, ratings])
    keys = ["name", "participant_id", "rating"]
    if rows.duplicated(keys).any():
        first = rows[rows.duplicated(keys)].iloc[0]
        raise ValueError(
            f"two values of feature {first['name']} for participant {first['participant_id']}; "
            "duplicates are never averaged"
        )
    values = rows.set_index(keys)["value"].reindex(index).to_numpy(float)
    cube = values.reshape(len(names), len(people), len(ratings))
    complete = np.isfinite(cube).all(axis=2)
    how = f"ICC(A,1) over {kind}: {', '.join(ratings)}; McGraw and Wong's interval"
    result: list[dict[str, Any]] = []
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
            value = math.nan if many is None else float(many.estimate[place])
            entry: dict[str, Any] = {
                "statistic": "icc_a_1",
                "group": group,
                "estimate": value,
                "n": n,
                "method": how,
            }
            if many is not None and math.isfinite(value):
                entry |= {
                    "ci_low": float(many.ci_low[place]),
                    "ci_high": float(many.ci_high[place]),
                }
            else:
                why = "fewer than two participants with every rating" if many is None else ""
                entry |= not_computable("icc_a_1", why or "no variance", group=group)
            result.append(entry)
    return sorted(result, key=lambda row: str(row["group"]))


def _superpc_rows(
    analysis: RadiomicsSpec, tables: Tables, rows: pd.DataFrame, icc: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    event = analysis.event_endpoint
    source = analysis.source or (
        "pipeline" if "pipeline" in set(rows["source"]) else sorted(set(rows["source"]))[0]
    )
    wide = _wide(rows[(rows["source"] == source) & (rows["repeat"] == 1)])
    least = analysis.min_icc
    dropped = [n for n in wide.columns if least is not None and not icc.get(n, math.inf) >= least]
    wide = wide.drop(columns=dropped)
    constant = wide.columns[wide.std() == 0]
    frame = wide.drop(columns=constant).dropna(axis=1, how="all")
    times = event_times(analysis, tables, event)
    frame = frame.join(times, how="inner").dropna()
    names = [c for c in frame.columns if c not in ("time_days", "event")]
    n_folds = analysis.folds
    if len(frame) < 2 * n_folds or not names:
        raise NotComputable(
            f"{len(frame)} participants with every feature and {event}, {len(names)} features; "
            f"{n_folds}-fold cross-validation needs {2 * n_folds}"
        )
    # Features have units of their own: they enter on one scale, that of each training set.
    raw = frame[names].to_numpy(float).T
    x = scaled(raw, np.ones(len(frame), bool))
    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    seed = analysis.seed
    fixed = analysis.threshold
    fixed = float(fixed) if isinstance(fixed, (int, float)) else None
    threshold = fixed
    if threshold is None:
        threshold = cross_validate(raw, t, e, n_folds=n_folds, seed=seed, scale=True).chosen
    model = train(x, t, e, threshold)
    said = join_notes(
        f"source {source}",
        f"{len(names)} features",
        f"{len(dropped)} below ICC {least:g}" if dropped else "",
        f"{len(constant)} constant" if len(constant) else "",
    )
    chosen = "fixed" if fixed is not None else "cross-validated"
    how = f"supervised principal components, threshold {threshold:.4g} ({chosen})"
    yield {
        "statistic": "n_selected",
        "estimate": float(model.selected.size),
        "n": len(frame),
        "method": how,
        "note": said,
    }
    yield from _importance_rows(model, x, names, len(frame), how)
    validated = prevalidate(raw, t, e, n_folds=n_folds, threshold=fixed, seed=seed, scale=True)
    for person, risk, high in zip(frame.index, validated.risk, validated.high_risk, strict=True):
        for statistic, value in (("risk_score", float(risk)), ("risk_group", float(high))):
            yield {
                "statistic": statistic,
                "participant_id": str(person),
                "group": "risk=high" if high else "risk=low",
                "estimate": value,
                "n": 1,
                "method": f"from a model that did not see the participant; {how}",
                "note": "1 high, 0 low risk" if statistic == "risk_group" else "",
            }
    yield from _risk_group_rows(
        analysis,
        tables,
        frame,
        validated.risk,
        validated.high_risk,
        event,
        alpha,
        f"{how}; {n_folds}-fold outer cross-validation",
    )
    permutations = analysis.permutations
    if permutations:
        c, p_value = permutation_p(
            raw,
            t,
            e,
            permutations=permutations,
            n_folds=n_folds,
            threshold=fixed,
            seed=seed,
            scale=True,
        )
        yield {
            "statistic": "permutation_p",
            "estimate": p_value,
            "p_value": p_value,
            "n": len(frame),
            "method": f"whole procedure on {permutations} permutations; concordance {c:.4f}",
        }


def _importance_rows(
    model: Any, x: np.ndarray, names: list[str], n: int, how: str
) -> Iterator[dict[str, Any]]:
    importance = model.importance(x)
    for position in model.selected:
        yield {
            "statistic": "importance",
            "group": names[position],
            "estimate": float(importance[position]),
            "n": n,
            "method": f"correlation with the first component; {how}",
            "note": f"Cox score {model.scores[position]:.4g}: "
            + ("high" if model.scores[position] > 0 else "low")
            + " risk with a higher value",
        }


def _risk_group_rows(
    analysis: RadiomicsSpec,
    tables: Tables,
    frame: pd.DataFrame,
    risk: np.ndarray,
    high: np.ndarray,
    event: str,
    alpha: float,
    how: str,
) -> Iterator[dict[str, Any]]:
    from lifelines.utils import concordance_index

    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    c = concordance(t, e, risk)
    z = stats.norm.ppf(1 - alpha / 2)
    yield {
        "statistic": "c_index",
        "group": f"risk|{event}",
        "estimate": c.estimate,
        "ci_low": max(0.0, c.estimate - z * c.standard_error),
        "ci_high": min(1.0, c.estimate + z * c.standard_error),
        "n": t.size,
        "method": f"Harrell's concordance of the pre-validated risk; {how}",
        **compare(
            c.estimate,
            float(concordance_index(t, -risk_order(risk), e)),
            "lifelines concordance_index",
        ),
    }
    groups = pd.Series(np.where(high, "high", "low"), index=frame.index, name="risk")
    for level in ("high", "low"):
        inside = (groups == level).to_numpy()
        if inside.any():
            row = median_row(t[inside], e[inside], alpha)
            yield {"group": f"risk={level}", **row, "method": f"{row['method']}; {how}"}
    if groups.nunique() < 2:
        raise NotComputable("cross-validation puts everybody into one risk group")
    row = logrank_row(t, e, groups)
    yield {"group": "risk=high|risk=low", **row, "method": f"{row['method']}; {how}"}
    single = Design(high.astype(float)[:, None], ("risk=high",))
    fit_cox(t, e, single.matrix)
    yield from (
        {**r, "method": f"{r['method']}; {how}"}
        for r in hazard_rows(
            frame, single, alpha, {"risk=high": "risk=high|risk=low"}, "risk group alone"
        )
        if r["statistic"] == "hazard_ratio"
    )
    names = list(analysis.covariates)
    if names:
        table = frame[["time_days", "event"]].assign(risk_high=high.astype(float))
        table = with_covariates(table, analysis, tables, endpoint=None, names=names)
        table, note = complete_cases(table, names, analysis, tables)
        full = design(
            table,
            covariates=["risk_high", *names],
            reference_levels=analysis.reference_levels,
        )
        plan = Design(full.matrix[:, 1:], full.terms[1:])
        for r in hazard_rows(
            table,
            plan,
            alpha,
            {
                term: "risk=high|risk=low given " + ", ".join(names)
                if term == "risk_high"
                else f"{term} given risk"
                for term in plan.terms
            },
            f"multivariable with {', '.join(names)}",
        ):
            if r["statistic"] == "hazard_ratio":
                yield {**r, "note": join_notes(str(r.get("note", "")), note)}
