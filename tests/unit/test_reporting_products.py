"""Analysis results, ARS, table files, conformance, procedure, crate: one source, no loose ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fabricated_study import fabricated_results, fabricated_study, with_config

from corelab.provenance.crate import crate, write_crate
from corelab.provenance.manifest import Source, _host_independent, build_manifest
from corelab.provenance.products import json_text
from corelab.provenance.rules import workflow_rules
from corelab.reporting.adam import datasets
from corelab.reporting.analysis_results import ANALYSIS_RESULTS, analysis_results
from corelab.reporting.ars import write_event
from corelab.reporting.charter import attestations, charter_sections, empty_sections, unfixed_limits
from corelab.reporting.conformance import conformance
from corelab.reporting.documents import DataTable
from corelab.reporting.sop import sop_blocks
from corelab.reporting.table_files import html_table, rtf_table, write_table_files
from corelab.reporting.tabulation import tabulations
from corelab.reporting.tlf import table_numbers
from corelab.settings.config import Config
from corelab.settings.study import StudySettings


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fabricated_results(*fabricated_study(tmp_path_factory.mktemp("products")))


@pytest.fixture(scope="module")
def frame(results):
    return analysis_results(results, table_numbers(results))


def test_one_row_per_statistic_with_an_identifier_of_its_own(results, frame):
    assert list(frame) == list(ANALYSIS_RESULTS) and frame["result_id"].is_unique
    planned = frame[frame["analysis_id"] != "description"]
    assert len(planned) == len(results.all_statistics)
    same = planned["value"].to_numpy(float), results.all_statistics["estimate"].to_numpy(float)
    assert np.array_equal(*same, equal_nan=True)
    assert (frame.loc[frame["value"].notna(), "shown"] != "").all()


def test_ars_refers_only_to_what_it_defines(results, frame, tmp_path):
    event = json.loads(write_event(results, frame, tmp_path / "ars.json").read_text())
    operations = {o["id"] for m in event["methods"] for o in m["operations"]}
    methods = {m["id"] for m in event["methods"]}
    sets = {s["id"] for s in event["analysisSets"]}
    groupings = {g["id"] for g in event["analysisGroupings"]}
    number = 0
    for analysis in event["analyses"]:
        assert analysis["methodId"] in methods and analysis["analysisSetId"] in sets
        for result in analysis["results"]:
            number += 1
            assert result["operationId"] in operations
            assert {g["groupingId"] for g in result["resultGroups"]} <= groupings
    assert number == len(frame)


HOSTILE = DataTable(
    "14.2.9",
    "T <b>{\\par}",
    ("A<i>", ">V"),
    (("a\\par {x} <script>", "1 \N{GREATER-THAN OR EQUAL TO} \N{GREEK SMALL LETTER KAPPA}"),),
    "a.tsv",
    ("note <u>",),
)


def test_tables_as_html_and_rtf_are_escaped_and_repeat():
    html, rtf = html_table(HOSTILE, "foot"), rtf_table(HOSTILE, "foot")
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>" not in html
    assert "a\\\\par \\{x\\}" in rtf and rtf.isascii() and "\\u954" in rtf
    # Braces that open are braces that close, escaped ones aside: the file can be read.
    bare = re.sub(r"\\[\\{}]", "", rtf)
    assert bare.count("{") == bare.count("}")
    assert (html, rtf) == (html_table(HOSTILE, "foot"), rtf_table(HOSTILE, "foot"))


def test_numbered_tables_are_files_and_old_ones_go(tmp_path):
    (tmp_path / "t-9.html").write_text("old")
    made = write_table_files([HOSTILE, replace(HOSTILE, number="")], tmp_path)
    names = ["index.html", "t-14-2-9.html", "t-14-2-9.rtf"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    listed = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall('href="(t-[^"]*)"', listed) == names[1:] and "<script>" not in listed
    assert sorted(path.name for path in made) == names


def test_data_sets_conform_and_faults_are_found(results):
    found = [*datasets(results), *tabulations(results)]
    assert {"PR", "NV"} <= {d.name for d in found}
    errors = conformance(found)
    assert errors[errors["severity"] == "error"].empty, errors
    people = found[0]
    broken = people.frame.astype({"SEX": object})
    broken.loc[0, "SEX"] = "maybe"
    broken.loc[1, "USUBJID"] = broken.loc[2, "USUBJID"]
    output = conformance([replace(people, frame=broken), *found[1:]])
    output = output[output["severity"] == "error"]
    assert {"maybe", "repeated key"} <= set(output["value"])
    assert "subject of ADSL" in set(output["rule"])


def test_procedure_is_written_from_rules_config_and_versions(results):
    blocks = sop_blocks(results)
    assert blocks == sop_blocks(results)
    steps = next(b for b in blocks if isinstance(b, DataTable) and b.title == "Steps in order")
    names = [row[1] for row in steps.rows]
    assert names.index("segment") < names.index("measure") < names.index("report")
    assert names[-1] in {"verified", "manifest"} and "review" not in names
    text = str(blocks)
    assert "study.id" in text and "numpy" in text
    # A study without images names no step of images, also not as one that another one follows.
    steps = next(
        b
        for b in sop_blocks(results, ["preflight", "collect", "analyse", "report"])
        if isinstance(b, DataTable) and b.title == "Steps in order"
    )
    assert [row[1] for row in steps.rows] == ["preflight", "collect", "analyse", "report"]
    assert {name for row in steps.rows for name in row[3].split(", ")} <= {
        *("", "preflight", "collect", "analyse"),
    }


def test_every_rule_is_known_with_its_words_and_order():
    rules = {rule.name: rule for rule in workflow_rules()}
    assert "analyse" in rules["statistics_tables"].after and "collect" in rules["analyse"].after
    assert all(rule.text.endswith((".", ")")) or ":" in rule.text for rule in rules.values())


def test_charter_texts_and_attestations_come_from_the_config(results):
    assert not any(item.given for item in attestations(results))
    output = with_config(
        results,
        charter={"responsibilities": "The sponsor.\n\nThe core laboratory."},
        attestations={"C20": {"by": "A", "at": "2026-01-01"}},
        reading={"limits": {"double_read_agreement_min": 0.8}},
    )
    before = empty_sections(charter_sections(results))
    after = empty_sections(charter_sections(output))
    assert set(before) - set(after) == {"3 Responsibilities"}
    assert [item.key for item in attestations(output) if item.given] == ["C20"]
    assert len(unfixed_limits(results)) - len(unfixed_limits(output)) == 1


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints/measurements.tsv").write_text("x\n")
    return build_manifest(
        tmp_path,
        study=StudySettings(id="a"),
        plan_fingerprint="1",
        code={"collect": "abc"},
        sources=[Source("s.tsv", "00")],
        parameters=Config(study={"id": "a"}, inputs={"participants": "/data/there/people.tsv"}),
    )


def test_manifest_names_role_rule_and_inputs_and_no_machine(manifest):
    entry = dict(manifest.products)["endpoints/measurements.tsv"]
    assert (entry.role, entry.rule) == ("endpoint table", "collect")
    assert manifest.rules["collect"].code == "abc"
    assert "measure" in manifest.rules["collect"].inputs
    assert manifest.parameters["inputs"]["participants"] == "people.tsv"
    assert _host_independent("/a/b") == "b" and "/data" not in json_text(manifest)


def test_crate_meets_the_workflow_run_profile(manifest, tmp_path):
    # What Workflow Run Crate 0.5 and the profiles below it require (checked with roc-validator too).
    write_crate(manifest, tmp_path / "provenance/ro-crate-metadata.json", tmp_path)
    made = json.loads((tmp_path / "ro-crate-metadata.json").read_text())
    by_id = {item["@id"]: item for item in made["@graph"]}
    assert len(by_id) == len(made["@graph"])
    root = by_id["./"]
    assert {"name", "description", "license", "datePublished", "mainEntity"} <= set(root)
    conforms = {item["@id"] for item in root["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in conforms <= set(by_id)
    workflow = by_id[root["mainEntity"]["@id"]]
    assert set(workflow["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert (tmp_path / workflow["@id"]).is_file()
    run = by_id["#run"]
    assert run["@type"] == "CreateAction" and run["instrument"]["@id"] == workflow["@id"]

    def references(value):
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                yield value["@id"]
            else:
                for item in value.values():
                    yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    dangling = {r for r in references(made["@graph"]) if r not in by_id}
    assert dangling <= {"https://w3id.org/ro/crate/1.1", "https://snakemake.github.io"}
    for item in made["@graph"]:
        if item["@type"] == "File":
            assert (tmp_path / item["@id"]).is_file()
    assert list(crate(manifest, "../")["@graph"])[1]["mainEntity"]["@id"].startswith("../")
