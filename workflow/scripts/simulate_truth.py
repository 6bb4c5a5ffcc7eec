"""Rule simulate_truth: the truth of every measurement of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.simulated import write_trial_truth

        write_trial_truth(snakemake.params.phantom, snakemake.output.truth)


main(snakemake)  # noqa: F821
