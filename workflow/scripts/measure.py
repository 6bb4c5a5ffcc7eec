"""Rule measure: volumes, place and overlap of one visit's masks."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.visit import measure_visit
        from corelab.records.images import Prepared, Segmented
        from corelab.records.perfusion import Perfused
        from corelab.records.subjects import Normalised
        from corelab.settings.measurement import AtlasSettings, MeasurementSettings

        given, params = snakemake.input, snakemake.params
        record = measure_visit(
            Prepared.read(given.prepared),
            Segmented.read(given.segmented),
            Perfused.read(given.perfused[0]) if given.perfused else None,
            Normalised.read(given.normalised),
            Path(params.folder),
            atlases=[AtlasSettings.model_validate(one) for one in params.atlases],
            settings=MeasurementSettings.model_validate(params.measurement),
            first_visit=params.first_visit,
        )
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
