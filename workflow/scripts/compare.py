"""Rule compare: which numbers differ between two results folders."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.compare import compare_studies

        if not snakemake.params.other:
            raise UserError("Name the other results folder: --config compare_with=DIR")
        lines = compare_studies(Path(snakemake.params.folder), Path(snakemake.params.other))
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
