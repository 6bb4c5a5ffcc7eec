"""Endpoints that follow from other rows: within a visit, and between visits of a subject.

They are computed from rows, not from images, so that a study with tables only has them too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from corelab.measurement.rows import measurement_row
from corelab.records.measured import MeasurementRow

#: endpoint, volume it follows, how, unit.
CHANGES = (
    ("infarct_growth", "infarct_volume", "difference", "mL"),
    ("haematoma_growth", "haematoma_volume", "difference", "mL"),
    ("reperfusion_percent", "hypoperfused_volume", "percent_reduction", "percent"),
    ("extent_of_resection", "enhancing_volume", "percent_reduction", "percent"),
    ("extent_of_resection:oedema", "oedema_volume", "percent_reduction", "percent"),
    ("extent_of_resection:whole-tumour", "whole_tumour_volume", "percent_reduction", "percent"),
)
KEY = ["participant_id", "visit", "endpoint", "source", "repeat", "region"]


def _pairs(rows: pd.DataFrame, endpoint: str, baseline: str) -> pd.DataFrame:
    """Rows of an endpoint after baseline, beside the baseline row of the same source."""
    own = rows[(rows["endpoint"] == endpoint) & (rows["region"] == "all")]
    on = ["participant_id", "source", "repeat"]
    before = own[own["visit"] == baseline].set_index(on)[["value", "status", "scan_ids"]]
    after = own[own["visit"] != baseline]
    return after.join(before, on=on, rsuffix="_before", how="inner")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _ids(*cells: Any) -> str | None:
    found = {part for cell in cells if isinstance(cell, str) for part in cell.split(",")}
    return ",".join(sorted(found)) or None


def _made(
    row: Mapping[str, Any], endpoint: str, value: float | None, unit: str, ids: str, **more: Any
) -> MeasurementRow:
    """Row that follows from two rows of one source; ``ids`` is the suffix of the other one's."""
    scans = _ids(row["scan_ids"], row[f"scan_ids_{ids}"])
    return measurement_row(
        *(row["participant_id"], row["visit"], endpoint, row["source"], value, unit),
        repeat=row["repeat"],
        scan_ids=scans,
        **more,
    )


def change_rows(rows: pd.DataFrame, baseline: str | None) -> list[MeasurementRow]:
    """Growth, reperfusion and resection against the baseline visit.

    ``infarct_growth`` = V(visit) - V(baseline), mL; ``reperfusion_percent`` and
    ``extent_of_resection`` = 100 (V(baseline) - V(visit)) / V(baseline), negative where the
    volume grew. A change of which one side is missing is a row with the reason.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "participant_id": "1", "visit": ["pre", "post"], "endpoint": "enhancing_volume",
    ...     "source": "r", "repeat": 1, "region": "all", "value": [10.0, 12.0], "unit": "mL",
    ...     "status": "ok", "reason": None, "scan_ids": None})
    >>> [(r.endpoint, r.value) for r in change_rows(rows, "pre")]
    [('extent_of_resection', -20.0)]
    """
    if baseline is None:
        return []
    made = []
    for endpoint, volume, how, unit in CHANGES:
        for row in _records(_pairs(rows, volume, baseline)):
            before, after = row["value_before"], row["value"]
            status, reason, value = "ok", None, None
            if row["status_before"] != "ok" or row["status"] != "ok":
                side = baseline if row["status_before"] != "ok" else row["visit"]
                status, reason = "not_computable", f"no {volume} at {side}"
            elif how == "difference":
                value = after - before
            elif before == 0:
                status, reason = "not_computable", f"{volume} at {baseline} is 0"
            else:
                value = 100.0 * (before - after) / before
            made.append(_made(row, endpoint, value, unit, "before", status=status, reason=reason))
    return made


def ghost_core_rows(
    rows: pd.DataFrame, baseline: str | None, *, above_ml: float
) -> list[MeasurementRow]:
    """Core at baseline minus infarct at follow-up, mL; above ``above_ml`` it is a ghost core.

    The definition and the default of 10 mL: J Clin Med 2024;14:2991 (requirements A11). The core
    of a source is compared with that source's infarct, the pipeline's variants with the
    pipeline's infarct.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "participant_id": "1", "visit": ["a", "b"],
    ...     "endpoint": ["core_volume", "infarct_volume"], "source": "pipeline",
    ...     "repeat": 1, "region": "all", "value": [30.0, 12.0], "unit": "mL",
    ...     "status": "ok", "reason": None, "scan_ids": None})
    >>> made = ghost_core_rows(rows, "a", above_ml=10.0)
    >>> made[0].value, made[0].reason
    (18.0, 'ghost core: above 10 mL')
    """
    if baseline is None:
        return []
    usable = rows[(rows["status"] == "ok") & (rows["region"] == "all")]
    core = usable[(usable["endpoint"] == "core_volume") & (usable["visit"] == baseline)]
    later = usable[(usable["endpoint"] == "infarct_volume") & (usable["visit"] != baseline)]
    both = later.merge(core, on=["participant_id", "source", "repeat"], suffixes=("", "_core"))
    made = []
    for row in _records(both):
        ghost = row["value_core"] - row["value"]
        reason = f"ghost core: above {above_ml:g} mL" if ghost > above_ml else None
        made.append(_made(row, "ghost_core_volume", ghost, "mL", "core", reason=reason))
    return made


