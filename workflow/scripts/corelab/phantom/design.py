"""Design of the simulated trial: who takes part, what is true of each, what is scanned when.

Everything follows from a :class:`TrialSpec`; nothing here opens an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from corelab.phantom.kinetics import Bolus
from corelab.phantom.lesion import LesionPlan
from corelab.phantom.seeds import generator
from corelab.settings.study import PhantomSettings

FLAVOURS = ("full", "testing", "hard")
DIFFUSION_KINDS = ("b0", "dwi", "adc")

#: Scans of each imaged participant: visit -> kinds. Participant 004 has MR instead of CT
#: perfusion, 006 never came to day 5, and the day 5 diffusion of 005 has 7 mm slices.
_SCHEDULE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "001": {
        "baseline": ("T1w", "b0", "dwi", "adc", "ncct", "ctp"),
        "day5": ("b0", "dwi", "adc", "FLAIR"),
    },
    "002": {
        "baseline": ("T1w", "b0", "dwi", "adc", "ctp"),
        "day5": ("b0", "dwi", "adc", "FLAIR", "ncct"),
    },
    "003": {
        "baseline": ("b0", "dwi", "adc", "ncct", "ctp"),
        "day5": ("T1w", "b0", "dwi", "adc", "FLAIR", "ncct"),
    },
    "004": {
        "baseline": ("b0", "dwi", "adc", "dsc"),
        "day5": ("b0", "dwi", "adc", "FLAIR"),
    },
    "005": {
        "baseline": ("b0", "dwi", "adc", "ctp"),
        "day5": ("b0", "dwi", "adc", "FLAIR"),
    },
    "006": {"baseline": ("T1w", "b0", "dwi", "adc", "ncct", "ctp")},
}
_TESTING_SCHEDULE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "001": {"baseline": ("T1w", "b0", "dwi", "adc", "ctp"), "day5": ("b0", "dwi", "adc", "FLAIR")},
    "002": {"baseline": ("b0", "dwi", "adc"), "day5": ("b0", "dwi", "adc", "FLAIR", "ncct")},
    "004": {"baseline": ("b0", "dwi", "adc", "dsc")},
}
#: The hard trial: what is scanned follows what is hard (:mod:`corelab.phantom.conditions`).
_HARD_SCHEDULE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "001": {"baseline": ("b0", "dwi", "adc", "ncct")},
    "002": {"baseline": ("b0", "dwi")},
    "003": {"baseline": ("b0", "dwi", "adc", "FLAIR")},
    "004": {"baseline": ("dwi", "adc")},
    "005": {"baseline": ("dwi",)},
    "006": {"baseline": ("T1w", "b0", "dwi", "adc")},
    "007": {"baseline": ("ncct",), "day5": ("ncct",)},
    "008": {"baseline": ("b0", "dwi", "adc")},
}
_SCHEDULES = {"full": _SCHEDULE, "testing": _TESTING_SCHEDULE, "hard": _HARD_SCHEDULE}
#: Baseline infarct (mL, smallest and largest) and pattern of the hard trial's participants.
_HARD_LESIONS: Mapping[str, tuple[float, float, str]] = {
    "002": (110.0, 160.0, "territory"),
    "004": (1.0, 4.0, "shower"),
    "008": (0.2, 0.6, "lacune"),
}
_HAEMATOMA_ML = {"002": 14.0, "003": 4.0}
_HARD_HAEMATOMA_ML = {"007": 8.0}
#: Contours by both readers at day 5, on the grid of the diffusion images.
CONTOURED = ("001", "003")
CONTOUR_VISIT = "day5"
_RESIDUES = {"001": "exponential", "002": "gamma", "003": "linear", "005": "gamma"}


@dataclass(frozen=True)
class Rater:
    """A reader or software whose error has a stated size.

    Mean (``bias``) and SD of reading minus truth: of lesion volumes in mL, of ASPECTS in points
    before rounding to a whole score.
    """

    name: str
    bias_ml: float
    sd_ml: float
    aspects_bias: float = 0.0
    aspects_sd: float = 0.7


@dataclass(frozen=True)
class TrialSpec:
    """The simulated stroke trial. The same spec gives the same sheets and the same images.

    Attributes
    ----------
    flavour
        ``full``; ``testing``: coarser voxels, fewer frames and three imaged participants; ``hard``:
        eight imaged participants with what real scans have and simulated heads lack.
    participants, arms, doses_mg_kg
        Randomised in blocks of six over the arms, each with its dose, mg/kg.
    sites
        Participants come from them in turn, two at a time.
    growth_placebo_ml, growth_sd_ml
        Mean infarct growth from baseline to day 5 without drug, and SD between participants of
        one arm (normal, cut at 1.9 SD), mL.
    growth_slope_ml_per_mg_kg
        Effect of the dose on infarct growth, mL per mg/kg. Negative: the drug protects.
    earlier
        The earlier pipeline run whose readings stand for the missing images.
    auc_ng_h_ml_per_mg_kg, auc_log_sd
        Plasma exposure per dose, ng h/mL per mg/kg, and SD of its logarithm between subjects.
    shapes
        Of every lesion's plan.

    Examples
    --------
    >>> spec = TrialSpec()
    >>> spec.growth_slope_ml_per_mg_kg, len(spec.imaged)
    (-6.0, 6)
    """

    seed: int = 20260101
    flavour: str = "full"
    participants: int = 36
    arms: tuple[str, ...] = ("placebo", "low", "high")
    doses_mg_kg: tuple[float, ...] = (0.0, 1.0, 2.0)
    sites: tuple[str, ...] = ("site-1", "site-2", "site-3")
    growth_placebo_ml: float = 24.0
    growth_slope_ml_per_mg_kg: float = -6.0
    growth_sd_ml: float = 5.0
    readers: tuple[Rater, ...] = (
        Rater("reader-1", bias_ml=1.0, sd_ml=1.5, aspects_bias=0.0, aspects_sd=0.6),
        Rater("reader-2", bias_ml=-1.5, sd_ml=2.0, aspects_bias=-0.4, aspects_sd=0.8),
    )
    software: Rater = field(default_factory=lambda: Rater("software-b", bias_ml=2.5, sd_ml=2.5))
    earlier: Rater = field(default_factory=lambda: Rater("supplied", bias_ml=0.0, sd_ml=1.0))
    auc_ng_h_ml_per_mg_kg: float = 400.0
    auc_log_sd: float = 0.3
    shapes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise ValueError(
                f"phantom.flavour is {self.flavour!r}; it chooses voxel sizes and frames and must "
                f"be one of {', '.join(FLAVOURS)}"
            )
        if len(self.arms) != len(self.doses_mg_kg) or self.participants % 6:
            raise ValueError(
                f"{self.participants} participants in {len(self.arms)} arms with "
                f"{len(self.doses_mg_kg)} doses: each arm needs one dose, and blocks have six"
            )

    @classmethod
    def testing(cls, seed: int = 20260101) -> TrialSpec:
        """A coarse trial for integration tests."""
        return cls(seed=seed, flavour="testing")

    @classmethod
    def from_settings(cls, settings: PhantomSettings) -> TrialSpec:
        """Spec of the config's ``phantom`` block."""
        return cls(seed=settings.seed, flavour=settings.flavour, shapes=settings.shapes)

    @property
    def schedule(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Participant -> visit -> kinds of scan."""
        return _SCHEDULES[self.flavour]

    @property
    def imaged(self) -> tuple[str, ...]:
        """Participants who have images."""
        return tuple(self.schedule)


@dataclass(frozen=True)
class Participant:
    """One participant and what is true of the lesion (volumes in the participant's own space, mL).

    ``withdrawn``: nothing is known of day 5 and day 90; ``day5_missed``: seen again at day 90. The
    ADC is that within the infarct at baseline.
    """

    participant_id: str
    arm: str
    dose_mg_kg: float
    site: str
    age_years: int
    sex: str
    onset_to_ct_min: int
    withdrawn: bool
    day5_missed: bool
    lesion: LesionPlan
    adc_core_mm2_s: float
    residue: str
    bolus: Bolus
    auc_ng_h_ml: float

    @property
    def growth_ml(self) -> float:
        """True infarct growth from baseline to day 5, mL."""
        return self.lesion.infarct_ml - self.lesion.core_ml


#: Sheet ids of the participants of whom something is missing, as in life.
WITHDRAWN = "017"
DAY5_MISSED = "006"


@lru_cache(maxsize=8)
def enrol(spec: TrialSpec) -> tuple[Participant, ...]:
    """All participants of a trial, in the order of their ids.

    Examples
    --------
    >>> people = enrol(TrialSpec())
    >>> [sum(p.arm == arm for p in people[:6]) for arm in ("placebo", "low", "high")]
    [2, 2, 2]
    """
    rng = generator(spec.seed, "randomisation")
    per_block = [index for index in range(len(spec.arms)) for _ in range(6 // len(spec.arms))]
    arms = [int(i) for _ in range(spec.participants // 6) for i in rng.permutation(per_block)]
    return tuple(_participant(spec, number, arm) for number, arm in enumerate(arms, start=1))


def _participant(spec: TrialSpec, number: int, arm: int) -> Participant:
    participant_id = f"{number:03d}"
    rng = generator(spec.seed, participant_id, "design")
    dose = spec.doses_mg_kg[arm]
    residual = rng.standard_normal()
    while abs(residual) > 1.9:  # keeps growth positive, and the dose effect unbiased
        residual = rng.standard_normal()
    core = float(np.clip(np.exp(rng.normal(np.log(20.0), 0.45)), 9.0, 45.0))
    growth = (
        spec.growth_placebo_ml
        + spec.growth_slope_ml_per_mg_kg * dose
        + spec.growth_sd_ml * residual / _CUT_SD
    )
    side = 1 if rng.random() < 0.5 else -1
    pattern, haematoma_ml = "territory", _HAEMATOMA_ML
    if spec.flavour == "hard":
        haematoma_ml = _HARD_HAEMATOMA_ML
        if participant_id in _HARD_LESIONS:
            low, high, pattern = _HARD_LESIONS[participant_id]
            core = float(generator(spec.seed, participant_id, "size").uniform(low, high))
            growth = 0.2 * core
    lesion = LesionPlan(
        side=side,
        core_ml=round(core, 2),
        infarct_ml=round(core + growth, 2),
        shapes=spec.shapes,
        hypoperfused_ml=round(core + growth + rng.uniform(25, 65), 2),
        oligaemia_ml=round(rng.uniform(25, 45), 2),
        haematoma_ml=haematoma_ml.get(participant_id, 0.0),
        pattern=pattern,
    )
    return Participant(
        participant_id=participant_id,
        arm=spec.arms[arm],
        dose_mg_kg=dose,
        site=spec.sites[(number - 1) // 2 % len(spec.sites)],
        age_years=int(np.clip(rng.normal(70, 10), 40, 92)),
        sex="F" if rng.random() < 0.48 else "M",
        onset_to_ct_min=int(rng.uniform(95, 400)),
        withdrawn=participant_id == WITHDRAWN,
        day5_missed=participant_id == DAY5_MISSED,
        lesion=lesion,
        adc_core_mm2_s=float(rng.uniform(0.42e-3, 0.52e-3)),
        residue=_RESIDUES.get(participant_id, "exponential"),
        bolus=Bolus(
            start_s=float(rng.uniform(8.0, 10.0)),
            alpha=float(rng.uniform(3.0, 4.2)),
            beta_s=float(rng.uniform(1.5, 1.9)),
            peak=float(rng.uniform(300, 380)),
        ),
        auc_ng_h_ml=round(
            float(dose * spec.auc_ng_h_ml_per_mg_kg * np.exp(rng.normal(0, spec.auc_log_sd))), 1
        ),
    )


#: SD of a standard normal cut at 1.9 (so that growth has the SD that the spec states).
_CUT_SD = 0.8576


def find(spec: TrialSpec, participant_id: str) -> Participant:
    """One participant; KeyError if there is none with that id.

    Examples
    --------
    >>> find(TrialSpec(), "004").participant_id
    '004'
    """
    for participant in enrol(spec):
        if participant.participant_id == participant_id:
            return participant
    raise KeyError(
        f"participant {participant_id!r} is not in the simulated trial, whose ids run from 001 to "
        f"{spec.participants:03d}"
    )


def seen_at(participant: Participant, visit: str) -> bool:
    """Whether anything is known of a participant at a visit.

    Examples
    --------
    >>> [seen_at(find(TrialSpec(), "006"), v) for v in ("baseline", "day5", "day90")]
    [True, False, True]
    """
    if visit == "baseline":
        return True
    return not participant.withdrawn and not (visit == "day5" and participant.day5_missed)


def repeats(participant: Participant) -> int:
    """Number of reads by each reader: every second participant twice."""
    return 2 if int(participant.participant_id) % 2 else 1


def infarct_volume_ml(participant: Participant, visit: str) -> float:
    """True infarct volume at a visit."""
    lesion = participant.lesion
    return lesion.core_ml if visit == "baseline" else lesion.infarct_ml


@lru_cache(maxsize=8)
def volume_readings(spec: TrialSpec) -> Mapping[tuple[str, str, str, int], float]:
    """Infarct volumes (mL) by (participant, visit, reader, repeat): truth + bias + noise.

    Examples
    --------
    >>> readings = volume_readings(TrialSpec())
    >>> ("001", "day5", "reader-2", 2) in readings, ("006", "day5", "reader-1", 1) in readings
    (True, False)
    """
    found = {}
    for participant in enrol(spec):
        for visit in ("baseline", "day5"):
            if not seen_at(participant, visit):
                continue
            truth = infarct_volume_ml(participant, visit)
            for reader in spec.readers:
                for repeat in range(1, repeats(participant) + 1):
                    key = (participant.participant_id, visit, reader.name, repeat)
                    rng = generator(spec.seed, *key[:3], str(repeat), "reading")
                    value = truth + reader.bias_ml + reader.sd_ml * rng.standard_normal()
                    found[key] = round(max(value, 0.0), 1)
    return found
