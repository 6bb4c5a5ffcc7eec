"""Rule verify: products hashed again, with what differs named."""

from corelab.provenance.job import job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import verify_lines

        print_to_terminal("\n".join(verify_lines(Path(snakemake.params.folder))))


main(snakemake)  # noqa: F821
