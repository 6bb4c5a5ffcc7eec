"""What needs a person's attention, most serious first; and the flow of scans to values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from corelab.measurement.selection import ZERO_WORDS
from corelab.plan.failures import FAILED
from corelab.records.images import Scan
from corelab.records.visits import visit_masks
from corelab.reporting.numbers import is_number, observed, plural, significant
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.vocabulary import criterion_words, flow_words
from corelab.study.mask_flags import FLAGS, flag_title, needs_attention
from corelab.terms.kinds import kind_words
from corelab.terms.labels import label
from corelab.terms.verdicts import FAIL, WARN
from corelab.terms.words import endpoint_words, label_words

#: Criteria of the acquisition table that judge a brain mask.
BRAIN_CRITERIA = ("brain_mask", "brain_in_field")
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was found about one visit, one participant or the study as a whole.

    Attributes
    ----------
    severity
        ``error``, ``warning`` or ``note``.
    topic
        Where it comes from: sheets, acquisition, images, values, perfusion, plan, certificate,
        conformance.
    what
        In plain words, without what was observed.
    observed
        What was observed; findings that differ in it alone are one line of the study's page.
    unit
        Of what was observed.
    limit
        After it: the limit.
    participant_id, visit
        Whom it concerns; empty for the study, or for the participant as a whole.
    anchor
        Section of the report with the details.
    """

    severity: str
    topic: str
    what: str
    observed: str = ""
    unit: str = ""
    limit: str = ""
    participant_id: str = ""
    visit: str = ""
    anchor: str = "quality"

    @property
    def text(self) -> str:
        """The finding as one sentence."""
        return _joined(self.what, [self.observed], self.unit, self.limit)


@dataclass(frozen=True)
class Attention:
    """Equal findings of several visits as one line; ``places`` are (participant, visit), the visit
    empty where the finding concerns the participant as a whole.
    """

    severity: str
    topic: str
    text: str
    places: tuple[tuple[str, str], ...] = ()
    anchor: str = "quality"

    @property
    def subjects(self) -> tuple[str, ...]:
        """Participants concerned."""
        return tuple(dict.fromkeys(participant for participant, _ in self.places))


#: Values that one line of the study's page lists.
MAX_LISTED = 5


def _joined(what: str, observed: Iterable[str], unit: str, limit: str) -> str:
    """Words, values with their unit, and limit as one text.

    Examples
    --------
    >>> _joined("slice thickness", ["7", "8", "7"], "mm", ", charter at most 6")
    'slice thickness 7, 8 mm, charter at most 6'
    >>> _joined("Left and right are swapped", [""], "", "")
    'Left and right are swapped'
    """
    values = [text for text in dict.fromkeys(observed) if text]
    shown = ", ".join(values[:MAX_LISTED])
    if len(values) > MAX_LISTED:
        shown += f" and {len(values) - MAX_LISTED} more"
    return " ".join(text for text in (what, shown, unit if shown else "") if text) + limit


def grouped(findings: Iterable[Finding]) -> list[Attention]:
    """Findings that differ only in place and observation as one line each, errors first.

    Examples
    --------
    >>> found = [Finding("warning", "perfusion", "drift", x, "", " (limit 1)", who, "baseline")
    ...     for who, x in (("001", "1.2"), ("002", "1.3"))]
    >>> [(line.text, line.places) for line in grouped(found)]
    [('drift 1.2, 1.3 (limit 1)', (('001', 'baseline'), ('002', 'baseline')))]
    """
    lines: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        key = (one.severity, one.topic, one.what, one.unit, one.limit, one.anchor)
        lines.setdefault(key, []).append(one)
    found = []
    for (severity, topic, what, unit, limit, anchor), own in lines.items():
        places = {(one.participant_id, one.visit): None for one in own if one.participant_id}
        text = _joined(what, [one.observed for one in own], unit, limit)
        found.append(Attention(severity, topic, text, tuple(sorted(places)), anchor))
    rank = {severity: number for number, severity in enumerate(SEVERITIES)}
    return sorted(found, key=lambda line: (rank[line.severity], -len(line.subjects)))


def _from_findings(results: Results) -> list[Finding]:
    found = []
    frame = results.findings.fillna("")
    keys = ["severity", "sheet", "column", "message"]
    for (severity, sheet, column, message), rows in frame.groupby(keys, sort=False):
        if severity not in SEVERITIES:
            continue
        where = " ".join(str(text) for text in (sheet, column) if text and text != "n/a")
        times = f" ({len(rows)} rows)" if len(rows) > 1 else ""
        text = f"{where}: {message}{times}"
        found.append(Finding(str(severity), "sheets", text, anchor="findings"))
    return found


