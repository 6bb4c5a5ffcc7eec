"""Python imports this at its start, where the folder is on PYTHONPATH: jobs note what they took.

Snakemake's benchmark files look at a job every half second for 15 s, then every 30 s: what a longer
job takes after the last look is missing there. The kernel's own counters at its end are exact.
"""

import atexit
import os
import resource
import sys
from pathlib import Path


def _note(rule: str) -> None:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    # The peak of getrusage counts the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    with open(os.environ["CORELAB_JOB_USAGE"], "a", encoding="utf-8") as handle:
        handle.write(f"{rule}\t{cpu:.2f}\t{peak:.0f}\n")


# Snakemake runs a script as .snakemake/scripts/RANDOM.RULE.py.
scripts = [Path(word) for word in sys.orig_argv if "/.snakemake/scripts/" in word]
if scripts:
    atexit.register(_note, scripts[0].stem.split(".")[-1])
