"""Rule check_inputs: list all findings about the input; never fails on them."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.imaging.nifti import check_header
        from corelab.provenance.products import write_table
        from corelab.study.columns import FINDINGS
        from corelab.study.findings import findings_frame
        from corelab.study.loading import load_study
        from corelab.study.preflight import preflight_findings

        findings = preflight_findings(load_study(snakemake.params.config), check_header)
        for finding in findings:
            print(finding)
        write_table(findings_frame(findings), snakemake.output.findings, FINDINGS, sort=False)


main(snakemake)  # noqa: F821
