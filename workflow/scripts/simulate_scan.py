"""Rule simulate_scan: one scan of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.design import TrialSpec
        from corelab.phantom.scans import simulate_scan

        row = snakemake.params.row
        simulate_scan(
            TrialSpec.from_settings(snakemake.params.phantom),
            row["participant_id"],
            row["visit"],
            row["kind"],
            snakemake.output.image,
            reader=row["reader"],
            repeat=row["repeat"],
        )


main(snakemake)  # noqa: F821
