"""Rule manifest: SHA-256 of every product, and the RO-Crate."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.crate import write_crate
        from corelab.provenance.manifest import build_manifest, study_sources
        from corelab.provenance.products import write_json
        from corelab.provenance.reproduce import write_reproduce

        params = snakemake.params
        manifest = build_manifest(
            Path(params.folder),
            study={**params.settings["study"], "plan_fingerprint": params.plan},
            code=params.rules,
            sources=study_sources(Path(params.folder), map(Path, params.sheets)),
            parameters=params.settings,
        )
        write_json(manifest, snakemake.output.manifest)
        write_crate(manifest, snakemake.output.crate, Path(params.folder))
        write_reproduce(manifest, params.config, params.folder)


main(snakemake)  # noqa: F821
