"""The analysis plan: one analysis is one job, and rows under its id."""


rule analyse:
    """Run one analysis of the plan."""
    input:
        GATE,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        sheets=analysis_tables,
    output:
        rows=under("statistics", "by_analysis", "{analysis}.tsv"),
    log:
        log_of("analyse", "{analysis}"),
    benchmark:
        benchmark_of("analyse", "{analysis}")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime="60m",
    params:
        analysis=lambda wildcards: ANALYSES[wildcards.analysis],
        config=config_part(),
        code=code("analyse"),
    message:
        "Analysis {wildcards.analysis}"
    script:
        "../scripts/analyse.py"


rule statistics_tables:
    """Bring the analyses together by room; a type that the plan lacks gives a header-only file."""
    input:
        GATE,
        analyses=[
            under("statistics", "by_analysis", f"{name}.tsv") for name in ANALYSES
        ],
    output:
        tables=STATISTICS_TABLES,
    log:
        log_of("statistics_tables"),
    benchmark:
        benchmark_of("statistics_tables")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime="10m",
    params:
        analyses=STUDY.config["analyses"],
        plan=STUDY.plan_fingerprint,
        code=code("statistics_tables"),
    message:
        "Collecting the statistics of {FOLDER}"
    script:
        "../scripts/statistics_tables.py"
