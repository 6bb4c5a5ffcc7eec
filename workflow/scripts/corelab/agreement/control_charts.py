"""Image quality by site and scanner: shares of failed scans, control charts, scans to repeat."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from corelab.agreement.metrology import proportion
from corelab.agreement.phantoms import phantom_verdicts
from corelab.measurement.schedule import moment
from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.figure_style import BLUE, GREY, RED, new_figure, panel, save_figure
from corelab.provenance.products import read_table, write_table
from corelab.settings.acquisition import PhantomQaSettings, TrialCriteria
from corelab.study.columns import (
    ACQUISITION_SUMMARY,
    COMPLETENESS,
    CONTROL_CHARTS,
    PHANTOM_SITES,
    PHANTOM_VERDICTS,
    REPEAT_REQUESTS,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Mean range of two normal values, in SDs (d2 of Shewhart charts for n = 2).
_D2 = 1.128
#: Points in a row on one side of the centre that are a signal (Western Electric 1956, rule 4).
RUN = 8
#: Scans that a chart needs.
MIN_POINTS = 5
MAX_PANELS = 12
#: What the inserts of a site's phantoms must stand for.
ROLES = frozenset({"infarct", "haemorrhage"})


@dataclass(frozen=True)
class _ControlChart:
    """X chart of single values; signals are ``beyond limits``, ``run`` or ``none``."""

    centre: float
    lower: float
    upper: float
    signals: tuple[str, ...]


def _control_chart(values: ArrayLike) -> _ControlChart:
    """Shewhart's chart of single values in time; limits: mean -+ 3 mean moving range / 1.128."""
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 1 or points.size < 2 or not np.isfinite(points).all():
        raise ValueError("a control chart needs at least 2 values, all finite")
    centre = float(points.mean())
    half = 3.0 * float(np.abs(np.diff(points)).mean()) / _D2
    side = np.sign(points - centre)
    signals, run = [], 0
    for index, point in enumerate(points):
        run = run + 1 if index and side[index] == side[index - 1] != 0 else 1
        # Equal values leave limits of no width; rounding is no signal.
        slack = 1e-9 * max(abs(centre), 1e-300)
        if abs(point - centre) > half + slack:
            signals.append("beyond limits")
        else:
            signals.append("run" if run >= RUN else "none")
    return _ControlChart(centre, centre - half, centre + half, tuple(signals))


def _quantity(criterion: str) -> str:
    return str(criterion).removesuffix("_min").removesuffix("_max")


def _control_chart_rows(acquisition: pd.DataFrame) -> pd.DataFrame:
    """Points and limits of one chart per site, scanner, kind of scan and measured quantity.

    Values that are no numbers, and scans whose time is not known, are on no chart; a chart has at
    least :data:`MIN_POINTS` scans.
    """
    frame = acquisition.assign(
        value=pd.to_numeric(acquisition["value"], errors="coerce"),
        quantity=acquisition["criterion"].map(_quantity),
    )
    frame = frame.dropna(subset=["value", "acquired_at", "scan_id"])
    frame = frame.drop_duplicates(["scan_id", "kind", "quantity"])
    frames = [pd.DataFrame(columns=list(CONTROL_CHARTS))]
    keys = ["site", "scanner", "kind", "quantity"]
    for _, part in frame.fillna({"site": "unknown", "scanner": "unknown"}).groupby(keys):
        if len(part) < MIN_POINTS:
            continue
        ordered = part.sort_values(["acquired_at", "participant_id", "scan_id"], kind="stable")
        chart = _control_chart(ordered["value"])
        limits = {"centre": chart.centre, "lower": chart.lower, "upper": chart.upper}
        made = ordered.assign(order=range(1, len(part) + 1), **limits, signal=chart.signals)
        frames.append(made[list(CONTROL_CHARTS)])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _summary_rows(acquisition: pd.DataFrame) -> pd.DataFrame:
    """Verdicts counted by site, scanner, kind and criterion, with the share that failed."""
    rows = []
    filled = acquisition.fillna({"site": "unknown", "scanner": "unknown"})
    for key, part in filled.groupby(["site", "scanner", "kind", "criterion"]):
        counts = part["verdict"].value_counts()
        n_pass, n_fail = int(counts.get("pass", 0)), int(counts.get("fail", 0))
        percent: tuple[float | None, ...] = (None, None, None)
        if n_pass + n_fail:
            share = proportion(n_fail, n_pass + n_fail).times(100)
            percent = (share.estimate, share.ci_low, share.ci_high)
        rows.append((*key, len(part), n_pass, n_fail, len(part) - n_pass - n_fail, *percent))
    return pd.DataFrame(rows, columns=list(ACQUISITION_SUMMARY))


