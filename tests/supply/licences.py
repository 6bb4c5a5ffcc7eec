"""Licences of all installed packages against what a GPL-3.0 project may depend on: `make audit`.

Works without a network: it reads the metadata of the installed packages.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions

#: Families that may be combined with GPL-3.0-or-later.
ALLOWED = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software|MPL|Mozilla|LGPL|Lesser|GPL|GNU General|ZPL|Zope|"
    r"Unlicense|Public Domain|0BSD|CC0|HPND|Historical Permission|zlib|WTFPL|BSL-1|Boost|EUPL",
    re.I,
)
#: May not be combined, or may not be used in trials of a company.
REFUSED = re.compile(r"non.?commercial|proprietary|CC.BY.N[CD]|FSL|AGPL", re.I)
#: Packages whose metadata hold a licence's text and no name: what it is, and words that the text must
#: hold for that to be so. dcm2niix is BSD-2-Clause (two conditions and no third that forbids the use
#: of names) with parts under MIT (nanojpeg), BSD-3-Clause (OpenJPEG, CharLS), zlib and JasPer licences
#: and in the public domain (nifti_io, miniz).
KNOWN = {
    "dcm2niix": (
        "BSD-2-Clause AND MIT AND BSD-3-Clause AND Zlib AND JasPer-2.0 AND public domain",
        (
            "Redistribution and use in source and binary forms",
            "1. Redistributions of source code must retain",
            "2. Redistributions in binary form must reproduce",
            "nifti1_io_core.cpp is public domain",
            "ujpeg.h/ujpeg.cpp uses the MIT license",
            "OpenJpeg is optional, it uses a BSD license",
            "CharLS is optional, it uses a BSD license",
        ),
    )
}


def licence_of(package: Distribution) -> str:
    """What the metadata of a package say, shortened."""
    meta = package.metadata
    known, words = KNOWN.get(str(meta["Name"]).lower(), ("", ()))
    whole = " ".join(str(meta.get("License") or "").split())
    if known and all(part in whole for part in words) and "3. Neither the name" not in whole:
        return known
    said = [str(meta.get("License-Expression") or "")]
    said += [
        c.rsplit("::", 1)[-1].strip() for c in meta.get_all("Classifier") or [] if "License" in c
    ]
    said.append(whole[:80])
    for file in package.files or []:
        if not any(said) and re.match(r"(LICEN[CS]E|COPYING)", file.name, re.I):
            said.append(" ".join(file.read_text(encoding="utf-8").split())[:200])
    return "; ".join(part for part in said if part)


def main() -> int:
    """Print what must not be here; 0 if nothing."""
    wrong = []
    count = 0
    for package in sorted(distributions(), key=lambda d: str(d.metadata["Name"]).lower()):
        name = str(package.metadata["Name"])
        if name.lower() == "corelab":
            continue
        count += 1
        licence = licence_of(package)
        if REFUSED.search(licence) or not ALLOWED.search(licence):
            wrong.append(f"{name} {package.version}: {licence or 'no licence named'}")
    print(f"{count} packages, {len(wrong)} with a licence that is not allowed or not known")
    for line in wrong:
        print(f"  {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
