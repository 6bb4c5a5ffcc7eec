"""All Python of the Snakefile: the study, its targets, and what rules ask about it."""

import functools
import hashlib
import json
import re
import sys
import time
from dataclasses import asdict
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

from corelab.measurement.recovery_targets import targets_of
from corelab.measurement.time_windows import serial_pairs
from corelab.pharmacodynamics.plan_runner import failed_products, failure_words
from corelab.provenance.cluster import mend_status_command
from corelab.provenance.contents import compare
from corelab.provenance.digest import digest_of_script
from corelab.provenance.failures import by_stage
from corelab.provenance.ledger import (
    ASKING,
    FolderLock,
    clear_leftovers,
    damaged,
    failures,
    mend_times,
    set_aside,
    standing,
    to_make_again,
    wait_for_others,
)
from corelab.provenance.planning import plan_by_content, quicken
from corelab.provenance.progress import Progress, closing_lines, expected, scan_failures
from corelab.study.columns import DRAWN_TYPES, OUTCOME_TYPES
from corelab.study.findings import errors, grouped_lines
from corelab.study.model import BLOCKS, StudyError, load_study
from corelab.study.models import configured_models, model_files
from corelab.study.presets import with_preset
from corelab.study.schema import repeated_keys
from corelab.study.naming import session_entity, subject_entity
from corelab.study.plan_figures import KINDS as FIGURE_KINDS, figure_kinds

quicken()

# `--config without_failed=true` arrives as text (only `True` is taken for a truth by Snakemake).
if str(config.get("without_failed")).lower() in {"true", "false"}:
    config["without_failed"] = str(config["without_failed"]).lower() == "true"

# `-np` is a dry run as `-n -p` is.
DRY_RUN = any(
    word in {"--dry-run", "--dryrun"} or re.fullmatch("-[a-zA-Z]*n[a-zA-Z]*", word)
    for word in sys.argv
)

if twice := [key for path in workflow.configfiles for key in repeated_keys(path)]:
    raise WorkflowError("The config cannot be used:\n" + "\n".join(map(str, twice)))

# The design of a preset lies beneath the config, for the jobs too.
config.update(with_preset(config))
try:
    STUDY = load_study(config)
except StudyError as error:
    raise WorkflowError(f"The config cannot be used:\n{error}")

if not STUDY.sound:
    # A run stops at the preflight, which writes them to a table; a dry run has nothing to plan.
    lines = "\n".join(grouped_lines(errors(STUDY.findings)))
    if DRY_RUN:
        raise WorkflowError(
            f"{lines}\nThe input has errors: nothing would be computed."
        )
    logger.error(lines)

