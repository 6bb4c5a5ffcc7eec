"""The rules of the workflow as its rule files state them: names, words, and what follows what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from corelab.provenance.places import ROOT

RULES = ROOT / "workflow" / "rules"
#: What an expression in a rule's input stands for: files of which rules.
_MEANS = {
    "MEASUREMENTS": "collect",
    "STATISTICS_TABLES": "statistics_tables",
    "FINDINGS": "preflight",
    "GATE": "preflight",
    "measured_records": "measure measure_supplied",
    "batch_records": "measure_supplied",
    'targets("endpoints")': "collect frequency_map",
    'targets("report")': "report",
    'targets("submission")': "submission",
    "visit_files": "simulate_visit",
    "subject_records": "prepare segment perfuse",
    "quality_records": "quality_figures",
    "by_specification": "specifications",
}


@dataclass(frozen=True)
class Rule:
    """A rule of the workflow: name, docstring, stem of its rule file, and rules whose products it
    takes.
    """

    name: str
    text: str
    file: str
    after: tuple[str, ...]


def _block(body: str, name: str) -> str:
    found = re.search(rf"^    {name}:\n((?:        .*\n|\n)+)", body, re.M)
    return found.group(1) if found else ""


def _token(call: str) -> str:
    """Parts of a path without quotes and wildcards, as inputs and outputs both name it."""
    return re.sub(r'\bf(?=")|[\s"]|\{\w+\}', "", call).strip(",")


@cache
def workflow_rules(folder: Path = RULES) -> tuple[Rule, ...]:
    """The rules of the workflow, read from its rule files.

    Examples
    --------
    >>> names = [rule.name for rule in workflow_rules()]
    >>> names.index("prepare") < names.index("segment") < names.index("collect")
    True
    """
    bodies: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*.smk")):
        content = path.read_text(encoding="utf-8")
        parts = re.split(r"^(?:use rule \w+ as |rule )(\w+)(?: with)?:\n", content, flags=re.M)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            bodies[name] = (path.stem, body)
    makers: dict[str, str] = {}
    for name, (_, body) in bodies.items():
        for made in re.findall(r"(?:under|stage)\(([^()]*)\)", _block(body, "output")):
            # Not one made from it, for single jobs of the same products.
            makers.setdefault(_token(made), name)
    rules = []
    for name, (file, body) in bodies.items():
        given = _block(body, "input")
        after = {rule for text, means in _MEANS.items() if text in given for rule in means.split()}
        for taken in re.findall(r"(?:under|stage)\(([^()]*)\)", given):
            after |= {makers.get(_token(taken), "")}
        for taken in re.findall(r"records\(([^()]*)\)", given):
            after |= set(re.findall(r'"(\w+)"', taken))
        # A rule made from another one has no docstring: its message, less the job's wildcards.
        stated = re.search(r'"""(.+?)"""', body, re.S) or re.search(
            r'message:\s+"(.+?)(?:: \{wildcards.*)?"', body
        )
        words = " ".join(stated.group(1).split()).rstrip(".") + "." if stated else ""
        rules.append(Rule(name, words, file, tuple(sorted((after & set(bodies)) - {name}))))
    return tuple(_ordered(rules))


def _ordered(rules: list[Rule]) -> list[Rule]:
    """Rules after those whose products they take."""
    left = {rule.name: rule for rule in rules}
    done: set[str] = set()
    ordered: list[Rule] = []
    while left:
        ready = [rule for rule in left.values() if set(rule.after) <= done]
        for rule in ready or [next(iter(left.values()))]:
            ordered.append(left.pop(rule.name))
            done.add(rule.name)
    return ordered
