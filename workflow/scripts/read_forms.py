"""Rule read_forms: the readers' forms as rows of the reads sheet, and reference cases judged."""

from corelab.provenance.job import UserError, job, print_to_terminal


def main(snakemake):
    with job(snakemake):
        from corelab.reading.forms import returned_forms
        from corelab.study.model import read_study

        study, given = read_study(snakemake.params.study), snakemake.input
        forms = study.settings.reading.forms
        try:
            lines = returned_forms(study, forms, given.key, snakemake.output)
        except ValueError as fault:
            raise UserError(str(fault)) from None
        print_to_terminal("\n".join(lines))


main(snakemake)  # noqa: F821
