"""Define-XML 2.1: what the data sets are, for the programs that read submissions."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from corelab.provenance.products import atomic_path, write_text
from corelab.reporting import page
from corelab.reporting.datasets import CODELISTS, Description, Variable, Written
from corelab.reporting.documents import TEMPLATES, epoch, program
from corelab.reporting.exhibits import common_content
from corelab.reporting.results import Results

ODM = "http://www.cdisc.org/ns/odm/v1.3"
DEF = "http://www.cdisc.org/ns/def/v2.1"
XLINK = "http://www.w3.org/1999/xlink"
XML = "http://www.w3.org/XML/1998/namespace"


def _odm(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{ODM}}}{name}", attributes)


def _def(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{DEF}}}{name}", attributes)


def _description(parent: ET.Element, text: str) -> None:
    words = _odm(_odm(parent, "Description"), "TranslatedText")
    words.set(f"{{{XML}}}lang", "en")
    words.text = text


def _group(version: ET.Element, dataset: Description) -> None:
    name = dataset.name
    group = _odm(
        version,
        "ItemGroupDef",
        OID=f"IG.{name}",
        Name=name,
        Repeating="No" if name == "ADSL" else "Yes",
        IsReferenceData="Yes" if name == "ADARD" else "No",
        SASDatasetName=name,
        Purpose="Tabulation" if dataset.tabulation else "Analysis",
    )
    if dataset.tabulation:
        group.set("Domain", name)
    group.set(f"{{{DEF}}}Structure", dataset.structure)
    group.set(f"{{{DEF}}}StandardOID", "STD.2" if dataset.tabulation else "STD.1")
    group.set(f"{{{DEF}}}ArchiveLocationID", f"LF.{name}")
    _description(group, dataset.label)
    for number, variable in enumerate(dataset.variables, start=1):
        reference = _odm(
            group,
            "ItemRef",
            ItemOID=f"IT.{name}.{variable.name}",
            OrderNumber=str(number),
            Mandatory="Yes" if variable.key or variable.name == "STUDYID" else "No",
        )
        if variable.key:
            reference.set("KeySequence", str(variable.key))
        if variable.origin == "Derived":
            reference.set("MethodOID", f"MT.{name}.{variable.name}")
    _def(group, "Class", Name=dataset.adam_class)
    leaf = _def(group, "leaf", ID=f"LF.{name}")
    leaf.set(f"{{{XLINK}}}href", f"{name.lower()}.xpt")
    _def(leaf, "title").text = f"{name.lower()}.xpt"


def _item(version: ET.Element, dataset: Written, variable: Variable) -> None:
    item = _odm(
        version,
        "ItemDef",
        OID=f"IT.{dataset.name}.{variable.name}",
        Name=variable.name,
        DataType=variable.kind,
        Length=str(dataset.lengths[variable.name]),
        SASFieldName=variable.name,
    )
    if variable.kind == "float":
        item.set("SignificantDigits", "15")
        item.set("Length", "17")
    if variable.comment and variable.origin != "Derived":
        item.set(f"{{{DEF}}}CommentOID", f"COM.{dataset.name}.{variable.name}")
    _description(item, variable.label)
    if variable.codelist:
        _odm(item, "CodeListRef", CodeListOID=f"CL.{variable.codelist}")
    origin = _def(item, "Origin", Type=variable.origin)
    if variable.origin != "Predecessor":
        origin.set("Source", "Sponsor")
    else:
        _description(origin, "Sheet of the study or endpoints/measurements.tsv")


def _codelists(version: ET.Element, datasets: Sequence[Written]) -> None:
    for name, terms in CODELISTS.items():
        if not _uses(datasets, name):
            continue
        kind = "integer" if name == "CNSR" else "text"
        codelist = _odm(version, "CodeList", OID=f"CL.{name}", Name=name, DataType=kind)
        codelist.set(f"{{{DEF}}}IsNonStandard", "Yes")
        for term, meaning in terms.items():
            entry = _odm(codelist, "CodeListItem", CodedValue=term)
            words = _odm(_odm(entry, "Decode"), "TranslatedText")
            words.set(f"{{{XML}}}lang", "en")
            words.text = meaning


def _define_tree(datasets: Sequence[Written], results: Results) -> ET.Element:
    """The document's root element."""
    for prefix, uri in (("", ODM), ("def", DEF), ("xlink", XLINK)):
        ET.register_namespace(prefix, uri)
    study_id = results.study.id
    root = ET.Element(
        f"{{{ODM}}}ODM",
        {
            "FileOID": f"DEF.{study_id}",
            "FileType": "Snapshot",
            "ODMVersion": "1.3.2",
            "CreationDateTime": epoch().strftime("%Y-%m-%dT%H:%M:%S"),
            "Originator": "corelab",
            "SourceSystem": program(),
            f"{{{DEF}}}Context": "Submission",
        },
    )
    study = _odm(root, "Study", OID=f"STUDY.{study_id}")
    names = _odm(study, "GlobalVariables")
    _odm(names, "StudyName").text = study_id
    _odm(names, "StudyDescription").text = results.title
    _odm(names, "ProtocolName").text = study_id
    version = _odm(
        study,
        "MetaDataVersion",
        OID=f"MDV.{study_id}",
        Name=f"Data definitions of {study_id}",
        Description=f"Plan fingerprint {results.fingerprint}",
    )
    version.set(f"{{{DEF}}}DefineVersion", "2.1.0")
    standards = _def(version, "Standards")
    _def(
        standards, "Standard", OID="STD.1", Name="ADaMIG", Type="IG", Version="1.3", Status="Final"
    )
    _def(
        standards, "Standard", OID="STD.2", Name="SDTMIG", Type="IG", Version="3.4", Status="Final"
    )
    for dataset in datasets:
        _group(version, dataset)
    for dataset in datasets:
        for variable in dataset.variables:
            _item(version, dataset, variable)
    _codelists(version, datasets)
    for dataset in datasets:
        for variable in dataset.variables:
            if variable.origin == "Derived":
                method = _odm(
                    version,
                    "MethodDef",
                    OID=f"MT.{dataset.name}.{variable.name}",
                    Name=f"Algorithm of {variable.name}",
                    Type="Computation",
                )
                _description(method, variable.comment or f"{variable.label}; see the methods")
    for dataset in datasets:
        for variable in dataset.variables:
            if variable.comment and variable.origin != "Derived":
                comment = _def(version, "CommentDef", OID=f"COM.{dataset.name}.{variable.name}")
                _description(comment, variable.comment)
    return root


