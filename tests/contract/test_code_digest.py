"""The code digest follows every module that a job loads, so an edit of it reruns the job."""

import ast
import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY, clear_digest_caches

from corelab.plan.run import analysis_types
from corelab.provenance import digest
from corelab.registration.backends import BACKENDS
from corelab.settings.analyses import ANALYSIS_TYPES

SCRIPTS = REPOSITORY / "workflow" / "scripts"
ROOT = SCRIPTS / "corelab"

#: Last lines of every program: the library's files that its process loaded.
LOADED = """
import json, sys
files = [getattr(m, "__file__", None) for n, m in sys.modules.items() if n.split(".")[0] == "corelab"]
print(json.dumps({"kinds": kinds, "files": sorted(filter(None, files))}))
"""

#: Every analysis type once, as rule ``analyse`` runs it.
ANALYSES = """
import numpy as np, pandas as pd
from corelab.measurement.selection import Tables
from corelab.plan.run import run
from corelab.settings.analyses import spec_of

rng = np.random.default_rng(1)
n = 48
ids = [f"{k:02d}" for k in range(n)]
dose = np.repeat([0.0, 10.0, 20.0, 30.0], n // 4)
first = rng.lognormal(2, 0.4, n)
last = first * np.exp(-0.03 * dose + rng.normal(0, 0.3, n))
rows = [
    (who, visit, "infarct_volume", source, value * noise)
    for visit, values in (("d0", first), ("d5", last), ("d9", last * rng.lognormal(0, 0.1, n)))
    for who, value in zip(ids, values)
    for source, noise in (("pipeline", 1.0), ("r1", 1 + 0.1 * rng.normal()), ("r2", 1.02))
]
measurements = pd.DataFrame(
    rows, columns=["participant_id", "visit", "endpoint", "source", "value"]
).assign(repeat=1, region="all", unit="mL", status="ok", reason="", scan_ids="", row_id="")
people = pd.DataFrame({
    "participant_id": ids, "dose": dose, "arm": np.where(dose > 10, "high", "low"),
    "site": np.tile(["a", "b"], n // 2), "age": rng.normal(60, 9, n),
})
mrs = np.digitize(last + rng.normal(0, 2, n), [3.0, 5.0, 7.0, 9.0]).astype(float)
score = 10 - 4 * np.log(last / first) + rng.normal(0, 1, n)
outcomes = pd.concat([
    pd.DataFrame({"participant_id": ids, "visit": "d5", "outcome": name, "value": values})
    for name, values in (("mrs", mrs), ("score", score))
])
death = rng.exponential(300 * np.exp(-last / 20), n) + 1
events = pd.concat([
    pd.DataFrame({"participant_id": ids, "endpoint": name, "time_days": death * share,
                  "event": 1.0, "criterion": criterion})
    for name, share, criterion in (("os", 1.0, None), ("pfs", 0.5, "a"), ("pfs", 0.6, "b"))
])
features = pd.DataFrame(
    [(who, "d0", "T1c", "enhancing", "pipeline", f"f{j}", death[k] * (j < 3) + rng.normal(0, 99))
     for k, who in enumerate(ids) for j in range(6)],
    columns=["participant_id", "visit", "series", "label", "source", "feature", "value"],
)
overlap = pd.DataFrame(
    [(who, "d0", "infarct", "r1", "r2", "dice", 0.8 + 0.1 * rng.random()) for who in ids],
    columns=["participant_id", "visit", "label", "source_a", "source_b", "metric", "value"],
).assign(repeat=1, status="ok", reason="", scan_ids="")
certified = np.tile([5.0, 10.0, 20.0, 40.0], 6)
phantoms = pd.DataFrame({
    "site": "a", "scanner": "s1", "acquired_at": np.repeat([f"2020-0{m}-01" for m in range(1, 7)], 4),
    "insert": np.tile(list("abcd"), 6), "kind": "infarct", "role": "infarct",
    "certified_value": certified, "unit": "mL", "measured_value": certified * (1 + rng.normal(0, 0.02, 24)),
    "status": "ok", "reason": "",
})
tables = Tables(
    measurements, people, overlap=overlap, outcomes=outcomes, events=events, radiomics=features,
    phantoms=phantoms, visit_order=("d0", "d5", "d9"), baseline="d0",
)
volume = {"endpoint": "infarct_volume", "visit": "d5"}
trial = {**volume, "by": "arm", "reference": "low", "outcome": "score", "resamples": 20}
kinds = {}
for kind, keys in {
    "agreement": {"endpoint": "infarct_volume", "sources": ["r1", "r2"]},
    "overlap": {"label": "infarct", "sources": ["r1", "r2"]},
    "phantom": {"truth": "certified_value"},
    "correlation": {**volume, "outcome": "score"},
    "comparison": {"endpoint": "infarct_volume", "by": "arm", "method": "mmrm",
                   "derivation": "change", "baseline": "d0"},
    "dose_response": {**volume, "dose": "dose", "models": ["linear"]},
    "ordinal": {"outcome": "mrs", "by": "arm"},
    "quantile": {**volume, "by": "arm", "quantiles": [0.5]},
    "survival": {"event_endpoint": "os", "by": "arm", "method": "km"},
    "progression": {"criteria": ["a", "b"]},
    "radiomics": {"series": ["T1c"], "labels": ["enhancing"], "model": "superpc", "permutations": 3},
    "diagnostic": {**volume, "outcome": "mrs", "positive_above": 2},
    "mediation": trial,
    "surrogacy": trial,
    "sample_size": {"endpoint": "infarct_volume", "visit": "d0", "sources": ["r1", "r2"],
                    "difference": 5},
}.items():
    found = run(spec_of({"id": kind, "type": kind, **keys}), tables)
    kinds[kind] = int(found["estimate"].notna().sum())
"""

