"""Scale of the value in a model of arms, and the covariates that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from corelab.measurement.selection import NotComputable, cube_root, zeros_rule
from corelab.settings.analyses.base import AnalysisSpec


def on_scale(
    frame: pd.DataFrame, scale: str, derivation: str = "value", offset: float = 0.0
) -> pd.DataFrame:
    """Value and baseline on the scale of the model.

    Of a change each visit is transformed, then the difference taken: the change of cube roots,
    not the cube root of the change.

    Raises
    ------
    NotComputable
        For the logarithm of a value that is not positive, and for a scale of a ratio.

    Examples
    --------
    >>> change = pd.DataFrame({"value": [19.0], "baseline": [8.0]})
    >>> on_scale(change, "cube_root", "change")["value"].tolist()
    [1.0]
    """
    if scale != "identity" and derivation in {"percent_change", "log_ratio", "responder"}:
        raise NotComputable(f"derivation {derivation} has its own scale; leave out the key scale")
    columns = [c for c in ("value", "baseline") if c in frame.columns]
    if scale == "identity":
        return frame
    frame = frame.assign(**{c: frame[c] + offset for c in columns})
    if scale == "log":
        for column in columns:
            bad = frame.index[frame[column] <= 0]
            if len(bad):
                raise NotComputable(
                    f"logarithm of {frame.loc[bad[0], column]:g} (participant {bad[0]}, {column}); "
                    "use scale cube_root, which has 0 and negative values"
                )
        return frame.assign(**{c: np.log(frame[c]) for c in columns})
    if derivation == "change":
        before = cube_root(frame["baseline"])
        after = cube_root(frame["value"] + frame["baseline"])
        return frame.assign(value=after - before, baseline=before)
    return frame.assign(**{c: cube_root(frame[c]) for c in columns})


def scaled(analysis: AnalysisSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Frame on the planned scale, with its offset for zeros; see :func:`on_scale`."""
    scale = analysis.scale
    derivation = analysis.derivation
    return on_scale(frame, scale, derivation, zeros_rule(analysis)[1] * (scale == "log"))


def covariates_of(analysis: AnalysisSpec) -> list[str]:
    """Covariates of a model of arms; a change has its baseline among them.

    Examples
    --------
    >>> from corelab.settings.analyses.comparison import ComparisonSpec
    >>> covariates_of(ComparisonSpec(id="a", type="comparison", endpoint="v", by="arm",
    ...     derivation="change", covariates=["age"]))
    ['baseline', 'age']
    """
    names = list(analysis.covariates)
    derived = analysis.derivation in {"change", "percent_change", "log_ratio"}
    return ["baseline", *names] if derived and "baseline" not in names else names


def covariate_words(analysis: AnalysisSpec, names: Sequence[str]) -> list[str]:
    """Names of covariates as they are in the model."""
    scale = "log" if analysis.derivation == "log_ratio" else analysis.scale
    words = {"log": "log baseline", "cube_root": "cube root of baseline"}
    own = words.get(str(scale), "baseline")
    return [own if name == "baseline" else name for name in names]
