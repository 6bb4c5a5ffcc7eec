"""What needs a person's attention, most serious first; and the flow of scans to values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from corelab.measurement.selection import ZERO_WORDS
from corelab.pharmacodynamics.plan_runner import FAILED
from corelab.reporting.numbers import is_number, observed, plural, significant
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.vocabulary import KIND_WORDS, criterion_words, endpoint_words
from corelab.study.mask_flags import flag_title, needs_attention

#: Criteria of the acquisition table that judge a brain mask.
BRAIN_CRITERIA = ("brain_mask", "brain_in_field")
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Attention:
    """One thing to look at.

    Attributes
    ----------
    severity
        ``error``, ``warning`` or ``note``.
    topic
        Where it comes from: sheets, acquisition, images, values, perfusion, plan, certificate.
    text
        In plain words.
    subjects
        Subjects concerned.
    anchor
        Section of the report with the details.
    visit
        The visit concerned; empty where it concerns the subjects as a whole.
    """

    severity: str
    topic: str
    text: str
    subjects: tuple[str, ...] = ()
    anchor: str = "quality"
    visit: str = ""


def _subjects(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values}))


def _from_findings(results: Results) -> list[Attention]:
    found = []
    frame = results.findings.fillna("")
    keys = ["severity", "sheet", "column", "message"]
    for (severity, sheet, column, message), rows in frame.groupby(keys, sort=False):
        if severity not in SEVERITIES:
            continue
        where = " ".join(str(text) for text in (sheet, column) if text and text != "n/a")
        times = f" ({len(rows)} rows)" if len(rows) > 1 else ""
        found.append(
            Attention(str(severity), "sheets", f"{where}: {message}{times}", (), "findings")
        )
    return found


def _from_acquisition(results: Results) -> list[Attention]:
    frame = results.acquisition
    found = []
    failed = frame[frame["verdict"] == "fail"]
    for (kind, criterion), rows in failed.groupby(["kind", "criterion"], sort=True):
        values = ", ".join(dict.fromkeys(observed(value) for value in rows["value"]))
        limit = observed(rows["limit"].iloc[0])
        name, unit, direction = criterion_words(str(criterion))
        found_text = f"{values} {unit}".strip()
        wanted = " ".join(part for part in (direction, limit) if part)
        text = f"{name} {found_text}, charter {wanted}"
        if criterion == "left_right":
            text = f"left and right are swapped against {limit.removeprefix('as ')}"
        if criterion in BRAIN_CRITERIA:
            text = "; ".join(dict.fromkeys(map(str, rows["reason"])))
        found.append(
            Attention(
                "warning",
                "acquisition",
                f"{KIND_WORDS.get(str(kind), str(kind))}: {text}",
                _subjects(rows["participant_id"]),
                "acquisition",
            )
        )
    return found


def _fault_words(what: str, reason: str) -> str:
    kind, _, name = what.partition(" ")
    subject = {
        "scan": f"{KIND_WORDS.get(name, name)} could not be used",
        "mask": f"{name} could not be segmented",
        "stage": f"stage {name} failed",
    }[kind]
    subject = subject[:1].upper() + subject[1:]
    return f"{subject}: {reason}" if reason else subject


def _scan_words(scan: Mapping[str, Any]) -> str:
    """What a scan shows, in words: its kind, or mask and label."""
    if scan.get("label"):
        return f"Mask {scan['label']}"
    kind = str(scan.get("kind"))
    return KIND_WORDS.get(kind, kind)


def _from_records(results: Results) -> list[Attention]:
    faults: dict[tuple[str, str], list[str]] = {}
    gates: dict[tuple[str, str, str], list[tuple[str, object]]] = {}
    warned: dict[tuple[str, str], list[str]] = {}
    for visit in results.visits:
        for scan in visit.scans:
            for text in scan.get("warnings") or ():
                warning = (f"{_scan_words(scan)}: {text}", visit.visit)
                warned.setdefault(warning, []).append(visit.participant_id)
        for what, reason in visit.faults:
            faults.setdefault((what, reason), []).append(visit.participant_id)
        for gate in visit.gates:
            verdict = str(gate.get("verdict", "")).upper()
            if verdict in {"WARN", "FAIL"}:
                key = (verdict, str(gate.get("criterion")), str(gate.get("limit") or ""))
                gates.setdefault(key, []).append((visit.participant_id, gate.get("value")))
    found = [
        Attention("error", "images", _fault_words(what, reason), _subjects(who), "images")
        for (what, reason), who in sorted(faults.items())
    ]
    found += [
        Attention("warning", "images", text, _subjects(who), "images", visit)
        for (text, visit), who in sorted(warned.items())
    ]
    for subject, record in sorted(results.normalised.items()):
        if record.get("warning"):
            text = f"Registration to MNI: {record['warning']}"
            found.append(Attention("warning", "images", text, (subject,), "quality"))
        if record.get("status") == "failed":
            reason = record.get("reason") or "no reason recorded"
            found.append(
                Attention(
                    "error",
                    "images",
                    f"Registration to MNI failed: {reason}",
                    (subject,),
                    "quality",
                )
            )
    for (verdict, criterion, limit), who in sorted(gates.items()):
        name, unit, _ = criterion_words(criterion)
        values = ", ".join(observed(value) for _, value in who if is_number(value))
        text = f"Perfusion series: {name} {values} {unit}".strip()
        found.append(
            Attention(
                "error" if verdict == "FAIL" else "warning",
                "perfusion",
                f"{text} (wanted {limit})" if limit else text,
                _subjects(subject for subject, _ in who),
                "gates",
            )
        )
    return found


def _from_masks(results: Results) -> list[Attention]:
    """Flags that a person should act on: one line per participant, visit and flag.

    The label is that of the first mask with the flag; masks derived from it inherit the flag.
    """
    failed = results.acquisition[results.acquisition["verdict"] == "fail"]
    failed = failed[failed["criterion"].isin(BRAIN_CRITERIA)]
    brains = set(zip(failed["participant_id"].map(str), failed["visit"].map(str), strict=True))
    found = {}
    for visit in results.visits:
        # A brain mask's own rows of the acquisition table report it already.
        reported = (visit.participant_id, visit.visit) in brains
        for record in (visit.segment, visit.perfuse):
            for mask in (record or {}).get("masks", []):
                quality = mask.get("quality") or {}
                for flag in quality.get("flags", ()):
                    key = (visit.participant_id, visit.visit, flag)
                    if key in found or not needs_attention(flag, quality):
                        continue
                    if reported and flag.startswith("brain_"):
                        continue
                    text = f"{visit.visit}, {mask['label']}: {flag_title(flag, quality)}"
                    subjects = (visit.participant_id,)
                    found[key] = Attention(
                        "warning", "images", text, subjects, "images", visit.visit
                    )
    return list(found.values())


def _from_values(results: Results) -> list[Attention]:
    frame = results.measurements
    rows = frame[frame["status"].notna() & (frame["status"] != "ok")]
    found = []
    severity = {"failed": "error", "missing": "note", "excluded": "warning", NOT_COMPUTABLE: "note"}
    keys = ["status", "reason"]
    for (status, reason), group in rows.fillna({"reason": ""}).groupby(keys, sort=True):
        names = list(dict.fromkeys(group["endpoint"].dropna()))
        shown = endpoint_words(",".join(names[:4]))
        if len(names) > 4:
            shown += f" and {len(names) - 4} more"
        text = f"{shown}: {plural(len(group), 'value')} {str(status).replace('_', ' ')}"
        found.append(
            Attention(
                severity.get(str(status), "warning"),
                "values",
                f"{text} ({reason})" if reason else text,
                _subjects(group["participant_id"]),
                "unavailable",
            )
        )
    return found


def is_not_computable(rows: pd.DataFrame) -> pd.Series:
    """Rows of a statistics table without a number, whose note says why."""
    return rows["note"].fillna("").astype(str).str.startswith(NOT_COMPUTABLE)


def _from_plan(results: Results) -> list[Attention]:
    found = []
    rows = results.all_statistics
    if len(rows):
        for analysis_id, group in rows[is_not_computable(rows)].groupby("analysis_id", sort=True):
            reasons = "; ".join(
                dict.fromkeys(
                    str(note).removeprefix(NOT_COMPUTABLE).lstrip(": ") for note in group["note"]
                )
            )
            number = plural(len(group), "statistic")
            text = f"Analysis {analysis_id}: {number} not computable ({reasons})"
            severity = (
                "error"
                if group["note"].astype(str).str.contains(FAILED, regex=False).any()
                else "warning"
                if len(group) == (rows["analysis_id"] == analysis_id).sum()
                else "note"
            )
            found.append(Attention(severity, "plan", text, (), "deviations"))
        for analysis_id, group in rows.groupby("analysis_id", sort=True):
            notes = group.loc[~is_not_computable(group), "note"].fillna("").astype(str)
            parts = [p for note in notes for p in note.split("; ")]
            for part in dict.fromkeys(p for p in parts if ZERO_WORDS in p or "left out, for" in p):
                found.append(
                    Attention(
                        "warning", "plan", f"Analysis {analysis_id}: {part}", (), "deviations"
                    )
                )
    done = set(rows["analysis_id"]) if len(rows) else set()
    for entry in results.analyses:
        if entry["id"] not in done:
            found.append(
                Attention(
                    "error",
                    "plan",
                    f"Planned analysis {entry['id']} has no results",
                    (),
                    "deviations",
                )
            )
    return found


def _from_certificate(results: Results) -> list[Attention]:
    frame = results.certificate
    if frame is None:
        return []
    different = frame[frame["verdict"] == "different"]
    found = []
    for row in different.to_dict("records"):
        text = f"Published {row['published_id']}: {str(row['statistic']).replace('_', ' ')} "
        text += f"differs by {significant(row['difference'], 2)}"
        if isinstance(row["fits"], str):
            text += f"; it fits {row['fits']}"
        found.append(Attention("warning", "certificate", text, (), "certificate"))
    return found


def _from_exhibits(results: Results) -> list[Attention]:
    return [
        Attention(
            alarm.severity,
            exhibit.section,
            alarm.text,
            alarm.subjects,
            f"exhibit-{exhibit.section}".replace(":", "-"),
        )
        for exhibit in results.exhibits
        for alarm in exhibit.alarms
    ]


def attention(results: Results) -> list[Attention]:
    """Everything that needs attention, errors first, then by how many subjects it concerns."""
    found = [
        *_from_exhibits(results),
        *_from_findings(results),
        *_from_records(results),
        *_from_acquisition(results),
        *_from_masks(results),
        *_from_certificate(results),
        *_from_values(results),
        *_from_plan(results),
    ]
    rank = {severity: number for number, severity in enumerate(SEVERITIES)}
    return sorted(found, key=lambda item: (rank[item.severity], -len(item.subjects)))


def flagged_subjects(results: Results) -> dict[str, str]:
    """Subject -> the most serious thing that concerns it (notes do not flag)."""
    flags: dict[str, str] = {}
    for item in attention(results):
        if item.severity != "note":
            for subject in item.subjects:
                flags.setdefault(subject, item.severity)
    return flags


@dataclass(frozen=True)
class FlowStep:
    """One stage of the flow, with everything that left it."""

    stage: str
    n_in: int
    n_out: int
    exclusions: tuple[tuple[str, int], ...]


def flow_steps(results: Results) -> list[FlowStep]:
    """Stages in the order in which the numbers chain.

    The rows of a stage are gathered; stages whose numbers do not chain in file order are sorted
    from the largest to the smallest.
    """
    steps = []
    for stage, rows in results.flow.groupby("stage", sort=False):
        exclusions = tuple(
            (str(reason), int(number))
            for reason, number in zip(rows["reason"], rows["n_excluded"], strict=True)
            if number > 0
        )
        first = rows.iloc[0]
        if pd.isna(first["n_in"]) or pd.isna(first["n_out"]):
            continue
        steps.append(FlowStep(str(stage), int(first["n_in"]), int(first["n_out"]), exclusions))
    chained = all(a.n_out == b.n_in for a, b in pairwise(steps))
    return steps if chained else sorted(steps, key=lambda step: (-step.n_in, -step.n_out))


@dataclass(frozen=True)
class Counts:
    """The numbers of the first line of a report."""

    participants: int
    with_images: int
    visits: int
    scans: int
    values: int
    unavailable: int
    failed_scans: int
    flagged_subjects: int
    out_of_charter: int


def counts(results: Results) -> Counts:
    """Count subjects, visits, scans and values, and what went wrong with them."""
    rows = results.measurements
    scans = [scan for visit in results.visits for scan in visit.scans]
    failed = results.acquisition[results.acquisition["verdict"] == "fail"]
    return Counts(
        participants=len(results.subjects),
        with_images=len(results.image_subjects),
        visits=len(results.visits) or len(rows[["participant_id", "visit"]].drop_duplicates()),
        scans=len(scans),
        values=int((rows["status"] == "ok").sum()),
        unavailable=int((rows["status"].notna() & (rows["status"] != "ok")).sum()),
        failed_scans=sum(scan.get("status") == "failed" for scan in scans),
        flagged_subjects=len(flagged_subjects(results)),
        out_of_charter=len(failed.drop_duplicates(["participant_id", "visit", "kind"])),
    )
