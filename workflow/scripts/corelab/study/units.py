"""Units of supplied values: one unit for an endpoint, outcome or exposure over all its rows."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from corelab.study.cells import is_missing, number
from corelab.study.findings import Finding, at
from corelab.terms.endpoints import VOLUME_UNITS_ML, unit_of

_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
_LENGTHS_MM = {"mm": 1.0, "cm": 10.0, "um": 1e-3, "m": 1e3}
_TIMES_S = {
    **{"ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "hr": 3600.0, "hours": 3600.0},
    **{"d": 86400.0, "day": 86400.0, "days": 86400.0, "week": 604800.0, "weeks": 604800.0},
}
_VOLUMES_L = {"L": 1.0, "dL": 0.1, "mL": 1e-3, "uL": 1e-6}


def _table() -> dict[str, tuple[str, float]]:
    """Unit -> (dimension, factor to the dimension's base unit)."""
    table = {name: ("length", factor) for name, factor in _LENGTHS_MM.items()}
    table |= {name: ("time", factor) for name, factor in _TIMES_S.items()}
    table |= {f"{name}2": ("area", factor**2) for name, factor in _LENGTHS_MM.items()}
    table |= {"percent": ("share", 0.01), "%": ("share", 0.01), "fraction": ("share", 1.0)}
    for prefix, factor in _PREFIXES.items():
        for base, dimension in (("g", "mass"), ("mol", "amount")):
            table[f"{prefix}{base}"] = (dimension, factor)
            for volume, litres in _VOLUMES_L.items():
                table[f"{prefix}{base}/{volume}"] = (f"{dimension} concentration", factor / litres)
            table[f"{prefix}{base}/kg"] = (f"{dimension} per kg", factor)
        table[f"{prefix}M"] = ("amount concentration", factor)
    return table


_UNITS = _table()
#: Column that names the quantity -> sheets that share its values.
_SHARED = {
    "endpoint": ("measurements", "reads", "rereads"),
    "outcome": ("outcomes",),
    "exposure": ("exposures",),
}


@functools.cache
def _plain_unit(unit: str) -> str:
    """A unit in the form of the table: micro as u, litre as L, superscripts as digits."""
    text = unicodedata.normalize("NFKC", "".join(unit.split())).replace("μ", "u")
    whole, slash, under = text.partition("/")
    litres = {"l": "L", "dl": "dL", "ml": "mL", "ul": "uL"}
    return litres.get(whole, whole) + slash + litres.get(under, under)


@functools.cache
def _volume_unit(unit: str) -> str:
    """A unit of volume as the table has it (µL, ㎖, ml); another one as it is written."""
    plain = _plain_unit(unit)
    return plain if plain in VOLUME_UNITS_ML else unit


def conversion(unit: str, wanted: str) -> float | None:
    """Factor from one unit to another; None where they measure different things.

    Examples
    --------
    >>> conversion("ug/mL", "ng/mL"), conversion("cm", "mm"), conversion("mg/dL", "mmol/L")
    (1000.0, 10.0, None)
    """
    one, other = _UNITS.get(_plain_unit(unit)), _UNITS.get(_plain_unit(wanted))
    if one is None or other is None or one[0] != other[0]:
        return 1.0 if _plain_unit(unit) == _plain_unit(wanted) else None
    # Powers of ten: 15 digits keep them exact.
    return float(f"{one[1] / other[1]:.15g}")


def common_units(sheets: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, list[str]]]:
    """Units of each quantity that has several, the unit of most rows first.

    Column that names the quantity -> quantity -> its units, of the sheets with ``value`` and
    ``unit`` (text cells). Volume endpoints are converted to mL elsewhere.

    Examples
    --------
    >>> sheet = pd.DataFrame({"exposure": ["auc"] * 3, "value": ["900", "1.2", "800"],
    ...                       "unit": ["ng/mL", "ug/mL", "ng/mL"]})
    >>> common_units({"exposures": sheet})
    {'exposure': {'auc': ['ng/mL', 'ug/mL']}}
    """
    units: dict[str, dict[str, list[str]]] = {}
    for key, members in _SHARED.items():
        frames = [sheets[name] for name in members if _has_units(sheets.get(name), key)]
        for quantity in sorted({q for frame in frames for q in frame[key].dropna().unique()}):
            if unit_of(str(quantity)) == "mL":
                continue
            rows = pd.concat([frame[frame[key] == quantity] for frame in frames])
            written = rows.loc[~rows["value"].map(is_missing), "unit"].dropna().map(_plain_unit)
            counts = written.value_counts()
            if len(counts) > 1:
                most = min(counts.index[counts == counts.max()])
                others = [unit for unit in counts.index if unit != most]
                units.setdefault(key, {})[str(quantity)] = [most, *others]
    return units