def _from_acquisition(results: Results) -> list[Finding]:
    frame = results.acquisition
    found = []
    for row in frame[frame["verdict"] == "fail"].to_dict("records"):
        criterion, limit = str(row["criterion"]), observed(row["limit"])
        if criterion.startswith("gate:"):
            continue  # the gates of the series' record say it
        name, unit, direction = criterion_words(criterion)
        kind = kind_words(row["kind"])
        what, value = f"{kind}: {name}", observed(row["value"])
        wanted = " ".join(part for part in (direction, limit) if part)
        limits = f", charter {wanted}"
        if criterion == "left_right":
            what, unit = f"{kind}: left and right are swapped against", ""
            value, limits = limit.removeprefix("as "), ""
        if criterion in BRAIN_CRITERIA:
            what, value, limits = f"{kind}: {row['reason']}", "", ""
        who = (str(row["participant_id"]), str(row["visit"]))
        found.append(
            Finding("warning", "acquisition", what, value, unit, limits, *who, "acquisition")
        )
    return found


def _fault_words(what: str, reason: str) -> str:
    kind, _, name = what.partition(" ")
    subject = {
        "scan": f"{kind_words(name)} could not be used",
        "mask": f"{name} could not be segmented",
        "stage": f"stage {name} failed",
    }[kind]
    subject = subject[:1].upper() + subject[1:]
    return f"{subject}: {reason}" if reason else subject


def _scan_words(scan: Scan) -> str:
    """What a scan shows, in words: its kind, or mask and label."""
    if scan.label:
        return f"Mask {scan.label}"
    return kind_words(scan.kind)


def gate_limit_words(limit: str) -> str:
    """Limits of a gate of perfusion series in words.

    Examples
    --------
    >>> gate_limit_words("pass 0.5 to 1.3; fail outside 0.35 to 1.6")
    'warning outside 0.5 to 1.3, failure outside 0.35 to 1.6'
    >>> gate_limit_words("pass <= 80; fail outside any"), gate_limit_words("at most 3")
    ('warning above 80', 'limit at most 3')
    >>> gate_limit_words("pass >= 3; fail outside >= 1")
    'warning below 3, failure below 1'
    """
    passed, _, failed = limit.partition("; ")
    if not (passed.startswith("pass ") and failed.startswith("fail outside ")):
        return f"limit {limit}" if limit else ""

    def outside(text: str) -> str:
        for sign, word in (("<= ", "above "), (">= ", "below ")):
            if text.startswith(sign):
                return word + text.removeprefix(sign)
        return f"outside {text}"

    words = f"warning {outside(passed.removeprefix('pass '))}"
    failure = failed.removeprefix("fail outside ")
    return words if failure == "any" else f"{words}, failure {outside(failure)}"


def _from_gates(results: Results) -> list[Finding]:
    found = []
    for visit in results.visits:
        for gate in visit.gates:
            if gate.verdict not in (WARN, FAIL):
                continue
            name, unit, _ = criterion_words(gate.criterion)
            limit = gate_limit_words(gate.limit)
            found.append(
                Finding(
                    "error" if gate.verdict == FAIL else "warning",
                    "perfusion",
                    f"Perfusion series: {name}",
                    observed(gate.value, 3) if is_number(gate.value) else "",
                    unit,
                    f" ({limit})" if limit else "",
                    visit.participant_id,
                    visit.visit,
                    "gates",
                )
            )
    return found


def _from_records(results: Results) -> list[Finding]:
    faults: list[Finding] = []
    warned: list[Finding] = []
    for visit in results.visits:
        who = (visit.participant_id, visit.visit, "images")
        faults += [
            Finding("error", "images", _fault_words(what, reason), "", "", "", *who)
            for what, reason in visit.faults
        ]
        warned += [
            Finding("warning", "images", f"{_scan_words(scan)}: {text}", "", "", "", *who)
            for scan in visit.scans
            for text in scan.warnings
        ]
    for subject, record in sorted(results.normalised.items()):
        if record.warning:
            text = f"Registration to MNI: {record.warning}"
            warned.append(Finding("warning", "images", text, participant_id=subject))
        if record.status == "failed":
            text = f"Registration to MNI failed: {record.reason or 'no reason recorded'}"
            warned.append(Finding("error", "images", text, participant_id=subject))
    return [*faults, *warned, *_from_gates(results)]


def _from_masks(results: Results) -> list[Finding]:
    """Flags that a person should act on: one line per participant, visit and flag."""
    failed = results.acquisition[results.acquisition["verdict"] == "fail"]
    failed = failed[failed["criterion"].isin(BRAIN_CRITERIA)]
    brains = set(zip(failed["participant_id"].map(str), failed["visit"].map(str), strict=True))
    found = {}
    for visit in results.visits:
        # A brain mask's own rows of the acquisition table report it already.
        who = (visit.participant_id, visit.visit)
        for mask in visit_masks(None, visit.segment, visit.perfuse):
            for flag in mask.quality.get("flags", ()):
                volume = mask.quality.get(FLAGS[flag].figure or "")
                if (who, flag) in found or not needs_attention(flag, volume):
                    continue
                if who in brains and flag.startswith("brain_"):
                    continue
                text = f"{label_words(label(mask.label).words)}: {flag_title(flag, volume)}"
                found[who, flag] = Finding("warning", "images", text, "", "", "", *who, "images")
    return list(found.values())


#: Statuses of values -> severity of the finding.
_VALUE_SEVERITY = {"failed": "error", "excluded": "warning"}


