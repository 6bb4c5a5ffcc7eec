"""Rule measure_phantoms: every insert of every phantom scan, measured."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.imaging.inserts import inserts_frame, measure_inserts
        from corelab.provenance.products import write_table
        from corelab.records.images import InsertRow
        from corelab.study.columns import PHANTOMS

        rows = [InsertRow.from_row(row) for row in snakemake.params.rows]
        write_table(inserts_frame(measure_inserts(rows)), snakemake.output.table, PHANTOMS)


main(snakemake)  # noqa: F821
