"""Rule verified: products hashed again right after the manifest was written."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import verified_table

        verified_table(Path(snakemake.params.folder), snakemake.output.table)


main(snakemake)  # noqa: F821
