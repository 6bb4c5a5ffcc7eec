"""Software bill of materials of the installed packages, CycloneDX 1.6 JSON: `make sbom`.

`cyclonedx-bom` does the same, but it brings packages that make `import jsonschema` take 1.2 s, in
every start of Snakemake. The same environment gives the same bytes: no time and no serial number.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def component(package: Distribution) -> Component:
    """Name, version, licence as declared, and addresses of a package."""
    meta = package.metadata
    name = str(meta["Name"])
    said = meta["License-Expression"] or " ".join((meta["License"] or "").split())[:80]
    trove = [c for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    licences = [said] if said else [c.rsplit("::", 1)[-1].strip() for c in trove]
    addresses = [line.split(",", 1) for line in meta.get_all("Project-URL") or []]
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=package.version,
        description=meta["Summary"],
        purl=PackageURL("pypi", name=name, version=package.version),
        bom_ref=f"{name}=={package.version}",
        # An expression of SPDX stands alone; names may be several.
        licenses=[LicenseFactory().make_from_string(licence) for licence in licences],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.OTHER, url=XsUri(url.strip()), comment=label
            )
            for label, url in addresses
        ],
    )


def bill() -> Bom:
    """All installed packages, and which of them each one requires."""
    installed = {canonicalize_name(str(p.metadata["Name"])): p for p in distributions()}
    parts = {name: component(package) for name, package in installed.items()}
    found = Bom(components=parts.values())
    found.serial_number = found.metadata.timestamp = None
    for name, package in installed.items():
        needs = [Requirement(text) for text in package.requires or []]
        names = {
            canonicalize_name(need.name)
            for need in needs
            if need.marker is None or need.marker.evaluate({"extra": ""})
        }
        found.register_dependency(parts[name], [parts[n] for n in names & set(parts)])
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(JsonV1Dot6(bill()).output_as_string(indent=2) + "\n")