FOLDER = STUDY.folder.as_posix()
PASSED = f"{FOLDER}/preflight/passed.json"
# What is wrong with config or sheets is known already while the Snakefile is parsed. Rules wait for
# the preflight, which then fails, only in that case: as an input of sound studies it would rerun
# everything when a sheet is edited (and as an ancient() one hide that edit for one run).
GATE = [] if STUDY.sound else [PASSED]
FINDINGS = f"{FOLDER}/preflight/findings.tsv"
MEASUREMENTS = f"{FOLDER}/endpoints/measurements.tsv"
FEATURES = f"{FOLDER}/endpoints/features.tsv"
# Targets that only tell something have no output. Snakemake takes a benchmark file for one, and
# would tell nothing the second time; so each asking has a benchmark of its own.
ASKED = f"{time.time_ns():x}"
# What is computed from reads waits for their lock and for how they stand against it.
LOCK = (
    [f"{FOLDER}/reading/lock.json", f"{FOLDER}/reading/validity.json"]
    if STUDY.central_read
    else []
)
FINAL_READS = (
    [
        f"{FOLDER}/reading/final_reads.tsv",
        f"{FOLDER}/reading/rereview_final_reads.tsv",
    ]
    if STUDY.central_read
    else []
)
READING_EXHIBITS = [
    f"{FOLDER}/exhibits/reading_{name}.json"
    for name in (
        "standing",
        "rates",
        "p_chart",
        "conduct",
        "turnaround",
        "attestations",
    )
]
PERFUSION_CUTOFFS = {
    "table": f"{FOLDER}/statistics/perfusion_cutoffs.tsv",
    "figure": f"{FOLDER}/exhibits/perfusion_cutoffs.svg",
    "exhibit": f"{FOLDER}/exhibits/perfusion_cutoffs.json",
}
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
# What is known of image quality by site and scanner, in endpoints/.
QUALITY = {
    "summary": f"{FOLDER}/endpoints/acquisition_summary.tsv",
    "charts": f"{FOLDER}/endpoints/control_charts.tsv",
    "requests": f"{FOLDER}/endpoints/repeat_requests.tsv",
    "completeness": f"{FOLDER}/endpoints/completeness.tsv",
    "phantom_verdicts": f"{FOLDER}/endpoints/phantom_verdicts.tsv",
    "phantom_sites": f"{FOLDER}/endpoints/phantom_sites.tsv",
}
# What of it the report shows: a study without scans or phantoms has none.
QUALITY_EXHIBITS = [
    f"{FOLDER}/exhibits/{name}.json"
    for name, there in (
        ("quality_charts", bool(VISITS)),
        ("quality_summary", bool(VISITS)),
        ("quality_requests", bool(VISITS)),
        ("quality_findings", bool(VISITS)),
        (
            "quality_completeness",
            bool((STUDY.config["acquisition"].get("trial") or {}).get("complete")),
        ),
        ("phantom_sites", bool(STUDY.phantoms)),
        ("phantom_verdicts", bool(STUDY.phantoms)),
    )
    if there
]
SIMULATED = {row["path"]: row for row in STUDY.scans if row["simulated"]}
#: Scans of one visit of the simulated glioblastoma trial, which one job writes.
GLIOMA_SCANS = ("T1w", "T1c", "T2w", "FLAIR") + tuple(
    f"mask-{label}_{reader}"
    for label in ("enhancing", "whole-tumour")
    for reader in ("reader-1", "reader-2")
)
BATCHES = [f"{number:04d}" for number in range(len(STUDY.mask_batches))]
FREQUENCY_MAPS = {
    entry["id"]: entry for entry in STUDY.config["measurement"]["frequency_maps"]
}
SIMULATED_QA = {
    row[key]
    for row in STUDY.phantoms
    if row["simulated"]
    for key in ("path", "mask_path")
} - {None}
ANALYSES = {analysis["id"]: analysis for analysis in STUDY.config["analyses"]}
GRIDS = [name for name, analysis in ANALYSES.items() if analysis.get("sensitivity")]
DRAWN = [name for name, analysis in ANALYSES.items() if analysis["type"] in DRAWN_TYPES]
FLOWS = [flow["name"] for flow in STUDY.config["cohort_flows"]]
OUTCOMES = [
    name for name, analysis in ANALYSES.items() if analysis["type"] in OUTCOME_TYPES
]


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


def failed_jobs():
    """Jobs of a visit or a subject that failed, if the study is to go on without them."""
    found = failures(STUDY.folder) if STUDY.config["without_failed"] else []
    return [one for one in found if one.subject in SUBJECTS]


def visits_of(failure):
    """The visits that a failed job leaves the study without."""
    return [
        (subject, session)
        for subject, session in VISITS
        if subject == failure.subject and failure.visit in ("", session)
    ]


FAILED_JOBS = failed_jobs()
FAILED = {
    key: f"the job {one.step} failed: {one.cause}"
    for one in FAILED_JOBS
    for key in visits_of(one)
}
#: Visits in a later window of serial imaging -> the subject's visit in the first.
SERIAL = serial_pairs(STUDY.scans, STUDY.config["serial_imaging"], STUDY.baseline)
FAILED_IDS = {"|".join(VISITS[key]): cause for key, cause in FAILED.items()}
# The same jobs under the sheet's names of subject and visit, as a parameter.
STOPPED = [
    asdict(one)
    | {
        "subject": SUBJECTS[one.subject][0],
        "visit": VISITS.get((one.subject, one.visit), ("", ""))[1],
    }
    for one in FAILED_JOBS
]
VISITS = {key: ids for key, ids in VISITS.items() if key not in FAILED}
SUBJECTS = {
    subject: (name, [v for v in visits if (subject, session_entity(v)) in VISITS])
    for subject, (name, visits) in SUBJECTS.items()
    if any(subject == one for one, _ in VISITS)
}


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


# Kept: every path is asked for by many jobs, and a plan of thousands holds on to each answer.
@functools.cache
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


