"""Strips of quality metrics by site."""

import re
from html import unescape

import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study

from corelab.provenance.products import write_table
from corelab.reporting.quality_strips import MAX_POINTS, quality_metrics, quality_strips
from corelab.study.columns import ACQUISITION


@pytest.fixture
def study(tmp_path):
    folder, config, people = fabricated_study(tmp_path, images=False)
    rows = []
    for k in range(200):
        row = dict.fromkeys(ACQUISITION, "n/a")
        who = str(people["participant_id"].iloc[k % len(people)])
        row |= {"participant_id": who, "visit": "baseline", "kind": "dwi", "verdict": "pass"}
        row |= {"criterion": "slice_gap_mm_max", "value": k / 100, "site": f"s{k % 2}"}
        rows.append(row)
        rows.append({**row, "criterion": "readable", "value": "yes"})
        rows.append({**row, "criterion": "coverage_mm_min", "value": 120})
    rows[300]["verdict"] = "fail"  # the 101st gap, in the middle of its site
    write_table(pd.DataFrame(rows), folder / "endpoints" / "acquisition.tsv", list(ACQUISITION))
    return fabricated_results(folder, config, people)


def test_only_numbers_that_differ_are_metrics(study):
    found = quality_metrics(study)
    assert set(found["metric"]) == {"DWI: slice gap, mm"} and len(found) == 200


def test_a_strip_links_its_points_and_keeps_every_fault(study):
    (strip,) = quality_strips(study)
    assert strip.caption == "200 values, 1 outside or doubtful"
    text = str(strip.svg)
    links = re.findall(r'<a xlink:href="(sub-[^"]+)"', text)
    assert {unescape(link) for link in links} <= set(study.pages.values())
    # Of 100 values a site the ends are drawn, and the fault that lies between them.
    assert len(links) == MAX_POINTS + 1
    assert "var(--s5)" in text  # red
