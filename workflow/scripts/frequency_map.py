"""Rule frequency_map: share of subjects with lesion at each voxel of MNI152."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.measurement.frequency import write_frequency_map
        from corelab.records.images import ScanRow

        params = snakemake.params
        write_frequency_map(
            snakemake.output.map,
            label=snakemake.wildcards.label,
            records=snakemake.input.normalised,
            supplied=[ScanRow.from_row(row) for row in params.rows],
            folder=Path(params.folder),
            enrolled=params.enrolled,
            denominator=params.denominator,
            visit_order=params.visit_order,
            decisions=next(iter(snakemake.input.decisions), None),
            whole=next(iter(snakemake.output.get("whole", [])), None),
        )


main(snakemake)  # noqa: F821
