"""Rule lock: whether all reads still are as they were locked."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.reading.study_reads import verify_study_lock
        from corelab.study.model import read_study

        study = read_study(snakemake.params.study)
        try:
            lines = verify_study_lock(study, snakemake.input, snakemake.output)
        except ValueError as fault:
            raise UserError(str(fault)) from None
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
