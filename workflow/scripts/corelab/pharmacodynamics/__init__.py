"""Pharmacodynamics: from imaging endpoint to drug effect, as a statistician would sign it.

``run(analysis, tables)`` carries out one analysis of the plan and gives statistics rows. The
methods themselves lie in the modules and take plain arrays, so that they can be called, and
checked, without a study around them.
"""

from __future__ import annotations

from corelab.pharmacodynamics.multiplicity import adjust_families
from corelab.pharmacodynamics.plan import ANALYSIS_TYPES, run

__all__ = ["ANALYSIS_TYPES", "adjust_families", "run"]
