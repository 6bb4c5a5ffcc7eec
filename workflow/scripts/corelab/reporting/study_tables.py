"""Tables of the study's page: participants, endpoints, quality, files; and of a subject's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from corelab.measurement.selection import NotComputable, as_list, one_value, source_of
from corelab.reporting import page
from corelab.reporting.arms import arms_of
from corelab.reporting.attention import gate_limit_words
from corelab.reporting.descriptive import descriptions, is_variant
from corelab.reporting.methods import deviations
from corelab.reporting.numbers import (
    file_size,
    fixed,
    is_number,
    observed,
    significant,
)
from corelab.reporting.page import Cell, Column, Table, heads, person_link
from corelab.reporting.results import (
    NOT_COMPUTABLE,
    Results,
)
from corelab.reporting.traces import Steps, endpoint_page
from corelab.reporting.vocabulary import (
    VERDICT_WORDS,
    criterion_words,
    endpoint_decimals,
    statistic_decimals,
    value_decimals,
)
from corelab.settings.analyses.base import OneValue
from corelab.terms.endpoints import unit_of
from corelab.terms.kinds import kind_words
from corelab.terms.statistics import statistic
from corelab.terms.verdicts import FAIL, PASS, WARN
from corelab.terms.words import endpoint_words, label_words

#: Levels of a column of names up to which each is counted.
_MAX_LEVELS = 6


def participants_table(results: Results) -> Table:
    """Baseline characteristics, one column per arm: what the sheet and the baseline visit say.

    Numbers as median (range) with how many are missing, names as counts. Columns of the sheet
    that may be shown (:func:`shown_columns`), then the endpoints of the plan at baseline.
    """
    people = results.participants
    groups = [(arm, people[people["arm"].map(str) == arm]) for arm in arms_of(results)]
    groups.append(("all", people))
    with_images = set(results.image_subjects)
    body: list[list[Any]] = [
        ["Participants", *(str(len(rows)) for _, rows in groups)],
        ["With images", *(_images(rows, with_images) for _, rows in groups)],
    ]
    hidden = {"participant_id", "arm", "dose", "arm_description"}
    for name in results.shown_columns:
        if name not in hidden and people[name].notna().any():
            body += _characteristic(name, [rows[name] for _, rows in groups])
    body += _baseline_rows(results, [rows for _, rows in groups])
    columns = heads("=Characteristic")
    columns += [Column(name, "number", sortable=False) for name, _ in groups]
    note = "Numbers: median (range); names: participants."
    return Table("Participants by arm", columns, body, note)


def _characteristic(name: str, parts: Sequence[pd.Series]) -> list[list[str]]:
    """Rows of one column of the sheet: a number's median, or how many have each name."""
    everyone = parts[-1].dropna()
    numbers = pd.to_numeric(everyone, errors="coerce")
    if numbers.notna().all():
        cells = [_median_range(pd.to_numeric(part, errors="coerce")) for part in parts]
        return [[label_words(name), *cells]]
    levels = sorted(set(everyone.map(str)))
    if len(levels) > _MAX_LEVELS:
        return []
    return [
        [f"{label_words(name)}: {level}", *(_count(part, level) for part in parts)]
        for level in levels
    ]


def _count(column: pd.Series, level: str) -> str:
    return str(int((column.map(str) == level).sum()))


def _images(rows: pd.DataFrame, with_images: set[str]) -> str:
    return str(sum(str(name) in with_images for name in rows["participant_id"]))


def _median_range(values: pd.Series, unit: str = "") -> str:
    known = values.dropna()
    if known.empty:
        return ""
    digits = value_decimals(unit, known)
    middle = fixed(known.median(), digits if float(known.median()).is_integer() else max(digits, 1))
    text = f"{middle} ({fixed(known.min(), digits)} to {fixed(known.max(), digits)})"
    missing = len(values) - len(known)
    return f"{text}, {missing} missing" if missing else text


def _at(visit: str | None, endpoint: str) -> OneValue:
    return OneValue.unchecked(id="baseline", type="", endpoint=endpoint, visit=visit)


