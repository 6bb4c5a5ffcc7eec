"""Rule segment: the lesions that a visit's scans show."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.products import read_json
        from corelab.provenance.records import write_record
        from corelab.segmentation import segment_visit

        params, folder = snakemake.params, Path(snakemake.params.folder)
        record = segment_visit(
            read_json(snakemake.input.prepared),
            folder,
            disease=params.disease,
            settings=params.segmentation,
        )
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
