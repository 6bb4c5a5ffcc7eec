"""Image + mask -> features, computed by MIRP and named as in the IBSI reference manual.

MIRP (Zwanenburg et al., J Open Source Softw 2024;9:6413) is the engine. A feature's name is the
tag of the IBSI reference tables, for example ``cm_joint_entr_3D_comb``: family (``morph`` shape,
``stat`` statistics, ``ih`` intensity histogram, ``cm`` GLCM, ``rlm`` GLRLM, ``szm`` GLSZM,
``dzm`` GLDZM, ``ngt`` NGTDM, ``ngl`` NGLDM, which pyradiomics calls GLDM), feature, and for
texture how directions are put together. Where pyradiomics differs (kurtosis is not excess
kurtosis, GLCM and GLRLM are averaged over directions, bins start at a multiple of the bin
width), IBSI's definition holds here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from corelab.imaging.geometry import same_grid, voxel_sizes_mm
from corelab.settings.base import Positive, Settings
from corelab.settings.radiomics import Aggregation, Family, RadiomicsSettings

#: Our families -> those of MIRP.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "shape": ("morphological",),
    "first-order": ("statistics", "intensity_histogram"),
    "glcm": ("glcm",),
    "glrlm": ("glrlm",),
    "glszm": ("glszm",),
    "ngtdm": ("ngtdm",),
    "gldm": ("ngldm",),
    "gldzm": ("gldzm",),
    "local-intensity": ("local_intensity",),
}
#: IBSI's suffix -> MIRP's directional and omnidirectional methods and MIRP's suffix.
_AGGREGATIONS = {
    "2D_avg": ("2d_average", "2d", "2d_avg"),
    "2D_comb": ("2d_slice_merge", "2d", "2d_s_mrg"),
    "2_5D_avg": ("2.5d_direction_merge", "2.5d", "2.5d_d_mrg"),
    "2_5D_comb": ("2.5d_volume_merge", "2.5d", "2.5d_v_mrg"),
    "3D_avg": ("3d_average", "3d", "3d_avg"),
    "3D_comb": ("3d_volume_merge", "3d", "3d_v_mrg"),
}
COLUMNS = ("participant_id", "visit", "series", "label", "source", "feature", "value")
#: Series under which features of a mask's shape stand: they are the same for every image.
SHAPE_SERIES = "mask"
#: Features of the shape family that read the image and so belong to a series.
_SHAPE_WITH_INTENSITY = frozenset(
    {"morph_com", "morph_integ_int", "morph_moran_i", "morph_geary_c"}
)
#: The local intensity peak looks at a sphere of 1 cm3 around a voxel, radius 6.2 mm.
_MARGIN_MM = 7.0


class FeatureSettings(Settings):
    """Settings of the feature computation.

    Attributes
    ----------
    families
        Of ``FAMILIES``; ``gldzm`` and ``local-intensity`` only if named.
    discretisation
        How intensities become grey levels for histogram and texture: ``levels``, the image holds
        levels 0, 1, ... as :func:`corelab.radiomics.normalise.grey_levels` gives them, and voxels
        below 0 have none and count for shape only; ``none``, whole numbers from 1 as they are;
        ``bin-number``, ``n_bins`` bins between lowest and highest intensity in the mask;
        ``bin-width``, bins of ``bin_width`` from ``lowest``.
    bin_width, lowest
        In the image's unit. ``lowest`` None: the multiple of the bin width at or below the lowest
        intensity in the mask (pyradiomics' rule). Voxels below it count for shape only.
    aggregation
        ``3D_comb`` (one matrix from all 13 directions), ``3D_avg``, or within slices across the
        last axis ``2D_avg``, ``2D_comb``, ``2_5D_avg``, ``2_5D_comb``.
    """

    families: Annotated[tuple[Family, ...], Field(min_length=1)] = RadiomicsSettings().families
    discretisation: Literal["levels", "none", "bin-number", "bin-width"] = "levels"
    n_bins: Annotated[int, Field(ge=2)] = 32
    bin_width: Positive | None = None
    lowest: float | None = None
    aggregation: Aggregation = "3D_comb"

    @model_validator(mode="after")
    def _width(self) -> Self:
        if self.discretisation == "bin-width" and self.bin_width is None:
            raise ValueError("bin_width is None; bin-width needs one above 0")
        return self


_DEFAULTS = FeatureSettings()


def extract_features(
    image: Any, mask: Any, *, settings: FeatureSettings = _DEFAULTS
) -> dict[str, float]:
    """Features of one image within one mask: name -> value, in the engine's order, mm and mm3.

    ``image`` and ``mask`` (0 and 1, any number of components) are 3D nibabel images on one grid; no
    resampling is done. A feature without a value for this mask (GLCM of two voxels that do not
    touch) is nan. Moran's I and Geary's C are computed exactly here: from 1000 voxels MIRP draws
    random samples for them, with other values in every run. GLRLM features are nan for a mask that
    is one voxel wide along the first or second axis: MIRP 2.5 leaves out directions there.

    Raises ValueError if grids differ, the mask is empty, holds other values than 0 and 1 or has
    one voxel, the image is not finite in it or does not suit the discretisation.

    Examples
    --------
    >>> import nibabel as nib
    >>> levels = np.arange(64).reshape(4, 4, 4) % 5
    >>> image, mask = (nib.Nifti1Image(x.astype(np.float32), 2 * np.eye(4)) for x in
    ...                (levels, np.ones((4, 4, 4))))
    >>> found = extract_features(image, mask, settings=FeatureSettings(families=("first-order",)))
    >>> round(found["stat_mean"], 5), found["ih_max"]
    (1.96875, 5.0)
    """
    values, region, sizes = _checked(image, mask)
    lowest = _lowest(values[region], settings)
    if lowest is not None:
        n_used = int(np.count_nonzero(values[region] >= lowest))
        if n_used < 2:
            raise ValueError(
                f"{n_used} of {int(region.sum())} voxels in the mask are {lowest:g} or above and "
                "have a grey level; features need 2. Check that the mask lies on this image"
            )
    box = _box(region, sizes)
    table = _mirp_table(values[box], region[box], sizes, settings, lowest)
    row = table.iloc[0]
    features: dict[str, float] = {}
    for column in table.columns:
        if column == "sample_name" or column.startswith("image_"):
            continue
        name = _ibsi_name(column, settings.aggregation)
        if name in features:
            raise RuntimeError(f"MIRP gave feature {name} twice (now as {column})")
        features[name] = float(row[column])
    used = region if lowest is None else region & (values >= lowest)
    if "shape" in settings.families:
        features.update(_spatial_autocorrelation(values, used, sizes))
    if _is_one_voxel_wide(region) or _is_one_voxel_wide(used):
        features.update({name: math.nan for name in features if name.startswith("rlm_")})
    return features


def _ibsi_name(mirp_name: str, aggregation: str) -> str:
    """Tag of a feature in IBSI's reference tables, from MIRP's column name.

    MIRP appends distance, difference level and discretisation; they are settings of the study and
    the same for all rows, so they are not part of the name.
    """
    name = re.sub(r"_(fbn_n\d+|fbs_w[\d.]+)$", "", mirp_name)
    _, whole, suffix = _AGGREGATIONS[aggregation]
    if name.startswith(("cm_", "rlm_")):
        return name.removesuffix("_" + suffix).removesuffix("_d1") + "_" + aggregation
    if name.startswith(("szm_", "dzm_", "ngt_", "ngl_")):
        name = name.removesuffix("_" + whole).removesuffix("_d1_a0.0")
        return f"{name}_{aggregation.rsplit('_', 1)[0]}"
    return name


def feature_rows(
    features: Mapping[str, float],
    *,
    participant_id: str,
    visit: str,
    series: str,
    label: str,
    source: str,
) -> pd.DataFrame:
    """Features of one image and mask as rows of the study's long feature table, :data:`COLUMNS`.

    Shape features that do not read the image (volume, sphericity, ...) have the series ``mask``:
    they are the same for every series of the visit.

    Raises ValueError if a key is empty: rows without it cannot be found again.

    Examples
    --------
    >>> rows = feature_rows({"stat_mean": 2.0, "morph_volume": 9.0}, participant_id="007",
    ...     visit="baseline", series="T1c", label="enhancing", source="pipeline")
    >>> rows[["series", "feature", "value"]].values.tolist()
    [['T1c', 'stat_mean', 2.0], ['mask', 'morph_volume', 9.0]]
    """
    keys = dict(zip(COLUMNS, (participant_id, visit, series, label, source), strict=False))
    empty = [name for name, value in keys.items() if not str(value)]
    if empty:
        raise ValueError(f"feature rows need {', '.join(empty)}: empty text was given")
    rows = [
        (
            *(str(participant_id), str(visit)),
            SHAPE_SERIES if _is_pure_shape(feature) else str(series),
            *(str(label), str(source), feature, float(value)),
        )
        for feature, value in features.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": np.float64})


def _is_pure_shape(feature: str) -> bool:
    return feature.startswith("morph_") and feature not in _SHAPE_WITH_INTENSITY


def _checked(
    image: Any, mask: Any
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Values, region and voxel sizes (mm), or the reason why there are no features."""
    if len(image.shape) != 3 or len(mask.shape) != 3:
        raise ValueError(
            f"image and mask have shapes {image.shape} and {mask.shape}; features need 3D images"
        )
    if not same_grid(image, mask):
        raise ValueError(
            f"the mask (shape {mask.shape}) is not on the grid of the image (shape {image.shape}):"
            " features would be those of another place; resample the mask with "
            "corelab.imaging.resample_to, order 0"
        )
    raw = np.asarray(mask.dataobj, dtype=np.float64)
    region = raw > 0.5
    other = np.unique(raw[np.abs(raw - region) > 1e-3])
    if other.size:
        raise ValueError(
            f"the mask holds the value {other[0]:g}; a mask is 0 and 1: choose its labels first"
        )
    n_voxels = int(region.sum())
    if n_voxels == 0:
        raise ValueError("the mask is empty: a lesion of volume 0 has no features")
    if n_voxels == 1:
        raise ValueError("the mask has one voxel: shape and texture need 2 voxels or more")
    values = np.asarray(image.dataobj, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(values[region])))
    if bad:
        raise ValueError(
            f"{bad} of {n_voxels} voxels in the mask are not finite; load the image through "
            "corelab.imaging or leave them out of the mask"
        )
    return np.nan_to_num(values), region, voxel_sizes_mm(image.affine)


