"""The pages of the subjects, and their cards on the study's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from corelab.provenance.products import write_text
from corelab.reporting import page, viewer
from corelab.reporting.attention import (
    SEVERITIES,
    Finding,
    by_participant,
    findings_of,
    flagged_subjects,
)
from corelab.reporting.exhibits import common_content
from corelab.reporting.numbers import (
    is_number,
    significant,
)
from corelab.reporting.page import Table, heads, person_link
from corelab.reporting.pictures import Picture
from corelab.reporting.quality_figures import WITH_VALUES
from corelab.reporting.results import Results, blinded_page, gives_arm_away, subject_page
from corelab.reporting.study_tables import (
    acquisition_table,
    gates_table,
    overlap_table,
    scans_table,
    values_table,
)
from corelab.reporting.subject_images import SubjectImages, subject_images
from corelab.reporting.traces import Step, Steps
from corelab.terms.words import in_sentence, label_words


@dataclass(frozen=True)
class Card:
    """A subject in the gallery."""

    name: str
    page: str
    facts: str
    flag: str
    pictures: tuple[Picture, ...]

    @property
    def caption(self) -> str:
        """What the pictures show."""
        return ", ".join(one.caption for one in self.pictures) or "no image could be shown"


def _subject_facts(results: Results, subject: str) -> list[tuple[str, str]]:
    """What the participants sheet says of a subject: pairs of column and value, blanks left out."""
    people = results.participants
    rows = people[people["participant_id"] == subject]
    if rows.empty:
        return []
    row = rows.iloc[0]
    facts = []
    for name in results.shown_columns:
        value = row[name]
        if name != "participant_id" and value is not None and not pd.isna(value):
            text = significant(value) if isinstance(value, float) else str(value)
            text += f" {results.study.dose_unit}".rstrip() if name == "dose" else ""
            facts.append((name, text))
    return facts


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


def _subject_html(
    results: Results,
    subject: str,
    images: SubjectImages,
    findings: Sequence[Finding],
    neighbours: tuple[str, str],
    *,
    chains: Mapping[str, Sequence[Step]] | None = None,
    blinded: bool = False,
) -> str:
    """One subject's page."""
    visits = results.visits_of(subject)
    findings = [f for f in findings if not (blinded and f.topic == "values")]
    figures = [f for f in images.figures if not (blinded and f.name in WITH_VALUES)]
    facts = _subject_facts(results, subject)
    contents = [("subject", "Subject")]
    if figures:
        contents.append(("figures", "Quality figures"))
    if visits:
        contents += [("images", "Images"), ("scans", "Scans")]
    values: dict[str, Any] = {}
    if blinded:
        facts = [fact for fact in facts if fact[0] in _BLINDED_FACTS]
        facts = [f for f in facts if not gives_arm_away(results.participants, f[0])]
    else:
        contents.append(("values", "Values"))
        values = _values(results, subject, chains or {})
    scripts = [page.asset("report.js")]
    if images.volumes:
        scripts.append(page.asset("viewer.js"))
    return page.render(
        "subject.html.j2",
        common_content(results, None if blinded else subject),
        policy=page.security_policy(scripts, files=bool(images.files)),
        page_title=f"{subject}, {results.study.id}",
        name=subject,
        blinded=blinded,
        contents=contents,
        previous=neighbours[0],
        next=neighbours[1],
        facts=[(in_sentence(label_words(key)), text) for key, text in facts],
        findings=sorted(findings, key=lambda f: SEVERITIES.index(f.severity)),
        figures=figures,
        has_images=bool(visits),
        images=images,
        program=f"{viewer.FOLDER}/{viewer.PROGRAM}",
        viewer_script=Markup(page.asset("viewer.js")),
        scans=scans_table(results, subject),
        acquisition=acquisition_table(results, subject),
        gates=gates_table(results, subject),
        registration=_registration(results, subject),
        **values,
    )


