"""The digital trial: scans with known truth, written when a study asks for them."""


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
    threads: 1
    resources:
        mem_mb=1500,
        runtime="10m",
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
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime="20m",
    params:
        rows=lambda wildcards, output: plain_rows(
            SIMULATED[path] for path in output.images
        ),
        phantom=simulated_trial(),
        code=code("simulate_visit"),
    message:
        "Simulating {wildcards.subject} {wildcards.session}"
    script:
        "../scripts/simulate_visit.py"


# Visits of the simulated stroke trial -> their scans: which kinds there are differs.
SIMULATED_VISITS = {}
for PATH, ROW in SIMULATED.items():
    if "/phantom/visits/" not in PATH:
        VISIT = (
            f"{subject_entity(ROW['participant_id'])}_{session_entity(ROW['visit'])}"
        )
        SIMULATED_VISITS.setdefault(VISIT, []).append(PATH)


for VISIT, SCANS in SIMULATED_VISITS.items():

    # The scans of a visit share the head, the lesion and most of the work: one job.
    rule:
        name:
            f"simulate_{VISIT}"
        input:
            GATE,
            shapes=shape_files(),
        output:
            images=SCANS,
            sidecars=[path.removesuffix(".nii.gz") + ".json" for path in SCANS],
        log:
            log_of(f"simulate_{VISIT}"),
        benchmark:
            benchmark_of(f"simulate_{VISIT}")
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime="20m",
        params:
            rows=plain_rows(SIMULATED[path] for path in SCANS),
            phantom=simulated_trial(),
            code=code("simulate_visit"),
        message:
            f"Simulating {VISIT}"
        script:
            "../scripts/simulate_visit.py"


rule simulate_truth:
    """Write the truth of every measurement of the simulated trial."""
    input:
        GATE,
        shapes=shape_files(),
    output:
        truth=under("phantom", "truth.tsv"),
    log:
        log_of("simulate_truth"),
    benchmark:
        benchmark_of("simulate_truth")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime="30m",
    params:
        phantom=simulated_trial(),
        code=code("simulate_truth"),
    message:
        "Writing the truth of the simulated trial"
    script:
        "../scripts/simulate_truth.py"
