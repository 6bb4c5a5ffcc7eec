"""Rules analyse and analyse_without_exclusions: one analysis of the plan."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.runner import run_analysis
        from corelab.provenance.products import write_table
        from corelab.settings.analyses import spec_of
        from corelab.study.columns import STATISTICS
        from corelab.study.model import read_study

        given = snakemake.input
        rows = run_analysis(
            spec_of(snakemake.params.analysis),
            read_study(snakemake.params.study),
            given.measurements,
            given.overlap,
            features=given.features,
            log=f"logs/{snakemake.rule}/{snakemake.wildcards.analysis}.log",
        )
        write_table(rows, snakemake.output.rows, list(STATISTICS), sort=False)


main(snakemake)  # noqa: F821
