"""Rule cohort_flow: flows of participants, counted and drawn."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.cohort_flow import write_cohort_flows
        from corelab.plan.runner import EVERY, tables_of
        from corelab.study.model import read_study

        given, made = snakemake.input, snakemake.output
        study = read_study(snakemake.params.study)
        tables = tables_of(EVERY, study, given.measurements, None)
        flows, people = study.settings.cohort_flows, tables.participants
        write_cohort_flows(flows, people, tables.measurements, made.table, made.exhibits)


main(snakemake)  # noqa: F821
