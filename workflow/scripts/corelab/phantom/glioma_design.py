"""Design of the simulated glioblastoma trial: who takes part, and what is true of each.

Modelled on the re-analysis of JCOG0911 (two arms after surgery, MGMT and IDH, volumes before and
after surgery, radiomics, progression by two criteria), with numbers of our own. Risk is a latent
group: high risk has ``risk_hazard_ratio`` times the hazard of death and shifts the planted
features, so the truth of a multivariable Cox model is known exactly. Nothing here opens an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corelab.phantom.seeds import generator
from corelab.settings.study import PhantomSettings

if TYPE_CHECKING:
    import pandas as pd

FLAVOURS = ("full", "testing", "hard")
VISITS = ("preop", "postop")
KINDS = ("T1w", "T1c", "T2w", "FLAIR")
SERIES = ("T1w", "T1c", "T2w", "T2edge", "Gdzscore")
LABELS = ("enhancing", "whole-tumour")
#: Features that the in-house program of the trial gave, by IBSI tag, per series and volume.
INTENSITY_FEATURES = (
    "stat_mean",
    "stat_var",
    "stat_skew",
    "stat_kurt",
    "stat_p90",
    "ih_entropy",
    "ih_uniformity",
    "cm_contrast_3D_comb",
    "cm_joint_entr_3D_comb",
    "rlm_sre_3D_comb",
    "szm_zs_entr_3D",
    "ngt_coarseness_3D",
    "ngl_dc_entr_3D",
)
SHAPE_FEATURES = ("morph_volume", "morph_area_mesh", "morph_sphericity", "morph_diam")
#: (series, label, feature) whose value is higher in high risk.
PLANTED = (
    ("T1c", "enhancing", "cm_contrast_3D_comb"),
    ("T1c", "enhancing", "ih_entropy"),
    ("T1c", "whole-tumour", "stat_skew"),
    ("T1w", "whole-tumour", "rlm_sre_3D_comb"),
    ("T2w", "whole-tumour", "cm_joint_entr_3D_comb"),
    ("T2edge", "enhancing", "stat_p90"),
    ("T2edge", "whole-tumour", "szm_zs_entr_3D"),
    ("Gdzscore", "enhancing", "stat_var"),
)
#: (series, label, feature) that two readers' masks do not reproduce.
UNRELIABLE = tuple(
    (series, label, feature)
    for series in ("T2w", "T2edge")
    for label in LABELS
    for feature in ("ngt_coarseness_3D", "stat_kurt", "ngl_dc_entr_3D")
)
FEATURE_SOURCES = ("inhouse-1", "inhouse-2")
READERS = ("reader-1", "reader-2")
ASSESSORS = ("central-1", "central-2", "central-3")
#: Days after the start within which contrast enhancement may come from irradiation.
EARLY_DAYS = 84.0


@dataclass(frozen=True)
class GliomaSpec:
    """The simulated glioblastoma trial. The same spec gives the same sheets and the same images.

    Attributes
    ----------
    flavour
        ``full`` (8 imaged participants), ``testing`` (2), or ``hard`` (8, with what real scans have
        and simulated tumours lack).
    participants, arms
        Number enrolled, half of them at high risk, and arms, whose treatment has no effect.
    risk_hazard_ratio
        Hazard of death, high against low risk, given MGMT and IDH.
    mgmt_hazard_ratio, idh_hazard_ratio
        Hazard of death with a methylated MGMT promoter, and with IDH1 mutated.
    planted_shift_sd
        Difference of a planted feature between risk groups, SD within a group.
    reliable_icc, unreliable_icc, reread
        ICC of features over the two readers' masks, and participants with features of both.
    pseudoprogression_share
        Share of participants whom the local reading called progressive too early.
    panel_discord_share
        Share of participants in whom one of the three central assessors differed.

    Examples
    --------
    >>> GliomaSpec.from_settings(PhantomSettings(trial="glioblastoma", flavour="testing")).imaged
    ('001', '002')
    """

    seed: int = 20260911
    flavour: str = "full"
    participants: int = 88
    arms: tuple[str, str] = ("tmz", "tmz-ifn")
    risk_hazard_ratio: float = 3.5
    mgmt_hazard_ratio: float = 0.55
    idh_hazard_ratio: float = 0.5
    planted_shift_sd: float = 2.4
    reliable_icc: float = 0.92
    unreliable_icc: float = 0.30
    reread: int = 30
    pseudoprogression_share: float = 0.14
    panel_discord_share: float = 0.20

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise ValueError(
                f"phantom.flavour is {self.flavour!r}; it is one of {', '.join(FLAVOURS)}"
            )

    @classmethod
    def from_settings(cls, settings: PhantomSettings) -> GliomaSpec:
        """Spec of the config's ``phantom`` block: ``trial``, ``seed``, ``flavour``."""
        return cls(seed=settings.seed, flavour=settings.flavour)

    @property
    def imaged(self) -> tuple[str, ...]:
        """Participants who have images."""
        return tuple(f"{n:03d}" for n in range(1, 3 if self.flavour == "testing" else 9))

    @property
    def rescanned(self) -> tuple[str, ...]:
        """Participants who were scanned twice before surgery."""
        return self.imaged[:3]


