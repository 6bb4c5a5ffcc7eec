"""The schemas of config and sheets: defaults, and all violations at once in plain words."""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from corelab.provenance.places import ROOT
from corelab.settings.analyses import SPECS
from corelab.settings.config import Config
from corelab.settings.schema import analysis_schema
from corelab.study.cells import CAPPED_COLUMNS, is_capped, number
from corelab.study.findings import Finding, at, in_config
from corelab.terms.plugins import names

SCHEMA_FOLDER = ROOT / "workflow" / "schemas"
#: Values of a config at most, aliases written out: a plan of a thousand analyses has a tenth.
MAX_VALUES = 200_000
#: Ten times as fast as the parser in Python, which every start of the workflow would wait for.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    """Read ``workflow/schemas/<name>.schema.yaml``; registries with the names of other packages."""
    text = (SCHEMA_FOLDER / f"{name}.schema.yaml").read_text(encoding="utf-8")
    schema = dict(_with_plugins(yaml.load(text, Loader=_LOADER)))
    if name == "config" and names("analysis_types"):
        schema["$defs"]["analysis"] = analysis_schema(SPECS)
    return schema


def _with_plugins(rule: Any) -> Any:
    """The rule, in place, with all names of a registry where it lists those of the library."""
    parts = rule.values() if isinstance(rule, dict) else rule if isinstance(rule, list) else ()
    for part in parts:
        _with_plugins(part)
    if isinstance(rule, dict) and isinstance(rule.get("x-registry"), str):
        rule["enum"] = list(names(rule["x-registry"]))
    return rule


def shown_columns(config: Config, columns: Sequence[str]) -> list[str]:
    """Participants columns that may be shown: those of the schema, and those the config names.

    Any other column can identify a person (initials, a date of birth, a remark), and no analysis
    needs it.

    Examples
    --------
    >>> config = Config(study={"id": "s"}, inputs={"participants": "p.tsv"},
    ...     analyses=[{"population": "nihss > 4 and ready == 'yes'"}])
    >>> shown_columns(config, ["participant_id", "arm", "nihss", "initials"])
    ['participant_id', 'arm', 'nihss']
    """
    known = set(load_schema("sheets")["properties"]["participants"]["properties"])
    words = set(re.findall(r"\w+", json.dumps(config.plain(), default=str, ensure_ascii=False)))
    return [name for name in columns if name in known or words.issuperset(name.split())]


def _closest(word: str, known: list[str]) -> str:
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else "known: " + ", ".join(sorted(known))


def config_findings(config: Any) -> list[Finding]:
    """Everything in a config that the schema forbids, as parsed, before defaults are filled in.

    Examples
    --------
    >>> for finding in config_findings({"study": {"id": "a"}, "inputs": {}, "regstration": {}}):
    ...     print(finding.column, "|", finding.message)
    regstration | unknown key, which would be ignored without a word
    inputs | the key 'participants' is required and absent
    """
    # Not at the top: jobs read a config that was checked, and need no validator.
    import jsonschema

    if not _values(config, {}) <= MAX_VALUES:
        message = f"its aliases (*name) stand for more than {MAX_VALUES} values, or for themselves"
        return [in_config(None, None, message, "write the values out")]
    validator = jsonschema.Draft202012Validator(load_schema("config"))
    found: list[Finding] = _not_finite(config)
    if keys := _keys_without_text(config):
        return [*found, *keys]
    for error in sorted(
        map(_deepest, validator.iter_errors(config)),
        key=lambda e: [str(p) for p in e.absolute_path],
    ):
        where = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
            properties = error.schema.get("properties", {})
            patterns = error.schema.get("patternProperties", {})
            for key in error.instance:
                if key in properties or any(re.search(p, str(key)) for p in patterns):
                    continue
                full = f"{where}.{key}" if where else str(key)
                remedy = (
                    _closest(str(key), list(properties))
                    if properties
                    else "keys must match " + " or ".join(patterns)
                )
                message = "unknown key, which would be ignored without a word"
                found.append(in_config(full, str(error.instance[key])[:80], message, remedy))
        elif error.validator == "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            for key in missing:
                message = f"the key '{key}' is required and absent"
                found.append(in_config(where or None, None, message, f"add {key}:"))
        elif error.validator == "anyOf":
            options = [" and ".join(o.get("required", [])) for o in error.validator_value]
            message = "one of the keys " + ", ".join(options) + " is required"
            found.append(in_config(where or None, None, message, "add one of them"))
        else:
            message = _in_yaml_words(error) or (
                error.message if len(error.message) < 300 else error.message[:297] + "..."
            )
            remedy = (
                _quoting(error)
                or _named(error)
                or error.schema.get("description", "see config/README.md")
            )
            found.append(in_config(where or None, str(error.instance)[:80], message, remedy))
    # if/then repeats the same complaint through allOf; one is enough.
    return list(dict.fromkeys(found))


