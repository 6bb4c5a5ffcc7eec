"""Rule index: participants and scans sheets from a BIDS folder."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.study.bids import write_index

        if not snakemake.params.bids:
            raise UserError("Name the BIDS folder: --config bids=DIR")
        print_to_terminal(
            "\n".join(write_index(Path(snakemake.params.bids), Path(snakemake.params.folder)))
        )


main(snakemake)  # noqa: F821
