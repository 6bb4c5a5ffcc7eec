"""Images to masks and maps: at most three jobs per visit, and one per participant for MNI152.

In: scans of the scans sheet. Out: derivatives/sub-X/ses-Y/{prepare,segment,perfuse}.json (records
that list the images beside them), derivatives/sub-X/{normalise,quality}.json, quality/.
"""

@inspected
def visit_rows(wildcards):
    """Scan rows of a visit, as parameters of its jobs."""
    return plain_rows(STUDY.visit_rows(*VISITS[wildcards.subject, wildcards.session]))


@inspected
def visit_files(wildcards):
    """Existing files of a visit with their sidecars; a missing one becomes a status."""
    rows = STUDY.visit_rows(*VISITS[wildcards.subject, wildcards.session])
    files = [row.path for row in rows if row.exists]
    sidecars = [
        path.removesuffix(".gz").removesuffix(".nii") + ".json" for path in files
    ]
    return given(
        files
        + [
            path
            for path, scan in zip(sidecars, files)
            if path != scan and (scan in TARGETS.simulated or os.path.isfile(path))
        ]
    )


rule prepare:
    """Conform a visit's scans, check their acquisition, mask the brain and align them rigidly."""
    input:
        GATE,
        visit_files,
        given(inputs.network_files(STUDY, "brain_extraction.")),
    output:
        record=stage("prepare", "{subject}", "{session}"),
    log:
        log_of("prepare", "{subject}_{session}"),
    benchmark:
        benchmark_of("prepare", "{subject}_{session}")
    priority: PRIORITIES["prepare"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("prepare"),
        runtime=runtime_of("prepare"),
    params:
        rows=visit_rows,
        folder=FOLDER,
        # The criteria of the trial concern no single scan.
        acquisition=STUDY.settings.acquisition.plain(without=["trial"]),
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
        program_files(),
        prepared=stage("prepare", "{subject}", "{session}"),
    output:
        record=stage("segment", "{subject}", "{session}"),
    log:
        log_of("segment", "{subject}_{session}"),
    benchmark:
        benchmark_of("segment", "{subject}_{session}")
    priority: PRIORITIES["segment"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("segment"),
        runtime=runtime_of("segment"),
    params:
        folder=FOLDER,
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
    priority: PRIORITIES["perfuse"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("perfuse"),
        runtime=runtime_of("perfuse"),
    params:
        folder=FOLDER,
        perfusion=STUDY.settings.perfusion.plain(without=["reference_infarct"]),
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
    priority: PRIORITIES["normalise"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_of("normalise"),
        runtime=runtime_of("normalise"),
    params:
        folder=FOLDER,
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
    priority: PRIORITIES["quality_figures"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
    params:
        folder=FOLDER,
        code=code("quality_figures"),
    message:
        "Drawing the fits and masks of {wildcards.subject}"
    script:
        "../scripts/quality_figures.py"


rule contact_sheet:
    """All fits of the study on one sheet, worst first, with their quality metrics."""
    input:
        records=lambda wildcards: TARGETS.quality_records(),
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
    resources:
        mem_mb=growing(2000),
    params:
        folder=FOLDER,
        code=code("contact_sheet"),
    message:
        f"Drawing the contact sheet of {STUDY.id}"
    script:
        "../scripts/contact_sheet.py"
