"""Voxel values: finite, in the right unit, whole where they are labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.faults import ImageFault

#: Unit of each kind after conforming; kinds that are not here are in arbitrary units.
UNITS = {
    "ncct": "HU",
    "ctp": "HU",
    "adc": "mm2/s",
    "cbf": "mL/100g/min",
    "cbv": "mL/100g",
    "mtt": "s",
    "tmax": "s",
    "ttp": "s",
}
#: Mode of the ADC of brain tissue at which the published thresholds hold, mm2/s.
ADC_TISSUE_MM2_S = 0.80e-3
#: Where the mode of tissue is off by more, the scale of an ADC map is doubtful. What age, disease
#: and gains of b = 0 and DWI do (0.6 to 1.6) lies inside, half and twice the scale outside.
ADC_DOUBTFUL = (0.55, 1.8)
#: Where it is off by more, no known unit makes an ADC map of it.
ADC_REFUSED = (0.25, 4.0)
#: A mode this many times that of tissue may be that of fluid, ...
_FLUID = 2.8
#: ... where at least this share of the head is tissue.
_LEAST_TISSUE = 0.2
#: Modes of tissue that maps of perfusion can have in their unit.
MAP_PLAUSIBLE = {
    "cbf": (5.0, 150.0),
    "cbv": (0.5, 15.0),
    "mtt": (1.5, 25.0),
    "tmax": (0.0, 30.0),
    "ttp": (1.0, 90.0),
}
#: Limits of CBF x MTT / 60 over CBV in most tissue, which is 1 by the central volume principle;
#: programs differ in density, haematocrit and the correction of delays by less than these.
CENTRAL_VOLUME = (0.5, 2.0)
#: A time or an interval in a map, a list or a header from which seconds are taken as milliseconds.
SHORTEST_IN_MS = 100.0
#: Local SD over local mean below which a voxel is tissue rather than noise in air.
_CALM = 0.25
#: Factors to mm2/s of the units in which ADC maps are found.
_ADC_UNITS = {
    "mm2/s": 1.0,
    "10^-3 mm2/s": 1e-3,
    "10^-6 mm2/s": 1e-6,
    "m2/s": 1e6,
}
#: Non-finite voxels inside the head, as a share of it, above which an image is refused.
MAX_NONFINITE_SHARE = 0.001
#: Values above this, whose squares no float32 holds, are no measurement of anything.
MAX_VALUE = 1e18
#: Median of a head on CT (brain, scalp, bone; air left out) in HU.
CT_PLAUSIBLE_MEDIAN_HU = (-50.0, 150.0)
#: A CT that ends below this, with many voxels at its end, went through a display window.
WINDOW_BELOW_HU = 600.0
_CEILING_SHARE = 0.01
#: Values below air are padding of the reconstruction circle.
AIR_HU = -1024.0
#: Kinds whose intensities are compared with the darkest tissue: 0 has to mean no signal.
_FROM_ZERO = ("T1w", "T1c", "T2w", "FLAIR", "gre", "dwi")
#: Share of the tissue below the background from which the background is not the scanner's zero.
_TISSUE_BELOW = 0.2
#: How the note on shifted intensities begins.
SHIFTED = "negative intensities inside the head"
#: A label may be off a whole number by this much, plus a relative part for float32 scaling.
LABEL_TOLERANCE = 1e-3
_LABEL_RELATIVE = 2e-5


#: More labels than this in one mask, none of them named, are a probability map or an atlas.
MANY_LABELS = 12


def checked(
    voxels: NDArray[Any],
    kind: str | None,
    name: str,
    notes: list[str],
    warnings: list[str] | None = None,
) -> tuple[NDArray[np.float32], str]:
    """Check the values of an image for its kind, fix what can be fixed, and report it.

    Parameters
    ----------
    voxels
        3D or 4D array of any real type.
    kind
        Kind of scan, ``mask-<label>`` for labels, None for the checks that hold for any image.
    name
        File name for messages.
    notes, warnings
        Lists to which is appended what was done, and what a person should look at.

    Returns
    -------
    (float32 array, unit)

    Raises
    ------
    ImageFault
        If the values cannot be what the kind says.

    Examples
    --------
    >>> notes = []
    >>> labels, unit = checked(np.full((2, 2, 2), 1.000015), "mask-x", "a.nii", notes)
    >>> float(labels[0, 0, 0]), unit, notes[0]
    (1.0, 'label', 'labels up to 1.5e-05 off whole numbers were rounded')
    """
    warnings = [] if warnings is None else warnings
    if kind is not None and kind.startswith("mask-"):
        return _labels(voxels, name, notes), "label"
    finite = _finite(voxels, name, notes)
    lowest, highest = float(finite.min()), float(finite.max())
    if lowest == highest:
        what = "all zero" if lowest == 0 else f"constant ({lowest:g})"
        raise ImageFault(
            f"{name} is {what}: it shows nothing",
            "the export failed or the wrong file is named: export the scan again",
        )
    if kind == "adc":
        finite = _adc_mm2_s(finite, name, notes, warnings)
    elif kind in MAP_PLAUSIBLE:
        finite = _perfusion_map(finite, kind, name, notes, warnings)
    elif kind in ("ncct", "ctp"):
        finite = _hounsfield(finite, kind, name, notes)
    elif kind in ("dwi", "b0") and lowest < 0:
        share = float((finite < 0).mean())
        notes.append(
            f"{share:.1%} of the voxels are negative (down to {lowest:g}); left as they are"
        )
    if kind in _FROM_ZERO and lowest < 0:
        finite = _from_zero(finite, notes)
    return finite, UNITS.get(kind or "", "a.u.")


def chosen_labels(
    labels: NDArray[Any], label_values: object, name: str, warnings: list[str]
) -> NDArray[np.bool_]:
    """Voxels of a mask that count: those of the named labels, or all that are not 0.

    Parameters
    ----------
    labels
        Whole numbers, as :func:`checked` gives them.
    label_values
        Labels that count, as ``1,2,4``; None or empty where the mask has no other.
    name
        File name for messages.
    warnings
        List to which warnings are appended: several labels of which none is named, a named label
        that is absent beside one that is present.

    Raises
    ------
    ImageFault
        If ``label_values`` is no list of numbers, if the mask has labels and none of those that
        are named, or if it is a probability map stored as whole numbers.

    Examples
    --------
    >>> warnings = []
    >>> chosen_labels(np.array([0, 1, 2, 4]), "1,4", "m.nii", warnings).tolist(), warnings
    ([False, True, False, True], [])
    >>> int(chosen_labels(np.array([0, 1, 2, 4]), None, "m.nii", warnings).sum())
    3
    >>> warnings[0].split(";")[0]
    'm.nii holds the labels 1, 2, 4, which count as one lesion'
    """
    present = np.unique(labels)
    present = present[present != 0]
    if label_values in (None, ""):
        if present.size > MANY_LABELS:
            raise ImageFault(
                f"{name} holds {present.size} different values up to {present.max():g} and no "
                "label_values say which count: that is a probability map or a parcellation",
                "threshold a probability map first; name the labels of a parcellation that count "
                "in the column label_values",
            )
        if present.size > 1:
            listed = ", ".join(f"{value:g}" for value in present)
            warnings.append(
                f"{name} holds the labels {listed}, which count as one lesion; name those that "
                "count in the column label_values"
            )
        return np.asarray(labels != 0)
    try:
        wanted = [float(part) for part in str(label_values).split(",")]
    except ValueError:
        raise ImageFault(
            f"label_values is {label_values!r}: it names the labels that count, as in 1,2,4",
            "correct the column label_values in the scans sheet",
        ) from None
    absent = [value for value in wanted if value not in present]
    if present.size and absent:
        held = ", ".join(f"{value:g}" for value in present[:8])
        named = ", ".join(f"{value:g}" for value in absent)
        message = f"{name} has no voxel of the label {named}; it holds {held}"
        if len(absent) == len(wanted):
            raise ImageFault(
                message,
                "correct the column label_values; write a mask of zeros if there is no lesion",
            )
        warnings.append(message)
    return np.isin(labels, wanted)


def _labels(voxels: NDArray[Any], name: str, notes: list[str]) -> NDArray[np.float32]:
    """Whole-number labels; NaN is background."""
    if voxels.dtype.kind in "bu" and voxels.dtype.itemsize <= 2:
        # As nearly every mask is stored: whole, finite, small and not negative as it stands.
        if voxels.all():
            notes.append("the mask covers every voxel of its image")
        return voxels.astype(np.float32)
    labels = np.asarray(voxels, dtype=np.float64)
    bad = ~np.isfinite(labels)
    if bad.any():
        if bad.all():
            raise ImageFault(f"{name} has no finite voxel", "export the mask again")
        notes.append(f"{int(bad.sum())} non-finite voxels of the mask were set to 0")
        labels = np.nan_to_num(labels, nan=0.0, posinf=0.0, neginf=0.0)
    whole = np.rint(labels)
    off = np.abs(labels - whole)
    if (off > LABEL_TOLERANCE + _LABEL_RELATIVE * np.abs(labels)).any():
        example = float(labels.flat[int(off.argmax())])
        raise ImageFault(
            f"{name} holds {example:g}, which is no label: a mask has whole numbers",
            "threshold a probability map first, or resample the mask with nearest neighbour",
        )
    if off.any():
        notes.append(f"labels up to {off.max():.2g} off whole numbers were rounded")
    if np.abs(whole).max() > 2**24:
        raise ImageFault(
            f"{name} holds the label {whole.flat[int(np.abs(whole).argmax())]:g}: labels above "
            "16777216 are not kept exactly",
            "renumber the labels",
        )
    if whole.min() < 0:
        notes.append(f"negative labels (down to {whole.min():.0f}) count as labelled")
    if whole.all():
        notes.append("the mask covers every voxel of its image")
    return whole.astype(np.float32)


def _finite(voxels: NDArray[Any], name: str, notes: list[str]) -> NDArray[np.float32]:
    """float32 without NaN or Inf; refused where they lie inside the head."""
    with np.errstate(over="ignore"):
        image = np.asarray(voxels, dtype=np.float32)
    bad = ~np.isfinite(image)
    count = int(bad.sum())
    if count == image.size:
        raise ImageFault(f"{name} has no finite voxel", "export the scan again")
    values = image[~bad] if count else image
    largest = max(float(values.max()), -float(values.min()))
    if largest > MAX_VALUE:
        raise ImageFault(
            f"{name} has values up to {largest:.3g}, which nothing measures: the header's type or "
            "byte order is not that of the data",
            "export the scan again",
        )
    if count == 0:
        return image
    filled = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    inside = _share_inside(filled, bad)
    if inside > MAX_NONFINITE_SHARE:
        raise ImageFault(
            f"{name} has {count} non-finite voxels (NaN or Inf), {inside:.1%} of the head's: "
            "values in tissue are lost",
            "export or compute the image again; where a map is undefined inside the brain, "
            "say so with a mask",
        )
    notes.append(
        f"{count} non-finite voxels (NaN or Inf) were set to 0; {inside:.2%} of the head's"
    )
    return filled


def _from_zero(image: NDArray[np.float32], notes: list[str]) -> NDArray[np.float32]:
    """Intensities shifted so that no signal is 0, where an export has moved them (z scores).

    A stripped image has one background value. Below 0 with tissue above it, it is the zero of the
    scanner. Where much tissue lies below it, only the tissue was scaled, and the zero is put at the
    darkest 0.1 % of it, which is fluid. An image with a head in air is shifted where its air lies
    clearly below 0. Few negative values (interpolation, filters) leave an image as it is.

    Examples
    --------
    >>> image = np.full((9, 9, 9), -2.0, np.float32); image[2:7, 2:7, 2:7] = 1.0
    >>> notes = []
    >>> shifted = _from_zero(image, notes)
    >>> float(shifted.min()), float(shifted.max()), notes[0][:36]
    (0.0, 3.0, 'negative intensities inside the head')
    """
    from skimage.filters import threshold_otsu

    # Faces of the array: background, unless the head is cut off there.
    faces = np.concatenate(
        [np.take(image, end, axis).ravel() for axis in range(3) for end in (0, -1)]
    )
    values, counts = np.unique(faces, return_counts=True)
    background = float(values[counts.argmax()])
    if counts.max() > 0.5 * faces.size:
        head = image != np.float32(background)
        if not head.any():
            return image
        below = float((image[head] < background).mean())
        if background < 0 and below < _TISSUE_BELOW:
            shift = -background
        elif below >= _TISSUE_BELOW:
            shift = -float(np.percentile(image[head], 0.1))
        else:
            return image
    else:
        head = image > threshold_otsu(image[::2, ::2].astype(np.float64))
        air, tissue = float(np.median(image[~head])), float(np.median(image[head]))
        if air > -0.1 * (tissue - air):
            return image
        head = np.ones_like(head)
        shift = -float(np.percentile(image, 1.0))
    notes.append(
        f"{SHIFTED} (down to {float(image[head].min()):.3g}, z scores or another export): "
        f"{shift:.3g} was added so that no signal is 0"
    )
    return np.where(head, np.maximum(image + np.float32(shift), 0), np.float32(0))


def _share_inside(filled: NDArray[np.float32], bad: NDArray[np.bool_]) -> float:
    """Share of the head's voxels that are bad; the head is what Otsu's threshold encloses."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    if filled.ndim == 4:
        filled, bad = filled.mean(axis=3), np.asarray(bad.any(axis=3))
    good = filled[~bad]
    if good.size == 0 or good.min() == good.max():
        return 1.0
    # In double precision, in which a histogram of any float32 values has bins of some width.
    head = (filled > threshold_otsu(good.astype(np.float64))) & ~bad
    enclosed = np.zeros_like(head)
    for index in range(head.shape[2]):
        enclosed[:, :, index] = ndimage.binary_fill_holes(
            ndimage.binary_closing(head[:, :, index], iterations=2) | head[:, :, index]
        )
    return float(bad[enclosed].mean()) if enclosed.any() else 1.0


