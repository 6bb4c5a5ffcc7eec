"""Perfusion: 4D signal -> maps -> core, hypoperfusion and penumbra, with quality verdicts.

:func:`fit_perfusion` is the numerical core (numpy arrays in and out); :func:`perfuse_visit` is
the stage of the workflow. Compiled loops and plotting are imported when they are first needed.
"""

from corelab.perfusion.concentration import PerfusionError
from corelab.perfusion.fit import PerfusionMaps, fit_perfusion
from corelab.perfusion.visit import perfuse_visit

__all__ = ["PerfusionError", "PerfusionMaps", "fit_perfusion", "perfuse_visit"]
