"""Central reading: packages for readers, their forms, adjudication, lock and audit.

In: prepare records, the sheets of reads. Out: reading/ (packages, final reads, lock and its
verification), exhibits/reading_*.json.
"""


def reference_files():
    """Existing images of the reference cases."""
    sheet = STUDY.sheets.get("reference_cases")
    if sheet is None or "path" not in sheet:
        return []
    folder = STUDY.sheet_paths["reference_cases"].parent
    paths = [folder / Path(text).expanduser() for text in sheet["path"].dropna()]
    return given(sorted({str(path) for path in paths if path.is_file()}))


PACKED_SHEETS = (*PEOPLE, "scans", "reads", "measurements", "reference_cases")
JUDGED_SHEETS = (*PEOPLE, "reads", "rereads", "scans")


rule read_packages:
    """Blinded packages for every reader: pseudonyms, presentation order, images, read form."""
    input:
        GATE,
        prepared=lambda wildcards: records("prepare"),
        sheets=sheet_files(*PACKED_SHEETS),
        references=reference_files(),
    output:
        packages=directory(under("reading", "packages")),
        # Updated and not made anew: it keeps the secret, so that pseudonyms stay.
        key=update(under("reading", "key.tsv")),
        sample=under("reading", "sample.tsv"),
        summary=under("reading", "packages.json"),
    log:
        log_of("read_packages"),
    benchmark:
        benchmark_of("read_packages")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime="120m",
    params:
        study=STUDY.part("reading", sheets=PACKED_SHEETS),
        code=code("read_packages"),
    message:
        "Packing cases for the readers"
    script:
        "../scripts/read_packages.py"


rule read_forms:
    """Turn the readers' forms into rows of the reads sheet; judge them on reference cases."""
    input:
        GATE,
        key=under("reading", "key.tsv"),
        forms=given(STUDY.config["reading"]["forms"].values()),
        sheets=sheet_files("reference_cases"),
    output:
        reads=under("reading", "returned_reads.tsv"),
        references=under("reading", "reference_reads.tsv"),
        performance=under("reading", "reference_performance.tsv"),
    log:
        log_of("read_forms"),
    benchmark:
        benchmark_of("read_forms")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part("reading", sheets=("reference_cases",)),
        code=code("read_forms"),
    message:
        "Taking over the readers' forms"
    script:
        "../scripts/read_forms.py"


rule adjudication:
    """One final read per case by the charter's rule; rates, p-chart, conduct and turnaround."""
    input:
        GATE,
        sheets=sheet_files(*JUDGED_SHEETS),
    output:
        final=under("reading", "final_reads.tsv"),
        rereview=under("reading", "rereview_final_reads.tsv"),
        adjudication=under("reading", "adjudication.tsv"),
        rates=under("reading", "rates.tsv"),
        p_chart=under("reading", "p_chart.tsv"),
        conduct=under("reading", "conduct.tsv"),
        attestations=under("reading", "attestations.tsv"),
        turnaround=under("reading", "turnaround.tsv"),
    log:
        log_of("adjudication"),
    benchmark:
        benchmark_of("adjudication")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part("reading", "attestations", sheets=JUDGED_SHEETS),
        code=code("adjudication"),
    message:
        "Adjudicating the reads"
    script:
        "../scripts/adjudication.py"


def contour_files():
    """Existing contours of readers: the lock covers them too."""
    return given(
        row.path
        for row in STUDY.scans
        if row.is_mask and row.reader and row.exists and not row.simulated
    )


rule make_lock:
    """Lock the reads once they are complete; an existing lock stays."""
    input:
        GATE,
        sheets=sheet_files("reads"),
        contours=contour_files(),
        final=under("reading", "final_reads.tsv"),
        adjudication=under("reading", "adjudication.tsv"),
    output:
        # Updated and not made anew: an existing lock is verified against the reads.
        lock=update(under("reading", "lock.json")),
    log:
        log_of("make_lock"),
    benchmark:
        benchmark_of("make_lock")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part("reading", sheets=("reads", "scans")),
        code=code("make_lock"),
    message:
        "Locking the reads"
    script:
        "../scripts/make_lock.py"


def change_log_files():
    """The log of changes after the lock and its head, if there are any."""
    configured = STUDY.config["reading"]["change_log"]
    log = Path(configured or under("reading", "change_log.jsonl"))
    head = log.with_name(f"{log.name.removesuffix('.jsonl')}.head.json")
    return given(str(path) for path in (log, head) if path.is_file())


rule lock:
    """Verify the reads against their lock; only differences in the change log are valid."""
    input:
        GATE,
        lock=under("reading", "lock.json"),
        sheets=sheet_files("reads", "rereads"),
        contours=contour_files(),
        final=under("reading", "final_reads.tsv"),
        log=change_log_files(),
    output:
        audit=under("reading", "lock_audit.tsv"),
        validity=under("reading", "validity.json"),
    log:
        log_of("lock"),
    benchmark:
        benchmark_of("lock")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part("reading", sheets=("reads", "rereads", "scans")),
        code=code("lock"),
    message:
        "Verifying the reads against their lock"
    script:
        "../scripts/lock.py"


rule reading_exhibits:
    """The central read in the report: its standing, rates, p-chart, conduct and turnaround."""
    input:
        lock=LOCK,
        audit=under("reading", "lock_audit.tsv"),
        adjudication=under("reading", "adjudication.tsv"),
        rates=under("reading", "rates.tsv"),
        p_chart=under("reading", "p_chart.tsv"),
        conduct=under("reading", "conduct.tsv"),
        attestations=under("reading", "attestations.tsv"),
        turnaround=under("reading", "turnaround.tsv"),
    output:
        exhibits=TARGETS.reading_exhibits,
    log:
        log_of("reading_exhibits"),
    benchmark:
        benchmark_of("reading_exhibits")
    conda:
        "../../environment.yml"
    params:
        folder=FOLDER,
        code=code("reading_exhibits"),
    message:
        "Drawing the central read"
    script:
        "../scripts/reading_exhibits.py"