def _baseline_rows(results: Results, parts: Sequence[pd.DataFrame]) -> list[list[str]]:
    """Values of the planned imaging endpoints at the baseline visit, and clinical scores there."""
    baseline = results.tables.baseline
    found = []
    for name in _importance(results):
        try:
            rows = one_value(_at(baseline, name), results.tables, endpoint=name)
        except (NotComputable, KeyError, ValueError):
            continue
        if rows.empty or not baseline:
            continue
        unit = unit_of(name)
        by_person = rows.set_index("participant_id")["value"]
        cells = [_median_range(by_person.reindex(part["participant_id"]), unit) for part in parts]
        words = endpoint_words(name) + (f", {unit}" if unit else "")
        source = source_of(_at(baseline, name), results.tables, name)
        found.append([f"{words}, at {baseline} by {source}", *cells])
    outcomes = results.tables.outcomes
    here = outcomes[outcomes["visit"].map(str) == str(baseline)] if len(outcomes) else outcomes
    for name in sorted(set(here["outcome"])) if len(here) else ():
        own = here[here["outcome"] == name].drop_duplicates("participant_id")
        by_person = pd.to_numeric(own.set_index("participant_id")["value"], errors="coerce")
        cells = [_median_range(by_person.reindex(part["participant_id"])) for part in parts]
        found.append([f"{label_words(name)} at {baseline}", *cells])
    return found


def _importance(results: Results) -> dict[str, int]:
    """Endpoints in the order of the plan, those of primary analyses first."""
    order = {"primary": 0, "secondary": 1}
    entries = sorted(results.analyses, key=lambda a: order.get(str(a.objective), 2))
    names = [
        str(name)
        for entry in entries
        for name in (*as_list(entry.endpoint), *as_list(entry.endpoint_y))
    ]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def endpoints_table(results: Results, *, variants: bool) -> Table | None:
    """Endpoints by visit, source and arm: the pipeline's variants (cut-offs), or all others."""
    found = [d for d in results.once(descriptions) if is_variant(d.source) == variants]
    if not found:
        return None
    rank = _importance(results)
    found.sort(key=lambda d: rank.get(d.endpoint, len(rank)))
    body = []
    for d in found:
        digits = value_decimals(d.unit, (d.low, d.high))
        spread = f"{fixed(d.q1, digits)} to {fixed(d.q3, digits)}" if d.n else ""
        body.append(
            [
                endpoint_words(d.endpoint),
                d.visit,
                d.source,
                d.group,
                d.n,
                d.unavailable or "",
                Cell(page.link(endpoint_page(d.endpoint), fixed(d.median, digits)), d.median)
                if d.n
                else "",
                spread,
                f"{fixed(d.low, digits)} to {fixed(d.high, digits)}" if d.n else "",
                (f"{fixed(d.mean, digits + 1)} ({fixed(d.sd, digits + 1)})" if d.n > 1 else ""),
                d.unit,
            ]
        )
    columns = heads(
        "Endpoint | Visit | Source | Arm | >n | >Not available | *Median | >=Quartiles | "
        ">=Range | >=Mean (SD) | Unit"
    )
    return Table(
        "The same endpoints by other cut-offs and engines"
        if variants
        else "Endpoints by visit, source and arm",
        columns,
        body,
        "Whole lesion, first repeat.",
        "endpoints/measurements.tsv",
    )


def acquisition_table(
    results: Results, subject: str | None = None, *, passed: bool | None = None
) -> Table | None:
    """Scans against the imaging charter, failures first; of one subject where one is named.

    With ``passed`` only the checks that were passed, or only the others.
    """
    frame = results.acquisition
    if subject is not None:
        frame = results.rows_of("acquisition", subject)
    # Gates of perfusion series have a table of their own.
    frame = frame[~frame["criterion"].astype(str).str.startswith("gate:")]
    if passed is not None:
        frame = frame[(frame["verdict"] == "pass") == passed]
    if frame.empty:
        return None
    rank = {"fail": 0, "not_assessable": 1, "pass": 2}
    rows = frame.assign(_rank=frame["verdict"].map(rank)).sort_values(
        ["_rank", "participant_id", "visit", "kind", "criterion"], kind="stable"
    )
    body = []
    for row in rows.itertuples():
        name, unit, direction = criterion_words(str(row.criterion))
        body.append(
            [
                person_link(str(row.participant_id), results.pages if subject is None else {}),
                row.visit,
                kind_words(row.kind),
                f"{name}, {unit}" if unit else name,
                observed(row.value),
                f"{direction} {_limit_words(observed(row.limit))}".strip(),
                page.tag(VERDICT_WORDS.get(str(row.verdict), str(row.verdict)), str(row.verdict)),
            ]
        )
    tally = frame["verdict"].value_counts()
    note = ", ".join(f"{tally[name]} {VERDICT_WORDS[name]}" for name in rank if name in tally.index)
    columns = heads("Subject", "Visit", "Scan", "Criterion", ">Observed", ">Charter", "Verdict")
    return Table("Acquisition checks", columns, body, f"{note}.", "endpoints/acquisition.tsv")