def quality_records():
    """Records of the quality figures; none where the config wants no figures."""
    wanted = STUDY.config["registration"]["figures"]
    return [stage("quality", subject) for subject in SUBJECTS if wanted]


def contact_sheets():
    """Table and sheet of all fits, where figures are wanted."""
    names = ["registration.tsv", "contact_sheet.png"] if quality_records() else []
    return [under("quality", name) for name in names]


def quality_products():
    """What a page may show of fits and of the noise floor: those of them that the study has."""
    floor = [under("endpoints", "noise_floor.tsv")] if noise_repeats() else []
    return [*contact_sheets(), *floor]


def subject_prepared(wildcards):
    """Prepare records of all visits of a subject with images."""
    return [
        stage("prepare", wildcards.subject, session_entity(visit))
        for visit in SUBJECTS[wildcards.subject][1]
    ]


def noise_repeats():
    """Records of the repeats that make the noise floor; none where no subject is chosen."""
    asked = STUDY.config["noise_floor"]
    return [
        under("noise_floor", f"{subject}_seed-{seed}.json")
        for subject in SUBJECTS
        if SUBJECTS[subject][0] in asked["subjects"]
        for seed in range(1, asked["seeds"] + 1)
    ]


def planted_records():
    """Records of the visits that lesions are planted into: those with a kind that a segmenter serves."""
    asked = STUDY.config["recovery"]
    disease = STUDY.config["study"]["disease"]
    found = []
    for key, ids in VISITS.items():
        kinds = {row["kind"] for row in STUDY.visit_rows(*ids)}
        # What a DICOM folder holds is known once it is prepared.
        there = "dicom" in kinds or targets_of(disease, kinds, asked)
        # A visit that is named gets a row in any case, with the reason.
        if ids[0] in asked["subjects"] or (there and not asked["subjects"]):
            found.append(key)
    return [
        under("recovery", f"{subject}_{session}.json")
        for subject, session in found[: asked["max_visits"]]
    ]


def recovery_products():
    """Tables and figure of the target recovery."""
    tables = [
        under("quality", f"{name}.tsv") for name in ("recovery", "recovery_summary")
    ]
    return [*tables, under("exhibits", "recovery.json")]


def noise_stages(wildcards):
    """What a repeat of a subject goes by: the blocks of the config of all its stages."""
    blocks = ("registration", "segmentation", "perfusion", "measurement", "atlases")
    return {
        **{block: STUDY.config[block] for block in blocks},
        "disease": STUDY.config["study"]["disease"],
        "visit_order": STUDY.visit_order,
        "baseline": STUDY.baseline,
        "onset_to_ct_min": STUDY.onset_to_ct_minutes(SUBJECTS[wildcards.subject][0]),
    }


def first_window_visit(wildcards):
    """Visit of the first window of serial imaging, for a visit in a later one."""
    return SERIAL.get(VISITS[wildcards.subject, wildcards.session])


def batch_rows(wildcards):
    """Rows of the supplied masks of a batch."""
    return plain_rows(STUDY.mask_batches[int(wildcards.batch)])


def batch_files(wildcards):
    """Files of the supplied masks of a batch that are there."""
    return [
        row["path"] for row in STUDY.mask_batches[int(wildcards.batch)] if row["exists"]
    ]


def program_files():
    """Containers and weights of segmentation programs; a change of one reruns what it made."""
    return [
        file
        for backend in STUDY.config["segmentation"].get("external", [])
        for file in backend.get("files", [])
    ] + network_files("segmentation.")


