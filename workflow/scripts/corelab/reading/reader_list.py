"""Readers: certificates before the first read, and reads per day."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd


def by_roles(sheet: pd.DataFrame, *roles: str) -> pd.DataFrame:
    """Reads of some roles; a row without a role is a reader's.

    Examples
    --------
    >>> len(by_roles(pd.DataFrame({"role": [None, "software"]}), "reader"))
    1
    """
    if "role" not in sheet:
        return sheet
    return sheet[sheet["role"].fillna("reader").isin(roles)]


def certification_faults(sheet: pd.DataFrame | None, certified: Mapping[str, str]) -> list[str]:
    """Reads by readers and adjudicators without a valid certificate; nothing without certificates.

    ``certified`` is reader -> date of the certificate, ISO 8601.

    Examples
    --------
    >>> sheet = pd.DataFrame({"participant_id": ["1"], "visit": ["a"], "reader": ["r1"],
    ...                       "read_at": ["2025-01-01"]})
    >>> certification_faults(sheet, {"r1": "2025-02-01"})
    ['r1 read 1 a on 2025-01-01, before the certificate of 2025-02-01']
    """
    if sheet is None or not certified:
        return []
    faults = set()
    for cells in by_roles(sheet, "reader", "adjudicator").to_dict("records"):
        reader, read_at = cells["reader"], cells.get("read_at")
        where = f"{reader} read {cells['participant_id']} {cells['visit']}"
        if reader not in certified:
            faults.add(f"{where} without a certificate (reading.certified)")
        elif not read_at:
            faults.add(f"{where} without a date (read_at), so the certificate cannot be checked")
        elif read_at[:10] < certified[reader][:10]:
            faults.add(
                f"{where} on {read_at[:10]}, before the certificate of {certified[reader][:10]}"
            )
    return sorted(faults)


def busy_days(sheet: pd.DataFrame | None, limit: int | None) -> list[str]:
    """Days on which a reader read more cases than the charter allows for.

    Examples
    --------
    >>> sheet = pd.DataFrame({"participant_id": ["1", "2"], "visit": ["a", "a"],
    ...                       "reader": ["r1", "r1"], "read_at": ["2025-01-01", "2025-01-01"]})
    >>> busy_days(sheet, 1)
    ['r1 read 2 cases on 2025-01-01, more than 1']
    """
    if sheet is None or limit is None:
        return []
    return [
        f"{reader} read {number} cases on {date}, more than {limit}"
        for reader, days in days_of_reads(sheet).items()
        for date, number in days.items()
        if number > limit
    ]


def days_of_reads(sheet: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Reader -> day -> cases (participant and visit) read on it; rows without a date left out.

    Examples
    --------
    >>> days_of_reads(pd.DataFrame({"participant_id": ["1", "1"], "visit": ["a", "b"],
    ...     "reader": ["r1", "r1"], "read_at": ["2025-01-01", None]}))
    {'r1': {'2025-01-01': 1}}
    """
    if "read_at" not in sheet:
        return {}
    dated = by_roles(sheet[sheet["read_at"].notna()], "reader", "adjudicator")
    if not len(dated):
        return {}
    cases = dated[["participant_id", "visit"]].agg("\x1f".join, axis=1)
    counts = cases.groupby([dated["reader"], dated["read_at"].str[:10]]).nunique()
    found: dict[str, dict[str, int]] = {}
    for reader, day, number in counts.reset_index().itertuples(index=False):
        found.setdefault(str(reader), {})[str(day)] = int(number)
    return found


def reading_order(reads: pd.DataFrame) -> pd.Series | None:
    """Key that the reads sort by: ``presentation_order``, else ``read_at``.

    None where the reads have neither in every row.

    Examples
    --------
    >>> reading_order(pd.DataFrame({"presentation_order": ["2", "10"]})).tolist()
    [2, 10]
    """
    for column in ("presentation_order", "read_at"):
        if len(reads) and column in reads and reads[column].notna().all():
            return reads[column] if column == "read_at" else pd.to_numeric(reads[column])
    return None