def _lowest(inside: NDArray[np.float64], settings: FeatureSettings) -> float | None:
    """Lower edge of the first grey level; None where the engine finds it."""
    if settings.discretisation in ("levels", "none"):
        odd = inside[inside != np.floor(inside)]
        if odd.size:
            raise ValueError(
                f"discretisation '{settings.discretisation}' needs whole numbers, the image has "
                f"{odd[0]:g}; bring it to grey levels (corelab.radiomics.normalise) or choose "
                "bin-number or bin-width"
            )
    if settings.discretisation == "none" and inside.min() < 1:
        raise ValueError(
            f"discretisation 'none' needs whole numbers from 1, the image has {inside.min():g}; "
            "choose 'levels' for levels from 0"
        )
    if settings.discretisation == "levels":
        return 0.0
    if settings.discretisation == "bin-width":
        if settings.lowest is not None:
            return float(settings.lowest)
        width = float(settings.bin_width or 0.0)
        return math.floor(float(inside.min()) / width) * width
    return None


def _is_one_voxel_wide(region: NDArray[np.bool_]) -> bool:
    """Whether the mask is one voxel wide along its first or second axis (MIRP's x and y)."""
    places = np.nonzero(region)
    return bool(np.ptp(places[0]) == 0 or np.ptp(places[1]) == 0)


