"""Corelab: from a trial's images, reads and tables to traceable imaging endpoints."""

from snakemake.utils import min_version

min_version("9.19")


# A given --configfile is the whole study; the demo is run only when none is given.
if not workflow.overwrite_configfiles:

    configfile: workflow.source_path("config/config.yaml")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/preflight.smk"
include: "workflow/rules/phantom.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/endpoints.smk"
include: "workflow/rules/recovery.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/reading.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/provenance.smk"


if str(rules.preflight.output.passed) != PASSED:
    raise WorkflowError(
        "A `prefix` of `module` moves what rules write, but not where jobs look for it. Leave it out "
        "and give `results_dir` in the config of the module instead."
    )


rule all:
    default_target: True
    input:
        asked("endpoints", "statistics", "report", "submission", "verify"),


rule images:
    input:
        asked("images"),


rule site:
    input:
        site_records,


rule endpoints:
    input:
        asked("endpoints"),


rule statistics:
    input:
        asked("statistics"),


rule recovery:
    input:
        asked("recovery"),


rule phantom:
    input:
        asked("phantom"),


onstart:
    tell_plan()


onsuccess:
    tell_summary(log)


onerror:
    tell_failure(log)
