"""The 45 published numbers of the sources, each with the verdict it must get.

Mismatches inside the source (two kappas that contradict their ICC, a median outside its quartiles,
206 min printed as 3.40 h) must be found as such, never made to fit.
"""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers import data_folder, run

from corelab.agreement import intraclass_correlation, weighted_kappa
from corelab.agreement.estimates import p_from_t
from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.correlation import fisher_interval

pytestmark = pytest.mark.acceptance

QUADRATIC_KAPPA_TOLERANCE = 0.0011


def fisher(r, n):
    z, half = np.arctanh(r), 1.959963984540054 / np.sqrt(n - 3)
    return np.tanh([z - half, z + half])


def verdict_pearson(check, _):
    r, n = check["inputs"]["r"], check["inputs"]["n"]
    printed = [check["reported"]["lo"], check["reported"]["hi"]]
    assert fisher(r, n) == pytest.approx(printed, abs=check["tolerance"]["ci_abs"])
    if np.allclose(np.round(fisher(r, n), 2), printed):
        return "match"
    grid = np.arange(r - 0.005, r + 0.005, 1e-5)
    inside = [np.allclose(np.round(fisher(g, n), 2), printed) for g in grid]
    return "match_only_within_rounding_of_r" if any(inside) else "MISMATCH"


def verdict_icc(check, aspects):
    a, b = (aspects[name].to_numpy() for name in check["inputs"]["raters"])
    icc = intraclass_correlation(np.column_stack([a, b]))["icc_a_1"]
    kappa = weighted_kappa(a, b, "quadratic")
    assert "moment form" in kappa.method
    printed = check["reported"]
    close = (
        abs(icc.estimate - printed["icc"]) <= check["tolerance"]["icc_abs"]
        and abs(icc.ci_low - printed["icc_lo"]) <= check["tolerance"]["icc_ci_abs"]
        and abs(icc.ci_high - printed["icc_hi"]) <= check["tolerance"]["icc_ci_abs"]
    )
    agreed = abs(kappa.estimate - printed["qwk"]) <= QUADRATIC_KAPPA_TOLERANCE
    first = "icc_match" if close else "icc_MISMATCH"
    return f"{first}; qwk_{'match' if agreed else 'MISMATCH'}"


def verdict_flow(check, _):
    left = check["inputs"]["start"] - sum(check["inputs"]["excluded"])
    return "match" if left == check["reported"]["final"] else "MISMATCH"


def verdict_set(check, _):
    only, both, late = (check["inputs"][k] for k in ("immediate_only", "both", "delayed_only"))
    found = {"immediate": only + both, "delayed": both + late, "total": only + both + late}
    return "match" if found == check["reported"] else "MISMATCH"


def verdict_proportion(check, _):
    share = 100 * check["inputs"]["k"] / check["inputs"]["n"]
    return (
        "match"
        if abs(share - check["reported"]["pct"]) <= check["tolerance"]["abs"]
        else "MISMATCH"
    )


def verdict_sum(check, _):
    total = sum(check["inputs"]["parts"])
    within = abs(total - check["reported"]["total"]) <= check["tolerance"]["abs"]
    return "match" if within else "MISMATCH"


def verdict_wald(check, _):
    half = 1.959963984540054 * check["inputs"]["se"]
    limits = [check["inputs"]["coef"] - half, check["inputs"]["coef"] + half]
    printed = [check["reported"]["lo"], check["reported"]["hi"]]
    within = np.allclose(limits, printed, atol=check["tolerance"]["abs"], rtol=0)
    return "match (symmetric => Wald)" if within else "MISMATCH"


def verdict_iqr(check, _):
    low, high = sorted((check["inputs"]["q1"], check["inputs"]["q3"]))
    contains = low <= check["inputs"]["median"] <= high
    return "match" if contains == check["reported"]["contains"] else "MISMATCH"


