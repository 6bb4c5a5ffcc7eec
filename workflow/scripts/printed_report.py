"""Rule printed_report: the report as a PDF, its tables and every statistic."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.study_results import study_results
        from corelab.reporting.tlf import write_pdf

        given = snakemake.input
        results = study_results(
            snakemake.params.study,
            features=given.features,
            exhibits=given.exhibits,
            submission=given.submission,
        )
        write_pdf(results)


main(snakemake)  # noqa: F821