def _values(part: Any, known: dict[int, float]) -> float:
    """Number of values in a config, aliases written out; infinite where one contains itself."""
    if not isinstance(part, (Mapping, list)):
        return 1.0
    if id(part) not in known:
        known[id(part)] = math.inf  # until it is counted: what contains itself has no end
        below = part.values() if isinstance(part, Mapping) else part
        known[id(part)] = 1.0 + sum(_values(one, known) for one in below)
    return known[id(part)]


def _keys_without_text(config: Any, where: str = "") -> list[Finding]:
    """Keys that YAML reads as a number, a date or a truth value."""
    parts: Any = config.items() if isinstance(config, Mapping) else ()
    if isinstance(config, list):
        parts = enumerate(config)
    found = []
    for key, value in parts:
        full = f"{where}.{key}" if where else str(key)
        grade = where.endswith(".utilities") and type(key) in (int, float)
        if isinstance(config, Mapping) and not isinstance(key, str) and not grade:
            message = f"YAML reads this key as {_yaml_type(key)}, but a text is wanted here"
            remedy = "put the key in quotes, as the sheet has it"
            found.append(in_config(full, None, message, remedy))
        found += _keys_without_text(value, full)
    return found


def _yaml_type(value: Any) -> str:
    what = {bool: "a truth value", datetime: "a time", date: "a date"}
    return what.get(type(value), "a number")


def _deepest(error: Any) -> Any:
    """Of forms of which none fits, the item where a text is wanted and YAML gave something else."""
    below = [_deepest(one) for one in error.context or () if error.validator == "oneOf"]
    items = [one for one in below if one.absolute_path != error.absolute_path]
    return next(filter(_wants_text, items), error)


def _wants_text(error: Any) -> bool:
    """Whether a text was wanted where YAML gave something of its own."""
    if error.validator != "type" or not isinstance(error.instance, (bool, int, float, date)):
        return False
    wanted = {error.validator_value} if isinstance(error.validator_value, str) else set()
    wanted = wanted or set(error.validator_value)
    number = type(error.instance) in (int, float)
    return "string" in wanted and not (number and "number" in wanted)


def _in_yaml_words(error: Any) -> str | None:
    if not _wants_text(error):
        return None
    found = _yaml_type(error.instance)
    return f"YAML reads this word as {found}, but a text is wanted here"


def _quoting(error: Any) -> str | None:
    if error.validator == "type" and error.validator_value in ("number", "integer"):
        with suppress(ValueError, TypeError):
            if isinstance(error.instance, str):
                return f"write it without quotes, as a plain number: {float(error.instance):g}"
    if not _wants_text(error):
        return None
    if isinstance(error.instance, bool):
        return "put the word in quotes, as it was written ('no', 'yes', 'on', 'off')"
    return f"put it in quotes: '{error.instance}'"


def _named(error: Any) -> str | None:
    """The nearest name, where a key has to be one of a list."""
    key = "propertyNames" in error.absolute_schema_path and error.validator == "enum"
    return _closest(str(error.instance), list(error.validator_value)) if key else None


