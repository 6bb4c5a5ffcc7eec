"""From any number to what is behind it: a trace page per analysis and per endpoint.

A statistic leads to the values that went into it, a value to its row on the subject's page, and
that row to the chain of masks, parameters, scans and versions of ``provenance/trace.tsv``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from corelab.measurement.selection import NotComputable, as_list, measured
from corelab.pharmacodynamics.analysis_figures import axis_words
from corelab.provenance.products import MISSING, write_table, write_text
from corelab.reporting import page
from corelab.reporting.analysis_frames import AnalysisFrame, analysis_frame
from corelab.reporting.analysis_results import result_id
from corelab.reporting.exhibits import common_content
from corelab.reporting.methods import analysis_sentence
from corelab.reporting.numbers import fixed, is_number
from corelab.reporting.page import Cell, Column, Table, heads
from corelab.reporting.results import Results, subject_page
from corelab.reporting.vocabulary import endpoint_decimals, value_decimals
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.study import InputSettings
from corelab.study.columns import MEASUREMENT_KEY
from corelab.study.expression import ExpressionError
from corelab.study.naming import bids_label
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words, label_words

MAX_TRACE_ROWS = 5000
#: Folder below ``report/`` with the rows of each analysis.
DATA = "data"
_FRAME_COLUMNS = {
    "participant_id": "Participant",
    "visit": "Visit of the endpoint",
    "endpoint": "Endpoint",
    "used": "yes where the row went into the analysis, else no",
    "reason": "Why it did not",
    "row_id": "Row of endpoints/measurements.tsv that the endpoint's value is",
}


def analysis_page(analysis_id: str) -> str:
    """File of an analysis' trace.

    Examples
    --------
    >>> analysis_page("reader-icc")
    'trace-reader-icc.html'
    """
    return f"trace-{analysis_id}.html"


def endpoint_page(endpoint: str) -> str:
    """File of an endpoint's values.

    Examples
    --------
    >>> endpoint_page("infarct_volume"), endpoint_page("lesion_volume:x")
    ('values-infarct_volume.html', 'values-lesion_volume+3Ax.html')
    """
    parts = re.split(r"(_)", endpoint)
    return "values-" + "".join(p if p == "_" else bids_label(p) for p in parts if p) + ".html"


def statistic_link(row: Any, text: Any) -> Any:
    """A statistic as printed, leading to its trace."""
    fields = row._asdict() if hasattr(row, "_asdict") else dict(row)
    anchor = result_id(fields)
    return page.link(f"{analysis_page(str(fields['analysis_id']))}#{anchor}", text)


def _used_rows(results: Results, analysis: AnalysisSpec) -> pd.DataFrame:
    """Measurement rows that an analysis may use: its endpoints, sources, visits, population."""
    frames = []
    endpoints = [*as_list(analysis.endpoint), *as_list(analysis.endpoint_y)]
    sources = [*as_list(analysis.sources or analysis.source)]
    if sources and analysis.source_y:
        sources += as_list(analysis.source_y)
    for endpoint in dict.fromkeys(map(str, endpoints)):
        try:
            found = measured(analysis.changed(visit=None), results.tables, endpoint=endpoint)
        except (NotComputable, ExpressionError, KeyError):
            continue
        visits = {*as_list(analysis.visit), *as_list(analysis.visit_y)}
        if visits:
            visits.add(analysis.baseline or results.tables.baseline)
            found = found[found["visit"].isin(visits)]
        if sources and "all" not in sources:
            found = found[found["source"].isin(sources)]
        elif not sources and analysis.type != "agreement":
            found = found[found["source"].isin(["pipeline", "supplied"])]
        frames.append(found)
    if not frames:
        return results.measurements[:0]
    chosen = pd.concat(frames, ignore_index=True)
    key = list(MEASUREMENT_KEY)
    wanted = set(chosen[key].astype(str).itertuples(index=False, name=None))
    rows = results.measurements
    mine = [tuple(map(str, k)) in wanted for k in rows[key].itertuples(index=False, name=None)]
    return rows[mine]


def _value_words(results: Results, analysis: AnalysisSpec, name: str) -> str:
    """Head of a column of an analysis's rows: an endpoint, another variable or a source."""
    endpoints = list(map(str, as_list(analysis.endpoint)))
    if analysis.type == "agreement":
        _, _, unit = axis_words(endpoints[0], analysis.derivation).partition(", ")
        return f"{name}, {unit}" if unit and len(endpoints) == 1 else name
    if name in endpoints:
        return axis_words(name, analysis.derivation)
    unit = results.study.dose_unit if name == analysis.dose else ""
    return f"{axis_words(name)}, {unit}" if unit else axis_words(name)


