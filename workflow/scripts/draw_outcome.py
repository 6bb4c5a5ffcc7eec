"""Rule draw_outcome: the figures of one analysis of survival, progression or radiomics."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.pharmacodynamics.outcome_figures import write_figures
        from corelab.plan.drawing import draw_or_report
        from corelab.plan.runner import tables_of
        from corelab.provenance.products import read_table
        from corelab.settings.analyses import spec_of
        from corelab.study.columns import STATISTICS_NUMBERS
        from corelab.study.model import read_study

        given, analysis = snakemake.input, spec_of(snakemake.params.analysis)
        study = read_study(snakemake.params.study)
        exhibit = snakemake.output.exhibit

        def draw():
            tables = tables_of(analysis, study, given.measurements, given.overlap, given.features)
            rows = read_table(given.rows, numeric=STATISTICS_NUMBERS).fillna({"note": ""})
            write_figures(analysis, tables, rows, exhibit)

        draw_or_report(draw, analysis, exhibit)


main(snakemake)  # noqa: F821
