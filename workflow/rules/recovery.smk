"""Lesions of known shape planted into the study's own scans, and how well they are recovered.

In: prepare records. Out: recovery/sub-X_ses-Y.json, quality/recovery.tsv and its summary.
"""


rule plant_lesions:
    """Plant lesions into the scans of one visit, one at a time, and segment each."""
    input:
        prepared=stage("prepare", "{subject}", "{session}"),
        shapes=STUDY.config["recovery"]["shapes"],
        programs=program_files(),
    output:
        record=under("recovery", "{subject}_{session}.json"),
    log:
        log_of("plant_lesions", "{subject}_{session}"),
    benchmark:
        benchmark_of("plant_lesions", "{subject}_{session}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("segment"),
        runtime="6h",
    params:
        folder=FOLDER,
        disease=STUDY.config["study"]["disease"],
        segmentation=STUDY.config["segmentation"],
        recovery=STUDY.settings.recovery.plain(
            without=["subjects", "max_visits", "report"]
        ),
        code=code("plant_lesions"),
    message:
        "Planting lesions into the scans of {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/plant_lesions.py"


rule recovery_summary:
    """Detection, bias and limits of agreement of all plantings, by site and size."""
    input:
        GATE,
        records=TARGETS.planted_records(),
    output:
        table=under("quality", "recovery.tsv"),
        dictionary=under("quality", "recovery.json"),
        summary=under("quality", "recovery_summary.tsv"),
        summary_dictionary=under("quality", "recovery_summary.json"),
        exhibit=under("exhibits", "recovery.json"),
        figure=under("exhibits", "recovery.png"),
    log:
        log_of("recovery_summary"),
    benchmark:
        benchmark_of("recovery_summary")
    conda:
        "../../environment.yml"
    params:
        code=code("recovery_summary"),
    message:
        f"Summarising what {STUDY.id} recovers of planted lesions"
    script:
        "../scripts/recovery_summary.py"
