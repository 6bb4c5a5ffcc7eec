"""Which keys of the plan an analysis type reads: any other is an error, not silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from corelab.study.plan_figures import measure_level

#: Keys of every analysis: what it is called, who is in it, where it stands in the plan.
COMMON = frozenset(
    {
        "id", "type", "title", "label", "note", "objective", "family", "adjustment", "estimand",
        "missing_data", "population", "sensitivity", "alpha", "primary_visit", "primary_contrast",
        "primary_statistic", "weight", "passes_to",
    }
)  # fmt: skip
_DERIVED = frozenset(["endpoint", "visit", "region", "derivation", "baseline"])
_ONE_VALUE = frozenset(["source", "responder", "zeros", "nonresponder_imputation"])

#: Analysis type -> the keys that it reads besides :data:`COMMON`. A type that is not listed is not
#: checked.
READ: dict[str, frozenset[str]] = {
    "agreement": _DERIVED
    | {
        "sources",
        "by_visit",
        "repeats",
        "linked",
        "scale",
        "measure_level",
        "categories",
        "icc_form",
        "weights",
        "strata",
        "compare_pairs",
        "delta",
        "by",
        "reference",
        "cluster",
        "clustering",
        "method",
        "limits_ci",
        "limits_coverage",
        "exceeds",
        "no_worse_ratio",
        "unit_check",
        "resamples",
        "seed",
    },
    "overlap": frozenset(["visit", "sources", "by_visit", "cluster"]),
    "phantom": frozenset(["truth", "endpoint", "sources", "visit", "region"]),
    "correlation": _DERIVED
    | _ONE_VALUE
    | {
        "endpoint_y",
        "source_y",
        "visit_y",
        "outcome",
        "outcome_visit",
        "exposure",
        "exposure_visit",
        "scale",
        "method",
        "covariates",
        "categorical",
        "by",
        "reference",
        "compare_pairs",
        "ci",
        "resamples",
        "seed",
        "alternative",
        "reliability",
        "reliability_y",
        "reliability_sources",
        "summaries",
    },
    "diagnostic": _DERIVED
    | _ONE_VALUE
    | {
        "sources",
        "outcome",
        "outcome_visit",
        "positive_above",
        "positive_from",
        "ci",
        "compare_pairs",
        "alternative",
    },
    "sample_size": frozenset(
        [
            "endpoint",
            "visit",
            "region",
            "sources",
            "method",
            "reliability",
            "difference",
            "sd",
            "power",
            "per_arm",
            "icc_targets",
            "reads",
            "width",
            "raters",
            "exceeds",
            "shares",
            "odds_ratio",
            "correlation",
            "retention",
            "hazard_ratio",
            "event_share",
            "limits_coverage",
            "resamples",
            "seed",
        ]
    ),
}
#: Type -> key -> the values that it may have there.
VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "agreement": {
        "method": ("parametric", "regression", "quantile", "tolerance"),
        "derivation": ("value", "change", "percent_change", "log_ratio"),
    },
    "correlation": {
        "method": (
            "pearson", "spearman", "kendall", "partial", "partial_spearman", "semi_partial",
            "repeated", "attenuation",
        ),
        "ci": ("fisher", "bonett_wright", "bootstrap", "bca", "percentile"),
    },
    "diagnostic": {"ci": ("delong", "logit")},
    "sample_size": {
        "method": (
            "means", "icc", "icc_exceeds", "kappa", "limits", "mmrm", "ordinal", "survival",
        ),
    },
}  # fmt: skip


Condition = Callable[[Mapping[str, Any], Collection[str]], bool]


def _texts(analysis: Mapping[str, Any], key: str) -> list[str]:
    given = analysis.get(key)
    return [str(given)] if isinstance(given, (str, int, float)) else [str(v) for v in given or []]


def _has(key: str, *values: str) -> Condition:
    """Whether a key has one of these values; without values, whether it is there."""
    if not values:
        return lambda analysis, _: analysis.get(key) not in (None, [], False)
    return lambda analysis, _: bool(set(values) & set(_texts(analysis, key)))


def _lacks(key: str) -> Condition:
    return lambda analysis, _: analysis.get(key) in (None, [], False)


def _levels(analysis: Mapping[str, Any], grades: Collection[str]) -> set[str]:
    return {measure_level(analysis, one, grades) for one in _texts(analysis, "endpoint")}


def _graded(analysis: Mapping[str, Any], grades: Collection[str]) -> bool:
    return bool(_levels(analysis, grades) & {"ordinal", "nominal"})


def _numeric(analysis: Mapping[str, Any], grades: Collection[str]) -> bool:
    return _levels(analysis, grades) != {"nominal"}


def _between(analysis: Mapping[str, Any], _: Collection[str]) -> bool:
    return analysis.get("repeats", "between") != "within"


def _several(key: str, least: int) -> Condition:
    return lambda a, _: len(_texts(a, key)) >= least or _texts(a, key) == ["all"]


def _derived(analysis: Mapping[str, Any], _: Collection[str]) -> bool:
    return analysis.get("derivation", "value") != "value"


def _sizes(*methods: str) -> Condition:
    def chosen(analysis: Mapping[str, Any], _: Collection[str]) -> bool:
        given = _texts(analysis, "method")
        precise = analysis.get("width") is not None and analysis.get("difference") is None
        return bool(set(methods) & set(given or ["icc" if precise else "means"]))

    return chosen


def _both(*conditions: Condition) -> Condition:
    return lambda analysis, grades: all(one(analysis, grades) for one in conditions)


_PARTIAL = _has("method", "partial", "partial_spearman", "semi_partial")
_RESAMPLED = _has("ci", "bootstrap", "bca", "percentile")
_RESPONDER = _has("derivation", "responder")
_MEASURED = _both(_sizes("means"), _lacks("reliability"))
_OF_ONE_VALUE: dict[str, tuple[Condition, str]] = {
    "baseline": (_derived, "a derivation"),
    "responder": (_RESPONDER, "derivation responder"),
    "nonresponder_imputation": (_RESPONDER, "derivation responder"),
    "zeros": (_has("derivation", "percent_change", "log_ratio"), "a derivation that is a ratio"),
}
#: Type -> key -> when it is read, and what it needs in words. Keys that are not here are read
#: wherever the type reads them.
READ_WITH: dict[str, dict[str, tuple[Condition, str]]] = {
    "agreement": {
        "baseline": (_derived, "a derivation"),
        **dict.fromkeys(
            ("by", "strata", "no_worse_ratio", "unit_check", "linked"),
            (_between, "repeats: between"),
        ),
        "reference": (_has("by"), "by"),
        "compare_pairs": (_both(_between, _several("sources", 3)), "three sources or more"),
        "weights": (_graded, "grades (measure_level ordinal)"),
        "categories": (_graded, "grades (measure_level ordinal or nominal)"),
        "icc_form": (_numeric, "numbers (measure_level nominal has no ICC)"),
        **dict.fromkeys(
            ("limits_ci", "limits_coverage", "method"),
            (_numeric, "numbers (measure_level nominal has no limits)"),
        ),
        **{
            key: (lambda a, g: _between(a, g) or _graded(a, g), "a statistic that is resampled")
            for key in ("resamples", "seed")
        },
    },
    "correlation": {
        **_OF_ONE_VALUE,
        **{key: (_has("endpoint_y"), "endpoint_y") for key in ("source_y", "visit_y")},
        "outcome_visit": (_has("outcome"), "outcome"),
        "exposure_visit": (_has("exposure"), "exposure"),
        "covariates": (_PARTIAL, "a partial method"),
        "categorical": (_both(_PARTIAL, _has("covariates")), "covariates of a partial method"),
        "reference": (_has("by"), "by"),
        "compare_pairs": (_several("endpoint", 2), "two endpoints or more"),
        **dict.fromkeys(("resamples", "seed"), (_RESAMPLED, "ci bootstrap, bca or percentile")),
        **{
            key: (_has("method", "attenuation"), "method attenuation")
            for key in ("reliability", "reliability_y")
        },
        "reliability_sources": (
            _both(_has("method", "attenuation"), _lacks("reliability")),
            "method attenuation without a reliability",
        ),
    },
    "diagnostic": {
        **_OF_ONE_VALUE,
        "source": (_lacks("sources"), "no sources beside it"),
        "compare_pairs": (_several("endpoint", 2), "two endpoints or more"),
    },
    "sample_size": {
        "sources": (_MEASURED, "method means without a reliability"),
        "visit": (_MEASURED, "measured sources"),
        "region": (_MEASURED, "measured sources"),
        "resamples": (_MEASURED, "measured sources"),
        "seed": (_MEASURED, "measured sources"),
        "difference": (_sizes("means", "mmrm"), "method means or mmrm"),
        "sd": (_sizes("means", "mmrm", "limits"), "method means, mmrm or limits"),
        "per_arm": (_sizes("means"), "method means"),
        "icc_targets": (_sizes("means"), "method means"),
        "reads": (_sizes("means"), "method means"),
        "reliability": (
            _sizes("means", "icc", "icc_exceeds", "kappa"),
            "method means, icc, icc_exceeds or kappa",
        ),
        "power": (
            _sizes("means", "icc_exceeds", "mmrm", "ordinal", "survival"),
            "a method with a test",
        ),
        "width": (_sizes("icc", "kappa", "limits"), "method icc, kappa or limits"),
        "raters": (_sizes("icc", "icc_exceeds"), "method icc or icc_exceeds"),
        "exceeds": (_sizes("icc_exceeds"), "method icc_exceeds"),
        "shares": (_sizes("kappa", "ordinal"), "method kappa or ordinal"),
        "odds_ratio": (_sizes("ordinal"), "method ordinal"),
        "correlation": (_sizes("mmrm"), "method mmrm"),
        "retention": (_sizes("mmrm"), "method mmrm"),
        "hazard_ratio": (_sizes("survival"), "method survival"),
        "event_share": (_sizes("survival"), "method survival"),
        "limits_coverage": (_sizes("limits"), "method limits"),
    },
}


def unread_keys(
    analysis: Mapping[str, Any], grades: Collection[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that its type does not read, and values that it does not know.

    Parameters
    ----------
    analysis
        One entry of the plan.
    grades
        Endpoints that are graded in words.

    Yields
    ------
    (key, message, remedy)

    Examples
    --------
    >>> list(unread_keys({"id": "a", "type": "agreement", "alternative": "less"}))[0][:2]
    ('alternative', 'an analysis of type agreement does not read this key')
    >>> list(unread_keys({"id": "a", "type": "diagnostic", "ci": "bca"}))[0][1]
    "an analysis of type diagnostic does not know 'bca'"
    >>> list(unread_keys({"id": "a", "type": "correlation", "seed": 5}))[0][1]
    'it is read with ci bootstrap, bca or percentile only'
    """
    kind = str(analysis.get("type"))
    known = READ.get(kind)
    if known is None:
        return
    for key in analysis:
        if key not in COMMON and key not in known:
            yield (
                key,
                f"an analysis of type {kind} does not read this key",
                f"remove it; read are {', '.join(sorted(known))}",
            )
            continue
        condition, words = READ_WITH.get(kind, {}).get(key, (None, ""))
        if condition is not None and not condition(analysis, grades):
            yield key, f"it is read with {words} only", f"remove it, or give {words}"
    for key, values in VALUES.get(kind, {}).items():
        for one in _texts(analysis, key):
            if one not in values:
                yield (
                    key,
                    f"an analysis of type {kind} does not know '{one}'",
                    f"write one of {', '.join(values)}",
                )