#: Every backend: the program's presence is looked up, and the two in Python fit once.
FITS = """
import nibabel as nib, numpy as np
from corelab.registration import align_visit, normalise_subject
from corelab.settings.registration import RegistrationSettings
from corelab.registration.backends import BACKENDS, registrar
from corelab.registration.registrar import BackendMissing

grid = np.stack(np.meshgrid(*[np.arange(20.0)] * 3, indexing="ij"))
blob = np.exp(-(((grid - 9.5) / np.array([4, 5, 6.0]).reshape(3, 1, 1, 1)) ** 2).sum(0))
fixed = nib.Nifti1Image((100 * blob).astype(np.float32), np.diag([4.0, 4, 4, 1]))
moving = nib.Nifti1Image(np.roll(fixed.get_fdata(), 1, 0).astype(np.float32), fixed.affine)
kinds = {}
for name in BACKENDS:
    settings = RegistrationSettings.model_validate({"preset": "testing", "backend": name})
    try:
        kinds[name] = registrar(settings).rigid(fixed, moving).kind
    except BackendMissing:
        kinds[name] = "missing"
"""


def _run(program):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + LOADED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "PYTHONHASHSEED": "0"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return found["kinds"], set(found["files"])


def _followed(rule, scripts=SCRIPTS):
    return {str(path) for path in digest._modules_of(scripts / f"{rule}.py", scripts)}


def _names(paths):
    return sorted(path.removeprefix(f"{ROOT}/") for path in paths)


@pytest.fixture(scope="module")
def trees():
    """File -> its syntax tree: scripts and modules, parsed once for all tests here."""
    paths = sorted(SCRIPTS.rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_no_module_is_imported_by_a_computed_name(trees):
    computed = {"import_module", "__import__", "run_module", "run_path", "spec_from_file_location"}
    loaders = {"entry_points", "EntryPoint"}
    wrong = []
    for path, tree in trees.items():
        # The one loader is terms/plugins.py; the digest follows plugins.files.
        refused = computed if path == ROOT / "terms" / "plugins.py" else computed | loaders
        for node in ast.walk(tree):
            used = {
                ast.Name: lambda n: n.id,
                ast.Attribute: lambda n: n.attr,
                ast.alias: lambda n: n.name.split(".")[-1],
            }.get(type(node), lambda n: "")(node)
            wrong += [f"{path}:{node.lineno}: {used}"] if used in refused else []
    assert not wrong, "import by its own name:\n" + "\n".join(wrong)


def test_no_rule_file_imports_by_a_computed_name():
    files = [*(REPOSITORY / "workflow").rglob("*.smk"), REPOSITORY / "workflow" / "Snakefile"]
    for path in files:
        assert "import_module" not in path.read_text() and "__import__" not in path.read_text()


def test_every_analysis_type_loads_only_what_the_digest_follows():
    kinds, loaded = _run(ANALYSES)
    assert set(analysis_types()) == set(ANALYSIS_TYPES) == set(kinds)
    assert all(kinds.values()), f"without an estimate: {[k for k, n in kinds.items() if not n]}"
    assert str(ROOT / "pharmacodynamics" / "mmrm.py") in loaded
    for rule in ("analyse", "specifications"):
        assert not _names(loaded - _followed(rule)), rule


def test_every_backend_loads_only_what_the_digest_follows():
    kinds, loaded = _run(FITS)
    assert set(kinds) == set(BACKENDS)
    assert (kinds["ants"], kinds["greedy"]) == ("rigid", "rigid")
    expected = {str(ROOT / "registration" / f"{name}_backend.py") for name in ("ants", "greedy")}
    assert expected | {str(ROOT / "registration" / "nipype_backends.py")} <= loaded
    for rule in ("prepare", "normalise"):
        assert not _names(loaded - _followed(rule)), rule


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("pharmacodynamics/comparison.py", {"analyse"}),
        ("pharmacodynamics/mmrm.py", {"analyse", "specifications"}),
        ("pharmacodynamics/missing_visits.py", {"analyse"}),
        ("pharmacodynamics/time_to_event.py", {"analyse"}),
        ("registration/ants_backend.py", {"prepare", "normalise"}),
        ("registration/greedy_backend.py", {"prepare", "normalise"}),
        ("registration/nipype_backends.py", {"prepare", "normalise"}),
        ("reporting/tlf.py", {"printed_report", "submission"}),
    ],
)
def test_an_edit_changes_the_digest_of_the_rules_that_run_it(module, rules, tmp_path):
    copy = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__", "assets"))

    def digests():
        clear_digest_caches()
        return {rule: digest.digest_of_script(str(copy / f"{rule}.py")) for rule in rules}

    before = digests()
    (copy / "corelab" / module).open("a").write("\n# edited\n")
    after = digests()
    clear_digest_caches()
    assert {rule for rule in rules if after[rule] != before[rule]} == rules


def names_imported(tree):
    """Own modules that a tree imports, and registries that it opens."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names if one.name.split(".")[0] == "corelab"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the digest does not follow relative imports"
            if node.module.split(".")[0] == "corelab":
                names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "registry":
            names.add(f"registry:{ast.literal_eval(node.args[0])}")
    return names


def test_imports_in_the_text_are_those_of_the_parsed_file(trees):
    parsed = {path: names_imported(tree) for path, tree in trees.items()}
    assert {path: set(digest._imports(path, SCRIPTS)) for path in trees} == parsed