def write_define(datasets: Sequence[Written], results: Results, path: str | Path) -> Path:
    """Write define.xml, its stylesheet ``define.xsl`` beside it, and the same as ``define.html``.

    Browsers refuse a stylesheet of a file that was opened from disk: the page is for them.
    """
    root = _define_tree(datasets, results)
    ET.indent(root)
    text = ET.tostring(root, encoding="utf-8", xml_declaration=True, short_empty_elements=True)
    declaration, _, body = text.partition(b"\n")
    style = b'<?xml-stylesheet type="text/xsl" href="define.xsl"?>'
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"\n".join([declaration, style, body, b""]))
    target = Path(path)
    sheet = (TEMPLATES / "define.xsl").read_text(encoding="utf-8")
    write_text(sheet, target.with_name("define.xsl"))
    write_text(_define_page(datasets, results), target.with_name("define.html"))
    return target


def _define_page(datasets: Sequence[Written], results: Results) -> str:
    """The data definitions as one page without scripts."""
    terms = {name: CODELISTS[name] for name in CODELISTS if _uses(datasets, name)}
    return page.render(
        "define.html.j2",
        common_content(results, None),
        policy=page.security_policy([]),
        study=results.study.id,
        title=results.title,
        fingerprint=results.fingerprint,
        datasets=datasets,
        codelists=terms,
    )


def _uses(datasets: Sequence[Written], codelist: str) -> bool:
    return any(v.codelist == codelist for dataset in datasets for v in dataset.variables)
