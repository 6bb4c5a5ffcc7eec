"""Masks to numbers: one row per number, from every source.

In: stage records of images.smk, supplied masks, reads and measurements sheets. Out: endpoints/ (the
measurements table and its companions), maps/, noise_floor/.
"""

from corelab.measurement.time_windows import serial_pairs

#: Visits in a later window of serial imaging -> the participant's visit in the first.
SERIAL = serial_pairs(STUDY.scans, STUDY.settings.serial_imaging, STUDY.baseline)


@inspected
def first_window_visits(wildcards):
    """Visits of a participant in later windows of serial imaging -> that of the first."""
    name, visits = SUBJECTS[wildcards.subject]
    return {visit: SERIAL[name, visit] for visit in visits if (name, visit) in SERIAL}


rule measure:
    """Measure a participant's visits: volumes where lesions were drawn, their place in MNI152, overlap."""
    input:
        atlas_files(),
        records=subject_records,
        normalised=stage("normalise", "{subject}"),
    output:
        record=stage("measure", "{subject}"),
    log:
        log_of("measure", "{subject}"),
    benchmark:
        benchmark_of("measure", "{subject}")
    priority: PRIORITIES["measure"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("measure"),
        runtime=runtime_of("measure"),
    params:
        folder=FOLDER,
        atlases=STUDY.config["atlases"],
        measurement=STUDY.config["measurement"],
        first_visits=first_window_visits if SERIAL else {},
        code=code("measure"),
    message:
        "Measuring {wildcards.subject}"
    script:
        "../scripts/measure.py"


def batch_rows(wildcards):
    """Rows of the supplied masks of a batch."""
    return plain_rows(STUDY.mask_batches[int(wildcards.batch)])


def batch_files(wildcards):
    """Existing files of the supplied masks of a batch."""
    rows = STUDY.mask_batches[int(wildcards.batch)]
    return given(row.path for row in rows if row.exists)


rule measure_supplied:
    """Measure masks that others drew, of many subjects in one job."""
    input:
        GATE,
        masks=batch_files,
        atlases=atlas_files(),
    output:
        record=under("endpoints", "batches", "{batch}.json"),
    log:
        log_of("measure_supplied", "{batch}"),
    benchmark:
        benchmark_of("measure_supplied", "{batch}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        rows=batch_rows,
        atlases=STUDY.config["atlases"],
        measurement=STUDY.config["measurement"],
        code=code("measure_supplied"),
    message:
        "Measuring supplied masks, batch {wildcards.batch}"
    script:
        "../scripts/measure_supplied.py"


COLLECTED_SHEETS = (*PEOPLE, "reads", "rereads", "measurements", "scans")


rule collect:
    """Bring all rows together: measured, read, supplied, derived and missing ones."""
    input:
        GATE,
        # They name the records of the stages before, which are therefore no inputs of their own.
        records=lambda wildcards: TARGETS.records("measure"),
        batches=lambda wildcards: TARGETS.batch_records(),
        lock=LOCK,
        final=TARGETS.final_reads,
        sheets=sheet_files(*COLLECTED_SHEETS),
        decisions=given(TARGETS.decision_files()),
    output:
        measurements=MEASUREMENTS,
        measurements_dictionary=under("endpoints", "measurements.json"),
        without_exclusions=under("endpoints", "without_exclusions", "measurements.tsv"),
        overlap=under("endpoints", "overlap.tsv"),
        overlap_without_exclusions=under(
            "endpoints", "without_exclusions", "overlap.tsv"
        ),
        acquisition=under("endpoints", "acquisition.tsv"),
        image_findings=under("endpoints", "image_findings.tsv"),
        flow=under("endpoints", "flow.tsv"),
    log:
        log_of("collect"),
    benchmark:
        benchmark_of("collect")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        study=STUDY.part(
            *("measurement", "acquisition", "serial_imaging"), sheets=COLLECTED_SHEETS
        ),
        failed=COHORT.excluded_ids,
        code=code("collect"),
    message:
        f"Collecting the measurements of {STUDY.id}"
    script:
        "../scripts/collect.py"


def insert_files(wildcards):
    """Images and masks of phantom scans that exist or will be simulated."""
    paths = {path for row in STUDY.phantoms for path in (row.path, row.mask_path)}
    known = TARGETS.simulated_phantoms
    return given(sorted(p for p in paths - {None} if p in known or os.path.isfile(p)))


rule measure_phantoms:
    """Measure the inserts of all phantom scans; a study without any gets a header-only table."""
    input:
        GATE,
        files=insert_files,
    output:
        table=under("endpoints", "phantoms.tsv"),
        dictionary=under("endpoints", "phantoms.json"),
    log:
        log_of("measure_phantoms"),
    benchmark:
        benchmark_of("measure_phantoms")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        rows=plain_rows(STUDY.phantoms),
        code=code("measure_phantoms"),
    message:
        f"Measuring {STUDY.id}'s phantom scans"
    script:
        "../scripts/measure_phantoms.py"


rule quality:
    """Summarise acquisition by site and scanner, chart it, and judge the phantom scans."""
    input:
        acquisition=under("endpoints", "acquisition.tsv"),
        image_findings=under("endpoints", "image_findings.tsv"),
        phantoms=under("endpoints", "phantoms.tsv"),
    output:
        **TARGETS.quality,
        exhibits=TARGETS.quality_exhibits,
    log:
        log_of("quality"),
    benchmark:
        benchmark_of("quality")
    conda:
        "../../environment.yml"
    params:
        trial=STUDY.config["acquisition"]["trial"],
        phantom_qa=STUDY.config["phantom_qa"],
        folder=FOLDER,
        code=code("quality"),
    message:
        f"Summarising the quality of {STUDY.id}'s scans by site and scanner"
    script:
        "../scripts/quality.py"


rule frequency_map:
    """Share of subjects with lesion at each voxel of MNI152, for one label."""
    input:
        normalised=lambda wildcards: records("normalise"),
        batches=[
            under("endpoints", "batches", f"{batch}.json") for batch in TARGETS.batches
        ],
        decisions=given(TARGETS.decision_files()),
    output:
        map=under("maps", "{label}_frequency.nii.gz"),
        sidecar=under("maps", "{label}_frequency.json"),
        # Of all masks, once anything is excluded.
        whole=[under("maps", "without_exclusions", "{label}_frequency.nii.gz")]
        * TARGETS.anything_excluded(),
    log:
        log_of("frequency_map", "{label}"),
    benchmark:
        benchmark_of("frequency_map", "{label}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        rows=lambda wildcards: plain_rows(
            row
            for row in STUDY.scans
            if row.space == "MNI152" and row.label.replace("-", "") == wildcards.label
        ),
        folder=FOLDER,
        enrolled=len(STUDY.participants),
        denominator=STUDY.config["measurement"]["frequency_denominator"],
        visit_order=STUDY.visit_order,
        code=code("frequency_map"),
    message:
        "Mapping where {wildcards.label} lies"
    script:
        "../scripts/frequency_map.py"


def subject_prepared(wildcards):
    """Prepare records of all visits of a participant."""
    records = subject_records(wildcards)
    return [path for path in records if Path(path).name == "prepare.json"]


def noise_stages(wildcards):
    """Blocks of the config of all stages that a repeat of a participant runs."""
    blocks = ("registration", "segmentation", "perfusion", "measurement", "atlases")
    return {
        **{block: STUDY.config[block] for block in blocks},
        "disease": STUDY.config["study"]["disease"],
        "visit_order": STUDY.visit_order,
        "baseline": STUDY.baseline,
        "onset_to_ct_min": STUDY.onset_to_ct_minutes(SUBJECTS[wildcards.subject][0]),
    }


rule noise_repeat:
    """Register, segment and measure a subject once more, with another seed."""
    input:
        prepared=subject_prepared,
        atlases=atlas_files(),
    output:
        record=under("noise_floor", "{subject}_seed-{seed}.json"),
    log:
        log_of("noise_repeat", "{subject}_seed-{seed}"),
    benchmark:
        benchmark_of("noise_repeat", "{subject}_seed-{seed}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime="3h",
    params:
        folder=FOLDER,
        stages=noise_stages,
        added_noise=STUDY.config["noise_floor"]["added_noise"],
        code=code("noise_repeat"),
    message:
        "Repeating {wildcards.subject} with seed {wildcards.seed}"
    script:
        "../scripts/noise_repeat.py"


rule noise_floor:
    """Within-subject SD and minimal detectable change of every endpoint, from the repeats."""
    input:
        repeats=TARGETS.noise_repeats(),
    output:
        table=under("endpoints", "noise_floor.tsv"),
        dictionary=under("endpoints", "noise_floor.json"),
        exhibit=under("exhibits", "noise_floor.json"),
    log:
        log_of("noise_floor"),
    benchmark:
        benchmark_of("noise_floor")
    conda:
        "../../environment.yml"
    params:
        code=code("noise_floor"),
    message:
        f"Computing the noise floor of {STUDY.id}"
    script:
        "../scripts/noise_floor.py"


def compared_risk(wildcards):
    """Statistics of the radiomics analysis whose risk groups a map compares."""
    compare = TARGETS.frequency_maps[wildcards.map].compare or ""
    kind, _, name = compare.partition(":")
    return [under("statistics", "by_analysis", f"{name}.tsv")] * (kind == "risk")


rule frequency_groups:
    """Frequency maps by visit, arm or risk group, their difference with its test, a figure."""
    input:
        normalised=lambda wildcards: records("normalise"),
        sheets=sheet_files(*PEOPLE),
        risk=compared_risk,
    output:
        record=under("maps", "{map}_maps.json"),
        figure=under("maps", "{map}_maps.png"),
        exhibit=under("exhibits", "map_{map}.json"),
    log:
        log_of("frequency_groups", "{map}"),
    benchmark:
        benchmark_of("frequency_groups", "{map}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime="60m",
    params:
        settings=lambda wildcards: TARGETS.frequency_maps[wildcards.map].plain(),
        folder=FOLDER,
        study=STUDY.part(sheets=PEOPLE),
        denominator=STUDY.config["measurement"]["frequency_denominator"],
        visit_order=STUDY.visit_order,
        code=code("frequency_groups"),
    message:
        "Mapping {wildcards.map}"
    script:
        "../scripts/frequency_groups.py"


rule radiomics:
    """Features of every series within every mask of one visit."""
    input:
        prepared=stage("prepare", "{subject}", "{session}"),
        segmented=stage("segment", "{subject}", "{session}"),
    output:
        record=stage("radiomics", "{subject}", "{session}"),
        table=under("derivatives", "{subject}", "{session}", "radiomics.tsv"),
    log:
        log_of("radiomics", "{subject}_{session}"),
    benchmark:
        benchmark_of("radiomics", "{subject}_{session}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("radiomics"),
        runtime=runtime_of("radiomics"),
    params:
        folder=FOLDER,
        radiomics=STUDY.config["radiomics"],
        code=code("radiomics"),
    message:
        "Features of {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/radiomics.py"


rule features:
    """Bring the features of all visits and of the measurements sheets together."""
    input:
        GATE,
        tables=TARGETS.feature_tables(),
        sheets=sheet_files("measurements"),
    output:
        features=FEATURES,
        dictionary=FEATURES.removesuffix("tsv") + "json",
    log:
        log_of("features"),
    benchmark:
        benchmark_of("features")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
    params:
        study=STUDY.part(sheets=("measurements",)),
        code=code("features"),
    message:
        f"Collecting the features of {STUDY.id}"
    script:
        "../scripts/features.py"