def mismatch_rows(rows: pd.DataFrame) -> list[MeasurementRow]:
    """Penumbra and mismatch ratio where a source gives core and hypoperfused volume only.

    penumbra = hypoperfused - core (not below 0), mismatch ratio = hypoperfused / core.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "participant_id": "1", "visit": "a", "endpoint": ["core_volume", "hypoperfused_volume"],
    ...     "source": "software", "repeat": 1, "region": "all", "value": [10.0, 45.0], "unit": "mL",
    ...     "status": "ok", "reason": None, "scan_ids": None})
    >>> [(r.endpoint, r.value) for r in mismatch_rows(rows)]
    [('penumbra_volume', 35.0), ('mismatch_ratio', 4.5)]
    """
    on = ["participant_id", "visit", "source", "repeat"]
    usable = rows[(rows["status"] == "ok") & (rows["region"] == "all")]
    core = usable[usable["endpoint"] == "core_volume"]
    whole = usable[usable["endpoint"] == "hypoperfused_volume"]
    made = []
    for row in _records(core.merge(whole, on=on, suffixes=("", "_whole"))):
        core_ml, whole_ml = row["value"], row["value_whole"]
        penumbra = _made(row, "penumbra_volume", max(0.0, whole_ml - core_ml), "mL", "whole")
        ratio = replace(penumbra, endpoint="mismatch_ratio", unit="ratio")
        if core_ml > 0:
            ratio = replace(ratio, value=whole_ml / core_ml)
        else:
            reason = "the core is 0 mL"
            ratio = replace(ratio, value=None, status="not_computable", reason=reason)
        made += [penumbra, ratio]
    return made


@dataclass
class Given:
    """Who gave which endpoint at which visit, of rows of whole lesions that were read once.

    Attributes
    ----------
    subjects
        Source and endpoint -> visit -> participants.
    units
        Source and endpoint -> unit of the first row that has one.
    """

    subjects: dict[tuple[str, str], dict[str, set[str]]] = field(default_factory=dict)
    units: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, rows: pd.DataFrame) -> Given:
        """Add rows of further participants."""
        own = rows[(rows["region"] == "all") & (rows["repeat"].astype(int) == 1)]
        for key, part in own.groupby(["source", "endpoint"], sort=False):
            source, endpoint = map(str, key)
            visits = self.subjects.setdefault((source, endpoint), {})
            for visit, at in part.groupby("visit", sort=False)["participant_id"]:
                visits.setdefault(str(visit), set()).update(at)
            for unit in part["unit"].dropna()[:1] if "unit" in part else ():
                self.units.setdefault((source, endpoint), unit)
        return self


def missing_rows(
    given: Given,
    listed: Sequence[tuple[str, str]],
    visit_order: Sequence[str],
    participants: Collection[str] | None = None,
) -> list[MeasurementRow]:
    """Rows for the values that a source should have given and has not.

    For every endpoint and source: at each visit where the source gave the endpoint for anybody,
    every participant whom that source measured at all should have a row. For the pipeline these
    are the participants with any scan listed ((participant_id, visit) in ``listed``). Rows of
    ``participants`` alone, where they are given.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "participant_id": ["1", "2", "2"], "visit": ["a", "a", "b"],
    ...     "endpoint": "infarct_volume", "source": "r1", "repeat": 1, "region": "all",
    ...     "value": [1.0, 2.0, 3.0], "status": "ok"})
    >>> made = missing_rows(Given().add(rows), [], ["a", "b"])
    >>> [(r.participant_id, r.visit, r.status) for r in made]
    [('1', 'b', 'missing')]
    """
    listed_visits = set(listed)
    measured: dict[str, set[str]] = {"pipeline": {subject for subject, _ in listed}}
    for (source, _), visits in given.subjects.items():
        measured.setdefault(source, set()).update(*visits.values())
    if participants is not None:
        measured = {source: found.intersection(participants) for source, found in measured.items()}
    made = []
    for (source, endpoint), visits in sorted(given.subjects.items()):
        if source.startswith("pipeline:"):
            # A variant stands beside the primary value; where that is missing, one row says so.
            continue
        pipeline = source == "pipeline"
        for visit in [one for one in visit_order if one in visits]:
            for subject in sorted(measured[source] - visits[visit]):
                if pipeline and (subject, visit) in listed_visits:
                    reason = "no scan of the kind that this endpoint needs"
                elif pipeline:
                    reason = "no scan at this visit"
                else:
                    reason = f"{source} gave no value at this visit"
                unit = given.units.get((source, endpoint))
                made.append(
                    measurement_row(
                        *(subject, visit, endpoint, source, None, unit),
                        status="missing",
                        reason=reason,
                        # Readers and software may have endpoints of their own.
                        supplied=not pipeline,
                    )
                )
    return made


def without_known(made: Sequence[MeasurementRow], rows: pd.DataFrame) -> list[MeasurementRow]:
    """Drop derived rows whose key is measured or supplied already.

    Examples
    --------
    >>> from corelab.measurement.rows import rows_frame
    >>> row = measurement_row("1", "a", "infarct_volume", "pipeline", 1.0, "mL")
    >>> without_known([row], rows_frame([row], KEY))
    []
    """
    known = set(zip(*(rows[k].astype(str) for k in KEY), strict=True)) if len(rows) else set()
    return [row for row in made if tuple(map(str, row.key)) not in known]
