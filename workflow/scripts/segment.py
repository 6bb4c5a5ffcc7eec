"""Rule segment: the lesions that a visit's scans show, and the consensus of readers' masks."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.products import read_json
        from corelab.provenance.records import write_record
        from corelab.segmentation.readers import consensus_masks, derived_masks
        from corelab.segmentation.visit import segment_visit
        from corelab.settings.segmentation import SegmentationSettings

        params, folder = snakemake.params, Path(snakemake.params.folder)
        settings = SegmentationSettings.model_validate(params.segmentation)
        prepared = read_json(snakemake.input.prepared)
        record = segment_visit(prepared, folder, disease=params.disease, settings=settings)
        record["masks"] += consensus_masks(prepared, folder, settings=settings.consensus)
        if params.disease == "glioma":
            record["masks"] += derived_masks(prepared, record["masks"], folder)
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
