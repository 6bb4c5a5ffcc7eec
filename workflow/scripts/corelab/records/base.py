"""Base of the records that stages exchange: frozen dataclasses that read and write their JSON.

A key that a type does not declare is refused: records are written by this version alone (an edit of
the code reruns their rule), so an unknown key is a misspelt one, or a file of another version, and
dropping it would lose a fact in silence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from corelab.provenance.products import file_sha256, plain, read_json, write_json


class RecordError(ValueError):
    """A record that does not have the keys of its type."""


def many(kind: type[Record]) -> Any:
    """Field of a list of records; a tuple in Python."""
    return field(
        default=(),
        metadata={"read": lambda items: tuple(kind.from_json(item) for item in items)},
    )


def by_key(kind: type[Record]) -> Any:
    """Field of a mapping of records."""
    read = {"read": lambda items: {key: kind.from_json(item) for key, item in items.items()}}
    return field(default_factory=dict, metadata=read)


def one(kind: type[Record]) -> dict[str, Callable[[Any], Any]]:
    """Metadata of a field of one record or None."""
    return {"read": kind.from_json}


def omitted() -> Any:
    """Field whose key is not written where the value is None."""
    return field(default=None, metadata={"omitted": True})


#: Settings that were read, by their text: those of thousands of masks are few.
_SETTINGS: dict[str, Mapping[str, Any]] = {}


def settings_used() -> Any:
    """Field of the settings of a result; equal ones are one object, which nobody changes."""
    read = {"read": lambda given: _SETTINGS.setdefault(repr(given), given)}
    return field(default_factory=dict, metadata=read)


def _plainly(value: Any) -> Any:
    """A value as read: lists are tuples, and equal texts one object (of many rows, most are)."""
    if isinstance(value, dict):
        return {key: _one_text(item) for key, item in value.items()}
    return tuple(map(_one_text, value)) if isinstance(value, list) else _one_text(value)


def _one_text(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value


class _Layout(NamedTuple):
    """How the fields of a type are read and written."""

    readers: dict[str, Callable[[Any], Any]]
    omitted: frozenset[str]
    required: tuple[str, ...]


_LAYOUTS: dict[type, _Layout] = {}


def _layout(kind: type[Record]) -> _Layout:
    if kind not in _LAYOUTS:
        own = fields(kind)
        _LAYOUTS[kind] = _Layout(
            {one.name: one.metadata.get("read", _plainly) for one in own},
            frozenset(one.name for one in own if one.metadata.get("omitted")),
            tuple(f.name for f in own if f.default is MISSING and f.default_factory is MISSING),
        )
    return _LAYOUTS[kind]


def _json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class Record:
    """A part of a record."""

    #: Value of the key ``stage``; empty for parts of records.
    stage: ClassVar[str] = ""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read the type from its JSON.

        :class:`RecordError` if a key is unknown or a required one is missing, or the record is of
        another stage.
        """
        readers, _, required = _layout(cls)
        values = {}
        for key, value in content.items():
            if key in readers:
                values[key] = value if value is None else readers[key](value)
            elif not (key == "stage" and value == cls.stage):
                what = f"stage {value!r}" if key == "stage" else f"unknown key '{key}'"
                raise RecordError(
                    f"no record {cls.__name__}: {what}; it is of another stage or version of "
                    "Corelab: delete it, so that its rule runs again"
                )
        missing = [key for key in required if key not in values]
        if missing:
            raise RecordError(
                f"no record {cls.__name__}: it has no {', '.join(missing)}; delete it, so that its "
                "rule runs again"
            )
        return cls(**values)

    @property
    def unwritten(self) -> tuple[str, ...]:
        """Keys that this record does not write."""
        return ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of a sheet, whose other columns are not of the record."""
        return cls.from_json({key: row[key] for key in _layout(cls).readers if key in row})

    def to_json(self) -> dict[str, Any]:
        """Content of the JSON; keys that are omitted where they are None are left out."""
        content = {"stage": self.stage} if self.stage else {}
        readers, optional, _ = _layout(type(self))
        for name in readers:
            value = getattr(self, name)
            if name not in self.unwritten and (value is not None or name not in optional):
                content[name] = _json(value)
        return content

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a record's file; :class:`RecordError` if it does not have the keys of the type."""
        try:
            return cls.from_json(read_json(path))
        except RecordError as fault:
            raise RecordError(f"{os.fspath(path)}: {fault}") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record's file."""
        write_json(self.to_json(), path)

    def settled(self) -> Self:
        """The record as its file would be read: plain numbers and lists, None for NaN."""
        return type(self).from_json(plain(self.to_json()))


def _paths(value: Any, folder: Path) -> Iterator[str]:
    """Relative paths of files that a record names."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item, folder)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item, folder)
    elif isinstance(value, str) and value.startswith("derivatives/") and (folder / value).is_file():
        yield value


def write_record(record: Record, folder: Path, path: str | os.PathLike[str]) -> None:
    """Write a stage's record last, with the sha256 of every file that it names.

    A changed product thus changes the record, and what depends on the record reruns.

    Parameters
    ----------
    record
        File paths in it are relative to ``folder``.
    folder
        The study's results folder.
    path
        Where the record goes.
    """
    content = record.to_json()
    products = {name: file_sha256(folder / name) for name in sorted(set(_paths(content, folder)))}
    write_json({**content, "products": products}, path)
