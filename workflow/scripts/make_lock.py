"""Rule make_lock: sha256 of all reads as they are; an existing lock stays."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.reading.study_reads import make_study_lock
        from corelab.study.model import read_study

        study = read_study(snakemake.params.study)
        try:
            lines = make_study_lock(study, snakemake.input, snakemake.output.lock)
        except ValueError as fault:
            raise UserError(str(fault)) from None
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