def histogram_mode(values: NDArray[Any]) -> float:
    """Mode of a histogram of 200 bins, smoothed over a fiftieth of the range.

    Examples
    --------
    >>> round(histogram_mode(np.random.default_rng(1).normal(5.0, 0.1, 9999)), 1)
    5.0
    """
    from scipy import ndimage

    low, high = np.percentile(values, [1, 99])
    if high <= low:
        return float(low)
    counts, edges = np.histogram(values, bins=200, range=(low, high))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 4.0)
    return float(edges[smooth.argmax()] + 0.5 * (edges[1] - edges[0]))


def tissue_mode(image: NDArray[Any]) -> float:
    """Most frequent positive value where neighbours agree; NaN without a positive value.

    Noise in the air around a map that was not masked has no neighbours like it, and fluid, whose
    values spread, has no mode.

    Parameters
    ----------
    image
        (x, y, z) map in any unit.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> image = np.abs(rng.normal(0.0, 0.5, (40, 40, 9)))
    >>> image[9:30, 9:30] = rng.normal(0.8, 0.05, (21, 21, 9)); round(tissue_mode(image), 1)
    0.8
    """
    from scipy import ndimage

    positive = image > 0
    if not positive.any():
        return float("nan")
    values = np.asarray(image, np.float64)
    mean = ndimage.uniform_filter(values, (3, 3, 1))
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(values**2, (3, 3, 1)) - mean**2, 0.0))
    calm = positive & (spread < _CALM * mean)
    use = calm if calm.sum() >= 0.02 * positive.sum() else positive
    return histogram_mode(values[use])


