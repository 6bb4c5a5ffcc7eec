"""XPORT, Dataset-JSON and Define-XML against what they were made from."""

from __future__ import annotations

import json
import pathlib
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from fabricated_study import fabricated_results, fabricated_study, tables_only, with_config

from corelab.provenance.job import UserError
from corelab.provenance.products import read_table, write_json, write_table
from corelab.reporting import datasets as ds
from corelab.reporting.adam import adsl, datasets
from corelab.reporting.define import DEF, ODM
from corelab.reporting.exchange_checks import ars_faults, define_faults
from corelab.reporting.submission import write_datasets
from corelab.reporting.tabulation import tabulations
from corelab.study.columns import MEASUREMENTS


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    results = fabricated_results(*fabricated_study(root))
    write_datasets(results, root / "out")
    return results, [*datasets(results), *tabulations(results)], root / "out"


def test_data_sets_of_the_study(written):
    _, found, _ = written
    assert [d.name for d in found] == [
        *("ADSL", "ADIMG", "ADREAD", "ADSEG", "ADPD", "ADARD"),
        *("PR", "NV"),
    ]
    assert len(next(d for d in found if d.name == "ADSL").frame) == 36


def test_populations_of_the_trial_are_flags_of_the_subjects(written, tmp_path):
    results, found, _ = written
    flags = [v.name for v in found[0].variables if v.name in ("ITTFL", "SAFFL", "PPROTFL")]
    assert flags == ["ITTFL"] and set(found[0].frame["ITTFL"]) == {"Y"}
    sets = {"PPROTFL": "age >= 60", "SAFFL": "arm != 'placebo'"}
    messages = with_config(results, analysis_sets=sets)
    frame = adsl(messages).frame
    assert (frame["PPROTFL"] == "Y").equals(frame["AGE"] >= 60)
    assert (frame["SAFFL"] == "Y").equals(frame["TRT01P"] != "placebo")
    with pytest.raises(UserError, match="SAFFL"):
        adsl(with_config(results, analysis_sets={"SAFFL": "x =="}))


def test_define_has_a_stylesheet_and_a_page_that_name_every_variable(written):
    etree = pytest.importorskip("lxml.etree", reason="lxml applies the stylesheet")
    _, found, folder = written
    document = etree.parse(str(folder / "define.xml"))
    named = document.xpath("preceding-sibling::processing-instruction()")
    assert named and 'href="define.xsl"' in named[0].text
    shown = str(etree.XSLT(etree.parse(str(folder / "define.xsl")))(document))
    page = (folder / "define.html").read_text(encoding="utf-8")
    for dataset in found:
        for variable in dataset.variables:
            assert f"<th>{variable.name}</th>" in shown
            assert f'<th scope="row">{variable.name}</th>' in page
    assert "<script" not in page


def test_a_study_without_a_measurement_has_its_data_sets(tmp_path):
    results = fabricated_results(*fabricated_study(tmp_path))
    none = replace(results.tables, measurements=results.measurements.iloc[:0])
    empty = replace(results, tables=none)
    found, _ = write_datasets(empty, tmp_path / "out")
    assert next(d for d in found if d.name == "ADSL").records == 36
    assert not {"ADIMG", "ADREAD"} & {d.name for d in found}


def test_transport_file_reads_back_as_the_data_set(written):
    _, found, folder = written
    for dataset in found:
        frame, meta = pyreadstat.read_xport(str(folder / f"{dataset.name.lower()}.xpt"))
        assert meta.table_name == dataset.name and meta.file_label == dataset.label
        assert meta.column_names == [v.name for v in dataset.variables]
        assert meta.column_labels == [v.label for v in dataset.variables]
        for variable in dataset.variables:
            if variable.kind == "text":
                truth = dataset.frame[variable.name].astype(object).fillna("").map(str)
                assert frame[variable.name].fillna("").tolist() == truth.tolist()
            else:
                # IBM floating point of the transport format holds 14 to 17 digits.
                np.testing.assert_allclose(
                    frame[variable.name].astype(float), dataset.frame[variable.name], rtol=1e-14
                )


