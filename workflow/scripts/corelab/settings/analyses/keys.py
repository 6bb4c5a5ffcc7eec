"""Keys of the plan: their JSON schema, and the keys that an analysis has and does not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from corelab.settings.analyses import SPECS
from corelab.settings.analyses.base import AnalysisSpec, texts

#: A text or a list of texts, whatever the texts are: a type's own check names a wrong one.
_TEXTS = {"$ref": "#/$defs/texts"}


def unread(
    entry: Mapping[str, Any], grades: Collection[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that have no effect, and values that a key does not know.

    A key that is accepted and not read would let a plan say what is not done.

    Parameters
    ----------
    entry
        One entry of ``analyses``.
    grades
        Endpoints that are graded in words.

    Yields
    ------
    tuple of str
        Key, what is wrong, and how to fix it.

    Examples
    --------
    >>> [key for key, *_ in unread({"type": "quantile", "endpoint": "v", "strata": ["sex"]})]
    ['strata']
    >>> list(unread({"type": "comparison", "method": "ancova", "imputations": 5}))[0][1]
    'it is read with method multiple_imputation only'
    >>> list(unread({"type": "survival", "method": "finegry"}))[0][1]
    "an analysis of type survival does not know 'finegry'"
    """
    name = str(entry.get("type"))
    if name not in SPECS:
        return
    spec = SPECS[name]
    known = spec.model_fields
    # Not validated: every finding is reported, also of an entry with wrong values.
    built = spec.model_construct(**{key: entry[key] for key in entry if key in known})
    for key in entry:
        if key not in known:
            own = ", ".join(sorted(set(known) - set(AnalysisSpec.model_fields)))
            yield (
                key,
                f"an analysis of type {name} does not read this key",
                f"remove it; read are {own}",
            )
        elif not (need := spec.need(key)).holds(built, grades):
            yield key, f"it is read with {need.words} only", f"remove it, or give {need.words}"
    for key in set(entry) & set(known) - {"type"}:
        values = spec.choices(key)
        for one in texts(entry[key]) if values else ():
            if one not in values:
                yield (
                    key,
                    f"an analysis of type {name} does not know '{one}'",
                    f"write one of {', '.join(values)}",
                )


def analysis_schema() -> dict[str, Any]:
    """JSON schema of an entry of the plan: the keys of all types, and what each type requires.

    Which of the keys a type reads, and which values of its own, is said by :func:`unread`: a
    schema of alternatives would only say that none of them fits.
    """
    keys: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    rules: list[dict[str, Any]] = []
    for name, spec in SPECS.items():
        own = spec.model_json_schema()
        for key, part in own["properties"].items():
            keys.setdefault(key, []).append((name, _plain(part, own.get("$defs", {}))))
        if rule := _required(name, spec, own):
            rules.append(rule)
    properties = {key: _joined(parts) for key, parts in keys.items()}
    properties["type"] = {"description": "Kind of analysis", "enum": list(SPECS)}
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


#: Limits of a number that is an integer or a float, under the names of JSON schema.
_LIMITS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
}


def _plain(part: Any, defs: Mapping[str, Any]) -> Any:
    """A schema of pydantic in the form of ours: no titles, no null, no reference inside.

    Examples
    --------
    >>> _plain({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}], "gt": 0}, {})
    {'exclusiveMinimum': 0, 'type': 'number'}
    """
    if isinstance(part, list):
        return [_plain(one, defs) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        below = defs[part["$ref"].rpartition("/")[2]]
        return _plain({**below, **{k: v for k, v in part.items() if k != "$ref"}}, defs)
    found = {
        _LIMITS.get(key, key): {name: _plain(one, defs) for name, one in value.items()}
        if key == "properties"
        else _plain(value, defs)
        for key, value in part.items()
        if key not in {"title", "anyOf"} and not (key == "default" and value is None)
    }
    if found.get("type") == "object" and found.get("additionalProperties") is True:
        del found["additionalProperties"]
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "enum" in found:
        found.pop("type", None)
    if "anyOf" in part and "type" not in found:
        found = _one_form([_plain(one, defs) for one in part["anyOf"]]) | found
    return found


def _one_form(forms: list[dict[str, Any]]) -> dict[str, Any]:
    """Alternatives of different types as one schema with several types."""
    forms = [form for form in forms if form.get("type") != "null"]
    types = [kind for form in forms for kind in texts(form.get("type", "string"))]
    if types == ["string", "array"] and forms[1]["items"] == forms[0]:
        return _TEXTS
    if "number" in types:
        types = [kind for kind in types if kind != "integer"]
    joined = {key: value for form in forms for key, value in form.items() if key != "description"}
    if not {"enum", "$ref"} & set(joined):
        joined["type"] = types[0] if len(types) == 1 else types
    return joined | {k: v for form in forms for k, v in form.items() if k == "description"}


def _joined(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One schema of a key that several types have.

    Where the types differ in the values, each type's own check names a wrong one.
    """
    forms = [form for _, form in parts]
    words = list(dict.fromkeys(form.get("description", "") for form in forms))
    told = words[0]
    if len(words) > 1:
        told = ". ".join(
            f"{', '.join(n for n, f in parts if f.get('description') == one)}: {one}"
            for one in words
        )
    bare = [{k: v for k, v in f.items() if k not in {"description", "default"}} for f in forms]
    joined = bare[0]
    if any(form != joined for form in bare):
        free = next((form for form in bare if form == _TEXTS), {"type": "string"})
        values = dict.fromkeys(value for form in bare for value in form.get("enum", ()))
        widest = [form for form in bare if set(form.get("enum", ())) == set(values)]
        joined = widest[0] if values and widest else free
    defaults = [form.get("default") for form in forms]
    if defaults[0] is not None and all(one == defaults[0] for one in defaults):
        joined = {**joined, "default": defaults[0]}
    return {"description": told, **joined}
