"""Rule contact_sheet: all fits of the study, worst first."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.exhibits import registration_exhibit
        from corelab.provenance.products import write_table
        from corelab.records.subjects import Checked
        from corelab.registration.figures import QUALITY_COLUMNS, contact_sheet, quality_table

        given = snakemake.output
        records = [Checked.read(path) for path in snakemake.input.records]
        table = quality_table(records)
        contact_sheet(records, table, Path(snakemake.params.folder), Path(given.sheet))
        write_table(table, given.table, QUALITY_COLUMNS)
        registration_exhibit(given.table, given.sheet, given.exhibit)


main(snakemake)  # noqa: F821
