"""Rule simulate_inserts: one digital quality phantom."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.inserts import simulate_inserts
        from corelab.records.images import InsertRow

        given, made = snakemake.params, snakemake.output
        rows = [InsertRow.from_row(row) for row in given.rows]
        simulate_inserts(rows, made.image, made.mask, scale=given.scale, seed=given.seed)


main(snakemake)  # noqa: F821