def _repeat_request_rows(
    acquisition: pd.DataFrame, repeat_on: Sequence[str] = TrialCriteria().repeat_on
) -> pd.DataFrame:
    """Scans that are to be repeated, and whether a later scan of the visit answers.

    ``repeat_on`` are criteria without their side.
    """
    frame = acquisition[acquisition["criterion"].map(_quantity).isin(repeat_on)]
    failed = frame[frame["verdict"] == "fail"].fillna({"scan_id": ""})
    rows = []
    keys = ["participant_id", "visit", "kind", "scan_id"]
    for key, part in failed.groupby(keys):
        subject, visit, kind, scan_id = key
        others = frame[
            (frame["participant_id"] == subject)
            & (frame["visit"] == visit)
            & (frame["kind"] == kind)
            & frame["scan_id"].notna()
            & (frame["scan_id"] != scan_id)
        ]
        good = [
            str(other)
            for other, own in others.groupby("scan_id")
            if (own["verdict"] == "pass").any() and not (own["verdict"] == "fail").any()
        ]
        what = part["reason"].where(part["reason"].notna(), part["value"])
        reasons = [f"{one}: {why}" for one, why in zip(part["criterion"], what, strict=True)]
        rows.append(
            (
                *(subject, visit, kind, scan_id or None),
                *(", ".join(part["criterion"]), "; ".join(reasons)),
                *("answered" if good else "open", good[0] if good else None),
            )
        )
    return pd.DataFrame(rows, columns=list(REPEAT_REQUESTS))


def _completeness_rows(acquisition: pd.DataFrame) -> pd.DataFrame:
    """Scans due at each visit and those missing, in long form."""
    frame = acquisition[acquisition["criterion"] == "present"]
    rows = []
    for (subject, visit), part in frame.groupby(["participant_id", "visit"]):
        missing = ", ".join(part.loc[part["verdict"] == "fail", "kind"]) or None
        there = int((part["verdict"] == "pass").sum())
        rows.append((subject, visit, part["site"].iloc[0], len(part), there, missing))
    return pd.DataFrame(rows, columns=list(COMPLETENESS))


# --- phantoms and sites ------------------------------------------------------------------------


def _phantom_site_rows(
    acquisition: pd.DataFrame, verdicts: pd.DataFrame, phantoms: pd.DataFrame, interval_days: float
) -> pd.DataFrame:
    """Sites that scanned subjects without a valid phantom scan in the interval before.

    A phantom session (one site, scanner and day) is valid when no criterion of it failed, none of
    its inserts could not be measured, and at least one criterion was assessed. Both roles,
    infarct-like and haemorrhage-like, must be covered by valid sessions within the interval. Empty
    where there is no phantom scan at all.
    """
    if phantoms.empty:
        return pd.DataFrame(columns=list(PHANTOM_SITES))
    scans = acquisition.dropna(subset=["scan_id"]).drop_duplicates(["scan_id", "kind"])
    rows = []
    every = sorted(set(scans["site"].dropna()) | set(phantoms["site"].dropna()))
    for site in every:
        valid = _valid_sessions(
            phantoms[phantoms["site"] == site], verdicts[verdicts["site"] == site]
        )
        own = scans[scans["site"] == site]
        dates = [date for date in map(_date, own["acquired_at"]) if date is not None]
        outside = 0
        lacking: set[str] = set()
        for date in dates:
            roles = {
                role
                for when, _, covered in valid
                if 0 <= (date - when).days <= interval_days
                for role in covered
            }
            missing = ROLES - roles
            outside += bool(missing)
            lacking |= missing
        last = max(valid, default=None)
        undated = len(own) - len(dates)
        covered = {role for _, _, roles in valid for role in roles}
        if not covered >= ROLES:
            verdict = "fail"
            absent = " and ".join(f"{role}-like" for role in sorted(ROLES - covered))
            reason = f"no phantom scan that passed covers {absent} inserts"
        elif outside:
            verdict = "fail"
            absent = " and ".join(sorted(lacking))
            reason = f"{outside} scans have no valid {absent} phantom in the interval before them"
        elif not dates and len(own):
            verdict, reason = "not_assessable", "the times of the scans are not known"
        else:
            verdict = "pass"
            reason = f"{undated} scans without a time" if undated else ""
        scanner, day = (last[1], last[0].isoformat()) if last else (None, None)
        counts = (interval_days, len(own), outside)
        rows.append((site, scanner, day, *counts, verdict, reason or None))
    return pd.DataFrame(rows, columns=list(PHANTOM_SITES))


