"""config/README.md, written from the schemas so that it cannot say anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from corelab.provenance.places import ROOT
from corelab.study.schema import load_schema
from corelab.terms.endpoints import ENDPOINT_UNITS

HEAD = """# Configuring a study

<!-- Written by `python -m corelab.study.documentation` from workflow/schemas; do not edit. -->

A study is one config file (YAML or JSON) and a few sheets (TSV, UTF-8, `n/a` for missing). Only
`study.id` and `inputs.participants` are required; a key that is absent takes the default given
here, and a key that is not listed is an error. Run a study with

    .venv/bin/snakemake --configfile my/config.yaml

Units are in the names of keys. Paths in `inputs` are absolute, or relative to the working
directory, or else to `data_dir`; paths in the scans sheet are absolute, or relative to `data_dir`,
or else to the sheet. Ids are text: `007` stays `007`.
"""


def _type(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if "const" in rule:
        return f"`{rule['const']}`"
    if "$ref" in rule:
        return "text or list of texts"
    kind = rule.get("type", "")
    kinds = kind if isinstance(kind, list) else [kind]
    words = {"null": "nothing", "string": "text", "array": "list", "object": "block"}
    return " or ".join(words.get(str(k), str(k)) for k in kinds)


def _default(rule: Mapping[str, Any]) -> str:
    if "default" not in rule:
        return ""
    value = rule["default"]
    return "" if value in ({}, []) else f"`{json.dumps(value)}`"


def _keys(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", [])
    for key, rule in schema.get("properties", {}).items():
        name = f"{prefix}{key}"
        shown = f"**`{name}`**" if key in required else f"`{name}`"
        yield shown, _type(rule), _default(rule), rule.get("description", "")
        if rule.get("properties"):
            yield from _keys(rule, f"{name}.")
        if isinstance(rule.get("items"), Mapping) and rule["items"].get("properties"):
            yield from _keys(rule["items"], f"{name}[].")
        for pattern, part in rule.get("patternProperties", {}).items():
            yield (
                f"`{name}.<{pattern.strip('^$()')}>`".replace("|", " "),
                _type(part),
                "",
                (part.get("description", "limits, `<criterion>_min` and `<criterion>_max`")),
            )


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def config_readme() -> str:
    """Text of ``config/README.md``."""
    config, sheets = load_schema("config"), load_schema("sheets")
    lines = [HEAD, "## Config keys", "", "Required keys are bold.", ""]
    lines += _table(("key", "value", "default", "meaning"), _keys(config))
    lines += ["", "## Keys of an analysis (`analyses[]`)", ""]
    lines += _table(("key", "value", "default", "meaning"), _keys(config["$defs"]["analysis"]))
    lines += ["", "## Sheets", "", "Required columns are bold."]
    for name, schema in sheets["properties"].items():
        lines += ["", f"### {name}", ""]
        rows = (
            (
                f"**`{column}`**" if column in schema["required"] else f"`{column}`",
                ", ".join(f"`{v}`" for v in rule["enum"])
                if "enum" in rule
                else "number"
                if "x-number" in rule
                else "text",
                rule.get("description", ""),
            )
            for column, rule in schema["properties"].items()
        )
        lines += _table(("column", "value", "meaning"), rows)
        if schema["additionalProperties"] is not False:
            lines += ["", "Every further column is a covariate."]
    lines += ["", "## Endpoints and their units", ""]
    lines += _table(
        ("endpoint", "unit"), ((f"`{name}`", unit) for name, unit in ENDPOINT_UNITS.items())
    )
    lines += [
        "",
        "The volume of a mask with any other label is `lesion_volume:<label>`, in mL.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    from corelab.provenance.products import write_text

    write_text(config_readme(), ROOT / "config" / "README.md")
