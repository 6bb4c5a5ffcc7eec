"""What a run says at its end, in a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from corelab.measurement.selection import Tables
from corelab.reporting.attention import attention, counts
from corelab.reporting.numbers import plural
from corelab.reporting.results import read_measurements, read_results
from corelab.settings.config import Config

MAX_ATTENTION = 8


def summary_lines(
    folder: str | Path,
    settings: Config | None = None,
    tables: Tables | None = None,
    exhibits: Iterable[str] | None = None,
) -> list[str]:
    """Where the results are, how many there are, and what needs attention.

    With settings and tables the planned analyses and every participant are counted too. Exhibits
    that are missing have no alarm; None: all that lie in the folder.

    Examples
    --------
    >>> summary_lines("no/such/study")
    ['no/such/study: no results yet']
    """
    root = Path(folder)
    if not root.is_dir():
        return [f"{root}: no results yet"]
    if settings is None or tables is None:
        settings = Config.model_validate(
            {"study": {"id": root.name}, "inputs": {"participants": "n/a"}}
        )
        nobody = pd.DataFrame({"participant_id": pd.Series(dtype=object)})
        tables = Tables(read_measurements(root), nobody)
    results = read_results(
        root,
        settings,
        tables,
        exhibits=None if exhibits is None else [e for e in exhibits if Path(e).is_file()],
        conformance=root / "submission/datasets/conformance.tsv",
    )
    found = counts(results)
    lines = [f"Study {results.study.id}: results in {root}"]
    for name, what in (
        ("report/index.html", "report"),
        ("report/report.pdf", "report (PDF)"),
        ("submission/index.json", "submission"),
        ("endpoints/measurements.tsv", "every number"),
        ("provenance/manifest.json", "provenance"),
    ):
        if (root / name).is_file():
            lines.append(f"  {what + ':':14} {root / name}")
    lines.append(
        f"  {plural(found.participants, 'subject')} ({found.with_images} with images), "
        f"{plural(found.visits, 'visit')}, {plural(found.values, 'value')}, "
        f"{found.unavailable} not available"
    )
    lines.append(
        f"  {plural(found.failed_scans, 'scan')} failed, {found.out_of_charter} outside the "
        f"charter, {plural(found.flagged_subjects, 'subject')} flagged"
    )
    items = [item for item in results.once(attention) if item.severity != "note"]
    if not items:
        lines.append("  Nothing needs attention.")
        return lines
    lines.append("  Needs attention:")
    for item in items[:MAX_ATTENTION]:
        who = f" [{', '.join(item.subjects[:5])}{', ...' if len(item.subjects) > 5 else ''}]"
        lines.append(f"    {item.severity}: {item.text}{who if item.subjects else ''}")
    if len(items) > MAX_ATTENTION:
        lines.append(f"    and {len(items) - MAX_ATTENTION} more, see the report")
    return lines
