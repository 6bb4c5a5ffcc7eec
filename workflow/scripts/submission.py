"""Rule submission: the nine documents and the data sets."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.study_results import study_results
        from corelab.reporting.submission import write_submission

        params = snakemake.params
        write_submission(study_results(params.study, snakemake.input), params.steps)


main(snakemake)  # noqa: F821
