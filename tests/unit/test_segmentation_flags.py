"""Every flag that the source can emit has a severity and a title, and no other has."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import corelab
from corelab.segmentation.segmenter import Segmentation
from corelab.study.mask_flags import FLAGS

SOURCE = Path(corelab.__file__).parent
FILES = [*sorted((SOURCE / "segmentation").glob("*.py")), SOURCE / "imaging/brain_quality.py"]


def _words(nodes):
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def _keys(node):
    return _words(k for d in ast.walk(node) if isinstance(d, ast.Dict) for k in d.keys)


def emitted(source):
    """Flags of a module: ``flags[..] = ``, ``flags = {..}``, ``"flags": [..]``, ``def .._flags``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if ast.unparse(target) == "flags" and node.value is not None:
                    found |= _keys(node.value)
                if isinstance(target, ast.Subscript) and ast.unparse(target.value) == "flags":
                    found |= _words([target.slice])
        elif isinstance(node, ast.FunctionDef) and node.name.endswith(("flag", "flags")):
            returned = [n for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
            found |= set().union(*(_keys(one.value) for one in returned))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "flags":
                    found |= _words(ast.walk(value)) if isinstance(value, ast.List) else set()
    return found


def test_flags_of_the_source_are_those_of_the_home():
    found = set().union(*(emitted(path.read_text(encoding="utf-8")) for path in FILES))
    assert found == set(FLAGS)


@pytest.mark.parametrize(
    "source",
    [
        'flags["new"] = "words"',
        'flags = {"new": "words"}',
        'def _new_flag():\n    return {"new": "words"}',
        'entry = {"flags": ["new"]}',
    ],
)
def test_a_new_flag_is_found_in_the_source(source):
    assert emitted(source) == {"new"}


def test_a_flag_without_severity_is_refused_where_it_is_made():
    mask = np.zeros((1, 1, 1), bool)
    with pytest.raises(ValueError, match="unheard_of"):
        Segmentation("infarct", "pipeline", mask, 0.0, 0.0, 0.0, {}, flags=("unheard_of",))
