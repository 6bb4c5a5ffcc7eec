"""Rule frequency_groups: frequency maps by visit, arm or risk group, and their difference."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.exhibits import frequency_maps_exhibit
        from corelab.measurement.frequency_groups import write_frequency_groups
        from corelab.records.maps import FrequencyMaps
        from corelab.settings.measurement import FrequencyMap
        from corelab.study.model import read_study

        given, made, params = snakemake.input, snakemake.output, snakemake.params
        write_frequency_groups(
            made.record,
            settings=FrequencyMap.model_validate(params.settings),
            records=given.normalised,
            folder=Path(params.folder),
            participants=read_study(params.study).sheets["participants"],
            risk=next(iter(given.risk), None),
            denominator=params.denominator,
            visit_order=params.visit_order,
        )
        frequency_maps_exhibit(FrequencyMaps.read(made.record), made.figure, made.exhibit)


main(snakemake)  # noqa: F821
