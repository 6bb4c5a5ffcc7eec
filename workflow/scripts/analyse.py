"""Rules analyse, analyse_without_exclusions, and those of one analysis alone."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.together import Given, analyse_together
        from corelab.settings.analyses import spec_of
        from corelab.study.model import read_study

        given, params = snakemake.input, snakemake.params
        tables = Given(
            study=read_study(params.study),
            rule=snakemake.rule.removesuffix("_alone"),
            code=params.code,
            measurements=given.measurements,
            overlap=given.overlap,
            features=given.features,
            phantoms=given.phantoms,
            every=[*given.lock, *given.locked],
        )
        analyse_together([spec_of(one) for one in params.plan], tables, snakemake.output.rows)


main(snakemake)  # noqa: F821
