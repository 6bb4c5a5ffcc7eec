"""The study of this run, and the names that several rule files use.

In: the config. Out: STUDY, TARGETS (paths, corelab.workflow.targets), SESSION (messages and checks
of the run, corelab.workflow.session), the digest of each rule's code, and short names for them.
Functions that serve one rule file stand there, above their rules.
"""

import functools
import gc
import os
import sys
import time
from pathlib import Path

REPOSITORY = Path(str(workflow.current_basedir)).parents[1]
SCRIPTS = REPOSITORY / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))
# Jobs start a Python of their own, which finds the library by this.
os.environ |= {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(SCRIPTS), os.getenv("PYTHONPATH"))))
}

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from corelab.provenance.digest import digest_of_script
from corelab.settings.base import fingerprint
from corelab.study.findings import errors, grouped_lines
from corelab.study.loading import StudyError, load_study
from corelab.study.presets import with_preset
from corelab.study.schema import repeated_keys
from corelab.study.naming import subject_entity
from corelab.workflow import inputs
from corelab.workflow.cohort import cohort_of
from corelab.workflow.costs import Limits, growing, priorities, priority_of
from corelab.workflow.inputs import inspected, plain_rows
from corelab.workflow.session import Session, is_dry_run
from corelab.workflow.targets import GLIOMA_SCANS, Targets

# A plan is millions of objects that live to the end: looking through them again and again for garbage
# costs a fifth of the planning time.
gc.set_threshold(20_000, 500, 1000)

if repeated := [key for path in workflow.configfiles for key in repeated_keys(path)]:
    lines = "\n".join(map(str, repeated))
    raise WorkflowError(f"The config cannot be used:\n{lines}")
# `--config without_failed=true` arrives as text (Snakemake reads only `True` as a boolean).
if str(config.get("without_failed")).lower() in {"true", "false"}:
    config["without_failed"] = str(config["without_failed"]).lower() == "true"
# A preset gives the values that the config does not, also for the jobs.
config.update(with_preset(config))
try:
    STUDY = load_study(config)
except StudyError as error:
    raise WorkflowError(f"The config cannot be used:\n{error}")

if not STUDY.sound:
    # A run stops at the preflight, which writes the findings to a table; a dry run stops here.
    lines = "\n".join(grouped_lines(errors(STUDY.findings)))
    if is_dry_run(sys.argv):
        raise WorkflowError(
            f"{lines}\nThe input has errors: nothing would be computed."
        )
    logger.error(lines)


def code(script):
    """Digest of a rule's script and of the library code that it uses."""
    return digest_of_script(str(SCRIPTS / f"{script}.py"))


COHORT = cohort_of(STUDY)
VISITS, SUBJECTS = COHORT.visits, COHORT.subjects
TARGETS = Targets(STUDY, COHORT)
SESSION = Session(TARGETS, workflow, code, sys.argv)
SESSION.compare_inputs()
given = SESSION.given
LIMITS = Limits(STUDY, COHORT)
memory_of, runtime_of = LIMITS.memory_of, LIMITS.runtime_of
PRIORITIES = priorities(COHORT, LIMITS.scans_mb)

# Paths of the study, and files and parameters that jobs of several rule files take.
under, stage, records = TARGETS.under, TARGETS.stage, TARGETS.records
targets, requested = TARGETS.targets, TARGETS.requested
FOLDER = TARGETS.folder
#: Sheets that make up the table of participants.
PEOPLE = ("participants", "covariates")
GATE = TARGETS.preflight
LOCK = TARGETS.lock
PASSED = under("preflight", "passed.json")
FINDINGS = under("preflight", "findings.tsv")
MEASUREMENTS = under("endpoints", "measurements.tsv")
FEATURES = under("endpoints", "features.tsv")
STATISTICS_TABLES = TARGETS.statistics_tables
ANALYSES = TARGETS.analyses
# Rules that only print have no output. Snakemake takes a benchmark file for one, and would print
# nothing the second time; so each run has a benchmark of its own.
RUN_ID = f"{time.time_ns():x}"


wildcard_constraints:
    subject=r"sub-[0-9A-Za-z+]+",
    session=r"ses-[0-9A-Za-z+]+",
    batch=r"\d{4}",
    scan=r"(?!qa/).+",
    qa=r"(?:(?!_labels)[^/])+",
    seed=r"[1-9]\d*",
    analysis=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    label=r"[A-Za-z0-9][A-Za-z0-9-]*",
    map=r"[A-Za-z0-9][A-Za-z0-9-]*",


def sheet_files(*names):
    """Input function: sheets of the study by name."""
    return lambda wildcards: given(inputs.sheet_files(STUDY, *names))


def atlas_files():
    """Files of the atlases, as inputs."""
    return given(inputs.atlas_files(STUDY))


def program_files():
    """Containers and weights of segmentation programs, as inputs."""
    return given(inputs.program_files(STUDY))


def log_of(rule_name, wildcards=""):
    """Log of a rule's job."""
    return under("logs", rule_name, f"{wildcards or rule_name}.log")


def benchmark_of(rule_name, wildcards=""):
    """Benchmark of a rule's job."""
    return under("benchmarks", rule_name, f"{wildcards or rule_name}.tsv")


@inspected
def subject_records(wildcards):
    """Stage records of all visits of a participant."""
    return TARGETS.subject_records(wildcards.subject)
