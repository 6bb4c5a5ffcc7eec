"""The run as an RO-Crate: the manifest in a form that archives and reviewers' tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corelab import __version__
from corelab.provenance.products import write_json

#: The crate is dated by its content, not by the clock, so that two runs give the same bytes.
UNDATED = "1970-01-01"


def crate(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """RO-Crate 1.1 metadata (JSON-LD) of a study's products.

    Parameters
    ----------
    manifest
        Of :func:`corelab.provenance.manifest.build_manifest`.

    Examples
    --------
    >>> made = crate({"study": {"id": "a", "title": "A"}, "products": {"maps/x.nii.gz":
    ...     {"sha256": "00", "bytes": 3}}, "products_sha256": "11", "software": {}, "sources": []})
    >>> [item["@id"] for item in made["@graph"]][:3]
    ['ro-crate-metadata.json', './', '#corelab']
    """
    study = manifest["study"]
    files = [
        {
            "@id": f"../{name}",
            "@type": "File",
            "name": Path(name).name,
            "contentSize": str(entry["bytes"]),
            "sha256": entry["sha256"],
        }
        for name, entry in sorted(manifest["products"].items())
    ]
    software = [
        {
            "@id": f"#{name}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
        }
        for name, version in sorted(manifest["software"].items())
    ]
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": study.get("title") or study["id"],
            "description": f"Products of the study {study['id']}, re-analysed by Corelab",
            "datePublished": UNDATED,
            "license": "Conditions of the trial's data apply",
            "identifier": manifest["products_sha256"],
            "hasPart": [{"@id": item["@id"]} for item in files],
            "mentions": [{"@id": "#run"}],
        },
        {
            "@id": "#corelab",
            "@type": ["SoftwareSourceCode", "ComputationalWorkflow"],
            "name": "Corelab",
            "version": __version__,
            "license": "https://spdx.org/licenses/GPL-3.0-or-later",
            "programmingLanguage": {"@id": "#snakemake"},
        },
        {
            "@id": "#run",
            "@type": "CreateAction",
            "name": f"Run of Corelab on {study['id']}",
            "instrument": {"@id": "#corelab"},
            "result": [{"@id": item["@id"]} for item in files],
            "object": [{"@id": f"#source-{n}"} for n, _ in enumerate(manifest["sources"])],
        },
        *(
            {
                "@id": f"#source-{n}",
                "@type": "CreativeWork",
                "name": source["name"],
                "sha256": source["sha256"],
            }
            for n, source in enumerate(manifest["sources"])
        ),
        *software,
        *files,
    ]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def write_crate(manifest: Mapping[str, Any], path: str | Path) -> None:
    """Write ``ro-crate-metadata.json``."""
    write_json(crate(manifest), path)
