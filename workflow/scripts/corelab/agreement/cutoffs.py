"""Perfusion cut-offs against the infarct that diffusion or a later scan shows.

Every published cut-off, and the sweep of relative CBF from 10 to 50 %, gives a core volume per
case. Here each is compared with the infarct of the same visit (concurrent DWI) and of every later
visit (follow-up): bias and limits of agreement tell which cut-off fits these scanners, this engine
and this treatment. A later infarct equals the core only where reperfusion came soon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from corelab.agreement.differences import bland_altman
from corelab.measurement.selection import NotComputable
from corelab.provenance.exhibits import write_exhibit
from corelab.provenance.figure_style import BLUE, GREY, RED, new_figure, save_figure
from corelab.provenance.products import write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "cutoff": "Source of the core: the configured rule (pipeline), pipeline:<threshold id> of "
    "resources/thresholds/perfusion.tsv, or pipeline:rcbf10 to rcbf50 of the sweep",
    "percent": "Relative CBF of the sweep, percent; n/a for the others",
    "rule": "The rule and its engine, as in measurements.tsv",
    "core_visit": "Visit of the perfusion scan",
    "reference_visit": "Visit of the infarct; the same visit means concurrent diffusion",
    "reference_source": "Who or what outlined the infarct",
    "n": "Number of subjects with both volumes",
    "bias_ml": "Mean of core - infarct",
    "bias_ci_low_ml": "Lower 95 % confidence limit of the bias",
    "bias_ci_high_ml": "Upper 95 % confidence limit of the bias",
    "sd_ml": "Standard deviation of the differences",
    "loa_lower_ml": "Lower limit of agreement, bias - 1.96 SD",
    "loa_upper_ml": "Upper limit of agreement, bias + 1.96 SD",
    "mean_absolute_difference_ml": "Mean of |core - infarct|",
    "note": "Why a number is missing",
}
UNITS = {name: "mL" for name in COLUMNS if name.endswith("_ml")}
#: Columns that the report shows.
SHOWN = {
    "cutoff": "Cut-off",
    "reference_visit": "Infarct at",
    "reference_source": "by",
    "n": "n",
    "bias_ml": "Bias, mL",
    "loa_lower_ml": "Lower limit, mL",
    "loa_upper_ml": "Upper limit, mL",
    "mean_absolute_difference_ml": "Mean absolute difference, mL",
    "rule": "Rule",
}
SWEEP = re.compile(r"^pipeline:rcbf(\d+)$")


def _cutoff_table(rows: pd.DataFrame, visit_order: Sequence[str]) -> pd.DataFrame:
    """Bias and limits of agreement of every core against every infarct, in :data:`COLUMNS`.

    ``visit_order`` are visits in time; an infarct before the perfusion scan is no reference. Bland
    and Altman 1986 (Lancet 327:307), 1.96 SD; the comparison after Cereda 2016 (PMC5076783).
    """
    usable = rows[(rows["status"] == "ok") & (rows["region"] == "all")]
    usable = usable[usable["repeat"].astype(int) == 1]
    cores = usable[usable["endpoint"] == "core_volume"]
    cores = cores[cores["source"].str.match(r"pipeline(:|$)")]
    infarcts = usable[usable["endpoint"] == "infarct_volume"]
    infarcts = infarcts[~infarcts["source"].str.startswith("pipeline:")]
    rank = {visit: number for number, visit in enumerate(visit_order)}
    made = []
    for core_key, core in cores.groupby(["source", "visit"]):
        cutoff, core_visit = map(str, core_key)
        for infarct_key, infarct in infarcts.groupby(["source", "visit"]):
            source, visit = map(str, infarct_key)
            if rank.get(visit, len(rank)) < rank.get(core_visit, -1):
                continue
            both = core.merge(infarct, on="participant_id", suffixes=("", "_later"))
            if both.empty:
                continue
            made.append(
                {
                    "cutoff": cutoff,
                    "percent": float(match[1]) if (match := SWEEP.match(cutoff)) else np.nan,
                    "rule": next(iter(core["reason"].dropna()), "as configured"),
                    "core_visit": core_visit,
                    "reference_visit": visit,
                    "reference_source": source,
                    **_agreement(both["value"].to_numpy(), both["value_later"].to_numpy()),
                }
            )
    table = pd.DataFrame(made, columns=list(COLUMNS))
    order = table.assign(percent=table["percent"].fillna(1000.0))
    for name in ("core_visit", "reference_visit"):
        order[name] = order[name].map(lambda v: rank.get(v, len(rank)))
    keys = ["core_visit", "reference_visit", "reference_source", "percent", "cutoff"]
    return table.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)


def _agreement(core: np.ndarray, infarct: np.ndarray) -> dict[str, Any]:
    difference = core - infarct
    found = {
        "n": len(difference),
        "bias_ml": float(difference.mean()),
        "mean_absolute_difference_ml": float(np.abs(difference).mean()),
        "note": None,
    }
    try:
        result = bland_altman(core, infarct)
    except NotComputable as error:
        return found | {"note": f"no limits of agreement: {error}"}
    return found | {
        "bias_ci_low_ml": result.bias_ci[0],
        "bias_ci_high_ml": result.bias_ci[1],
        "sd_ml": result.sd,
        "loa_lower_ml": result.loa_lower,
        "loa_upper_ml": result.loa_upper,
    }


def _chosen_references(table: pd.DataFrame, wanted: str | None = None) -> list[dict[str, str]]:
    """One reference per pair of visits, for the plot: the wanted source, else the fullest.

    A source that the pipeline itself made comes first among equally full ones.
    """
    found = []
    for key, part in table.groupby(["core_visit", "reference_visit"], sort=False):
        counts = {str(s): int(n) for s, n in part.groupby("reference_source")["n"].max().items()}
        best = max(counts, key=lambda s: (s == wanted, counts[s], s == "pipeline"))
        visits = dict(zip(("core_visit", "reference_visit"), map(str, key), strict=True))
        found.append({**visits, "reference_source": best})
    return found


def _of(table: pd.DataFrame, chosen: Mapping[str, str]) -> pd.DataFrame:
    """Cut-offs of the sweep against one reference."""
    part = table[table["percent"].notna()]
    for name, value in chosen.items():
        part = part[part[name] == value]
    return part


def _plot_cutoffs(table: pd.DataFrame, references: Sequence[Mapping[str, str]]) -> Figure:
    """Bias and limits of agreement along the sweep, one panel per reference."""
    count = max(1, len(references))
    figure = new_figure(4.3 * count + 0.4, 3.9)
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes, chosen in zip(panels, references, strict=False):
        sweep = _of(table, chosen).sort_values("percent")
        x = sweep["percent"].to_numpy()
        axes.axhline(0.0, color=GREY, lw=0.8)
        axes.fill_between(
            x, sweep["loa_lower_ml"].astype(float), sweep["loa_upper_ml"].astype(float),
            color=BLUE, alpha=0.15, lw=0, label="limits of agreement",
        )  # fmt: skip
        axes.plot(x, sweep["bias_ml"], "o-", color=BLUE, ms=4, label="bias")
        axes.plot(
            x, sweep["mean_absolute_difference_ml"], "--", color=RED, lw=1.2,
            label="mean absolute difference",
        )  # fmt: skip
        if len(sweep):
            best = x[int(sweep["mean_absolute_difference_ml"].to_numpy().argmin())]
            axes.axvline(best, color=RED, lw=0.8, ls=":", label="where that is least")
        when = (
            "same visit"
            if chosen["core_visit"] == chosen["reference_visit"]
            else f"core at {chosen['core_visit']}"
        )
        axes.set_title(
            f"infarct at {chosen['reference_visit']}, by {chosen['reference_source']}\n"
            f"({when}, n = {int(sweep['n'].max()) if len(sweep) else 0})",
            fontsize=9,
        )
        axes.set_xlabel("core: relative CBF below (%)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    if not references:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, "no case has both a core and an infarct", ha="center")
    else:
        panels[0].set_ylabel("core - infarct (mL)", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False
        )
    return figure


def write_cutoffs(
    measurements: pd.DataFrame, visit_order: Sequence[str], wanted: str | None, paths: Any
) -> pd.DataFrame:
    """Write table, plot and exhibit.

    ``wanted`` is ``perfusion.reference_infarct`` of the config; ``paths`` has the attributes
    ``table``, ``figure`` and ``exhibit``.
    """
    table = _cutoff_table(measurements, visit_order)
    write_table(table, paths.table, COLUMNS, units=UNITS, sort=False)
    references = _chosen_references(table, wanted)
    save_figure(_plot_cutoffs(table, references), paths.figure)
    rows = len(table)
    write_exhibit(
        paths.exhibit,
        section="endpoints",
        title="Perfusion cut-offs against the infarct",
        caption="Core volume by relative CBF below 10 to 50 % of normal minus the infarct of the "
        "same visit or of a later one: bias, 95 % limits of agreement, mean absolute difference. A "
        "later infarct equals the core only where reperfusion came soon."
        + _at_best(table, references),
        figure=Path(paths.figure).name,
        alt=f"Bias and limits of agreement along the cut-off, {len(references)} references, "
        f"{rows} comparisons in the table",
        table="statistics/perfusion_cutoffs.tsv",
        columns=SHOWN,
        source="statistics/perfusion_cutoffs.tsv",
        order=60,
    )
    return table


def _at_best(table: pd.DataFrame, references: Sequence[Mapping[str, str]]) -> str:
    """The cut-off of the sweep that comes nearest, per reference, in words."""
    texts = []
    for chosen in references:
        part = _of(table, chosen)
        if len(part):
            best = part.iloc[int(part["mean_absolute_difference_ml"].to_numpy().argmin())]
            texts.append(
                f"{best['percent']:g} % for the infarct at {chosen['reference_visit']} "
                f"(n = {best['n']:g})"
            )
    return f" Nearest: {'; '.join(texts)}." if texts else ""