def _spatial_autocorrelation(
    values: NDArray[np.float64], region: NDArray[np.bool_], sizes: NDArray[np.float64]
) -> dict[str, float]:
    """Moran's I and Geary's C over all pairs of voxels, weighted by 1 / distance.

    The sums over pairs are convolutions with 1 / distance, so that the Fourier transform gives
    them without going through the pairs (IBSI manual: N365, NPT7). Empty for a constant region:
    MIRP's conventional values stay.
    """
    from scipy import signal

    inside = values[region]
    deviations = np.where(region, values - inside.mean(), 0.0)
    total = float(np.sum(deviations**2))
    if total <= 0:
        return {}
    hit = np.argwhere(region)
    box = tuple(slice(low, high + 1) for low, high in zip(hit.min(0), hit.max(0), strict=True))
    member, deviations = region[box].astype(np.float64), deviations[box]
    offsets = [size * np.arange(1 - n, n) for n, size in zip(member.shape, sizes, strict=True)]
    squared = sum(np.square(axis) for axis in np.meshgrid(*offsets, indexing="ij", sparse=True))
    middle = tuple(n - 1 for n in member.shape)
    squared[middle] = np.inf  # a voxel is no pair with itself
    weights = 1.0 / np.sqrt(squared)

    def weighted(image: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = signal.fftconvolve(weights, image, mode="full")
        return whole[tuple(slice(n - 1, 2 * n - 1) for n in member.shape)]

    of_members = weighted(member)
    weight = float(np.sum(member * of_members))
    products = float(np.sum(deviations * weighted(deviations)))
    differences = 2.0 * (float(np.sum(deviations**2 * of_members)) - products)
    n_voxels = inside.size
    return {
        "morph_moran_i": n_voxels * products / (weight * total),
        "morph_geary_c": (n_voxels - 1) * differences / (2.0 * weight * total),
    }


def _box(region: NDArray[np.bool_], sizes: NDArray[np.float64]) -> tuple[slice, ...]:
    """The mask's box and what features may look at beyond it; the rest costs time only."""
    slices = []
    for axis, size in enumerate(sizes):
        margin = math.ceil(_MARGIN_MM / float(size)) + 1
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(region.any(axis=others))
        slices.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + margin + 1))
    return tuple(slices)


