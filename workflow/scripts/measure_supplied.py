"""Rule measure_supplied: masks that others drew, of many subjects."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.measurement.visit import measure_supplied

        params = snakemake.params
        record = measure_supplied(params.rows, atlases=params.atlases, settings=params.measurement)
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
