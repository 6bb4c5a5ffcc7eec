"""Rule manifest: SHA-256 of every product, and the RO-Crate."""

from corelab.provenance.job import job


def main(snakemake):
    with job(snakemake):
        from pathlib import Path

        from corelab.provenance.crate import write_crate
        from corelab.provenance.manifest import build_manifest, study_sources
        from corelab.provenance.reproduce import write_reproduce
        from corelab.settings.config import Config

        params = snakemake.params
        settings = Config.model_validate(params.settings)
        manifest = build_manifest(
            Path(params.folder),
            study=settings.study,
            plan_fingerprint=settings.plan_fingerprint,
            code=params.rules,
            sources=study_sources(Path(params.folder), map(Path, params.sheets)),
            parameters=settings,
        )
        manifest.write(snakemake.output.manifest)
        write_crate(manifest, snakemake.output.crate, Path(params.folder))
        write_reproduce(manifest, params.config, params.folder)


main(snakemake)  # noqa: F821