def test_values_equal_measurements(written):
    results, found, _ = written
    rows = results.measurements.set_index("row_id")
    for name in ("ADIMG", "ADREAD"):
        frame = next(d for d in found if d.name == name).frame
        merged = frame.set_index("ROWID")["AVAL"]
        truth = rows.loc[merged.index, "value"]
        assert np.array_equal(merged.to_numpy(), truth.to_numpy(), equal_nan=True)
    total = sum(len(d.frame) for d in found if d.name in {"ADIMG", "ADREAD"})
    assert total == len(rows)


def test_change_is_value_minus_baseline(written):
    _, found, _ = written
    frame = next(d for d in found if d.name == "ADIMG").frame
    later = frame[
        (frame["PARAMCD"] == "INFVOL") & (frame["AVISIT"] == "day5") & frame["AVAL"].notna()
    ]
    assert len(later) == 35
    assert np.allclose(later["CHG"], later["AVAL"] - later["BASE"])


def test_header_time_is_fixed(written, tmp_path):
    _, found, folder = written
    data = (folder / "adsl.xpt").read_bytes()
    assert data[:1200].count(b"01JAN70:00:00:00") == 4
    again = ds.write_transport(found[0], tmp_path / "again.xpt").read_bytes()
    assert again == data


def _one(values, label="Text"):
    variables = (ds.Variable("KEY", "Key", "integer", key=1), ds.Variable("TXT", label))
    frame = pd.DataFrame({"KEY": np.arange(len(values), dtype=float), "TXT": values})
    return ds.Dataset("ADX", "A Data Set", "One record per key", "ADAM OTHER", variables, frame)


def test_what_transport_cannot_hold_is_refused_there_and_whole_in_json(tmp_path):
    long = "x" * 201
    dataset = _one(["fine", "환자", long, "x" * 200])
    assert [(c.record, c.variable) for c in ds.refused_cells(dataset)] == [
        (2, "TXT"),
        (3, "TXT"),
    ]
    frame, _ = pyreadstat.read_xport(str(ds.write_transport(dataset, tmp_path / "a.xpt")))
    assert frame["TXT"].tolist() == ["fine", "", "", "x" * 200]
    rows = json.loads(ds.write_dataset_json(dataset, "x", tmp_path / "d.json").read_text())["rows"]
    assert [row[1] for row in rows] == ["fine", "환자", long, "x" * 200]


def test_names_and_labels_that_do_not_fit_are_errors(tmp_path):
    with pytest.raises(ds.TransportRefusal, match="over 40 characters or not ASCII"):
        ds.write_transport(_one(["a"], label="L" * 41), tmp_path / "a.xpt")
    with pytest.raises(ds.TransportRefusal, match="not ASCII"):
        ds.write_transport(_one(["a"], label="이름"), tmp_path / "a.xpt")
    assert not (tmp_path / "a.xpt").exists()


def test_korean_ids_and_columns_survive(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    people["병원"] = "서울"
    people["initials"] = "ZGXQ"
    people.loc[0, "participant_id"] = "환자-1"
    config = {**config, "analyses": [{**config["analyses"][0], "categorical": ["병원"]}]}
    results = fabricated_results(folder, config, people)
    write_datasets(results, tmp_path / "out")
    people = adsl(results)
    assert all(v.name.isascii() and len(v.name) <= 8 for v in people.variables)
    assert people.frame["USUBJID"].map(str.isascii).all() and people.frame["USUBJID"].is_unique
    rows = json.loads((tmp_path / "out/adsl.json").read_text(encoding="utf-8"))["rows"]
    assert any("환자-1" in row for row in rows) and all("서울" in row for row in rows)
    # Nothing in the config names the initials: they identify a person and stay out.
    assert not any("ZGXQ" in row for row in rows)
    refused = read_table(tmp_path / "out/refused.tsv")
    assert {"SUBJID"} <= set(refused["variable"])


def test_dataset_json_has_what_version_1_1_requires(written):
    # Required keys: CDISC Dataset-JSON v1.1 model (dataset.yaml of DataExchange-DatasetJson).
    _, found, folder = written
    required = {"datasetJSONCreationDateTime", "datasetJSONVersion", "itemGroupOID", "records"}
    required |= {"name", "label", "columns"}
    for dataset in found:
        content = json.loads((folder / f"{dataset.name.lower()}.json").read_text(encoding="utf-8"))
        assert required <= set(content)
        assert re.fullmatch(r"1\.1(\.\d+)?", content["datasetJSONVersion"])
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", content["datasetJSONCreationDateTime"]
        )
        assert content["records"] == len(content["rows"]) == len(dataset.frame)
        for column in content["columns"]:
            assert {"itemOID", "name", "label", "dataType"} <= set(column)
        assert all(len(row) == len(content["columns"]) for row in content["rows"])


