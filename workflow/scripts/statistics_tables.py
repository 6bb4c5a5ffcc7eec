"""Rule statistics_tables: the analyses by part of the report, with adjusted multiplicity."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.runner import write_statistics
        from corelab.reading.study_reads import banner_of
        from corelab.settings.analyses import spec_of

        write_statistics(
            snakemake.input.analyses,
            [spec_of(entry) for entry in snakemake.params.analyses],
            snakemake.output.tables,
            banner_of(snakemake.input.lock),
            snakemake.output.analyses,
        )


main(snakemake)  # noqa: F821
