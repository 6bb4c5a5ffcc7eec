"""Which chart belongs to which analysis, with the values that the analysis saw.

Points come from the tables, lines and intervals from the statistics rows: no statistic is
computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from corelab.measurement.selection import NotComputable, as_list, measured, population
from corelab.pharmacodynamics.analysis_set import endpoint_by_visit, exposure_values, outcome_values
from corelab.pharmacodynamics.survival import kaplan_meier
from corelab.pharmacodynamics.time_to_event import event_times
from corelab.reporting import charts
from corelab.reporting.numbers import is_number, significant, with_interval
from corelab.reporting.results import Results
from corelab.reporting.vocabulary import (
    endpoint_words,
    in_sentence,
    label_words,
)
from corelab.terms.endpoints import unit_of
from corelab.terms.statistics import statistic


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Attributes
    ----------
    title, caption
        Above and below the chart.
    svg
        Inline SVG.
    legend
        Names of the series, empty for one.
    """

    title: str
    svg: Markup
    caption: str
    legend: tuple[str, ...] = ()


def arms_of(results: Results) -> list[str]:
    """Arms in the order of dose where there is one, else of first appearance."""
    people = results.participants
    if "arm" not in people:
        return []
    known = people.dropna(subset=["arm"])
    if "dose" in known and known["dose"].notna().any():
        order = known.groupby("arm", sort=False)["dose"].min().sort_values(kind="stable")
        return [str(arm) for arm in order.index]
    arms = [str(arm) for arm in dict.fromkeys(known["arm"])]
    return sorted(arms) if results.study.get("blinded") else arms


def _arm_of(results: Results) -> dict[str, str]:
    people = results.participants
    if "arm" not in people:
        return {}
    known = people.dropna(subset=["arm"])
    return dict(zip(known["participant_id"], known["arm"].map(str), strict=True))


def _axis_words(endpoint: str, analysis: Mapping[str, Any]) -> str:
    derivation = analysis.get("derivation", "value")
    words = endpoint_words(endpoint)
    unit = unit_of(endpoint)
    if derivation == "change":
        words = f"Change of {in_sentence(words)}"
    elif derivation == "percent_change":
        words, unit = f"Change of {in_sentence(words)}", "%"
    elif derivation == "log_ratio":
        words, unit = f"Log ratio of {in_sentence(words)}", ""
    return f"{words}, {unit}" if unit else words


def _titled(endpoint: str, analysis: Mapping[str, Any]) -> str:
    """What a figure shows, as its axis says it, without the unit."""
    return _axis_words(endpoint, analysis).partition(", ")[0]


def _driver_words(results: Results, name: str) -> str:
    """A dose or an exposure with the unit that the study gives the dose."""
    unit = str(results.study.get("dose_unit") or "") if name == "dose" else ""
    return label_words(name) + (f", {unit}" if unit else "")


def _values(
    results: Results, analysis: Mapping[str, Any], endpoint: str
) -> list[tuple[str, pd.Series]]:
    """Values of an endpoint by visit, indexed by participant, as the analysis takes them."""
    try:
        frames = endpoint_by_visit(analysis, results.tables, endpoint)
    except NotComputable:
        return []
    return [(visit, frame["value"].astype(float)) for visit, frame in frames]


def _pairs(
    results: Results, analysis: Mapping[str, Any], endpoint: str, group: str
) -> pd.DataFrame:
    """Paired values of a group ``a|b`` (sources), or of repeats 1 and 2 of one source."""
    rows = measured({**analysis, "visit": analysis.get("visit")}, results.tables, endpoint=endpoint)
    first, _, second = group.partition("|")
    keys = ["participant_id", "visit", "repeat"]
    if second:
        # As the analysis takes them: the first repeat of each source.
        rows = rows.sort_values("repeat").drop_duplicates(["participant_id", "visit", "source"])
        rows = rows.assign(repeat=1)
        a = rows[rows["source"] == first].set_index(keys)["value"]
        b = rows[rows["source"] == second].set_index(keys)["value"]
    else:
        rows = rows[rows["source"] == first].set_index(["participant_id", "visit"])
        a = rows[rows["repeat"] == 1]["value"]
        b = rows[rows["repeat"] == 2]["value"]
    return pd.concat({"a": a, "b": b}, axis=1).dropna().reset_index()


