"""``workflow/schemas/config.schema.yaml``, generated from the models of the config."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from corelab.provenance.places import ROOT
from corelab.settings.analyses import ANALYSIS_TYPES, SPECS
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.base import Settings
from corelab.settings.config import Config

SCHEMAS = ROOT / "workflow" / "schemas"
HEAD = """\
# Generated from corelab/settings by `python -m corelab.settings.schema`; do not edit.
"""
#: Limits of numbers as pydantic names them below a validator -> in JSON schema.
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_MAP, _LIST = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"

#: A text or a list of texts, and the reference to that.
_TEXTS = {
    "oneOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
_ANY_TEXTS = {"$ref": "#/$defs/texts"}
#: What pydantic adds, which no reader of the schema needs.
_OWN = ("title", "$defs")
#: First keys of a rule.
_ORDER = ("description", "type", "enum", "required")
_LAST = ("default", "properties")


def _config_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the config, without references to blocks."""
    whole = _described(Config)
    schema = _plain(whole, whole["$defs"])
    schema["properties"]["analyses"]["items"] = {"$ref": "#/$defs/analysis"}
    own = {name: SPECS[name] for name in ANALYSIS_TYPES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Corelab study",
        **schema,
        "$defs": {"texts": _TEXTS, "analysis": analysis_schema(own)},
    }


def analysis_schema(specs: Mapping[str, type[AnalysisSpec]]) -> dict[str, Any]:
    """JSON schema of an entry of the plan: the keys of types, and what each type requires.

    Which of the keys a type reads, and which values of its own, is said by :func:`unread`: a
    schema of alternatives would only say that none of them fits.
    """
    keys: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    rules: list[dict[str, Any]] = []
    for name, spec in specs.items():
        own = _described(spec)
        for key, part in own["properties"].items():
            keys.setdefault(key, []).append((name, _plain(part, own.get("$defs", {}))))
        if rule := _required(name, spec, own):
            rules.append(rule)
    properties = {key: _joined(parts) for key, parts in keys.items()}
    properties["type"] = {"description": "Kind of analysis", "enum": list(specs)}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "type"],
        "properties": properties,
        "allOf": rules,
    }


