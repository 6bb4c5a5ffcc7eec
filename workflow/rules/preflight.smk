"""Preflight: everything that is wrong with config, sheets and headers, before any computing.

In: config and sheets. Out: preflight/findings.tsv, preflight/passed.json, which the jobs of a study
with errors wait for (GATE).
"""

from corelab.study.loading import SHEETS


def inputs_fingerprint():
    """Changes with the config and with the list, presence or size of the scans."""
    scans = [(r.scan_id, r.source, r.exists, r.bytes) for r in STUDY.scans]
    return fingerprint([STUDY.config, scans])


rule check_inputs:
    """List all findings about config, sheets and image headers; never fails on them."""
    input:
        sheet_files(*SHEETS, "measurements", "covariates", "published"),
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
    params:
        code=code("preflight"),
    message:
        "Preflight: {input.findings}"
    script:
        "../scripts/preflight.py"
