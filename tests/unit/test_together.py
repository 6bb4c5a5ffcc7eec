"""Analyses of one job: an edited entry is computed alone, an unexpected error stops no other."""

import pandas as pd
import pytest

from corelab.pharmacodynamics import correlation
from corelab.plan.failures import failed_products
from corelab.plan.together import Given, analyse_together
from corelab.settings.analyses import spec_of
from corelab.study.columns import MEASUREMENTS, OVERLAP
from corelab.study.model import Study

PLAN = [
    {
        "id": name,
        "type": "correlation",
        "endpoint": "infarct_volume",
        "outcome": "nihss",
        "method": method,
    }
    for name, method in (("one", "pearson"), ("two", "spearman"))
]


@pytest.fixture
def given(tmp_path):
    people = [f"{n:03d}" for n in range(8)]
    sheets = {
        "participants": pd.DataFrame({"participant_id": people}),
        "outcomes": pd.DataFrame(
            {"participant_id": people, "visit": "day5", "outcome": "nihss", "value": range(8)}
        ).astype(str),
    }
    paths = {}
    for name, frame in sheets.items():
        paths[name] = tmp_path / f"{name}.tsv"
        frame.to_csv(paths[name], sep="\t", index=False)
    cells = {"participant_id": people, "visit": "day5", "endpoint": "infarct_volume"}
    more = {"source": "pipeline", "repeat": 1, "region": "all", "status": "ok"}
    rows = pd.DataFrame({**cells, **more, "value": [3, 1, 4, 1, 5, 9, 2, 6]})
    rows = rows.reindex(columns=list(MEASUREMENTS))
    rows.to_csv(tmp_path / "measurements.tsv", sep="\t", index=False, na_rep="n/a")
    (tmp_path / "overlap.tsv").write_text("\t".join(OVERLAP) + "\n")
    blocks = ("study", "visits", "grades", "recode", "locked_plan", "reading")
    config = dict.fromkeys(blocks, None) | {"study": {"id": "s"}, "results_dir": str(tmp_path)}
    config = {key: value for key, value in config.items() if value is not None}
    config |= {"visits": {}, "grades": {}, "recode": {}, "locked_plan": None, "reading": {}}
    return Given(
        study=Study(config, sheets, (), sheet_paths=paths, visit_order=("day5",)),
        rule="analyse",
        code="c1",
        measurements=str(tmp_path / "measurements.tsv"),
        overlap=str(tmp_path / "overlap.tsv"),
    )


def run(given, plan):
    folder = given.study.folder / "statistics" / "by_analysis"
    tables = [str(folder / f"{one['id']}.tsv") for one in plan]
    analyse_together([spec_of(one) for one in plan], given, tables)
    return {one["id"]: pd.read_csv(path, sep="\t") for one, path in zip(plan, tables, strict=True)}


def entries(given):
    folder = given.study.folder / "jobs" / "analyse"
    return {path.stem: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_an_edited_entry_is_computed_alone(given):
    first, before = run(given, PLAN), entries(given)
    assert first["one"]["estimate"].notna().any() and set(before) == {"one", "two"}
    assert entries(given) == before and run(given, PLAN)["two"].equals(first["two"])
    edited = run(given, [PLAN[0], {**PLAN[1], "method": "kendall"}])
    assert set(edited["two"]["statistic"]) == {"kendall_tau"} and edited["one"].equals(first["one"])
    after = entries(given)
    assert [name for name in after if after[name] != before[name]] == ["two"]


def test_a_sheet_that_an_analysis_reads_computes_it_again(given):
    run(given, PLAN)
    before = entries(given)
    sheet = given.study.sheet_paths["outcomes"]
    sheet.write_text(sheet.read_text().replace("\t7\n", "\t8\n"))
    from corelab.plan import together

    together._sha256.cache_clear()  # another process reads it anew
    run(given, PLAN)
    assert all(one != before[name] for name, one in entries(given).items())


def test_an_error_of_ours_stops_no_other_analysis(given, monkeypatch, capfd):
    computed = correlation.analyse

    def fails(analysis, tables):
        if analysis.id == "one":
            raise KeyError("no such thing")
        return computed(analysis, tables)

    monkeypatch.setattr(correlation, "analyse", fails)
    with capfd.disabled():  # Python's stdout is then the file descriptor that goes to the logs
        made = run(given, PLAN)
    assert made["two"]["estimate"].notna().any()
    ((_, cause),) = failed_products(given.study.folder).values()
    assert cause == "KeyError: 'no such thing'; log: logs/analyse/one.log"
    log = (given.study.folder / "logs" / "analyse" / "one.log").read_text()
    assert "Traceback" in log and "Analysis one ended in an unexpected error" in log
    assert not (given.study.folder / "logs" / "analyse" / "two.log").read_text()
