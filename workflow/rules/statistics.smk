"""The analysis plan: each analysis has a log, a result and figures of its own; many share a job.

In: endpoints/ and the sheets of an analysis. Out: statistics/by_analysis/ID.tsv, the tables of
statistics/, figures of the analyses in exhibits/.
"""

import re

#: Name of the shared job in its log and benchmark; no analysis can have it.
TOGETHER = "_together"


def analysis_of(wildcards):
    """The plan's entry of an analysis, as jobs get it."""
    return ANALYSES[wildcards.analysis].as_given()


def analysis_tables(wildcards):
    """Sheets that an analysis reads; an edit of another sheet does not rerun it."""
    return given(inputs.sheet_files(STUDY, *ANALYSES[wildcards.analysis].sheets))


def phantom_table(wildcards):
    """The measured inserts, for analyses of phantoms."""
    return phantoms_of([wildcards.analysis])


def features_of_analysis(wildcards):
    """The features, for analyses of features."""
    return features_of([wildcards.analysis])


def analysis_study(wildcards):
    """The part of the study that an analysis and its figures read."""
    return study_of([wildcards.analysis])


def phantoms_of(names):
    """The measured inserts, if one of the analyses is of phantoms."""
    return [under("endpoints", "phantoms.tsv")] * TARGETS.any_of("phantom", names)


def features_of(names):
    """The features, if one of the analyses is of features."""
    return [FEATURES] * TARGETS.any_of("radiomics", names)


def study_of(names):
    """The part of the study that analyses and their figures read."""
    blocks = ["locked_plan", "reading"]
    blocks += ["phantom_qa"] * TARGETS.any_of("phantom", names)
    sheets = {sheet for name in names for sheet in ANALYSES[name].sheets}
    return STUDY.part(*blocks, sheets=sorted(sheets))


def one_of(names):
    """Wildcard that is one of these names, or no name at all."""
    return "|".join(map(re.escape, names)) or "(?!)"


def sheets_together(wildcards):
    """Sheets of the analyses that share a job; one that did not change is not computed again."""
    sheets = {sheet for name in TARGETS.together for sheet in ANALYSES[name].sheets}
    return given(inputs.sheet_files(STUDY, *sorted(sheets)))


def locked_plan_file(wildcards):
    """The locked plan, if one is given and exists."""
    path = STUDY.config["locked_plan"]
    return given([path] if path and os.path.isfile(path) else [])


rule analyse:
    """Run the analyses of the plan that take little time, in one job; those that did not change stay."""
    input:
        GATE,
        lock=LOCK,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        features=features_of(TARGETS.together),
        sheets=sheets_together,
        phantoms=phantoms_of(TARGETS.together),
        locked=locked_plan_file,
    output:
        rows=[
            update(under("statistics", "by_analysis", f"{name}.tsv"))
            for name in TARGETS.together
        ],
    log:
        log_of("analyse", TOGETHER),
    benchmark:
        benchmark_of("analyse", TOGETHER)
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        plan=[ANALYSES[name].as_given() for name in TARGETS.together],
        study=study_of(TARGETS.together),
        code=code("analyse"),
    message:
        f"{len(TARGETS.together)} analyses in one job"
    script:
        "../scripts/analyse.py"


use rule analyse as analyse_without_exclusions with:
    input:
        GATE,
        lock=LOCK,
        measurements=under("endpoints", "without_exclusions", "measurements.tsv"),
        overlap=under("endpoints", "without_exclusions", "overlap.tsv"),
        features=features_of(TARGETS.together),
        sheets=sheets_together,
        phantoms=phantoms_of(TARGETS.together),
        locked=locked_plan_file,
    output:
        rows=[
            update(under("statistics", "without_exclusions", f"{name}.tsv"))
            for name in TARGETS.together
        ],
    log:
        log_of("analyse_without_exclusions", TOGETHER),
    benchmark:
        benchmark_of("analyse_without_exclusions", TOGETHER)
    message:
        "Analyses of the plan without exclusions, in one job"


use rule analyse as analyse_alone with:
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
        rows=[under("statistics", "by_analysis", "{analysis}.tsv")],
    log:
        log_of("analyse_alone", "{analysis}"),
    benchmark:
        benchmark_of("analyse_alone", "{analysis}")
    wildcard_constraints:
        analysis=one_of(TARGETS.alone),
    params:
        plan=lambda wildcards: [analysis_of(wildcards)],
        study=analysis_study,
        code=code("analyse"),
    message:
        "Analysis in a job of its own: {wildcards.analysis}"


use rule analyse_alone as analyse_without_exclusions_alone with:
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
        rows=[under("statistics", "without_exclusions", "{analysis}.tsv")],
    log:
        log_of("analyse_without_exclusions_alone", "{analysis}"),
    benchmark:
        benchmark_of("analyse_without_exclusions_alone", "{analysis}")
    wildcard_constraints:
        analysis=one_of(TARGETS.alone),
    message:
        "Analysis without exclusions, in a job of its own: {wildcards.analysis}"


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


def figure_records(names):
    """Records of the stages whose scans and masks figures of contours show."""
    shown = any("contours" in TARGETS.figure_kinds(name) for name in names)
    return records("prepare", "segment", "perfuse") * shown


rule draw:
    """Draw the figures of the analyses that share a job; those that did not change stay."""
    input:
        GATE,
        rows=[
            under("statistics", "by_analysis", f"{name}.tsv")
            for name in TARGETS.drawn_together
        ],
        lock=LOCK,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        features=features_of(TARGETS.drawn_together),
        sheets=sheets_together,
        records=lambda wildcards: figure_records(TARGETS.drawn_together),
    output:
        exhibits=[
            update(under("exhibits", f"analysis_{name}.json"))
            for name in TARGETS.drawn_together
        ],
        figures=[
            update(directory(under("exhibits", f"analysis_{name}")))
            for name in TARGETS.drawn_together
        ],
    log:
        log_of("draw", TOGETHER),
    benchmark:
        benchmark_of("draw", TOGETHER)
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime="60m",
    params:
        plan=[ANALYSES[name].as_given() for name in TARGETS.drawn_together],
        study=study_of(TARGETS.drawn_together),
        images=bool(SUBJECTS),
        code=code("draw"),
    message:
        f"Drawing {len(TARGETS.drawn_together)} analyses in one job"
    script:
        "../scripts/draw.py"


use rule draw as draw_alone with:
    input:
        GATE,
        rows=[under("statistics", "by_analysis", "{analysis}.tsv")],
        lock=LOCK,
        measurements=MEASUREMENTS,
        overlap=under("endpoints", "overlap.tsv"),
        features=features_of_analysis,
        sheets=analysis_tables,
        records=lambda wildcards: figure_records([wildcards.analysis]),
    output:
        exhibits=[under("exhibits", "analysis_{analysis}.json")],
        figures=[directory(under("exhibits", "analysis_{analysis}"))],
    log:
        log_of("draw_alone", "{analysis}"),
    benchmark:
        benchmark_of("draw_alone", "{analysis}")
    wildcard_constraints:
        analysis=one_of(TARGETS.alone),
    params:
        plan=lambda wildcards: [analysis_of(wildcards)],
        study=analysis_study,
        images=bool(SUBJECTS),
        code=code("draw"),
    message:
        "Drawing one analysis: {wildcards.analysis}"


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
