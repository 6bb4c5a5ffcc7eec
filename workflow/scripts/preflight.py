"""Rule preflight: stop the run, with all findings printed, if one of them is an error."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.study.preflight import gate

        gate(snakemake.input.findings, snakemake.output.passed)


main(snakemake)  # noqa: F821
