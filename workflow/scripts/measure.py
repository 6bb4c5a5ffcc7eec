"""Rule measure: volumes, place and overlap of one visit's masks."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.visit import measure_visit
        from corelab.provenance.products import read_json, write_json
        from corelab.settings.measurement import AtlasSettings, MeasurementSettings

        given, params = snakemake.input, snakemake.params
        record = measure_visit(
            read_json(given.prepared),
            read_json(given.segmented),
            read_json(given.perfused[0]) if given.perfused else None,
            read_json(given.normalised),
            Path(params.folder),
            atlases=[AtlasSettings.model_validate(one) for one in params.atlases],
            settings=MeasurementSettings.model_validate(params.measurement),
            first_visit=params.first_visit,
        )
        write_json(record, snakemake.output.record)


main(snakemake)  # noqa: F821
