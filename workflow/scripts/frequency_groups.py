"""Rule frequency_groups: frequency maps by visit, arm or risk group, and their difference."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.frequency_groups import write_frequency_groups
        from corelab.study.model import load_study

        given, params = snakemake.input, snakemake.params
        write_frequency_groups(
            snakemake.output.record,
            settings=params.settings,
            records=given.normalised,
            folder=Path(params.folder),
            participants=load_study(params.config).sheets["participants"],
            risk=next(iter(given.risk), None),
            denominator=params.denominator,
            visit_order=params.visit_order,
        )


main(snakemake)  # noqa: F821
