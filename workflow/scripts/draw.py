"""Rule draw: the figures of one analysis, for the report."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.plan.drawing import drawers, write_figures
        from corelab.plan.runner import tables_of
        from corelab.provenance.products import read_table
        from corelab.settings.analyses import spec_of
        from corelab.study.columns import STATISTICS_NUMBERS
        from corelab.study.model import read_study

        given, made = snakemake.input, snakemake.output
        analysis, study = spec_of(snakemake.params.analysis), read_study(snakemake.params.study)

        def draws():
            files = (given.measurements, given.overlap, given.features)
            tables = tables_of(analysis, study, *files)
            rows = read_table(given.rows, numeric=STATISTICS_NUMBERS)
            return drawers(analysis, tables, rows, snakemake.params.kinds, study.folder)

        for reason in write_figures(analysis, draws, made.exhibit, made.figures):
            print_to_terminal(f"{analysis.id}: {reason}")


main(snakemake)  # noqa: F821