def test_define_refers_only_to_what_it_defines(written):
    _, found, folder = written
    root = ET.parse(folder / "define.xml").getroot()
    version = root.find(f".//{{{ODM}}}MetaDataVersion")
    assert version.get(f"{{{DEF}}}DefineVersion") == "2.1.0"

    def oids(tag):
        return [e.get("OID") for e in root.iter(f"{{{ODM}}}{tag}")]

    items = oids("ItemDef")
    assert len(items) == len(set(items)) == sum(len(d.variables) for d in found)
    references = [e.get("ItemOID") for e in root.iter(f"{{{ODM}}}ItemRef")]
    assert sorted(references) == sorted(items)
    assert {e.get("CodeListOID") for e in root.iter(f"{{{ODM}}}CodeListRef")} == set(
        oids("CodeList")
    )
    methods = {e.get("MethodOID") for e in root.iter(f"{{{ODM}}}ItemRef")} - {None}
    assert methods == set(oids("MethodDef"))
    comments = {e.get(f"{{{DEF}}}CommentOID") for e in root.iter(f"{{{ODM}}}ItemDef")} - {None}
    assert comments == {e.get("OID") for e in root.iter(f"{{{DEF}}}CommentDef")}
    links = [e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter(f"{{{DEF}}}leaf")]
    assert all((folder / link).is_file() for link in links)


def test_every_coded_value_is_in_its_list(written):
    _, found, _ = written
    for dataset in found:
        for variable in dataset.variables:
            if variable.codelist:
                values = dataset.frame[variable.name].dropna()
                texts = {str(int(v)) if variable.kind == "integer" else str(v) for v in values}
                assert texts <= set(ds.CODELISTS[variable.codelist]), (dataset.name, variable.name)


def test_keys_identify_records(written):
    _, found, _ = written
    for dataset in found:
        keys = [v.name for v in dataset.variables if v.key]
        assert not dataset.frame.duplicated(keys).any(), dataset.name


def test_a_study_without_a_single_value_has_its_data_sets(tmp_path):
    folder, config, people = tables_only(tmp_path)
    write_table(pd.DataFrame(columns=list(MEASUREMENTS)), folder / "endpoints/measurements.tsv",
                MEASUREMENTS)  # fmt: skip
    found, _ = write_datasets(fabricated_results(folder, config, people), tmp_path / "out")
    assert [(d.name, d.records) for d in found] == [("ADSL", 2)]
    messages = read_table(tmp_path / "out" / "conformance.tsv")
    assert messages[messages["severity"] == "error"].empty


@pytest.fixture
def define(written):
    return ET.parse(written[2] / "define.xml").getroot()


def _first(root, name, **attributes):
    return next(
        element
        for element in root.iter(f"{{{ODM}}}{name}")
        if all(element.get(key) == value for key, value in attributes.items())
    )


def test_define_is_what_the_standard_asks_for(define):
    assert define_faults(define) == []


def _drop_item(root):
    version = next(root.iter(f"{{{ODM}}}MetaDataVersion"))
    version.remove(_first(root, "ItemDef", OID="IT.ADSL.AGE"))


