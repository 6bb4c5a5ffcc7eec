"""Rule adjudication: one final read per case by the charter's rule."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.reading.adjudication import AdjudicationFault
        from corelab.reading.study_reads import adjudicate_study
        from corelab.study.model import read_study

        try:
            lines = adjudicate_study(read_study(snakemake.params.study), snakemake.output)
        except AdjudicationFault as fault:
            raise UserError(str(fault)) from None
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
