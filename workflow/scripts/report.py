"""Rule report: the offline report and its PDF."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.reporting.report import write_report
        from corelab.reporting.tlf import write_pdf
        from corelab.study.model import load_study

        study = load_study(snakemake.params.config)
        participants = study.sheets["participants"]
        write_report(study.folder, study.config, participants)
        write_pdf(study.folder, study.config, participants)


main(snakemake)  # noqa: F821