def _agreement(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    rows = results.statistics_of(str(analysis["id"]))
    figures = []
    for (endpoint, group), one in rows[rows["statistic"] == "bias"].groupby(
        ["endpoint", "group"], sort=False
    ):
        bias = one.iloc[0]
        pairs = _pairs(results, analysis, str(endpoint), str(group))
        if pairs.empty or not is_number(bias["estimate"]):
            continue
        unit = unit_of(str(endpoint))
        first, _, second = str(group).partition("|")
        names = (first, second) if second else (f"{first}, repeat 1", f"{first}, repeat 2")
        points = [
            charts.Point(
                (a + b) / 2,
                a - b,
                f"{pid}, {visit}: {names[0]} {significant(a)}, {names[1]} {significant(b)} {unit}",
            )
            for pid, visit, a, b in zip(
                pairs["participant_id"],
                pairs["visit"],
                pairs["a"].astype(float),
                pairs["b"].astype(float),
                strict=True,
            )
        ]
        lines = []
        same = rows[(rows["endpoint"] == endpoint) & (rows["group"] == group)]
        for name, text in (("loa_upper", "+1.96 SD"), ("bias", "bias"), ("loa_lower", "−1.96 SD")):
            found = same[(same["statistic"] == name) & same["estimate"].notna()]
            if len(found):
                line = found.iloc[0]
                low, high = line["ci_low"], line["ci_high"]
                known = is_number(low) and is_number(high)
                lines.append(
                    charts.Line(
                        float(line["estimate"]),
                        f"{text} {significant(line['estimate'])}",
                        float(low) if known else None,
                        float(high) if known else None,
                        strong=name == "bias",
                    )
                )
        suffix = f", {unit}" if unit else ""
        figures.append(
            Figure(
                f"{endpoint_words(str(endpoint))}: {names[0]} against {names[1]}",
                charts.scatter(
                    points,
                    xlabel=f"Mean of the two{suffix}",
                    ylabel=f"{names[0]} − {names[1]}{suffix}",
                    lines=lines,
                    label=f"Bland-Altman plot, {names[0]} against {names[1]}, {len(points)} pairs",
                ),
                f"Bland-Altman plot, {len(points)} pairs. Lines: bias and 95 % limits of "
                "agreement; bands: their confidence intervals.",
            )
        )
    return figures


def _correlation(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    arms, arm_of = arms_of(results), _arm_of(results)
    rows = results.statistics_of(str(analysis["id"]))
    figures = []
    kinds: list[tuple[str, Callable[..., tuple[pd.Series, str]]]] = [
        ("outcome", outcome_values),
        ("exposure", exposure_values),
    ]
    for endpoint in as_list(analysis.get("endpoint")):
        for visit, values in _values(results, analysis, endpoint):
            others: list[tuple[str, pd.Series, str]] = []
            for kind, take in kinds:
                for name in as_list(analysis.get(kind)):
                    try:
                        found, at = take(analysis, results.tables, name, visit)
                    except NotComputable:
                        continue
                    others.append((name, found, at))
            for name in as_list(analysis.get("endpoint_y")):
                second = {**analysis, "visit": analysis.get("visit_y") or visit}
                second["source"] = analysis.get("source_y") or analysis.get("source")
                others += [(name, found, at) for at, found in _values(results, second, name)]
            for name, other, at in others:
                both = pd.concat({"x": other, "y": values}, axis=1).dropna()
                if both.empty:
                    continue
                where = "" if at in {"all", visit} else f" ({at})"
                points = [
                    charts.Point(
                        float(x),
                        float(y),
                        f"{pid}: {name} {significant(x)}, {significant(y)}",
                        arms.index(arm_of[pid]) if pid in arm_of else 0,
                    )
                    for pid, x, y in zip(both.index, both["x"], both["y"], strict=True)
                ]
                told = [
                    f"{statistic(row.statistic).words} "
                    f"{with_interval(row.estimate, row.ci_low, row.ci_high)}"
                    for row in rows.itertuples()
                    if is_number(row.estimate)
                    and row.visit in {visit, "all"}
                    and str(row.group).split("|")[-1] == name
                ]
                figures.append(
                    Figure(
                        f"{endpoint_words(endpoint)} at {visit} and "
                        f"{in_sentence(label_words(name))}",
                        charts.scatter(
                            points,
                            xlabel=f"{label_words(name)}{where}",
                            ylabel=_axis_words(endpoint, analysis),
                            label=f"Scatter plot of {endpoint_words(endpoint)} and {name}, "
                            f"{len(points)} subjects",
                        ),
                        f"{len(points)} subjects. " + "; ".join(told) + ("." if told else ""),
                        tuple(arms),
                    )
                )
    return figures


def _comparison(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    by = str(analysis.get("by") or "arm")
    people = population(analysis, results.tables)
    if by not in people:
        return []
    group_of = {
        str(p): str(g)
        for p, g in zip(people["participant_id"], people[by], strict=True)
        if g is not None and pd.notna(g)
    }
    levels = arms_of(results) if by == "arm" else sorted(set(group_of.values()))
    rows = results.statistics_of(str(analysis["id"]))
    figures = []
    for endpoint in as_list(analysis.get("endpoint")):
        for visit, values in _values(results, analysis, endpoint):
            groups = []
            for level in levels:
                inside = [
                    (float(v), f"{pid}: {significant(v)}")
                    for pid, v in values.items()
                    if group_of.get(str(pid)) == level
                ]
                if inside:
                    groups.append((level, inside))
            if not groups:
                continue
            means = rows[
                (rows["statistic"] == "adjusted_mean") & (rows["visit"].isin([visit, "all"]))
            ]
            middle = dict(zip(means["group"], means["estimate"], strict=True))
            middles = [middle.get(f"{by}={level}") for level, _ in groups]
            lines = " Lines: adjusted means." if any(is_number(m) for m in middles) else ""
            figures.append(
                Figure(
                    f"{_titled(endpoint, analysis)} at {visit} by {by}",
                    charts.strips(
                        groups,
                        ylabel=_axis_words(endpoint, analysis),
                        middles=middles,
                        series=[levels.index(level) for level, _ in groups],
                        label=f"{endpoint_words(endpoint)} at {visit} by {by}, every subject",
                    ),
                    f"Every subject is one mark.{lines}",
                )
            )
    return figures


def _dose_response(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    arms, arm_of = arms_of(results), _arm_of(results)
    figures = []
    for endpoint in as_list(analysis.get("endpoint")):
        for visit, values in _values(results, analysis, endpoint):
            name = str(analysis.get("dose") or analysis.get("exposure") or "dose")
            people = results.participants.set_index("participant_id")
            if name in people:
                amount = pd.to_numeric(people[name], errors="coerce")
            else:
                try:
                    amount, _ = exposure_values(analysis, results.tables, name, visit)
                except NotComputable:
                    continue
            both = pd.concat({"x": amount, "y": values}, axis=1).dropna()
            if both.empty:
                continue
            driver = _driver_words(results, name)
            title = f"{endpoint_words(endpoint)} at {visit} by {in_sentence(driver)}"
            label = f"{endpoint_words(endpoint)} against {name}, {len(both)} subjects"
            amounts = sorted(both["x"].unique())
            if len(amounts) <= 6:
                groups = [
                    (
                        significant(amount),
                        [
                            (float(y), f"{pid}: {significant(y)}")
                            for pid, y in both.loc[both["x"] == amount, "y"].items()
                        ],
                    )
                    for amount in amounts
                ]
                drawn = charts.strips(groups, ylabel=_axis_words(endpoint, analysis), label=label)
                figures.append(
                    Figure(
                        title,
                        drawn,
                        f"Every subject is one mark. Horizontal: {in_sentence(driver)}.",
                    )
                )
                continue
            points = [
                charts.Point(
                    float(x),
                    float(y),
                    f"{pid}: {name} {significant(x)}, {significant(y)}",
                    arms.index(arm_of[pid]) if pid in arm_of else 0,
                )
                for pid, x, y in zip(both.index, both["x"], both["y"], strict=True)
            ]
            figures.append(
                Figure(
                    title,
                    charts.scatter(
                        points,
                        xlabel=driver,
                        ylabel=_axis_words(endpoint, analysis),
                        label=label,
                    ),
                    f"{len(points)} subjects.",
                    tuple(arms),
                )
            )
    return figures


def _ordinal(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    outcome = str(analysis.get("outcome") or "")
    by = str(analysis.get("by") or "arm")
    people = population(analysis, results.tables)
    if not outcome or by not in people:
        return []
    try:
        values, at = outcome_values(analysis, results.tables, outcome)
    except NotComputable:
        return []
    grades = sorted(set(values.dropna()))
    if len(grades) > 12:
        return []
    if all(float(g).is_integer() for g in grades):
        grades = [float(g) for g in range(int(min(grades)), int(max(grades)) + 1)]
    group_of = people.set_index("participant_id")[by]
    levels = arms_of(results) if by == "arm" else sorted(map(str, group_of.dropna().unique()))
    groups = []
    for level in levels:
        inside = values[[str(group_of.get(pid)) == level for pid in values.index]]
        if len(inside):
            groups.append((level, [int((inside == grade).sum()) for grade in grades]))
    if not groups:
        return []
    names = [significant(grade) for grade in grades]
    return [
        Figure(
            f"{outcome} at {at} by {by}",
            charts.stacked(groups, names, label=f"Distribution of {outcome} at {at} by {by}"),
            f"Distribution of {outcome}; each bar is all subjects of a group, from the lowest "
            "grade (left) to the highest.",
        )
    ]


def _survival(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    by = analysis.get("by")
    people = results.participants.set_index("participant_id")
    figures = []
    for event in as_list(analysis.get("event_endpoint")):
        try:
            times = event_times(analysis, results.tables, str(event))
        except NotComputable:
            continue
        group_of = people[by].reindex(times.index) if by in people else None
        levels = ["all"]
        if group_of is not None:
            levels = (
                arms_of(results) if by == "arm" else sorted(map(str, group_of.dropna().unique()))
            )
        curves = []
        for level in levels:
            inside = times if group_of is None else times[group_of.map(str) == level]
            if len(inside):
                curve = kaplan_meier(inside["time_days"], inside["event"])
                name = f"{level} (n = {len(inside)})"
                curves.append((name, curve.time.tolist(), curve.survival.tolist()))
        figures.append(
            Figure(
                f"Time to {event}",
                charts.steps(
                    curves,
                    xlabel="Days",
                    ylabel="Share without the event",
                    label=f"Kaplan-Meier curves of {event}",
                ),
                "Kaplan-Meier estimate; curves: " + ", ".join(name for name, *_ in curves) + ".",
                tuple(name for name, *_ in curves),
            )
        )
    return figures


def _quantile(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    rows = results.statistics_of(str(analysis["id"]))
    rows = rows[(rows["statistic"] == "quantile_coefficient") & rows["estimate"].notna()]
    figures = []
    for (endpoint, visit), one in rows.groupby(["endpoint", "visit"], sort=False):
        marks: list[tuple[str, float, float | None, float | None, int]] = []
        terms: list[str] = []
        for group, value, low, high in zip(
            one["group"], one["estimate"], one["ci_low"], one["ci_high"], strict=True
        ):
            quantile, _, term = str(group).partition("|")
            if term == "Intercept":
                continue
            if term not in terms:
                terms.append(term)
            known = is_number(low) and is_number(high)
            marks.append(
                (
                    quantile,
                    float(value),
                    float(low) if known else None,
                    float(high) if known else None,
                    terms.index(term),
                )
            )
        if marks:
            figures.append(
                Figure(
                    f"Coefficients by quantile of {in_sentence(endpoint_words(endpoint))}",
                    charts.intervals(
                        marks,
                        ylabel=_axis_words(str(endpoint), analysis),
                        label=f"Quantile coefficients of {endpoint_words(endpoint)} at {visit}",
                    ),
                    "Marks: coefficients; lines: their confidence intervals.",
                    tuple(terms),
                )
            )
    return figures


_BUILDERS: dict[str, Callable[[Results, Mapping[str, Any]], list[Figure]]] = {
    "agreement": _agreement,
    "correlation": _correlation,
    "comparison": _comparison,
    "dose_response": _dose_response,
    "ordinal": _ordinal,
    "survival": _survival,
    "quantile": _quantile,
}


def figures_of(results: Results, analysis: Mapping[str, Any]) -> list[Figure]:
    """Charts of one analysis; none for a type without a chart, or where its room drew outcomes."""
    section = f"analysis:{analysis['id']}"
    if any(exhibit.section == section and exhibit.drawings for exhibit in results.exhibits):
        return []
    builder = _BUILDERS.get(str(analysis.get("type")))
    return builder(results, analysis) if builder else []


def course(results: Results, endpoint: str) -> Figure | None:
    """Course of an endpoint over the visits, one line per subject, by arm."""
    rows = results.measurements
    rows = rows[
        (rows["endpoint"] == endpoint) & (rows["region"] == "all") & (rows["status"] == "ok")
    ]
    for source in ("pipeline", "supplied"):
        if (rows["source"] == source).any():
            rows = rows[rows["source"] == source]
            break
    else:
        return None
    rows = rows.drop_duplicates(["participant_id", "visit"])
    visits = [visit for visit in results.tables.visit_order if (rows["visit"] == visit).any()]
    if len(visits) < 2:
        return None
    arms, arm_of = arms_of(results), _arm_of(results)
    by_subject: dict[str, dict[str, float]] = {}
    for pid, visit, value in zip(
        rows["participant_id"], rows["visit"], rows["value"].astype(float), strict=True
    ):
        by_subject.setdefault(str(pid), {})[str(visit)] = value
    lines = [
        (
            pid,
            arms.index(arm_of[pid]) if pid in arm_of else 0,
            [values.get(visit) for visit in visits],
        )
        for pid, values in sorted(by_subject.items())
    ]
    unit = unit_of(endpoint)
    words = endpoint_words(endpoint)
    return Figure(
        f"{words} over time",
        charts.trajectories(
            lines,
            visits,
            ylabel=f"{words}, {unit}" if unit else words,
            label=f"Course of {words.lower()} of {len(lines)} subjects",
        ),
        f"One line per subject (source {rows['source'].iloc[0]}).",
        tuple(arms),
    )
