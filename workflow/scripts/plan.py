"""Rule plan: the analysis plan with its fingerprint, and its deviations from the locked plan."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.plan.record import write_plan, write_trial
        from corelab.study.model import read_study

        made, study = snakemake.output, read_study(snakemake.params.study)
        write_plan(study, made.plan, made.deviations, made.exhibit)
        if study.settings.trial:
            write_trial(study, *made.trial[:2])


main(snakemake)  # noqa: F821