def _nearest_unit(mode: float) -> tuple[str, float]:
    """Unit in which a mode is nearest to the ADC of tissue, and the factor that it is off."""
    off = {unit: mode * factor / ADC_TISSUE_MM2_S for unit, factor in _ADC_UNITS.items()}
    unit = min(off, key=lambda key: abs(np.log(off[key]))) if mode > 0 else "mm2/s"
    return unit, off[unit]


def _adc_mm2_s(
    image: NDArray[np.float32], name: str, notes: list[str], warnings: list[str]
) -> NDArray[np.float32]:
    """ADC in mm2/s, its unit recognised by the mode of tissue."""
    mode = tissue_mode(image)
    unit, off = _nearest_unit(mode)
    tissue = np.where(image < 0.6 * mode, image, 0)
    if off > _FLUID and np.count_nonzero(tissue > 0) > _LEAST_TISSUE * np.count_nonzero(image > 0):
        # Ventricles and atrophy larger than the tissue: the mode was that of fluid.
        mode = tissue_mode(tissue)
        unit, off = _nearest_unit(mode)
    if not ADC_REFUSED[0] <= off <= ADC_REFUSED[1]:
        raise ImageFault(
            f"{name} is no ADC map in a known unit: most of its tissue has {mode:.3g}, brain has "
            f"about {ADC_TISSUE_MM2_S:.2g} mm2/s",
            "export it again with its rescale slope, in mm2/s, 10^-3 mm2/s or 10^-6 mm2/s",
        )
    if not ADC_DOUBTFUL[0] <= off <= ADC_DOUBTFUL[1]:
        warnings.append(
            f"the ADC of most tissue in {name} is {mode * _ADC_UNITS[unit]:.2g} mm2/s where brain "
            f"has about {ADC_TISSUE_MM2_S:.2g} (a factor of {off:.2g}): the scale of the map "
            "is doubtful; export it again with its rescale slope"
        )
    factor = _ADC_UNITS[unit]
    if factor != 1.0:
        notes.append(f"ADC was in {unit}; multiplied by {factor:g} to mm2/s")
    count = int((image < 0).sum())
    if count:
        notes.append(
            f"{count} negative ADC values ({count / image.size:.1%} of the voxels, down to "
            f"{image.min() * factor:.3g} mm2/s) were set to 0"
        )
    return np.asarray(np.maximum(image, 0) * np.float32(factor), dtype=np.float32)