def _limit_words(limit: str) -> str:
    """A limit of the charter: "as T1w" names the kind of scan that is the reference."""
    return f"as {kind_words(limit.removeprefix('as '))}" if limit.startswith("as ") else limit


def gates_table(
    results: Results, subject: str | None = None, *, passed: bool | None = None
) -> Table | None:
    """Gates that perfusion series passed or not, failures first; None where there is none.

    With ``passed`` only those that were passed, or only the others.
    """
    rank = {FAIL: 0, WARN: 1, PASS: 2}
    rows = [
        (rank.get(gate.verdict, 3), visit, gate)
        for visit in (results.visits if subject is None else results.visits_of(subject))
        for gate in visit.gates
        if passed is None or (gate.verdict == PASS) == passed
    ]
    if not rows:
        return None
    rows.sort(key=lambda item: (item[0], item[1].participant_id, item[1].visit))
    body = [
        [
            person_link(visit.participant_id, results.pages if subject is None else {}),
            visit.visit,
            ", ".join(t for t in criterion_words(gate.criterion)[:2] if t),
            observed(gate.value, 3),
            gate_limit_words(observed(gate.limit)),
            page.tag(gate.verdict),
        ]
        for _, visit, gate in rows
    ]
    columns = heads("Subject", "Visit", "Gate", ">Observed", ">Limit", "Verdict")
    return Table("Quality gates of perfusion series", columns, body)


def registration_table(results: Results) -> Table | None:
    """Fits to the template, failed ones first, with up to six of their quality numbers."""
    if not results.normalised:
        return None
    names: list[str] = []
    for record in results.normalised.values():
        numbers = [k for k, v in record.quality.items() if is_number(v)]
        names += [name for name in numbers if name not in names]
    names = names[:6]
    rows = sorted(results.normalised.items(), key=lambda item: (item[1].status == "ok", item[0]))
    body = [
        [
            person_link(subject, results.pages),
            record.method or "",
            record.anchor.kind if record.anchor else "",
            *(significant(record.quality.get(name)) for name in names),
            page.tag(record.status),
            record.reason or "",
        ]
        for subject, record in rows
    ]
    columns = heads("Subject | Method | Anchor")
    columns += [Column(name.replace("_", " "), "number") for name in names]
    columns += heads("Status | ?Reason")
    return Table("Registration of each subject, failures first", columns, body)


def deviations_table(results: Results) -> Table | None:
    """What did not go as planned; None where everything did."""
    rows = deviations(results)
    columns = heads("Kind", "What", "~How it differs")
    return Table("What did not go as planned", columns, rows) if rows else None


def unavailable_table(results: Results) -> Table | None:
    """Missing or non-evaluable values, each with its reason; None where all are present."""
    frame = results.measurements
    rows = frame[frame["status"].notna() & (frame["status"] != "ok")]
    if rows.empty:
        return None
    rank = {"failed": 0, "excluded": 1, "missing": 2, NOT_COMPUTABLE: 3}
    rows = rows.assign(_rank=rows["status"].map(rank)).sort_values(
        ["_rank", "participant_id", "visit", "endpoint"], kind="stable"
    )
    body = [
        [
            person_link(str(row.participant_id), results.pages),
            row.visit or "",
            endpoint_words(row.endpoint),
            row.source or "",
            "" if row.region == "all" else row.region,
            page.tag(str(row.status)),
            row.reason or "",
        ]
        for row in rows.itertuples()
    ]
    columns = heads("Subject", "Visit", "Endpoint", "Source", "Region", "Status", "?Reason")
    return Table("Missing or non-evaluable values", columns, body, "", "endpoints/measurements.tsv")


def findings_table(results: Results) -> Table | None:
    """Findings of the preflight, errors first; None where there is none."""
    frame = results.findings.fillna("")
    if frame.empty:
        return None
    rank = {"error": 0, "warning": 1, "note": 2}
    rows = frame.assign(_rank=frame["severity"].map(rank)).sort_values("_rank", kind="stable")
    body = [
        [
            page.tag(str(row.severity)),
            row.sheet,
            row.row,
            row.column,
            row.value,
            row.message,
            row.remedy,
        ]
        for row in rows.itertuples()
    ]
    columns = heads("Severity | Sheet | >Row | Column | Value | ~What is wrong | ?How to fix it")
    return Table("Findings in sheets and headers", columns, body, "", "preflight/findings.tsv")


