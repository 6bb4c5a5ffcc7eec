"""Rule manifest: SHA-256 of every product, and the RO-Crate."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from corelab.provenance.crate import write_crate
        from corelab.provenance.manifest import build_manifest, study_sources
        from corelab.provenance.products import write_json
        from corelab.provenance.reproduce import write_reproduce
        from corelab.study.model import load_study

        study = load_study(snakemake.params.config)
        manifest = build_manifest(
            study.folder,
            study={**study.config["study"], "plan_fingerprint": study.plan_fingerprint},
            code=snakemake.params.rules,
            sources=study_sources(study.folder, study.sheet_paths.values()),
            parameters=study.config,
        )
        write_json(manifest, snakemake.output.manifest)
        write_crate(manifest, snakemake.output.crate, study.folder)
        write_reproduce(manifest, snakemake.params.config, study.folder)


main(snakemake)  # noqa: F821
