"""Record of the stage ``perfuse``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from corelab.records.base import Record, many, omitted, one, settings_used
from corelab.records.images import Mask


@dataclass(frozen=True, slots=True)
class PerfusionMap(Record):
    """A perfusion map: its quantity, engine and unit; ``primary`` maps bear the plain names."""

    quantity: str
    engine: str
    path: str
    unit: str
    primary: bool | None = omitted()


@dataclass(frozen=True, slots=True)
class Gate(Record):
    """Verdict on one criterion of a perfusion series; ``basis`` is the source of its limit."""

    criterion: str
    value: float | None
    limit: str
    verdict: str
    basis: str


@dataclass(frozen=True, slots=True)
class Quantity(Record):
    """A number of a perfusion series that is no volume of one mask."""

    endpoint: str
    source: str
    value: float | None
    unit: str
    status: str = "ok"
    reason: str | None = None
    scan_ids: tuple[str, ...] | None = omitted()


@dataclass(frozen=True, slots=True)
class Cutoff(Record):
    """One frame of the registry: the tissue by one published cut-off.

    ``rule`` is in words, ``within`` the regions that it is limited to, ``volume_ml`` in mL.
    """

    id: str
    label: str
    rule: str
    within: tuple[str, ...]
    engine: str
    volume_ml: float


@dataclass(frozen=True, slots=True)
class Registry(Record):
    """Tissue by every published cut-off, in one 4D mask.

    Attributes
    ----------
    path
        The 4D mask; ``ids``, ``labels`` and ``rows`` are in the order of its frames.
    left_out
        Cut-offs whose maps or regions do not exist.
    kind, grid, scan_ids
        Scan that it was made from.
    """

    path: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    engine: str
    rows: tuple[Cutoff, ...] = many(Cutoff)
    left_out: tuple[str, ...] = ()
    kind: str | None = None
    grid: str | None = None
    scan_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Perfused(Record):
    """Record of the stage ``perfuse``.

    Attributes
    ----------
    figures
        Name -> file of curves and pictures.
    notes
        What is doubtful about the series.
    parameters
        How the maps were made.
    """

    stage: ClassVar[str] = "perfuse"
    participant_id: str
    visit: str
    maps: tuple[PerfusionMap, ...] = many(PerfusionMap)
    masks: tuple[Mask, ...] = many(Mask)
    registry: Registry | None = field(default=None, metadata=one(Registry))
    gates: tuple[Gate, ...] = many(Gate)
    quantities: tuple[Quantity, ...] = many(Quantity)
    figures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = settings_used()
    status: str = "ok"
    reason: str | None = None
    products: Mapping[str, str] | None = omitted()
