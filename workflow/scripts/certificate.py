"""Rule certificate: published numbers beside the recomputed ones."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.certificate import CERTIFICATE, certificate, read_statistics
        from corelab.provenance.products import write_table
        from corelab.study.model import read_sheet

        path = snakemake.params.published.get("published")
        sheet = read_sheet(Path(path), "published")[0] if path else None
        table = certificate(
            sheet,
            read_statistics(snakemake.input.statistics),
            numeric_tolerance=snakemake.params.numeric_tolerance,
        )
        write_table(table, snakemake.output.table, CERTIFICATE)


main(snakemake)  # noqa: F821
