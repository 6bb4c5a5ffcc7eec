"""Statistics rows in; tables, figures, pages, data sets and submission files out.

No statistic is computed here. What people read is written by :mod:`corelab.reporting.report`
(offline pages), :mod:`corelab.reporting.tlf` (numbered tables, listings and figures) and
:mod:`corelab.reporting.submission` (the nine documents and the data sets);
:mod:`corelab.reporting.summary` is what a run says at its end.
"""
