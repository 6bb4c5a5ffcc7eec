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


SESSION.recover()


rule all:
    default_target: True
    input:
        requested("endpoints", "statistics", "report", "submission", "verify"),


rule images:
    input:
        requested("images"),


def site_records(wildcards):
    """Records of the measurements of one site's participants: --config site=NAME."""
    name, frame = STUDY.config["site"], STUDY.sheets["participants"]
    if name is None or "site" not in frame:
        raise WorkflowError(
            "The target site needs --config site=NAME, and a column site in the participants sheet."
        )
    people = set(frame.loc[frame["site"] == str(name), "participant_id"])
    if not people:
        known = ", ".join(sorted(map(str, frame["site"].dropna().unique()))[:20])
        raise WorkflowError(f"No participant is of the site {name}. Sites: {known}")
    return [
        stage("measure", subject)
        for subject, (person, _) in SUBJECTS.items()
        if person in people
    ]


rule site:
    input:
        site_records,


rule endpoints:
    input:
        requested("endpoints"),


rule statistics:
    input:
        requested("statistics"),


rule recovery:
    input:
        requested("recovery"),


rule phantom:
    input:
        requested("phantom"),


onstart:
    SESSION.on_start()


onsuccess:
    SESSION.on_success()


onerror:
    SESSION.on_error()
