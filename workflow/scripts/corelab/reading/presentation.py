"""In which order readers see the images: the five presentations of the guideline.

The kinds are those of FDA's imaging guidance (Clinical Trial Imaging Endpoint Process Standards,
2018), which the CDE guideline on independent review names too: time-sequential; simultaneous;
simultaneous with randomised time; single time-point; hybrid, randomised. Each reader has an order
of his own, so that tiredness and learning do not fall on the same cases, and a seed gives the
same orders again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from corelab.settings.reading import Presentation

KINDS: tuple[str, ...] = get_args(Presentation)


@dataclass(frozen=True, order=True)
class Case:
    """One visit of one subject as it is shown.

    A case shown again has ``repeat`` 2. A ``reference`` case is none of the study: its truth is
    known, and it is mixed in to test the readers.
    """

    participant_id: str
    visit: str
    repeat: int = 1
    reference: bool = False


@dataclass(frozen=True)
class Shown:
    """One line of a reader's sequence; ``position``, ``screen`` and ``time_point`` count from 1.

    ``part`` is 2 for the second part of a hybrid presentation, after the first is confirmed. Cases
    of one ``screen`` are looked at together. ``time_point`` is None where the reader must not know
    it; ``linked``: the reader may know which cases are of one subject.
    """

    position: int
    part: int
    screen: int
    case: Case
    time_point: int | None
    linked: bool


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and on names alone."""
    text = "\x1f".join([str(int(seed)), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def _shuffled(items: Sequence[list[Case]], rng: np.random.Generator) -> list[list[Case]]:
    return [items[int(index)] for index in rng.permutation(len(items))]


def presentation_order(
    cases: Iterable[Case],
    *,
    kind: str,
    reader: str,
    seed: int,
    visit_order: Sequence[str] = (),
) -> list[Shown]:
    """Sequence in which one reader sees the cases, by position; another reader has another order.

    Cases with ``repeat`` above 1 come after all first readings, so that a reader does not remember
    them. Visits not in ``visit_order`` follow by name.

    ``time_sequential``: subject by subject, the visits one after the other in time.
    ``simultaneous``: all visits of a subject on one screen, their time known.
    ``simultaneous_random_time``: the same, the visits shuffled and their time withheld.
    ``single_time_point``: every visit alone, shuffled over subjects and visits.
    ``hybrid_random``: every visit alone as before; when that part is confirmed, all visits of a
    subject on one screen with their time.

    Raises ValueError if the kind is unknown or a case is listed twice.

    Examples
    --------
    >>> cases = [Case("1", "a"), Case("1", "b"), Case("2", "a"), Case("2", "b")]
    >>> order = presentation_order(cases, kind="time_sequential", reader="r1", seed=1)
    >>> [shown.time_point for shown in order], [shown.screen for shown in order]
    ([1, 2, 1, 2], [1, 2, 3, 4])
    """
    if kind not in KINDS:
        raise ValueError(f"unknown presentation {kind!r}; known: {', '.join(KINDS)}")
    groups = _by_subject(cases, visit_order)
    time_point = {case: number for group in groups for number, case in enumerate(group, start=1)}
    shown: list[Shown] = []

    def show(part: int, screens: Iterable[list[Case]], *, timed: bool, linked: bool) -> None:
        first = shown[-1].screen + 1 if shown else 1
        for screen, together in enumerate(screens, start=first):
            for case in together:
                number = time_point[case] if timed else None
                shown.append(Shown(len(shown) + 1, part, screen, case, number, linked))

    for number, (screens, timed, linked) in enumerate(
        _parts(groups, kind, lambda purpose: generator(seed, kind, reader, purpose)), start=1
    ):
        show(number, screens, timed=timed, linked=linked)
    return shown


def _by_subject(cases: Iterable[Case], visit_order: Sequence[str]) -> list[list[Case]]:
    """Cases of each subject (and repeat) in time."""
    listed = sorted(cases)
    if len(set(listed)) != len(listed):
        raise ValueError("a case is listed twice; a case that is shown again has repeat 2")
    place = {visit: number for number, visit in enumerate(visit_order)}

    def in_time(case: Case) -> tuple[int, str]:
        return place.get(case.visit, len(place)), case.visit

    subjects: dict[tuple[int, str, bool], list[Case]] = {}
    for case in sorted(listed, key=lambda c: (c.repeat, c.participant_id, *in_time(c))):
        subjects.setdefault((case.repeat, case.participant_id, case.reference), []).append(case)
    return list(subjects.values())


#: Screens of one part, whether the visits' times are shown, whether a subject's cases are linked.
_Part = tuple[list[list[Case]], bool, bool]


def _parts(
    groups: Sequence[list[Case]], kind: str, rng: Callable[[str], np.random.Generator]
) -> list[_Part]:
    """The screens of a presentation, part by part."""
    if kind == "time_sequential":
        ordered = _first_readings_first(groups, rng("subjects"))
        return [([[case] for group in ordered for case in group], True, True)]
    if kind == "simultaneous":
        return [(_first_readings_first(groups, rng("subjects")), True, True)]
    if kind == "simultaneous_random_time":
        ordered = _first_readings_first(groups, rng("subjects"))
        time = rng("time")
        mixed = [[group[int(i)] for i in time.permutation(len(group))] for group in ordered]
        return [(mixed, False, True)]
    alone = [[case] for group in groups for case in group]
    parts: list[_Part] = [(_first_readings_first(alone, rng("cases")), False, False)]
    if kind == "hybrid_random":
        parts.append((_first_readings_first(groups, rng("subjects")), True, True))
    return parts


def _first_readings_first(
    groups: Sequence[list[Case]], rng: np.random.Generator
) -> list[list[Case]]:
    """Groups shuffled within each repeat, first readings before repeated ones."""
    ordered: list[list[Case]] = []
    for repeat in sorted({group[0].repeat for group in groups}):
        ordered += _shuffled([group for group in groups if group[0].repeat == repeat], rng)
    return ordered


def repeated_cases(cases: Iterable[Case], *, share: float, seed: int) -> list[Case]:
    """Cases to show a second time, for the difference of a reader from himself.

    Whole subjects are drawn (``share`` of them, rounded up), the same for every reader, so that
    intra-reader figures compare.

    Examples
    --------
    >>> again = repeated_cases([Case("1", "a"), Case("2", "a")], share=0.5, seed=3)
    >>> len(again), again[0].repeat
    (1, 2)
    """
    listed = sorted(cases)
    subjects = sorted({case.participant_id for case in listed})
    number = int(np.ceil(share * len(subjects)))
    drawn = generator(seed, "repeats").choice(len(subjects), number, replace=False)
    chosen = {subjects[int(index)] for index in drawn}
    return [Case(c.participant_id, c.visit, 2) for c in listed if c.participant_id in chosen]
