"""The run as a Workflow Run RO-Crate: the manifest as archives and reviewers read it.

Profiles: RO-Crate 1.1, Workflow RO-Crate 1.0, Process Run Crate and Workflow Run Crate 0.5. The
crate's root is the study's results folder; ``provenance/ro-crate-metadata.json`` says the same of
the folder that it lies in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from corelab import __version__
from corelab.provenance.manifest import Manifest
from corelab.provenance.places import ROOT
from corelab.provenance.products import write_json, write_text

#: The crate is dated by its content, not by the clock, so that two runs give the same bytes.
UNDATED = "1970-01-01T00:00:00+00:00"
#: The workflow as it was run, beside the crate.
WORKFLOW = "provenance/workflow/Snakefile"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
_MEDIA = {
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".html": "text/html",
    ".pdf": "application/pdf",
    ".rtf": "application/rtf",
    ".md": "text/markdown",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gz": "application/gzip",
    ".xpt": "application/octet-stream",
}
_LICENSE = "https://spdx.org/licenses/GPL-3.0-or-later"
_SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"


def _entity(identifier: str, kind: str | list[str], /, **facts: Any) -> dict[str, Any]:
    return {"@id": identifier, "@type": kind, **facts}


def _ids(*names: str) -> list[dict[str, str]]:
    return [{"@id": name} for name in names]


def _products(manifest: Manifest, here: str) -> Iterator[dict[str, str]]:
    return ({"@id": here + name} for name, _ in manifest.products)


def _root(manifest: Manifest, here: str) -> dict[str, Any]:
    study = manifest.study
    return _entity(
        "./",
        "Dataset",
        name=study.get("title") or study["id"],
        description=f"Products of the study {study['id']}, re-analysed by Corelab",
        datePublished=UNDATED,
        license={"@id": "#conditions"},
        identifier=manifest.products_sha256,
        conformsTo=_ids(*PROFILES),
        mainEntity={"@id": here + WORKFLOW},
        hasPart=chain(_ids(here + WORKFLOW), _products(manifest, here)),
        mentions=_ids("#run"),
    )


def _workflow(manifest: Manifest, here: str) -> list[dict[str, Any]]:
    rules, packages = sorted(manifest.rules.items()), sorted(manifest.software.items())
    programs = [(f"#rule-{n}", f"rule {n}", rule.code or __version__) for n, rule in rules]
    programs += [(f"#package-{name}", name, version) for name, version in packages]
    return [
        _entity(
            here + WORKFLOW,
            ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            name="Corelab",
            description="From a trial's images, reads and tables to imaging endpoints",
            version=__version__,
            license={"@id": _LICENSE},
            programmingLanguage={"@id": _SNAKEMAKE},
            hasPart=_ids(*(f"#rule-{name}" for name, _ in rules)),
        ),
        _entity(
            _SNAKEMAKE,
            "ComputerLanguage",
            name="Snakemake",
            identifier={"@id": "https://snakemake.github.io"},
            url={"@id": "https://snakemake.github.io"},
            version=str(manifest.software.get("snakemake", "")),
        ),
        *(
            _entity(identifier, "SoftwareApplication", name=name, softwareVersion=version)
            for identifier, name, version in programs
        ),
    ]


def _files(manifest: Manifest, here: str) -> Iterator[dict[str, Any]]:
    """Products as data entities."""
    return (
        _entity(
            f"{here}{name}",
            "File",
            name=Path(name).name,
            contentSize=str(product.bytes),
            sha256=product.sha256,
            encodingFormat=_MEDIA.get(Path(name).suffix, "application/octet-stream"),
            **({"description": product.role} if product.role else {}),
        )
        for name, product in manifest.products
    )


def _sources(manifest: Manifest) -> list[dict[str, Any]]:
    """Inputs of the run, by their hash: the files themselves are not in the crate."""
    return [
        _entity(f"#source-{n}", "CreativeWork", name=source.name, sha256=source.sha256)
        for n, source in enumerate(manifest.sources)
    ]


def _run(manifest: Manifest, sources: list[dict[str, Any]], here: str) -> list[dict[str, Any]]:
    """The run, who answers for it, and the plan that it followed."""
    return [
        _entity(
            "#run",
            "CreateAction",
            name=f"Run of Corelab on {manifest.study_id}",
            description="provenance/REPRODUCE.md has the command",
            instrument={"@id": here + WORKFLOW},
            agent={"@id": "#core-laboratory"},
            actionStatus="http://schema.org/CompletedActionStatus",
            endTime=UNDATED,
            object=_ids(*(item["@id"] for item in sources), "#plan"),
            result=_products(manifest, here),
        ),
        _entity("#core-laboratory", "Organization", name="Imaging core laboratory of the study"),
        _entity(
            "#conditions",
            "CreativeWork",
            name="Conditions of the trial's data",
            description="The conditions under which the trial's data were given apply",
        ),
        _entity("#plan", "PropertyValue", name="plan_fingerprint", value=manifest.plan_fingerprint),
    ]


def crate(manifest: Manifest, here: str = "") -> dict[str, Any]:
    """RO-Crate metadata (JSON-LD) of a study's products; long lists are iterators.

    Parameters
    ----------
    manifest
        Of the study.
    here
        What leads from the crate's folder to the study's, such as ``../``.

    Examples
    --------
    >>> from corelab.provenance.manifest import Product
    >>> made = crate(Manifest({"id": "a"}, {"maps/x.nii.gz": Product("00", 3)}.items(), "11"))
    >>> [item["@id"] for item in made["@graph"]][:3]
    ['ro-crate-metadata.json', './', 'provenance/workflow/Snakefile']
    """
    sources = _sources(manifest)
    standards = ("https://w3id.org/ro/crate/1.1", list(PROFILES)[-1])
    described = [
        _entity(
            "ro-crate-metadata.json",
            "CreativeWork",
            about={"@id": "./"},
            conformsTo=_ids(*standards),
        ),
        _root(manifest, here),
        *_workflow(manifest, here),
        *_run(manifest, sources, here),
        _entity(_LICENSE, "CreativeWork", name="GPL-3.0-or-later"),
        *(
            _entity(name, "CreativeWork", name=words, version=version)
            for name, (words, version) in PROFILES.items()
        ),
        *sources,
    ]
    return {
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            "https://w3id.org/ro/terms/workflow-run/context",
        ],
        "@graph": chain(described, _files(manifest, here)),
    }


def write_crate(manifest: Manifest, path: str | Path, folder: str | Path) -> None:
    """Write the crate of the study's folder and the one beside the manifest.

    Parameters
    ----------
    manifest
        Of the study.
    path
        ``provenance/ro-crate-metadata.json``.
    folder
        The study's folder; it gets ``ro-crate-metadata.json`` and the workflow as it was run.
    """
    for source in [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]:
        target = Path(folder) / "provenance" / "workflow" / source.relative_to(ROOT)
        write_text(source.read_text(encoding="utf-8"), target)
    write_json(crate(manifest), Path(folder) / "ro-crate-metadata.json")
    write_json(crate(manifest, "../"), path)
