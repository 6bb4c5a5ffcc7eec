"""Review desk: decisions that cannot be edited unseen, and results with and without them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study

from corelab.measurement.collect import _with_dependents, collect_measurements
from corelab.pharmacodynamics.exclusion_sensitivity import (
    EXCLUSIONS,
    _excluded_values,
    write_sensitivity,
)
from corelab.provenance.decisions import (
    COLUMNS,
    OPENED,
    DecisionFault,
    append_decision,
    current,
    exclusions,
    read_decisions,
)
from corelab.provenance.products import read_table, write_table
from corelab.records.measured import Measured, MeasurementRow
from corelab.reporting.desk import Desk
from corelab.reporting.review import desk_html, sheets
from corelab.reporting.subject_images import subject_images
from corelab.settings.measurement import MeasurementSettings
from corelab.study.columns import MEASUREMENTS, STATISTICS

WHO = {"participant_id": "S-01", "visit": "day5", "decided_by": "A. Reviewer"}


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "qc_decisions.tsv"
    append_decision(path, **WHO, decision="exclude", reason="motion")
    append_decision(path, **{**WHO, "participant_id": "S-02"}, decision="accept")
    append_decision(path, **WHO, decision="accept")
    return path


def test_the_latest_decision_counts_and_none_is_lost(table):
    assert [d.decision for d in read_decisions(table)] == ["exclude", "accept", "accept"]
    assert exclusions(read_decisions(table)) == {}
    assert exclusions(read_decisions(table)[:1])["S-01", "day5", "all"].reason == "motion"


def test_that_values_were_shown_is_recorded_and_decides_nothing(table):
    before = [d.decision for d in current(read_decisions(table))]
    append_decision(table, **WHO, decision="exclude", reason="motion")
    append_decision(table, **WHO, decision=OPENED)
    assert read_decisions(table)[-1].decision == "opened"
    assert list(exclusions(read_decisions(table))) == [("S-01", "day5", "all")]
    assert [d.decision for d in current(read_decisions(table))] == ["exclude", *before[1:]]


def test_values_are_hidden_on_the_desk_until_somebody_asks_for_them(study):
    results = fabricated_results(*study)
    html = desk_html(results, {}, [])
    assert html.count('class="soft values" hidden') == html.count('class="open-values"') > 3


@pytest.mark.parametrize("how", ["edit", "drop", "swap", "column"])
def test_a_table_that_was_tampered_with_is_refused(table, how):
    lines = table.read_text().splitlines()
    if how == "edit":
        lines[1] = lines[1].replace("motion", "nothing")
    elif how == "drop":
        del lines[2]
    elif how == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[0] = lines[0].replace("reason", "why")
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(DecisionFault, match="line"):
        read_decisions(table)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"decision": "delete"}, "none of"),
        ({"decision": "exclude"}, "needs a reason"),
        ({"decision": "accept", "decided_by": " "}, "needs decided_by"),
    ],
)
def test_what_is_not_a_decision_is_not_written(table, change, output):
    before = table.read_bytes()
    with pytest.raises(DecisionFault, match=output):
        append_decision(table, **{**WHO, **change})
    assert table.read_bytes() == before


def test_tabs_and_lines_in_a_reason_cannot_forge_a_line(table):
    append_decision(table, **WHO, decision="review", reason="a\tb\n9\tx")
    assert read_decisions(table)[-1].reason == "a b 9 x"


def _rows(**more):
    base = {"source": "pipeline", "repeat": 1, "region": "all", "unit": "mL", "status": "ok"}
    return {**base, "reason": None, "scan_ids": None, **more}


@pytest.fixture
def record(tmp_path):
    rows = [
        _rows(participant_id=p, visit=v, endpoint="infarct_volume", value=x)
        for p, v, x in [("1", "b", 10.0), ("1", "f", 14.0), ("2", "b", 20.0), ("2", "f", 21.0)]
    ]
    return Measured("1", tuple(MeasurementRow.from_json(row) for row in rows))


def _collect(record, excluded=None):
    return collect_measurements(
        [record],
        reads=None,
        supplied=None,
        listed=[],
        visit_order=["b", "f"],
        baseline="b",
        settings=MeasurementSettings(),
        excluded=excluded,
    )["measurements"]


def test_an_exclusion_takes_the_value_and_what_follows_from_it(record, tmp_path):
    path = tmp_path / "d.tsv"
    append_decision(
        path, participant_id="1", visit="b", decision="exclude", reason="motion", decided_by="A"
    )
    decided = exclusions(read_decisions(path))
    whole, kept = _collect(record), _collect(record, decided)
    assert set(whole["row_id"]) == set(kept["row_id"])
    by_id = kept.set_index(["participant_id", "visit", "endpoint"])
    assert by_id.loc[("1", "b", "infarct_volume"), "status"] == "excluded"
    assert "A on 20" in by_id.loc[("1", "b", "infarct_volume"), "reason"]
    assert np.isnan(by_id.loc[("1", "b", "infarct_volume"), "value"])
    assert by_id.loc[("1", "f", "infarct_growth"), "status"] == "not_computable"
    assert by_id.loc[("2", "f", "infarct_growth"), "value"] == 1.0
    gone = _excluded_values(kept, whole)
    assert sorted(gone["value_without"]) == [4.0, 10.0] and list(gone) == list(EXCLUSIONS)


def test_an_endpoint_alone_carries_its_dependents():
    decided = {("1", "b", "core_volume"): None}
    assert {key[2] for key in _with_dependents(decided)} == {
        "core_volume",
        "mismatch_ratio",
        "penumbra_volume",
    }


def _statistics(path, **numbers):
    row = dict.fromkeys(STATISTICS, "")
    row |= {"analysis_id": "a", "participant_id": "all", "statistic": "slope", **numbers}
    write_table(pd.DataFrame([row]), path, list(STATISTICS))
    return str(path)


def test_sensitivity_sets_both_side_by_side(tmp_path, record):
    write_table(_collect(record), tmp_path / "m.tsv", MEASUREMENTS)
    first = _statistics(tmp_path / "p.tsv", estimate=1.0, ci_low=-0.5, ci_high=2.5, n=9)
    second = _statistics(tmp_path / "w.tsv", estimate=1.5, ci_low=0.25, ci_high=2.75, n=10)
    for without, number in (([second], 1), ([], 0)):
        write_sensitivity(
            [first],
            without,
            tmp_path / "m.tsv",
            tmp_path / "m.tsv",
            statistics=tmp_path / "s.tsv",
            values=tmp_path / "v.tsv",
        )
        table = read_table(tmp_path / "s.tsv", numeric=["difference", "n_without"])
        assert len(table) == number
        if number:
            assert table.loc[0, "verdict"] == "crossed"
            assert table.loc[0, "difference"] == 0.5 and table.loc[0, "n_without"] == 10
    assert len(read_table(tmp_path / "v.tsv")) == 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fabricated_study(tmp_path_factory.mktemp("desk"))


def test_the_desk_shows_every_visit_and_no_arm(study):
    results = fabricated_results(*study)
    report = study[0] / "report"
    drawn = {name: subject_images(results, name, report) for name in results.image_subjects}
    html = desk_html(results, drawn, [])
    assert len(sheets(results, drawn)) == len(results.visits) > 3
    assert all(sheet.pictures for sheet in sheets(results, drawn))
    assert html.count('class="sheet"') == len(results.visits)
    body = html.split("<main")[1].split("</main>")[0]
    for arm in set(results.participants["arm"].dropna()):
        assert f">{arm}<" not in body and f" {arm} " not in body
    assert len(html) < 6_000_000 and html == desk_html(results, drawn, [])


@pytest.fixture
def desk(study, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "review.html").write_text("the desk")
    with Desk(folder, tmp_path / "qc_decisions.tsv") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _ask(url, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_served_desk_writes_decisions(desk):
    assert _ask(desk.url) == (200, b"the desk")
    address = desk.url.replace("review.html", "decisions")
    assert _ask(address) == (200, b"[]")
    status, output = _ask(address, {**WHO, "decision": "exclude"})
    assert status == 400 and b"needs a reason" in output
    status, rows = _ask(address, {**WHO, "decision": "exclude", "reason": "motion"})
    assert status == 200 and json.loads(rows)[0]["reason"] == "motion"
    assert [d.decision for d in read_decisions(desk.decisions)] == ["exclude"]


def test_nobody_else_can_decide(desk):
    address = desk.url.replace("review.html", "decisions")
    body = {**WHO, "decision": "accept"}
    assert _ask(address, body, Origin="http://elsewhere.example")[0] == 403
    assert _ask(address, body, Host="rebound.example")[0] == 403
    assert _ask(address.replace(desk.token, "guess"), body)[0] == 403
    assert _ask(desk.url.replace("review.html", "../qc_decisions.tsv"))[0] == 404
    assert not desk.decisions.exists() and desk.server_address[0] == "127.0.0.1"


def test_columns_are_described():
    assert list(COLUMNS)[-2:] == ["previous_sha256", "sha256"]
