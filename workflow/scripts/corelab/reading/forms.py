"""The readers' forms as they come back: rows of the reads sheet, and reference cases judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import read_table, write_table
from corelab.reading.reference_cases import (
    PERFORMANCE,
    REFERENCE_READS,
    ReferenceRead,
    judged_reads,
    performance,
)
from corelab.study.model import Study

RETURNED = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "endpoint": "Endpoint that was read",
    "reader": "Reader",
    "value": "Value, or a grade",
    "unit": "Unit",
    "repeat": "Repeated read, from 1",
    "role": "reader",
    "read_at": "Time at which the read was confirmed",
    "presentation_order": "Place in the reading sequence",
    "not_evaluable_reason": "Why there is no value",
}


def _reads_from_form(
    form: pd.DataFrame, key: pd.DataFrame, reader: str, *, reference: bool = False
) -> pd.DataFrame:
    """Rows of the reads sheet from a completed form, of the study's cases or of reference cases.

    The second part of a hybrid presentation has the repeat 2 (with repeated cases: 2 and 4 are the
    second parts of 1 and 3). ValueError: the form names a case that the key does not contain, or
    one line twice.
    """
    known = key.set_index("case")
    unknown = sorted(set(form["case"]) - set(known.index))
    if unknown:
        raise ValueError(f"the form of {reader} names cases that the key does not know: {unknown}")
    if form.duplicated(["case", "endpoint"]).any():
        raise ValueError(f"the form of {reader} has a case and endpoint twice; keep one line")
    parts = int(known["part"].astype(int).max()) if len(known) else 1
    rows = []
    for line in form.to_dict("records"):
        case = known.loc[line["case"]]
        if (case["reference"] == "yes") != reference:
            continue
        repeat = str((int(case["repeat"]) - 1) * parts + int(case["part"]))
        rows.append(
            (
                *(case["participant_id"], case["visit"], line["endpoint"], reader),
                *(line["value"], line["unit"], repeat, "reader", line["read_at"]),
                *(str(line["position"]), line["not_evaluable_reason"]),
            )
        )
    return pd.DataFrame(rows, columns=list(RETURNED), dtype=object)


def _reason_faults(reads: pd.DataFrame, allowed: Sequence[str]) -> list[str]:
    """Values without a reason for their absence, and reasons that the charter does not list."""
    faults = []
    for row in reads.to_dict("records"):
        where = f"{row['reader']} {row['participant_id']} {row['visit']} {row['endpoint']}"
        reason = row["not_evaluable_reason"]
        if row["value"] is None and not reason:
            faults.append(f"{where}: neither a value nor a not_evaluable_reason")
        elif row["value"] is not None and reason:
            faults.append(f"{where}: both a value and a not_evaluable_reason")
        elif reason and allowed and reason not in allowed:
            faults.append(
                f"{where}: the reason {reason!r} is not on the charter's list: "
                + ", ".join(allowed)
            )
    return faults


def returned_forms(
    study: Study, forms: Mapping[str, str | Path], key_path: str | Path, paths: Any
) -> list[str]:
    """Forms that came back as rows of the reads sheet, and the readers' standing on references.

    ``forms`` is reader -> ``form.tsv`` as he sent it back; ``paths`` has the attributes ``reads``,
    ``references`` and ``performance``. Returned is how many reads came back, and readers to be
    trained again.

    Raises ValueError naming every line without a value and without a reason, or with a reason that
    is not on the charter's list; a form that the key does not fit.
    """
    settings = study.settings.reading
    key = read_table(key_path)
    reads: list[pd.DataFrame] = []
    references: list[ReferenceRead] = []
    for reader, path in sorted(forms.items()):
        form = read_table(path)
        reads.append(_reads_from_form(form, key, reader))
        last = int(pd.to_numeric(form["position"]).max()) if len(form) else 1
        references += [
            ReferenceRead(
                *(row["participant_id"], row["endpoint"], reader, row["value"], row["unit"]),
                *(row["repeat"], int(row["presentation_order"]), last),
            )
            for row in _reads_from_form(form, key, reader, reference=True).to_dict("records")
        ]
    nothing = pd.DataFrame(columns=list(RETURNED), dtype=object)
    table = pd.concat(reads, ignore_index=True) if reads else nothing
    faults = _reason_faults(table, settings.not_evaluable_reasons)
    if faults:
        raise ValueError("\n".join(["The forms cannot be taken over:", *faults[:50]]))
    truth = study.sheets.get("reference_cases")
    judged = judged_reads(
        references,
        truth if truth is not None else pd.DataFrame(columns=["reference_id"]),
        settings.stability_parts,
    )
    passed = performance(judged, settings.limits)
    write_table(table, paths.reads, RETURNED)
    write_table(judged, paths.references, REFERENCE_READS)
    write_table(passed, paths.performance, PERFORMANCE)
    again = sorted(set(passed.loc[passed["action"] == "retrain", "group"]))
    return [
        f"{len(table)} reads of {len(forms)} readers, {len(judged)} reference reads",
        *(f"{group}: outside the charter's limit on reference cases: retrain" for group in again),
    ]
