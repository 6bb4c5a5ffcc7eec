"""Preflight: everything that is wrong with config, sheets and headers, before any computing.

They are planned first; see GATE in common.smk for what makes other rules wait for them.
"""


rule check_inputs:
    """List all findings about config, sheets and image headers; never fails on them."""
    input:
        sheet_files(
            "participants",
            "scans",
            "reads",
            "outcomes",
            "exposures",
            "events",
            "phantoms",
            "measurements",
            "covariates",
            "published",
        ),
    output:
        findings=FINDINGS,
        dictionary=under("preflight", "findings.json"),
    log:
        log_of("check_inputs"),
    benchmark:
        benchmark_of("check_inputs")
    priority: 100
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime="10m",
    params:
        config=config,
        inputs=inputs_fingerprint(),
        code=code("check_inputs"),
    message:
        "Checking the config, the sheets and the headers of the scans"
    script:
        "../scripts/check_inputs.py"


rule preflight:
    """Stop the run, with all findings printed, if one of them is an error."""
    input:
        findings=FINDINGS,
    output:
        passed=PASSED,
    log:
        log_of("preflight"),
    benchmark:
        benchmark_of("preflight")
    priority: 100
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=500,
        runtime="5m",
    params:
        code=code("preflight"),
    message:
        "Preflight: {input.findings}"
    script:
        "../scripts/preflight.py"
