"""Rules draw and draw_alone: figures of analyses of the plan, for the report."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.together import Given, draw_together
        from corelab.settings.analyses import spec_of
        from corelab.study.model import read_study

        given, params, made = snakemake.input, snakemake.params, snakemake.output
        tables = Given(
            study=read_study(params.study),
            rule="draw",
            code=params.code,
            measurements=given.measurements,
            overlap=given.overlap,
            features=given.features,
            every=given.lock,
        )
        draw_together(
            [spec_of(one) for one in params.plan],
            tables,
            given.rows,
            given.records,
            list(zip(made.exhibits, made.figures, strict=True)),
            params.images,
        )


main(snakemake)  # noqa: F821
