"""Rule trace: the chain of one number, printed."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import trace_lines

        if not snakemake.params.row:
            raise UserError(f"Name the row: --config row=ROW_ID (all chains: {snakemake.input[0]})")
        try:
            lines = trace_lines(Path(snakemake.params.folder), snakemake.params.row)
        except LookupError as error:
            raise UserError(str(error)) from None
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
