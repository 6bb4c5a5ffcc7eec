"""Rule noise_floor: the scatter of every endpoint over the repeats."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.measurement.exhibits import noise_floor_exhibit
        from corelab.measurement.noise_floor import noise_floor_table
        from corelab.provenance.products import write_table
        from corelab.records.measured import Repeated
        from corelab.study.columns import NOISE_FLOOR

        table = noise_floor_table(map(Repeated.read, snakemake.input.repeats))
        write_table(table, snakemake.output.table, NOISE_FLOOR)
        noise_floor_exhibit(snakemake.output.table, snakemake.output.exhibit)


main(snakemake)  # noqa: F821
