"""Rule index: participants and scans sheets from a BIDS folder."""

from corelab.provenance.job import Plain, job, tell


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.study.bids import write_index

        if not snakemake.params.bids:
            raise Plain("Name the BIDS folder: --config bids=DIR")
        tell("\n".join(write_index(Path(snakemake.params.bids), Path(snakemake.params.folder))))


main(snakemake)  # noqa: F821