def _swap_parts(root):
    version = next(root.iter(f"{{{ODM}}}MetaDataVersion"))
    group = _first(root, "ItemGroupDef", Name="PR")
    version.remove(group)
    version.append(group)


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (_drop_item, "points to IT.ADSL.AGE, which is no ItemDef here"),
        (_swap_parts, "another order than the schema's"),
        (lambda r: _first(r, "ItemGroupDef", Name="NV").attrib.pop("Domain"), "names its Domain"),
        (lambda r: _first(r, "ItemDef").attrib.pop("DataType"), "has no DataType"),
        (lambda r: _first(r, "ItemDef").set("DataType", "number"), "is not a term of the standard"),
        (lambda r: _first(r, "ItemDef").set("OID", "IT.ADSL.SEX"), "is defined twice"),
        (lambda r: _first(r, "ItemRef").set("OrderNumber", "7"), "not numbered 1, 2, 3"),
        (lambda r: _first(r, "CodeList", Name="SEX").set("OID", "CL.X"), "is used by nothing"),
        (lambda r: _first(r, "CodeList", Name="SEX").set("DataType", "integer"), "its code list"),
        (lambda r: next(r.iter(f"{{{DEF}}}Origin")).set("Type", "Made up"), "not a term"),
        (lambda r: next(r.iter(f"{{{ODM}}}TranslatedText")).clear(), "no words"),
    ],
)
def test_a_damaged_define_is_told(define, damage, messages):
    damage(define)
    assert any(messages in fault for fault in define_faults(define)), define_faults(define)


def test_define_is_valid_by_the_schema_where_a_package_brings_it(written):
    # odmlib (MIT) ships the schema of Define-XML 2.1; it is not among Corelab's own requirements.
    odmlib = pytest.importorskip("odmlib")
    etree = pytest.importorskip("lxml.etree")
    schemas = pathlib.Path(odmlib.__file__).parent / "schemas" / "define" / "2.1"
    schema = etree.XMLSchema(etree.parse(str(schemas / "define2-1-0.xsd")))
    schema.assertValid(etree.parse(str(written[2] / "define.xml")))


def test_ars_resolves_and_a_damaged_one_is_reported(written, tmp_path):
    _, found, folder = written
    names = frozenset(dataset.name for dataset in found)
    event = json.loads((folder / "ars.json").read_text(encoding="utf-8"))
    assert ars_faults(folder / "ars.json", names) == []
    numbers = {output["name"].removeprefix("Table ") for output in event["outputs"]}
    assert "14.2.1" in numbers
    for output in event["outputs"]:
        stem = "t-" + output["name"].removeprefix("Table ").replace(".", "-").lower()
        places = [file["location"] for file in output["fileSpecifications"]]
        assert places == [f"../../report/tables/{stem}.{kind}" for kind in ("rtf", "html")]
    event["outputs"].pop(0)
    event["analyses"][0]["results"][0]["operationId"] = "OP_NONE"
    event["analyses"][1]["methodId"] = "MTH_NONE"
    event["analyses"][1]["dataset"] = "ADNONE"
    event["methods"].append(event["methods"][0])
    event["mainListOfContents"]["contentsList"]["listItems"].pop()
    messages = " ".join(ars_faults(write_json(event, tmp_path / "ars.json"), names))
    for words in (
        *("OP_NONE", "MTH_NONE", "ADNONE", "defined 2 times", "not in the contents"),
        "which is no output",
    ):
        assert words in messages


def test_imaging_stands_in_the_domains_that_the_standard_has_for_it(written):
    # MI is Microscopic Findings: tissue under a microscope. Imaging findings of the nervous system
    # are NV, of tumours TU and TR, the scans are procedures (PR): SDTMIG 3.4, 6.3.5 and 6.1.6.
    _, found, _ = written
    domains = {d.name: d for d in found if d.tabulation}
    assert set(domains) == {"PR", "NV"} and "MI" not in domains
    assert {d.name: d.adam_class for d in domains.values()} == {
        "PR": "INTERVENTIONS", "NV": "FINDINGS",
    }  # fmt: skip
    for name, domain in domains.items():
        assert set(domain.frame["DOMAIN"]) == {name}
        # Variables of a domain carry its prefix, but for identifiers and timing.
        free = {"STUDYID", "DOMAIN", "USUBJID", "VISITNUM", "VISIT"}
        rest = {variable.name for variable in domain.variables} - free
        assert all(variable.startswith(name) for variable in rest), rest
