"""Rule failures: what could not be done, why, and the commands to try again."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.failures import write_failures, write_record_list
        from corelab.provenance.ledger import Failure

        folder = Path(snakemake.params.folder)
        write_record_list(folder, snakemake.input.records, snakemake.output.records)
        write_failures(
            folder,
            snakemake.input.records,
            [Failure(**one) for one in snakemake.params.stopped],
            snakemake.output.table,
            snakemake.output.exhibit,
        )


main(snakemake)  # noqa: F821