def files_table(results: Results) -> Table:
    """Links to the tables and maps that lie beside the report, with their size."""
    known = {
        "endpoints/measurements.tsv": "every number, one row each",
        "endpoints/overlap.tsv": "overlap of masks, case by case",
        "endpoints/acquisition.tsv": "scans against the imaging charter",
        "endpoints/flow.tsv": "flow from scans listed to values",
        "preflight/findings.tsv": "findings in sheets and headers",
        "verification/certificate.tsv": "published numbers, recomputed",
        **{f"statistics/{name}.tsv": f"{name} statistics" for name in results.statistics},
        **{f"maps/{m.path.name}": f"frequency of {m.label}" for m in results.maps},
    }
    body = []
    for name, what in known.items():
        path = results.folder / name
        if path.is_file():
            href = Markup('<a href="../{}">{}</a>').format(quote(name), name)
            size = path.stat().st_size
            body.append([href, what, Cell(file_size(size), size)])
    columns = heads("File", "What it holds", ">Size")
    return Table("Tables and maps beside this report", columns, body)


def scans_table(results: Results, subject: str) -> Table:
    """A subject's scans as they were read: grid, voxel size in mm, digest, what to know."""
    body = []
    for visit in results.visits_of(subject):
        for scan in visit.scans:
            size, shape = scan.voxel_size_mm or (), scan.shape or ()
            texts = [scan.reason, scan.remedy, *scan.notes]
            body.append(
                [
                    Markup('<span class="mono" id="{}">{}</span>').format(
                        f"scan-{scan.scan_id}", scan.scan_id
                    ),
                    visit.visit,
                    kind_words(scan.kind),
                    scan.reader or "",
                    page.tag(scan.status),
                    " x ".join(str(n) for n in shape),
                    " x ".join(f"{float(v):.2f}" for v in size),
                    Markup('<span class="mono" title="{}">{}</span>').format(
                        scan.sha256 or "", (scan.sha256 or "")[:12]
                    ),
                    ". ".join(str(text) for text in texts if text),
                ]
            )
    columns = heads(
        "Scan | Visit | Kind | Reader | Status | >=Voxels | >=Voxel size, mm | SHA-256 | ?~Notes"
    )
    return Table("Scans as they were read", columns, body)


def values_table(
    frame: pd.DataFrame,
    caption: str,
    scans: set[str],
    steps: Steps | None,
) -> Table | None:
    """Measurement rows of a subject, each with what stands behind it.

    Parameters
    ----------
    frame, caption
        Rows of ``measurements.tsv``, and what stands above.
    scans
        Scan ids that the page lists: a row links to those.
    steps
        Steps of the traces of the page; None: rows name none.
    """
    if frame.empty:
        return None
    body, decimals = [], endpoint_decimals(frame)
    for row in frame.itertuples():
        ids = [text for text in str(row.scan_ids or "").split(",") if text]
        links = Markup(", ").join(
            Markup('<a href="#scan-{}">{}</a>').format(text, text) if text in scans else text
            for text in ids
        )
        behind = page.lines(
            [
                ("row", str(row.row_id or "")),
                ("full value", f"{row.value:.12g}" if is_number(row.value) else ""),
                ("scans", links),
                ("made from", steps.links(str(row.row_id)) if steps else ""),
            ]
        )
        known = row.status == "ok"
        body.append(
            [
                Markup('<span id="{}">{}</span>').format(
                    row.row_id or "", endpoint_words(row.endpoint)
                ),
                row.visit or "",
                row.source or "",
                row.repeat or "",
                "" if row.region == "all" else row.region,
                Cell(fixed(row.value, decimals[str(row.endpoint)]), row.value)
                if known
                else page.tag(str(row.status)),
                row.unit or "",
                row.reason or "",
                page.more("trace", behind),
            ]
        )
    columns = heads(
        "Endpoint | Visit | Source | >Repeat | Region | *Value | Unit | ?Reason | ?=Trace"
    )
    return Table(caption, columns, body, "", "endpoints/measurements.tsv")


def _metric_text(metric: object, value: Any) -> str:
    decimals = statistic_decimals(str(metric), "", value)
    return significant(value) if decimals is None else fixed(value, decimals)


def overlap_table(frame: pd.DataFrame) -> Table | None:
    """Overlap of a subject's masks, pair by pair; None where nothing was compared."""
    if frame.empty:
        return None
    body = [
        [
            row.label or "",
            row.visit or "",
            f"{row.source_a} vs {row.source_b}",
            statistic(row.metric).words.replace(", mean", ""),
            Cell(_metric_text(str(row.metric), row.value), row.value),
            row.reason or "",
        ]
        for row in frame.itertuples()
    ]
    columns = heads("Label", "Visit", "Masks", "Measure", "*Value", "?Reason")
    return Table("Overlap of masks", columns, body, "", "endpoints/overlap.tsv")
