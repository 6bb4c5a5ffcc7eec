"""Products: files that are complete or absent, and the same bytes for the same content.

A product is written under a temporary name in its own folder, flushed to disk and renamed.
Tables have a fixed column order, float format, ``n/a`` for missing and Unix line ends.
"""

from __future__ import annotations

import heapq
import json
import math
import os
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corelab.provenance.files import atomic_path as atomic_path
from corelab.provenance.files import file_sha256 as file_sha256

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"


def plain(value: Any) -> Any:
    """Turn numpy scalars, arrays, paths and NaN into what JSON can say.

    Examples
    --------
    >>> plain({"a": np.float64(1.5), "b": np.array([1, 2]), "c": float("nan")})
    {'a': 1.5, 'b': [1, 2], 'c': None}
    """
    # The cells of tables first: there are millions.
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write text atomically, UTF-8, as given."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))
    return Path(path)


def write_json(content: Any, path: str | os.PathLike[str]) -> Path:
    r"""Write JSON atomically: sorted keys, two spaces, a final line end.

    Examples
    --------
    >>> import tempfile
    >>> write_json({"b": 1, "a": None}, Path(tempfile.mkdtemp(), "a.json")).read_text()
    '{\n  "a": null,\n  "b": 1\n}\n'
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(_json_pieces(content))
        file.write("\n")
    return Path(path)


def json_text(content: Any) -> str:
    """Text of a JSON file, as :func:`write_json` writes it."""
    return "".join(_json_pieces(content)) + "\n"


def _json_pieces(content: Any, line: str = "\n") -> Iterator[str]:
    """JSON piece by piece, so that neither the text nor plain copies of large content are held.

    An iterator is written as a list, pairs of an ``ItemsView`` as an object in their order, a
    dataclass as an object of its fields; see :func:`plain` for all else. ``line`` begins a line.
    """
    inner = line + "  "
    if is_dataclass(content) and not isinstance(content, type):
        content = {one.name: getattr(content, one.name) for one in fields(content)}
    if isinstance(content, (Mapping, ItemsView)):
        if isinstance(content, Mapping):
            # As text first: 1 and "1" are one key.
            named = {str(key): value for key, value in content.items()}
            content = {key: named[key] for key in sorted(named)}.items()
        before = "{"
        for key, value in content:
            yield f"{before}{inner}{_ENCODER.encode(key)}: "
            yield from _json_pieces(value, inner)
            before = ","
        yield "{}" if before == "{" else line + "}"
    elif isinstance(content, (list, tuple, Iterator)):
        before = "["
        for item in content:
            yield before + inner
            yield from _json_pieces(item, inner)
            before = ","
        yield "[]" if before == "[" else line + "]"
    elif isinstance(content, (set, frozenset, np.ndarray)):
        yield from _json_pieces(plain(content), line)
    else:
        yield _ENCODER.encode(plain(content))


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def format_cell(value: Any) -> str:
    r"""One table cell: shortest text that reads back as the same float, ``n/a`` for missing.

    Examples
    --------
    >>> [format_cell(v) for v in (1.0, 0.1 + 0.2, None, float("nan"), True, "a\tb", 3)]
    ['1', '0.30000000000000004', 'n/a', 'n/a', 'true', 'a b', '3']
    """
    # Missing values of pandas by their type: most jobs write no table and do not load pandas.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if math.isnan(number):
            return MISSING
        if number.is_integer() and abs(number) < 1e15:
            return str(int(number))
        return repr(number)
    text = str(value).replace("\r\n", " ").replace("\t", " ").replace("\n", " ").strip()
    return text if text else MISSING


def write_table(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
    sort: bool = True,
) -> Path:
    r"""Write a TSV table and, from ``columns``, its JSON data dictionary.

    Parameters
    ----------
    frame
        Any further columns than ``columns`` follow in their own order.
    path
        Ends in ``.tsv``.
    columns
        Column -> description, in file order (ValueError if one is missing). A plain sequence
        writes no dictionary.
    units
        Column -> unit, for the dictionary.
    sort
        Sort rows by the columns from left to right, so that job order never shows.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"b": [2.5, None], "a": ["y", "x"]})
    >>> write_table(frame, Path(tempfile.mkdtemp(), "t.tsv"), ["a", "b"]).read_text()
    'a\tb\nx\tn/a\ny\t2.5\n'
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{path}: the table lacks the columns {missing}")
    names = [*columns, *(column for column in frame.columns if column not in columns)]
    rows = _text_rows(frame, names)
    if sort:
        rows.sort()
    _write_dictionary(path, columns, units or {})
    return _write_lines(("\t".join(row) for row in chain([names], rows)), path)


