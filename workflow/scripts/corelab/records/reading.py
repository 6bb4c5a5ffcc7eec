"""Records of the central read: change log, lock, its verification, packages of readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corelab.records.base import Record, by_key, omitted, one


@dataclass(frozen=True, slots=True)
class What(Record):
    """The cell that a change concerns, before and after; None for missing."""

    row: str
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Why(Record):
    """Reason of a change, and what happened in words."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Change(Record):
    """An entry of the change log.

    Attributes
    ----------
    number
        From 1.
    what, why, who, when
        The evidence; ``when`` is UTC.
    previous
        SHA-256 of the entry before.
    sha256
        Of the entry itself.
    """

    number: int
    what: What = field(metadata=one(What))
    why: Why = field(metadata=one(Why))
    who: str
    when: str
    previous: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class LogState(Record):
    """Number of entries of the change log, and the hash of the last."""

    entries: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Charter(Record):
    """Settings of ``reading`` that are fixed before the first read; rules as in the config."""

    presentation: str
    seed: int
    repeat_share: float
    adjudication: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Signature(Record):
    """HMAC of a lock, and the fingerprint of its key."""

    method: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Lock(Record):
    """The lock of a read.

    Attributes
    ----------
    reads, final_reads
        Key of a row -> SHA-256 of its canonical text.
    log
        The change log at the lock.
    open_at_lock
        What was not settled when it was locked.
    lock_sha256
        Of everything but itself and the signature.
    """

    reads: Mapping[str, str]
    final_reads: Mapping[str, str]
    charter: Charter = field(metadata=one(Charter))
    log: LogState = field(metadata=one(LogState))
    open_at_lock: tuple[str, ...] | None = omitted()
    locked_at: str | None = omitted()
    locked_by: str | None = omitted()
    lock_sha256: str | None = omitted()
    signature: Signature | None = field(default=None, metadata={**one(Signature), "omitted": True})


@dataclass(frozen=True, slots=True)
class Validity(Record):
    """``reading/validity.json``: what reports and tables say about the reads that they rest on.

    Attributes
    ----------
    state
        ``valid``, ``open`` or ``invalid``.
    banner
        What must be shown; None where nothing must.
    """

    state: str
    banner: str | None
    faults: tuple[str, ...]
    open: tuple[str, ...]
    locked_reads: int
    changes_since: int
    lock_sha256: str | None
    locked_at: str | None
    locked_by: str | None
    signed: bool


@dataclass(frozen=True, slots=True)
class Package(Record):
    """Package of one reader: number of cases, and SHA-256 of each file."""

    cases: int
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Packages(Record):
    """Packages of all readers; ``searched_for`` is the number of texts that none may contain."""

    presentation: str
    seed: int
    searched_for: int
    readers: Mapping[str, Package] = by_key(Package)
