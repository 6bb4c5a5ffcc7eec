"""Block ``radiomics`` of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from corelab.settings.base import UNIQUE, Count, Number, Positive, Settings, Text, Texts

#: Feature families.
Family = Literal[
    "shape", "first-order", "glcm", "glrlm", "glszm", "ngtdm", "gldm", "gldzm", "local-intensity",
]  # fmt: skip
#: How directions of texture are put together (IBSI).
Aggregation = Literal["3D_comb", "3D_avg", "2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb"]


class EdgeFilter(Settings):
    """Prewitt filter of T2edge."""

    dimensions: Literal[2, 3] = 2
    """2 within slices, 3 in the volume"""
    unit: Literal["voxel", "mm"] = "voxel"
    """Change per voxel or per mm"""


class Perturbations(Settings):
    """Masks moved about, for the reproducibility of features."""

    source: str = "pipeline"
    """Whose masks are perturbed"""
    number: Count = 0
    """Perturbed masks per mask"""
    sd_mm: Positive = 1.0
    """SD of the border's displacement, mm"""
    seed: Count = 1
    """Seed of the perturbations"""


class RadiomicsSettings(Settings):
    """Features of images within masks, of every visit that has both; without series nothing is
    computed.
    """

    series: Annotated[
        tuple[Literal["T1w", "T1c", "T2w", "FLAIR", "T2edge", "Gdzscore"], ...], UNIQUE
    ] = ()
    """Images that features are taken of; T2edge and Gdzscore are derived from T2w, and from T1w and
    T1c
    """
    labels: Annotated[tuple[Text, ...], UNIQUE] = ("enhancing", "whole-tumour")
    """Mask labels that are volumes of interest"""
    sources: Texts = ()
    """Sources of the masks (pipeline, readers, consensus:<method>); empty: every one"""
    visits: Texts = ()
    """Visits; empty: every one with images"""
    n_levels: Annotated[int, Field(ge=2, le=32767)] = 256
    """Grey levels that every series is brought to"""
    top_share: Annotated[Number, Field(ge=0, lt=1)] = 0.001
    """Share of the brain's voxels that is too bright, fraction (0.1 % is 0.001)"""
    top: Mapping[str, Literal["exclude", "clip", "full"]] = {}
    """Series -> what becomes of the brightest voxels; default exclude, and full for T2w"""
    edge: EdgeFilter = EdgeFilter.model_construct()
    families: Annotated[tuple[Family, ...], Field(min_length=1)] = (
        "shape",
        "first-order",
        "glcm",
        "glrlm",
        "glszm",
        "ngtdm",
        "gldm",
    )
    """Feature families"""
    aggregation: Aggregation = "3D_comb"
    """How directions of texture are put together (IBSI)"""
    min_voxels: Annotated[int, Field(ge=2)] = 27
    """Masks with fewer voxels have no features"""
    perturbations: Perturbations = Perturbations.model_construct()
