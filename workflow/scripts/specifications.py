"""Rule specifications: one analysis under every alternative that the plan lists."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.drawing import write_figures
        from corelab.plan.runner import run_sensitivity
        from corelab.plan.specification_figure import specification_figure
        from corelab.plan.specifications import COLUMNS
        from corelab.provenance.products import write_table
        from corelab.settings.analyses import spec_of
        from corelab.study.model import read_study

        given, made = snakemake.input, snakemake.output
        study = read_study(snakemake.params.study)
        analysis = spec_of(snakemake.params.analysis)
        rows = run_sensitivity(analysis, study, given.measurements, given.overlap)
        write_table(rows, made.rows, COLUMNS, sort=False)
        write_figures(
            analysis,
            lambda: [lambda: [specification_figure(rows)]],
            made.exhibit,
            made.figures,
            section="sensitivity",
            source="statistics/specifications.tsv",
        )


main(snakemake)  # noqa: F821
