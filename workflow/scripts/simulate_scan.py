"""Rule simulate_scan: one scan of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.simulated import simulate

        simulate(snakemake.params.phantom, [(snakemake.params.row, snakemake.output.image)])


main(snakemake)  # noqa: F821
