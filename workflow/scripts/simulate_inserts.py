"""Rule simulate_inserts: one digital quality phantom."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.phantom.inserts import simulate_inserts

        given, made = snakemake.params, snakemake.output
        simulate_inserts(given.rows, made.image, made.mask, scale=given.scale, seed=given.seed)


main(snakemake)  # noqa: F821
