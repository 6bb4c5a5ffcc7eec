"""Quality figures of the stages on the subjects' pages: small copies that lie beside the pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from corelab.provenance.products import atomic_path
from corelab.reporting.results import Results, Visit
from corelab.study.naming import session_entity, subject_entity

#: Folder below ``report/``.
FOLDER = "figures"
#: Figures in the order in which they are looked at: name in the file -> words.
WORDS = {
    "lesions": "Core and penumbra with their volumes",
    "arterial": "Arterial input and venous output, place and curves",
    "maps": "Perfusion maps",
    "displacement": "Head motion during the series",
    "registration": "Registration to the template: edges and checkerboard",
    "masks": "Masks with their volumes",
}
#: Figures that print volumes: not for a reviewer who is to judge without knowing them.
WITH_VALUES = ("lesions", "masks")
MAX_WIDTH_PIXELS = 1200
_WEBP_QUALITY = 72


@dataclass(frozen=True)
class QualityFigure:
    """A figure on a page.

    Attributes
    ----------
    href
        Address from the page.
    width, height
        Pixels.
    visit, name
        What it shows; a name of :data:`WORDS`.
    """

    href: str
    width: int
    height: int
    visit: str
    name: str

    @property
    def title(self) -> str:
        """What it shows, in words."""
        return f"{self.visit}: {WORDS[self.name]}"


def figure_paths(visit: Visit, folder: Path) -> dict[str, Path]:
    """Name of the figure -> its PNG, of the figures that the stages drew of a visit."""
    place = folder / "derivatives" / subject_entity(visit.participant_id)
    place = place / session_entity(visit.visit)
    found = {}
    for path in sorted([*place.glob("perf/*_figure.png"), *place.glob("figures/*_qc.png")]):
        name = path.stem.rpartition("desc-")[2].partition("_")[0]
        if name in WORDS:
            found[name] = path
    return {name: found[name] for name in WORDS if name in found}


def figures_of_visit(visit: Visit, folder: Path) -> list[QualityFigure]:
    """Quality figures of a visit as the pages show them (:func:`write_quality_figures`)."""
    found = []
    for name, path in figure_paths(visit, folder).items():
        with Image.open(path) as opened:
            width, height = opened.size
        shrink = min(1.0, MAX_WIDTH_PIXELS / width)
        href = f"{FOLDER}/{quote(f'{path.stem}.webp')}"
        size = (round(width * shrink), round(height * shrink))
        found.append(QualityFigure(href, *size, visit.visit, name))
    return found


def write_quality_figures(results: Results, subject: str, report: Path) -> list[QualityFigure]:
    """Write small copies of a subject's quality figures; equal inputs give equal bytes."""
    shown = []
    for visit in results.visits_of(subject):
        figures = figures_of_visit(visit, results.folder)
        paths = figure_paths(visit, results.folder)
        for figure, path in zip(figures, paths.values(), strict=True):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            if image.size != (figure.width, figure.height):
                image = image.resize((figure.width, figure.height), Image.Resampling.LANCZOS)
            target = report / FOLDER / f"{path.stem}.webp"
            with atomic_path(target) as temporary:
                image.save(temporary, "WEBP", quality=_WEBP_QUALITY, method=4)
            shown.append(figure)
    return shown
