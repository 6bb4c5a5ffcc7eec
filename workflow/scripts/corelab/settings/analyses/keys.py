"""Keys that an analysis has and does not read, and values that they do not know."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from corelab.settings.analyses import SPECS
from corelab.settings.analyses.base import AnalysisSpec


def unread(
    entry: Mapping[str, Any], grades: Collection[str] = ()
) -> Iterator[tuple[str, str, str]]:
    """Keys of an analysis that have no effect, and values that a key does not know.

    A key that is accepted and not read would let a plan say what is not done.

    Parameters
    ----------
    entry
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
    """
    name = str(entry.get("type"))
    if name not in SPECS:
        return
    spec = SPECS[name]
    known = spec.model_fields
    # Not validated: every finding is reported, also of an entry with wrong values.
    built = spec.model_construct(**{key: entry[key] for key in entry if key in known})
    for key in entry:
        if key not in known:
            own = ", ".join(sorted(set(known) - set(AnalysisSpec.model_fields)))
            yield (
                key,
                f"an analysis of type {name} does not read this key",
                f"remove it; read are {own}",
            )
        elif not (need := spec.need(key)).holds(built, grades):
            yield key, f"it is read with {need.words} only", f"remove it, or give {need.words}"
    for key, value, values in spec.unknown_values(entry):
        yield (
            key,
            f"an analysis of type {name} does not know '{value}'",
            f"write one of {', '.join(values)}",
        )
