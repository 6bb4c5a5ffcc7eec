"""Rule draw_pharmacodynamics: the figure of one analysis, for the report."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.pharmacodynamics.analysis_figures import write_analysis_figure
        from corelab.plan.drawing import draw_or_report
        from corelab.plan.runner import tables_of
        from corelab.provenance.products import read_table
        from corelab.settings.analyses import spec_of
        from corelab.study.columns import STATISTICS_NUMBERS
        from corelab.study.model import read_study

        given, made = snakemake.input, snakemake.output
        analysis = spec_of(snakemake.params.analysis)
        study = read_study(snakemake.params.study)

        def draw():
            tables = tables_of(analysis, study, given.measurements, given.overlap)
            rows = read_table(given.rows, numeric=STATISTICS_NUMBERS)
            write_analysis_figure(analysis, tables, rows, made.exhibit, made.figure)

        draw_or_report(draw, analysis, made.exhibit, made.figure)


main(snakemake)  # noqa: F821