def _has_units(frame: pd.DataFrame | None, key: str) -> bool:
    return frame is not None and {key, "value", "unit"} <= set(frame.columns)


def unify(
    sheets: dict[str, pd.DataFrame],
    names: Mapping[str, str],
    common: Mapping[str, Mapping[str, Sequence[str]]],
) -> Iterator[Finding]:
    """Convert, in place, each quantity of several units to the one that most of its rows have.

    Units that cannot be converted into each other, and rows without a unit beside rows of several,
    are errors. ``names``: sheet -> file name; ``common`` is of :func:`common_units`.

    Examples
    --------
    >>> sheet = pd.DataFrame({"exposure": ["auc"] * 3, "value": ["900", "1.2", "800"],
    ...                       "unit": ["ng/mL", "ug/mL", "ng/mL"]}, index=[2, 3, 4])
    >>> sheets = {"exposures": sheet}
    >>> [f.severity for f in unify(sheets, {}, common_units(sheets))], sheet["value"].tolist()
    (['note'], ['900', '1200', '800'])
    """
    for frame in sheets.values():
        if "unit" in frame:
            frame["unit"] = frame["unit"].map(_volume_unit, na_action="ignore")
    for key, quantities in common.items():
        there = [name for name in _SHARED[key] if _has_units(sheets.get(name), key)]
        for quantity, units in quantities.items():
            if there:
                yield from _one_quantity(sheets, there, key, quantity, names, units)


def _one_quantity(
    sheets: dict[str, pd.DataFrame],
    there: Sequence[str],
    key: str,
    quantity: str,
    names: Mapping[str, str],
    units: Sequence[str],
) -> Iterator[Finding]:
    rows = pd.concat(
        [
            sheets[name].loc[sheets[name][key] == quantity, ["value", "unit"]].assign(_sheet=name)
            for name in there
        ]
    )
    rows = rows[~rows["value"].map(is_missing)]
    wanted = units[0]

    def found(severity: str, label: Any, row: pd.Series, message: str, remedy: str) -> Finding:
        name = row["_sheet"]
        sheet = sheets[name]
        line = int(sheet.loc[label, "_line"]) if "_line" in sheet else int(label)
        file = str(sheet.loc[label, "_sheet"]) if "_sheet" in sheet else names.get(name, name)
        unit = None if row["unit"] is None else str(row["unit"])
        return at(file, line, "unit", unit, message, remedy, severity)

    converted: list[tuple[Any, pd.Series]] = []
    for label, row in rows.iterrows():
        if row["unit"] is None or pd.isna(row["unit"]):
            message = f"{quantity} has several units ({', '.join(units)}) and this row none"
            yield found("error", label, row, message, "fill in the unit")
            continue
        factor = conversion(str(row["unit"]), wanted)
        if factor is None:
            message = (
                f"{quantity} is in {wanted} elsewhere, and this unit cannot be converted to it"
            )
            yield found("error", label, row, message, "convert the value, or name it otherwise")
        elif _plain_unit(str(row["unit"])) != wanted:
            converted.append((label, row))
            sheet = sheets[row["_sheet"]]
            try:
                value = f"{number(row['value']) * factor:.12g}"
            except ValueError:
                continue  # The sheet's own check reports the cell.
            sheet.loc[label, ["value", "unit"]] = [value, wanted]
    if converted:
        label, row = converted[0]
        message = f"{len(converted)} values of {quantity} were converted to {wanted}"
        yield found("note", label, row, message, "nothing to do")
