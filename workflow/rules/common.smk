"""All Python of the Snakefile: the study, its targets, and what rules ask about it."""

import hashlib
import json
import sys
import time
from pathlib import Path

REPOSITORY = Path(str(workflow.current_basedir)).parents[1]
SCRIPTS = REPOSITORY / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))
# Jobs start a Python of their own; it finds the library by this.
os.environ |= {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(SCRIPTS), os.getenv("PYTHONPATH"))))
}

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from corelab.provenance.digest import digest_of_script
from corelab.study.findings import errors
from corelab.study.model import StudyError, load_study
from corelab.study.naming import session_entity, subject_entity

try:
    STUDY = load_study(config)
except StudyError as error:
    raise WorkflowError(f"The config cannot be used:\n{error}")

if not STUDY.sound:
    # A dry run shows them too; a run stops at the preflight, which writes them to a table.
    logger.error("\n".join(map(str, errors(STUDY.findings))))

FOLDER = STUDY.folder.as_posix()
PASSED = f"{FOLDER}/preflight/passed.json"
# What is wrong with config or sheets is known already while the Snakefile is parsed. Rules wait for
# the preflight, which then fails, only in that case: as an input of sound studies it would rerun
# everything when a sheet is edited (and as an ancient() one hide that edit for one run).
GATE = [] if STUDY.sound else [PASSED]
FINDINGS = f"{FOLDER}/preflight/findings.tsv"
MEASUREMENTS = f"{FOLDER}/endpoints/measurements.tsv"
# Targets that only tell something have no output. Snakemake takes a benchmark file for one, and
# would tell nothing the second time; so each asking has a benchmark of its own.
ASKED = f"{time.time_ns():x}"
STATISTICS_TABLES = [
    f"{FOLDER}/statistics/{name}.tsv"
    for name in (
        "agreement",
        "overlap",
        "pharmacodynamics",
        "survival",
        "radiomics",
        "phantom",
    )
]

# Wildcards are BIDS entities (sub-001, ses-day5), which no id can break out of.
VISITS = {
    (subject_entity(subject), session_entity(visit)): (subject, visit)
    for subject, visit in STUDY.image_visits
}
SUBJECTS = {
    subject_entity(s): (s, visits) for s, visits in STUDY.image_subjects.items()
}
SIMULATED = {row["path"]: row for row in STUDY.scans if row["simulated"]}
BATCHES = [f"{number:04d}" for number in range(len(STUDY.mask_batches))]
ANALYSES = {analysis["id"]: analysis for analysis in STUDY.config["analyses"]}


wildcard_constraints:
    subject=r"sub-[0-9A-Za-z+]+",
    session=r"ses-[0-9A-Za-z+]+",
    batch=r"\d{4}",
    analysis=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    label=r"[A-Za-z0-9][A-Za-z0-9-]*",


def code(rule_name):
    """Digest of a rule's script and of the library code that it uses."""
    return digest_of_script(str(SCRIPTS / f"{rule_name}.py"))


def under(*parts):
    """A path in the study's results folder."""
    return "/".join([FOLDER, *parts])


def study_folder(wildcards):
    """Results folder of the study, as a parameter (paths in records are relative to it)."""
    return FOLDER


def log_of(rule_name, wildcards=""):
    """Log of a rule's job."""
    return under("logs", rule_name, f"{wildcards or rule_name}.log")


def benchmark_of(rule_name, wildcards=""):
    """Benchmark of a rule's job."""
    return under("benchmarks", rule_name, f"{wildcards or rule_name}.tsv")


def stage(name, subject, session=None):
    """Record of a stage: the declared proof that it is done; it lists its other files."""
    parts = ["derivatives", subject, *([session] if session else []), f"{name}.json"]
    return under(*parts)


def plain_rows(rows):
    """Scan rows without what may change when other rows of the sheet do."""
    hidden = {"line", "exists", "bytes", "simulated"}
    return [{k: v for k, v in row.items() if k not in hidden} for row in rows]


def visit_rows(wildcards):
    """Scan rows of a visit, as parameters of its jobs."""
    return plain_rows(STUDY.visit_rows(*VISITS[wildcards.subject, wildcards.session]))


def visit_files(wildcards):
    """Files of a visit that are there; an absent one becomes a status, not a stop."""
    rows = STUDY.visit_rows(*VISITS[wildcards.subject, wildcards.session])
    files = [row["path"] for row in rows if row["exists"]]
    beside = [path.removesuffix(".gz").removesuffix(".nii") + ".json" for path in files]
    return files + [
        path
        for path, scan in zip(beside, files)
        if path != scan and (scan in SIMULATED or os.path.isfile(path))
    ]


def perfused(subject, session):
    """Record of the perfusion stage, where the visit has perfusion."""
    return [stage("perfuse", subject, session)] * (
        VISITS[subject, session] in STUDY.perfusion_visits
    )


def visit_perfusion(wildcards):
    """The same for the jobs of a visit."""
    return perfused(wildcards.subject, wildcards.session)


def subject_records(wildcards):
    """Records of all visits of a subject with images."""
    subject = wildcards.subject
    sessions = [session_entity(visit) for visit in SUBJECTS[subject][1]]
    return [
        record
        for session in sessions
        for record in [
            stage("prepare", subject, session),
            stage("segment", subject, session),
            *perfused(subject, session),
        ]
    ]


def batch_rows(wildcards):
    """Rows of the supplied masks of a batch."""
    return plain_rows(STUDY.mask_batches[int(wildcards.batch)])


