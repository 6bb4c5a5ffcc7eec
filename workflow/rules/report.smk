"""What people receive: the report, the review desk and the submission folder.

In: everything before. Out: report/ (pages, PDF), review/ (decisions), submission/.
"""

from corelab.settings.analyses import SHEETS as ANALYSIS_SHEETS
from corelab.workflow.costs import FIRST


localrules:
    review,


def first_records(wildcards):
    """Stage records of the first participant's visits."""
    return [record for one in TARGETS.first for record in TARGETS.subject_records(one)]


rule first_page:
    """Write the page of the first subject as soon as its images are done, to look at."""
    input:
        records=first_records,
        normalised=[stage("normalise", one) for one in TARGETS.first],
        measured=[stage("measure", one) for one in TARGETS.first],
        figures=TARGETS.quality_records_of(TARGETS.first),
    output:
        record=under("report", "first_subject.json"),
    log:
        log_of("first_page"),
    benchmark:
        benchmark_of("first_page")
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
    params:
        study=STUDY.part(*STUDY.config, sheets=PEOPLE),
        code=code("first_page"),
    message:
        "Writing the first subject's page"
    script:
        "../scripts/first_page.py"


#: What the report and its printed form are made of.
REPORTED = {
    "lock": LOCK,
    "endpoints": targets("endpoints"),
    "statistics": targets("statistics"),
    "findings": FINDINGS,
    "records": under("quality", "records.json"),
    "certificate": under("verification", "certificate.tsv"),
    "exhibits": TARGETS.exhibits(),
    "sensitivity": under("statistics", "sensitivity.tsv"),
    "exclusions": under("endpoints", "exclusions.tsv"),
    # Its data sets' conformance is part of the report.
    "submission": under("submission", "index.json"),
}


rule report:
    """Write the offline report: one page for the study and one per subject."""
    input:
        **REPORTED,
        decisions=given(TARGETS.decision_files()),
        trace=under("provenance", "trace.tsv"),
        # It is written again here, after that.
        first=[under("report", "first_subject.json")] * bool(TARGETS.first),
    output:
        page=report(
            under("report", "index.html"),
            caption="../report/study.rst",
            category="Study report",
            labels={"what": "report"},
        ),
        desk=under("report", "review.html"),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
        runtime="60m",
    params:
        study=STUDY.part(*STUDY.config, sheets=ANALYSIS_SHEETS),
        code=code("report"),
    message:
        f"Writing the report of {STUDY.id}"
    script:
        "../scripts/report.py"


rule printed_report:
    """Write the report as a PDF, its tables as RTF and HTML, and every statistic in one table."""
    input:
        **REPORTED,
    output:
        pdf=under("report", "report.pdf"),
        results=under("report", "analysis_results.tsv"),
    log:
        log_of("printed_report"),
    benchmark:
        benchmark_of("printed_report")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
        runtime="60m",
    params:
        study=STUDY.part(*STUDY.config, sheets=ANALYSIS_SHEETS),
        code=code("printed_report"),
    message:
        f"Writing the printed report of {STUDY.id}"
    script:
        "../scripts/printed_report.py"


rule review:
    """Serve the review desk on this machine, and write its decisions until it is finished."""
    input:
        desk=under("report", "review.html"),
    log:
        log_of("review"),
    benchmark:
        benchmark_of("review", RUN_ID)
    conda:
        "../../environment.yml"
    resources:
        runtime="24h",
    params:
        decisions=TARGETS.decisions_path(),
        port=STUDY.config["review"]["port"],
        code=code("review"),
    message:
        f"Serving the review desk of {STUDY.id}"
    script:
        "../scripts/review.py"


def rules_fingerprint():
    """Changes when a rule file does."""
    files = sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
    return fingerprint([path.read_text(encoding="utf-8") for path in files])


rule submission:
    """Write the nine documents of the submission and the data sets."""
    input:
        lock=LOCK,
        endpoints=targets("endpoints"),
        statistics=STATISTICS_TABLES,
        findings=FINDINGS,
        certificate=under("verification", "certificate.tsv"),
        sensitivity=under("statistics", "sensitivity.tsv"),
        exclusions=under("endpoints", "exclusions.tsv"),
        # The analysis of stability has figures, the list of issues has alarms.
        exhibits=TARGETS.exhibits(),
    output:
        index=under("submission", "index.json"),
    log:
        log_of("submission"),
    benchmark:
        benchmark_of("submission")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
    params:
        study=STUDY.part(*STUDY.config, sheets=ANALYSIS_SHEETS),
        # The procedure is written from the rules: an edit of one is another procedure.
        rules=rules_fingerprint(),
        steps=lambda wildcards: TARGETS.steps(workflow.rules),
        code=code("submission"),
    message:
        f"Writing the submission files of {STUDY.id}"
    script:
        "../scripts/submission.py"
