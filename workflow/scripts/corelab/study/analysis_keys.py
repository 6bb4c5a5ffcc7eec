"""Which keys an analysis reads, by its type: any other key is an error of the preflight.

A key that is accepted and not read would let a plan say what is not done. Types that are not in
:data:`KEYS` are not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Condition = Callable[[Mapping[str, Any]], bool]

#: Methods (or models) that an analysis may name, by type.
METHODS: dict[str, tuple[str, ...]] = {
    "comparison": (
        "ancova",
        "t",
        "welch",
        "mann_whitney",
        "mmrm",
        "gamma",
        "two_part",
        "rank",
        "binary",
        "multiple_imputation",
    ),
    "survival": ("km", "logrank", "cox", "rmst", "cuminc", "finegray"),
}
#: Models of a dose response.
MODELS = ("linear", "trend", "emax", "sigmoid_emax", "mcpmod", "williams")
#: Covariance structures of an MMRM.
STRUCTURES = ("us", "toeph", "ar1h", "csh", "adh", "toep", "ar1", "cs")


def listed(value: Any) -> list[Any]:
    """A value as a list; None is empty."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _always(analysis: Mapping[str, Any]) -> bool:
    return True


def _any_of(key: str, *values: str) -> Condition:
    return lambda analysis: bool(set(values) & set(map(str, listed(analysis.get(key)))))


def _given(*keys: str) -> Condition:
    return lambda analysis: any(analysis.get(key) not in (None, [], False) for key in keys)


def _both(*conditions: Condition) -> Condition:
    return lambda analysis: all(condition(analysis) for condition in conditions)


def _either(*conditions: Condition) -> Condition:
    return lambda analysis: any(condition(analysis) for condition in conditions)


def _derived(analysis: Mapping[str, Any]) -> bool:
    return analysis.get("derivation", "value") != "value"


_RATIO = _either(_any_of("derivation", "percent_change", "log_ratio"), _any_of("scale", "log"))
_IMPUTED = _any_of("method", "multiple_imputation")
_BASELINE = _either(_derived, _any_of("covariates", "baseline"), _IMPUTED)
_RESPONDER = _any_of("derivation", "responder")
_MCPMOD = _any_of("models", "mcpmod")

#: Keys of every type.
COMMON = (
    "id",
    "type",
    "title",
    "label",
    "note",
    "objective",
    "population",
    "alpha",
    "alternative",
    "family",
    "estimand",
    "missing_data",
    "sensitivity",
)
_FAMILY: dict[str, Condition] = {
    "adjustment": _given("family"),
    "primary_visit": _given("family"),
    "primary_contrast": _given("family"),
    "primary_statistic": _given("family"),
    "weight": _any_of("adjustment", "graphical"),
    "passes_to": _any_of("adjustment", "graphical"),
}
_VALUES: dict[str, Condition] = {
    "endpoint": _always,
    "visit": _always,
    "source": _always,
    "region": _always,
    "derivation": _always,
    "baseline": _BASELINE,
    "responder": _RESPONDER,
    "nonresponder_imputation": _RESPONDER,
    "zeros": _RATIO,
}
_OF_ENDPOINT = {
    key: _both(_given("endpoint"), condition)
    for key, condition in _VALUES.items()
    if key != "endpoint"
}
_MODEL: dict[str, Condition] = {"covariates": _always, "categorical": _always}
_ARMS: dict[str, Condition] = {"by": _always, "reference": _always}

