"""Rule simulate_scan: one scan of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.scans import simulate_scan
        from corelab.phantom.trial import TrialSpec

        row = snakemake.params.row
        simulate_scan(
            TrialSpec.from_settings(snakemake.params.phantom),
            row["participant_id"],
            row["visit"],
            row["kind"],
            snakemake.output[0],
            reader=row["reader"],
        )


main(snakemake)  # noqa: F821