def verdict_units(check, _):
    differences = np.abs(np.array(check["inputs"]["min"]) / 60 - np.array(check["reported"]["h"]))
    within = differences <= check["tolerance"]["abs"] + 1e-9
    if within.all():
        return "match"
    return "MISMATCH_upper" if within[:-1].all() else "MISMATCH"


def verdict_spearman(check, _):
    r, n = check["inputs"]["rs"], check["inputs"]["n"]
    if n is None:
        return "n missing in seed"
    p = p_from_t(r * np.sqrt((n - 2) / (1 - r**2)), n - 2)
    same = (p < 0.05) == check["reported"]["significant"]
    return f"match (p={p:.3f})" if same else "MISMATCH"


VERDICTS = {
    "pearson_fisher_ci": verdict_pearson,
    "icc_a1_and_qwk": verdict_icc,
    "flow": verdict_flow,
    "set": verdict_set,
    "proportion": verdict_proportion,
    "sum": verdict_sum,
    "wald_ci": verdict_wald,
    "iqr_contains_median": verdict_iqr,
    "unit_conversion": verdict_units,
    "spearman": verdict_spearman,
}


@pytest.fixture(scope="module")
def aspects():
    return pd.read_csv(data_folder("statistics") / "aspects75_synthetic.csv")


def test_all_published_numbers_get_their_verdict(aspects):
    checks = json.loads((data_folder("statistics") / "published_endpoints.json").read_text())
    assert len(checks) == 45
    found = {check["id"]: VERDICTS[check["kind"]](check, aspects) for check in checks}
    assert found == {check["id"]: check["seed_check"] for check in checks}
    assert sum("MISMATCH" in verdict for verdict in found.values()) == 4


def test_fisher_interval_of_the_library_is_the_one_checked_here():
    ours = fisher_interval(0.68, 524)
    assert list(ours)[:2] == pytest.approx(fisher(0.68, 524), abs=1e-12)


def test_aspects_table_through_the_plan(aspects):
    """All 15 pairs in one analysis: the slide's ICC(A,1), limits and quadratic kappas."""
    checks = json.loads((data_folder("statistics") / "published_endpoints.json").read_text())
    printed = {
        tuple(c["inputs"]["raters"]): c["reported"] for c in checks if c["kind"] == "icc_a1_and_qwk"
    }
    readers = list(aspects.columns[1:])
    rows = [
        (case, "baseline", "aspects", reader, "1", "all", value, "ok")
        for reader in readers
        for case, value in zip(aspects["case"], aspects[reader], strict=True)
    ]
    columns = [
        "participant_id",
        "visit",
        "endpoint",
        "source",
        "repeat",
        "region",
        "value",
        "status",
    ]
    tables = Tables(
        pd.DataFrame(rows, columns=columns), pd.DataFrame({"participant_id": aspects["case"]})
    )
    plan = {
        "id": "aspects",
        "type": "agreement",
        "endpoint": "aspects",
        "sources": readers,
        "weights": "quadratic",
        "resamples": 200,
    }
    table = run(plan, tables).set_index(["group", "statistic"])
    pairs = list(combinations(readers, 2))
    assert len(pairs) == len(printed) == 15
    off = []
    for pair in pairs:
        icc, kappa = (table.loc[("|".join(pair), name)] for name in ("icc_a_1", "kappa_quadratic"))
        expected = printed[pair]
        assert [icc["estimate"], icc["ci_low"], icc["ci_high"]] == pytest.approx(
            [expected["icc"], expected["icc_lo"], expected["icc_hi"]], abs=0.002
        )
        assert icc["second_estimate"] == pytest.approx(icc["estimate"], abs=1e-9)
        if abs(kappa["estimate"] - expected["qwk"]) > QUADRATIC_KAPPA_TOLERANCE:
            off.append(pair)
    assert off == [("RAPID", "Expert1-CT"), ("RAPID", "Expert2-CT")]
