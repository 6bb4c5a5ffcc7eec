"""The analysis plan: one analysis is one job, and rows under its id.

In: endpoints/ and the sheets of an analysis. Out: statistics/by_analysis/ID.tsv, the tables of
statistics/, figures of the analyses in exhibits/.
"""


def analysis_of(wildcards):
    """The plan's entry of an analysis, as jobs get it."""
    return ANALYSES[wildcards.analysis].as_given()


def analysis_tables(wildcards):
    """Sheets that an analysis reads; an edit of another sheet does not rerun it."""
    return given(inputs.sheet_files(STUDY, *ANALYSES[wildcards.analysis].sheets))


def phantom_table(wildcards):
    """The measured inserts, for analyses of phantoms."""
    wanted = ANALYSES[wildcards.analysis].type == "phantom"
    return [under("endpoints", "phantoms.tsv")] * wanted


def features_of_analysis(wildcards):
    """The features, for analyses of features."""
    return [FEATURES] * (ANALYSES[wildcards.analysis].type == "radiomics")


def analysis_study(wildcards):
    """The part of the study that an analysis and its figures read."""
    analysis = ANALYSES[wildcards.analysis]
    blocks = [
        "locked_plan",
        "reading",
        *["phantom_qa"] * (analysis.type == "phantom"),
    ]
    return STUDY.part(*blocks, sheets=analysis.sheets)


def locked_plan_file(wildcards):
    """The locked plan, if one is given and exists."""
    path = STUDY.config["locked_plan"]
    return given([path] if path and os.path.isfile(path) else [])


