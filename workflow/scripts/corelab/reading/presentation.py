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

import numpy as np

KINDS = (
    "time_sequential",
    "simultaneous",
    "simultaneous_random_time",
    "single_time_point",
    "hybrid_random",
)


@dataclass(frozen=True, order=True)
class Case:
    """One visit of one subject as it is shown; a case shown again has ``repeat`` 2."""

    participant_id: str
    visit: str
    repeat: int = 1


@dataclass(frozen=True)
class Shown:
    """One line of a reader's sequence.

    Attributes
    ----------
    position
        Place in the reader's sequence, from 1.
    part
        1, or 2 for the second part of a hybrid presentation, after the first is confirmed.
    screen
        Cases with the same number are looked at together.
    case
        What is shown.
    time_point
        Number of the visit in time, from 1; None where the reader must not know it.
    linked
        Whether the reader may know which cases are of one subject.
    """

    position: int
    part: int
    screen: int
    case: Case
    time_point: int | None
    linked: bool


def _generator(seed: int, *names: str) -> np.random.Generator:
    text = "\x1f".join([str(int(seed)), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def _shuffled[T](items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[int(index)] for index in rng.permutation(len(items))]
