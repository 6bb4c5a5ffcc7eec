"""Rule review: the review desk, served until it is finished."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.reporting.desk import serve

        params = snakemake.params
        serve(
            Path(snakemake.input.desk).parent,
            Path(params.decisions),
            params.port,
            print_to_terminal,
        )


main(snakemake)  # noqa: F821