def _perfusion_map(
    image: NDArray[np.float32], kind: str, name: str, notes: list[str], warnings: list[str]
) -> NDArray[np.float32]:
    """A supplied map of perfusion in its unit; a mode that tissue cannot have is a warning."""
    mode, unit = tissue_mode(image), UNITS[kind]
    if unit == "s" and mode >= SHORTEST_IN_MS:
        notes.append(f"{kind} of {mode:.3g} s in most tissue cannot be; taken as milliseconds")
        image, mode = np.asarray(image / np.float32(1000), np.float32), mode / 1000.0
    low, high = MAP_PLAUSIBLE[kind]
    if not low <= mode <= high:
        warnings.append(
            f"most tissue in {name} has {mode:.3g} where {kind} is {low:g} to {high:g} {unit}: the "
            "map is in another unit or relative, and limits in that unit do not hold; export it "
            "with its rescale slope"
        )
    return image


def central_volume_ratio(
    cbf: NDArray[Any], cbv: NDArray[Any], mtt: NDArray[Any], inside: NDArray[np.bool_]
) -> float:
    """Median of CBF x MTT / 60 over CBV: 1 by the central volume principle, if the units are right.

    Parameters
    ----------
    cbf, cbv, mtt
        Maps on one grid in mL/100 g/min, mL/100 g and s.
    inside
        Brain mask.

    Returns
    -------
    float
        NaN where fewer than 100 voxels have all three.

    Notes
    -----
    Meier and Zierler 1954, J Appl Physiol 6:731.

    Examples
    --------
    >>> cbf = np.full((6, 6, 6), 50.0)
    >>> central_volume_ratio(cbf, np.full_like(cbf, 4.0), np.full_like(cbf, 4.8), cbf > 0)
    1.0
    """
    use = inside & (cbf > 0) & (cbv > 0) & (mtt > 0)
    if np.count_nonzero(use) < 100:
        return float("nan")
    product = cbf[use].astype(np.float64) * mtt[use] / 60.0
    return float(np.median(product / cbv[use]))


