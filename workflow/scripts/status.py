"""Rule status: how far the study is and what failed, recomputed from the records."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.progress import status_lines

        params = snakemake.params
        print_to_terminal(
            "\n".join(
                status_lines(
                    Path(params.folder), params.stages, params.participants, *params.command
                )
            )
        )


main(snakemake)  # noqa: F821
