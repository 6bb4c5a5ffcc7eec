"""Names have one home: statistics, endpoints and labels are registered once."""

import ast
import math
import re

import pandas as pd
import pytest
from helpers import REPOSITORY

from corelab.measurement.collect import _supplied_rows
from corelab.measurement.rows import measurement_row
from corelab.measurement.selection import statistics_frame
from corelab.pharmacodynamics.exclusion_sensitivity import _side_by_side
from corelab.plan.run import analysis_types
from corelab.settings.analyses import ANALYSIS_TYPES
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.columns import STATISTICS, STATISTICS_NUMBERS
from corelab.study.schema import load_schema
from corelab.terms import endpoints, kinds, labels, statistics
from corelab.terms.results import Estimate, StatisticRow


@pytest.mark.parametrize("table", [statistics, endpoints, labels, kinds])
def test_no_name_is_registered_twice(table):
    names = [one.name for one in table._TABLE]
    assert len(names) == len(set(names))


def test_conclusions_have_ranks_of_their_own():
    ranks = [one.conclusion for one in statistics._TABLE if one.conclusion]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


def test_codes_of_adam_are_unique_and_short():
    codes = [one.adam for one in endpoints._TABLE if one.adam]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]{0,7}", code) for code in codes)


def test_endpoints_refer_to_endpoints_and_labels():
    for one in endpoints._TABLE:
        assert set(one.after) <= set(endpoints.ENDPOINTS)
        assert not one.label or one.label in labels.SHOWN_BY
    assert set(labels.VOLUME_ENDPOINTS.values()) <= set(endpoints.ENDPOINTS)


def test_statistics_of_the_contract_are_registered():
    text = (REPOSITORY / "docs" / "contract.md").read_text()
    part = text.split("## Statistics names")[1].split("\n## ")[0]
    names = " ".join(re.findall(r"`([a-z0-9_\s]+)`", part)).split()
    names = [name for name in names if "_" in name or name in {"bias", "kappa", "slope"}]
    assert len(names) > 30
    unknown = {name for name in names if not statistics.registered(name)}
    assert unknown <= {"n_clusters", "_linear", "_quadratic"}


def test_a_statistic_that_is_not_registered_is_refused():
    with pytest.raises(ValueError, match="biass"):
        statistics_frame(AnalysisSpec(id="a", type=""), [StatisticRow("biass")])
    failed = statistics_frame(AnalysisSpec(id="a", type="ordinal"), [StatisticRow("ordinal")])
    assert failed.loc[0, "statistic"] == "ordinal"


def test_a_row_of_another_package_has_known_columns():
    with pytest.raises(ValueError, match="unknown columns estimat; the columns are analysis_id"):
        StatisticRow.of({"statistic": "bias", "estimat": 1.0})
    with pytest.raises(ValueError, match="names no statistic"):
        StatisticRow.of({"estimate": 1.0})
    row = StatisticRow("bias", estimate=1.0)
    assert StatisticRow.of(row) is row
    assert StatisticRow.of({"statistic": "bias", "estimate": 1.0}).cells()[:8] == row.cells()[:8]
    assert "above_null" not in STATISTICS
    assert set(STATISTICS_NUMBERS) < set(STATISTICS) and "second_method" not in STATISTICS_NUMBERS


def test_row_of_an_estimate():
    found = Estimate(2.0, 1.0, 3.0, 0.04, n=9, method="mean", note="few")
    row = found.row("bias", group="a|b", note="few; odd")
    assert (row.estimate, row.ci_low, row.ci_high, row.p_value, row.n) == (2.0, 1.0, 3.0, 0.04, 9)
    assert (row.method, row.note, row.group, row.visit) == ("mean", "few; odd", "a|b", "all")
    assert math.isnan(Estimate(2.0).row("bias").n)


def test_an_endpoint_that_is_not_registered_is_the_studys_own():
    with pytest.raises(ValueError, match="infarct_volum"):
        measurement_row("1", "day5", "infarct_volum", "pipeline", 1.0, "mL")
    sheet = {"participant_id": "1", "endpoint": "nfl", "source": "lab", "value": 3.0, "unit": "ng"}
    assert _supplied_rows(pd.DataFrame([sheet]))[0].endpoint == "nfl"


@pytest.mark.parametrize("name", ["risk_ratio", "generalised_odds_ratio", "mean_ratio_of_positive"])
def test_every_ratio_crosses_at_one(name):
    row = {"analysis_id": "a", "endpoint": "e", "visit": "v", "participant_id": "all", "group": "g"}
    row |= {"statistic": name, "method": "m", "estimate": 0.8, "n": 9.0}
    planned, without = {**row, "ci_low": 0.7, "ci_high": 0.95}, {**row, "ci_low": 0.7}
    without |= {"ci_high": 1.05, "estimate": 0.85}
    frame = _side_by_side(pd.DataFrame([planned]), pd.DataFrame([without]))
    assert "crossed" in frame.astype(str).to_numpy()


def _written_statistics(path):
    """Names of statistics that a module writes in full, with their line."""
    for node in ast.walk(ast.parse(path.read_text())):
        named = []
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            named = [v for key, v in zip(keys, node.values, strict=True) if key == "statistic"]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "not_computable":
            named = node.args[:1]
        yield from (
            (one.value, one.lineno)
            for one in named
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        )


def test_every_statistic_that_code_names_is_registered():
    folder = REPOSITORY / "workflow" / "scripts" / "corelab"
    found = {
        f"{path.name}:{line}: {name}"
        for package in ("agreement", "pharmacodynamics", "plan")
        for path in (folder / package).glob("*.py")
        for name, line in _written_statistics(path)
        if name != "Name of the statistic" and not statistics.registered(name)
    }
    assert not found


def test_types_of_analysis_are_those_of_the_schema_and_have_a_function():
    schema = load_schema("config")["$defs"]["analysis"]["properties"]["type"]["enum"]
    assert set(schema) == set(ANALYSIS_TYPES) == set(analysis_types())
    named = {name for one in ANALYSIS_TYPES.values() for name in (*one.headline, *one.main)}
    assert not {name for name in named if not statistics.registered(name)}
    numbers = [one.number for one in ANALYSIS_TYPES.values() if one.number != "14.2.13"]
    assert len(numbers) == len(set(numbers))


def test_kinds_of_scan_are_those_of_the_schema():
    text = (REPOSITORY / "workflow" / "schemas" / "sheets.schema.yaml").read_text()
    pattern = re.search(r'pattern: "\^\((T1w[^"]*)\|mask-', text).group(1)
    assert set(pattern.split("|")) == set(kinds.KINDS)
