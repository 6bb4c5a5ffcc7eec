"""Lesions of known shape planted into a real scan: where they may lie and how the signal changes.

The scan keeps its own noise: contrast is added to the signal, nothing is smoothed, and a voxel
that the lesion does not touch keeps its value exactly. Borders and thick slices hold a share of the
lesion (:func:`corelab.imaging.shapes.place`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import distance_mm, voxel_sizes_mm
from corelab.imaging.shapes import Placed, Shape, place, radius_mm, shape_model

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Where a lesion is planted.
SITES = ("deep", "cortical", "bone", "posterior_fossa")
#: Distance (mm) that planted lesions keep from existing lesions.
_GAP_MM = 6.0
#: MNI coordinates of the top, the middle of the length, and the size of the brain (mm).
_MNI_TOP, _MNI_MIDDLE_Y, _MNI_WIDTH, _MNI_LENGTH = 80.0, -17.0, 140.0, 176.0
_TRIES = 8
#: Mean diffusivity of normal brain, mm2/s; a scan's own gain is measured against it.
_NORMAL_ADC = 0.8e-3
#: Attenuation of bone that a haematoma does not replace, HU.
_BONE_HU = 120.0


class NoSpace(ValueError):
    """No place in the scan takes the lesion; the message says why."""


@dataclass(frozen=True, eq=False)
class Background:
    """A scan to plant into.

    Attributes
    ----------
    images
        Kind -> array, all on the grid of the planted scan; never changed.
    affine
        Of the grid, axes right, anterior, superior.
    free
        Brain that is at least 6 mm away from every known lesion.
    b_value
        Of the DWI, s/mm2.
    """

    images: Mapping[str, Array]
    affine: NDArray[Any]
    brain: Mask
    free: Mask
    b_value: float = 1000.0
    _kept: dict[str, Any] = field(default_factory=dict)

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """Data shared by all plantings of the scan, computed once."""
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]

    @property
    def sizes_mm(self) -> NDArray[Any]:
        """Voxel edges."""
        return voxel_sizes_mm(self.affine)

    @property
    def has_adc(self) -> bool:
        """Whether there is an ADC, or b0 and DWI to compute it from."""
        return "adc" in self.images or {"b0", "dwi"} <= set(self.images)

    def image(self, kind: str) -> Array:
        """Image of a kind; an ADC that is not among the images is computed from b0 and DWI."""
        if kind in self.images or kind != "adc":
            return self.images[kind]

        def compute() -> Array:
            b0, dwi = (np.maximum(self.images[name], 1e-6) for name in ("b0", "dwi"))
            return np.asarray(np.clip(np.log(b0 / dwi) / self.b_value, 0.0, 4e-3))

        return np.asarray(self.kept("adc", compute))

    def local_mean(self, kind: str, sigma_mm: float = 2.5) -> Array:
        """Mean of an image around each voxel, of brain alone."""

        def compute() -> Array:
            sigma = sigma_mm / self.sizes_mm
            image = np.where(self.brain, self.image(kind), 0.0)
            total = ndimage.gaussian_filter(image, sigma, mode="constant")
            weight = ndimage.gaussian_filter(self.brain.astype(np.float64), sigma, mode="constant")
            return np.asarray(total / np.maximum(weight, 1e-3))

        return np.asarray(self.kept(f"mean:{kind}", compute))

    def typical(self, kind: str) -> float:
        """Median of an image in the free brain, of an ADC that of tissue alone."""

        def compute() -> float:
            inside = self.image(kind)[self.free]
            found = float(np.median(inside))
            # Fluid of sulci and wide ventricles draws the median of an ADC upwards.
            for _ in range(4 * (kind == "adc")):
                found = float(np.median(inside[inside < 1.4 * found]))
            return max(found, 1e-9)

        return float(self.kept(f"typical:{kind}", compute))


def background(
    images: Mapping[str, Array],
    affine: NDArray[Any],
    brain: Mask,
    lesions: Mask,
    *,
    b_value: float = 1000.0,
) -> Background:
    """A scan to plant into, with the brain that is free of known lesions.

    Parameters
    ----------
    images
        Kind -> array.
    affine
        Of their grid.
    brain, lesions
        Masks on that grid.
    b_value
        Of the DWI, s/mm2.

    Raises
    ------
    NoSpace
        If there is no brain without a lesion.

    Examples
    --------
    >>> brain = np.ones((20, 20, 20), bool)
    >>> found = background({"ncct": brain * 30.0}, np.diag([3.0, 3, 3, 1]), brain, ~brain)
    >>> bool(found.free.all())
    True
    """
    free = brain
    if lesions.any():
        away = distance_mm(~lesions, voxel_sizes_mm(affine))
        free = brain & (away > _GAP_MM)
    if not free.any():
        raise NoSpace("no brain is free of lesions")
    return Background(images, affine, brain, free, b_value)


@dataclass(frozen=True, eq=False)
class Planting:
    """A planted lesion: the changed images, and where it lies.

    Attributes
    ----------
    images
        Kind -> changed array, of the kinds that change.
    lesion
        Share of each voxel, with its volume.
    drawn
        Contrast and what else was drawn, with units in the names.
    """

    images: Mapping[str, Array]
    lesion: Placed
    centre_mm: tuple[float, float, float]
    drawn: Mapping[str, float]


def plant(
    scan: Background,
    name: str,
    shape: Shape,
    volume_ml: float,
    site: str,
    random: np.random.Generator,
) -> Planting:
    """Plant one lesion.

    Parameters
    ----------
    scan
        Of :func:`background`.
    name
        One of :data:`LESIONS`.
    shape
        Of the lesion.
    volume_ml
        Its volume, mL; partial volumes count by their share.
    site
        One of :data:`SITES`.
    random
        Source of the place and the contrast.

    Raises
    ------
    NoSpace
        If the site lies outside the scan, or no place takes the volume.

    Examples
    --------
    >>> from corelab.imaging.shapes import draw_shape
    >>> x = np.stack(np.meshgrid(*[np.arange(-47, 48.0)] * 3, indexing="ij")) * 2
    >>> brain = np.sqrt((x**2).sum(axis=0)) < 80
    >>> affine = np.array([[2.0, 0, 0, -94], [0, 2, 0, -94], [0, 0, 2, -94], [0, 0, 0, 1]])
    >>> scan = background({"ncct": np.where(brain, 32.0, -1000.0)}, affine, brain, ~brain & False)
    >>> random = np.random.default_rng(1)
    >>> planted = plant(scan, "haematoma", draw_shape(random, 4.0), 4.0, "deep", random)
    >>> round(planted.lesion.volume_ml, 1), bool(planted.images["ncct"].max() > 50)
    (4.0, True)
    """
    weight, change = LESIONS[name]
    tissue = scan.kept(f"tissue:{name}", lambda: weight(scan) * scan.free)
    candidates = _candidates(scan, tissue, site, radius_mm(volume_ml))
    reason = ""
    for _ in range(_TRIES):
        where = candidates[int(random.integers(len(candidates)))]
        offset = random.uniform(-0.5, 0.5, 3)
        centre = (scan.affine @ [*(where + offset), 1.0])[:3]
        more = float(random.uniform(0.3, 1.0))
        try:
            placed = place(shape, [volume_ml, volume_ml * (1 + more)], centre, scan.affine, tissue)
        except ValueError:
            try:
                placed = place(shape, [volume_ml], centre, scan.affine, tissue) * 2
            except ValueError as fault:
                reason = str(fault)
                continue
        images, drawn = change(scan, placed[0], placed[1], random)
        return Planting(images, placed[0], (centre[0], centre[1], centre[2]), drawn)
    raise NoSpace(f"{site}: {reason}, in {_TRIES} places")


def _candidates(scan: Background, tissue: Array, site: str, radius: float) -> NDArray[np.intp]:
    """Voxels that can be the centre of a lesion at a site; likelier territories more often."""
    if site not in SITES:
        raise ValueError(f"site is '{site}'; known are {', '.join(SITES)}")
    where, depth, mni, density = scan.kept("places", lambda: _places(scan))
    below = (mni[:, 2] < -20) & (mni[:, 1] < -30)
    chosen = {
        "deep": ~below & (depth >= 20),
        "cortical": ~below & (depth >= 4) & (depth <= 15),
        "bone": ~below & (mni[:, 2] < 30) & (depth >= 0.3 * radius) & (depth <= 0.8 * radius + 1),
        "posterior_fossa": below & (depth >= 3),
    }[site]
    chosen &= tissue[tuple(where.T)] > 0.5
    if chosen.sum() < 20:
        raise NoSpace(f"{site}: the scan shows no free brain there")
    found, likely = where[chosen], density[chosen]
    # Each voxel as often as its territory has lesions, at least a tenth as often as the likeliest.
    copies = np.clip(np.rint(10 * likely / likely.max()), 1, 10).astype(int)
    return np.asarray(np.repeat(found, copies, axis=0), np.intp)


def _places(scan: Background) -> tuple[NDArray[np.intp], Array, Array, Array]:
    """Free voxels with their depth in the brain, rough MNI coordinates and density of lesions."""
    sizes = scan.sizes_mm
    depth = distance_mm(np.pad(scan.brain, [(1, 1), (1, 1), (0, 0)]), sizes)
    depth = depth[1:-1, 1:-1]
    where = np.argwhere(scan.free)
    mni = _rough_mni(scan, where)
    density = np.zeros(len(where))
    for territory in shape_model().territories:
        spread = 1.3 * np.asarray(territory.sd_mm)
        squares = (((mni - territory.centre_mm) / spread) ** 2).sum(axis=1)
        density += territory.probability * np.exp(-0.5 * squares) / spread.prod()
    return where, depth[tuple(where.T)], mni, density


def _rough_mni(scan: Background, where: NDArray[np.intp]) -> Array:
    """MNI coordinates from the brain's top, width and length, since it may be cut off below."""
    inside = np.argwhere(scan.brain)
    world = inside @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    low, high = np.percentile(world, [0.5, 99.5], axis=0)
    scale_x, scale_y = (high[0] - low[0]) / _MNI_WIDTH, (high[1] - low[1]) / _MNI_LENGTH
    points = where @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    x = (points[:, 0] - (low[0] + high[0]) / 2) / scale_x
    y = (points[:, 1] - (low[1] + high[1]) / 2) / scale_y + _MNI_MIDDLE_Y
    z = _MNI_TOP + (points[:, 2] - high[2]) / (0.5 * (scale_x + scale_y))
    return np.asarray(np.stack([x, y, z], axis=1))