#: Type -> key -> when it is read.
KEYS: dict[str, dict[str, Condition]] = {
    "comparison": {
        **_VALUES,
        **_MODEL,
        **_ARMS,
        "method": _always,
        "scale": _always,
        "covariance": _any_of("method", "mmrm"),
        "df": _any_of("method", "mmrm"),
        "strata": _any_of("method", "binary", "mann_whitney"),
        "subgroups": lambda analysis: "ancova" in (listed(analysis.get("method")) or ["ancova"]),
        "interactions": _any_of("method", "mmrm"),
        "overall": _any_of("method", "mmrm"),
        "contrasts": _any_of("method", "mmrm"),
        "robust": lambda analysis: "ancova" in (listed(analysis.get("method")) or ["ancova"]),
        "imputations": _IMPUTED,
        "imputation": _IMPUTED,
        "imputation_model": _IMPUTED,
        "auxiliary": _IMPUTED,
        "deltas": _IMPUTED,
        "deltas_reference": _IMPUTED,
        "tipping_point": _IMPUTED,
        "resamples": _any_of("method", "two_part"),
        "seed": _any_of("method", "two_part", "multiple_imputation"),
    },
    "dose_response": {
        **_VALUES,
        **_MODEL,
        "dose": _always,
        "exposure": _always,
        "exposure_visit": _given("exposure"),
        "models": _always,
        "candidates": _MCPMOD,
        "direction": _any_of("models", "mcpmod", "williams"),
        "target_effect": _MCPMOD,
        "resamples": _both(_MCPMOD, _given("target_effect")),
        "seed": _both(_MCPMOD, _given("target_effect")),
    },
    "ordinal": {
        **_MODEL,
        **_ARMS,
        **_OF_ENDPOINT,
        "endpoint": _always,
        "outcome": _always,
        "outcome_visit": _always,
        "better": _always,
        "cut": _always,
        "utilities": _either(_given("by"), lambda analysis: not analysis.get("endpoint")),
        "hierarchy": _either(_given("by"), lambda analysis: not analysis.get("endpoint")),
    },
    "quantile": {
        **_VALUES,
        **_MODEL,
        **_ARMS,
        "quantiles": _always,
        "reference_levels": _given("covariates"),
        "dose": _always,
        "exposure": _always,
        "exposure_visit": _given("exposure"),
        "outcome": _always,
        "outcome_visit": _given("outcome"),
        "cluster": _always,
        "resamples": _always,
        "seed": _given("resamples", "cluster"),
    },
    "survival": {
        **_MODEL,
        **_ARMS,
        **_OF_ENDPOINT,
        "endpoint": _always,
        "event_endpoint": _always,
        "criterion": _always,
        "assessor": _always,
        "method": _always,
        "strata": _always,
        "reference_levels": _given("covariates"),
        "landmark_days": _always,
        "tau_days": _any_of("method", "rmst", "cuminc"),
        "competing_endpoint": _any_of("method", "cuminc", "finegray"),
    },
    "mediation": {
        **_VALUES,
        **_MODEL,
        **_ARMS,
        "outcome": _always,
        "outcome_visit": _always,
        "scale": _always,
        "resamples": _always,
        "seed": _always,
    },
    "surrogacy": {
        **_VALUES,
        **_MODEL,
        **_ARMS,
        "outcome": _always,
        "outcome_visit": _always,
        "scale": _always,
        "cluster": _always,
        "resamples": _always,
        "seed": _always,
    },
}


def unread(analysis: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that have no effect, and methods that do not exist.

    Parameters
    ----------
    analysis
        One entry of ``analyses``.

    Yields
    ------
    tuple of str
        Key, what is wrong, and how to fix it.

    Examples
    --------
    >>> [key for key, *_ in unread({"type": "quantile", "endpoint": "v", "strata": ["sex"]})]
    ['strata']
    >>> [key for key, *_ in unread({"type": "comparison", "method": "ancova", "imputations": 5})]
    ['imputations']
    >>> list(unread({"type": "survival", "method": "finegry"}))[0][0]
    'method'
    """
    kind = str(analysis.get("type"))
    known = {**dict.fromkeys(COMMON, _always), **_FAMILY, **KEYS.get(kind, {})}
    if kind in KEYS:
        for key in analysis:
            if key not in known:
                read = ", ".join(sorted(KEYS[kind]))
                yield (
                    key,
                    f"an analysis of type {kind} does not read this key",
                    f"remove it; {read}",
                )
            elif not known[key](analysis):
                yield (
                    key,
                    f"the other keys of this analysis of type {kind} leave this key no effect",
                    "remove it, or choose the method, derivation or family that reads it",
                )
    for key, names in (
        ("method", METHODS.get(kind)),
        ("models", MODELS if kind == "dose_response" else None),
        ("covariance", STRUCTURES if kind == "comparison" else None),
    ):
        for name in map(str, listed(analysis.get(key))):
            if names is not None and name not in names:
                yield key, f"'{name}' is unknown for type {kind}", "known: " + ", ".join(names)