@dataclass(frozen=True)
class Person:
    """What is true of a participant.

    Attributes
    ----------
    high
        Latent risk group.
    mgmt, idh
        0 or 1.
    os_days, rano_days, recist_days, later_days
        Whole days to death, true progression, progression of the local reading, and a later one;
        ``*_event`` is 1 where it was seen.
    early
        Whether the local progression was an early one that was not confirmed.
    enhancing_ml, whole_ml, eor, eor_whole
        Volumes before surgery, and extents of resection in percent (below 0: the tumour grew).
    age, female, left, contrast, texture
        Of the participant, and of the tumour's side and looks.
    """

    high: bool
    mgmt: int
    idh: int
    os_days: float
    os_event: int
    rano_days: float
    rano_event: int
    recist_days: float
    recist_event: int
    later_days: float
    later_event: int
    early: bool
    enhancing_ml: float
    whole_ml: float
    eor: float
    eor_whole: float
    age: int
    female: bool
    left: bool
    contrast: float
    texture: float
    arm: str


def draw(spec: GliomaSpec, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw ``n`` participants: a row each, its columns the attributes of :class:`Person` but the
    arm.

    Survival is Weibull with proportional hazards in risk, MGMT and IDH (median about 600 days);
    true progression comes after a Beta(2.2, 1.8) share of it; follow-up ends after 700 to 2000
    days. Times are whole days.

    Examples
    --------
    >>> people = draw(GliomaSpec(), 1000, np.random.default_rng(1))
    >>> int(people["high"].sum()), bool((people["rano_days"] <= people["os_days"]).all())
    (500, True)
    """
    import pandas as pd

    high = rng.permutation(np.arange(n) % 2 == 0)
    mgmt = (rng.random(n) < 0.45).astype(int)
    idh = (rng.random(n) < 0.10).astype(int)
    log_hazard = (
        np.log(spec.risk_hazard_ratio) * (high - 0.5)
        + np.log(spec.mgmt_hazard_ratio) * mgmt
        + np.log(spec.idh_hazard_ratio) * idh
    )
    death = 610.0 * (-np.log(rng.random(n)) / np.log(2) / np.exp(log_hazard + 0.25)) ** (1 / 1.35)
    death = np.maximum(death, 40.0)
    end = rng.uniform(700, 2000, n)
    progression = death * rng.beta(2.2, 1.8, n)
    # The local reading calls irradiated tissue progressive in some, sees others late.
    kind = rng.random(n)
    pseudo = (kind < spec.pseudoprogression_share) & (progression > EARLY_DAYS + 30)
    late = (kind > 0.85) & ~pseudo
    local = progression * np.exp(0.08 * rng.standard_normal(n))
    local = np.where(late, progression + rng.uniform(40, 150, n), local)
    early_at = rng.uniform(35, EARLY_DAYS, n)
    local = np.minimum(np.where(pseudo, early_at, local), death)

    def seen(days: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.ceil(np.minimum(days, end)), (days <= end).astype(int)

    os_days, os_event = seen(death)
    rano_days, rano_event = seen(progression)
    recist_days, recist_event = seen(local)
    later_days, later_event = seen(np.minimum(progression * 1.02, death))
    enhancing = np.clip(np.exp(rng.normal(np.log(22.0), 0.5, n)), 7.0, 55.0)
    whole = 1.45 * enhancing + np.clip(np.exp(rng.normal(np.log(38.0), 0.45, n)), 14.0, 90.0)
    group = rng.random(n)
    eor = np.where(
        group < 0.5,
        100.0,
        np.where(group < 0.88, rng.uniform(55, 99, n), rng.uniform(-30, -4, n)),
    )
    # What is left of the enhancing part stays part of the whole.
    left = enhancing * (1 - eor / 100)
    eor_whole = np.where(eor < 0, rng.uniform(-25, -3, n), rng.uniform(14, 58, n))
    eor_whole = np.minimum(eor_whole, 100 * (1 - 1.3 * left / whole))
    drawn = {
        "high": high,
        "mgmt": mgmt,
        "idh": idh,
        "os_days": os_days,
        "os_event": os_event,
        "rano_days": rano_days,
        "rano_event": rano_event,
        "recist_days": recist_days,
        "recist_event": recist_event,
        "later_days": later_days,
        "later_event": later_event,
        "early": pseudo & (recist_event == 1) & (early_at <= EARLY_DAYS),
        "enhancing_ml": np.round(enhancing, 1),
        "whole_ml": np.round(whole, 1),
        "eor": np.round(eor, 1),
        "eor_whole": np.round(eor_whole, 1),
        "age": np.clip(np.rint(rng.normal(60, 10, n)), 22, 75).astype(int),
        "female": rng.random(n) < 0.4,
        "left": rng.random(n) < 0.6,
        "contrast": rng.uniform(0.8, 1.25, n),
        "texture": rng.uniform(0.04, 0.22, n),
    }
    return pd.DataFrame(drawn)


@lru_cache(maxsize=4)
def cohort(spec: GliomaSpec) -> Mapping[str, Person]:
    """Participants of the trial by id.

    The first three participants have a complete, a partial and no resection (the tumour grew after
    a biopsy), and half of those with images are at high risk, so that images show every kind.

    Examples
    --------
    >>> people = cohort(GliomaSpec())
    >>> len(people), [people[p].eor for p in ("001", "002", "003")]
    (88, [100.0, 82.0, -12.0])
    """
    people = draw(spec, spec.participants, generator(spec.seed, "cohort"))
    # Who has images is no matter of chance: as many at high as at low risk, in order of the draw.
    order = np.arange(spec.participants)
    half = len(spec.imaged) // 2
    shown = np.sort(np.concatenate([order[people["high"] == risk][:half] for risk in (0, 1)]))
    people = people.iloc[np.concatenate([shown, np.setdiff1d(order, shown)])]
    rng = generator(spec.seed, "arms")
    arm = rng.permutation(np.arange(spec.participants) % 2)
    found = {
        f"{n + 1:03d}": Person(**row, arm=spec.arms[int(arm[n])])
        for n, row in enumerate(people.to_dict("records"))
    }
    for name, eor, whole in (("001", 100.0, 40.0), ("002", 82.0, 35.0), ("003", -12.0, -10.0)):
        found[name] = replace(found[name], eor=eor, eor_whole=whole)
    return found


def volume_ml(person: Person, visit: str, label: str) -> float:
    """True volume of ``enhancing``, ``whole-tumour`` or ``oedema`` at a visit, mL.

    Examples
    --------
    >>> person = cohort(GliomaSpec())["003"]
    >>> volume_ml(person, "postop", "enhancing") > volume_ml(person, "preop", "enhancing")
    True
    """
    if label == "oedema":
        return volume_ml(person, visit, "whole-tumour") - volume_ml(person, visit, "enhancing")
    before, resected = (
        (person.enhancing_ml, person.eor)
        if label == "enhancing"
        else (person.whole_ml, person.eor_whole)
    )
    return float(before * (1 - resected / 100) if visit == "postop" else before)


def features() -> tuple[tuple[str, str, str], ...]:
    """(series, label, feature) of the in-house program; shape belongs to the series ``mask``.

    Examples
    --------
    >>> len(features())
    138
    """
    return tuple(
        (series, label, feature)
        for label in LABELS
        for series, names in (
            *((series, INTENSITY_FEATURES) for series in SERIES),
            ("mask", SHAPE_FEATURES),
        )
        for feature in names
    )


@lru_cache(maxsize=4)
def feature_values(spec: GliomaSpec) -> Mapping[str, NDArray[np.float64]]:
    """Values of the features, source -> (features, participants); nan where not taken.

    A feature is shift x risk + (0.25 x a factor of its volume) + its own noise, in SD of the true
    value; masks of a reader add an error that gives the ICC of the spec.

    Examples
    --------
    >>> values = feature_values(GliomaSpec())
    >>> values["inhouse-1"].shape, int(np.isfinite(values["inhouse-2"][0]).sum())
    ((138, 88), 30)
    """
    rng = generator(spec.seed, "features")
    people = cohort(spec)
    high = np.array([person.high for person in people.values()], float) - 0.5
    names = features()
    factor = {label: rng.standard_normal(len(people)) for label in LABELS}
    truth = np.empty((len(names), len(people)))
    error_sd = np.empty(len(names))
    for row, key in enumerate(names):
        own = rng.standard_normal(len(people))
        truth[row] = np.sqrt(1 - 0.25**2) * own + 0.25 * factor[key[1]]
        if key in PLANTED:
            truth[row] += spec.planted_shift_sd * high
        icc = spec.unreliable_icc if key in UNRELIABLE else spec.reliable_icc
        error_sd[row] = np.sqrt(truth[row].var() * (1 - icc) / icc)
    found = {}
    for number, source in enumerate(FEATURE_SOURCES):
        values = truth + error_sd[:, None] * rng.standard_normal(truth.shape)
        if number:
            values[:, spec.reread :] = np.nan
        found[source] = values
    return found
