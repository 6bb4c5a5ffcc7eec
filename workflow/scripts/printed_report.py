"""Rule printed_report: the report as a PDF, its tables and every statistic."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.study_results import study_results
        from corelab.reporting.tlf import write_pdf

        write_pdf(study_results(snakemake.params.study, snakemake.input))


main(snakemake)  # noqa: F821