def _date(text: Any) -> datetime.date | None:
    found = moment(text)
    return found.date() if found else None


def _valid_sessions(
    phantoms: pd.DataFrame, verdicts: pd.DataFrame
) -> list[tuple[datetime.date, str, frozenset[str]]]:
    """(day, scanner, roles covered) of the sessions that passed, kind by kind."""
    found = []
    for (scanner, time, kind, quantity), part in phantoms.groupby(
        ["scanner", "acquired_at", "kind", "quantity"]
    ):
        endpoint = f"{kind}:volume" if quantity == "volume" else str(kind)
        own = verdicts[
            (verdicts["scanner"] == scanner)
            & (verdicts["acquired_at"] == time)
            & (verdicts["endpoint"] == endpoint)
        ]["verdict"]
        sound = (own == "pass").any() and not (own == "fail").any()
        date = _date(time)
        if sound and date is not None and (part["status"] == "ok").all():
            roles = frozenset(part["role"].dropna()) & ROLES
            found.append((date, str(scanner), roles))
    return sorted(found, key=lambda one: (one[0], one[1], sorted(one[2])))


# --- figure ------------------------------------------------------------------------------------


def _words(quantity: str) -> str:
    """A quantity with its unit, for a title: ``motion_mm`` is ``motion, mm``."""
    if quantity in ("snr", "noise_sd"):
        return {"snr": "SNR", "noise_sd": "noise SD"}[quantity]
    for ending, unit in (("_percent", "%"), ("_mm", "mm"), ("_s", "s"), ("_deg", "degrees")):
        if quantity.endswith(ending):
            return f"{quantity.removesuffix(ending).replace('_', ' ')}, {unit}"
    return quantity.replace("_", " ")


