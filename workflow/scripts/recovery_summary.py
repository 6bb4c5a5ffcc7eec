"""Rule recovery_summary: what was recovered of all planted lesions, by site and size."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.measurement.exhibits import recovery_exhibit
        from corelab.measurement.recovery import recovery_summary, recovery_table
        from corelab.measurement.recovery_figure import draw_recovery
        from corelab.provenance.products import write_table
        from corelab.records.measured import Recovered
        from corelab.study.columns import RECOVERY, RECOVERY_SUMMARY

        out = snakemake.output
        table = recovery_table(map(Recovered.read, snakemake.input.records))
        summary = recovery_summary(table)
        write_table(table, out.table, RECOVERY)
        write_table(summary, out.summary, RECOVERY_SUMMARY)
        draw_recovery(table, summary, out.figure)
        recovery_exhibit(out.summary, out.figure, out.exhibit)


main(snakemake)  # noqa: F821
