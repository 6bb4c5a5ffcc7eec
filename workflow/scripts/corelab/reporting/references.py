"""Publications of the methods that a study used, to be cited with its results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from corelab.measurement.selection import as_list
from corelab.reporting.page import asset_rows
from corelab.reporting.results import Results


@dataclass(frozen=True)
class Reference:
    """A publication: its text with journal, year, volume and pages, what it is cited for, and the
    parts of a study that it belongs to (:func:`_tags_of`).
    """

    text: str
    doi: str
    use: str
    tags: tuple[str, ...]


REFERENCES = tuple(
    Reference(row["text"], row["doi"], row["use"], tuple(row["tags"].split()))
    for row in asset_rows("references")
)


def _tags_of(results: Results) -> set[str]:
    """Parts of a study: types and methods of its analyses, registration, perfusion engines."""
    found = {"study"}
    if results.normalised:
        found.add("registration")
    if any(visit.perfuse for visit in results.visits):
        block = results.settings.perfusion
        found |= {block.core.engine, block.hypoperfusion.engine, block.registry_engine}
    for analysis in results.analyses:
        found |= {analysis.type, str(analysis.as_given().get("method"))}
        found |= set(as_list(analysis.as_given().get("models")))
        if analysis.adjustment == "graphical":
            found.add("graphical")
    return found


def references_of(results: Results) -> list[Reference]:
    """Publications of what a study used, in the order of :data:`REFERENCES`."""
    tags = _tags_of(results)
    return [reference for reference in REFERENCES if tags & set(reference.tags)]


def as_text(reference: Reference) -> str:
    """A reference as one line.

    Examples
    --------
    >>> as_text(Reference("Cox DR. Title. J 1972;34:187-220", "10.1111/x", "Cox", ()))
    'Cox DR. Title. J 1972;34:187-220. doi:10.1111/x'
    """
    return f"{reference.text}. doi:{reference.doi}"


def as_bibtex(references: Iterable[Reference]) -> str:
    """References as BibTeX.

    Examples
    --------
    >>> print(as_bibtex([Reference("Cox DR, Fine JP, et al. Title. J 1972;34:187-220", "10.1/x",
    ...     "Cox", ())]), end="")
    @article{cox1972, author = {Cox, DR and Fine, JP and others}, title = {Title}, ...
    """
    found = []
    for one in references:
        people, title, rest = re.split(r"\. (?=[A-Z])", one.text, maxsplit=2)
        ((journal, year, volume, pages),) = re.findall(r"(.+) (\d{4});([^:]+):(.+)", rest)
        names = [name for name in people.split(", ") if name != "et al"]
        authors = " and ".join(
            [", ".join(name.rsplit(" ", 1)) for name in names]
            + ["others"] * (len(names) < people.count(",") + 1)
        )
        key = names[0].split()[0].lower().encode("ascii", "ignore").decode() + year
        fields = {"author": authors, "title": title, "journal": journal, "year": year}
        fields |= {"volume": volume, "pages": pages, "doi": one.doi}
        found.append(f"@article{{{key},{','.join(f' {k} = {{{v}}}' for k, v in fields.items())}}}")
    return "\n".join([*found, ""])