def _plot_control_charts(charts: pd.DataFrame) -> Figure:
    """Panels of control charts, those with signals first; none of values that never change."""
    from matplotlib.ticker import MaxNLocator

    keys = ["site", "scanner", "kind", "quantity"]
    groups = [
        (key, part)
        for key, part in charts.groupby(keys, sort=True)
        if part["value"].min() < part["value"].max()
    ]
    groups.sort(key=lambda item: (-int((item[1]["signal"] != "none").sum()), item[0]))
    shown = groups[:MAX_PANELS]
    columns = min(3, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    figure = new_figure(3.4 * columns, 2.1 * lines + 0.5)
    if not shown:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No chart: fewer than 5 dated scans of one kind", ha="center")
        return figure
    for number, (key, part) in enumerate(shown, start=1):
        axes = panel(figure, lines, columns, number)
        axes.tick_params(labelsize=7)
        first = part.iloc[0]
        axes.axhline(first["centre"], color=GREY, linewidth=0.8)
        for limit in (first["lower"], first["upper"]):
            axes.axhline(limit, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(part["order"], part["value"], color=BLUE, linewidth=0.8, marker="o", ms=3)
        reported = part[part["signal"] != "none"]
        axes.plot(reported["order"], reported["value"], "D", color=RED, ms=5)
        site, scanner, kind, quantity = map(str, key)
        place = site if scanner == "unknown" else f"{site}, {scanner}"
        title = f"{kind.upper() if kind.islower() else kind}: {_words(quantity)}\n{place}"
        axes.set_title(title, fontsize=8, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("scan in the order of time", fontsize=8)
    return figure


def write_quality(
    acquisition: pd.DataFrame,
    phantoms: pd.DataFrame,
    trial: TrialCriteria,
    phantom_qa: PhantomQaSettings,
    paths: Any,
) -> None:
    """Write the tables of image quality by site and scanner.

    ``acquisition`` and ``phantoms`` are tables of ``endpoints/``, ``trial`` and ``phantom_qa``
    blocks of the config; ``paths`` has the attributes ``summary, charts, requests, completeness,
    phantom_verdicts, phantom_sites``.
    """
    charts = _control_chart_rows(acquisition)
    verdicts = phantom_verdicts(phantoms, phantom_qa)
    sites = _phantom_site_rows(acquisition, verdicts, phantoms, float(phantom_qa.interval_days))
    requests = _repeat_request_rows(acquisition, trial.repeat_on)
    write_table(_summary_rows(acquisition), paths.summary, ACQUISITION_SUMMARY)
    write_table(charts, paths.charts, CONTROL_CHARTS, sort=False)
    write_table(requests, paths.requests, REPEAT_REQUESTS)
    write_table(_completeness_rows(acquisition), paths.completeness, COMPLETENESS)
    write_table(verdicts, paths.phantom_verdicts, PHANTOM_VERDICTS)
    write_table(sites, paths.phantom_sites, PHANTOM_SITES)


#: Exhibits of the report: section and name -> title, caption and table.
_EXHIBITS = {
    "quality_charts": (
        "Control charts by site and scanner",
        "Charts with signals first, at most 12. Lines: mean, and limits at 3 mean moving ranges / "
        "1.128; diamonds: signals (beyond the limits, or eighth in a row on one side).",
        "control_charts",
    ),
    "quality_summary": (
        "Acquisition criteria by site and scanner",
        "Percent of assessed scans that failed, with Wilson intervals.",
        "acquisition_summary",
    ),
    "quality_requests": (
        "Scans to be repeated",
        "A request is answered by a later scan of the visit that passes.",
        "repeat_requests",
    ),
    "quality_findings": (
        "Findings in the image files",
        "Image file problems: faults, corrections while reading, extra series in DICOM folders.",
        "image_findings",
    ),
    "quality_completeness": (
        "Completeness of scans",
        "Scans that the charter asks for at each visit.",
        "completeness",
    ),
    "phantom_sites": (
        "Sites and their valid phantom scans",
        "A phantom scan that passed vouches for its site for the interval of the charter; both "
        "infarct-like and haemorrhage-like inserts must be covered.",
        "phantom_sites",
    ),
    "phantom_verdicts": (
        "Phantom scans against their limits",
        "Each limit stands with its source.",
        "phantom_verdicts",
    ),
}
#: Columns of the summary with their headings.
_SUMMARY = {
    "site": "Site",
    "scanner": "Scanner",
    "kind": "Scan",
    "criterion": "Criterion",
    "n": "Scans",
    "n_fail": "Failed",
    "n_not_assessable": "Not assessable",
    "fail_percent": "Failed, %",
    "ci_low": "Lower, %",
    "ci_high": "Upper, %",
}


def write_exhibits(folder: str | Path, wanted: Iterable[str | Path]) -> None:
    """Write the exhibits of :func:`write_quality`'s tables.

    ``folder`` is the study's results folder, ``wanted`` are paths named after :data:`_EXHIBITS`.
    """
    for path in map(Path, wanted):
        title, caption, table = _EXHIBITS[path.stem]
        numeric = list(_CHART_NUMBERS) if path.stem == "quality_charts" else []
        frame = read_table(Path(folder) / "endpoints" / f"{table}.tsv", numeric=numeric)
        figure = alt = ""
        if path.stem == "quality_charts" and len(frame):
            figure = "quality_charts.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_figure(_plot_control_charts(frame), path.parent / figure)
            signals = frame[frame["signal"] != "none"]
            alt = f"{len(frame)} points of control charts, {len(signals)} of them signals"
        write_exhibit(
            path,
            section=path.stem.partition("_")[0],
            title=title,
            caption=caption if len(frame) else f"{caption} There are none.",
            figure=figure,
            alt=alt,
            table="" if path.stem == "quality_charts" else f"endpoints/{table}.tsv",
            columns=_SUMMARY if path.stem == "quality_summary" else None,
            source=f"endpoints/{table}.tsv",
            alarms=_alarms(path.stem, frame),
        )


_CHART_NUMBERS = ("order", "value", "centre", "lower", "upper")


def _alarms(name: str, frame: pd.DataFrame) -> list[Alarm]:
    """What of an exhibit needs a person."""
    if name == "phantom_sites":
        failed = frame[frame["verdict"] == "fail"]
        return [
            Alarm("warning", f"{row['site']}, phantom scans: {row['reason']}")
            for row in failed.to_dict("records")
        ]
    if name == "quality_requests":
        still = frame[frame["status"] == "open"]
        subjects = tuple(sorted(set(still["participant_id"])))
        text = f"{len(still)} scans are to be repeated (endpoints/repeat_requests.tsv)"
        return [Alarm("warning", text, subjects)] if len(still) else []
    return []
