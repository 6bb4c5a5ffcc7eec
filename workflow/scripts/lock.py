"""Rule lock: sha256 of all reads, and whether they still are as they were locked."""

from corelab.provenance.job import Plain, job, tell


def main(snakemake):
    with job(snakemake):
        from corelab.reading.lock import LockFault
        from corelab.reading.study_reads import lock_study
        from corelab.study.model import load_study

        study = load_study(snakemake.params.config)
        try:
            lines = lock_study(study, snakemake.input.final, snakemake.output)
        except LockFault as fault:
            raise Plain(str(fault)) from None
        tell("\n".join(lines))


main(snakemake)  # noqa: F821
