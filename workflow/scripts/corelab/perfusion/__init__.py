"""Perfusion: 4D signal -> maps -> core, hypoperfusion and penumbra, with quality verdicts."""

from corelab.perfusion.concentration import PerfusionError
from corelab.perfusion.fit import PerfusionMaps, fit_perfusion

__all__ = ["PerfusionError", "PerfusionMaps", "fit_perfusion"]
