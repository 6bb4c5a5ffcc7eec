"""Two runs of a study, or two studies: which numbers differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from corelab.provenance.job import UserError
from corelab.provenance.manifest import Manifest
from corelab.provenance.products import read_table, write_table
from corelab.settings.analyses import STATISTICS_TABLES

COMPARED = {
    "table": "Table that holds the number",
    "key": "What the number is",
    "this": "Number of this study",
    "other": "Number of the other study",
    "difference": "this - other",
    "relative_percent": "Difference over the mean of both, %",
    "noise_floor": "Least difference that is more than chance (endpoints/noise_floor.tsv)",
    "verdict": "same, below_noise, different (beyond the noise floor, or none is known), only_this "
    "or only_other",
}
#: Numbers that the terminal names; the table has them all.
MOST_SHOWN = 10
_TABLES = {
    "endpoints/measurements.tsv": (
        ["participant_id", "visit", "endpoint", "source", "repeat", "region"],
        "value",
    ),
    **{
        f"statistics/{name}.tsv": (
            ["analysis_id", "endpoint", "visit", "participant_id", "group", "statistic", "method"],
            "estimate",
        )
        for name in STATISTICS_TABLES
    },
}


def _compare_tables(
    this: pd.DataFrame,
    other: pd.DataFrame,
    key: list[str],
    value: str,
    noise: Mapping[tuple[str, ...], float] | None = None,
) -> pd.DataFrame:
    """Numbers of two tables side by side: ``value`` by ``key``.

    ``noise``: (endpoint, source, region) -> least difference that is more than chance.
    """
    both = this[[*key, value]].merge(
        other[[*key, value]], on=key, how="outer", suffixes=("_this", "_other"), indicator=True
    )
    first, second = both[f"{value}_this"], both[f"{value}_other"]
    equal = (first == second) | (first.isna() & second.isna())
    verdict = np.where(equal, "same", "different")
    floor = _floor(both, noise or {})
    within = ~equal & ((first - second).abs() <= floor)
    verdict = np.where(within, "below_noise", verdict)
    verdict = np.where(both["_merge"] == "left_only", "only_this", verdict)
    verdict = np.where(both["_merge"] == "right_only", "only_other", verdict)
    return pd.DataFrame(
        {
            # Also of no row at all: a type of analysis that neither plan has.
            "key": pd.Series(
                [" ".join(map(str, names)) for names in both[key].itertuples(index=False)],
                index=both.index,
                dtype=object,
            ),
            "this": first,
            "other": second,
            "difference": first - second,
            "relative_percent": _relative(first, second),
            "noise_floor": floor,
            "verdict": verdict,
        }
    )


def _relative(first: pd.Series, second: pd.Series) -> pd.Series:
    mean = (first.abs() + second.abs()) / 2
    return (100.0 * (first - second) / mean.where(mean > 0)).astype(float)


#: What a noise floor belongs to.
_FLOOR_KEY = ("endpoint", "source", "region")


def _floor(rows: pd.DataFrame, noise: Mapping[tuple[str, ...], float]) -> pd.Series:
    if not set(_FLOOR_KEY) <= set(rows.columns):
        return pd.Series(np.nan, index=rows.index)
    keys = zip(*(rows[name].map(str) for name in _FLOOR_KEY), strict=True)
    return pd.Series([noise.get(key, np.nan) for key in keys], index=rows.index, dtype=float)


def noise_floor(*folders: Path) -> dict[tuple[str, ...], float]:
    """(endpoint, source, region) -> least difference that is more than chance.

    From the column ``minimal_detectable_change`` of ``endpoints/noise_floor.tsv`` (1.96 sqrt(2)
    times the SD of repeated runs), the larger of the studies; nothing where neither has it.
    """
    found: dict[tuple[str, ...], float] = {}
    for folder in folders:
        path = folder / "endpoints" / "noise_floor.tsv"
        if not path.is_file():
            continue
        table = read_table(path, numeric=["minimal_detectable_change"])
        for row in table.to_dict("records"):
            key = tuple(str(row[name]) for name in _FLOOR_KEY)
            value = float(row["minimal_detectable_change"])
            if np.isfinite(value):
                found[key] = max(found.get(key, 0.0), value)
    return found


def compare_studies(folder: Path, other: Path) -> list[str]:
    """Compare two results folders; write ``comparison/compared.tsv``; lines for a person.

    UserError if the other folder has no results.
    """
    if not (other / "endpoints" / "measurements.tsv").is_file():
        raise UserError(
            f"{other} holds no endpoints/measurements.tsv; name a study's results folder"
        )
    parts, lines = [], [f"{folder} beside {other}"]
    noise = noise_floor(folder, other)
    lines.append(
        f"  noise floor known for {len(noise)} endpoints"
        if noise
        else "  no noise floor is known (config: noise_floor.subjects): every difference is listed"
    )
    for name, (key, value) in _TABLES.items():
        if not (folder / name).is_file() or not (other / name).is_file():
            continue
        part = _compare_tables(
            read_table(folder / name, numeric=[value], text_missing=True),
            read_table(other / name, numeric=[value], text_missing=True),
            key,
            value,
            noise if name.startswith("endpoints/") else None,
        )
        counts = part["verdict"].value_counts()
        changes = ", ".join(
            f"{counts[v]} {v}"
            for v in ("same", "below_noise", "different", "only_this", "only_other")
            if v in counts
        )
        moved = part["difference"].abs().max()
        lines.append(
            f"  {name:<34} {changes or 'empty'}"
            + (f"; largest difference {moved:.4g}" if moved and moved > 0 else "")
        )
        parts.append(part.assign(table=name))
    lines += _version_lines(folder, other)
    table = pd.concat(parts, ignore_index=True)
    apart = table[table["verdict"] == "different"]
    order = apart["relative_percent"].abs().sort_values(ascending=False, kind="stable").index
    if len(apart):
        lines.append(f"  The {min(MOST_SHOWN, len(apart))} of {len(apart)} that move most:")
    for row in apart.loc[order[:MOST_SHOWN]].to_dict("records"):
        lines.append(
            f"    {row['key']}: {row['other']:.5g} -> {row['this']:.5g} "
            f"({row['relative_percent']:+.3g} %)"
        )
    path = folder / "comparison" / "compared.tsv"
    write_table(table[table["verdict"] != "same"], path, COMPARED)
    lines.append(f"Every number that differs: {path}")
    return lines


def _version_lines(folder: Path, other: Path) -> list[str]:
    paths = [root / "provenance" / "manifest.json" for root in (folder, other)]
    if not all(path.is_file() for path in paths):
        return []
    first, second = map(Manifest.read, paths)
    blocks = {"software": (first.software, second.software), "code": (first.code, second.code)}
    lines = []
    for block, (this, that) in blocks.items():
        changed = [n for n in sorted({**this, **that}) if this.get(n) != that.get(n)][:10]
        if changed:
            named = ", ".join(f"{n} {this.get(n)} / {that.get(n)}" for n in changed)
            lines.append(f"  {block} differs: {named}")
    return lines
