"""Corelab: re-analysis of clinical-trial brain imaging.

The packages, in the order of the data flow: ``study``, ``imaging``, ``registration``,
``segmentation``, ``perfusion``, ``radiomics``, ``measurement``, ``reading``, ``agreement``,
``pharmacodynamics``, ``reporting``. ``provenance`` serves all of them, and ``phantom`` simulates
trials with known truth. Imports run in that order only.
"""

__version__ = "0.1.0"
