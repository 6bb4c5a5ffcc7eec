"""Rule cohort_flow: flows of participants, counted and drawn."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.pharmacodynamics.plan_runner import write_cohort_flows
        from corelab.study.model import load_study

        given, made = snakemake.input, snakemake.output
        study = load_study(snakemake.params.config)
        write_cohort_flows(study, given.measurements, made.table, made.exhibits)


main(snakemake)  # noqa: F821