def _frame_table(
    results: Results, analysis: AnalysisSpec, frame: AnalysisFrame, title: str, file: str
) -> Table:
    """The rows of an analysis as a table, the unused ones last and marked."""
    rows = frame.rows.sort_values("used", ascending=False, kind="stable")
    several = "endpoint" in rows
    titles = [_value_words(results, analysis, name) for name in frame.values]
    decimals = {
        name: value_decimals(title.rpartition(", ")[2], rows[name])
        for name, title in zip(frame.values, titles, strict=True)
    }
    body = []
    for row in rows.to_dict("records"):
        person = str(row["participant_id"])
        cells: list[Any] = []
        for place, name in enumerate(frame.values):
            value = row[name]
            is_value = is_number(value)
            text: Any = "" if pd.isna(value) else str(value)
            if is_value:
                text = fixed(value, decimals[name])
            if place == 0 and person in results.pages and row["row_id"] and text:
                text = page.link(f"{subject_page(person)}#{row['row_id']}", text)
            cells.append(Cell(text, value) if is_value else text)
        used = page.tag("used", "ok") if row["used"] == "yes" else page.tag("not used", "unused")
        body.append(
            [
                person,
                row["visit"] or "",
                endpoint_words(row["endpoint"]) if several else "",
                *cells,
                used,
                row["reason"],
            ]
        )
    columns = heads("Subject | Visit | Endpoint")
    columns += [Column(t, "number main" if n == 0 else "number") for n, t in enumerate(titles)]
    columns += heads("Used | ?Reason")
    number = int((rows["used"] == "yes").sum())
    note = f"{number} of {len(rows)} rows used."
    return Table(title, columns, body, note, file, limit=MAX_TRACE_ROWS)


def _used_values(results: Results, entry: AnalysisSpec, target: Path) -> Table | None:
    """What an analysis was computed from, also written as a table of its own."""
    frame = analysis_frame(results, entry)
    if frame is None:
        found = _used_rows(results, entry)
        title = "Values of the analysis's endpoints, sources and visits"
        return listed_values(results, found, title)
    path = target / DATA / f"{entry.id}.tsv"
    described = {
        name: _FRAME_COLUMNS.get(name, f"{label_words(name)}, as the analysis used it")
        for name in frame.rows.columns
    }
    write_table(frame.rows, path, described, sort=False)
    title = "Values used in this analysis"
    if not frame.agrees:
        title = "Participants with every value; the statistics state another n (see their notes)"
    return _frame_table(results, entry, frame, title, f"report/{DATA}/{path.name}")


def listed_values(results: Results, rows: pd.DataFrame, caption: str) -> Table | None:
    """Measurement rows, each leading to its row on the subject's page."""
    if rows.empty:
        return None
    body, decimals = [], endpoint_decimals(rows)
    for row in rows.itertuples():
        known = row.status == "ok"
        text: Any = page.tag(str(row.status))
        if known:
            text = fixed(row.value, decimals[str(row.endpoint)])
        person = str(row.participant_id)
        shown: Any = Cell(text, row.value) if known else text
        if person in results.pages:
            href = f"{subject_page(person)}#{row.row_id}"
            shown = Cell(page.link(href, text), row.value if known else None)
        body.append(
            [
                person,
                row.visit or "",
                endpoint_words(row.endpoint),
                row.source or "",
                row.repeat or "",
                "" if row.region == "all" else row.region,
                shown,
                row.unit or "",
                Markup('<span class="mono">{}</span>').format(row.row_id or ""),
            ]
        )
    columns = heads("Subject | Visit | Endpoint | Source | >Repeat | Region | *Value | Unit | Row")
    return Table(caption, columns, body, "", "endpoints/measurements.tsv", limit=MAX_TRACE_ROWS)


def _statistics(results: Results, analysis_id: str) -> Table | None:
    rows = results.statistics_of(analysis_id)
    if rows.empty:
        return None
    body = []
    for row in rows.to_dict("records"):
        name = Markup('<span id="{}">{}</span>').format(
            result_id(row), statistic(row["statistic"]).words
        )
        numbers = [
            Cell(f"{float(row[k]):.10g}", row[k]) if is_number(row[k]) else ""
            for k in ("estimate", "ci_low", "ci_high", "p_value", "n", "second_estimate")
        ]
        body.append(
            [
                name,
                endpoint_words(row["endpoint"]),
                group_words(row["group"]),
                row["visit"] or "",
                *numbers,
                ". ".join(
                    str(row[k]) for k in ("method", "second_method", "note") if row[k] is not None
                ),
            ]
        )
    columns = heads(
        "Statistic | Endpoint | Group | Visit | >Estimate | >Lower | >Upper | >p | >n",
        ">Second computation | ?~Definition; second program; note",
    )
    file = f"statistics/{rows['table'].iloc[0]}.tsv"
    return Table("Statistics at full precision", columns, body, "", file, limit=MAX_TRACE_ROWS)


def _sheets(analysis: AnalysisSpec, inputs: InputSettings) -> list[tuple[str, str]]:
    given = inputs.plain()
    names = sorted(analysis.sheets)
    return [(name, Path(str(given[name])).name) for name in names if given.get(name)]


