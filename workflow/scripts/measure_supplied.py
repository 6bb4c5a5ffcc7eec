"""Rule measure_supplied: masks that others drew, of many subjects."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.measurement.visit import measure_supplied
        from corelab.records.images import ScanRow
        from corelab.settings.measurement import AtlasSettings, MeasurementSettings

        params = snakemake.params
        record = measure_supplied(
            [ScanRow.from_row(row) for row in params.rows],
            atlases=[AtlasSettings.model_validate(one) for one in params.atlases],
            settings=MeasurementSettings.model_validate(params.measurement),
        )
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
