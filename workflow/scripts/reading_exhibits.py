"""Rule reading_exhibits: the central read in the report."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reading.exhibits import write_reading_exhibits

        write_reading_exhibits(snakemake.params.folder)


main(snakemake)  # noqa: F821
