"""Rule specifications_table: all sensitivity grids in one table."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        import pandas as pd

        from corelab.plan.specifications import COLUMNS
        from corelab.provenance.products import read_table, write_table

        frames = [read_table(path) for path in snakemake.input]
        empty = pd.DataFrame(columns=list(COLUMNS))
        every = pd.concat(frames, ignore_index=True) if frames else empty
        write_table(every, snakemake.output.table, COLUMNS, sort=False)


main(snakemake)  # noqa: F821
