"""Which jobs run again: by the content of inputs, where Snakemake goes by their times."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def plan_by_content(same: Collection[str], again: Collection[str]) -> None:
    """Let the content of inputs decide what runs again, where Snakemake goes by their times.

    Parameters
    ----------
    same
        Inputs whose content is as every job read it: they count as older than every product.
    again
        Outputs of jobs that are to run again if the plan has them.

    Raises
    ------
    AttributeError
        With a Snakemake whose insides are other than expected.
    """
    from snakemake.dag import DAG
    from snakemake.io import _IOFile

    ask, make = _IOFile.is_newer, DAG.__init__

    async def is_newer(self: Any, time: Any) -> bool:
        return str(self) not in same and await ask(self, time)

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        # What is forced by --forcerun becomes a target too; these run only where they are needed.
        self.forcefiles.update(again)

    _IOFile.is_newer = is_newer
    DAG.__init__ = init
