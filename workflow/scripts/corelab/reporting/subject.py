"""The pages of the subjects, and their cards on the study's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from corelab.provenance.products import atomic_path, write_text
from corelab.reporting import page, pictures, viewer
from corelab.reporting.attention import SEVERITIES, Finding, by_participant, findings_of
from corelab.reporting.exhibits import common_content
from corelab.reporting.numbers import (
    is_number,
    significant,
)
from corelab.reporting.page import Column, Table, person_link
from corelab.reporting.quality_figures import FOLDER as FIGURES
from corelab.reporting.quality_figures import (
    WITH_VALUES,
    QualityFigure,
    write_quality_figures,
)
from corelab.reporting.results import Results, blinded_page, gives_arm_away, subject_page
from corelab.reporting.study_tables import (
    acquisition_table,
    gates_table,
    overlap_table,
    scans_table,
    values_table,
)
from corelab.study.schema import shown_columns
from corelab.terms.kinds import kind_words

#: Bytes of pictures on the study's page; further subjects have theirs on their own pages.
PICTURE_BUDGET_BYTES = 3_400_000


@dataclass(frozen=True)
class Card:
    """A subject in the gallery."""

    name: str
    page: str
    facts: str
    flag: str
    caption: str
    picture: pictures.Picture | None


def subject_facts(results: Results, subject: str) -> list[tuple[str, str]]:
    """What the participants sheet says of a subject: pairs of column and value, blanks left out."""
    people = results.participants
    rows = people[people["participant_id"] == subject]
    if rows.empty:
        return []
    row = rows.iloc[0]
    facts = []
    for name in shown_columns(results.settings, list(people.columns)):
        value = row[name]
        if name != "participant_id" and value is not None and not pd.isna(value):
            text = significant(value) if isinstance(value, float) else str(value)
            facts.append((name.replace("_", " "), text))
    return facts


@dataclass(frozen=True)
class Mosaic:
    """A picture that lies beside the pages: the addresses of its layers, and its words."""

    uris: tuple[str, str]
    picture: pictures.Picture


@dataclass(frozen=True)
class Content:
    """What the pages of one subject are made from.

    Attributes
    ----------
    subject
        Whose pages.
    panels
        Scans of each visit.
    volumes
        Address of the viewer's volumes; empty where there are none.
    volumes_left
        Scans that are not in the viewer.
    figures, mosaics
        Quality figures, and slices of every scan.
    findings
        What was found.
    chains
        Row id -> steps of its trace.
    """

    subject: str
    panels: Sequence[Sequence[pictures.Panel]]
    volumes: str
    volumes_left: Sequence[str]
    figures: Sequence[QualityFigure]
    mosaics: Sequence[Mosaic]
    findings: Sequence[Finding]
    chains: Mapping[str, Sequence[Mapping[str, Any]]]


def _mosaics(
    subject: str, panels: Sequence[Sequence[pictures.Panel]], report: Path
) -> list[Mosaic]:
    """Write a mosaic of every scan, once for all pages of the subject."""
    shown: list[Mosaic] = []
    stem = subject_page(subject).removesuffix(".html")
    for panel in (panel for group in panels for panel in group):
        outlined = ", ".join(o.name for o in panel.outlines) or "nothing"
        words = kind_words(panel.kind)
        alt = f"Axial slices of {subject}, {panel.visit}, {words}; outlined: {outlined}"
        drawn = pictures.mosaic([panel], slices=7, tile=176, alt=alt)
        picture = replace(drawn, alt=alt, caption=f"{panel.visit}: {words}")
        names = [f"{stem}_mosaic{len(shown):02d}{part}.webp" for part in ("", "_marks")]
        for name, layer in zip(names, (drawn.data, drawn.marks), strict=True):
            with atomic_path(report / FIGURES / name) as temporary:
                temporary.write_bytes(layer)
        scan, marks = (f"{FIGURES}/{quote(name)}" for name in names)
        shown.append(Mosaic((scan, marks), picture))
    return shown


def _registration(results: Results, subject: str) -> list[tuple[str, str]]:
    record = results.normalised.get(subject)
    if record is None:
        return []
    named = {
        "method": record.method,
        "status": record.status,
        "reason": record.reason,
        "preset": record.preset,
    }
    found = [(key, value) for key, value in named.items() if value]
    return found + [
        (key.replace("_", " "), significant(value))
        for key, value in record.quality.items()
        if is_number(value)
    ]


#: What the participants sheet says of a person that cannot tell the arm or the outcome.
_BLINDED_FACTS = ("age", "sex", "site")


def subject_html(
    results: Results,
    content: Content,
    neighbours: tuple[str, str],
    pages: Mapping[str, str],
    *,
    blinded: bool = False,
) -> str:
    """One subject's page; ``blinded``: as the review desk links to it, without arm and values."""
    subject = content.subject
    visits = results.visits_of(subject)
    rows = results.measurements[results.measurements["participant_id"] == subject]
    whole = rows[rows["region"].fillna("all") == "all"]
    regions = rows[rows["region"].fillna("all") != "all"]
    scan_ids = {scan.scan_id for visit in visits for scan in visit.scans}
    findings = [f for f in content.findings if not (blinded and f.topic == "values")]
    figures = [f for f in content.figures if not (blinded and f.name in WITH_VALUES)]
    facts = subject_facts(results, subject)
    contents = [("subject", "Subject")]
    if figures:
        contents.append(("figures", "Quality figures"))
    if visits:
        contents += [("images", "Images"), ("scans", "Scans")]
    if blinded:
        facts = [fact for fact in facts if fact[0] in _BLINDED_FACTS]
        facts = [f for f in facts if not gives_arm_away(results.participants, f[0])]
    else:
        contents.append(("values", "Values"))
    scripts = [page.asset("report.js")]
    if content.volumes:
        scripts.append(page.asset("viewer.js"))
    return page.render(
        "subject.html.j2",
        **common_content(results, None if blinded else subject),
        policy=page.security_policy(
            scripts, files=bool(content.volumes or figures or content.mosaics)
        ),
        page_title=f"{subject}, {results.study.id}",
        name=subject,
        blinded=blinded,
        contents=contents,
        previous=neighbours[0],
        next=neighbours[1],
        pages=pages,
        facts=facts,
        findings=sorted(findings, key=lambda f: SEVERITIES.index(f.severity)),
        figures=figures,
        has_images=bool(visits),
        volumes=content.volumes,
        program=f"{viewer.FOLDER}/{viewer.PROGRAM}",
        volumes_left=content.volumes_left,
        viewer_script=Markup(page.asset("viewer.js")),
        mosaics=content.mosaics,
        scans=scans_table(results, subject),
        acquisition=acquisition_table(results, {}, subject),
        gates=gates_table(results, {}, subject),
        registration=_registration(results, subject),
        values=values_table(whole, "Values of the whole lesion", scan_ids, content.chains),
        regions=values_table(regions, "Values by atlas region", scan_ids, {}),
        overlap=overlap_table(results.overlap[results.overlap["participant_id"] == subject]),
    )