def repeated_keys(path: str | Path) -> list[Finding]:
    """Keys given twice in one mapping of a YAML or JSON file: all but the last would be lost.

    Parameters
    ----------
    path
        A config file. One that cannot be parsed has no findings here: its reader says why.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
    ...     _ = file.write("study: {id: a, id: b}")
    ...     file.flush()
    ...     [(f.row, f.column) for f in repeated_keys(file.name)]
    [(1, 'study.id')]
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    found: list[Finding] = []
    walked: set[int] = set()  # an alias is its node again, maybe within itself

    def walk(node: yaml.Node | None, where: str) -> None:
        if id(node) in walked:
            return
        walked.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for place, item in enumerate(node.value):
                walk(item, f"{where}.{place}" if where else str(place))
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                full = f"{where}.{name}" if where else name
                if name in first and name != "<<":
                    message = (
                        f"the key is given twice (first in line {first[name]}): the first block "
                        "would be lost"
                    )
                    remedy = "join the two blocks under one key"
                    found.append(at(Path(path).name, line, full, None, message, remedy))
                first.setdefault(name, line)
                walk(value, full)

    walk(root, "")
    return found


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _not_finite(value: Any, where: str = "") -> list[Finding]:
    """NaN and infinity in a config: YAML has words for them, no limit of a schema holds them."""
    if isinstance(value, float) and not math.isfinite(value):
        message, remedy = "not a finite number", "write a number"
        return [in_config(where, str(value), message, remedy)]
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    prefix = f"{where}." if where else ""
    return [f for key, part in parts for f in _not_finite(part, f"{prefix}{key}")]


def _number_problem(text: str, rule: Mapping[str, Any], *, capped: bool = False) -> str | None:
    try:
        found = number(text, capped=capped)
    except ValueError as problem:
        return str(problem)
    if "minimum" in rule and found < rule["minimum"]:
        return f"below the least possible value {rule['minimum']}"
    if "maximum" in rule and found > rule["maximum"]:
        return f"above the greatest possible value {rule['maximum']}"
    if rule.get("integer") and not found.is_integer():
        return "not a whole number"
    return None


def _formulas(
    sheet: pd.DataFrame, distinct: Mapping[Any, Sequence[Any]], name: str
) -> list[Finding]:
    """Cells that a spreadsheet program would compute instead of show."""
    found = []
    for column, values in distinct.items():
        for value in values:
            if str(value)[:1] not in {"=", "+", "@"} or _number_problem(str(value), {}) is None:
                continue
            line = sheet.index[sheet[column] == value][0]
            message = "begins like a formula, which a spreadsheet program would compute"
            remedy = "write it without the first character, or open tables as text only"
            found.append(at(name, line, str(column), value, message, remedy, "warning"))
    return found


def sheet_findings(sheet: pd.DataFrame, kind: str, name: str) -> list[Finding]:
    """Everything in a sheet's columns and cells that its schema (``kind``) forbids.

    Cells are text, None for missing; the index is the line number in the file. They are checked
    once per distinct value, so that 27 000 rows take well under a second.

    Examples
    --------
    >>> sheet = pd.DataFrame({"participant_id": ["1"], "visit": ["v"], "kind": ["DWI"]}, index=[2])
    >>> for finding in sheet_findings(sheet, "scans", "scans.tsv"):
    ...     print(finding.row, finding.column, "|", finding.message.split(":")[0])
    None path | required column is absent
    2 kind | does not match the allowed form
    """
    schema = load_schema("sheets")["properties"][kind]
    properties = schema["properties"]
    found: list[Finding] = []
    for column in schema["required"]:
        if column not in sheet.columns:
            remedy = f"add the column {column}; present: {', '.join(map(str, sheet.columns))}"
            found.append(at(name, None, column, None, "required column is absent", remedy))
    if schema["additionalProperties"] is False:
        for column in sheet.columns:
            if column not in properties:
                message = "unknown column, which would be ignored without a word"
                remedy = _closest(str(column), list(properties))
                found.append(at(name, 1, str(column), None, message, remedy))
    distinct = {column: list(sheet[column].dropna().unique()) for column in sheet.columns}
    found += _formulas(sheet, distinct, name)
    for column, rule in properties.items():
        if column not in sheet.columns:
            continue
        cells = sheet[column]
        if column in schema["required"] and column not in {"value", "certified_value"}:
            for line in cells.index[cells.isna()][:50]:
                remedy = f"fill in {rule['description'].lower()}"
                found.append(at(name, line, column, "n/a", "a required cell is empty", remedy))
        if not ({"pattern", "enum", "x-number", "minLength"} & set(rule)):
            continue
        bad: dict[str, str] = {}
        for value in distinct[column]:
            if "enum" in rule and value not in rule["enum"]:
                bad[value] = "not one of " + ", ".join(rule["enum"])
            elif "pattern" in rule and not re.search(rule["pattern"], value):
                bad[value] = f"does not match the allowed form: {rule['description']}"
            elif "ISO 8601" in rule["description"] and not _is_time(value):
                bad[value] = "no such day or time of day in the calendar"
            elif "x-number" in rule:
                capped = column in CAPPED_COLUMNS
                problem = _number_problem(value, rule["x-number"], capped=capped)
                if problem:
                    bad[value] = problem
        if bad:
            for line, value in cells[cells.isin(list(bad))].items():
                remedy = _remedy(column, value, rule)
                found.append(at(name, line, column, value, bad[value], remedy))
        if column in CAPPED_COLUMNS:
            found += _capped(cells, distinct[column], column, name)
    return found


def _capped(cells: pd.Series, distinct: Sequence[str], column: str, name: str) -> list[Finding]:
    """A note for each capped value: what it is read as, and in how many rows."""
    found = []
    for value in [value for value in distinct if is_capped(value)]:
        lines = cells.index[cells == value]
        message = (
            f"capped in {len(lines)} row{'s' if len(lines) > 1 else ''}; "
            f"read as {number(value, capped=True):g}"
        )
        remedy = "nothing to do; an analysis by age sees the cap as the age"
        found.append(at(name, lines[0], column, value, message, remedy, "note"))
    return found


def _remedy(column: str, value: str, rule: Mapping[str, Any]) -> str:
    if column == "kind":
        kinds = re.findall(r"[A-Za-z0-9]+", rule["pattern"].split("mask-")[0])
        same = [kind for kind in kinds if kind.lower() == value.lower()]
        return (
            f"write '{same[0]}'"
            if same
            else "write one of " + ", ".join(kinds) + " or mask-<label>"
        )
    if "enum" in rule:
        return "write one of " + ", ".join(rule["enum"])
    return f"correct it: {rule['description'].lower()}"
