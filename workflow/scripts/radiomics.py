"""Rule radiomics: features of every series within every mask of one visit."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.products import write_table
        from corelab.radiomics.visit import radiomics_visit
        from corelab.records.base import write_record
        from corelab.records.images import Prepared, Segmented
        from corelab.settings.radiomics import RadiomicsSettings
        from corelab.study.columns import FEATURES

        given, params, output = snakemake.input, snakemake.params, snakemake.output
        record, table = radiomics_visit(
            Prepared.read(given.prepared),
            Segmented.read(given.segmented),
            params.folder,
            settings=RadiomicsSettings.model_validate(params.radiomics),
        )
        write_table(table, output.table, FEATURES)
        write_record(record, Path(params.folder), output.record)


main(snakemake)  # noqa: F821
