"""Conditions that make a simulated head as hard as a patient's: one record per participant.

The neutral record changes nothing, so that the flavours ``full`` and ``testing`` keep their bytes.
The flavour ``hard`` gives each imaged participant one of :data:`DIFFICULTIES`, whose sizes are
drawn from the trial's seed: choose settings on some seeds and judge them on others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import distance_mm
from corelab.phantom.head import TEMPLATE_SHAPE, Head, bisect, load_head, template_axes
from corelab.phantom.seeds import generator

Array = NDArray[np.float32]

#: Air cells beside the brain, MNI mm: frontal sinus and cribriform plate, petrous bones,
#: sphenoid sinus. Signal is piled up in front of them and lost at them.
_AIR_CELLS_MM = (
    *((0, 52, -26), (-14, 42, -24), (14, 42, -24)),
    *((-46, -22, -32), (46, -22, -32), (0, 8, -28)),
)


@dataclass(frozen=True)
class Conditions:
    """Anatomy, artefacts and errors of one participant's scans.

    Attributes
    ----------
    ventricles
        Volume of the lateral ventricles as a multiple of the template's.
    atrophy_mm
        How far the fluid of sulci reaches into the cortex, mm.
    shell
        Signal of skull and scalp on diffusion as a share of the usual one (0: suppressed).
    adc_gain
        ADC of normal tissue as a multiple of the true one: b0 and DWI have different gains.
    susceptibility
        Strength of the piled-up signal beside air cells (1: twice the signal).
    cavity_ml, disease_ml
        An old infarct filled with fluid; white-matter disease about the ventricles.
    noise, bias
        Multiples of the usual noise and bias field.
    slice_mm
        Slice thickness of diffusion and CT; None: that of the protocol.
    tilt_degrees
        Range of the angle of the slices to the axial plane; None: that of the protocol.
    cut_off_mm
        Height that the field of view loses at the crown.
    ct_anatomy
        Whether CT has sinuses, dura, petrous bone, calcifications and streaks
        (:mod:`corelab.phantom.ct_anatomy`).
    """

    ventricles: float = 1.0
    atrophy_mm: float = 0.0
    shell: float = 1.0
    adc_gain: float = 1.0
    susceptibility: float = 0.0
    cavity_ml: float = 0.0
    disease_ml: float = 0.0
    noise: float = 1.0
    bias: float = 1.0
    slice_mm: float | None = None
    tilt_degrees: tuple[float, float] | None = None
    cut_off_mm: float = 0.0
    ct_anatomy: bool = False


NEUTRAL = Conditions()

#: Participant of the hard trial -> what is hard about it.
DIFFICULTIES = {
    "001": "elderly head, no scalp on diffusion, CT and diffusion of thick slices, tilted head",
    "002": "infarct of a hemisphere, b0 and DWI of different gains, no ADC map",
    "003": "white-matter disease and an old cavity, ADC too low",
    "004": "shower of emboli, susceptibility at the skull base",
    "005": "DWI alone: no ADC and no b0; strong bias field",
    "006": "the field of view cuts the crown off; atrophy",
    "007": "CT with dense sinuses, calcified falx, streaks; blood at day 5 only",
    "008": "one lacune, twice the noise, susceptibility",
}


def draw_conditions(seed: int, participant_id: str) -> Conditions:
    """Conditions of one participant of the hard trial; neutral for participants without images.

    Examples
    --------
    >>> draw_conditions(1, "036") == NEUTRAL, 1.3 <= draw_conditions(1, "002").adc_gain <= 1.6
    (True, True)
    """
    if participant_id not in DIFFICULTIES:
        return NEUTRAL
    rng = generator(seed, participant_id, "conditions")

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    aged = Conditions(
        ventricles=between(1.5, 2.5),
        atrophy_mm=between(0.3, 0.8),
        shell=between(0.0, 0.3),
        noise=between(1.0, 1.6),
        bias=between(1.0, 2.0),
    )
    own: dict[str, dict[str, object]] = {
        "001": {
            "ventricles": between(3.0, 6.0),
            "shell": 0.0,
            "slice_mm": between(8.0, 9.0),
            "tilt_degrees": (12.0, 20.0),
            "ct_anatomy": True,
        },
        "002": {"adc_gain": between(1.3, 1.6)},
        "003": {
            "disease_ml": between(10, 30),
            "cavity_ml": between(5, 25),
            "adc_gain": between(0.6, 0.8),
        },
        "004": {"susceptibility": between(0.7, 1.3)},
        "005": {"bias": between(2.5, 4.0), "susceptibility": between(0.3, 0.8)},
        "006": {"cut_off_mm": between(40, 55), "atrophy_mm": between(0.8, 1.2)},
        "007": {
            "ct_anatomy": True,
            "tilt_degrees": (10.0, 18.0),
        },
        "008": {"noise": 2.0, "susceptibility": between(0.5, 1.0)},
    }
    return replace(aged, **own[participant_id])  # type: ignore[arg-type]


@dataclass(frozen=True)
class TumourConditions:
    """Difficulties of one glioma and its images; the default changes nothing.

    Attributes
    ----------
    necrosis_share
        Volume of the necrosis as a share of the enhancing rim around it.
    silent
        Cosine below which a sector of the rim does not enhance (-1: none): solid tumour that is
        seen on FLAIR only.
    bias, noise
        Height of the bias field (0: none), multiple of the usual noise.
    export
        ``raw``; ``stripped`` of the skull; ``z-scored`` (stripped, then less the mean of the brain
        and divided by its SD, background included, so that it is negative).
    cut_off_mm
        Height that the field of view loses at the crown.
    """

    necrosis_share: float = 0.4
    silent: float = -1.0
    bias: float = 0.0
    noise: float = 1.0
    export: str = "raw"
    cut_off_mm: float = 0.0


def draw_tumour_conditions(seed: int, participant_id: str) -> TumourConditions:
    """Conditions of one participant of the hard glioblastoma trial.

    Examples
    --------
    >>> [draw_tumour_conditions(1, name).export for name in ("001", "002", "003")]
    ['raw', 'stripped', 'z-scored']
    """
    rng = generator(seed, participant_id, "tumour-conditions")
    number = int(participant_id)
    return TumourConditions(
        necrosis_share=float(np.exp(rng.uniform(np.log(0.03), np.log(2.0)))),
        silent=float(rng.uniform(-0.7, 0.2)) if number % 4 in (0, 2) else -1.0,
        bias=float(rng.uniform(0.1, 0.4)),
        noise=float(rng.uniform(1.0, 2.0)),
        export=("raw", "stripped", "z-scored")[(number - 1) % 3],
        cut_off_mm=float(rng.uniform(40, 55)) if number == 7 else 0.0,
    )


def _ventricles(csf: Array) -> NDArray[np.bool_]:
    """Lateral and third ventricle of the template: the fluid deep in the brain."""
    x, y, z = template_axes(TEMPLATE_SHAPE)
    deep = (np.abs(x) < 40) & (y > -60) & (y < 40) & (z > -14) & (z < 34)
    labels, _ = ndimage.label((csf > 0.5) & deep)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


@lru_cache(maxsize=4)
def aged_head(ventricles: float, atrophy_mm: float) -> Head:
    """The head with wider ventricles and sulci; brain and shell stay where they are.

    ``ventricles`` and ``atrophy_mm`` as in :class:`Conditions`; 1 and 0 give the head itself.

    Examples
    --------
    >>> aged, head = aged_head(2.0, 0.5), load_head()
    >>> bool(aged.csf.sum() > head.csf.sum()), bool((aged.brain == head.brain).all())
    (True, True)
    """
    head = load_head()
    if ventricles <= 1 and atrophy_mm <= 0:
        return head
    fluid = np.zeros(head.csf.shape, np.float32)
    if ventricles > 1:
        inside = _ventricles(head.csf)
        # Only white matter gives way: the ventricle widens outwards, not into the thalamus.
        box = tuple(
            slice(max(0, part.start - 22), part.stop + 22)
            for part in ndimage.find_objects(inside.astype(np.uint8))[0]
        )
        away = distance_mm(~inside[box])
        away = away + 6.0 * np.clip(head.grey[box], 0, 1)
        away = ndimage.gaussian_filter(away, 1.0)
        wanted = ventricles * float(inside.sum())
        _, high = bisect(lambda reach: float((away < reach).sum()), wanted, 0.0, 20.0, 20)
        fluid[box] = np.clip(high + 0.5 - away, 0, 1)
    if atrophy_mm > 0:
        sulci = distance_mm(head.csf < 0.5).astype(np.float32)
        fluid = np.maximum(fluid, np.clip(atrophy_mm + 0.5 - sulci, 0, 1))
    fluid *= head.brain
    keep = 1 - fluid
    return replace(
        head,
        grey=head.grey * keep,
        white=head.white * keep,
        csf=(head.csf * keep + fluid).astype(np.float32),
    )


def _random_field(rng: np.random.Generator, sigma_mm: float) -> Array:
    """Random field of unit variance on the 1 mm grid, drawn on a 4 mm one."""
    coarse = tuple(n // 4 + 2 for n in TEMPLATE_SHAPE)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), sigma_mm / 4)
    zoomed = ndimage.zoom((noise / noise.std()).astype(np.float32), 4, order=1)
    return np.asarray(
        zoomed[: TEMPLATE_SHAPE[0], : TEMPLATE_SHAPE[1], : TEMPLATE_SHAPE[2]], np.float32
    )


def _share_below(potential: Array, weight: Array, volume_ml: float) -> Array:
    """Soft indicator of the sublevel set whose weighted volume is ``volume_ml`` (1 mm voxels)."""

    def share(level: float) -> Array:
        return np.clip((level - potential) / 1.5 + 0.5, 0, 1)

    def found(level: float) -> float:
        return float((share(level) * weight).sum(dtype=np.float64)) / 1000.0

    ends = float(potential.min()), float(potential.max())
    return share(bisect(found, volume_ml, *ends, 30)[1]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Extras:
    """Further tissue of a head in template space, fractions 0 to 1 on the 1 mm grid.

    An old infarct full of fluid, white-matter disease, and the relative gain of signal beside air
    cells (``pile_up``, negative where it is lost).
    """

    cavity: Array | None = None
    disease: Array | None = None
    pile_up: Array | None = None


@lru_cache(maxsize=2)
def extras_of(conditions: Conditions, seed: int, participant_id: str, lesion_side: int) -> Extras:
    """Old cavity (away from the lesion's side), white-matter disease and susceptibility.

    Examples
    --------
    >>> extras_of(NEUTRAL, 1, "001", 1).cavity is None
    True
    """
    if conditions == NEUTRAL:
        return Extras()
    head = aged_head(conditions.ventricles, conditions.atrophy_mm)
    rng = generator(seed, participant_id, "extras")
    x, y, z = template_axes(TEMPLATE_SHAPE)
    cavity = disease = pile_up = None
    if conditions.cavity_ml > 0:
        centre = rng.uniform((30, -50, 0), (46, 20, 36)) * (-lesion_side, 1, 1)
        away = np.sqrt((x - centre[0]) ** 2 + ((y - centre[1]) / 1.3) ** 2 + (z - centre[2]) ** 2)
        away = away * (1 + 0.15 * _random_field(rng, 8.0))
        weight = head.tissue
        cavity = _share_below(away.astype(np.float32), weight, conditions.cavity_ml)
    if conditions.disease_ml > 0:
        ventricle = _ventricles(head.csf)
        away = distance_mm(~ventricle).astype(np.float32)
        away = away + 5.0 * _random_field(rng, 5.0) + 30.0 * (1 - head.white)
        disease = _share_below(away, head.white, conditions.disease_ml)
    if conditions.susceptibility > 0:
        pile_up = np.zeros(TEMPLATE_SHAPE, np.float32)
        for cell in _AIR_CELLS_MM:
            at = np.asarray(cell) + rng.normal(0, 3, 3)
            reach = rng.uniform(7, 12)
            across = ((x - at[0]) / reach) ** 2 + ((z - at[2]) / reach) ** 2
            # Along the phase-encoding axis signal is moved: a bright sheet before a dark one.
            bright = np.exp(-across - ((y - at[1] + 6) / 3.5) ** 2)
            dark = np.exp(-across - ((y - at[1] - 2) / 5.0) ** 2)
            pile_up += (rng.uniform(0.6, 1.4) * bright - 0.8 * dark).astype(np.float32)
        pile_up *= np.float32(conditions.susceptibility)
        pile_up = np.maximum(pile_up, np.float32(-0.95))
    return Extras(cavity, disease, pile_up)
