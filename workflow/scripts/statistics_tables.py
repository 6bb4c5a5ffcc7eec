"""Rule statistics_tables: the analyses by room, with multiplicity adjusted by family."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.pharmacodynamics.plan_runner import write_statistics

        write_statistics(
            snakemake.input.analyses, snakemake.params.analyses, snakemake.output.tables
        )


main(snakemake)  # noqa: F821
