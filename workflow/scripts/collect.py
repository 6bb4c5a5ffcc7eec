"""Rule collect: all measurement rows in one table, and the flow of scans."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.measurement.collect import collect_study, write_endpoints
        from corelab.study.model import read_study

        given = snakemake.input
        parts = collect_study(
            read_study(snakemake.params.study),
            list(given.records),
            list(given.batches),
            list(given.final),
            next(iter(given.decisions), None),
            failed=snakemake.params.failed,
        )
        write_endpoints(parts, snakemake.output)


main(snakemake)  # noqa: F821
