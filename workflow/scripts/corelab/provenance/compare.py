"""Two runs of a study, or two studies: which numbers differ, and by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from corelab.provenance.job import Plain
from corelab.provenance.products import read_json, read_table, write_table

COMPARED = {
    "table": "Table that holds the number",
    "key": "What the number is",
    "this": "Number of this study",
    "other": "Number of the other study",
    "difference": "this - other",
    "verdict": "same, different, only_this or only_other",
}
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
        for name in ("agreement", "overlap", "pharmacodynamics", "survival", "radiomics", "phantom")
    },
}


def compare_tables(
    this: pd.DataFrame, other: pd.DataFrame, key: list[str], value: str
) -> pd.DataFrame:
    """Numbers of two tables side by side.

    Examples
    --------
    >>> a = pd.DataFrame({"k": ["x", "y"], "v": [1.0, 2.0]})
    >>> b = pd.DataFrame({"k": ["x", "z"], "v": [1.5, 2.0]})
    >>> compare_tables(a, b, ["k"], "v")[["key", "verdict"]].values.tolist()
    [['x', 'different'], ['y', 'only_this'], ['z', 'only_other']]
    """
    both = this[[*key, value]].merge(
        other[[*key, value]], on=key, how="outer", suffixes=("_this", "_other"), indicator=True
    )
    first, second = both[f"{value}_this"], both[f"{value}_other"]
    equal = (first == second) | (first.isna() & second.isna())
    verdict = np.where(equal, "same", "different")
    verdict = np.where(both["_merge"] == "left_only", "only_this", verdict)
    verdict = np.where(both["_merge"] == "right_only", "only_other", verdict)
    return pd.DataFrame(
        {
            "key": both[key].astype(str).agg(" ".join, axis=1),
            "this": first,
            "other": second,
            "difference": first - second,
            "verdict": verdict,
        }
    )


def compare_studies(folder: Path, other: Path) -> list[str]:
    """Compare two results folders; write ``verification/compared.tsv``; lines for a person.

    Raises
    ------
    corelab.provenance.job.Plain
        If the other folder holds no results.
    """
    if not (other / "endpoints" / "measurements.tsv").is_file():
        raise Plain(f"{other} holds no endpoints/measurements.tsv; name a study's results folder")
    parts, lines = [], [f"{folder} beside {other}"]
    for name, (key, value) in _TABLES.items():
        if not (folder / name).is_file() or not (other / name).is_file():
            continue
        part = compare_tables(
            read_table(folder / name, numeric=[value], text_missing=True),
            read_table(other / name, numeric=[value], text_missing=True),
            key,
            value,
        )
        counts = part["verdict"].value_counts()
        told = ", ".join(
            f"{counts[v]} {v}"
            for v in ("same", "different", "only_this", "only_other")
            if v in counts
        )
        moved = part["difference"].abs().max()
        lines.append(
            f"  {name:<34} {told or 'empty'}"
            + (f"; largest difference {moved:.4g}" if moved and moved > 0 else "")
        )
        parts.append(part.assign(table=name))
    lines += _version_lines(folder, other)
    table = pd.concat(parts, ignore_index=True)
    path = folder / "comparison" / "compared.tsv"
    write_table(table[table["verdict"] != "same"], path, COMPARED)
    lines.append(f"Every number that differs: {path}")
    return lines


def _version_lines(folder: Path, other: Path) -> list[str]:
    paths = [root / "provenance" / "manifest.json" for root in (folder, other)]
    if not all(path.is_file() for path in paths):
        return []
    first, second = (read_json(path) for path in paths)
    lines = []
    for block in ("software", "code"):
        names = sorted(set(first[block]) | set(second[block]))
        changed = [n for n in names if first[block].get(n) != second[block].get(n)]
        if changed:
            lines.append(
                f"  {block} differs: "
                + ", ".join(
                    f"{n} {first[block].get(n)} / {second[block].get(n)}" for n in changed[:10]
                )
            )
    return lines
