"""Images to masks and maps: at most three jobs per visit, and one per subject for MNI152."""


rule prepare:
    """Conform a visit's scans, check their acquisition, mask the brain and align them rigidly."""
    input:
        GATE,
        scans=visit_files,
        network=network_files("brain_extraction."),
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
        mem_mb=memory_of("prepare"),
        runtime=runtime_of("prepare"),
    params:
        rows=visit_rows,
        folder=study_folder,
        acquisition=scan_criteria(),
        dicom=STUDY.config["dicom"],
        brain_extraction=STUDY.config["brain_extraction"],
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
        programs=program_files(),
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
        mem_mb=memory_of("segment"),
        runtime=runtime_of("segment"),
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
        mem_mb=memory_of("perfuse"),
        runtime=runtime_of("perfuse"),
    params:
        folder=study_folder,
        perfusion={
            key: value
            for key, value in STUDY.config["perfusion"].items()
            if key != "reference_infarct"
        },
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
        mem_mb=memory_of("normalise"),
        runtime=runtime_of("normalise"),
    params:
        folder=study_folder,
        registration=STUDY.config["registration"],
        visit_order=STUDY.visit_order,
        code=code("normalise"),
    message:
        "Registering {wildcards.subject} to MNI152"
    script:
        "../scripts/normalise.py"


rule quality_figures:
    """Draw a subject's fit to the template and every mask on its image."""
    input:
        records=subject_records,
        normalised=stage("normalise", "{subject}"),
    output:
        record=stage("quality", "{subject}"),
    log:
        log_of("quality_figures", "{subject}"),
    benchmark:
        benchmark_of("quality_figures", "{subject}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="30m",
    params:
        folder=study_folder,
        code=code("quality_figures"),
    message:
        "Drawing the fits and masks of {wildcards.subject}"
    script:
        "../scripts/quality_figures.py"


rule contact_sheet:
    """All fits of the study on one sheet, worst first, with their quality metrics."""
    input:
        records=lambda wildcards: quality_records(),
    output:
        sheet=under("quality", "contact_sheet.png"),
        table=under("quality", "registration.tsv"),
        dictionary=under("quality", "registration.json"),
        exhibit=under("exhibits", "registration.json"),
        figure=under("exhibits", "registration.png"),
    log:
        log_of("contact_sheet"),
    benchmark:
        benchmark_of("contact_sheet")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="30m",
    params:
        folder=study_folder,
        code=code("contact_sheet"),
    message:
        f"Drawing the contact sheet of {STUDY.id}"
    script:
        "../scripts/contact_sheet.py"
