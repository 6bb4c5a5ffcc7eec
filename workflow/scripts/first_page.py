"""Rule first_page: a page of the first subject, as soon as its images are done."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.records.measured import Measured
        from corelab.reporting.first_page import write_first_page
        from corelab.study.model import read_study

        page = write_first_page(
            read_study(snakemake.params.study),
            Measured.read(snakemake.input.measured[0]),
            snakemake.output.record,
        )
        print_to_terminal(f"First subject's page: {page}")


main(snakemake)  # noqa: F821
