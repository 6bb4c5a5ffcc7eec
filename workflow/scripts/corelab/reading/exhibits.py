"""The central read in the report: standing of the lock, rates, p-chart, conduct, turnaround."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.figure_style import BLUE, FAINT, GREY, RED, new_figure, panel, save_figure
from corelab.provenance.products import read_table
from corelab.reading.charter import NOT_ATTESTED
from corelab.records.reading import Validity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE_WORDS = {
    "valid": "The reads are as they were locked.",
    "open": "The reads are not locked yet; every number that rests on them is preliminary.",
    "invalid": "The reads differ from their lock; every number that rests on them is INVALID.",
}
SHOWN_FAULTS = 12
_CHART_NUMBERS = ("part", "count", "n", "estimate", "centre", "lower", "upper")


def _plot_p_chart(chart: pd.DataFrame) -> Figure:
    """Disagreement index by reader and part of the sequence, with its control limits."""
    endpoints = list(dict.fromkeys(chart["endpoint"]))
    widest = max((len(chart[chart["endpoint"] == e]) for e in endpoints), default=1)
    figure = new_figure(max(4.2, 1.6 + 0.42 * widest), 0.5 + 2.5 * max(len(endpoints), 1))
    for place, endpoint in enumerate(endpoints, start=1):
        own = chart[chart["endpoint"] == endpoint].reset_index(drop=True)
        axes = panel(figure, len(endpoints), 1, place)
        x = own.index.to_numpy()
        axes.step(x, own["upper"], where="mid", color=GREY, linewidth=0.9, linestyle="--")
        axes.step(x, own["lower"], where="mid", color=GREY, linewidth=0.9, linestyle="--",
                  label="control limits (3 standard errors)")  # fmt: skip
        axes.axhline(own["centre"].iloc[0], color=GREY, linewidth=0.9, label="all readers")
        for reader in dict.fromkeys(own["reader"]):
            mine = own[own["reader"] == reader]
            axes.plot(mine.index, mine["estimate"], color=BLUE, linewidth=1.2)
            if mine.index[0] > 0:
                axes.axvline(mine.index[0] - 0.5, color=FAINT, linewidth=0.8)
        out = own["verdict"] == "out_of_control"
        axes.scatter(x[~out], own.loc[~out, "estimate"], color=BLUE, s=22, zorder=3)
        axes.scatter(x[out], own.loc[out, "estimate"], color=RED, s=42, marker="D", zorder=3,
                     label="out of control" if out.any() else None)  # fmt: skip
        middle = own.groupby("reader", sort=False)["part"].transform("median").round()
        labels = [
            f"{part}\n{reader if part == centre else ''}"
            for reader, part, centre in zip(own["reader"], own["part"], middle, strict=True)
        ]
        axes.set_xlim(-0.5, len(own) - 0.5)
        axes.set_xticks(x, labels, fontsize=8)
        axes.set_ylim(
            -0.02, min(1.02, max(0.2, 1.15 * float(own[["upper", "estimate"]].max().max())))
        )
        axes.set_ylabel("Disagreement index", fontsize=9)
        axes.set_title(str(endpoint).replace("_", " "), fontsize=9, loc="left")
        if place == len(endpoints):
            axes.set_xlabel("Part of the sequence, and reader", fontsize=9)
    if figure.axes:
        handles, names = figure.axes[0].get_legend_handles_labels()
        for axes in figure.axes[1:]:
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                if name not in names:
                    handles.append(handle)
                    names.append(name)
        figure.legend(handles, names, loc="outside lower left", ncols=3, fontsize=8, frameon=False)
    return figure


def _standing(folder: Path, exhibits: Path) -> None:
    found = Validity.read(folder / "reading" / "validity.json")
    severity = {"invalid": "error", "open": "warning"}.get(found.state)
    lines = [*found.faults, *found.open]
    alarms = [
        Alarm(severity, f"{found.banner}: {line}") for line in lines[:SHOWN_FAULTS] if severity
    ]
    if severity and not lines:
        alarms = [Alarm(severity, str(found.banner))]
    if len(lines) > SHOWN_FAULTS:
        alarms.append(
            Alarm("error", f"{len(lines) - SHOWN_FAULTS} more, see reading/lock_audit.tsv")
        )
    parts = [
        STATE_WORDS[found.state],
        f"{found.locked_reads} rows locked, {found.changes_since} logged changes since.",
    ]
    if found.lock_sha256:
        by = f" by {found.locked_by}" if found.locked_by else ""
        at = f" at {found.locked_at}" if found.locked_at else ""
        signed = "signed" if found.signed else "not signed"
        parts.append(f"Lock{by}{at}, {signed}, SHA-256 {found.lock_sha256[:16]}...")
    write_exhibit(
        exhibits / "reading_standing.json",
        section="reading",
        title="Standing of the reads against their lock",
        caption=" ".join(parts),
        table="reading/lock_audit.tsv" if found.state == "invalid" else "",
        columns={"row": "Row", "verdict": "Verdict", "changes": "Logged changes", "fault": "Fault"},
        alarms=alarms,
        banner=found.banner or "",
        order=1,
    )


def _rates(table: pd.DataFrame) -> dict[str, Any]:
    outside = table[table["verdict"] == "outside"].to_dict("records")
    return {
        "title": "Rates of the central read against the charter's limits",
        "caption": "Wilson intervals. Two readers who differ in 20 to 40 % of the cases are usual: "
        "agreement alone is no proof of quality, nor its lack of the contrary.",
        "columns": {
            "endpoint": "Endpoint", "statistic": "Rate", "group": "Of", "count": "Count", "n": "n",
            "estimate": "Estimate", "ci_low": "CI low", "ci_high": "CI high", "limit": "Limit",
            "verdict": "Verdict", "interval_verdict": "By interval",
        },
        "alarms": [
            Alarm(
                "warning",
                f"{row['endpoint']}: {str(row['statistic']).replace('_', ' ')} ({row['group']}) "
                f"{float(row['estimate']):.3f} is outside the charter's limit ({row['limit']})",
            )
            for row in outside
        ],
    }  # fmt: skip


def _p_chart(table: pd.DataFrame) -> dict[str, Any]:
    out = table[table["verdict"] == "out_of_control"]
    parts = pd.to_numeric(out["part"])
    what = ", ".join(f"{r} part {p}" for r, p in zip(out["reader"], parts, strict=True))
    drawn = {
        "figure": "reading_p_chart.svg",
        "alt": f"Reader disagreement index by reader and part; out of control: {what or 'none'}",
    }
    return {
        "title": "Reader disagreement index (p-chart)",
        "caption": "Decided cases that went against a reader, over all of his cases, in "
        "consecutive parts of his sequence. Dashed: 3 standard errors around the rate of all.",
        "alarms": [
            Alarm("warning", f"{e}: reader {r}, part {p}: disagreement index out of control")
            for e, r, p in zip(out["endpoint"], out["reader"], parts, strict=True)
        ],
        **(drawn if len(table) else {}),
    }


def _conduct(table: pd.DataFrame) -> dict[str, Any]:
    failed = table[table["verdict"] == "fail"].to_dict("records")
    return {
        "title": "Conduct of the central read",
        "columns": {
            "check": "Check", "guideline": "Guideline", "who": "Who", "observed": "Observed",
            "limit": "Limit", "verdict": "Verdict", "message": "In words",
        },
        "alarms": [Alarm("warning", f"{r['check']}, {r['who']}: {r['message']}") for r in failed],
    }  # fmt: skip


def _turnaround(table: pd.DataFrame) -> dict[str, Any]:
    failed = table[table["verdict"] == "fail"].to_dict("records")
    return {
        "title": "Turnaround of the central read",
        "caption": "Days from the receipt of the images to the confirmed read.",
        "alarms": [
            Alarm("warning", f"{r['group']}: {r['count_within']} of {r['n']} reads within "
                  f"{r['limit_days']} days")
            for r in failed
        ],
    }  # fmt: skip


def _attestations(table: pd.DataFrame) -> dict[str, Any]:
    missing = int((table["state"] == NOT_ATTESTED).sum())
    return {
        "title": "Statements that only people can make",
        "caption": f"{missing} of {len(table)} are NOT ATTESTED (attestations in the config).",
    }


#: Tables of ``reading/`` with exhibits, in their order.
_TABLES = {
    "rates": _rates,
    "p_chart": _p_chart,
    "conduct": _conduct,
    "turnaround": _turnaround,
    "attestations": _attestations,
}


def write_reading_exhibits(folder: str | Path) -> None:
    """Write the exhibits of the central read below ``exhibits/`` of a study's results folder."""
    root = Path(folder)
    exhibits = root / "exhibits"
    exhibits.mkdir(parents=True, exist_ok=True)
    _standing(root, exhibits)
    for place, (name, shown) in enumerate(_TABLES.items(), start=1):
        table = read_table(root / "reading" / f"{name}.tsv")
        if name == "p_chart" and len(table):
            numbers = {one: pd.to_numeric(table[one]) for one in _CHART_NUMBERS}
            save_figure(_plot_p_chart(table.assign(**numbers)), exhibits / "reading_p_chart.svg")
        write_exhibit(
            exhibits / f"reading_{name}.json",
            section="reading",
            table=f"reading/{name}.tsv",
            order=10 * place,
            **shown(table),
        )
