"""Rule measure: volumes, place and overlap of the masks of a participant's visits."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.visit import measure_subject
        from corelab.records.subjects import Normalised
        from corelab.records.visits import read_visits
        from corelab.settings.measurement import AtlasSettings, MeasurementSettings

        given, params, folder = snakemake.input, snakemake.params, Path(snakemake.params.folder)
        record = measure_subject(
            read_visits(given.records),
            Normalised.read(given.normalised),
            folder,
            atlases=[AtlasSettings.model_validate(one) for one in params.atlases],
            settings=MeasurementSettings.model_validate(params.measurement),
            first_visits=params.first_visits,
            sources=[
                Path(path).relative_to(folder).as_posix()
                for path in [*given.records, given.normalised]
            ],
        )
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
