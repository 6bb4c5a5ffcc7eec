"""Rule draw_agreement: one figure of one analysis of agreement or overlap."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.agreement.exhibits import write_figure
        from corelab.plan.drawing import draw_or_report
        from corelab.plan.runner import tables_of
        from corelab.provenance.products import read_table
        from corelab.settings.analyses import spec_of
        from corelab.study.columns import STATISTICS_NUMBERS
        from corelab.study.model import read_study

        given, analysis = snakemake.input, spec_of(snakemake.params.analysis)
        study = read_study(snakemake.params.study)
        kind, path = snakemake.wildcards.kind, snakemake.output.exhibit

        def draw():
            tables = tables_of(analysis, study, given.measurements, given.overlap)
            rows = read_table(given.rows, numeric=STATISTICS_NUMBERS)
            reason = write_figure(analysis, tables, rows, kind, path, study.folder)
            if reason:
                print_to_terminal(f"{analysis.id}, {kind}: not drawn, {reason}")

        draw_or_report(draw, analysis, path, snakemake.output.figure)


main(snakemake)  # noqa: F821
