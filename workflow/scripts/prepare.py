"""Rule prepare: conform a visit's scans, check them, and align them rigidly."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.imaging import prepare_visit
        from corelab.records.base import write_record
        from corelab.records.images import ScanRow
        from corelab.registration import align_visit, share_brain_masks
        from corelab.settings.prepare import PrepareSettings
        from corelab.settings.registration import RegistrationSettings

        params, folder = snakemake.params, Path(snakemake.params.folder)
        blocks = ("acquisition", "dicom", "brain_extraction")
        settings = PrepareSettings.model_validate({one: getattr(params, one) for one in blocks})
        rows = [ScanRow.from_row(row) for row in params.rows]
        record = prepare_visit(rows, folder, settings=settings)
        registration = RegistrationSettings.model_validate(params.registration)
        record = align_visit(record, folder, settings=registration)
        record = share_brain_masks(record, folder)
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
