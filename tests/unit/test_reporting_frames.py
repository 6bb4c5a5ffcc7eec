"""Rows behind an analysis: which were used, and why the others were not."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study
from helpers import planned, run

from corelab.measurement.selection import Tables
from corelab.provenance.products import read_table
from corelab.reporting.analysis_frames import NOT_IN_POPULATION, analysis_frame
from corelab.reporting.report import write_report
from corelab.reporting.results import Results

COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]
PLAN = {"id": "d", "type": "dose_response", "endpoint": "infarct_growth", "dose": "dose"}
PLAN |= {
    "source": "reader-1",
    "visit": "v2",
    "models": ["linear"],
    "population": "withdrawn == 'no'",
}


def _results(plan, **dose):
    rng = np.random.default_rng(1)
    people = pd.DataFrame({"participant_id": [f"{i:02d}" for i in range(12)]})
    people["dose"] = [float(i % 3) for i in range(12)]
    people.loc[3, "dose"] = None
    people["withdrawn"] = ["yes" if i == 5 else "no" for i in range(12)]
    rows = [
        (name, "v2", "infarct_growth", source, repeat, "all", float(rng.normal(20, 5)), "ok")
        for name in people["participant_id"]
        for source in ("reader-1", "reader-2")
        for repeat in (1, 2)
        if name != "07"
    ]
    rows.append(("07", "v2", "infarct_growth", "reader-1", 1, "all", None, "missing"))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["row_id"] = [f"r-{n}" for n in range(len(frame))]
    frame["reason"] = [None if status == "ok" else "scan not done" for status in frame["status"]]
    tables = Tables(frame, people, visit_order=("v1", "v2"), baseline="v1")
    statistics = run(plan, tables)
    empty = pd.DataFrame()
    return Results(
        None, {"study": {}, "analyses": [plan]}, tables, empty, empty, empty,
        {"pharmacodynamics": statistics}, empty, None, (), {}, (),
    )  # fmt: skip


def test_the_rows_used_are_those_of_the_estimate_and_refit_to_it():
    results = _results(PLAN)
    found = analysis_frame(results, planned(PLAN))
    assert found.agrees and found.values == ("infarct_growth", "dose")
    used = found.rows[found.rows["used"] == "yes"]
    rows = results.statistics_of("d").set_index("statistic")
    slope = np.polyfit(used["dose"].astype(float), used["infarct_growth"].astype(float), 1)[0]
    assert slope == pytest.approx(rows.loc["slope", "estimate"], rel=1e-10)
    assert len(used) == rows.loc["slope", "n"] == 9
    why = found.rows.set_index("participant_id")["reason"]
    assert why["03"] == "no dose" and why["05"] == NOT_IN_POPULATION
    assert why["07"] == "no infarct growth (scan not done)"


def test_a_number_of_rows_that_is_not_that_of_the_statistics_is_said():
    results = _results(PLAN)
    results.statistics["pharmacodynamics"]["n"] = 8
    results.__dict__.pop("all_statistics", None)
    assert not analysis_frame(results, planned(PLAN)).agrees


def test_each_trace_shows_the_rows_used_and_has_them_as_a_table(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    write_report(fabricated_results(folder, config, people))
    named = {path.stem for path in (folder / "report" / "data").glob("*.tsv")}
    assert "growth-by-dose" in named
    table = read_table(folder / "report" / "data" / "growth-by-dose.tsv")
    assert set(table["used"]) <= {"yes", "no"} and "dose" in table
    page = (folder / "report" / "trace-growth-by-dose.html").read_text(encoding="utf-8")
    assert "rows used." in page and "data/growth-by-dose.tsv" in page
    # A column has one number of decimals and names its unit.
    assert ">Infarct growth, mL<" in page
    cells = re.findall(r'<td class="number main[^>]*><a[^>]*>([^<]*)</a>', page)
    assert cells and all(re.fullmatch(r"−?\d+\.\d", cell) for cell in cells)
