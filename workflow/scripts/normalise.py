"""Rule normalise: register a subject to MNI152 and bring all masks there."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.records.base import write_record
        from corelab.records.visits import read_visits
        from corelab.registration import normalise_subject
        from corelab.settings.registration import RegistrationSettings

        params, folder = snakemake.params, Path(snakemake.params.folder)
        record = normalise_subject(
            read_visits(snakemake.input.records),
            folder,
            settings=RegistrationSettings.model_validate(params.registration),
            visit_order=params.visit_order,
        )
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