def _from_values(results: Results) -> list[Finding]:
    """Values that are not available: one finding per visit, status and reason."""
    frame = results.measurements
    rows = frame[frame["status"].notna() & (frame["status"] != "ok")]
    found = []
    keys = ["participant_id", "visit", "status", "reason"]
    texts = rows.assign(**{key: rows[key].fillna("").map(str) for key in keys})
    for (participant, visit, status, reason), own in texts.groupby(keys, sort=True):
        severity = _VALUE_SEVERITY.get(str(status), "note")
        what = f"Values {str(status).replace('_', ' ')}" + (f" ({reason})" if reason else "")
        for name in dict.fromkeys(own["endpoint"].dropna()):
            words = endpoint_words(name)
            place = (str(participant), str(visit), "unavailable")
            found.append(Finding(severity, "values", f"{what}:", words, "", "", *place))
    return found


def is_not_computable(rows: pd.DataFrame) -> pd.Series:
    """Rows of a statistics table without a number, whose note says why."""
    return rows["note"].fillna("").astype(str).str.startswith(NOT_COMPUTABLE)


def _from_plan(results: Results) -> list[Finding]:
    found = []
    rows = results.all_statistics
    if len(rows):
        for analysis_id, group in rows[is_not_computable(rows)].groupby("analysis_id", sort=True):
            reasons = "; ".join(
                dict.fromkeys(
                    part
                    for note in group["note"]
                    for part in str(note).removeprefix(NOT_COMPUTABLE).lstrip(": ").split("; ")
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
            found.append(Finding(severity, "plan", text, anchor="deviations"))
        for analysis_id, group in rows.groupby("analysis_id", sort=True):
            notes = group.loc[~is_not_computable(group), "note"].fillna("").astype(str)
            parts = [p for note in notes for p in note.split("; ")]
            for part in dict.fromkeys(p for p in parts if ZERO_WORDS in p or "left out, for" in p):
                text = f"Analysis {analysis_id}: {part}"
                found.append(Finding("warning", "plan", text, anchor="deviations"))
    done = set(rows["analysis_id"]) if len(rows) else set()
    for entry in results.analyses:
        if entry.id not in done:
            text = f"Planned analysis {entry.id} has no results"
            found.append(Finding("error", "plan", text, anchor="deviations"))
    return found


def _from_certificate(results: Results) -> list[Finding]:
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
        found.append(Finding("warning", "certificate", text, anchor="certificate"))
    return found


def _from_exhibits(results: Results) -> list[Finding]:
    found = []
    for exhibit in results.exhibits:
        anchor = f"exhibit-{exhibit.section}".replace(":", "-")
        found += [
            Finding(alarm.severity, exhibit.section, alarm.text, "", "", "", subject, "", anchor)
            for alarm in exhibit.alarms
            for subject in alarm.subjects or ("",)
        ]
    return found


def _from_conformance(results: Results) -> list[Finding]:
    """Errors of the submission's data sets: they are not to be handed in as they are."""
    found = []
    for row in results.conformance.to_dict("records"):
        if row["severity"] == "error":
            text = f"Submission, {row['dataset']} {row['variable'] or ''}: {row['rule']}".strip()
            observed_text = f": {row['value']} ({row['records']} records)"
            found.append(
                Finding("error", "conformance", text + observed_text, anchor="conformance")
            )
    return found


def findings_of(results: Results) -> list[Finding]:
    """Everything that was found, each of one visit, one participant or the study."""
    return [
        *_from_exhibits(results),
        *_from_conformance(results),
        *_from_findings(results),
        *_from_records(results),
        *_from_acquisition(results),
        *_from_masks(results),
        *_from_certificate(results),
        *_from_values(results),
        *_from_plan(results),
    ]


def attention(results: Results) -> list[Attention]:
    """Everything that needs attention, errors first, then by how many subjects it concerns."""
    return grouped(results.once(findings_of))


def by_participant(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Participant -> findings of that participant alone."""
    found: dict[str, list[Finding]] = {}
    for one in findings:
        if one.participant_id:
            found.setdefault(one.participant_id, []).append(one)
    return found


def flagged_subjects(results: Results) -> dict[str, str]:
    """Subject -> the most serious thing that concerns it (notes do not flag)."""
    flags: dict[str, str] = {}
    for subject, own in by_participant(results.once(findings_of)).items():
        worst = min((SEVERITIES.index(one.severity) for one in own), default=2)
        if SEVERITIES[worst] != "note":
            flags[subject] = SEVERITIES[worst]
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
            (flow_words(str(reason)), int(number))
            for reason, number in zip(rows["reason"], rows["n_excluded"], strict=True)
            if number > 0
        )
        first = rows.iloc[0]
        if pd.isna(first["n_in"]) or pd.isna(first["n_out"]):
            continue
        words = flow_words(str(stage))
        steps.append(FlowStep(words, int(first["n_in"]), int(first["n_out"]), exclusions))
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
        failed_scans=sum(scan.status == "failed" for scan in scans),
        flagged_subjects=len(results.once(flagged_subjects)),
        out_of_charter=len(failed.drop_duplicates(["participant_id", "visit", "kind"])),
    )
