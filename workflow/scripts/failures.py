"""Rule failures: what could not be done, why, and the commands to try again."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.failures import write_failures
        from corelab.provenance.ledger import Failure

        write_failures(
            Path(snakemake.params.folder),
            snakemake.input.records,
            [Failure(**one) for one in snakemake.params.stopped],
            snakemake.output.table,
            snakemake.output.exhibit,
        )


main(snakemake)  # noqa: F821
