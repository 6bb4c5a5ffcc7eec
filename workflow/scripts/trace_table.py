"""Rule trace_table: the chain behind every number."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.failures import listed_records
        from corelab.provenance.manifest import TRACE, trace_rows
        from corelab.provenance.products import read_table, write_rows

        given, folder = snakemake.input, Path(snakemake.params.folder)
        stages = {"prepare", "segment", "perfuse", "normalise"}
        trace = trace_rows(
            folder,
            read_table(given.measurements),
            listed_records(given.records, folder, stages),
        )
        write_rows(trace, snakemake.output.table, TRACE)


main(snakemake)  # noqa: F821
