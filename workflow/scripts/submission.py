"""Rule submission: the nine documents and the data sets."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.runner import study_tables
        from corelab.reporting.submission import write_submission
        from corelab.study.model import load_study

        study = load_study(snakemake.params.config)
        write_submission(
            study.folder,
            study.config,
            study.sheets["participants"],
            tables=study_tables(study),
            steps=snakemake.params.steps,
        )


main(snakemake)  # noqa: F821
