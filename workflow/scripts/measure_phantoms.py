"""Rule measure_phantoms: every insert of every phantom scan, measured."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        import pandas as pd

        from corelab.imaging.inserts import measure_inserts
        from corelab.provenance.products import write_table
        from corelab.study.columns import PHANTOMS

        found = measure_inserts(snakemake.params.rows)
        frame = pd.DataFrame(found, columns=list(PHANTOMS), dtype=object)
        write_table(frame, snakemake.output.table, PHANTOMS)


main(snakemake)  # noqa: F821