def network_files(block):
    """Files of the networks that a block of the config names; a missing one is a finding."""
    return [
        str(file)
        for key, weights in configured_models(STUDY.config)
        if key.startswith(block)
        for file in model_files(weights)
        if file.is_file()
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


def site_records(wildcards):
    """Records of the measured visits of one site's subjects: --config site=NAME."""
    name, frame = STUDY.config["site"], STUDY.sheets["participants"]
    if name is None or "site" not in frame:
        raise WorkflowError(
            "The target site needs --config site=NAME, and a column site in the participants sheet."
        )
    people = set(frame.loc[frame["site"] == str(name), "participant_id"])
    if not people:
        known = ", ".join(sorted(map(str, frame["site"].dropna().unique()))[:20])
        raise WorkflowError(f"No participant is of the site {name}. Sites: {known}")
    return [
        stage("measure", *key)
        for key, (person, _) in VISITS.items()
        if person in people
    ]


def feature_tables():
    """Feature tables of all visits."""
    return [
        stage("radiomics", subject_entity(subject), session_entity(visit))[
            : -len("json")
        ]
        + "tsv"
        for subject, visit in STUDY.radiomics_visits
    ]


def measured_records():
    """Records that hold measurement rows."""
    return records("measure") + [
        under("endpoints", "batches", f"{b}.json") for b in BATCHES
    ]


def told_records():
    """Records that say what became of scans, masks and fits."""
    stages = ("prepare", "segment", "perfuse", "normalise")
    return [record for name in stages for record in records(name)] + measured_records()


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


def contour_files():
    """Readers' contours that are there: the lock holds them too."""
    return [
        row["path"]
        for row in STUDY.scans
        if row["kind"].startswith("mask-")
        and row["reader"]
        and row["exists"]
        and not row["simulated"]
    ]


def change_log_files():
    """The log of changes after the lock and its head, where there are any."""
    configured = STUDY.config["reading"]["change_log"]
    log = Path(configured or under("reading", "change_log.jsonl"))
    head = log.with_name(f"{log.name.removesuffix('.jsonl')}.head.json")
    return [str(path) for path in (log, head) if path.is_file()]


def reference_files():
    """Images of the reference cases that are there."""
    sheet = STUDY.sheets.get("reference_cases")
    if sheet is None or "path" not in sheet:
        return []
    beside = STUDY.sheet_paths["reference_cases"].parent
    paths = [beside / Path(text).expanduser() for text in sheet["path"].dropna()]
    return sorted({str(path) for path in paths if path.is_file()})


def map_files():
    """Lesion frequency maps of every label that can have one."""
    with_location = bool(SUBJECTS) or any(
        row["space"] == "MNI152" for row in STUDY.scans
    )
    labels = (
        [label.replace("-", "") for label in STUDY.mask_labels] if with_location else []
    )
    found = [under("maps", f"{label}_frequency.nii.gz") for label in labels]
    return found + [under("maps", f"{name}_maps.json") for name in FREQUENCY_MAPS]


def compared_risk(wildcards):
    """Statistics of the radiomics analysis whose risk groups a map compares."""
    compare = FREQUENCY_MAPS[wildcards.map].get("compare") or ""
    kind, _, name = compare.partition(":")
    return [under("statistics", "by_analysis", f"{name}.tsv")] * (kind == "risk")


def cutoffs():
    """Perfusion cut-offs against the infarct, where the study has perfusion."""
    return list(PERFUSION_CUTOFFS.values()) if STUDY.perfusion_visits else []


def locked_plan_file():
    """The locked plan, where one is given and there."""
    path = STUDY.config["locked_plan"]
    return [path] if path and os.path.isfile(path) else []


def analysis_tables(wildcards):
    """Sheets that an analysis reads; an edit of another sheet does not rerun it."""
    analysis = ANALYSES[wildcards.analysis]
    wanted = ["participants", "covariates"]
    wanted += ["outcomes"] * bool(analysis.get("outcome"))
    wanted += ["exposures"] * bool(analysis.get("exposure"))
    wanted += ["events"] * (analysis["type"] in OUTCOME_TYPES)
    wanted += ["phantoms"] * (analysis["type"] == "phantom")
    wanted += ["reads"] * (analysis["type"] == "agreement")
    return sheet_files(*wanted)


def figure_records(wildcards):
    """Records of the stages whose scans and masks a figure shows."""
    if wildcards.kind != "contours":
        return []
    return records("prepare", "segment", "perfuse")


def insert_files():
    """Images and masks of phantom scans that are there or will be simulated."""
    paths = [row[key] for row in STUDY.phantoms for key in ("path", "mask_path")]
    return sorted({p for p in paths if p and (p in SIMULATED_QA or os.path.isfile(p))})


def inserts_of(path):
    """Rows of the phantoms sheet whose insert is on an image."""
    return [row for row in STUDY.phantoms if row["path"] == path]


def simulated_trial():
    """What a simulated trial is made from; the scale of phantom scanners is no part of it."""
    settings = STUDY.config["phantom"] or {}
    return {key: value for key, value in settings.items() if key != "scanner_scale"}


def shape_files():
    """Masks that give the infarcts of the simulated trial their shapes."""
    return [path for path in simulated_trial().get("shapes", []) if path != "model"]


def scale_of(path):
    """Scale error of the scanner that a simulated phantom scan is from."""
    row = inserts_of(path)[0]
    scales = STUDY.config["phantom"].get("scanner_scale") or {}
    return scales.get(f"{row['site']}/{row['scanner']}", 1.0)


def phantom_table(wildcards):
    """The measured inserts, for analyses of phantoms."""
    wanted = ANALYSES[wildcards.analysis]["type"] == "phantom"
    return [under("endpoints", "phantoms.tsv")] * wanted


def features_of_analysis(wildcards):
    """The features, for analyses of features."""
    return [FEATURES] * (ANALYSES[wildcards.analysis]["type"] == "radiomics")


def analysis_config(wildcards):
    """The part of the config that an analysis and its figures read."""
    wanted = ANALYSES[wildcards.analysis]["type"] == "phantom"
    return config_part("locked_plan", "reading", *["phantom_qa"] * wanted)


def config_part(*blocks):
    """The part of the config that a job reads, so that no other edit reruns it."""
    always = (
        "study",
        "results_dir",
        "inputs",
        "data_dir",
        "phantom",
        "visits",
        "grades",
        "recode",
        "serial_imaging",
    )
    if "reading" in blocks:
        always += ("attestations",)
    part = {key: config[key] for key in (*always, *blocks) if key in config}
    return {**part, BLOCKS: sorted({*always, *blocks})}


def scan_criteria():
    """The charter's criteria of single scans; those of the trial rerun no image job."""
    return {
        key: part for key, part in STUDY.config["acquisition"].items() if key != "trial"
    }


def fingerprint(value):
    """Digest of a parameter that is too long to show."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rules_fingerprint():
    """Changes when a rule file does."""
    files = sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
    return fingerprint([path.read_text(encoding="utf-8") for path in files])


def inputs_fingerprint():
    """Changes when the config or the list, presence or size of the scans does."""
    scans = [(r["scan_id"], r["source"], r["exists"], r["bytes"]) for r in STUDY.scans]
    return fingerprint([STUDY.config, scans])


# Memory (MB) and run time (minutes) of a job, as base + share per MB of its (compressed) scans. From
# the demo's benchmark files (largest: prepare 470 MB, segment 250, perfuse 690, normalise 770,
# measure 150 MB, with 26 MB of scans), with room for twice of that; each attempt gets as much again.
# What a network holds in memory for a whole head; its weights are small.
NETWORK_MB = 1600
COSTS = {
    "prepare": {
        "mb": 800 + NETWORK_MB * bool(network_files("brain_extraction.")),
        "mb_per_mb": 12,
        "min": 20,
        "min_per_mb": 1.0,
    },
    "segment": {
        "mb": 600 + NETWORK_MB * bool(network_files("segmentation.")),
        "mb_per_mb": 8,
        "min": 10,
        "min_per_mb": 0.3,
    },
    "perfuse": {"mb": 900, "mb_per_mb": 16, "min": 20, "min_per_mb": 1.5},
    "normalise": {"mb": 1800, "mb_per_mb": 8, "min": 60, "min_per_mb": 0.5},
    "measure": {"mb": 500, "mb_per_mb": 6, "min": 10, "min_per_mb": 0.2},
    "radiomics": {"mb": 1200, "mb_per_mb": 12, "min": 60, "min_per_mb": 2.0},
}
SIMULATED_MB = 26.0


def scans_mb(wildcards):
    """Size of the scans that a job of a visit or a subject reads, MB."""
    subject, session = wildcards.subject, getattr(wildcards, "session", None)
    name, visits = SUBJECTS[subject]
    if session is not None:
        visits = [VISITS[subject, session][1]]
    rows = [row for visit in visits for row in STUDY.visit_rows(name, visit)]
    return sum(
        SIMULATED_MB if r["simulated"] else (r["bytes"] or 0) / 1e6 for r in rows
    )


def memory_of(rule_name):
    """Memory of a rule's jobs by the size of their scans, MB."""
    cost = COSTS[rule_name]

    def memory(wildcards, attempt):
        return attempt * int(cost["mb"] + cost["mb_per_mb"] * scans_mb(wildcards))

    return memory


def runtime_of(rule_name):
    """Time limit of a rule's jobs by the size of their scans, minutes."""
    cost = COSTS[rule_name]

    def runtime(wildcards, attempt):
        return attempt * int(cost["min"] + cost["min_per_mb"] * scans_mb(wildcards))

    return runtime


def decisions_path():
    """Decisions of the review desk, there or not."""
    given = STUDY.config["review"]["decisions"]
    return str(given) if given else under("review", "qc_decisions.tsv")


def decision_files():
    """The same, where there are any."""
    return [decisions_path()] if os.path.isfile(decisions_path()) else []


def anything_excluded():
    """Whether people excluded anything at the review desk."""
    return any(
        "\texclude\t" in Path(path).read_text(encoding="utf-8")
        for path in decision_files()
    )


def sensitivity_analyses():
    """Analyses to run again without exclusions: all of them, once anything is excluded."""
    return list(ANALYSES) if anything_excluded() else []


def exhibits():
    """Figures, tables and alarms that rooms add to the report: a line for each exhibit.

    An exhibit is a JSON file written by corelab.provenance.exhibits.write_exhibit; a rule of its
    room declares it as an output. The report waits for those that are listed here.
    """
    return [
        *READING_EXHIBITS * STUDY.central_read,
        *(
            under("exhibits", f"agreement_{name}_{kind}.json")
            for name, analysis in ANALYSES.items()
            for kind in figure_kinds(
                analysis, grades=STUDY.config["grades"], images=bool(SUBJECTS)
            )
        ),
        *cutoffs(),
        *QUALITY_EXHIBITS,
        under("exhibits", "failures.json"),
        *(under("exhibits", f"map_{name}.json") for name in FREQUENCY_MAPS),
        *[under("exhibits", "registration.json")] * bool(quality_records()),
        *[under("exhibits", "noise_floor.json")] * bool(noise_repeats()),
        *[under("exhibits", "recovery.json")] * STUDY.config["recovery"]["report"],
        under("exhibits", "plan.json"),
        *[under("exhibits", "trial.json")] * bool(STUDY.config["trial"]),
        *(under("exhibits", f"pharmacodynamics_{name}.json") for name in DRAWN),
        *(under("exhibits", f"outcome_{name}.json") for name in OUTCOMES),
        *(under("exhibits", f"specifications_{name}.json") for name in GRIDS),
        *(under("exhibits", f"flow_{name}.json") for name in FLOWS),
    ]


def upstream(*names):
    """An output of every job that leads to a target, beyond what the target itself names."""
    images = [
        FINDINGS,
        *SIMULATED,
        *records("prepare", "segment", "perfuse", "normalise"),
        *quality_records(),
    ]
    measured = [
        *sorted(SIMULATED_QA),
        *measured_records(),
        MEASUREMENTS,
        *noise_repeats(),
        *[*feature_tables(), FEATURES] * STUDY.has_features,
        *[under("reading", "returned_reads.tsv")]
        * bool(STUDY.config["reading"]["forms"]),
        *FINAL_READS,
        *LOCK,
    ]
    analysed = [
        *(under("statistics", "by_analysis", f"{name}.tsv") for name in ANALYSES),
        *(
            under("statistics", "without_exclusions", f"{name}.tsv")
            for name in sensitivity_analyses()
        ),
        *(under("statistics", "by_specification", f"{name}.tsv") for name in GRIDS),
    ]
    found = images * (names != ("phantom",))
    found += measured * bool({"endpoints", "statistics"} & set(names))
    found += planted_records() * (
        "recovery" in names
        or (STUDY.config["recovery"]["report"] and "statistics" in names)
    )
    return found + analysed * ("statistics" in names)


def targets(*names):
    """Files of the named targets; only the preflight where the study is not sound."""
    truth = [under("phantom", "truth.tsv")] if SIMULATED else []
    parts = {
        "phantom": [*SIMULATED, *sorted(SIMULATED_QA), *truth],
        "images": [
            *records("prepare", "segment", "perfuse", "normalise"),
            *contact_sheets(),
        ],
        "recovery": recovery_products(),
        "endpoints": [
            MEASUREMENTS,
            under("endpoints", "acquisition.tsv"),
            under("endpoints", "flow.tsv"),
            under("endpoints", "overlap.tsv"),
            under("endpoints", "phantoms.tsv"),
            *QUALITY.values(),
            *quality_products(),
            *map_files(),
            *[FEATURES] * STUDY.has_features,
            *truth,
            *cutoffs(),
        ],
        "statistics": [
            *STATISTICS_TABLES,
            under("statistics", "plan.json"),
            under("statistics", "plan_deviations.tsv"),
            under("statistics", "specifications.tsv"),
            under("statistics", "cohort_flow.tsv"),
            under("statistics", "sensitivity.tsv"),
            under("endpoints", "exclusions.tsv"),
            *exhibits(),
        ],
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


def asked(*names):
    """The same for who asks for a target: what was set aside on the way to it comes again.

    Jobs take :func:`targets`: their inputs are the same whatever was set aside. To ask always for
    all that lies upstream would cost a plan of thousands a quarter more memory.
    """
    again = to_make_again(STUDY.folder) if STUDY.sound else set()
    lost = [path for path in upstream(*names) if path in again] if again else []
    return [*targets(*names), *lost]


def configfiles_and_options():
    """The run's config files and --config options, for commands that a person can give again."""
    settings = workflow.config_settings
    options = {
        key: value
        for key, value in settings.config.items()
        if not isinstance(value, (dict, list))
    }
    return [os.path.relpath(path) for path in settings.configfiles], options


def stage_records():
    """Records that the study is to have by stage, relative to its folder."""
    return by_stage(STUDY.folder, told_records())


def recover():
    """Where Snakemake's memory of a study was lost, hold its products against the jobs' own.

    Snakemake then takes any file that is there for a whole one. What is not as its job left it is
    set aside, so that the job runs again.
    """
    memory = Path(".snakemake") / "metadata"
    asked = {"verify", "status", "--unlock"} & set(sys.argv)
    if DRY_RUN or asked or not (STUDY.folder / "jobs").is_dir():
        return
    failed = failed_products(STUDY.folder)
    if failed:
        again = sorted(failed)
        logger.info(
            f"{len(again)} analyses or figures failed in an earlier run and run again."
        )
        set_aside(again, STUDY.folder)
    ahead = mend_times(STUDY.folder)
    if ahead:
        logger.info(
            f"The clock went back: {ahead} files in {FOLDER}/ were of the future, and are of now."
        )
    if memory.is_dir() and any(memory.iterdir()):
        return
    wrong = damaged(
        STUDY.folder, {path.stem: code(path.stem) for path in SCRIPTS.glob("*.py")}
    )
    if wrong:
        logger.info(
            f"Snakemake has no memory of {FOLDER}/; {len(wrong)} of its files are not as their "
            "jobs left them, or were made by other code, and are made again."
        )
        set_aside(wrong, STUDY.folder)


def compare_inputs():
    """What jobs read against what is there: outputs that are to be made again -> changed inputs.

    The sizes and times of all inputs are asked for; only a file where these differ is read.
    """
    if {"verify", "status", "--unlock"} & set(sys.argv):
        return {}
    readers, unfinished = standing(STUDY.folder)
    found = compare(
        readers,
        STUDY.folder,
        workers=workflow.resource_settings.cores or 1,
        tell=logger.info,
    )
    again = dict(found.outputs)
    if found.changed.keys() & {row["path"] for row in STUDY.scans}:
        # The check of the headers has no scan among its inputs, which would be all of the study.
        again[FINDINGS] = []
    plan_by_content(found.same, {*again, *unfinished})
    return again


#: Outputs of jobs whose inputs have other content than when they were read -> these inputs.
CHANGED = {}
# Only the process that a person started; jobs of its own know what they are to do.
if workflow.is_main_process:
    recover()
    CHANGED = compare_inputs()

RUN_LOCK = FolderLock(STUDY.folder)
PROGRESS = []
#: Rules of the jobs that this run has to do.
TO_DO = set()


def only_asking():
    """Whether the run only tells something: its own words are then enough."""
    return bool(TO_DO) and TO_DO <= ASKING


def tell_plan():
    """Take the study's folder, and say what is about to be computed."""
    other = RUN_LOCK.acquire()
    if other:
        raise WorkflowError(
            f"{other} is writing into {FOLDER}/ at this moment. Wait until it has ended, then give "
            "the same command again; two runs never write into one folder."
        )
    wait_for_others(STUDY.folder, logger.info)
    clear_leftovers(STUDY.folder)
    changed = mend_status_command(workflow.executor_settings)
    if changed:
        logger.info(changed)
    todo, changed = {}, set()
    for job in workflow.dag.needrun_jobs():
        todo[job.rule.name] = todo.get(job.rule.name, 0) + (not job.is_norun)
        changed.update(
            path for output in job.output for path in CHANGED.get(output, ())
        )
    TO_DO.update(name for name, number in todo.items() if number)
    jobs = sum(todo.values())
    done = sum(1 for job in workflow.dag.jobs if not job.is_norun) - jobs
    at_once = workflow.resource_settings.nodes or workflow.resource_settings.cores or 1
    lines = [
        f"Study {STUDY.id}: {len(STUDY.participants)} participants, {len(STUDY.scans)} scans of "
        f"{len(SUBJECTS)} participants at {len(VISITS)} visits, {len(ANALYSES)} analyses.",
        f"Jobs: {jobs} to do, {done} done; {expected(STUDY.folder, todo, min(at_once, jobs or 1))}.",
        f"Results go to {FOLDER}/; one log per job lies in {FOLDER}/logs/.",
    ]
    lines += [
        f"Without {' '.join(key)}: {cause}" for key, cause in sorted(FAILED.items())
    ]
    if changed:
        first = ", ".join(sorted(changed)[:3]) + ", ..." * (len(changed) > 3)
        lines.append(
            f"Inputs whose content has changed since they were read: {first} ({len(changed)})."
        )
    if not only_asking():
        logger.info("\n".join(lines))
    PROGRESS.append(Progress(jobs))
    logger.addHandler(PROGRESS[0])
    for handler in logger.handlers:
        # The bar redraws itself below whatever goes through the new stderr.
        if getattr(handler, "name", "") == "DefaultStreamHandler":
            handler.setStream(sys.stderr)
            handler.addFilter(not_counted_elsewhere)


def not_counted_elsewhere(record):
    """Whether a message of Snakemake says what the bar and the failure lines do not."""
    event = str(getattr(record, "event", None) or "")
    told = event.endswith(("job_finished", "progress", "job_error"))
    noise = str(record.msg).startswith(("Select jobs", "Execute "))
    return not (told or noise)


def stop_progress():
    """Take the progress bar away before the last words."""
    for handler in PROGRESS:
        handler.stop()
        logger.removeHandler(handler)
    for handler in logger.handlers:
        if getattr(handler, "name", "") == "DefaultStreamHandler" and PROGRESS:
            handler.setStream(sys.__stderr__)


def tell_summary(log):
    """Say where the results are and what needs attention."""
    stop_progress()
    if only_asking():
        return
    if not STUDY.sound or not Path(MEASUREMENTS).is_file():
        logger.info(f"Done. Findings about the input: {FINDINGS}")
        return
    from corelab.reporting.summary import summary_lines

    found = [
        *failures(STUDY.folder),
        *scan_failures(STUDY.folder, stage_records()),
    ]
    logger.info(
        "\n".join(
            [
                *summary_lines(STUDY.folder),
                *closing_lines(
                    STUDY.folder,
                    STUDY.participants,
                    found,
                    *configfiles_and_options(),
                ),
            ]
        )
    )
    failed = failed_products(STUDY.folder)
    if failed:
        raise WorkflowError(failure_words(failed))


def tell_failure(log):
    """Say what failed and how to go on."""
    stop_progress()
    if only_asking():
        return
    if not STUDY.sound:
        logger.error(
            f"The input has errors, so nothing was computed. They are listed above and in {FINDINGS}."
        )
        return
    found = failures(STUDY.folder)
    lines = closing_lines(
        STUDY.folder, STUDY.participants, found, *configfiles_and_options()
    )
    lines.append(
        "Nothing half-written counts as a result. Fix the cause and give the same command again: "
        "what is done stays done."
    )
    if any(one.subject for one in found):
        lines.append(
            "To finish the study without them (they are listed as failed, with the cause): "
            "the same command with --config without_failed=true"
        )
    logger.error("\n".join(lines))
