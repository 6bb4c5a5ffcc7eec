"""Rule perfuse: perfusion maps, and core and hypoperfusion by every cut-off."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.perfusion import perfuse_visit
        from corelab.records.base import write_record
        from corelab.records.images import Prepared
        from corelab.settings.perfusion import PerfusionSettings

        params, folder = snakemake.params, Path(snakemake.params.folder)
        record = perfuse_visit(
            Prepared.read(snakemake.input.prepared),
            folder,
            settings=PerfusionSettings.model_validate(params.perfusion),
            minutes_onset_to_ct=params.onset_to_ct_min,
            threads=snakemake.threads,
        )
        write_record(record, folder, snakemake.output.record)


main(snakemake)  # noqa: F821
