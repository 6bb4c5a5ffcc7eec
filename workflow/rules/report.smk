"""What people receive: the report and the submission folder."""


rule report:
    """Write the offline report: one page for the study and one per subject, and the PDF."""
    input:
        endpoints=targets("endpoints"),
        statistics=STATISTICS_TABLES,
        findings=FINDINGS,
        records=records("prepare", "segment", "perfuse", "normalise"),
        certificate=under("verification", "certificate.tsv"),
    output:
        page=report(
            under("report", "index.html"),
            caption="../report/study.rst",
            category="Study report",
            labels={"what": "report"},
        ),
        pdf=under("report", "report.pdf"),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime="60m",
    params:
        config=config,
        code=code("report"),
    message:
        "Writing the report of {FOLDER}"
    script:
        "../scripts/report.py"


rule submission:
    """Write the nine documents of the submission and the data sets."""
    input:
        endpoints=targets("endpoints"),
        statistics=STATISTICS_TABLES,
        findings=FINDINGS,
        certificate=under("verification", "certificate.tsv"),
    output:
        index=under("submission", "index.json"),
    log:
        log_of("submission"),
    benchmark:
        benchmark_of("submission")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime="30m",
    params:
        config=config,
        code=code("submission"),
    message:
        "Writing the submission files of {FOLDER}"
    script:
        "../scripts/submission.py"