def _hounsfield(
    image: NDArray[np.float32], kind: str, name: str, notes: list[str]
) -> NDArray[np.float32]:
    """CT numbers, padding lifted to air; off the HU scale refused (ncct) or shifted (ctp)."""
    padding = int((image < AIR_HU).sum())
    if padding:
        notes.append(f"{padding} voxels below {AIR_HU:.0f} HU (padding) were set to it")
        image = np.maximum(image, np.float32(AIR_HU))
    volume = image.mean(axis=3) if image.ndim == 4 else image
    middle = head_median(volume)
    low, high = CT_PLAUSIBLE_MEDIAN_HU
    offset = ""
    if 900 < middle < 1250:
        if kind == "ctp":
            notes.append(
                f"the median inside the head is {middle:.0f}: the rescale intercept of -1024 HU "
                "was not applied; 1024 was subtracted"
            )
            return np.asarray(image + np.float32(AIR_HU), dtype=np.float32)
        offset = " (1024 too high: the rescale intercept is missing)"
    if not low <= middle <= high:
        message = (
            f"{name} is not in Hounsfield units: the median inside the head is {middle:.0f}"
            f"{offset}, a head has {low:.0f} to {high:.0f}"
        )
        if kind == "ncct":
            raise ImageFault(
                message, "convert it again with rescale slope and intercept applied (dcm2niix)"
            )
        notes.append(message + "; perfusion needs HU to recognise tissue")
    elif kind == "ncct" and (ceiling := _window_ceiling(volume)) is not None:
        raise ImageFault(
            f"{name} is not in Hounsfield units: {ceiling:.1%} of its voxels hold its greatest "
            f"value, {float(volume.max()):g}, where bone has 300 to 2000 HU; it was exported "
            "through a display window",
            "export the original series, not a screen capture or a windowed copy",
        )
    return image


