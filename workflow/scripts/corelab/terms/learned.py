"""Lesions that a network of Corelab's own outlines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class LearnedTask:
    """A network and what it outlines.

    Attributes
    ----------
    name
        Folder below ``resources/models``.
    kinds
        Kinds of scan that it needs, in the order of its channels.
    classes
        Label -> which of the network's classes it is made of (0 is none).
    """

    name: str
    kinds: tuple[str, ...]
    classes: Mapping[str, tuple[int, ...]]


_TUMOUR = LearnedTask(
    "tumour",
    ("T1c", "FLAIR"),
    {
        "necrosis": (1,),
        "oedema": (2,),
        "enhancing": (3,),
        "tumourcore": (1, 3),
        "whole-tumour": (1, 2, 3),
    },
)
#: Label -> the task that outlines it.
LEARNED: Mapping[str, LearnedTask] = MappingProxyType(
    {label: task for task in (_TUMOUR,) for label in task.classes}
)
