"""The study report: offline pages of the study by topic, and one for each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from corelab.provenance.decisions import Decision
from corelab.provenance.manifest import show_verified
from corelab.provenance.products import write_text
from corelab.reporting import page, pictures, viewer
from corelab.reporting.analysis_view import report_parts
from corelab.reporting.attention import (
    Attention,
    attention,
    flow_steps,
)
from corelab.reporting.certificate_view import write_certificate_page
from corelab.reporting.exhibits import common_content
from corelab.reporting.figures import course
from corelab.reporting.glance import (
    count_tiles,
    downloads,
    glance_facts,
    overview_table,
    primary_table,
    reliability_table,
    sentences,
    status_strip,
)
from corelab.reporting.methods import (
    DICTIONARY,
    definitions,
    methods_as_text,
    methods_text,
    software_versions,
)
from corelab.reporting.quality_figures import FOLDER as FIGURES
from corelab.reporting.quality_strips import quality_strips
from corelab.reporting.references import as_bibtex, references_of
from corelab.reporting.results import Results, blinded_page, subject_page
from corelab.reporting.review import desk_decisions, write_desk
from corelab.reporting.sensitivity import NOTHING, exclusions_table, statistics_table
from corelab.reporting.study_tables import (
    acquisition_table,
    deviations_table,
    endpoints_table,
    files_table,
    findings_table,
    gates_table,
    participants_table,
    registration_table,
    unavailable_table,
)
from corelab.reporting.subject import Card, cards, others_table, write_subjects
from corelab.reporting.subject_images import SubjectImages
from corelab.reporting.traces import Chains, write_traces
from corelab.reporting.vocabulary import (
    limits_for,
)
from corelab.terms.labels import label

#: Courses on the page of endpoints.
MAX_COURSES = 8
#: Pictures on the first page, so that it stays one small file.
FIRST_CARDS = 4


#: Sections of a page, and what its template shows.
Page = tuple[list[tuple[str, str]], dict[str, Any]]


def _limits(results: Results) -> list[Any]:
    return limits_for(sorted(set(results.measurements["endpoint"].dropna())))


@dataclass(frozen=True)
class MapFigure:
    """A frequency map of the study: subjects that it is of, and the picture."""

    title: str
    n: int
    picture: pictures.Picture


def _map_figures(results: Results) -> list[MapFigure]:
    """Frequency maps of the study as pictures on one common scale."""
    scale, drawn = results.once(pictures.frequency_pictures)
    return [
        MapFigure(
            f"Frequency of {label(frequency.label).words}",
            pictures.subjects_of_map(frequency),
            pictures.frequency_picture(frequency, scale, rgb),
        )
        for frequency, rgb in zip(results.maps, drawn, strict=True)
    ]


def write_report(
    results: Results, *, decisions: str | Path | None = None, trace: str | Path | None = None
) -> Path:
    """Write the study's page and the subjects' pages.

    Parameters
    ----------
    results
        Of :func:`corelab.reporting.results.read_results`.
    decisions
        Table of the review desk, if there is one.
    trace
        ``provenance/trace.tsv``; without it, rows lead to their scans only.

    Returns
    -------
    Path
        ``report/index.html``. No page asks for anything but the files below ``report/``: the
        viewer's program and volumes, and the quality figures. Equal results give equal bytes.
    """
    target = results.folder / "report"
    if results.visits:
        viewer.write_program(target)
    drawn = write_subjects(results, target, Chains(trace))
    _remove_stale(results, target, drawn)
    decided = desk_decisions(decisions)
    _write_pages(results, target, _study_content(results, cards(results, drawn), decided))
    write_text(methods_as_text(results), target / "methods.txt")
    write_text(as_bibtex(references_of(results)), target / "references.bib")
    show_verified(results.folder)
    write_traces(results, target)
    write_certificate_page(results, target)
    write_desk(results, drawn, decided)
    return target / "index.html"


def _remove_stale(results: Results, target: Path, drawn: Mapping[str, SubjectImages]) -> None:
    """Remove pages and pictures of an earlier run that this one did not write."""
    kept = {file for images in drawn.values() for file in images.files}
    kept |= {f"{viewer.FOLDER}/{viewer.PROGRAM}"} if results.visits else set()
    kept |= {subject_page(name) for name in results.pages} | {blinded_page(name) for name in drawn}
    for pattern in ("sub-*.html", "blinded-*.html", f"{viewer.FOLDER}/*.js", f"{FIGURES}/*.webp"):
        for path in target.glob(pattern):
            if path.relative_to(target).as_posix() not in kept:
                path.unlink()


def _study_content(
    results: Results, cards: Sequence[Card], decisions: Sequence[Decision]
) -> dict[str, Page]:
    """Page of the study -> its sections and what its template shows."""
    items = results.once(attention)
    to_do = [item for item in items if item.severity != "note"]
    return {
        "index.html": _first_page(results, to_do, len(items) - len(to_do), cards, decisions),
        "analyses.html": _analyses_page(results),
        "endpoints.html": _endpoints_page(results),
        "images.html": (
            [("images", "Subjects and their images"), ("maps", "Lesion frequency maps")],
            {
                "cards": cards,
                "other_subjects": others_table(results),
                "maps": _map_figures(results),
            },
        ),
        "quality.html": _quality_page(results, items),
        "methods.html": _methods_page(results),
    }


def _first_page(
    results: Results,
    to_do: Sequence[Attention],
    notes: int,
    cards: Sequence[Card],
    decisions: Sequence[Decision],
) -> Page:
    title, primary = primary_table(results)
    report = results.folder / "report"
    first = [
        replace(card, pictures=tuple(one.inlined(report) for one in card.pictures))
        for card in cards[:FIRST_CARDS]
    ]
    contents = [
        ("glance", "At a glance"),
        ("all-analyses", "All analyses"),
        ("participants", "Participants"),
        ("images", "Images"),
    ]
    return contents, {
        "title": results.title,
        "blinded": results.study.blinded,
        "facts": glance_facts(results),
        "sentences": sentences(results),
        "status": status_strip(results, decisions),
        "primary_title": title,
        "primary": primary,
        "reliability": reliability_table(results),
        "attention": to_do,
        "notes": notes,
        "downloads": downloads(results),
        "flow": flow_steps(results),
        "counts": count_tiles(results),
        "overview": overview_table(results),
        "participants_table": participants_table(results),
        "cards": first,
    }


def _analyses_page(results: Results) -> Page:
    parts = report_parts(results)
    contents = [*((part.id, part.title) for part in parts), ("sensitivity", "Sensitivity")]
    return contents, {
        "parts": parts,
        "exclusions": exclusions_table(results),
        "sensitivity": statistics_table(results),
        "nothing_excluded": NOTHING,
    }


def _endpoints_page(results: Results) -> Page:
    endpoints = list(dict.fromkeys(results.measurements["endpoint"].dropna()))
    drawn = (one for name in endpoints if (one := course(results, name)) is not None)
    return [("endpoints", "Endpoints")], {
        "courses": list(islice(drawn, MAX_COURSES)),
        "endpoints_table": endpoints_table(results, variants=False),
        "variants_table": endpoints_table(results, variants=True),
    }


def _quality_page(results: Results, items: Sequence[Attention]) -> Page:
    contents = [
        ("quality", "Findings"),
        ("acquisition", "Charter compliance"),
        ("gates", "Perfusion series"),
        ("strips", "Metrics by site"),
        ("unavailable", "Missing values"),
        ("findings", "Sheets"),
        ("failures", "Failures"),
    ]
    # The exhibit of the fits has the same numbers, with their ranks and pictures.
    ranked = any(exhibit.name == "registration" for exhibit in results.exhibits)
    return contents, {
        "attention": items,
        "acquisition": acquisition_table(results, passed=False),
        "acquisition_passed": acquisition_table(results, passed=True),
        "gates": gates_table(results, passed=False),
        "gates_passed": gates_table(results, passed=True),
        "registration": None if ranked else registration_table(results),
        "strips": quality_strips(results),
        "unavailable": unavailable_table(results),
        "findings": findings_table(results),
    }


def _methods_page(results: Results) -> Page:
    contents = [
        ("methods", "Methods"),
        ("limits", "Known limits"),
        ("deviations", "Deviations"),
        ("reference", "Data dictionary, software"),
    ]
    return contents, {
        "methods": methods_text(results),
        "references": references_of(results),
        "definitions": definitions(results),
        "limits": _limits(results),
        "deviations": deviations_table(results),
        "files": files_table(results),
        "dictionary": DICTIONARY,
        "software": software_versions(),
    }


def _write_pages(results: Results, target: Path, content: Mapping[str, Page]) -> None:
    common = common_content(results)
    for name, (contents, shown) in content.items():
        title = results.title
        if name != "index.html":
            title = f"{title}: {page.STUDY_PAGES[name].lower()}"
        html = page.render(
            f"{name}.j2",
            common,
            policy=page.security_policy(
                [page.asset("report.js")], files=name in ("index.html", "images.html")
            ),
            page_title=f"{title}: imaging report" if name == "index.html" else title,
            study_pages=list(page.STUDY_PAGES.items()),
            here=name,
            contents=contents,
            pages=results.pages,
            **shown,
        )
        write_text(html, target / name)
