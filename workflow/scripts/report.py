"""Rule report: the offline report and its PDF."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.plan.runner import study_tables
        from corelab.reporting.report import write_report
        from corelab.reporting.tlf import write_pdf
        from corelab.study.model import load_study

        study = load_study(snakemake.params.config)
        given = (study.folder, study.config, study.sheets["participants"])
        tables = study_tables(study)
        conformance = Path(snakemake.input.submission).parent / "datasets" / "conformance.tsv"
        exhibits = list(snakemake.input.exhibits)
        decisions = next(iter(snakemake.input.decisions), None)
        write_report(
            *given,
            tables=tables,
            exhibits=exhibits,
            decisions=decisions,
            trace=snakemake.input.trace,
            conformance=conformance,
        )
        write_pdf(*given, tables=tables, exhibits=exhibits, conformance=conformance)


main(snakemake)  # noqa: F821
