"""Equality with R (psych, vcd, epiR, lme4 of Debian 12) on the same tables.

The outputs of R are stored beside the calls that made them (``r/agreement.R`` ->
``r/agreement.json``); where R and its packages are installed, they are made again and compared too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corelab.agreement import bland_altman, intraclass_correlation, weighted_kappa
from corelab.agreement.categorical import kendall_w
from corelab.agreement.differences import concordance_correlation
from corelab.agreement.drift import reader_effects
from corelab.agreement.icc import FORMS, variance_components
from corelab.reading.rates import wilson_interval

pytestmark = pytest.mark.acceptance

HERE = Path(__file__).parent / "r"
PACKAGES = ("psych", "vcd", "lme4", "epiR")


def live() -> dict[str, list[float]] | None:
    """R's outputs made now; None where R or a package is not there."""
    program = shutil.which("Rscript")
    if program is None:
        return None
    ask = f"cat(all(sapply(c({', '.join(map(repr, PACKAGES))}), requireNamespace, quietly = TRUE)))"
    there = subprocess.run([program, "-e", ask], capture_output=True, text=True, check=False)
    if not there.stdout.strip().endswith("TRUE"):
        return None
    done = subprocess.run(
        [program, "agreement.R"], cwd=HERE, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["stored", "live"])
def r(request):
    """R's outputs, stored or made now."""
    if request.param == "stored":
        return json.loads((HERE / "agreement.json").read_text())
    found = live()
    if found is None:
        pytest.skip("Rscript with psych, vcd, lme4 and epiR is not installed")
    return found


@pytest.fixture(scope="module")
def readings():
    return pd.read_csv(HERE / "readings.csv")


@pytest.fixture(scope="module")
def grades():
    return pd.read_csv(HERE / "grades.csv")


@pytest.mark.parametrize("form", FORMS)
def test_psych_icc(r, readings, form):
    found = intraclass_correlation(readings[["r1", "r2", "r3", "r4"]])[form]
    ours = [found.estimate, found.ci_low, found.ci_high, found.f, found.df1, found.df2]
    assert ours == pytest.approx(r[f"psych_{form}"], rel=1e-9)


def test_lme4_variance_components_with_gaps(r, readings):
    found = variance_components(readings[["g1", "g2", "g3"]])
    target, reader, residual, likelihood = r["lme4_components"]
    assert found.reml == pytest.approx(likelihood, abs=1e-8)
    assert [found.target, found.residual] == pytest.approx([target, residual], rel=1e-5)
    assert found.reader == pytest.approx(reader, rel=1e-4)


def test_icc_with_gaps_is_that_of_lme4s_components(r, readings):
    target, reader, residual, _ = r["lme4_components"]
    found = intraclass_correlation(readings[["g1", "g2", "g3"]])
    assert found["icc_a_1"].estimate == pytest.approx(
        target / (target + reader + residual), abs=1e-6
    )
    assert found["icc_c_1"].estimate == pytest.approx(target / (target + residual), abs=1e-6)


def test_lme4_reader_effects(r, readings):
    found = reader_effects(readings[["g1", "g2", "g3"]]).effects
    ours = [found[name].estimate for name in ("g1", "g2", "g3")]
    errors = [found[name].se for name in ("g1", "g2", "g3")]
    assert ours == pytest.approx(r["lme4_reader_effects"], abs=1e-5)
    assert errors == pytest.approx(r["lme4_reader_errors"], rel=1e-5)


def test_epir_ccc_and_paired_t(r, readings):
    a, b = readings["r1"], readings["r2"]
    found = concordance_correlation(a, b)
    ours = [found.estimate, found.ci_low, found.ci_high]
    assert ours == pytest.approx(r["epir_ccc"][:3], rel=1e-9)
    bias = bland_altman(a, b)
    ours = [bias.bias, *bias.bias_ci, bias.bias_p_value]
    assert ours == pytest.approx(r["t_test_bias"], rel=1e-9)
    slope, _, p_value = r["proportional_bias"]
    assert [bias.slope.estimate, bias.slope.p_value] == pytest.approx([slope, p_value], rel=1e-9)


@pytest.mark.parametrize(
    ("weights", "name"),
    [("none", "vcd_kappa"), ("linear", "vcd_kappa_linear"), ("quadratic", "vcd_kappa_quadratic")],
)
def test_vcd_kappa(r, grades, weights, name):
    found = weighted_kappa(grades["a"], grades["b"], weights, range(5))
    ours = [found.estimate, found.se, found.ci_low, found.ci_high]
    assert ours == pytest.approx(r[name], rel=1e-9)


def test_friedman_and_wilson(r, grades):
    assert kendall_w(grades.to_numpy(float)).estimate == pytest.approx(r["kendall_w"][0], rel=1e-9)
    assert wilson_interval(7, 31) == pytest.approx(tuple(r["wilson"]), rel=1e-9)


def test_the_tables_are_those_of_their_recipe(tmp_path, monkeypatch, readings, grades):
    """The data are made by r/make_data.py and by nothing else."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_data", HERE / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    module.main()
    for name, frame in (("readings", readings), ("grades", grades)):
        again = pd.read_csv(tmp_path / f"{name}.csv")
        assert np.array_equal(again.to_numpy(), frame.to_numpy(), equal_nan=True)
