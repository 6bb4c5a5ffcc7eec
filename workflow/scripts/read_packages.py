"""Rule read_packages: pseudonymous, blinded packages for the readers."""

from corelab.provenance.job import UserError, job


def main(snakemake):
    with job(snakemake):
        from corelab.reading.blinding import BlindingFault
        from corelab.reading.packages import write_packages
        from corelab.study.model import read_study

        study = read_study(snakemake.params.study)
        try:
            summary = write_packages(study, snakemake.input.prepared, study.folder)
        except BlindingFault as fault:
            raise UserError(str(fault)) from None
        summary.write(snakemake.output.summary)


main(snakemake)  # noqa: F821