def batch_files(wildcards):
    """Files of the supplied masks of a batch that are there."""
    return [
        row["path"] for row in STUDY.mask_batches[int(wildcards.batch)] if row["exists"]
    ]


def atlas_files():
    """Files of the configured atlases."""
    return [
        atlas[key] for atlas in STUDY.config["atlases"] for key in ("path", "labels")
    ]


def records(*names):
    """Stage records of all visits (and normalise of all subjects)."""
    found = []
    for subject, session in VISITS:
        for name in names:
            if name == "perfuse":
                found += perfused(subject, session)
            elif name != "normalise":
                found.append(stage(name, subject, session))
    if "normalise" in names:
        found += [stage("normalise", subject) for subject in SUBJECTS]
    return found


def measured_records():
    """Records that hold measurement rows."""
    return records("measure") + [
        under("endpoints", "batches", f"{b}.json") for b in BATCHES
    ]


def sheet_files(*names):
    """Sheets of the study by name, those that are given."""
    return [
        str(path)
        for key, path in STUDY.sheet_paths.items()
        if key.split("[")[0] in names and path.is_file()
    ]


def sheet_rows(*names):
    """Paths of sheets by name, as parameters."""
    return {
        key: str(path)
        for key, path in STUDY.sheet_paths.items()
        if key.split("[")[0] in names
    }


def map_files():
    """Lesion frequency maps of every label that can have one."""
    with_location = bool(SUBJECTS) or any(
        row["space"] == "MNI152" for row in STUDY.scans
    )
    labels = (
        [label.replace("-", "") for label in STUDY.mask_labels] if with_location else []
    )
    return [under("maps", f"{label}_frequency.nii.gz") for label in labels]


def analysis_tables(wildcards):
    """Sheets that an analysis reads; an edit of another sheet does not rerun it."""
    analysis = ANALYSES[wildcards.analysis]
    wanted = ["participants", "covariates"]
    wanted += ["outcomes"] * bool(analysis.get("outcome"))
    wanted += ["exposures"] * bool(analysis.get("exposure"))
    wanted += ["events"] * (
        analysis["type"] in {"survival", "progression", "radiomics"}
    )
    wanted += ["phantoms"] * (analysis["type"] == "phantom")
    wanted += ["reads"] * bool(analysis.get("strata"))
    return sheet_files(*wanted)


def config_part(*blocks):
    """The part of the config that a job reads, so that no other edit reruns it."""
    always = ("study", "results_dir", "inputs", "data_dir", "phantom", "visits")
    return {key: config[key] for key in (*always, *blocks) if key in config}


def fingerprint(value):
    """Digest of a parameter that is too long to show."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def inputs_fingerprint():
    """Changes when the config or the list, presence or size of the scans does."""
    scans = [(r["scan_id"], r["source"], r["exists"], r["bytes"]) for r in STUDY.scans]
    return fingerprint([STUDY.config, scans])


def visit_memory(wildcards, attempt):
    """Memory of a visit's job, MB: three float copies of its largest scan, and ANTs."""
    rows = STUDY.visit_rows(*VISITS[wildcards.subject, wildcards.session])
    largest = max((row["bytes"] or 0 for row in rows), default=0)
    return attempt * (2000 + int(12 * largest / 1e6))


def targets(*names):
    """Files of the named targets; only the preflight where the study is not sound."""
    truth = [under("phantom", "truth.tsv")] if STUDY.config["phantom"] else []
    parts = {
        "phantom": [*SIMULATED, *truth],
        "images": records("prepare", "segment", "perfuse", "normalise"),
        "endpoints": [
            MEASUREMENTS,
            under("endpoints", "acquisition.tsv"),
            under("endpoints", "flow.tsv"),
            under("endpoints", "overlap.tsv"),
            *map_files(),
            *truth,
        ],
        "statistics": STATISTICS_TABLES,
        "report": [under("report", "index.html"), under("report", "report.pdf")],
        "submission": [under("submission", "index.json")],
        "verify": [
            under("verification", "certificate.tsv"),
            under("provenance", "manifest.json"),
            under("provenance", "trace.tsv"),
            under("provenance", "ro-crate-metadata.json"),
            under("verification", "verified.tsv"),
        ],
    }
    wanted = [path for name in names for path in parts[name]] if STUDY.sound else []
    return [PASSED, *wanted]


def tell_plan():
    """Say what is about to be computed."""
    lines = [
        f"Study {STUDY.id}: {len(STUDY.participants)} participants, {len(STUDY.scans)} scans of "
        f"{len(SUBJECTS)} participants at {len(VISITS)} visits, {len(ANALYSES)} analyses.",
        f"Results go to {FOLDER}/; one log per job lies in {FOLDER}/logs/.",
    ]
    logger.info("\n".join(lines))


def tell_summary(log):
    """Say where the results are and what needs attention."""
    if not STUDY.sound or not Path(MEASUREMENTS).is_file():
        logger.info(f"Done. Findings about the input: {FINDINGS}")
        return
    from corelab.reporting.summary import summary_lines

    logger.info("\n".join(summary_lines(STUDY.folder)))


def tell_failure(log):
    """Say what failed and how to go on."""
    if not STUDY.sound:
        logger.error(
            f"The input has errors, so nothing was computed. They are listed above and in {FINDINGS}."
        )
        return
    logger.error(
        f"Some jobs failed; their last lines are above, their logs in {FOLDER}/logs/. "
        "Nothing half-written counts as a result. Mend the cause and give the same command again: "
        "what is done stays done."
    )
