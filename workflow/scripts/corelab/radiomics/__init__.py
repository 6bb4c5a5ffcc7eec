"""Image + mask -> features: normalisation, derived images, texture.

:mod:`corelab.radiomics.normalise` makes MR intensities comparable, :mod:`corelab.radiomics.derived`
derives images, :mod:`corelab.radiomics.features` gives IBSI features (MIRP) as rows of the study's
long table, :mod:`corelab.radiomics.visit` those of a visit.
"""
