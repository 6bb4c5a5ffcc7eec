"""Rule submission: the nine documents and the data sets."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.study_results import study_results
        from corelab.reporting.submission import write_submission

        given, params = snakemake.input, snakemake.params
        results = study_results(params.study, features=given.features, exhibits=given.exhibits)
        write_submission(results, params.steps)


main(snakemake)  # noqa: F821