def _values(results: Results, subject: str, chains: Mapping[str, Sequence[Step]]) -> dict[str, Any]:
    """Values of a subject's page, and the steps of their traces, each once."""
    rows = results.rows_of("measurements", subject)
    whole = rows["region"].fillna("all") == "all"
    scan_ids = {scan.scan_id for visit in results.visits_of(subject) for scan in visit.scans}
    steps = Steps(chains)
    return {
        "values": values_table(rows[whole], "Values of the whole lesion", scan_ids, steps),
        "regions": values_table(rows[~whole], "Values by atlas region", scan_ids, None),
        "overlap": overlap_table(results.rows_of("overlap", subject)),
        "steps": steps.markup(),
    }


def _neighbours(names: Sequence[str], name: str, address: Callable[[str], str]) -> tuple[str, str]:
    place = names.index(name)
    before = names[place - 1] if place else ""
    after = names[place + 1] if place + 1 < len(names) else ""
    return (quote(address(before)) if before else "", quote(address(after)) if after else "")


def write_subjects(
    results: Results, folder: Path, chains: Mapping[str, Sequence[Step]]
) -> dict[str, SubjectImages]:
    """Write the subjects' pages; subject with images -> what its pages link to."""
    names = list(results.pages)
    imaged = [name for name in names if results.visits_of(name)]
    drawn = {}
    for name in names:
        around = _neighbours(names, name, subject_page)
        blinded = _neighbours(imaged, name, blinded_page) if results.visits_of(name) else ("", "")
        images = write_subject(results, name, folder, around, blinded, chains)
        if results.visits_of(name):
            drawn[name] = images
    return drawn


def write_subject(
    results: Results,
    name: str,
    folder: Path,
    around: tuple[str, str] = ("", ""),
    around_blinded: tuple[str, str] = ("", ""),
    chains: Mapping[str, Sequence[Step]] | None = None,
) -> SubjectImages:
    """Write one subject's page and, with images, its page for review; what they link to.

    ``around`` are the addresses of the pages before and after; ``chains`` the traces of values.
    """
    found = results.once(_concerns).get(name, [])
    images = subject_images(results, name, folder)
    html = _subject_html(results, name, images, found, around, chains=chains)
    write_text(html, folder / subject_page(name))
    if results.visits_of(name):
        html = _subject_html(results, name, images, found, around_blinded, blinded=True)
        write_text(html, folder / blinded_page(name))
    return images


def _concerns(results: Results) -> dict[str, list[Finding]]:
    return by_participant(results.once(findings_of))


def cards(results: Results, drawn: Mapping[str, SubjectImages]) -> list[Card]:
    """Cards of the subjects with images, flagged ones first."""
    flags, rank = results.once(flagged_subjects), {"error": 0, "warning": 1}
    found = []
    for name in sorted(drawn, key=lambda name: rank.get(flags.get(name, ""), 2)):
        facts = ", ".join(
            text for key, text in _subject_facts(results, name) if key in {"arm", "site"}
        )
        shown = tuple(mosaic.picture for mosaic in drawn[name].card)
        found.append(Card(name, results.pages[name], facts, flags.get(name, ""), shown))
    return found


def others_table(results: Results) -> Table | None:
    """Subjects without images of their own."""
    pages, flags = results.pages, results.once(flagged_subjects)
    images = set(results.image_subjects)
    names = [name for name in results.subjects if name not in images]
    if not names:
        return None
    rows = results.measurements
    ok = rows[rows["status"] == "ok"]["participant_id"].value_counts()
    gone = rows[rows["status"].notna() & (rows["status"] != "ok")]["participant_id"].value_counts()
    facts = {name: dict(_subject_facts(results, name)) for name in names}
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
    columns = heads("Subject", *map(str.capitalize, shown), ">Values | >Not available | Flag")
    return Table("Subjects with values from tables only", columns, body)
