"""Which simulated trial a study asks for: the way of the workflow into this room."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any


def simulate(
    settings: Mapping[str, Any], rows: Iterable[tuple[Mapping[str, Any], str | os.PathLike[str]]]
) -> None:
    """Simulate the scans of rows of the scans sheet.

    Parameters
    ----------
    settings
        Block ``phantom`` of the config; ``trial`` is ``stroke`` or ``glioblastoma``.
    rows
        Scan rows, each with the file that it goes to. Rows of one participant share most work.
    """
    for row, path in rows:
        what = (row["participant_id"], row["visit"], row["kind"], path)
        more = {"reader": row["reader"], "repeat": row["repeat"]}
        if settings["trial"] == "glioblastoma":
            from corelab.phantom import glioma_scans
            from corelab.phantom.glioma_design import GliomaSpec

            glioma_scans.simulate_scan(GliomaSpec.from_settings(settings), *what, **more)
        else:
            from corelab.phantom import scans
            from corelab.phantom.design import TrialSpec

            scans.simulate_scan(TrialSpec.from_settings(settings), *what, **more)


def write_trial_truth(settings: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the truth table of the trial that ``settings`` name."""
    if settings["trial"] == "glioblastoma":
        from corelab.phantom import glioma_sheets
        from corelab.phantom.glioma_design import GliomaSpec

        glioma_sheets.write_truth(GliomaSpec.from_settings(settings), path)
    else:
        from corelab.phantom import truth
        from corelab.phantom.design import TrialSpec

        truth.write_truth(TrialSpec.from_settings(settings), path)
