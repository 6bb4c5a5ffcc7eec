"""Certificate, manifest, trace and verification; status, index and comparison of studies.

In: all products. Out: verification/, provenance/, quality/failures.tsv, and for the targets that
print (status, trace, index, compare, verify) nothing.
"""


localrules:
    verify,
    trace,
    status,
    index,
    compare,


rule certificate:
    """Compare published numbers with the recomputed ones."""
    input:
        GATE,
        lock=LOCK,
        statistics=STATISTICS_TABLES,
        measurements=MEASUREMENTS,
        participants=sheet_files("participants"),
        sheets=sheet_files("published"),
    output:
        table=under("verification", "certificate.tsv"),
    log:
        log_of("certificate"),
    benchmark:
        benchmark_of("certificate")
    conda:
        "../../environment.yml"
    params:
        published=inputs.sheet_paths(STUDY, "published"),
        numeric_tolerance=STUDY.config["certificate"]["numeric_tolerance"],
        code=code("certificate"),
    message:
        "Comparing published with recomputed numbers"
    script:
        "../scripts/certificate.py"


rule trace_table:
    """For every number, the chain of files, parameters and versions that made it."""
    input:
        lock=LOCK,
        measurements=MEASUREMENTS,
        records=under("quality", "records.json"),
    output:
        table=under("provenance", "trace.tsv"),
    log:
        log_of("trace_table"),
    benchmark:
        benchmark_of("trace_table")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        folder=FOLDER,
        code=code("trace_table"),
    message:
        "Tracing every number to its sources"
    script:
        "../scripts/trace_table.py"


rule failures:
    """List what could not be done: subject, visit, step, cause, log, command to try again."""
    input:
        # They name the records of the stages before: a plan of ten thousand visits with each of
        # them as an input takes tens of MB more.
        measured=lambda wildcards: TARGETS.measured_records(),
    output:
        table=under("quality", "failures.tsv"),
        dictionary=under("quality", "failures.json"),
        exhibit=under("exhibits", "failures.json"),
        records=under("quality", "records.json"),
    log:
        log_of("failures"),
    benchmark:
        benchmark_of("failures")
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        stopped=COHORT.failed_jobs,
        code=code("failures"),
    message:
        f"Listing what could not be done in {STUDY.id}"
    script:
        "../scripts/failures.py"


rule manifest:
    """SHA-256 of every product, and the RO-Crate that describes the run."""
    input:
        lock=LOCK,
        endpoints=targets("endpoints"),
        statistics=STATISTICS_TABLES,
        report=targets("report"),
        submission=targets("submission"),
        certificate=under("verification", "certificate.tsv"),
        trace=under("provenance", "trace.tsv"),
    output:
        manifest=under("provenance", "manifest.json"),
        crate=under("provenance", "ro-crate-metadata.json"),
        study_crate=under("ro-crate-metadata.json"),
        reproduce=under("provenance", "REPRODUCE.md"),
        config=under("provenance", "config.json"),
        workflow=directory(under("provenance", "workflow")),
    log:
        log_of("manifest"),
    benchmark:
        benchmark_of("manifest")
    conda:
        "../../environment.yml"
    resources:
        runtime="60m",
    params:
        config=config,
        settings=STUDY.config,
        folder=FOLDER,
        sheets=list(map(str, STUDY.sheet_paths.values())),
        rules={
            name: code(name)
            for name in sorted(path.stem for path in SCRIPTS.glob("*.py"))
        },
        code=code("manifest"),
    message:
        f"Hashing all products of {STUDY.id}"
    script:
        "../scripts/manifest.py"


rule verified:
    """Hash all products again and compare with the manifest."""
    input:
        manifest=under("provenance", "manifest.json"),
    output:
        table=under("verification", "verified.tsv"),
    log:
        log_of("verified"),
    benchmark:
        benchmark_of("verified")
    conda:
        "../../environment.yml"
    resources:
        runtime="60m",
    params:
        folder=FOLDER,
        code=code("verified"),
    message:
        f"Verifying all products of {STUDY.id}"
    script:
        "../scripts/verified.py"


rule verify:
    """Hash all products again, also those Snakemake takes for unchanged; fail if a byte differs."""
    input:
        # Once there is a manifest, nothing may be recomputed before it is compared.
        []
        if Path(under("provenance", "manifest.json")).is_file()
        else targets("verify"),
    log:
        log_of("verify"),
    benchmark:
        benchmark_of("verify", RUN_ID)
    conda:
        "../../environment.yml"
    resources:
        runtime="60m",
    params:
        folder=FOLDER,
        code=code("verify"),
    message:
        f"Verifying all products of {STUDY.id}"
    script:
        "../scripts/verify.py"


rule trace:
    """Print the chain of one number: --config row=ROW_ID."""
    input:
        under("provenance", "trace.tsv"),
    log:
        log_of("trace"),
    benchmark:
        benchmark_of("trace", RUN_ID)
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        row=STUDY.config["row"],
        code=code("trace"),
    message:
        "Tracing {params.row}"
    script:
        "../scripts/trace.py"


rule status:
    """Say how far the study is and what failed; computes nothing."""
    log:
        log_of("status"),
    benchmark:
        benchmark_of("status", RUN_ID)
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        stages=lambda wildcards: TARGETS.stage_records(),
        participants=STUDY.participants,
        command=SESSION.command(),
        code=code("status"),
    message:
        f"Status of {STUDY.id}"
    script:
        "../scripts/status.py"


rule index:
    """Write participants and scans sheets from a BIDS folder: --config bids=DIR."""
    log:
        log_of("index"),
    benchmark:
        benchmark_of("index", RUN_ID)
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        bids=STUDY.config["bids"],
        code=code("index"),
    message:
        "Indexing {params.bids}"
    script:
        "../scripts/index.py"


rule compare:
    """Compare this study's numbers with another results folder: --config compare_with=DIR."""
    input:
        measurements=MEASUREMENTS,
        statistics=STATISTICS_TABLES,
    log:
        log_of("compare"),
    benchmark:
        benchmark_of("compare", RUN_ID)
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        other=STUDY.config["compare_with"],
        code=code("compare"),
    message:
        "Comparing with {params.other}"
    script:
        "../scripts/compare.py"
