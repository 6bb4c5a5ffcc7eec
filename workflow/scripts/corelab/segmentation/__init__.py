"""Segmentation: images on one grid and a brain mask become a lesion mask with its uncertainty.

:func:`segment_visit` does the stage for one visit. Each method is a :class:`Segmenter`; consensus
of several readers is in :mod:`corelab.segmentation.consensus`.
"""

from corelab.segmentation.consensus import majority_vote, staple
from corelab.segmentation.hypodensity import aspects, net_water_uptake_percent, region_share
from corelab.segmentation.scans import NotSegmentable
from corelab.segmentation.segmenter import Segmentation, Segmenter
from corelab.segmentation.visit import segment_visit

__all__ = [
    "NotSegmentable",
    "Segmentation",
    "Segmenter",
    "aspects",
    "majority_vote",
    "net_water_uptake_percent",
    "region_share",
    "segment_visit",
    "staple",
]
