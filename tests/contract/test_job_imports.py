"""What jobs load at their start: heavy libraries only where they are used.

The demo's small jobs are a hundred Python processes, most of their time imports. Each library here
takes 0.2 to 3 CPU s; a module that needs one in some functions imports it there. A test of modules
and not of seconds: it is the same on every machine.
"""

import ast
import json
import os
import subprocess
import sys

import pytest
from helpers import REPOSITORY

SCRIPTS = REPOSITORY / "workflow" / "scripts"
ALL = sorted(path.stem for path in SCRIPTS.glob("*.py"))
#: Of no rule at its start.
HEAVY = {
    *("ants", "jsonschema", "lifelines", "matplotlib", "nipype", "numba", "pingouin", "SimpleITK"),
    *("skimage", "sklearn", "sksurv", "statsmodels"),
}
#: Jobs that read and write tables: pandas, and nothing for images or statistics.
TABLES = (
    *(
        "adjudication",
        "analyse",
        "certificate",
        "cohort_flow",
        "collect",
        "compare",
    ),
    *("draw", "failures", "lock", "make_lock", "manifest", "plan", "preflight"),
    *("quality", "read_forms", "reading_exhibits", "sensitivity", "specifications_table", "status"),
    *("statistics_tables", "trace", "trace_table", "verified", "verify"),
)
#: What they do not load: a study was checked when the Snakefile was parsed, and an edit of the checks
#: reruns none of them.
NOT_OF_TABLES = {"nibabel", "pydicom", "scipy.ndimage", "scipy.stats", "corelab.study.checks"}
#: Jobs on images: they write tables at most at their end.
IMAGES = ("normalise", "perfuse", "prepare", "segment", "simulate_truth", "simulate_visit")
NOT_OF_IMAGES = {"pandas", "scipy.stats"}
PROGRAM = """
import json, sys
for line in {lines!r}:
    exec(line)
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(rules):
    """Modules in a process that imports what the scripts of these rules import."""
    lines = []
    for rule in rules:
        tree = ast.parse((SCRIPTS / f"{rule}.py").read_text())
        imports = (n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)))
        lines += [ast.unparse(node) for node in imports]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(lines=list(dict.fromkeys(lines)))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("rules", "unwanted"),
    [(ALL, HEAVY), (TABLES, HEAVY | NOT_OF_TABLES), (IMAGES, HEAVY | NOT_OF_IMAGES)],
    ids=["all jobs", "jobs of tables", "jobs on images"],
)
def test_jobs_start_without_libraries_that_they_may_not_need(rules, unwanted):
    loaded = _loaded(rules)
    assert "corelab.provenance.job" in loaded
    if loaded & unwanted:
        guilty = {rule: sorted(_loaded([rule]) & unwanted) for rule in rules}
        raise AssertionError({rule: names for rule, names in guilty.items() if names})


def test_the_log_of_a_job_is_open_before_libraries_load():
    """Only the standard library comes before the threads are set and the log is open."""
    code = "import sys, corelab.provenance.job; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert not {"numpy", "pandas", "scipy", "yaml"} & set(done.stdout.split())
