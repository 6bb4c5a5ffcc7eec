"""The row of the measurements table, written in one place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from corelab.records.measured import MeasurementRow
from corelab.terms.endpoints import ENDPOINT_UNITS


def measurement_row(
    participant_id: str,
    visit: str,
    endpoint: str,
    source: str,
    value: float | None,
    unit: str | None,
    *,
    repeat: int = 1,
    region: str = "all",
    status: str = "ok",
    reason: str | None = None,
    scan_ids: Iterable[str] | str | None = None,
    supplied: bool = False,
    undefined: str = "",
) -> MeasurementRow:
    """One measurement; with ``undefined`` a value that is not finite is none, for that reason.

    Raises ValueError if the endpoint is not registered and the row is not ``supplied`` by the
    study.

    Examples
    --------
    >>> measurement_row("1", "day5", "infarct_volume", "pipeline", 12.5, "mL").status
    'ok'
    """
    if not supplied and endpoint.partition(":")[0] not in ENDPOINT_UNITS:
        raise ValueError(f"endpoint '{endpoint}' is not registered in corelab/terms/endpoints.py")
    if undefined and value is not None and not np.isfinite(value):
        value, reason = None, reason or undefined
        status = "not_computable" if status == "ok" else status
    ids = scan_ids if isinstance(scan_ids, str) else ",".join(sorted(scan_ids or ())) or None
    return MeasurementRow(
        *(participant_id, visit, endpoint, source, repeat, region),
        *(value, unit, status, reason, ids),
    )


def rows_frame(
    rows: Iterable[object], columns: Iterable[str], dtype: type | None = None
) -> pd.DataFrame:
    """Rows as a frame; a column that the rows do not have is empty.

    Examples
    --------
    >>> row = measurement_row("1", "day5", "infarct_volume", "pipeline", 12.5, "mL")
    >>> rows_frame([row], ["visit", "value"]).values.tolist()
    [['day5', 12.5]]
    """
    names, given = list(columns), list(rows)
    cells = {name: [getattr(row, name, None) for row in given] for name in names}
    return pd.DataFrame(cells, columns=names, dtype=dtype)
