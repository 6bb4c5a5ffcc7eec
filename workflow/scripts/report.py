"""Rule report: the offline report."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.report import write_report
        from corelab.reporting.study_results import study_results

        given = snakemake.input
        results = study_results(snakemake.params.study, given)
        write_report(results, decisions=next(iter(given.decisions), None), trace=given.trace)


main(snakemake)  # noqa: F821
