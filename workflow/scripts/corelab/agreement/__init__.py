"""Measurement rows -> statistics rows: agreement, repeatability, overlap of masks, drift.

The kernels are our own (the formula's source is in each docstring); where a library has
the statistic, :mod:`corelab.agreement.second` computes it again and a difference is an error.

Everywhere ``alpha`` is 1 - confidence level, ``clusters`` the label of the cluster of each target
(None: independent targets), ``resamples`` and ``seed`` are those of the bootstrap.
"""

from __future__ import annotations

from corelab.agreement.categorical import (
    fleiss_kappa,
    gwet_ac,
    krippendorff_alpha,
    percent_agreement,
    weighted_kappa,
)
from corelab.agreement.differences import (
    bland_altman,
    bland_altman_replicated,
    concordance_correlation,
    deming,
    overall_concordance,
    passing_bablok,
    total_deviation_index,
)
from corelab.agreement.icc import (
    compare_intraclass_correlations,
    intraclass_correlation,
    intraclass_correlation_many,
    standard_error_of_measurement,
)
from corelab.agreement.metrology import linearity, repeatability

__all__ = [
    "bland_altman",
    "bland_altman_replicated",
    "compare_intraclass_correlations",
    "concordance_correlation",
    "deming",
    "fleiss_kappa",
    "gwet_ac",
    "intraclass_correlation",
    "intraclass_correlation_many",
    "krippendorff_alpha",
    "linearity",
    "overall_concordance",
    "passing_bablok",
    "percent_agreement",
    "repeatability",
    "standard_error_of_measurement",
    "total_deviation_index",
    "weighted_kappa",
]
