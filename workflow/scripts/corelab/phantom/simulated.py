"""The simulated trial that a study requests: entry points of the workflow's jobs."""

from __future__ import annotations

import os
from collections.abc import Iterable

from corelab.phantom import glioma_scans, glioma_sheets, scans, truth
from corelab.phantom.design import TrialSpec
from corelab.phantom.glioma_design import GliomaSpec
from corelab.records.images import ScanRow
from corelab.settings.study import PhantomSettings


def simulate(
    settings: PhantomSettings, rows: Iterable[tuple[ScanRow, str | os.PathLike[str]]]
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
        scan = (row.participant_id, row.visit, row.kind, path)
        reader, repeat = row.reader, int(row.repeat or 1)
        if settings.trial == "glioblastoma":
            spec = GliomaSpec.from_settings(settings)
            glioma_scans.simulate_scan(spec, *scan, reader=reader, repeat=repeat)
        else:
            trial = TrialSpec.from_settings(settings)
            scans.simulate_scan(trial, *scan, reader=reader, repeat=repeat)


def write_trial_truth(settings: PhantomSettings, path: str | os.PathLike[str]) -> None:
    """Write the truth table of the trial that ``settings`` name."""
    if settings.trial == "glioblastoma":
        glioma_sheets.write_truth(GliomaSpec.from_settings(settings), path)
    else:
        truth.write_truth(TrialSpec.from_settings(settings), path)
