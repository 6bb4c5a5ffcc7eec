"""How far the simulated tables of the presets lie from what was planted in them, in SE."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from corelab.pharmacodynamics.linear import fit_linear
from corelab.pharmacodynamics.proportional_odds import fit_proportional_odds
from corelab.pharmacodynamics.survival import fit_cox

Deviations = dict[tuple[str, str, str], float]
#: Fewer expected events than this in both arms together: a share's error is far from normal.
MIN_EVENTS = 10


def deviations(name: str, sheets: dict[str, pd.DataFrame], arms: dict) -> Deviations:
    """(trial, endpoint, contrast) -> (estimate - planted) / standard error.

    Volumes are compared as the presets do, by analysis of covariance with the baseline; shares by
    the standard error that the planted shares give.
    """
    people = sheets["participants"].set_index("participant_id")
    found: Deviations = {}
    for truth in sheets["truth"].itertuples():
        if not truth.group.startswith("arm="):
            continue
        level, reference = (part.removeprefix("arm=") for part in truth.group.split("|"))
        arm = people["arm"][people["arm"].isin([level, reference])]
        x = (arm == level).to_numpy(float)
        z = _deviation(truth, sheets, arm, x, (arms[level], arms[reference]))
        if z is not None:
            found[name, truth.endpoint, truth.group] = z
    return found


def _deviation(truth, sheets, arm, x, pair) -> float | None:
    if truth.statistic == "hazard_ratio":
        own = _numbers(sheets["events"], "endpoint", "os", "time_days").loc[arm.index]
        event = _numbers(sheets["events"], "endpoint", "os", "event").loc[arm.index]
        fit = fit_cox(own, event, x)
        return (fit.coefficients[0] - math.log(truth.truth)) / fit.standard_errors[0]
    if truth.statistic == "common_odds_ratio":
        grades = _numbers(sheets["outcomes"], "outcome", "mrs", "value").loc[arm.index]
        odds = fit_proportional_odds(x, grades)
        return (odds.coefficients[0] - math.log(truth.truth)) / odds.standard_errors[0]
    if truth.statistic == "risk_difference":
        shares = [getattr(one, truth.endpoint) for one in pair]
        final = sheets["reads"][sheets["reads"]["role"] == "adjudicator"]
        calls = _numbers(final, "endpoint", truth.endpoint, "value").loc[arm.index].to_numpy()
        sizes = [np.sum(x == 1), np.sum(x == 0)]
        if sum(p * n for p, n in zip(shares, sizes, strict=True)) < MIN_EVENTS:
            return None
        error = math.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, sizes, strict=True)))
        return (calls[x == 1].mean() - calls[x == 0].mean() - truth.truth) / error
    volume = truth.endpoint.replace("reperfusion_percent", "hypoperfused_volume")
    own = sheets["measurements"][sheets["measurements"]["endpoint"] == volume]
    wide = own.assign(value=own["value"].astype(float)).pivot_table(
        index="participant_id", columns="visit", values="value"
    )
    wide = wide.reindex(arm.index)[["baseline", truth.visit]].to_numpy()
    there = ~np.isnan(wide).any(axis=1)
    before, after = wide[there].T
    y = np.log(after / before) if truth.derivation == "log_ratio" else 100 * (1 - after / before)
    matrix = np.column_stack([np.ones(y.size), x[there], before])
    result = fit_linear(matrix, y).contrast([0, 1, 0])
    return (result.estimate - truth.truth) / result.se


def _numbers(sheet: pd.DataFrame, column: str, name: str, value: str) -> pd.Series:
    own = sheet[sheet[column] == name].set_index("participant_id")[value]
    return own.astype(float)
