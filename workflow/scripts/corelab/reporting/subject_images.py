"""Pictures and volumes that a subject's pages link to: drawn once, and again when they change.

The sha256 of every product stands in the records of its stage. A subject whose records are those
of the last report keeps what was drawn then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

from corelab import terms
from corelab.records.base import Record, many, one
from corelab.reporting import pictures, viewer
from corelab.reporting.pictures import Panel, Picture
from corelab.reporting.quality_figures import FOLDER as FIGURES
from corelab.reporting.quality_figures import QualityFigure, write_quality_figures
from corelab.reporting.results import Results, subject_page
from corelab.study.naming import subject_entity
from corelab.terms.kinds import kind_words

#: A mosaic is as wide as a page shows it.
SLICES, TILE_PIXELS = 7, 160
#: Records that pictures are made from.
_SHOWN = frozenset({"prepare", "segment", "perfuse", "normalise", "measure", "quality"})
#: Rows of a card.
_CARD_ROWS = 3


@dataclass(frozen=True, slots=True)
class Mosaic(Record):
    """Slices of one scan or map, and whether anything is outlined on it."""

    visit: str
    kind: str
    outlined: bool
    picture: Picture = field(metadata=one(Picture))


@dataclass(frozen=True, slots=True)
class SubjectImages(Record):
    """What the pages of one subject link to, with the digest of the records and of the code that
    it was made from; no volumes: an empty text.
    """

    made_from: str = ""
    volumes: str = ""
    volumes_left: tuple[str, ...] = ()
    figures: tuple[QualityFigure, ...] = many(QualityFigure)
    mosaics: tuple[Mosaic, ...] = many(Mosaic)

    @property
    def files(self) -> list[str]:
        """Files below the report, by their names."""
        layers = [name for m in self.mosaics for name in (m.picture.scan, m.picture.marks)]
        layers += [name for figure in self.figures for name in (figure.href, figure.other)]
        found = [*layers, self.volumes]
        return [unquote(name) for name in found if name]

    def of_visit(self, visit: str) -> list[Picture]:
        """Pictures of a visit, the scan that carries masks first."""
        return [mosaic.picture for mosaic in self.mosaics if mosaic.visit == visit]

    @property
    def card(self) -> list[Mosaic]:
        """The few mosaics that stand for the subject: the first of each visit, then Tmax maps."""
        first = {mosaic.visit: mosaic for mosaic in reversed(self.mosaics)}
        rows = [first[visit] for visit in dict.fromkeys(m.visit for m in self.mosaics)]
        rows = rows[:_CARD_ROWS]
        maps = [m for m in self.mosaics if m.kind == "tmax" and m.outlined and m not in rows]
        chosen = [*rows, *maps[: _CARD_ROWS - len(rows)]]
        return [mosaic for mosaic in self.mosaics if mosaic in chosen]


@cache
def _code() -> str:
    """Digest of the code that draws, and of the names and colours of what is drawn."""
    places = (Path(__file__).parent, Path(terms.__path__[0]))
    found = hashlib.sha256()
    for path in sorted(path for place in places for path in place.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _digest(results: Results, subject: str) -> str:
    place = results.folder / "derivatives" / subject_entity(subject)
    found = hashlib.sha256(_code().encode())
    for path in sorted([*place.glob("*.json"), *place.glob("ses-*/*.json")]):
        if path.stem not in _SHOWN:
            continue
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _mosaics(subject: str, panels: Sequence[Panel], report: Path) -> tuple[Mosaic, ...]:
    """Write a mosaic of every scan, once for all pages."""
    shown = []
    stem = subject_page(subject).removesuffix(".html")
    for number, panel in enumerate(panels):
        outlined = ", ".join(o.name for o in panel.outlines) or "nothing"
        words = kind_words(panel.kind)
        alt = f"Axial slices of {subject}, {panel.visit}, {words}; outlined: {outlined}"
        drawn = pictures.mosaic([panel], slices=SLICES, tile=TILE_PIXELS)
        name = f"{stem}_mosaic{number:02d}"
        picture = drawn.beside(report / FIGURES, name, alt, f"{panel.visit}: {words}")
        shown.append(Mosaic(panel.visit, panel.kind, bool(panel.outlines), picture))
    return tuple(shown)


def subject_images(results: Results, subject: str, report: Path) -> SubjectImages:
    """Draw and write what the pages of a subject link to; what did not change stays as it is."""
    visits = results.visits_of(subject)
    if not visits:
        return SubjectImages()
    name = subject_page(subject).removesuffix(".html")
    # A hidden file is no product.
    known, made_from = report / viewer.FOLDER / f".{name}.json", _digest(results, subject)
    try:
        before = SubjectImages.read(known)
        if before.made_from == made_from and all((report / f).is_file() for f in before.files):
            return before
    except (OSError, ValueError, TypeError):
        pass
    panels = pictures.in_common_windows(
        [panel for visit in visits for panel in pictures.visit_panels(visit, results.folder)]
    )
    scans, left = viewer.viewer_scans(
        [[panel for panel in panels if panel.visit == visit.visit] for visit in visits]
    )
    made = SubjectImages(
        made_from,
        quote(viewer.write_volumes(scans, report, name)) if scans else "",
        tuple(left),
        tuple(write_quality_figures(results, subject, report)),
        _mosaics(subject, panels, report),
    )
    made.write(known)
    return made
