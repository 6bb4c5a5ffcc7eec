"""Rule status: how far the study is and what failed, recomputed from the records."""

from corelab.provenance.job import job, tell


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.records import status_lines

        tell("\n".join(status_lines(Path(snakemake.params.folder), snakemake.params.stages)))


main(snakemake)  # noqa: F821
