"""Checks of define.xml and ars.json: what the standards require, and that every reference resolves.

Sources: CDISC Define-XML 2.1 specification (elements, attributes, order, enumerations) and the
logical model of the Analysis Results Standard 1.0. The checks read the finished documents and
share no code with what writes them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from corelab.provenance.products import read_json

_ODM = "{http://www.cdisc.org/ns/odm/v1.3}"
_DEF = "{http://www.cdisc.org/ns/def/v2.1}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

#: Children of an element, in the order that the schema asks for.
ORDER = {
    "ODM": ("Study",),
    "Study": ("GlobalVariables", "MetaDataVersion"),
    "GlobalVariables": ("StudyName", "StudyDescription", "ProtocolName"),
    "MetaDataVersion": (
        "def:Standards", "def:AnnotatedCRF", "def:SupplementalDoc", "def:ValueListDef",
        "def:WhereClauseDef", "ItemGroupDef", "ItemDef", "CodeList", "MethodDef",
        "def:CommentDef", "def:leaf",
    ),
    "ItemGroupDef": ("Description", "ItemRef", "Alias", "def:Class", "def:leaf"),
    "ItemDef": ("Description", "CodeListRef", "Alias", "def:Origin", "def:ValueListRef"),
    "CodeList": ("Description", "CodeListItem", "EnumeratedItem", "ExternalCodeList", "Alias"),
    "CodeListItem": ("Description", "Decode", "Alias"),
    "MethodDef": ("Description", "def:DocumentRef", "FormalExpression"),
    "def:CommentDef": ("Description", "def:DocumentRef"),
    "def:Origin": ("Description", "def:DocumentRef"),
}  # fmt: skip
#: Required attributes.
REQUIRED = {
    "ODM": ("FileType", "FileOID", "ODMVersion", "CreationDateTime", "def:Context"),
    "Study": ("OID",),
    "MetaDataVersion": ("OID", "Name", "def:DefineVersion"),
    "def:Standard": ("OID", "Name", "Type", "Version", "Status"),
    "ItemGroupDef": (
        "OID", "Name", "Repeating", "IsReferenceData", "SASDatasetName", "Purpose",
        "def:Structure", "def:StandardOID", "def:ArchiveLocationID",
    ),
    "ItemRef": ("ItemOID", "OrderNumber", "Mandatory"),
    "ItemDef": ("OID", "Name", "DataType", "SASFieldName"),
    "CodeListRef": ("CodeListOID",),
    "CodeList": ("OID", "Name", "DataType"),
    "CodeListItem": ("CodedValue",),
    "MethodDef": ("OID", "Name", "Type"),
    "def:CommentDef": ("OID",),
    "def:Class": ("Name",),
    "def:Origin": ("Type",),
    "def:leaf": ("ID", "href"),
}  # fmt: skip
#: Values that an attribute may have.
ALLOWED = {
    ("ODM", "FileType"): {"Snapshot"},
    ("ODM", "ODMVersion"): {"1.3.2"},
    ("ODM", "def:Context"): {"Submission", "Other"},
    ("ItemGroupDef", "Purpose"): {"Tabulation", "Analysis"},
    ("ItemGroupDef", "Repeating"): {"Yes", "No"},
    ("ItemGroupDef", "IsReferenceData"): {"Yes", "No"},
    ("ItemRef", "Mandatory"): {"Yes", "No"},
    ("ItemDef", "DataType"): {
        "text", "integer", "float", "datetime", "date", "time", "partialDate", "partialTime",
        "partialDatetime", "incompleteDatetime", "durationDatetime", "intervalDatetime",
    },
    ("CodeList", "DataType"): {"text", "integer", "float"},
    ("MethodDef", "Type"): {"Computation", "Imputation"},
    ("def:Origin", "Type"): {
        "Assigned", "Collected", "Derived", "Not Available", "Other", "Predecessor", "Protocol",
    },
    ("def:Origin", "Source"): {"Investigator", "Sponsor", "Subject", "Vendor"},
    ("def:Class", "Name"): {
        "SUBJECT LEVEL ANALYSIS DATASET", "BASIC DATA STRUCTURE", "OCCURRENCE DATA STRUCTURE",
        "ADAM OTHER", "DEVICE LEVEL ANALYSIS DATASET", "MEDICAL DEVICE BASIC DATA STRUCTURE",
        "MEDICAL DEVICE OCCURRENCE DATA STRUCTURE", "REFERENCE DATA STRUCTURE",
        "INTERVENTIONS", "EVENTS", "FINDINGS", "FINDINGS ABOUT", "SPECIAL PURPOSE",
        "RELATIONSHIP", "STUDY REFERENCE", "TRIAL DESIGN",
    },
}  # fmt: skip
#: Attribute -> elements that it may point to.
REFERENCES = {
    "ItemOID": "ItemDef",
    "CodeListOID": "CodeList",
    "MethodOID": "MethodDef",
    "def:CommentOID": "def:CommentDef",
    "def:StandardOID": "def:Standard",
    "def:ArchiveLocationID": "def:leaf",
}
#: Elements that something has to point to.
_REFERRED = ("ItemDef", "CodeList", "MethodDef", "def:CommentDef", "def:leaf")


def _name(tag: str) -> str:
    return tag.replace(_ODM, "").replace(_DEF, "def:")


def _attributes(element: ET.Element) -> dict[str, str]:
    return {_name(k).replace(_HREF, "href"): value for k, value in element.attrib.items()}


def _identifier(element: ET.Element) -> str:
    return element.get("OID") or element.get("ID") or element.get("ItemOID") or ""


def _elements(root: ET.Element) -> Iterator[str]:
    """Order of children, attributes that are absent or not allowed, descriptions without words."""
    for element in root.iter():
        name, where = _name(element.tag), _identifier(element)
        order = ORDER.get(name)
        if order is not None:
            places = []
            for child in element:
                if _name(child.tag) not in order:
                    yield f"{name} {where} has a {_name(child.tag)}, which the schema does not know"
                else:
                    places.append(order.index(_name(child.tag)))
            if places != sorted(places):
                yield f"{name} {where} has its children in another order than the schema's"
        given = _attributes(element)
        for attribute in REQUIRED.get(name, ()):
            if not given.get(attribute):
                yield f"{name} {where} has no {attribute}"
        for attribute, value in given.items():
            allowed = ALLOWED.get((name, attribute))
            if allowed and value not in allowed:
                yield f"{name} {where}: {attribute} '{value}' is not a term of the standard"
        if name == "TranslatedText" and not ((element.text or "").strip() and element.get(_LANG)):
            yield f"a {name} has no words or no language"


def _references(root: ET.Element) -> Iterator[str]:
    """Identifiers given twice, references that lead nowhere, definitions that nothing uses."""
    defined: dict[str, str] = {}
    for element in root.iter():
        own = element.get("OID") or element.get("ID")
        if own and own in defined:
            yield f"{own} is defined twice"
        if own:
            defined[own] = _name(element.tag)
    used: set[str] = set()
    for element in root.iter():
        for attribute, value in _attributes(element).items():
            kind = REFERENCES.get(attribute)
            if kind:
                used.add(value)
                if defined.get(value) != kind:
                    yield f"{_name(element.tag)} points to {value}, which is no {kind} here"
    for own, kind in defined.items():
        if kind in _REFERRED and own not in used:
            yield f"{kind} {own} is used by nothing"


def _groups(root: ET.Element) -> Iterator[str]:
    """Order and keys of variables; domain of tabulations; origin and method of each variable."""
    items = {item.get("OID"): item for item in root.iter(f"{_ODM}ItemDef")}
    for group in root.iter(f"{_ODM}ItemGroupDef"):
        name = group.get("Name", "")
        refs = group.findall(f"{_ODM}ItemRef")
        if [r.get("OrderNumber") for r in refs] != [str(n) for n in range(1, len(refs) + 1)]:
            yield f"{name}: variables are not numbered 1, 2, 3"
        keys = sorted(int(r.get("KeySequence", 0)) for r in refs if r.get("KeySequence"))
        if keys != list(range(1, len(keys) + 1)) or not keys:
            yield f"{name}: its key is not numbered 1, 2, 3"
        if group.get("Purpose") == "Tabulation" and group.get("Domain") != name:
            yield f"{name}: a tabulation names its Domain"
        for ref in refs:
            item = items.get(ref.get("ItemOID"))
            origin = None if item is None else item.find(f"{_DEF}Origin")
            if item is not None and origin is None:
                yield f"{ref.get('ItemOID')} has no origin"
            elif origin is not None:
                derived = origin.get("Type") == "Derived"
                if derived != bool(ref.get("MethodOID")):
                    yield f"{ref.get('ItemOID')}: what is derived has a method, and nothing else"
                if (
                    origin.get("Type") == "Predecessor"
                    and origin.find(f"{_ODM}Description") is None
                ):
                    yield f"{ref.get('ItemOID')}: a predecessor is named in words"


def _items(root: ET.Element) -> Iterator[str]:
    """Lengths, digits, and code lists of the type of their variable."""
    lists = {item.get("OID"): item for item in root.iter(f"{_ODM}CodeList")}
    for item in root.iter(f"{_ODM}ItemDef"):
        own, kind = item.get("OID"), item.get("DataType")
        if kind in {"text", "integer", "float"} and not int(item.get("Length") or 0) > 0:
            yield f"{own}: a {kind} has a length"
        if (kind == "float") != (item.get("SignificantDigits") is not None):
            yield f"{own}: a float, and nothing else, has significant digits"
        reference = item.find(f"{_ODM}CodeListRef")
        codes = None if reference is None else lists.get(reference.get("CodeListOID"))
        if codes is not None and codes.get("DataType") != kind:
            yield f"{own} is {kind}, its code list {codes.get('DataType')}"
    for codes in lists.values():
        terms = Counter(term.get("CodedValue") for term in codes.findall(f"{_ODM}CodeListItem"))
        if not terms or max(terms.values()) > 1:
            yield f"{codes.get('OID')}: each term stands once, and there is one"
        if not (codes.get(f"{_DEF}StandardOID") or codes.get(f"{_DEF}IsNonStandard")):
            yield f"{codes.get('OID')}: of a standard, or said not to be"


def define_faults(root: ET.Element) -> list[str]:
    """What Define-XML 2.1 would not accept, in plain words; nothing where all is well.

    Parameters
    ----------
    root
        Root element of a define.xml.

    Examples
    --------
    >>> define_faults(ET.fromstring('<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3"/>'))[0]
    'ODM  has no FileType'
    """
    return [*_elements(root), *_references(root), *_groups(root), *_items(root)]


def ars_faults(path: str | Path, datasets: frozenset[str] = frozenset()) -> list[str]:
    """References of a reporting event that lead nowhere, and identifiers given twice.

    Parameters
    ----------
    path, datasets
        ``ars.json``, and names of the data sets that stand beside it; empty: not checked.
    """
    event = read_json(path)
    names = [event["id"]]
    for part in ("analysisSets", "analysisGroupings", "methods", "analyses"):
        names += [item["id"] for item in event[part]]
    names += [operation["id"] for method in event["methods"] for operation in method["operations"]]
    faults = [f"{name} is defined {n} times" for name, n in Counter(names).items() if n > 1]
    analyses = {item["id"] for item in event["analyses"]}
    sets = {item["id"] for item in event["analysisSets"]}
    groupings = {item["id"] for item in event["analysisGroupings"]}
    operations = {m["id"]: {o["id"] for o in m["operations"]} for m in event["methods"]}
    items = event["mainListOfContents"]["contentsList"]["listItems"]
    listed = [item["analysisId"] for item in items]
    outputs = {item["id"] for item in event.get("outputs", [])}
    shown = {
        inner["outputId"]
        for item in items
        for inner in item.get("sublist", {}).get("listItems", [])
    }
    faults += [f"the contents list {name}, which is no output" for name in sorted(shown - outputs)]
    faults += [f"output {name} is not in the contents" for name in sorted(outputs - shown)]
    faults += [
        f"the contents list {n}, which is no analysis here" for n in listed if n not in analyses
    ]
    faults += [f"{name} is not in the contents" for name in sorted(analyses - set(listed))]
    for item in event["analyses"]:
        own = item["id"]
        known = operations.get(item["methodId"])
        if known is None:
            faults.append(f"{own}: method {item['methodId']} is not defined")
        if item["analysisSetId"] not in sets:
            faults.append(f"{own}: analysis set {item['analysisSetId']} is not defined")
        if datasets and item["dataset"] and item["dataset"] not in datasets:
            faults.append(f"{own}: data set {item['dataset']} is missing")
        for result in item["results"]:
            if known is not None and result["operationId"] not in known:
                faults.append(f"{own}: {result['operationId']} is no operation of its method")
            for group in result["resultGroups"]:
                if group["groupingId"] not in groupings:
                    faults.append(f"{own}: grouping {group['groupingId']} is not defined")
    return list(dict.fromkeys(faults))
