"""Images to masks and maps: at most three jobs per visit, and one per subject for MNI152."""


rule prepare:
    """Conform a visit's scans, check their acquisition, mask the brain and align them rigidly."""
    input:
        GATE,
        scans=visit_files,
    output:
        record=stage("prepare", "{subject}", "{session}"),
    log:
        log_of("prepare", "{subject}_{session}"),
    benchmark:
        benchmark_of("prepare", "{subject}_{session}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=visit_memory,
        runtime="60m",
    params:
        rows=visit_rows,
        folder=study_folder,
        acquisition=STUDY.config["acquisition"],
        dicom=STUDY.config["dicom"],
        registration=STUDY.config["registration"],
        code=code("prepare"),
    message:
        "Preparing the scans of {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/prepare.py"


rule segment:
    """Segment the lesions that a visit's scans show."""
    input:
        prepared=stage("prepare", "{subject}", "{session}"),
    output:
        record=stage("segment", "{subject}", "{session}"),
    log:
        log_of("segment", "{subject}_{session}"),
    benchmark:
        benchmark_of("segment", "{subject}_{session}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=visit_memory,
        runtime="60m",
    params:
        folder=study_folder,
        disease=STUDY.config["study"]["disease"],
        segmentation=STUDY.config["segmentation"],
        code=code("segment"),
    message:
        "Segmenting lesions of {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/segment.py"


rule perfuse:
    """Compute perfusion maps, and core and hypoperfusion by every cut-off."""
    input:
        prepared=stage("prepare", "{subject}", "{session}"),
    output:
        record=stage("perfuse", "{subject}", "{session}"),
    log:
        log_of("perfuse", "{subject}_{session}"),
    benchmark:
        benchmark_of("perfuse", "{subject}_{session}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=visit_memory,
        runtime="60m",
    params:
        folder=study_folder,
        perfusion=STUDY.config["perfusion"],
        onset_to_ct_min=lambda wildcards: STUDY.onset_to_ct_minutes(
            SUBJECTS[wildcards.subject][0]
        ),
        code=code("perfuse"),
    message:
        "Computing perfusion of {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/perfuse.py"


rule normalise:
    """Register a subject to MNI152 and bring all masks there."""
    input:
        records=subject_records,
    output:
        record=stage("normalise", "{subject}"),
    log:
        log_of("normalise", "{subject}"),
    benchmark:
        benchmark_of("normalise", "{subject}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime="2h",
    params:
        folder=study_folder,
        registration=STUDY.config["registration"],
        visit_order=STUDY.visit_order,
        code=code("normalise"),
    message:
        "Registering {wildcards.subject} to MNI152"
    script:
        "../scripts/normalise.py"
