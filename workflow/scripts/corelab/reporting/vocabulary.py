"""Words for people: what endpoints and statistics are called, and what limits a biomarker has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corelab.reporting.numbers import is_number
from corelab.terms import statistics as registry
from corelab.terms.endpoints import ENDPOINT_UNITS, unit_of
from corelab.terms.labels import label as mask_label

VERDICT_WORDS = {
    "pass": "within limits",
    "fail": "outside limits",
    "not_assessable": "not assessable",
}

#: Words that are not written in small letters.
ACRONYMS = {
    word.lower(): word
    for word in (
        "ASPECTS", "CBV", "CBF", "MTT", "Tmax", "NIHSS", "mRS", "AUC", "ADC", "DWI", "FLAIR", "CT",
        "MRI", "MNI", "RANO", "mRANO", "ICH", "HIR", "RCBF", "SD", "HU", "SNR", "ROC", "BMI", "AIF",
        "VOF", "CNR",
    )
}  # fmt: skip


def label_words(name: object) -> str:
    """A name of a column, endpoint or outcome for people, with its acronyms.

    Examples
    --------
    >>> label_words("cbv_index"), label_words("nihss"), label_words("auc"), label_words("age")
    ('CBV index', 'NIHSS', 'AUC', 'Age')
    """
    words = [ACRONYMS.get(word.lower(), word) for word in str(name).replace("_", " ").split()]
    text = " ".join(words)
    first = words[0] if words else ""
    return text if first.lower() in ACRONYMS else text[:1].upper() + text[1:]


def in_sentence(words: str) -> str:
    """A label within a sentence: small first letter, unless it is an acronym.

    Examples
    --------
    >>> in_sentence("Infarct volume"), in_sentence("CBV index"), in_sentence("ASPECTS")
    ('infarct volume', 'CBV index', 'ASPECTS')
    """
    first = words.partition(" ")[0]
    return words if first.lower() in ACRONYMS else words[:1].lower() + words[1:]


#: Stages and reasons of endpoints/flow.tsv in the words of the page.
FLOW_WORDS = {
    "scans listed: file there": "scans listed and found",
    "scans there: usable": "scans readable",
    "scans usable: behind a value": "scans used for a value",
    "participants enrolled: any measurement listed": "participants with a measurement planned",
    "participants measured: at least one value": "participants with a value",
    "serves alignment or preparation only, or gave no value": (
        "not used for a measurement (for alignment only, or no result)"
    ),
    "file not there": "file missing",
}


def flow_words(text: str) -> str:
    """A stage or reason of the flow of scans, for people.

    Examples
    --------
    >>> flow_words("scans there: usable"), flow_words("other")
    ('scans readable', 'other')
    """
    return FLOW_WORDS.get(text, text)


def endpoint_words(name: object) -> str:
    """How an endpoint is written for people.

    Examples
    --------
    >>> endpoint_words("infarct_volume"), endpoint_words("lesion_volume:cavity")
    ('Infarct volume', 'Lesion volume (cavity)')
    >>> endpoint_words("aspects"), endpoint_words("cbv_index,core_volume")
    ('ASPECTS', 'CBV index, core volume')
    >>> endpoint_words("lesion_volume:tumourcore")
    'Lesion volume (tumour core)'
    >>> endpoint_words("infarct_volume,core_volume")
    'Infarct volume, core volume'
    """
    if not name or name == "n/a":
        return ""
    words: list[str] = []
    for part in str(name).split(","):
        stem, _, detail = part.strip().partition(":")
        detail = mask_label(detail).words
        label = label_words(stem) + (f" ({detail})" if detail else "")
        words.append(in_sentence(label) if words else label)
    return ", ".join(words)


_CRITERION_UNITS = {"mm": "mm", "s": "s", "ml": "mL", "deg": "degrees", "hu": "HU", "ms": "ms"}


def statistic_unit(statistic: str, endpoint: object) -> str:
    """Unit of a statistic of an endpoint; empty where it has none.

    Examples
    --------
    >>> statistic_unit("bias", "core_volume"), statistic_unit("icc_a_1", "core_volume")
    ('mL', '')
    """
    return unit_of(endpoint) if registry.statistic(statistic).scale == "endpoint" else ""


#: Decimals of a value in a unit, and of what has none: what TLG tables print.
_SCALE_DECIMALS = {
    "percent": 1,
    "reliability": 3,
    "coefficient": 3,
    "ratio": 2,
    "mm": 1,
    "mL": 1,
}
_UNIT_DECIMALS = {"mL": 1, "%": 1, "mm": 1, "s": 1, "days": 0, "": 2}


def statistic_decimals(statistic: str, endpoint: object, estimate: object = None) -> int | None:
    """Decimals of a statistic wherever it is printed; None where its interval decides.

    A value that would be printed as 0 keeps the digits of its interval.

    Examples
    --------
    >>> statistic_decimals("icc_a_1", "core_volume"), statistic_decimals("bias", "core_volume")
    (3, 1)
    >>> statistic_decimals("odds_ratio", "x"), statistic_decimals("slope", "x")
    (2, None)
    >>> statistic_decimals("bias", "core_volume", 0.012) is None
    True
    """
    scale = registry.statistic(statistic).scale
    found = _SCALE_DECIMALS.get(scale)
    if scale == "endpoint" and unit_of(endpoint):
        found = _UNIT_DECIMALS.get(unit_of(endpoint))
    if found is not None and is_number(estimate):
        value = abs(float(str(estimate)))
        if 0 < value < 0.5 * 10.0**-found:
            return None
    return found


def value_decimals(unit: str, values: Iterable[object]) -> int:
    """Decimals of the values of an endpoint in a column; none where all of them are whole.

    Examples
    --------
    >>> value_decimals("mL", [42.0, 38.25]), value_decimals("", [7.0]), value_decimals("", [0.5])
    (1, 0, 2)
    """
    numbers = [float(str(value)) for value in values if is_number(value)]
    if unit != "mL" and all(number.is_integer() for number in numbers):
        return 0
    least = min((abs(number) for number in numbers if number), default=1.0)
    floor = 3 if not unit and least < 0.01 else 0
    return max(_UNIT_DECIMALS.get(unit, 2), floor)


def group_words(group: object) -> str:
    """A pair, contrast or level for people.

    Examples
    --------
    >>> group_words("arm=high|arm=placebo"), group_words("reader-1|reader-2"), group_words("all")
    ('high vs placebo', 'reader-1 vs reader-2', '')
    >>> group_words("q=0.50|arm=high"), group_words("arm=high"), group_words("core_volume|nihss")
    ('quantile 0.50, high', 'high', 'core volume vs NIHSS')
    """
    text = "" if group is None or group == "all" else str(group)
    parts = text.split("|")
    if parts[0].startswith("q="):
        rest = [part.rpartition("=")[2] for part in parts[1:]]
        return ", ".join([f"quantile {parts[0][2:]}", *rest])
    stems = {part.partition("=")[0] for part in parts if "=" in part}
    if len(stems) == 1 and all("=" in part for part in parts):
        parts = [part.partition("=")[2] for part in parts]
    parts = [
        in_sentence(endpoint_words(part))
        if part.partition(":")[0] in ENDPOINT_UNITS or part.lower() in ACRONYMS
        else part
        for part in parts
    ]
    return " vs ".join(parts)


def criterion_words(criterion: str) -> tuple[str, str, str]:
    """Name, unit and direction of a criterion like ``slice_thickness_mm_max``.

    Examples
    --------
    >>> criterion_words("slice_thickness_mm_max"), criterion_words("coverage")
    (('slice thickness', 'mm', 'at most'), ('coverage', '', ''))
    """
    parts = str(criterion).split("_")
    direction = {"max": "at most", "min": "at least"}.get(parts[-1], "")
    if direction:
        parts = parts[:-1]
    unit = _CRITERION_UNITS.get(parts[-1].lower(), "") if len(parts) > 1 else ""
    if unit:
        parts = parts[:-1]
    return " ".join(parts), unit, direction


@dataclass(frozen=True)
class Limit:
    """A known limit of a biomarker.

    Attributes
    ----------
    endpoints
        Stems of the endpoints that it bears on.
    title, text
        What a reader of the report must know.
    source
        Publication that it rests on.
    """

    endpoints: tuple[str, ...]
    title: str
    text: str
    source: str


LIMITS = (
    Limit(
        ("core_volume", "penumbra_volume", "mismatch_ratio", "ghost_core_volume"),
        "Ghost core",
        "A CT-perfusion core can be larger than the infarct that follows when the brain is imaged "
        "early and reperfused fast: low flow is not yet dead tissue. A core larger than the later "
        "infarct is reported as ghost_core_volume and is not a negative growth of the infarct.",
        "Boned et al. 2017, J NeuroIntervent Surg 9:66-69",
    ),
    Limit(
        ("core_volume", "hypoperfused_volume", "penumbra_volume", "mismatch_ratio"),
        "Cut-offs belong to an engine",
        "The cut-off that separates core from penumbra depends on the deconvolution it was derived "
        "with; published relative-CBF cut-offs run from 20 % to 48 %. Volumes of two programs are "
        "not interchangeable, even with the same cut-off. The engine of each map is stated in the "
        "methods; other published cut-offs stand beside the primary one as their own sources.",
        "Demeestere et al. 2020, Stroke 51:1017-1024",
    ),
    Limit(
        ("core_volume", "hypoperfused_volume", "penumbra_volume", "mismatch_ratio"),
        "Short or moving perfusion series",
        "A series that ends before the contrast has passed makes core too large; head motion "
        "makes hypoperfused tissue too large. The gates in the quality section say which series "
        "are concerned; such a series is flagged, not dropped.",
        "Kasasbeh et al. 2016, Stroke 47:2966-2971",
    ),
    Limit(
        ("infarct_volume", "infarct_growth"),
        "Diffusion lesions can reverse",
        "Part of an early diffusion lesion can recover after reperfusion, mostly for a time only. "
        "A smaller infarct at follow-up can be reversal, resolving oedema or atrophy; the day of "
        "the follow-up scan matters more than the difference itself.",
        "Campbell et al. 2012, J Cereb Blood Flow Metab 32:50-56",
    ),
    Limit(
        ("infarct_volume", "infarct_growth"),
        "Infarct swells",
        "Between day 1 and day 7 an infarct on FLAIR or DWI includes oedema. Growth from an acute "
        "diffusion lesion to a subacute lesion is tissue loss and swelling together.",
        "",
    ),
    Limit(
        ("haematoma_volume", "haematoma_growth"),
        "Partial volume in haematoma",
        "Thick CT slices blur the border of a haematoma and of calcification; the volume depends "
        "on the lower HU cut-off. Petechial transformation below the smallest cluster is not "
        "counted.",
        "",
    ),
    Limit(
        ("net_water_uptake",),
        "Net water uptake needs a mirror",
        "The measure compares density with the mirrored side; an old infarct, bleeding or a tilted "
        "head there biases it.",
        "Broocks et al. 2018, Invest Radiol 53:73-78",
    ),
    Limit(
        ("aspects",),
        "ASPECTS is a coarse grade",
        "Ten regions of unequal volume give one point each: equal scores do not mean equal "
        "volumes, and agreement within one point is what readers reach.",
        "Barber et al. 2000, Lancet 355:1670-1674",
    ),
    Limit(
        ("enhancing_volume", "whole_tumour_volume", "oedema_volume"),
        "Pseudoprogression and pseudoresponse",
        "Enhancement shows a leaking vessel, not tumour: it can grow within three months of "
        "chemoradiotherapy without progression, and shrink under anti-angiogenic drugs without "
        "response. Enhancing volume alone does not call either.",
        "Wen et al. 2010, J Clin Oncol 28:1963-1972 (RANO)",
    ),
    Limit(
        ("extent_of_resection",),
        "Extent of resection can be negative",
        "A post-operative mask can be larger than the pre-operative one (blood, ischaemia, growth "
        "in the interval); such values are kept as they are.",
        "",
    ),
    Limit(
        ("territory_fraction",),
        "Location is as good as the registration",
        "Fractions of territories are read in template space; where there are only thick slices, "
        "the fit is affine and borders are several millimetres wide. Atlas borders are averages "
        "of people.",
        "",
    ),
    Limit(
        ("infarct_volume", "haematoma_volume", "core_volume", "hypoperfused_volume"),
        "A segmentation without a network",
        "The pipeline's own masks rest on published thresholds and seeded growth, which overlap "
        "less with an expert's outline than trained networks do (published Dice about 0.4 to 0.6 "
        "for acute diffusion lesions by thresholds). Every mask is shown in this report so that "
        "it can be judged.",
        "Gosch et al., fixed ADC cut-off of 620e-6 mm2/s, n = 108: median Dice 0.43",
    ),
)


def limits_for(endpoints: list[str]) -> list[Limit]:
    """Known limits of the biomarkers that a study used, in a fixed order.

    Examples
    --------
    >>> [limit.title for limit in limits_for(["aspects"])]
    ['ASPECTS is a coarse grade']
    """
    stems = {str(name).partition(":")[0] for name in endpoints}
    return [limit for limit in LIMITS if stems & set(limit.endpoints)]
