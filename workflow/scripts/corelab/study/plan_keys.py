"""Which keys of the plan an analysis type reads: any other is an error, not silence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

#: Keys of every analysis: what it is called, who is in it, where it stands in the plan.
COMMON = frozenset(
    [
        "id",
        "type",
        "title",
        "label",
        "note",
        "objective",
        "family",
        "adjustment",
        "estimand",
        "missing_data",
        "population",
        "sensitivity",
        "alpha",
    ]
)
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


def unread_keys(analysis: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that its type does not read, and values that it does not know.

    Yields
    ------
    (key, message, remedy)

    Examples
    --------
    >>> list(unread_keys({"id": "a", "type": "agreement", "alternative": "less"}))[0][:2]
    ('alternative', 'an analysis of type agreement does not read this key')
    >>> list(unread_keys({"id": "a", "type": "diagnostic", "ci": "bca"}))[0][1]
    "an analysis of type diagnostic does not know 'bca'"
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
                f"remove it; read are {_listed(known)}",
            )
    for key, values in VALUES.get(kind, {}).items():
        given = analysis.get(key)
        for one in [given] if isinstance(given, str) else list(given or []):
            if one not in values:
                yield (
                    key,
                    f"an analysis of type {kind} does not know '{one}'",
                    f"write one of {', '.join(values)}",
                )


def _listed(keys: Collection[str]) -> str:
    return ", ".join(sorted(keys))