def _mirp_table(
    values: NDArray[np.float64],
    region: NDArray[np.bool_],
    sizes: NDArray[np.float64],
    settings: FeatureSettings,
    lowest: float | None,
) -> pd.DataFrame:
    directional, whole, _ = _AGGREGATIONS[settings.aggregation]
    discretisation: dict[str, Any]
    if settings.discretisation == "none":
        discretisation = {"base_discretisation_method": "none"}
    elif settings.discretisation == "bin-number":
        discretisation = {
            "base_discretisation_method": "fixed_bin_number",
            "base_discretisation_n_bins": settings.n_bins,
        }
    else:
        width = settings.bin_width if settings.discretisation == "bin-width" else 1.0
        discretisation = {
            "base_discretisation_method": "fixed_bin_size",
            "base_discretisation_bin_width": float(width or 1.0),
            "resegmentation_intensity_range": [lowest, math.nan],
        }
    with _quiet(), _without_voxel_pairs():
        from mirp import extract_features as mirp_features
        from mirp.data_import.import_image import import_image
        from mirp.data_import.import_mask import import_mask

        # MIRP's arrays run z, y, x; given as arrays, nothing has to be written to disk.
        scan = import_image(np.ascontiguousarray(values.T))[0]
        lesion = import_mask(np.ascontiguousarray(region.T))[0]
        for item in (scan, lesion):
            item.image_spacing = tuple(float(size) for size in sizes[::-1])
        tables = mirp_features(
            image=scan,
            mask=lesion,
            num_cpus=1,
            base_feature_families=[
                name for family in settings.families for name in FAMILIES[family]
            ],
            glcm_spatial_method=directional,
            glrlm_spatial_method=directional,
            glszm_spatial_method=whole,
            gldzm_spatial_method=whole,
            ngtdm_spatial_method=whole,
            ngldm_spatial_method=whole,
            **discretisation,
        )
    if tables is None or len(tables) != 1 or tables[0] is None:
        raise RuntimeError("MIRP gave no table of features for a valid image and mask")
    return tables[0]


@contextlib.contextmanager
def _without_voxel_pairs() -> Iterator[None]:
    """MIRP goes through all pairs of voxels for Moran's I and Geary's C, for seconds.

    :func:`_spatial_autocorrelation` replaces both, but for a constant region, where MIRP gives 1.
    """
    from unittest import mock

    from mirp._features.morph_3d_data import Data3DSpatial

    with mock.patch.object(Data3DSpatial, "_spatial_distribution", lambda self, data: (1.0, 1.0)):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MIRP sets up the root logger to print on stdout: keep it, and numpy's 0/0, to itself."""
    root = logging.getLogger()
    placeholder = logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(placeholder)
    logging.disable(max(disabled, logging.INFO))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            # Bins of a fixed width on an uncalibrated image are the study's own choice, and a
            # constant region shows in features that are nan.
            for message in ("The intensities for this image", "Fixed bin size discretisation"):
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(placeholder)