def write_traces(results: Results, target: Path) -> list[str]:
    """Write the trace pages into ``report/``; names of the files."""
    for pattern in ("trace-*.html", "values-*.html", f"{DATA}/*"):
        for stale in target.glob(pattern):
            stale.unlink()
    written = []
    common = common_content(results, None)
    policy = page.security_policy([page.asset("report.js")])

    def write(name: str, title: str, back: str, values: Table | None, **more: Any) -> None:
        content = {"sentence": "", "plan": [], "sheets": [], "statistics": None, **more}
        content |= {"page_title": title, "back": page.place(back), "values": values}
        html = page.render("trace.html.j2", common, policy=policy, **content)
        write_text(html, target / name)
        written.append(name)

    known = {a.id for a in results.analyses} | set(results.all_statistics["analysis_id"])
    for analysis_id in sorted(known):
        entry = results.analysis(analysis_id)
        plan = [
            (str(key), ", ".join(map(str, as_list(value))))
            for key, value in entry.as_given().items()
            if value not in (None, [], "")
        ]
        write(
            analysis_page(analysis_id),
            f"Trace of {analysis_id}",
            f"#analysis-{analysis_id}",
            _used_values(results, entry, target),
            sentence=analysis_sentence(entry) if entry.type else "Not in the plan.",
            plan=plan,
            sheets=_sheets(entry, results.settings.inputs),
            statistics=_statistics(results, analysis_id),
        )
    for endpoint, rows in results.measurements.groupby("endpoint", sort=False):
        values = listed_values(results, rows, "Values, and where they are missing")
        title = f"Every value: {endpoint_words(endpoint)}"
        write(endpoint_page(str(endpoint)), title, "#endpoints", values)
    return written


class Step(NamedTuple):
    """A step of a chain of ``provenance/trace.tsv``; texts are empty where it says nothing."""

    what: str
    name: str
    sha256: str
    detail: str


class Chains(Mapping[str, tuple[Step, ...]]):
    r"""row_id -> steps of its chain in ``provenance/trace.tsv``; nothing without that file.

    Only the places of the rows are kept: the table has thousands of steps per imaged subject, and
    a page shows those of one.

    Parameters
    ----------
    path
        The table, or None.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "trace.tsv")
    ...     head, empty = "row_id\twhat\tname\tsha256\tdetail\n", "\tn/a\tn/a\tn/a\n"
    ...     _ = file.write_text(f"{head}r-1\tmask{empty}r-1\tscan{empty}r-2\tmask{empty}")
    ...     found = Chains(file)
    ...     len(found), [step.what for step in found["r-1"]]
    (2, ['mask', 'scan'])
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = Path(path) if path is not None and Path(path).is_file() else None
        self._places: dict[str, list[int]] = {}
        self._columns: list[int] = []
        if self._path is None:
            return
        with self._path.open("rb") as handle:
            head = handle.readline()
            names = head.decode("utf-8-sig").rstrip("\r\n").split("\t")
            self._columns = [names.index(name) for name in Step._fields]
            key, at = names.index("row_id"), len(head)
            for line in handle:
                name = line.split(b"\t", key + 1)[key].decode().rstrip("\r\n")
                places = self._places.setdefault(name, [])
                if places and places[-1] == at:
                    places[-1] += len(line)
                else:
                    places += [at, at + len(line)]
                at += len(line)

    def __getitem__(self, row_id: str) -> tuple[Step, ...]:
        places = self._places[row_id]
        assert self._path is not None
        with self._path.open("rb") as handle:
            text = ""
            for start, end in zip(places[::2], places[1::2], strict=True):
                handle.seek(start)
                text += handle.read(end - start).decode()
        rows = (line.rstrip("\r").split("\t") for line in text.rstrip("\n").split("\n"))
        return tuple(
            Step(*("" if row[n] == MISSING else row[n] for n in self._columns)) for row in rows
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Steps:
    """Steps of the chains on one page: each stands once, and rows name it by its number.

    Parameters
    ----------
    chains
        Row id -> its chain.

    Examples
    --------
    >>> mask = Step("mask", "a.nii.gz", "ab", "")
    >>> steps = Steps({"r-1": [mask], "r-2": [mask]})
    >>> str(steps.links("r-1")) == str(steps.links("r-2")), steps.markup().count("<li")
    (True, 1)
    """

    def __init__(self, chains: Mapping[str, Sequence[Step]]) -> None:
        self._chains = chains
        self._numbers: dict[Step, int] = {}

    def links(self, row_id: str) -> Markup:
        """Links to the steps of a row, without what every chain has (its value, the versions)."""
        links = []
        for step in self._chains.get(row_id, ()):
            if step.what not in {"value", "software"}:
                number = self._numbers.setdefault(step, len(self._numbers) + 1)
                links.append(f'<a href="#step-{number}">{escape(step.what)} {number}</a>')
        return Markup(", ".join(dict.fromkeys(links)))

    def markup(self) -> Markup:
        """The steps as a list; empty where no row has any."""
        lines = []
        for step, number in self._numbers.items():
            digest = f' sha256 <span class="mono">{step.sha256[:16]}</span>' if step.sha256 else ""
            lines.append(
                f'<li id="step-{number}"><b>{escape(step.what)}</b> '
                f'<span class="mono">{escape(step.name)}</span>{digest} {escape(step.detail)}</li>'
            )
        return Markup(f'<ol class="chain">{"".join(lines)}</ol>') if lines else Markup()