def _required(name: str, spec: type[AnalysisSpec], own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rule of a schema: what an analysis of a type must have."""
    keys = [*spec.require, *(k for k in own["required"] if k not in {"id", "type"})]
    then: dict[str, Any] = {"required": keys} if keys else {}
    if spec.require_one:
        then["anyOf"] = [{"required": [key]} for key in spec.require_one]
    when: dict[str, Any] = {"properties": {"type": {"const": name}}}
    if spec.instead:
        when["not"] = {"required": [spec.instead]}
    return {"if": when, "then": then} if then else None


def _joined(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One schema of a key that several types have.

    Where the types differ in the values, each type's own check names a wrong one.
    """
    forms = [form for _, form in parts]
    words = list(dict.fromkeys(form.get("description", "") for form in forms))
    message = words[0]
    if len(words) > 1:
        message = ". ".join(
            f"{', '.join(n for n, f in parts if f.get('description') == one)}: {one}"
            for one in words
        )
    bare = [{k: v for k, v in f.items() if k not in {"description", "default"}} for f in forms]
    # Of one text or a list of them, of any values, only the form stands here.
    bare = [_ANY_TEXTS if _one_or_many(form) else form for form in bare]
    joined = bare[0]
    if any(form != joined for form in bare):
        free = next((form for form in bare if form == _ANY_TEXTS), {"type": "string"})
        values = dict.fromkeys(value for form in bare for value in form.get("enum", ()))
        widest = [form for form in bare if set(form.get("enum", ())) == set(values)]
        joined = widest[0] if values and widest else free
    defaults = [form.get("default") for form in forms]
    if defaults[0] is not None and all(one == defaults[0] for one in defaults):
        joined = {**joined, "default": defaults[0]}
    return {"description": message, **joined}


def _one_or_many(form: Mapping[str, Any]) -> bool:
    """Whether a schema is one text, or a list of the same."""
    options = form.get("oneOf", ())
    return len(options) == 2 and options[1].get("items") == options[0]


def _blocks(base: type[Settings]) -> Iterator[type[Settings]]:
    for block in base.__subclasses__():
        yield block
        yield from _blocks(block)


def _described(whole: type[Settings]) -> dict[str, Any]:
    """JSON schema of a block, with the texts below its fields and those of the blocks in it."""
    schema = whole.model_json_schema()
    names = {one.__name__: one for one in _blocks(Settings)} | {whole.__name__: whole}
    for name, rule in {**schema.get("$defs", {}), whole.__name__: schema}.items():
        for key, text in _descriptions(names[name]).items():
            rule["properties"][key]["description"] = text
    return schema


def _descriptions(block: type[Settings]) -> dict[str, str]:
    """Texts below the fields of a block, and of those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(block.__mro__):
        if base is Settings or not issubclass(base, Settings):
            continue
        tree = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _plain(rule: Mapping[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """A rule with its blocks written out, nullable types as lists, and no titles."""
    given = dict(rule)
    if "$ref" in given:
        block = blocks[given.pop("$ref").rpartition("/")[2]]
        if isinstance(given.get("default"), Mapping):
            given["default"] = {}  # the fields of the block have the defaults
        return _plain({**block, **given}, blocks)
    if "anyOf" in given and any("type" in one or "$ref" in one for one in given["anyOf"]):
        options = [_plain(one, blocks) for one in given.pop("anyOf")]
        given = {**_either(options), **given}
    new = {_LIMITS.get(key, key): part for key, part in given.items() if key not in _OWN}
    if "const" in new:
        new["enum"] = [new.pop("const")]
    if "enum" in new:
        new.pop("type", None)
    if "prefixItems" in new:
        new["items"] = new.pop("prefixItems")[0]
    if "patternProperties" in new:
        new["additionalProperties"] = False
    if not _nullable(new) and new.get("default", ...) is None:
        del new["default"]
    for key in ("properties", "patternProperties"):
        if key in new:
            new[key] = {name: _plain(part, blocks) for name, part in new[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(new.get(key), Mapping):
            new[key] = _plain(new[key], blocks)
    if "properties" in new and "description" in new:
        new["description"] = " ".join(new["description"].split()).removesuffix(".")
    first = {key: new.pop(key) for key in _ORDER if key in new}
    last = {key: new.pop(key) for key in _LAST if key in new}
    return {**first, **new, **last}


def _either(options: list[dict[str, Any]]) -> dict[str, Any]:
    """One rule for several types: null and plain types join the list of types."""
    null = {"type": "null"} in options
    kept = [one for one in options if one != {"type": "null"}]
    types = [one.get("type") for one in kept]
    joined = {key: value for one in kept for key, value in one.items()}
    # Keywords of numbers, lists and mappings do not concern the other types.
    plain = not {"oneOf", "enum", "properties", "minLength", "pattern"} & set(joined)
    if len(kept) > 1 and plain and len(set(map(str, types))) == len(types):
        kept = [{**joined, "type": types}]
    if len(kept) > 1:
        return {"oneOf": kept}
    (one,) = kept
    if null and "enum" in one:
        one["enum"] = [*one["enum"], None]
    elif null:
        types = one["type"] if isinstance(one["type"], list) else [one["type"]]
        one["type"] = [*types, "null"]
    return one


def _nullable(rule: Mapping[str, Any]) -> bool:
    return None in rule.get("enum", ()) or "null" in rule.get("type", ())


class _Dumper(yaml.SafeDumper):
    """One line for each key, blocks indented."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow(data: Any) -> bool:
    """Whether a rule is written on one line: it contains no block of keys."""
    if isinstance(data, dict):
        return "properties" not in data and all(map(_flow, data.values()))
    return not isinstance(data, list) or all(map(_flow, data))


_Dumper.add_representer(
    dict, lambda d, data: d.represent_mapping(_MAP, data.items(), flow_style=_flow(data))
)
_Dumper.add_representer(
    list, lambda d, data: d.represent_sequence(_LIST, data, flow_style=_flow(data))
)


def _schema_text() -> str:
    """Text of ``config.schema.yaml``."""
    return HEAD + yaml.dump(
        _config_schema(), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True
    )


if __name__ == "__main__":
    from corelab.provenance.products import write_text

    write_text(_schema_text(), SCHEMAS / "config.schema.yaml")
