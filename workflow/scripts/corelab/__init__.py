"""Corelab: re-analysis of clinical-trial brain imaging.

The rooms, in the order in which data walks through them: ``study``, ``imaging``,
``registration``, ``segmentation``, ``perfusion``, ``radiomics``, ``measurement``, ``reading``,
``agreement``, ``pharmacodynamics``, ``reporting``; ``provenance`` serves all of them and
``phantom`` simulates what they are to recover. Imports run in that order only.
"""

__version__ = "0.1.0"
