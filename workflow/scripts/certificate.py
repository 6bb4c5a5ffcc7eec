"""Rule certificate: published numbers beside the recomputed ones."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.certificate import CERTIFICATE, certificate, read_statistics
        from corelab.provenance.products import read_table, write_table
        from corelab.study.columns import MEASUREMENT_KEY
        from corelab.study.sheets import read_sheet

        path = snakemake.params.published.get("published")
        sheet = read_sheet(Path(path), "published")[0] if path else None
        people = read_sheet(Path(snakemake.input.participants[0]), "participants")[0]
        arms = {} if "arm" not in people else dict(people[["participant_id", "arm"]].to_numpy())
        table = certificate(
            sheet,
            read_statistics(snakemake.input.statistics),
            numeric_tolerance=snakemake.params.numeric_tolerance,
            measurements=read_table(
                snakemake.input.measurements,
                numeric=["value"],
                columns=[*MEASUREMENT_KEY, "value", "status"],
            ),
            arms=arms,
        )
        write_table(table, snakemake.output.table, CERTIFICATE)


main(snakemake)  # noqa: F821
