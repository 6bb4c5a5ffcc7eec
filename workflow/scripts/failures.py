"""Rule failures: what could not be done, why, and the commands to try again."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.failures import records_behind, write_failures, write_record_list
        from corelab.provenance.ledger import Failure

        folder = Path(snakemake.params.folder)
        records = records_behind(folder, snakemake.input.measured)
        write_record_list(folder, records, snakemake.output.records)
        write_failures(
            folder,
            records,
            [Failure(**one) for one in snakemake.params.stopped],
            snakemake.output.table,
            snakemake.output.exhibit,
        )


main(snakemake)  # noqa: F821
