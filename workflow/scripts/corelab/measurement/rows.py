"""The row of the measurements table, written in one place."""

from __future__ import annotations

from typing import Any

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
    scan_ids: str | None = None,
    supplied: bool = False,
) -> dict[str, Any]:
    """One measurement; the columns are :data:`corelab.study.columns.MEASUREMENTS` less ``row_id``.

    Raises
    ------
    ValueError
        If the endpoint is not registered and the row is not ``supplied`` by the study.

    Examples
    --------
    >>> from corelab.study.columns import MEASUREMENTS
    >>> row = measurement_row("1", "day5", "infarct_volume", "pipeline", 12.5, "mL")
    >>> list(row) == list(MEASUREMENTS)[:-1], row["status"]
    (True, 'ok')
    """
    if not supplied and endpoint.partition(":")[0] not in ENDPOINT_UNITS:
        raise ValueError(f"endpoint '{endpoint}' is not registered in corelab/terms/endpoints.py")
    return {
        "participant_id": participant_id,
        "visit": visit,
        "endpoint": endpoint,
        "source": source,
        "repeat": repeat,
        "region": region,
        "value": value,
        "unit": unit,
        "status": status,
        "reason": reason,
        "scan_ids": scan_ids,
    }
