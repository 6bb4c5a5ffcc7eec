"""Masks to numbers: one row per number, from whatever source."""


rule measure:
    """Measure one visit: volumes where lesions were drawn, their place in MNI152, overlap."""
    input:
        prepared=stage("prepare", "{subject}", "{session}"),
        segmented=stage("segment", "{subject}", "{session}"),
        perfused=visit_perfusion,
        normalised=stage("normalise", "{subject}"),
        atlases=atlas_files(),
    output:
        record=stage("measure", "{subject}", "{session}"),
    log:
        log_of("measure", "{subject}_{session}"),
    benchmark:
        benchmark_of("measure", "{subject}_{session}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=visit_memory,
        runtime="30m",
    params:
        folder=study_folder,
        atlases=STUDY.config["atlases"],
        measurement=STUDY.config["measurement"],
        code=code("measure"),
    message:
        "Measuring {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/measure.py"


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
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
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


rule collect:
    """Bring all rows together: measured, read, supplied, derived and missing ones."""
    input:
        GATE,
        records=measured_records(),
        prepared=records("prepare"),
        sheets=sheet_files("participants", "reads", "measurements", "scans"),
    output:
        measurements=MEASUREMENTS,
        measurements_dictionary=under("endpoints", "measurements.json"),
        overlap=under("endpoints", "overlap.tsv"),
        acquisition=under("endpoints", "acquisition.tsv"),
        flow=under("endpoints", "flow.tsv"),
    log:
        log_of("collect"),
    benchmark:
        benchmark_of("collect")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="60m",
    params:
        config=config_part("measurement"),
        code=code("collect"),
    message:
        "Collecting the measurements of {FOLDER}"
    script:
        "../scripts/collect.py"


rule frequency_map:
    """Share of subjects with lesion at each voxel of MNI152, for one label."""
    input:
        normalised=records("normalise"),
        batches=[under("endpoints", "batches", f"{batch}.json") for batch in BATCHES],
    output:
        map=under("maps", "{label}_frequency.nii.gz"),
        sidecar=under("maps", "{label}_frequency.json"),
    log:
        log_of("frequency_map", "{label}"),
    benchmark:
        benchmark_of("frequency_map", "{label}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="60m",
    params:
        rows=lambda wildcards: plain_rows(
            row
            for row in STUDY.scans
            if row["space"] == "MNI152"
            and row["kind"].removeprefix("mask-").replace("-", "") == wildcards.label
        ),
        folder=study_folder,
        enrolled=len(STUDY.participants),
        denominator=STUDY.config["measurement"]["frequency_denominator"],
        visit_order=STUDY.visit_order,
        code=code("frequency_map"),
    message:
        "Mapping where {wildcards.label} lies"
    script:
        "../scripts/frequency_map.py"
