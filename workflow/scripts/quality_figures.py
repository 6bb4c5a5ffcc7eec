"""Rule quality_figures: a subject's fit to the template and its masks, to look at."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.records.base import write_record
        from corelab.records.subjects import Normalised
        from corelab.records.visits import read_visits
        from corelab.registration.figures import quality_figures

        folder = Path(snakemake.params.folder)
        record = quality_figures(
            read_visits(snakemake.input.records),
            Normalised.read(snakemake.input.normalised),
            folder,
        )
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
