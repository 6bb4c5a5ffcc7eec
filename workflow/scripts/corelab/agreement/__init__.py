"""Measurement rows -> statistics rows: agreement, repeatability, overlap of masks, drift.

The kernels are our own (the formula's source is in each docstring); where a library has
the statistic, :mod:`corelab.agreement.second` computes it again and a difference is an error.

Everywhere ``alpha`` is 1 - confidence level, ``clusters`` the label of the cluster of each target
(None: independent targets), ``resamples`` and ``seed`` are those of the bootstrap.
"""

from __future__ import annotations

from corelab.agreement.categorical import weighted_kappa
from corelab.agreement.differences import bland_altman
from corelab.agreement.icc import intraclass_correlation

__all__ = ["bland_altman", "intraclass_correlation", "weighted_kappa"]
