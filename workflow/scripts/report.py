"""Rule report: the offline report and its PDF."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.plan.runner import study_tables
        from corelab.reporting.report import write_report
        from corelab.reporting.results import read_results
        from corelab.reporting.tlf import write_pdf
        from corelab.study.model import read_study

        study = read_study(snakemake.params.study)
        given = snakemake.input
        results = read_results(
            study.folder,
            study.settings,
            study_tables(study, given.features),
            exhibits=list(given.exhibits),
            conformance=Path(given.submission).parent / "datasets" / "conformance.tsv",
        )
        write_report(results, decisions=next(iter(given.decisions), None), trace=given.trace)
        write_pdf(results)


main(snakemake)  # noqa: F821
