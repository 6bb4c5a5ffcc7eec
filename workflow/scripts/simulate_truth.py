"""Rule simulate_truth: the truth of every measurement of the simulated trial."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.design import TrialSpec
        from corelab.phantom.truth import write_truth

        write_truth(TrialSpec.from_settings(snakemake.params.phantom), snakemake.output.truth)


main(snakemake)  # noqa: F821