def _content(
    results: Results,
    subject: str,
    report: Path,
    findings: Sequence[Finding],
    chains: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Content:
    """Draw and write what the pages of a subject link to."""
    panels = [pictures.visit_panels(v, results.folder) for v in results.visits_of(subject)]
    scans, left = viewer.viewer_scans(panels)
    name = subject_page(subject).removesuffix(".html")
    volumes = quote(viewer.write_volumes(scans, report, name)) if scans else ""
    figures = write_quality_figures(results, subject, report)
    mosaics = _mosaics(subject, panels, report)
    return Content(subject, panels, volumes, left, figures, mosaics, findings, chains)


def _neighbours(names: Sequence[str], name: str, address: Callable[[str], str]) -> tuple[str, str]:
    place = names.index(name)
    before = names[place - 1] if place else ""
    after = names[place + 1] if place + 1 < len(names) else ""
    return (quote(address(before)) if before else "", quote(address(after)) if after else "")


def write_subjects(
    results: Results,
    folder: Path,
    pages: Mapping[str, str],
    flags: Mapping[str, str],
    chains: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[list[Card], int]:
    """Write the subjects' pages; give the cards of those with images, flagged ones first."""
    concerns = by_participant(findings_of(results))
    rank = {"error": 0, "warning": 1}
    names = list(pages)
    image_names = set(results.image_subjects)
    imaged = [name for name in names if name in image_names]
    order = sorted(names, key=lambda name: rank.get(flags.get(name, ""), 2))
    cards, spent, left = [], 0, 0
    for name in order:
        content = _content(results, name, folder, concerns.get(name, []), chains)
        html = subject_html(results, content, _neighbours(names, name, subject_page), pages)
        write_text(html, folder / subject_page(name))
        if name in image_names:
            around = _neighbours(imaged, name, blinded_page)
            html = subject_html(results, content, around, {}, blinded=True)
            write_text(html, folder / blinded_page(name))
        if name not in image_names:
            continue
        picture = pictures.subject_picture(name, content.panels)
        caption = picture.caption if picture else "no image could be shown"
        if picture and spent + sum(map(len, picture.uris)) > PICTURE_BUDGET_BYTES:
            picture, left = None, left + 1
        spent += sum(map(len, picture.uris)) if picture else 0
        facts = ", ".join(
            text for key, text in subject_facts(results, name) if key in {"arm", "site"}
        )
        cards.append(Card(name, pages[name], facts, flags.get(name, ""), caption, picture))
    return cards, left


def others_table(
    results: Results, pages: Mapping[str, str], flags: Mapping[str, str]
) -> Table | None:
    """Subjects without images of their own."""
    images = set(results.image_subjects)
    names = [name for name in results.subjects if name not in images]
    if not names:
        return None
    rows = results.measurements
    ok = rows[rows["status"] == "ok"]["participant_id"].value_counts()
    gone = rows[rows["status"].notna() & (rows["status"] != "ok")]["participant_id"].value_counts()
    facts = {name: dict(subject_facts(results, name)) for name in names}
    shown = [key for key in ("arm", "site") if any(key in f for f in facts.values())]
    body = [
        [
            person_link(name, pages),
            *(facts[name].get(key, "") for key in shown),
            int(ok.get(name, 0)),
            int(gone.get(name, 0)) or "",
            page.tag(flags[name]) if name in flags else "",
        ]
        for name in names
    ]
    columns = [
        Column("Subject"),
        *(Column(key.capitalize()) for key in shown),
        Column("Values", "number"),
        Column("Not available", "number"),
        Column("Flag"),
    ]
    return Table("Subjects with values from tables only", columns, body)