def _text_rows(frame: pd.DataFrame, names: Iterable[str]) -> list[tuple[str, ...]]:
    cells = [[format_cell(value) for value in frame[name]] for name in names]
    return list(zip(*cells, strict=True))


def write_part(frame: pd.DataFrame, path: Path, columns: Iterable[str]) -> Path:
    """Write sorted rows of a frame to a temporary file, for :func:`write_merged`."""
    rows = sorted(_text_rows(frame, columns))
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)
    return path


def write_merged(
    parts: Sequence[Path], path: str | os.PathLike[str], columns: Mapping[str, str]
) -> Path:
    r"""Write a TSV table of sorted parts, which need not fit into memory, as `write_table` would.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> folder, columns = Path(tempfile.mkdtemp()), {"a": "A", "b": "B"}
    >>> frames = [pd.DataFrame({"a": ["z", "x"], "b": 1}), pd.DataFrame({"a": ["y"], "b": [None]})]
    >>> parts = [write_part(f, folder / f"{n}", columns) for n, f in enumerate(frames)]
    >>> write_merged(parts, folder / "t.tsv", columns).read_text()
    'a\tb\nx\t1\ny\tn/a\nz\t1\n'
    """
    _write_dictionary(path, columns, {})
    with ExitStack() as opened:
        # Cells may hold a carriage return: lines end at line feeds alone.
        files = [opened.enter_context(open(one, encoding="utf-8", newline="\n")) for one in parts]
        rows = heapq.merge(*((line[:-1].split("\t") for line in file) for file in files))
        return _write_lines(("\t".join(row) for row in chain([list(columns)], rows)), path)


def write_rows(
    rows: Iterable[Sequence[Any]],
    path: str | os.PathLike[str],
    columns: Mapping[str, str],
    *,
    units: Mapping[str, str] | None = None,
) -> Path:
    r"""Write a TSV table of rows as they come, which need not fit into memory, with its dictionary.

    Parameters
    ----------
    rows
        Cells in the order of ``columns``.
    path, columns, units
        As of :func:`write_table`; no Pandas is loaded.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "t.tsv")
    >>> write_rows(iter([("y", 2.5), ("x", None)]), path, {"a": "A", "b": "B"}).read_text()
    'a\tb\ny\t2.5\nx\tn/a\n'
    """
    _write_dictionary(path, columns, units or {})
    lines = ("\t".join(map(format_cell, row)) for row in rows)
    return _write_lines(chain(["\t".join(columns)], lines), path)


def _write_dictionary(
    path: str | os.PathLike[str],
    columns: Mapping[str, str] | Sequence[str],
    units: Mapping[str, str],
) -> None:
    """Data dictionary beside a table, where its columns are described."""
    if isinstance(columns, Mapping):
        dictionary = {
            name: {"Description": text, **({"Units": units[name]} if name in units else {})}
            for name, text in columns.items()
        }
        write_json(dictionary, Path(path).with_suffix(".json"))


def _write_lines(lines: Iterable[str], path: str | os.PathLike[str]) -> Path:
    """Write lines one by one: the text of a large table is not held beside its rows."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)
    return Path(path)


def read_table(
    path: str | os.PathLike[str],
    *,
    numeric: Sequence[str] = (),
    text_missing: bool = False,
    columns: Collection[str] | None = None,
) -> pd.DataFrame:
    r"""Read a TSV table: text stays text (``007``), ``n/a`` is missing.

    Parameters
    ----------
    path
        A UTF-8 TSV with a header.
    numeric
        Columns to turn into float64.
    text_missing
        Keep ``n/a`` as the text ``n/a`` in text columns (None otherwise).
    columns
        Only these, where the file has them: paths of scans are most of a large table.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "t.tsv"); _ = file.write_text("id\tv\n007\tn/a\n8\t1.5\n")
    >>> read_table(file, numeric=["v"]).to_dict("list")
    {'id': ['007', '8'], 'v': [nan, 1.5]}
    """
    import pandas as pd

    frame = pd.read_csv(
        path,
        sep="\t",
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
        quoting=3,
        usecols=None if columns is None else lambda name: name in columns,
    )
    for column in frame.columns:
        if column in numeric:
            # Python's own parser is exact; pandas' fast one can miss the last bit.
            cells = frame[column].astype(object)
            frame[column] = cells.where(~cells.isin([MISSING, ""]), None).astype(float)
        elif not text_missing:
            frame[column] = (
                frame[column].astype(object).where(~frame[column].isin([MISSING, ""]), None)
            )
    return frame
