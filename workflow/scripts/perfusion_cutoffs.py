"""Rule perfusion_cutoffs: every perfusion cut-off against the infarct."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.agreement.cutoffs import write_cutoffs
        from corelab.provenance.products import read_table
        from corelab.study.columns import MEASUREMENT_KEY

        write_cutoffs(
            read_table(
                snakemake.input.measurements,
                numeric=["value"],
                columns=[*MEASUREMENT_KEY, "value", "status", "reason"],
            ),
            snakemake.params.visit_order,
            snakemake.params.reference,
            snakemake.output,
        )


main(snakemake)  # noqa: F821
