"""Quality figures of the stages on the subjects' pages: small copies that lie beside the pages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from corelab.provenance.products import atomic_path
from corelab.records.base import Record
from corelab.registration.figures import template_layer
from corelab.reporting.results import Results, Visit
from corelab.study.naming import session_entity, subject_entity

#: Folder below ``report/``.
FOLDER = "figures"
#: The fitted scan alone: shown in turn with the template.
LAYER = "layer"
#: Figures in the order in which they are looked at: name in the file -> words.
WORDS = {
    "lesions": "Core and penumbra with their volumes",
    "arterial": "Arterial input and venous output, place and curves",
    "maps": "Perfusion maps",
    "displacement": "Head motion during the series",
    LAYER: "Registration to the template: fitted scan and template in turn",
    "registration": "Registration to the template: edges and checkerboard",
    "masks": "Masks with their volumes",
}
#: Figures that print volumes: not for a reviewer who is to judge without knowing them.
WITH_VALUES = ("lesions", "masks")
MAX_WIDTH_PIXELS = 1200
#: Quality of the small copies; the figures of masks are many times larger than the others.
_WEBP_QUALITY = 50
_MASKS_QUALITY = 35


@dataclass(frozen=True, slots=True)
class QualityFigure(Record):
    """A figure on a page, a name of :data:`WORDS`; ``other`` is the address of a picture of the
    same size that is shown in turn with it, empty for none. Width and height in pixels.
    """

    href: str
    width: int
    height: int
    visit: str
    name: str
    other: str = ""

    @property
    def title(self) -> str:
        """What it shows, in words."""
        return f"{self.visit}: {WORDS[self.name]}"


def _figure_paths(visit: Visit, folder: Path) -> dict[str, Path]:
    """Name of the figure -> its PNG, of the figures that the stages drew of a visit."""
    place = folder / "derivatives" / subject_entity(visit.participant_id)
    place = place / session_entity(visit.visit)
    found = {}
    for path in sorted([*place.glob("perf/*_figure.png"), *place.glob("figures/*_qc.png")]):
        name = path.stem.rpartition("desc-")[2].partition("_")[0]
        if name in WORDS:
            found[name] = path
    return {name: found[name] for name in WORDS if name in found}


@cache
def _template() -> Image.Image:
    return Image.fromarray(template_layer())


def _write(image: Image.Image, target: Path, quality: int = _WEBP_QUALITY) -> str:
    """Write a picture beside the pages; its address."""
    with atomic_path(target) as temporary:
        image.save(temporary, "WEBP", quality=quality, method=2)
    return f"{FOLDER}/{quote(target.name)}"


def write_quality_figures(results: Results, subject: str, report: Path) -> list[QualityFigure]:
    """Write small copies of a subject's quality figures; equal inputs give equal bytes."""
    shown = []
    for visit in results.visits_of(subject):
        for name, path in _figure_paths(visit, results.folder).items():
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            width = min(image.width, MAX_WIDTH_PIXELS)
            if width < image.width:
                size = (width, round(image.height * width / image.width))
                image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
            quality = _MASKS_QUALITY if name == "masks" else _WEBP_QUALITY
            href = _write(image, report / FOLDER / f"{path.stem}.webp", quality)
            other = _write(_template(), report / FOLDER / "template.webp") if name == LAYER else ""
            shown.append(QualityFigure(href, *image.size, visit.visit, name, other))
    return shown
