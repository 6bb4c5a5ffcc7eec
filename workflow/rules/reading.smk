"""Central reading: packages for readers, adjudication, lock."""


rule read_packages:
    """Blinded packages for every reader: pseudonyms, presentation order, images, read form."""
    input:
        GATE,
        prepared=records("prepare"),
        sheets=sheet_files("participants", "scans", "reads", "measurements"),
    output:
        packages=directory(under("reading", "packages")),
        # Updated and not made anew: it keeps the secret, so that pseudonyms stay.
        key=update(under("reading", "key.tsv")),
        summary=under("reading", "packages.json"),
    log:
        log_of("read_packages"),
    benchmark:
        benchmark_of("read_packages")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime="120m",
    params:
        config=config_part("reading"),
        code=code("read_packages"),
    message:
        "Packing cases for the readers"
    script:
        "../scripts/read_packages.py"


rule adjudication:
    """One final read per case from two readers and an adjudicator, by the charter's rule."""
    input:
        GATE,
        sheets=sheet_files("participants", "reads"),
    output:
        final=under("reading", "final_reads.tsv"),
        adjudication=under("reading", "adjudication.tsv"),
        rates=under("reading", "rates.tsv"),
    log:
        log_of("adjudication"),
    benchmark:
        benchmark_of("adjudication")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime="30m",
    params:
        config=config_part("reading"),
        code=code("adjudication"),
    message:
        "Adjudicating the reads"
    script:
        "../scripts/adjudication.py"


rule lock:
    """Lock the reads; once locked, only what the change log explains may differ."""
    input:
        GATE,
        sheets=sheet_files("reads"),
        final=under("reading", "final_reads.tsv"),
        log=[
            str(path)
            for path in [
                Path(
                    STUDY.config["reading"]["change_log"]
                    or under("reading", "change_log.jsonl")
                )
            ]
            if path.is_file()
        ],
    output:
        # Updated and not made anew: a lock that is there is held against the reads.
        lock=update(under("reading", "lock.json")),
        audit=under("reading", "lock_audit.tsv"),
    log:
        log_of("lock"),
    benchmark:
        benchmark_of("lock")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime="30m",
    params:
        config=config_part("reading"),
        code=code("lock"),
    message:
        "Locking the reads"
    script:
        "../scripts/lock.py"