# --- tissue that can become lesion -------------------------------------------------------------


def _not_fluid_on_diffusion(scan: Background) -> Array:
    if scan.has_adc:
        ratio = scan.local_mean("adc") / scan.typical("adc")
        return np.asarray(np.clip((2.2 - ratio) / 0.7, 0, 1))
    ratio = scan.local_mean("dwi") / scan.typical("dwi")
    return np.asarray(np.clip((ratio - 0.4) / 0.2, 0, 1))


def _not_fluid_on_flair(scan: Background) -> Array:
    ratio = scan.local_mean("FLAIR") / scan.typical("FLAIR")
    return np.asarray(np.clip((ratio - 0.45) / 0.2, 0, 1))


def _not_fluid_on_ct(scan: Background) -> Array:
    return np.asarray(np.clip((scan.local_mean("ncct") - 14.0) / 8.0, 0, 1) * _soft_on_ct(scan))


def _soft_on_ct(scan: Background) -> Array:
    """Blood replaces everything but bone."""
    return np.asarray((scan.images["ncct"] < _BONE_HU).astype(np.float64))


# --- signal ------------------------------------------------------------------------------------

_Changed = tuple[dict[str, Array], dict[str, float]]


def _whole(scan: Background, kind: str, lesion: Placed, values: Array) -> Array:
    """The image with new values where the lesion is, everything else exactly as it was."""
    changed = scan.images[kind].copy()
    changed[lesion.box] = np.where(lesion.fraction > 0, values, changed[lesion.box])
    return changed


