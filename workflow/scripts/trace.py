"""Rule trace: the chain of one number, printed."""

from corelab.provenance.job import Plain, job, tell


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import trace_lines

        if not snakemake.params.row:
            raise Plain(f"Name the row: --config row=ROW_ID (all chains: {snakemake.input[0]})")
        try:
            tell("\n".join(trace_lines(Path(snakemake.params.folder), snakemake.params.row)))
        except LookupError as error:
            raise Plain(str(error)) from None


main(snakemake)  # noqa: F821
