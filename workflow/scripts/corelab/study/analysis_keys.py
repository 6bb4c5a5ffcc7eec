"""Which keys an analysis reads, by its type: any other key is an error of the preflight.

A key that is accepted and not read would let a plan say what is not done. :data:`KEYS` is the one
list: type -> key -> when it is read. Values that a key may have there are in :data:`VALUES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from corelab.study.plan_figures import measure_level

#: Methods (or models) that an analysis may name, by type.
METHODS: dict[str, tuple[str, ...]] = {
    "agreement": ("parametric", "regression", "quantile", "tolerance"),
    "correlation": (
        "pearson", "spearman", "kendall", "partial", "partial_spearman", "semi_partial",
        "repeated", "attenuation",
    ),
    "comparison": (
        "ancova", "t", "welch", "mann_whitney", "mmrm", "gamma", "two_part", "rank", "binary",
        "multiple_imputation", "gee", "glmm",
    ),
    "survival": (
        "km", "logrank", "cox", "rmst", "cuminc", "finegray", "interval", "time_varying",
    ),
    "sample_size": (
        "means", "icc", "icc_exceeds", "kappa", "limits", "mmrm", "ordinal", "survival",
    ),
}  # fmt: skip
#: Models of a dose response.
MODELS = ("linear", "mixed", "trend", "emax", "sigmoid_emax", "mcpmod", "williams")
#: Covariance structures of an MMRM.
STRUCTURES = ("us", "toeph", "ar1h", "csh", "adh", "toep", "ar1", "cs")
#: Type -> key -> the values that it may have there.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    **{kind: {"method": names} for kind, names in METHODS.items()},
    "dose_response": {"models": MODELS},
    "diagnostic": {"ci": ("delong", "logit")},
    "radiomics": {"model": ("superpc", "none")},
}
VALUES["agreement"]["derivation"] = ("value", "change", "percent_change", "log_ratio")
VALUES["comparison"]["covariance"] = STRUCTURES
VALUES["correlation"]["ci"] = ("fisher", "bonett_wright", "bootstrap", "bca", "percentile")


def listed(value: Any) -> list[Any]:
    """A value as a list; None is empty.

    Examples
    --------
    >>> listed("a"), listed(["a", "b"]), listed(None)
    (['a'], ['a', 'b'], [])
    """
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


@dataclass(frozen=True)
class Need:
    """What else an analysis must have for a key to be read: a test, and its words."""

    holds: Callable[[Mapping[str, Any], Collection[str]], bool]
    words: str

    def __and__(self, other: Need) -> Need:
        return Need(
            lambda a, g: self.holds(a, g) and other.holds(a, g), f"{self.words} and {other.words}"
        )

    def __or__(self, other: Need) -> Need:
        return Need(
            lambda a, g: self.holds(a, g) or other.holds(a, g), f"{self.words} or {other.words}"
        )


def _texts(analysis: Mapping[str, Any], key: str) -> list[str]:
    return [str(value) for value in listed(analysis.get(key))]


def _given(*keys: str) -> Need:
    return Need(
        lambda a, _: any(a.get(key) not in (None, [], False) for key in keys), " or ".join(keys)
    )


def _without(key: str) -> Need:
    return Need(lambda a, _: a.get(key) in (None, [], False), f"no {key}")


def _is(key: str, *values: str, default: str | None = None) -> Need:
    """One of the values of a key; the key may be left out where one of them is its default."""
    return Need(
        lambda a, _: bool(set(values) & set(_texts(a, key) or [str(default)])),
        f"{key} {' or '.join(values)}",
    )


def _levels(analysis: Mapping[str, Any], grades: Collection[str]) -> set[str]:
    return {measure_level(analysis, one, grades) for one in _texts(analysis, "endpoint")}


def _several(key: str, least: int, words: str) -> Need:
    return Need(lambda a, _: len(_texts(a, key)) >= least or _texts(a, key) == ["all"], words)


def _size(*methods: str) -> Need:
    """Methods of a sample size, whose default follows from the other keys."""

    def chosen(analysis: Mapping[str, Any], _: Collection[str]) -> bool:
        precise = analysis.get("width") is not None and analysis.get("difference") is None
        default = ["icc" if precise else "means"]
        return bool(set(methods) & set(_texts(analysis, "method") or default))

    return Need(chosen, "method " + " or ".join(methods))


ALWAYS = Need(lambda a, g: True, "")
_DERIVED = Need(lambda a, _: a.get("derivation", "value") != "value", "a derivation")
_RATIO = _is("derivation", "percent_change", "log_ratio") | _is("scale", "log")
_RESPONDER = _is("derivation", "responder")
_IMPUTED = _is("method", "multiple_imputation")
_MMRM = _is("method", "mmrm")
_ANCOVA = _is("method", "ancova", default="ancova")
_MCPMOD = _is("models", "mcpmod")
_TARGET = _MCPMOD & _given("target_effect")
_PARTIAL = _is("method", "partial", "partial_spearman", "semi_partial")
_ATTENUATION = _is("method", "attenuation")
_RESAMPLED = _is("ci", "bootstrap", "bca", "percentile")
_BETWEEN = Need(lambda a, _: a.get("repeats", "between") != "within", "repeats between")
_GRADED = Need(lambda a, g: bool(_levels(a, g) & {"ordinal", "nominal"}), "measure_level ordinal")
_NUMERIC = Need(lambda a, g: _levels(a, g) != {"nominal"}, "a measure_level other than nominal")
_MEASURED = _size("means") & _without("reliability")
_SUPERPC = _is("model", "superpc")
_PAIRED_ARMS = _given("by") | _without("endpoint")

#: Keys of every type.
COMMON = (
    "id", "type", "title", "label", "note", "objective", "population", "alpha", "family",
    "estimand", "missing_data", "sensitivity",
)  # fmt: skip
#: Keys of the multiplicity family that an analysis belongs to.
FAMILY: dict[str, Need] = {
    **dict.fromkeys(
        ("adjustment", "primary_visit", "primary_contrast", "primary_statistic"), _given("family")
    ),
    **dict.fromkeys(("weight", "passes_to"), _is("adjustment", "graphical")),
}


def _all(*keys: str, need: Need = ALWAYS) -> dict[str, Need]:
    return dict.fromkeys(keys, need)


_PLACE = _all("endpoint", "visit", "region", "derivation")
_ONE_VALUE = {
    "source": ALWAYS,
    "responder": _RESPONDER,
    "nonresponder_imputation": _RESPONDER,
    "zeros": _RATIO,
}
_VALUE = {**_PLACE, **_ONE_VALUE, "baseline": _DERIVED | _is("covariates", "baseline")}
#: Of an endpoint that the analysis may do without.
_OF_ENDPOINT = {"endpoint": ALWAYS} | {
    key: _given("endpoint") & need for key, need in _VALUE.items() if key != "endpoint"
}
_TEST = _all("alternative")
_MODEL = _all("covariates", "categorical", "by", "reference") | _TEST
_LEVELS = {"reference_levels": _given("covariates")}
_OUTCOME = _all("outcome", "outcome_visit")
_SEEDED = _all("resamples", "seed")

#: Type -> key -> when it is read.
KEYS: dict[str, dict[str, Need]] = {
    "agreement": {
        **_PLACE,
        **_all("sources", "by_visit", "repeats", "scale", "measure_level", "cluster", "clustering"),
        **_all("delta", "exceeds"),
        **_all("by", "strata", "no_worse_ratio", "unit_check", "linked", need=_BETWEEN),
        **_all("weights", "categories", need=_GRADED),
        **_all("icc_form", "limits_ci", "limits_coverage", "method", need=_NUMERIC),
        **_all("resamples", "seed", need=_BETWEEN | _GRADED),
        "baseline": _DERIVED,
        "reference": _given("by"),
        "compare_pairs": _BETWEEN & _several("sources", 3, "three sources or more"),
    },
    "overlap": _all("visit", "sources", "by_visit", "cluster"),
    "phantom": _all("truth", "endpoint", "sources", "visit", "region"),
    "correlation": {
        **_VALUE,
        **_all("endpoint_y", "outcome", "exposure", "scale", "method", "by", "ci", "summaries"),
        **_TEST,
        **_all("source_y", "visit_y", need=_given("endpoint_y")),
        "baseline": _DERIVED,
        "zeros": _is("derivation", "percent_change", "log_ratio"),
        "outcome_visit": _given("outcome"),
        "exposure_visit": _given("exposure"),
        "covariates": _PARTIAL,
        "categorical": _PARTIAL & _given("covariates"),
        "reference": _given("by"),
        "compare_pairs": _several("endpoint", 2, "two endpoints or more"),
        **_all("resamples", "seed", need=_RESAMPLED),
        **_all("reliability", "reliability_y", need=_ATTENUATION),
        "reliability_sources": _ATTENUATION & _without("reliability"),
    },
    "diagnostic": {
        **_VALUE,
        **_OUTCOME,
        **_TEST,
        **_all("sources", "positive_above", "positive_from", "ci"),
        "baseline": _DERIVED,
        "zeros": _is("derivation", "percent_change", "log_ratio"),
        "source": _without("sources"),
        "compare_pairs": _several("endpoint", 2, "two endpoints or more"),
    },
    "sample_size": {
        "endpoint": ALWAYS,
        "method": ALWAYS,
        **_all("visit", "region", "sources", "resamples", "seed", need=_MEASURED),
        "difference": _size("means", "mmrm"),
        "sd": _size("means", "mmrm", "limits"),
        **_all("per_arm", "icc_targets", "reads", need=_size("means")),
        "reliability": _size("means", "icc", "icc_exceeds", "kappa"),
        "power": _size("means", "icc_exceeds", "mmrm", "ordinal", "survival"),
        "width": _size("icc", "kappa", "limits"),
        "raters": _size("icc", "icc_exceeds"),
        "exceeds": _size("icc_exceeds"),
        "shares": _size("kappa", "ordinal"),
        "odds_ratio": _size("ordinal"),
        **_all("correlation", "retention", need=_size("mmrm")),
        **_all("hazard_ratio", "event_share", need=_size("survival")),
        "limits_coverage": _size("limits"),
    },
    "comparison": {
        **_VALUE,
        **_MODEL,
        **_all("method", "scale"),
        "baseline": _VALUE["baseline"] | _IMPUTED,
        **_all("covariance", "covariance_by_arm", "df", need=_MMRM),
        **_all("interactions", "overall", "contrasts", need=_is("method", "mmrm", "gee", "glmm")),
        "strata": _is("method", "binary", "mann_whitney"),
        **_all("subgroups", "robust", need=_ANCOVA),
        **_all("imputations", "imputation", "imputation_model", "auxiliary", need=_IMPUTED),
        **_all("deltas", "deltas_reference", "tipping_point", need=_IMPUTED),
        "resamples": _is("method", "two_part"),
        "seed": _is("method", "two_part", "multiple_imputation"),
    },
    "dose_response": {
        **_VALUE,
        **_TEST,
        **_all("covariates", "categorical", "dose", "exposure", "models"),
        "reference_levels": _is("models", "linear", "mixed", default="linear")
        & _given("covariates"),
        "exposure_visit": _given("exposure"),
        "candidates": _MCPMOD,
        "direction": _is("models", "mcpmod", "williams"),
        "target_effect": _MCPMOD,
        **_all("resamples", "seed", need=_TARGET),
    },
    "ordinal": {
        **_OF_ENDPOINT,
        **_MODEL,
        **_OUTCOME,
        **_all("better", "cut"),
        **_all("utilities", "hierarchy", "odds_by_cut", need=_PAIRED_ARMS),
        "nonresponder_imputation": _PAIRED_ARMS | _RESPONDER,
    },
    "quantile": {
        **_VALUE,
        **_MODEL,
        **_LEVELS,
        **_all("quantiles", "dose", "exposure", "outcome", "cluster", "resamples"),
        "exposure_visit": _given("exposure"),
        "outcome_visit": _given("outcome"),
        "seed": _given("resamples", "cluster"),
    },
    "survival": {
        **_OF_ENDPOINT,
        **_MODEL,
        **_LEVELS,
        **_all("event_endpoint", "criterion", "assessor", "method"),
        "strata": _is("method", "logrank", "cox", "cuminc", "interval", default="cox"),
        "landmark_days": _is("method", "km", "logrank", "cox", "rmst", default="cox"),
        "tau_days": _is("method", "rmst", "cuminc", "cox", default="cox"),
        "visit_days": _is("method", "time_varying"),
        "competing_endpoint": _is("method", "cuminc", "finegray"),
    },
    "mediation": {**_VALUE, **_MODEL, **_OUTCOME, "scale": ALWAYS, **_SEEDED},
    "surrogacy": {**_VALUE, **_MODEL, **_OUTCOME, **_all("scale", "cluster"), **_SEEDED},
    "progression": {
        **_all("criteria", "event_endpoint", "survival_endpoint", "assessor"),
        **_all("window_days", "early_days", "confirm_within_days"),
    },
    "radiomics": {
        **_all("series", "labels", "visit", "sources", "model"),
        **_all("source", "min_icc", "event_endpoint", "criterion", "assessor", need=_SUPERPC),
        **_all("folds", "seed", "threshold", "permutations", "covariates", need=_SUPERPC),
        **_all("categorical", "reference_levels", need=_SUPERPC & _given("covariates")),
    },
}


def unread(
    analysis: Mapping[str, Any], grades: Collection[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that have no effect, and values that a key does not know.

    Parameters
    ----------
    analysis
        One entry of ``analyses``.
    grades
        Endpoints that are graded in words.

    Yields
    ------
    tuple of str
        Key, what is wrong, and how to fix it.

    Examples
    --------
    >>> [key for key, *_ in unread({"type": "quantile", "endpoint": "v", "strata": ["sex"]})]
    ['strata']
    >>> list(unread({"type": "comparison", "method": "ancova", "imputations": 5}))[0][1]
    'it is read with method multiple_imputation only'
    >>> list(unread({"type": "survival", "method": "finegry"}))[0][1]
    "an analysis of type survival does not know 'finegry'"
    """
    kind = str(analysis.get("type"))
    if kind in KEYS:
        known = {**_all(*COMMON), **FAMILY, **KEYS[kind]}
        for key in analysis:
            need = known.get(key)
            if need is None:
                yield (
                    key,
                    f"an analysis of type {kind} does not read this key",
                    f"remove it; read are {', '.join(sorted(KEYS[kind]))}",
                )
            elif not need.holds(analysis, grades):
                yield (
                    key,
                    f"it is read with {need.words} only",
                    f"remove it, or give {need.words}",
                )
    for key, values in VALUES.get(kind, {}).items():
        for one in _texts(analysis, key):
            if one not in values:
                yield (
                    key,
                    f"an analysis of type {kind} does not know '{one}'",
                    f"write one of {', '.join(values)}",
                )
