"""The simulated trial: scans with known truth, written when a study requests them.

In: the block phantom of the config. Out: phantom/*.nii.gz with sidecars, phantom/truth.tsv.
"""


def simulated_trial():
    """Settings of a simulated trial; the scale of phantom scanners changes no patient's scan."""
    trial = STUDY.settings.phantom
    return trial.plain(without=["scanner_scale"]) if trial else {}


def shape_files(wildcards):
    """Masks that give the infarcts of the simulated trial their shapes."""
    return given(
        path for path in simulated_trial().get("shapes", []) if path != "model"
    )


def inserts_of(path):
    """Rows of the phantoms sheet whose insert is on an image."""
    return [row for row in STUDY.phantoms if row.path == path]


def scale_of(path):
    """Scale error of the scanner that a simulated phantom scan is from."""
    row = inserts_of(path)[0]
    scales = STUDY.config["phantom"].get("scanner_scale") or {}
    return scales.get(f"{row.site}/{row.scanner}", 1.0)


rule simulate_inserts:
    """Simulate one digital quality phantom, with the scale error that its scanner has."""
    input:
        GATE,
    output:
        image=under("phantom", "qa", "{qa}.nii.gz"),
        image_sidecar=under("phantom", "qa", "{qa}.json"),
        mask=under("phantom", "qa", "{qa}_labels.nii.gz"),
        mask_sidecar=under("phantom", "qa", "{qa}_labels.json"),
    log:
        log_of("simulate_inserts", "{qa}"),
    benchmark:
        benchmark_of("simulate_inserts", "{qa}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1500,
    params:
        rows=lambda wildcards, output: plain_rows(inserts_of(output.image)),
        scale=lambda wildcards, output: scale_of(output.image),
        seed=(STUDY.config["phantom"] or {}).get("seed"),
        code=code("simulate_inserts"),
    message:
        "Simulating the phantom scan {wildcards.qa}"
    script:
        "../scripts/simulate_inserts.py"


rule simulate_visit:
    """Simulate the scans and readers' masks of a visit in one job."""
    input:
        GATE,
    output:
        images=[
            under("phantom", "visits", f"{{subject}}_{{session}}/{name}.nii.gz")
            for name in GLIOMA_SCANS
        ],
        sidecars=[
            under("phantom", "visits", f"{{subject}}_{{session}}/{name}.json")
            for name in GLIOMA_SCANS
        ],
    log:
        log_of("simulate_visit", "{subject}_{session}"),
    benchmark:
        benchmark_of("simulate_visit", "{subject}_{session}")
    priority: PRIORITIES["simulate_visit"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        rows=lambda wildcards, output: plain_rows(
            TARGETS.simulated[path] for path in output.images
        ),
        phantom=simulated_trial(),
        code=code("simulate_visit"),
    message:
        "Simulating {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/simulate_visit.py"


def simulated_subjects():
    """Subjects of the simulated stroke trial -> their scans: which there are differs."""
    subjects = {}
    for path, row in TARGETS.simulated.items():
        if "/phantom/visits/" not in path:
            subjects.setdefault(subject_entity(row.participant_id), []).append(path)
    return subjects


for SUBJECT, SCANS in simulated_subjects().items():

    # The scans of a subject share the head, the lesion and most of the work: one job.
    rule:
        name:
            f"simulate_{SUBJECT}"
        input:
            GATE,
            shapes=shape_files,
        output:
            images=SCANS,
            sidecars=[path.removesuffix(".nii.gz") + ".json" for path in SCANS],
        log:
            log_of(f"simulate_{SUBJECT}"),
        benchmark:
            benchmark_of(f"simulate_{SUBJECT}")
        priority: priority_of(PRIORITIES, "simulate_visit", SUBJECT)
        conda:
            "../../environment.yml"
        resources:
            mem_mb=2000,
        params:
            rows=plain_rows(TARGETS.simulated[path] for path in SCANS),
            phantom=simulated_trial(),
            code=code("simulate_visit"),
        message:
            f"Simulating {SUBJECT}"
        script:
            "../scripts/simulate_visit.py"


rule simulate_truth:
    """Write the truth of every measurement of the simulated trial."""
    input:
        GATE,
        shapes=shape_files,
    output:
        truth=under("phantom", "truth.tsv"),
    log:
        log_of("simulate_truth"),
    benchmark:
        benchmark_of("simulate_truth")
    # Before the jobs of the whole cohort, of which submission and report wait for it.
    priority: 1
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        phantom=simulated_trial(),
        code=code("simulate_truth"),
    message:
        "Writing the truth of the simulated trial"
    script:
        "../scripts/simulate_truth.py"
