"""Exhibits: how a package adds a figure, a table or an alert to the report without importing it.

An exhibit is one JSON file below ``<results>/<study>/exhibits/``, with its figure beside it. The
report shows every exhibit of that folder in the section that it names, on the page and in the PDF;
alarms go to "Needs attention", and a banner to the head of every page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from corelab.provenance.products import read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
FOLDER = "exhibits"
#: Sections of the report that exhibits may name; ``analysis:<id>`` stands beside that analysis.
SECTIONS = (
    "participants",
    "images",
    "maps",
    "endpoints",
    "reproducibility",
    "pharmacodynamics",
    "survival",
    "phantom",
    "certificate",
    "failures",
    "quality",
    "sensitivity",
    "reading",
    "methods",
)
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Alarm:
    """One thing to look at: ``error``, ``warning`` or ``note``, in plain words, with the subjects
    concerned.
    """

    severity: str
    text: str
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A further figure of an exhibit, where one job draws several.

    ``figure`` is the file name of an SVG or PNG beside the exhibit; ``alt`` says what it shows, for
    who cannot see it.
    """

    figure: str
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Drawn:
    """A figure that a package has drawn, with its words.

    Attributes
    ----------
    figure
        Matplotlib figure; None where the data do not give it, which ``caption`` says.
    alt
        What it shows, for who cannot see it; empty for title and caption.
    name
        Of its file, unique among the figures of one analysis.
    tight
        Whether the file is cropped to what is drawn.
    """

    figure: Figure | None
    title: str
    caption: str
    alt: str = ""
    name: str = "figure"
    tight: bool = False


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """An item of the report that a package contributes; titles and captions in plain words.

    Attributes
    ----------
    section
        One of :data:`SECTIONS`, or ``analysis:<id>``.
    figure, alt
        File name of an SVG or PNG beside the exhibit, and what it shows, for who cannot see it.
    drawings
        Further figures, each with words of its own.
    table, columns
        A TSV, relative to the study's folder, and its columns to show, with their headings; None
        for all, under their own names.
    sort
        Column of numbers to sort the table by, with ``-`` before it for the largest first; empty
        for the order of the file.
    source
        File that the figure was drawn from, relative to the study's folder.
    participant_id
        Subject on whose page it stands; empty for the study's page.
    alarms
        For "Needs attention".
    banner
        A sentence for the head of every page, such as that a lock is broken; empty for none.
    order
        Place among the exhibits of a section; equal ones go by name.
    name
        Name of its file, without suffix, once it is read.
    """

    section: str
    title: str
    caption: str = ""
    figure: str = ""
    alt: str = ""
    drawings: Sequence[Drawing] = ()
    table: str = ""
    columns: Mapping[str, str] | None = None
    sort: str = ""
    source: str = ""
    participant_id: str = ""
    alarms: Sequence[Alarm] = ()
    banner: str = ""
    order: int = 50
    name: str = ""


def _known_section(section: str) -> bool:
    return section in SECTIONS or (section.startswith("analysis:") and len(section) > 9)


def _writer(kind: Callable[P, Exhibit]) -> Callable[Concatenate[str | Path, P], Path]:
    def write(path: str | Path, *args: P.args, **kwargs: P.kwargs) -> Path:
        path, exhibit = Path(path), kind(*args, **kwargs)
        if not _known_section(exhibit.section):
            known = ", ".join(SECTIONS)
            raise ValueError(f"{path}: unknown section '{exhibit.section}'; one of {known}")
        for alarm in exhibit.alarms:
            if alarm.severity not in SEVERITIES:
                raise ValueError(f"{path}: unknown severity '{alarm.severity}'")
        own = [Drawing(exhibit.figure, exhibit.title, exhibit.caption, exhibit.alt)]
        for drawing in (*own * bool(exhibit.figure), *exhibit.drawings):
            if Path(drawing.figure).suffix not in {".svg", ".png"}:
                raise ValueError(f"{path}: the figure '{drawing.figure}' is neither .svg nor .png")
            if not (path.parent / drawing.figure).is_file():
                raise ValueError(f"{path}: the figure '{drawing.figure}' does not lie beside it")
            if not drawing.alt:
                raise ValueError(f"{path}: a figure needs 'alt', what it shows in words")
        content = asdict(exhibit)
        del content["name"]
        # Pairs, because the keys of a JSON object are written in the order of the alphabet.
        content["columns"] = list(exhibit.columns.items()) if exhibit.columns else None
        return write_json(content, path)

    return write


#: Write an exhibit: its path ``<study folder>/exhibits/<name>.json``, then what :class:`Exhibit`
#: has. Its figures have to lie beside it already. ValueError for an unknown section or severity, a
#: missing figure, or one without ``alt``.
write_exhibit = _writer(Exhibit)


def _exhibit(path: Path) -> Exhibit:
    content = read_json(path)
    alarms = tuple(
        Alarm(item["severity"], item["text"], tuple(item.get("subjects") or ()))
        for item in content.pop("alarms", [])
    )
    content["columns"] = dict(content["columns"]) if content.get("columns") else None
    drawings = tuple(Drawing(**item) for item in content.pop("drawings", []))
    return Exhibit(name=path.stem, alarms=alarms, drawings=drawings, **content)


def read_exhibits(folder: str | Path, names: Iterable[str | Path] | None = None) -> list[Exhibit]:
    """Exhibits of a study, by section, order and name.

    Parameters
    ----------
    folder
        The study's results folder.
    names
        The exhibit files that belong to this run; where it is None, all that lie there.
    """
    paths = (
        sorted((Path(folder) / FOLDER).glob("*.json"))
        if names is None
        else [Path(name) for name in names if str(name).endswith(".json")]
    )
    rank = {section: number for number, section in enumerate(SECTIONS)}
    found = [_exhibit(path) for path in paths]
    return sorted(found, key=lambda e: (rank.get(e.section, len(rank)), e.section, e.order, e.name))
