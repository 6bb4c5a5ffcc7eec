"""What must be noticed in readings before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from corelab.agreement.estimates import Floats
from corelab.measurement.selection import NotComputable
from corelab.study.columns import LARGEST_LESION_ML

#: Below this many targets a result is shown with a warning.
FEW_TARGETS = 10
FEWEST_TARGETS = 3
#: Change of log likelihood of one target at which swapped readers are suspected: p about 0.001.
SWAP_LOG_LIKELIHOOD = float(-np.log(0.001))


def volumes_plausible(values: pd.DataFrame, endpoint: str) -> list[str]:
    """Warnings about volumes (targets x readers, mL); negative ones are refused, but for growth.

    Examples
    --------
    >>> volumes_plausible(pd.DataFrame({"a": [1.0], "b": [2000.0]}), "infarct_volume")
    ['1 volume above 1500 mL, larger than a head']
    """
    numbers = values.to_numpy(dtype=float)
    if not endpoint.endswith("growth") and (numbers < 0).any():
        where = values.index[int(np.argmax((numbers < 0).any(axis=1)))]
        raise NotComputable(f"negative volume, first at {_named(where)}")
    large = int((numbers > LARGEST_LESION_ML).sum())
    if not large:
        return []
    noun = "volume" if large == 1 else "volumes"
    return [f"{large} {noun} above {LARGEST_LESION_ML:g} mL, larger than a head"]


def grades_known(values: pd.DataFrame, categories: Sequence[object] | None) -> None:
    """Refuse grades that are not on the scale of the charter (scores that are means may be).

    Examples
    --------
    >>> grades_known(pd.DataFrame({"a": [10.0, 11.0]}), range(11))
    Traceback (most recent call last):
    corelab.measurement.selection.NotComputable: 11 is not one of the categories 0 to 10, first at 1
    """
    if categories is None:
        return
    scale = [float(c) for c in categories if isinstance(c, (int, float))]  # type: ignore[arg-type]
    numbers = values.to_numpy(dtype=float)
    known = numbers[~np.isnan(numbers)]
    if not scale or (known != np.round(known)).any():
        return
    wrong = ~np.isnan(numbers) & ~np.isin(numbers, scale)
    if wrong.any():
        where = values.index[int(np.argmax(wrong.any(axis=1)))]
        raise NotComputable(
            f"{numbers[wrong][0]:g} is not one of the categories {scale[0]:g} to {scale[-1]:g}, "
            f"first at {_named(where)}"
        )


def _named(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def units_mixed(
    a: Floats, b: Floats, names: Sequence[object], *, keep: str = "likely"
) -> list[str]:
    """Findings about columns in which values differ by a factor near 1000 (mL and mm3).

    All together: the median ratio lies near 1000. One target: its ratio lies near 1000 (or 300 to
    3000 times the median ratio of the others). Refused is what must be a unit error: the median,
    and a value larger than a head. A target whose larger value fits into a head may as well be a
    lesion that one reader missed: it is a finding, and the values stand. ``keep`` is the key
    ``unit_check`` of the plan: ``likely`` as described, ``refuse`` to refuse every such target,
    ``checked`` where values have been checked.

    Raises NotComputable naming the targets.

    Examples
    --------
    >>> a, b = np.array([1.0, 60.0, 3.0]), np.array([1.1, 0.08, 2.9])
    >>> units_mixed(a, b, ["s1", "s2", "s3"])[0][:40]
    'values differ by a factor near 1000 at s'
    """
    known = ~(np.isnan(a) | np.isnan(b))
    positive = known & (a > 0) & (b > 0)
    if keep == "checked" or positive.sum() < 2:
        return []
    logs = np.log10(a[positive] / b[positive])
    centre = float(np.median(logs))
    odd = np.abs(np.abs(logs - centre) - 3.0) < np.log10(3.0)
    whole = np.abs(np.abs(logs) - 3.0) < np.log10(1.43)
    # A factor of 1000 between a tiny and a small lesion is a miss, not a unit.
    larger, smaller = np.maximum(a[positive], b[positive]), np.minimum(a[positive], b[positive])
    odd &= (larger > 50.0) & (whole | (np.abs(np.abs(logs) - 3.0) < np.log10(3.0)))
    if abs(abs(centre) - 3.0) < np.log10(1.43):
        raise NotComputable(
            "values differ by a factor near 1000 (mL against mm3?) in the median of all "
            f"{int(positive.sum())} targets; unit_check: checked takes them as they are"
        )
    labels = np.empty(len(names), dtype=object)
    labels[:] = list(names)
    labels = labels[positive]
    sure = odd if keep == "refuse" else odd & (larger > LARGEST_LESION_ML)
    if sure.any():
        found = [_named(name) for name in labels[sure]]
        raise NotComputable(
            f"values differ by a factor near 1000 (mL against mm3?) at {', '.join(found[:5])}"
            + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            + "; unit_check: checked takes them as they are"
        )
    if not odd.any():
        return []
    texts = [
        f"{_named(name)} ({high:g} and {low:g} mL)"
        for name, high, low in zip(labels[odd], larger[odd], smaller[odd], strict=True)
    ]
    return [
        f"values differ by a factor near 1000 at {', '.join(texts[:5])}: a missed lesion, or mL "
        "against mm3; they are used as they are (unit_check: checked once it is, refuse to leave "
        "such pairs out)"
    ]


def one_per_cell(rows: pd.DataFrame, targets: list[str], columns: str | list[str]) -> pd.DataFrame:
    """Wide table of ``value``: targets x columns. Two values for a cell are an error, never a mean.

    Examples
    --------
    >>> rows = pd.DataFrame({"t": ["x", "x"], "source": ["a", "b"], "value": [1.0, 2.0]})
    >>> one_per_cell(rows, ["t"], "source").to_numpy().tolist()
    [[1.0, 2.0]]
    """
    # pivot_table, which the linter would have, averages duplicates silently.
    spread = [columns] if isinstance(columns, str) else columns
    return rows.set_index([*targets, *spread])["value"].unstack(columns)  # noqa: PD010


def sources_alike(sources: Iterable[str]) -> list[str]:
    """Warnings about source names that may be one reader written in two ways.

    Examples
    --------
    >>> sources_alike(["R1", "r01", "R2"])
    ["'R1' and 'r01' may be one source written in two ways"]
    """
    import re

    seen: dict[str, str] = {}
    found = []
    for source in sources:
        plain = re.sub(r"[\s._-]+", "", source).casefold()
        plain = re.sub(r"0+(\d)", r"\1", plain)
        if plain in seen:
            found.append(f"'{seen[plain]}' and '{source}' may be one source written in two ways")
        seen[plain] = source
    return found


def swapped_between_repeats(first: Floats, second: Floats, names: Sequence[object]) -> list[str]:
    """Targets at which two readers look exchanged at one of two repeated readings.

    For each target the squared distance between repeats is compared as labelled and with the labels
    of the second repeat exchanged; differences are in units of the (robust) within-reader variance.
    ``first`` and ``second`` are (targets, 2 repeats) of the two readers.

    Examples
    --------
    >>> a = np.arange(20.0)[:, None] + np.tile([0.0, 0.1], (20, 1))
    >>> b = a + 8.0
    >>> a[3, 1], b[3, 1] = b[3, 1], a[3, 1]
    >>> swapped_between_repeats(a, b, list(range(20)))
    ['3']
    """
    complete = ~(np.isnan(first[:, :2]).any(axis=1) | np.isnan(second[:, :2]).any(axis=1))
    x, y = first[complete], second[complete]
    if len(x) < 5:
        return []
    own = np.concatenate([x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]])
    variance = (1.4826 * float(np.median(np.abs(own)))) ** 2 / 2.0
    if variance == 0:
        return []
    kept = (x[:, 0] - x[:, 1]) ** 2 + (y[:, 0] - y[:, 1]) ** 2
    exchanged = (x[:, 0] - y[:, 1]) ** 2 + (y[:, 0] - x[:, 1]) ** 2
    suspected = (kept - exchanged) / (4.0 * variance) > SWAP_LOG_LIKELIHOOD
    labels = np.array(list(names) + [None], dtype=object)[:-1][complete]
    return [_named(name) for name, flag in zip(labels, suspected, strict=True) if flag]
