"""Snakemake's lint, less two of its opinions that this workflow does not share.

Run by ``make lint``; exits 1 and prints what is left.
"""

import subprocess
import sys
from pathlib import Path

#: Beginning of a lint's title -> why it is no fault here.
ACCEPTED = {
    "Mixed rules and functions": "an input function stands above the rule that uses it",
    "Param folder is a prefix": "a plain string costs no planning time in thousands of jobs",
}
#: Last line where there is nothing to say.
CLEAN = "Congratulations"


def findings(text):
    """Place and title of each lint in the text that Snakemake prints, less accepted ones.

    >>> findings("Lints for rule a (line 1):\\n    * Missing log:\\n      x\\n")
    ['rule a (line 1): Missing log']
    >>> findings("Lints for rule a (line 1):\\n    * Param folder is a prefix of input:\\n")
    []
    """
    place, found = "", []
    for line in text.splitlines():
        if line.startswith("Lints for "):
            place = line.removeprefix("Lints for ").rstrip(":")
        elif line.startswith("    * ") and not line[6:].startswith(tuple(ACCEPTED)):
            found.append(f"{place}: {line[6:].rstrip(':')}")
    return found


def main():
    program = Path(sys.executable).with_name("snakemake")
    done = subprocess.run([program, "--lint"], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    left = findings(text)
    if left or not (CLEAN in text or "Lints for " in text):
        sys.exit("\n".join(left) or f"snakemake --lint failed:\n{text}")
    print("Rules: no finding of snakemake --lint")


if __name__ == "__main__":
    main()
