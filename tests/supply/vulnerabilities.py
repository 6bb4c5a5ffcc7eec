"""Known vulnerabilities of the locked packages: `make audit`.

pip-audit asks a service for them. Where it cannot be reached (an offline site, a mirror without one)
nothing is known, which is said and is no failure, unless STRICT=1 asks for one; a vulnerability that
the service does name always fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
AT_MOST_S = 300
#: Vulnerability -> why it does not touch this workflow. Nothing is accepted at present.
ACCEPTED: dict[str, str] = {}


def asked(lock: Path) -> tuple[dict[str, object] | None, str]:
    """What pip-audit found, None if it got no answer, and why."""
    command = [
        sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", str(lock),
        "--format", "json", "--progress-spinner", "off", "--timeout", "20",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=AT_MOST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {AT_MOST_S} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return None, (done.stderr.strip().splitlines() or ["no answer"])[-1]


def verdict(answer: dict[str, object] | None, why: str, *, strict: bool) -> tuple[int, list[str]]:
    """Exit code and lines for a person.

    Examples
    --------
    >>> verdict(None, "no route to host", strict=False)[0], verdict(None, "", strict=True)[0]
    (0, 1)
    """
    if answer is None:
        return int(strict), [f"Known vulnerabilities: NOT CHECKED, no service answered ({why})"]
    packages = answer.get("dependencies")
    if not isinstance(packages, list) or not packages:
        return int(strict), ["Known vulnerabilities: NOT CHECKED, the answer names no package"]
    unasked = [one for one in packages if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {entry['id']}, mended in {entry.get('fix_versions')}"
        for one in packages
        for entry in one.get("vulns", [])
        if entry["id"] not in ACCEPTED
    ]
    output = [f"{len(packages) - len(unasked)} packages, {len(found)} known vulnerabilities"]
    if unasked:
        output.append(f"{len(unasked)} packages are unknown to the service and not checked")
    return int(bool(found) or (strict and bool(unasked))), [*output, *(f"  {one}" for one in found)]


def main() -> int:
    """Print what is known; 0 if nothing that matters."""
    code, lines = verdict(*asked(LOCK), strict=os.environ.get("STRICT", "") not in {"", "0"})
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
