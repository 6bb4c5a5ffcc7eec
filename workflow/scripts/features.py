"""Rule features: features of all visits and of the measurements sheets in one table."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.provenance.products import write_table
        from corelab.radiomics.visit import collect_features
        from corelab.study.columns import FEATURES
        from corelab.study.model import read_study

        sheets = read_study(snakemake.params.study).sheets
        found = collect_features(snakemake.input.tables, sheets.get("measurements"))
        write_table(found, snakemake.output.features, FEATURES, sort=False)


main(snakemake)  # noqa: F821
