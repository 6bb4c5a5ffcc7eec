"""Small parts of the plan, each by an example whose answer is known."""

import pandas as pd

from corelab.plan.failures import failed_frame, failure_words
from corelab.plan.record import PlanRecord
from corelab.plan.run import _one_sided, analysis_types
from corelab.plan.specification_figure import specification_figure
from corelab.plan.specifications import conclusions, one_question
from corelab.settings.analyses import ANALYSIS_TYPES
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.config import Config


def test_a_failed_analysis_is_a_row_with_its_cause():
    frame = failed_frame(AnalysisSpec(id="a", type="comparison"), KeyError("x"), "logs/a.log")
    assert frame.loc[0, "note"] == "not_computable: failed (KeyError: 'x'; log: logs/a.log)"
    first = failure_words({"s/by_analysis/a.tsv": ("a", "KeyError: 'x'")}).splitlines()[0]
    assert first.startswith("1 analysis ended in an unexpected error")


def test_the_plan_has_the_fingerprint_of_the_config():
    config = Config(study={"id": "a"}, inputs={"participants": "p.tsv"})
    assert PlanRecord.of(config).fingerprint == config.plan_fingerprint


def test_every_type_has_a_function():
    assert set(analysis_types()) == set(ANALYSIS_TYPES)


def test_p_values_of_the_planned_side():
    rows = pd.DataFrame(
        {
            "statistic": ["slope", "slope"],
            "estimate": [1.0, -1.0],
            "p_value": [0.04, 0.04],
            "note": ["", "n"],
        }
    )
    found = _one_sided(rows, "greater")[["p_value", "note"]].values.tolist()
    assert found == [[0.02, "one-sided p (greater)"], [0.98, "n; one-sided p (greater)"]]


def test_rows_that_conclude_and_answer_one_question():
    frame = pd.DataFrame({"statistic": ["adjusted_mean", "mean_difference"], "group": "a"})
    assert conclusions(frame)["statistic"].tolist() == ["mean_difference"]
    table = pd.DataFrame(
        {
            "planned": [1, 1, 0],
            "group": ["a", "b", "a"],
            "visit": "v",
            "statistic": "slope",
            "estimate": 1.0,
            "specification": ["planned", "planned", "x=1"],
        }
    )
    assert one_question(table)["group"].tolist() == ["a", "a"]


def test_specification_curve_names_the_contrast():
    table = pd.DataFrame(
        {
            "analysis_id": "main",
            "planned": [1, 0],
            "group": "arm=high|arm=placebo",
            "visit": "v",
            "statistic": "mean_difference",
            "estimate": [1.0, 2.0],
            "ci_low": 0.0,
            "ci_high": 3.0,
            "specification": ["planned", "x=1"],
            "choices": ["x=0", "x=1"],
        }
    )
    drawn = specification_figure(table)
    assert drawn.figure is not None
    title = drawn.figure.axes[0].get_title(loc="left")
    assert title == "high vs placebo: 2 of 2 specifications; diamond: as planned"
