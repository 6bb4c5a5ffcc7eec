"""Snakemake runs in child processes of one that has loaded it: a start takes 0.5 s less of imports.

Each line on standard input is a run as JSON (arguments, folder, environment, file for its output);
each line on standard output is its exit code. Nothing of Corelab is loaded before the fork, so a run
in a copy of the repository uses the code of the copy.
"""

import json
import os
import sys
from pathlib import Path

# What planning imports from other packages.
import jsonschema  # noqa: F401
import nbformat  # noqa: F401
import numpy  # noqa: F401
import pandas  # noqa: F401
import pydantic  # noqa: F401
import smart_open  # noqa: F401
import snakemake.api
import snakemake_executor_plugin_slurm  # noqa: F401
import yte  # noqa: F401
from snakemake.cli import main


def child(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Run Snakemake as ``python -m snakemake`` does; does not return."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with open(os.devnull) as nothing, open(output, "w") as text:
        os.dup2(nothing.fileno(), 0)
        os.dup2(text.fileno(), 1)
        os.dup2(text.fileno(), 2)
    sys.argv = [str(Path(snakemake.api.__file__).with_name("__main__.py")), *arguments]
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    main()
    raise SystemExit(0)


def serve() -> None:
    """Run what is requested, one after the other, until the input ends."""
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if process == 0:
            child(**json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
