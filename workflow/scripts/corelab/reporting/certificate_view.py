"""The certificate for people: a page of its own, its part of the report, its tables in the PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from corelab.provenance.certificate import half_last_digit
from corelab.provenance.products import write_text
from corelab.reporting import page
from corelab.reporting.documents import Block, Heading, Paragraph
from corelab.reporting.exhibits import common_content
from corelab.reporting.numbers import fixed, is_number, significant
from corelab.reporting.page import Cell, Table, heads
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.terms.statistics import statistic
from corelab.terms.words import group_words

PAGE = "certificate.html"
SOURCE = "verification/certificate.tsv"
#: Verdicts, worst first, and what they mean.
VERDICTS = {
    "different": "rounding of the printed number does not explain the difference",
    NOT_COMPUTABLE: "what is printed does not suffice, or the plan gives no such number",
    "within_rounding": "rounding of the printed number explains the difference",
    "reproduced": "within the tolerance that the sheet gives, or the numeric one",
}
_LIMITS = {"ci_low": "lower limit", "ci_high": "upper limit"}


def tally(frame: pd.DataFrame) -> dict[str, int]:
    """Verdict -> how many numbers, worst first, without verdicts that nothing has.

    Examples
    --------
    >>> tally(pd.DataFrame({"verdict": ["reproduced", "different", "reproduced"]}))
    {'different': 1, 'reproduced': 2}
    """
    counts = frame["verdict"].value_counts()
    return {name: int(counts[name]) for name in VERDICTS if name in counts.index}


def _worst_first(frame: pd.DataFrame) -> pd.DataFrame:
    rank = {name: number for number, name in enumerate(VERDICTS)}
    order = frame["verdict"].map(rank).sort_values(kind="stable").index
    return frame.loc[order].astype(object).where(frame.notna(), None)


def _recomputed_text(printed: str, value: Any) -> str:
    """A recomputed number with two more decimals than the printed one has."""
    if not is_number(value):
        return ""
    number = float(value)
    if number.is_integer():
        return str(int(number))
    half = half_last_digit(printed)
    decimals = len(f"{2 * half:.12f}".rstrip("0").partition(".")[2]) if 0 < half < 1 else 0
    return fixed(number, decimals + 2)


def _statistic(row: Any) -> str:
    name, _, part = str(row.statistic).partition(" ")
    words = statistic(name).words
    return f"{words}, {_LIMITS.get(part, part)}" if part else words


def _fits(row: Any) -> str:
    """Which other form the printed number fits, and its value in that form."""
    if not row.fits:
        return ""
    value = _recomputed_text(str(row.published), row.fits_value)
    name, _, more = str(row.fits).partition(":")
    return f"{statistic(name).words if not more else row.fits}, {value}"


def _number(value: Any) -> str:
    return significant(value, 2) if is_number(value) else ""


def _why(row: Any) -> str:
    return ". ".join(str(text).rstrip(".") for text in (row.source_note, row.note) if text)


def _certificate_table(
    frame: pd.DataFrame, caption: str = "Published numbers", *, sources: bool = True
) -> Table:
    """Published numbers beside the recomputed ones, worst first."""
    body = []
    for row in _worst_first(frame).itertuples():
        fits = Markup("<br>fits {}").format(_fits(row)) if row.fits else Markup("")
        verdict = page.tag(str(row.verdict)) + fits
        body.append(
            [
                row.published_id,
                _statistic(row),
                group_words(row.group),
                Cell(row.published, row.published),
                Cell(_recomputed_text(str(row.published), row.recomputed), row.recomputed),
                Cell(_number(row.difference), row.difference),
                Cell(_number(row.tolerance), row.tolerance),
                Cell(verdict, str(row.verdict)),
                _why(row),
                (row.citation or "") if sources else "",
            ]
        )
    columns = heads(
        "Published | Statistic | Group | >Printed | *Recomputed | >Difference | >Tolerance | "
        "Verdict | ?~Notes | ?~Source"
    )
    return Table(caption, columns, body, "", SOURCE)


def _remarks_table(frame: pd.DataFrame) -> Table | None:
    """What the sheet says about its sources, such as that one contradicts itself."""
    rows = frame[frame["source_note"].notna()].drop_duplicates(["published_id", "source_note"])
    if rows.empty:
        return None
    body = [
        [row.published_id, row.published, row.source_note, row.citation or ""]
        for row in rows.itertuples()
    ]
    columns = heads("Published", ">Printed", "~Remark", "?~Source")
    return Table("What is odd in the sources", columns, body, "", SOURCE)


def summary(frame: pd.DataFrame) -> str:
    """One sentence: how many numbers have which verdict.

    Examples
    --------
    >>> summary(pd.DataFrame({"verdict": ["reproduced", "within_rounding", "different"]}))
    'Of 3 published numbers 2 are reproduced, 1 of them within rounding; 1 is different.'
    """
    counts = tally(frame)
    close = counts.get("within_rounding", 0)
    good = counts.get("reproduced", 0) + close
    parts = [
        f"Of {len(frame)} published numbers {good} {'is' if good == 1 else 'are'} reproduced"
        + (f", {close} of them within rounding" if close else "")
    ]
    for verdict in ("different", NOT_COMPUTABLE):
        number = counts.get(verdict, 0)
        if number:
            words = verdict.replace("_", " ")
            parts.append(f"{number} {'is' if number == 1 else 'are'} {words}")
    return "; ".join(parts) + "."


def not_reproduced(frame: pd.DataFrame) -> list[Table]:
    """A table of the numbers that were not reproduced; none where all were."""
    odd = frame[frame["verdict"].isin(["different", NOT_COMPUTABLE])]
    return [_certificate_table(odd, "Not reproduced")] if len(odd) else []


def write_certificate_page(results: Results, target: Path) -> Path | None:
    """Write ``report/certificate.html``; nothing, and no page of before, where there is none."""
    path = target / PAGE
    frame = results.certificate
    if frame is None:
        path.unlink(missing_ok=True)
        return None
    html = page.render(
        "certificate.html.j2",
        common_content(results, None),
        policy=page.security_policy([page.asset("report.js")]),
        page_title=f"{results.title}: certificate",
        summary=summary(frame),
        counts=[(name, number, VERDICTS[name]) for name, number in tally(frame).items()],
        table=_certificate_table(frame),
        remarks=_remarks_table(frame),
    )
    return write_text(html, path)


def certificate_blocks(results: Results) -> list[Block]:
    """The certificate in the PDF: 14.6."""
    frame = results.certificate
    if frame is None:
        return []
    sources = sorted({str(text) for text in frame["citation"].dropna()})
    notes = tuple(f"{name.replace('_', ' ')}: {means}." for name, means in VERDICTS.items())
    notes += tuple(f"Source: {text}." for text in sources)
    title = "Published numbers, recomputed"
    blocks: list[Block] = [
        Heading("14.6 Certificate of reproduced numbers"),
        Paragraph(summary(frame)),
        page.printed(_certificate_table(frame, sources=False), "14.6.1", title, notes),
    ]
    remarks = _remarks_table(frame)
    if remarks is not None:
        blocks.append(page.printed(remarks, "14.6.2"))
    return blocks
