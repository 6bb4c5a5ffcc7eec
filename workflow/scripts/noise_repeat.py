"""Rule noise_repeat: one subject once more, with another seed."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.noise_floor import Stages, repeat_subject
        from corelab.records.images import Prepared

        params = snakemake.params
        record = repeat_subject(
            [Prepared.read(path) for path in snakemake.input.prepared],
            Path(params.folder),
            Stages.model_validate(params.stages),
            seed=int(snakemake.wildcards.seed),
            added_noise=params.added_noise,
        )
        record.write(snakemake.output.record)


main(snakemake)  # noqa: F821
