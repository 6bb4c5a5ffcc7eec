"""Rule quality_figures: a subject's fit to the template and its masks, to look at."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.products import read_json
        from corelab.provenance.records import visits_of_records, write_record
        from corelab.registration.figures import quality_figures

        folder = Path(snakemake.params.folder)
        record = quality_figures(
            visits_of_records(snakemake.input.records),
            read_json(snakemake.input.normalised),
            folder,
        )
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
