"""Rule simulate_truth: the truth of every measurement of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.simulated import write_trial_truth
        from corelab.settings.study import PhantomSettings

        write_trial_truth(
            PhantomSettings.model_validate(snakemake.params.phantom), snakemake.output.truth
        )


main(snakemake)  # noqa: F821
