"""Parts of a job, each kept as if it were a job: its log, its entry in the ledger, its products.

Where jobs of one kind are mostly the start of Python, one job does what many would. It runs again
if anything changed for one of its parts; the others then keep what they made.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corelab.provenance.job import logged
from corelab.provenance.ledger import Entry, Place, recorded


@dataclass(frozen=True)
class Part:
    """A part of a job.

    Attributes
    ----------
    place
        Of its entry in the ledger and of its log.
    made_from
        Digest of all that it is made from: code, settings, content of files.
    inputs, outputs
        Files that it reads and makes; an output may be a folder.
    code
        Digest of its code.
    """

    place: Place
    made_from: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    code: str

    @property
    def current(self) -> bool:
        """Whether its products are there, as it left them, and made from the same."""
        entry = Entry.read(self.place.entry)
        if entry is None or entry.state != "done" or entry.made_from != self.made_from:
            return False
        left = {**entry.outputs, **entry.beside}
        return all(Path(name).exists() for name in self.outputs) and all(
            one is not None and one.matches(Path(name)) for name, one in left.items()
        )


def run_part(part: Part, work: Callable[[], None]) -> bool:
    """Do a part of a job unless it is current; whether it was done.

    What it made before is removed first, as Snakemake does before a job. An error is in its entry
    and in its log, and ends the job.
    """
    if part.current:
        return False
    for name in part.outputs:
        if Path(name).is_dir():
            shutil.rmtree(name)
        else:
            Path(name).unlink(missing_ok=True)
    with logged(part.place.log):
        try:
            with recorded(
                part.place,
                inputs=part.inputs,
                outputs=part.outputs,
                code=part.code,
                made_from=part.made_from,
            ):
                work()
        except Exception:
            traceback.print_exc()
            raise
    return True
