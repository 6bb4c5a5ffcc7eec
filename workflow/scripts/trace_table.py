"""Rule trace_table: the chain behind every number."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.manifest import TRACE, build_trace
        from corelab.provenance.products import read_table, write_table

        trace = build_trace(
            Path(snakemake.params.folder),
            read_table(snakemake.input.measurements),
            [Path(path) for path in snakemake.input.records],
        )
        write_table(trace, snakemake.output.table, TRACE, sort=False)


main(snakemake)  # noqa: F821
