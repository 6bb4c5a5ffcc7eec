"""Rule segment: the lesions that a visit's scans show, and the consensus of readers' masks."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from dataclasses import replace
        from pathlib import Path

        from corelab.records.base import write_record
        from corelab.records.images import Prepared
        from corelab.segmentation.readers import consensus_masks, derived_masks
        from corelab.segmentation.visit import segment_visit
        from corelab.settings.segmentation import SegmentationSettings

        params, folder = snakemake.params, Path(snakemake.params.folder)
        settings = SegmentationSettings.model_validate(params.segmentation)
        prepared = Prepared.read(snakemake.input.prepared)
        record = segment_visit(prepared, folder, disease=params.disease, settings=settings)
        voted = consensus_masks(prepared, folder, settings=settings.consensus)
        record = replace(record, masks=(*record.masks, *voted))
        if params.disease == "glioma":
            derived = derived_masks(prepared, record, folder)
            record = replace(record, masks=(*record.masks, *derived))
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
