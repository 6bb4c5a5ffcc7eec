"""Rules simulate_visit and simulate_SUBJECT: scans and masks of a visit or of a subject."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.simulated import simulate
        from corelab.records.images import ScanRow
        from corelab.settings.study import PhantomSettings

        params, images = snakemake.params, snakemake.output.images
        rows = [ScanRow.from_row(row) for row in params.rows]
        simulate(PhantomSettings.model_validate(params.phantom), zip(rows, images, strict=True))


main(snakemake)  # noqa: F821
