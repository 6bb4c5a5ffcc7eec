"""Rule submission: the nine documents and the data sets."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.runner import study_tables
        from corelab.reporting.results import read_results
        from corelab.reporting.submission import write_submission
        from corelab.study.model import read_study

        study = read_study(snakemake.params.study)
        given = snakemake.input
        tables = study_tables(study, given.features)
        results = read_results(study.folder, study.settings, tables, exhibits=list(given.exhibits))
        write_submission(results, snakemake.params.steps)


main(snakemake)  # noqa: F821