rule analyse:
    """Run one analysis of the plan."""
    input:
        GATE,
        lock=LOCK,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        features=features_of_analysis,
        sheets=analysis_tables,
        phantoms=phantom_table,
        locked=locked_plan_file,
    output:
        rows=under("statistics", "by_analysis", "{analysis}.tsv"),
    log:
        log_of("analyse", "{analysis}"),
    benchmark:
        benchmark_of("analyse", "{analysis}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        analysis=analysis_of,
        study=analysis_study,
        code=code("analyse"),
    message:
        "Analysis {wildcards.analysis}"
    script:
        "../scripts/analyse.py"


use rule analyse as analyse_without_exclusions with:
    input:
        GATE,
        lock=LOCK,
        measurements=under("endpoints", "without_exclusions", "measurements.tsv"),
        overlap=under("endpoints", "without_exclusions", "overlap.tsv"),
        features=features_of_analysis,
        sheets=analysis_tables,
        phantoms=phantom_table,
        locked=locked_plan_file,
    output:
        rows=under("statistics", "without_exclusions", "{analysis}.tsv"),
    log:
        log_of("analyse_without_exclusions", "{analysis}"),
    benchmark:
        benchmark_of("analyse_without_exclusions", "{analysis}")
    message:
        "One analysis of the plan without exclusions: {wildcards.analysis}"


rule sensitivity:
    """Every statistic with and without the exclusions of the review desk."""
    input:
        GATE,
        primary=STATISTICS_TABLES,
        measurements=MEASUREMENTS,
        whole=under("endpoints", "without_exclusions", "measurements.tsv"),
        analyses=[
            under("statistics", "without_exclusions", f"{name}.tsv")
            for name in TARGETS.sensitivity_analyses()
        ],
    output:
        statistics=under("statistics", "sensitivity.tsv"),
        values=under("endpoints", "exclusions.tsv"),
    log:
        log_of("sensitivity"),
    benchmark:
        benchmark_of("sensitivity")
    conda:
        "../../environment.yml"
    params:
        code=code("sensitivity"),
    message:
        "Setting results with and without exclusions side by side"
    script:
        "../scripts/sensitivity.py"


rule perfusion_cutoffs:
    """Compare core by every perfusion cut-off, and the sweep of relative CBF, with the infarct."""
    input:
        measurements=MEASUREMENTS,
    output:
        **TARGETS.perfusion_cutoffs,
    log:
        log_of("perfusion_cutoffs"),
    benchmark:
        benchmark_of("perfusion_cutoffs")
    conda:
        "../../environment.yml"
    params:
        visit_order=STUDY.visit_order,
        reference=STUDY.config["perfusion"]["reference_infarct"],
        code=code("perfusion_cutoffs"),
    message:
        "Comparing perfusion cut-offs with the infarct"
    script:
        "../scripts/perfusion_cutoffs.py"


rule statistics_tables:
    """Bring the analyses together by part of the report; a type that the plan lacks gives a header-only file."""
    input:
        GATE,
        lock=LOCK,
        analyses=[
            under("statistics", "by_analysis", f"{name}.tsv") for name in ANALYSES
        ],
    output:
        tables=STATISTICS_TABLES,
        analyses=under("statistics", "analyses.tsv"),
    log:
        log_of("statistics_tables"),
    benchmark:
        benchmark_of("statistics_tables")
    conda:
        "../../environment.yml"
    params:
        analyses=STUDY.config["analyses"],
        plan=STUDY.settings.plan_fingerprint,
        code=code("statistics_tables"),
    message:
        f"Collecting the statistics of {STUDY.id}"
    script:
        "../scripts/statistics_tables.py"


def figure_records(wildcards):
    """Records of the stages whose scans and masks a figure shows."""
    if "contours" not in TARGETS.figure_kinds(wildcards.analysis):
        return []
    return records("prepare", "segment", "perfuse")


def figure_kinds_of(wildcards):
    """Kinds of figures of an analysis of agreement or overlap."""
    return TARGETS.figure_kinds(wildcards.analysis)


rule draw:
    """Draw the figures of one analysis for the report."""
    input:
        GATE,
        rows=under("statistics", "by_analysis", "{analysis}.tsv"),
        lock=LOCK,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        features=features_of_analysis,
        sheets=analysis_tables,
        records=figure_records,
    output:
        exhibit=under("exhibits", "analysis_{analysis}.json"),
        figures=directory(under("exhibits", "analysis_{analysis}")),
    log:
        log_of("draw", "{analysis}"),
    benchmark:
        benchmark_of("draw", "{analysis}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        analysis=analysis_of,
        study=analysis_study,
        kinds=figure_kinds_of,
        code=code("draw"),
    message:
        "Drawing analysis {wildcards.analysis}"
    script:
        "../scripts/draw.py"


rule specifications:
    """Run one analysis under every alternative that the plan lists, and draw its specification curve."""
    input:
        GATE,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        sheets=analysis_tables,
    output:
        rows=under("statistics", "by_specification", "{analysis}.tsv"),
        figures=directory(under("exhibits", "specifications_{analysis}")),
        exhibit=under("exhibits", "specifications_{analysis}.json"),
    log:
        log_of("specifications", "{analysis}"),
    benchmark:
        benchmark_of("specifications", "{analysis}")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="4h",
    params:
        analysis=analysis_of,
        study=analysis_study,
        code=code("specifications"),
    message:
        "Sensitivity of analysis {wildcards.analysis}"
    script:
        "../scripts/specifications.py"


rule specifications_table:
    """Bring the sensitivity grids together; a plan without one gives a header-only file."""
    input:
        [
            under("statistics", "by_specification", f"{name}.tsv")
            for name in TARGETS.grids
        ],
    output:
        table=under("statistics", "specifications.tsv"),
        dictionary=under("statistics", "specifications.json"),
    log:
        log_of("specifications_table"),
    benchmark:
        benchmark_of("specifications_table")
    conda:
        "../../environment.yml"
    params:
        grids=TARGETS.grids,
        code=code("specifications_table"),
    message:
        f"Collecting the sensitivity grids of {STUDY.id}"
    script:
        "../scripts/specifications_table.py"


rule plan:
    """Write the analysis plan with its fingerprint, and what differs from the locked plan."""
    input:
        GATE,
        locked=locked_plan_file,
    output:
        plan=under("statistics", "plan.json"),
        deviations=under("statistics", "plan_deviations.tsv"),
        dictionary=under("statistics", "plan_deviations.json"),
        exhibit=under("exhibits", "plan.json"),
        trial=[
            under("statistics", "trial_endpoints.tsv"),
            under("exhibits", "trial.json"),
            under("statistics", "trial_endpoints.json"),
        ]
        * bool(STUDY.config["trial"]),
    log:
        log_of("plan"),
    benchmark:
        benchmark_of("plan")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part(
            *("analyses", "cohort_flows", "serial_imaging", "locked_plan", "trial")
        ),
        code=code("plan"),
    message:
        f"Recording the analysis plan of {STUDY.id}"
    script:
        "../scripts/plan.py"


rule cohort_flow:
    """Count the flows of participants and draw them (CONSORT)."""
    input:
        GATE,
        measurements=MEASUREMENTS,
        sheets=sheet_files(*PEOPLE),
    output:
        table=under("statistics", "cohort_flow.tsv"),
        dictionary=under("statistics", "cohort_flow.json"),
        exhibits=[under("exhibits", f"flow_{name}.json") for name in TARGETS.flows],
        figures=[under("exhibits", f"flow_{name}.svg") for name in TARGETS.flows],
    log:
        log_of("cohort_flow"),
    benchmark:
        benchmark_of("cohort_flow")
    conda:
        "../../environment.yml"
    params:
        study=STUDY.part("cohort_flows", "reading", sheets=PEOPLE),
        code=code("cohort_flow"),
    message:
        f"Counting the flows of participants of {STUDY.id}"
    script:
        "../scripts/cohort_flow.py"
