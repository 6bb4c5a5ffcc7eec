"""Rule verify: products hashed again, with what differs named."""

from corelab.provenance.job import job, tell


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import verify_lines

        tell("\n".join(verify_lines(Path(snakemake.params.folder))))


main(snakemake)  # noqa: F821
