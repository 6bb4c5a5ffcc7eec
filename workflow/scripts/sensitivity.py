"""Rule sensitivity: statistics and values with and without exclusions."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.pharmacodynamics.exclusion_sensitivity import write_sensitivity

        given, out = snakemake.input, snakemake.output
        write_sensitivity(
            given.primary,
            given.analyses,
            given.measurements,
            given.whole,
            statistics=out.statistics,
            values=out.values,
        )


main(snakemake)  # noqa: F821
