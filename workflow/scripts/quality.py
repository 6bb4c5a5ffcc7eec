"""Rule quality: image quality by site and scanner, and the verdicts on phantoms."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.agreement.control_charts import write_exhibits, write_quality
        from corelab.provenance.products import read_table
        from corelab.settings.acquisition import PhantomQaSettings, TrialCriteria

        given = snakemake.input
        numeric = ["certified_value", "measured_value"]
        write_quality(
            read_table(given.acquisition),
            read_table(given.phantoms, numeric=numeric),
            TrialCriteria.model_validate(snakemake.params.trial),
            PhantomQaSettings.model_validate(snakemake.params.phantom_qa),
            snakemake.output,
        )
        write_exhibits(snakemake.params.folder, snakemake.output.exhibits)


main(snakemake)  # noqa: F821
