"""The digital trial: scans with known truth, written when a study asks for them."""


rule simulate_scan:
    """Simulate one scan of the trial from its seed."""
    input:
        GATE,
    output:
        image=under("phantom", "{scan}.nii.gz"),
        sidecar=under("phantom", "{scan}.json"),
    log:
        log_of("simulate_scan", "{scan}"),
    benchmark:
        benchmark_of("simulate_scan", "{scan}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime="20m",
    params:
        row=lambda wildcards, output: plain_rows([SIMULATED[output.image]])[0],
        phantom=STUDY.config["phantom"],
        code=code("simulate_scan"),
    message:
        "Simulating {wildcards.scan}"
    script:
        "../scripts/simulate_scan.py"


rule simulate_truth:
    """Write the truth of every measurement of the simulated trial."""
    input:
        GATE,
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
        phantom=STUDY.config["phantom"],
        code=code("simulate_truth"),
    message:
        "Writing the truth of the simulated trial"
    script:
        "../scripts/simulate_truth.py"
