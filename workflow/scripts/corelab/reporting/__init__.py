"""Statistics rows in; tables, figures, pages, data sets and submission files out.

No statistic is computed here. What people read is written by :func:`write_report` (offline pages),
:func:`write_pdf` (numbered tables, listings and figures) and :func:`write_submission` (the nine
documents and the data sets); :func:`summary_lines` is what a run says at its end.
"""

from __future__ import annotations

from typing import Any

__all__ = ["summary_lines", "write_pdf", "write_report", "write_submission"]

_HOME = {
    "summary_lines": "summary",
    "write_pdf": "tlf",
    "write_report": "report",
    "write_submission": "submission",
}


def __getattr__(name: str) -> Any:
    """Import a writer when it is first asked for: jinja, Pillow and typst stay out until then."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"corelab.reporting.{_HOME[name]}"), name)
    raise AttributeError(f"module 'corelab.reporting' has no attribute '{name}'")