def _diffusion(
    scan: Background, lesion: Placed, wider: Placed, random: np.random.Generator
) -> _Changed:
    """Restricted diffusion: ADC times 0.45 to 0.75; DWI = S0 exp(-b ADC), S0 up to 10 % higher.

    The two compartments of a voxel add their signals, and its ADC is that of the sum. A scan
    whose ADC has a wrong gain gets the contrast of one with the right gain.
    """
    kept, shine = float(random.uniform(0.45, 0.75)), float(random.uniform(1.0, 1.1))
    box, share = lesion.box, lesion.fraction.astype(np.float64)
    if scan.has_adc:
        gain = _NORMAL_ADC / scan.typical("adc")
        adc = np.maximum(scan.local_mean("adc")[box], 0.0) * gain
    else:
        gain, adc = 1.0, np.full(share.shape, _NORMAL_ADC)
    restricted = np.exp(scan.b_value * adc * (1.0 - kept))
    images: dict[str, Array] = {}
    s0 = (1.0 - share) + share * shine
    signal = (1.0 - share) + share * shine * restricted
    if "dwi" in scan.images:
        added = (signal - 1.0) * np.maximum(scan.local_mean("dwi")[box], 0.0)
        images["dwi"] = _whole(scan, "dwi", lesion, scan.images["dwi"][box] + added)
    if "b0" in scan.images:
        added = (s0 - 1.0) * np.maximum(scan.local_mean("b0")[box], 0.0)
        images["b0"] = _whole(scan, "b0", lesion, scan.images["b0"][box] + added)
    if "adc" in scan.images:
        lower = np.log(signal / s0) / (scan.b_value * gain)
        images["adc"] = _whole(scan, "adc", lesion, scan.images["adc"][box] - lower)
    return images, {"adc_factor": kept, "s0_factor": shine}