def _window_ceiling(volume: NDArray[Any]) -> float | None:
    """Share of the voxels at the greatest value, where a display window cut the values there.

    A CT in HU may end at the scanner's own ceiling (1000 to 4095), never among the soft tissues.
    """
    highest = float(volume.max())
    share = float((volume >= highest - 0.5).mean())
    return share if highest < WINDOW_BELOW_HU and share > _CEILING_SHARE else None


def head_median(volume: NDArray[Any]) -> float:
    """Median of what is not air or empty background, by Otsu's threshold.

    Parameters
    ----------
    volume
        3D array. Where more than 30 % of it is exactly 0 (skull-stripped), zeros are left out.

    Returns
    -------
    float

    Examples
    --------
    >>> head = np.full((20, 20, 20), -1000.0); head[5:15, 5:15, 5:15] = 35.0
    >>> head_median(head)
    35.0
    """
    from skimage.filters import threshold_otsu

    if (volume == 0).mean() > 0.3:
        return float(np.median(volume[volume != 0]))
    # A million voxels give a median as well as twenty do.
    volume = volume.ravel()[:: max(1, volume.size // 1_000_000)]
    low, high = np.percentile(volume, [0.5, 99.0])
    # Bone is clipped so that the threshold falls between air and soft tissue.
    clipped = np.clip(volume, low, min(high, low + 1300))
    if clipped.min() == clipped.max():
        return float(np.median(volume))
    return float(np.median(volume[clipped > threshold_otsu(clipped)]))


#: Attenuations that networks see of a CT.
CT_WINDOW_HU = (-100.0, 300.0)


def scaled(values: NDArray[np.float32], scaling: str = "quantile") -> NDArray[np.float32]:
    """Values as 0 to 1, by their quantiles .02 and .98 or by minimum and maximum; others clipped.

    Examples
    --------
    >>> scaled(np.arange(101, dtype=np.float32))[[0, 50, 100]].tolist()
    [0.0, 0.5, 1.0]
    """
    if scaling == "quantile":
        low, high = (float(v) for v in np.quantile(values, [0.02, 0.98]))
    else:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros_like(values)
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
