"""The certificate: published numbers beside what this study recomputes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import pandas as pd

from corelab.provenance.products import read_table

CERTIFICATE = {
    "published_id": "Identifier of the published number",
    "statistic": "Statistic; ' ci_low' or ' ci_high' is added for an interval's limits",
    "published": "The number as printed",
    "recomputed": "The number of this study at full precision",
    "difference": "recomputed - published",
    "tolerance": "Largest difference that counts as reproduced",
    "verdict": "reproduced, within_rounding, different or not_computable",
    "group": "Pair, level or term",
    "analysis_id": "Analysis that recomputes it",
    "citation": "Where it is printed",
    "note": "Why it is not computable, or how it is defined here",
}


def half_last_digit(printed: str) -> float:
    """Half a unit of the last printed digit: what rounding alone can account for.

    Examples
    --------
    >>> half_last_digit("0.797"), half_last_digit("12"), half_last_digit("1.5e3")
    (0.0005, 0.5, 50.0)
    """
    try:
        exponent = Decimal(printed.strip()).as_tuple().exponent
    except InvalidOperation:
        return 0.0
    return 0.5 * 10.0 ** int(exponent) if isinstance(exponent, int) else 0.0


def verdict(printed: str, recomputed: float, tolerance: float | None, numeric: float) -> str:
    """Compare a printed number with a recomputed one.

    ``reproduced``: within the tolerance given (the numeric one if none is given);
    ``within_rounding``: not that close, but rounding of the printed number explains it;
    ``different`` otherwise.

    Examples
    --------
    >>> verdict("0.68", 0.6815, None, 1e-8), verdict("0.68", 0.6815, 0.002, 1e-8)
    ('within_rounding', 'reproduced')
    >>> verdict("0.68", 0.70, 0.002, 1e-8), verdict("0.68", float("nan"), 0.002, 1e-8)
    ('different', 'not_computable')
    """
    if not math.isfinite(recomputed):
        return "not_computable"
    difference = abs(recomputed - float(printed))
    # 1e-12 keeps a difference that equals the tolerance from falling on the wrong side.
    if difference <= (numeric if tolerance is None else tolerance) + 1e-12:
        return "reproduced"
    return "within_rounding" if difference <= half_last_digit(printed) + 1e-12 else "different"


def certificate(
    published: pd.DataFrame | None, statistics: pd.DataFrame, *, numeric_tolerance: float
) -> pd.DataFrame:
    """The certificate's table.

    Parameters
    ----------
    published
        The sheet as text, or None.
    statistics
        All statistics rows of the study; numbers as float64.
    numeric_tolerance
        For published numbers without a tolerance of their own.

    Returns
    -------
    pandas.DataFrame
        Columns of :data:`CERTIFICATE`.

    Examples
    --------
    >>> published = pd.DataFrame([{"published_id": "p1", "analysis_id": "a", "statistic": "bias",
    ...                            "estimate": "-2.1"}])
    >>> statistics = pd.DataFrame({"analysis_id": ["a"], "statistic": ["bias"], "group": ["x|y"],
    ...                            "participant_id": ["all"], "estimate": [-2.1176], "note": [""]})
    >>> certificate(published, statistics, numeric_tolerance=1e-8)["verdict"].tolist()
    ['within_rounding']
    """
    rows = []
    sheet = published if published is not None else pd.DataFrame()
    for cells in sheet.to_dict("records"):
        match = statistics[
            (statistics["analysis_id"] == cells["analysis_id"])
            & (statistics["statistic"] == cells["statistic"])
            & (statistics["participant_id"] == "all")
        ]
        group = cells.get("group")
        if group:
            match = match[match["group"] == group]
        note = ""
        if match.empty:
            note = "the analysis gave no such statistic" + (f" for {group}" if group else "")
        elif len(match) > 1:
            note = f"{len(match)} rows match: name the group ({', '.join(match['group'][:4])} ...)"
        tolerance = float(cells["tolerance"]) if cells.get("tolerance") else None
        for part in ("estimate", "ci_low", "ci_high"):
            printed = cells.get(part)
            if printed is None:
                continue
            found = float(match.iloc[0][part]) if len(match) == 1 else math.nan
            reason = note
            if not note and not math.isfinite(found):
                reason = str(match.iloc[0].get("note") or "not computable")
            rows.append(
                {
                    "published_id": cells["published_id"],
                    "statistic": cells["statistic"] + ("" if part == "estimate" else f" {part}"),
                    "published": printed,
                    "recomputed": found,
                    "difference": found - float(printed),
                    "tolerance": numeric_tolerance if tolerance is None else tolerance,
                    "verdict": verdict(printed, found, tolerance, numeric_tolerance),
                    "group": group,
                    "analysis_id": cells["analysis_id"],
                    "citation": cells.get("citation"),
                    "note": reason,
                }
            )
    return pd.DataFrame(rows, columns=list(CERTIFICATE))


def read_statistics(paths: Iterable[str]) -> pd.DataFrame:
    """All statistics tables of a study as one frame, numbers as float64."""
    numeric = ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "n", "second_estimate")
    return pd.concat([read_table(path, numeric=numeric) for path in paths], ignore_index=True)