def _flair(
    scan: Background, lesion: Placed, wider: Placed, random: np.random.Generator
) -> _Changed:
    """FLAIR brighter by 20 to 60 % of the tissue around."""
    gain, box = float(random.uniform(0.2, 0.6)), lesion.box
    added = gain * lesion.fraction * scan.local_mean("FLAIR")[box]
    return (
        {"FLAIR": _whole(scan, "FLAIR", lesion, scan.images["FLAIR"][box] + added)},
        {"flair_gain": gain},
    )


def _haematoma(
    scan: Background, lesion: Placed, wider: Placed, random: np.random.Generator
) -> _Changed:
    """Blood of 55 to 80 HU with the scan's noise, in every second one with a rim of oedema."""
    blood, box = float(random.uniform(55.0, 80.0)), lesion.box
    rim = float(random.uniform(4.0, 8.0)) * float(random.random() < 0.5)
    here, mean = scan.images["ncct"][box], scan.local_mean("ncct")[box]
    inside = scan.brain[box]
    noise = here - mean
    # Differences of tissue (sulci, bone) are no noise: at most three robust SD of it are kept.
    most = 3.0 * 1.4826 * float(np.median(np.abs(noise[inside]))) if inside.any() else 0.0
    share = lesion.fraction.astype(np.float64)
    values = here * (1.0 - share) + share * (blood + np.clip(noise, -most, most))
    around = np.maximum(wider.fraction - lesion.fraction, 0.0) * (here > 15.0)
    values = values - rim * around
    touched = Placed(box, np.maximum(lesion.fraction, around * (rim > 0)), lesion.volume_ml)
    return (
        {"ncct": _whole(scan, "ncct", touched, values)},
        {"blood_hu": blood, "oedema_rim_hu": rim},
    )


def _hypodensity(
    scan: Background, lesion: Placed, wider: Placed, random: np.random.Generator
) -> _Changed:
    """Infarct on CT: 4 to 10 HU darker."""
    darker, box = float(random.uniform(4.0, 10.0)), lesion.box
    values = scan.images["ncct"][box] - darker * lesion.fraction
    return {"ncct": _whole(scan, "ncct", lesion, values)}, {"darker_hu": darker}


_Change = Callable[[Background, Placed, Placed, np.random.Generator], _Changed]
#: Lesion -> tissue that can become it, and how it changes the signal.
LESIONS: dict[str, tuple[Callable[[Background], Array], _Change]] = {
    "infarct_diffusion": (_not_fluid_on_diffusion, _diffusion),
    "infarct_flair": (_not_fluid_on_flair, _flair),
    "infarct_ct": (_not_fluid_on_ct, _hypodensity),
    "haematoma": (_soft_on_ct, _haematoma),
}


def healthy_side(brain: Mask, lesions: Mask, *, from_ml: float, voxel_ml: float) -> Mask:
    """The half of the brain away from a lesion; both halves where none is large and one-sided.

    Parameters
    ----------
    brain, lesions
        On a grid whose first axis runs right.
    from_ml
        A lesion of at least this volume, four fifths of it on one side, makes the other healthy.
    voxel_ml
        Volume of a voxel.

    Examples
    --------
    >>> brain = np.ones((10, 4, 4), bool); lesion = np.zeros_like(brain); lesion[:3] = True
    >>> healthy_side(brain, lesion, from_ml=1.0, voxel_ml=0.1)[:, 0, 0].astype(int).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    total = float(lesions.sum())
    if total * voxel_ml < from_ml or not brain.any():
        return brain
    middle = float(np.nonzero(brain)[0].mean())
    right = np.arange(brain.shape[0])[:, None, None] > middle
    share = float((lesions & right).sum()) / total
    if share >= 0.8:
        return brain & ~right
    return brain & right if share <= 0.2 else brain
