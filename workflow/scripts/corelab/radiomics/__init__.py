"""Image + mask -> features: normalisation, derived images, texture.

:func:`grey_levels` makes MR intensities comparable, :func:`t2_edge` and :func:`gd_zscore` derive
images, :func:`extract_features` gives IBSI features (MIRP), :func:`feature_rows` shapes them to the
study's long table.
"""

from corelab.radiomics.derived import gd_zscore, t2_edge
from corelab.radiomics.features import (
    FeatureSettings,
    extract_features,
    feature_rows,
)
from corelab.radiomics.normalise import GreyLevels, grey_levels, top_mode

__all__ = [
    "FeatureSettings",
    "GreyLevels",
    "extract_features",
    "feature_rows",
    "gd_zscore",
    "grey_levels",
    "t2_edge",
    "top_mode",
]
