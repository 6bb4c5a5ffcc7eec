"""Rule plant_lesions: lesions of known shape in the scans of one visit, and what is found."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.recovery import recover_visit
        from corelab.records.images import Prepared
        from corelab.settings.measurement import RecoverySettings
        from corelab.settings.segmentation import SegmentationSettings

        params = snakemake.params
        record = recover_visit(
            Prepared.read(snakemake.input.prepared),
            Path(params.folder),
            disease=params.disease,
            segmentation=SegmentationSettings.model_validate(params.segmentation),
            settings=RecoverySettings.model_validate(params.recovery),
        )
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
