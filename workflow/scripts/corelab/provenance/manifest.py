"""Manifest, trace and verification of a study's products.

The manifest holds the SHA-256 of every product and nothing that differs between two correct runs:
no logs, no times of day, no absolute paths.
"""

from __future__ import annotations

import hashlib
import heapq
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ijson

from corelab.provenance.contents import Compared, compare
from corelab.provenance.job import UserError
from corelab.provenance.ledger import standing
from corelab.provenance.products import (
    file_sha256,
    read_json,
    read_table,
    write_json,
    write_rows,
    write_text,
)
from corelab.provenance.rules import workflow_rules
from corelab.terms.plugins import packages

if TYPE_CHECKING:
    import pandas as pd

    from corelab.settings.config import Config
    from corelab.settings.study import StudySettings

#: Folders of a study with products, in the order in which they are made.
PRODUCT_FOLDERS = (
    "preflight",
    "derivatives",
    "endpoints",
    "quality",
    "maps",
    "statistics",
    "exhibits",
    "verification",
    "report",
    "submission",
)
#: Written after the manifest, or by hand.
NOT_IN_MANIFEST = ("verification/verified.tsv", "verification/verified.json", "report/verified.js")
PACKAGES = (
    "snakemake",
    "numpy",
    "scipy",
    "pandas",
    "nibabel",
    "antspyx",
    "nilearn",
    "nipype",
    "SimpleITK",
    "scikit-image",
    "pingouin",
    "statsmodels",
    "lifelines",
    "mirp",
    "matplotlib",
    "typst",
    "dcm2niix",
)

TRACE = {
    "row_id": "Row of measurements.tsv that the chain explains",
    "step": "Place in the chain, 1 = the value itself, rising towards the sources",
    "what": "value, mask, map, transform, scan, sheet, parameters or software",
    "name": "File, relative to the study's folder, or what is named",
    "sha256": "SHA-256 of the file",
    "detail": "Parameters, versions or the row's own words",
}

#: Files that are listed where many differ.
LISTED = 50

VERIFIED = {
    "file": "Product, relative to the study's folder",
    "verdict": "same, different, missing or unlisted",
    "expected_sha256": "SHA-256 in the manifest",
    "found_sha256": "SHA-256 now",
}


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results can depend on.

    Examples
    --------
    >>> "numpy" in software_versions()
    True
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted({**versions, **packages()}.items()))


def row_identifier(*key: str) -> str:
    """Identifier of a measurement row, made of its key: stable over runs and machines.

    Examples
    --------
    >>> row_identifier("001", "day5", "infarct_volume", "pipeline", "1", "all")
    'r-7b8c9442706b'
    """
    return "r-" + hashlib.sha256("\x1f".join(key).encode()).hexdigest()[:12]


def _product_files(folder: Path) -> Iterator[str]:
    """Products of a study, relative to its folder, sorted; temporary files are not among them."""
    for name in sorted(PRODUCT_FOLDERS):
        if (folder / name).is_dir():
            yield from _files_below(folder / name, f"{name}/")


def _files_below(folder: Path, prefix: str) -> Iterator[str]:
    """Files of one folder after the other: those of a large study are never listed together."""
    with os.scandir(folder) as found:
        # A folder sorts by what all paths in it begin with.
        names = sorted(
            one.name + "/" * one.is_dir(follow_symlinks=False)
            for one in found
            if one.is_dir(follow_symlinks=False) or (one.is_file() and one.name[0] != ".")
        )
    for name in names:
        if name.endswith("/"):
            yield from _files_below(folder / name, prefix + name)
        elif prefix + name not in NOT_IN_MANIFEST:
            yield prefix + name


#: What a product is, by the beginning of its path; the first that fits.
ROLES = (
    (r"derivatives/.*_mask\.nii\.gz$", "mask"),
    (r"derivatives/.*_map\.nii\.gz$", "map"),
    (r"derivatives/.*_xfm\.", "transform"),
    (r"derivatives/.*\.nii\.gz$", "image"),
    (r"derivatives/.*/(prepare|segment|perfuse|measure|normalise)\.json$", "stage record"),
    (r".*\.json$", "data dictionary or sidecar"),
    (r"maps/", "lesion frequency map"),
    (r"endpoints/", "endpoint table"),
    (r"statistics/", "statistics table"),
    (r"report/", "report"),
    (r"submission/datasets/", "data set"),
    (r"submission/", "submission document"),
    (r"verification/", "verification"),
    (r"preflight/", "finding"),
    (r"quality/", "quality control"),
    (r"exhibits/", "exhibit"),
)
#: Which rule wrote a product; the first that fits.
WRITERS = (
    (r"derivatives/.*/(prepare|segment|perfuse|measure|normalise)\.json$", r"\1"),
    (r"derivatives/.*/radiomics\.(json|tsv)$", "radiomics"),
    (
        r"derivatives/.*/quality\.json$|derivatives/.*desc-(registration|tile|layer|masks)_qc",
        "quality_figures",
    ),
    (r"derivatives/.*_xfm\.|derivatives/.*space-MNI", "normalise"),
    (r"derivatives/.*/perf/|derivatives/.*_(core|hypoperfused|penumbra)", "perfuse"),
    (r"derivatives/.*_mask\.", "segment"),
    (r"derivatives/", "prepare"),
    (r"endpoints/exclusions\.|statistics/sensitivity\.", "sensitivity"),
    (r"endpoints/batches/", "measure_supplied"),
    (r"endpoints/phantoms\.", "measure_phantoms"),
    (
        r"endpoints/(acquisition_summary|control_charts|repeat_requests|completeness|phantom_)|"
        r"exhibits/(quality|phantom)_",
        "quality",
    ),
    (r"endpoints/features\.", "features"),
    (r"(endpoints|exhibits)/noise_floor\.", "noise_floor"),
    (r"endpoints/", "collect"),
    (r"statistics/by_analysis/", "analyse"),
    (r"statistics/by_specification/|exhibits/specifications_", "specifications"),
    (r"statistics/specifications\.", "specifications_table"),
    (r"statistics/without_exclusions/", "analyse_without_exclusions"),
    (r"statistics/(plan|trial_endpoints)|exhibits/(plan|trial)\.", "plan"),
    (r"statistics/cohort_flow\.|exhibits/flow_", "cohort_flow"),
    (r"(statistics|exhibits)/perfusion_cutoffs\.", "perfusion_cutoffs"),
    (r"statistics/", "statistics_tables"),
    (r"exhibits/analysis_", "draw"),
    (r"exhibits/reading_", "reading_exhibits"),
    (r"(quality|exhibits)/failures\.", "failures"),
    (r"recovery/", "plant_lesions"),
    (r"(quality|exhibits)/recovery", "recovery_summary"),
    (r"quality/|exhibits/registration\.", "contact_sheet"),
    (r"maps/.*_maps[._]", "frequency_groups"),
    (r"maps/", "frequency_map"),
    (r"report/first_subject\.", "first_page"),
    (r"report/(report\.pdf|analysis_results\.|tables/)", "printed_report"),
    (r"report/", "report"),
    (r"submission/", "submission"),
    (r"verification/certificate", "certificate"),
    (r"preflight/findings\.", "check_inputs"),
    (r"preflight/", "preflight"),
)


def _role_of(name: str) -> str:
    """What a product is."""
    return next((role for pattern, role in ROLES if re.match(pattern, name)), "product")


def _rule_of(name: str) -> str:
    """The rule that wrote a product; empty if unknown."""
    for pattern, rule in WRITERS:
        found = re.match(pattern, name)
        if found:
            return found.expand(rule) if "\\" in rule else rule
    return ""


def _host_independent(value: Any) -> Any:
    """A config without what belongs to one machine: absolute paths are reduced to their names."""
    if isinstance(value, Mapping):
        return {str(key): _host_independent(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_host_independent(item) for item in value]
    if isinstance(value, (str, Path)) and Path(value).is_absolute():
        return Path(value).name
    return value


@dataclass(frozen=True, slots=True)
class Product:
    """A product: SHA-256, size in bytes, what it is, and the rule that wrote it."""

    sha256: str
    bytes: int
    role: str = ""
    rule: str = ""


class StoredProducts(ItemsView[str, Product]):
    """Products in a file, sorted by path; there may be a million, so they are read each time.

    The file is a manifest, or lines of JSON with the path and the fields of each product. A
    temporary ``folder`` that it lies in is removed with this object.
    """

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.path, self._folder = path, folder

    def __iter__(self) -> Iterator[tuple[str, Product]]:
        with open(self.path, "rb") as file:
            if self.path.suffix == ".json":
                for name, one in ijson.kvitems(file, "products"):
                    yield name, Product(**one)
            else:
                for name, *one in map(json.loads, file):
                    yield name, Product(*one)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, order=True)
class Source:
    """An input file by name (not by absolute path), with its SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class RuleCode:
    """A rule: digest of its code, and the rules whose products it takes."""

    code: str | None = None
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The manifest of a study, ``provenance/manifest.json``.

    Attributes
    ----------
    study
        Block ``study`` of the config, and the fingerprint of the plan.
    products, products_sha256
        Path in the study's folder and product, sorted, and SHA-256 over all of them.
    sources
        Input files, sorted.
    code, rules
        Digest of the code of each script, and of each rule with the rules before it.
    parameters
        The resolved config; paths in it are reduced to their names.
    software
        Versions by package.
    """

    study: Mapping[str, Any]
    products: ItemsView[str, Product]
    products_sha256: str
    sources: tuple[Source, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, RuleCode] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def study_id(self) -> str:
        """Name of the study."""
        return str(self.study["id"])

    @property
    def plan_fingerprint(self) -> str:
        """Fingerprint of the plan; empty where none is recorded."""
        return str(self.study.get("plan_fingerprint", ""))

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read a manifest; its products are read when they are needed."""
        builder = ijson.ObjectBuilder()
        with open(path, "rb") as file:
            for prefix, event, value in ijson.parse(file, use_float=True):
                if (prefix or value) != "products" and not prefix.startswith("products."):
                    builder.event(event, value)
        content = {
            one.name: builder.value[one.name] for one in fields(cls) if one.name in builder.value
        }
        rules = content.get("rules", {}).items()
        content["rules"] = {name: RuleCode(r["code"], tuple(r["inputs"])) for name, r in rules}
        content["sources"] = tuple(Source(**one) for one in content.get("sources", ()))
        return cls(products=StoredProducts(Path(path)), **content)

    def write(self, path: str | Path) -> None:
        """Write the manifest."""
        write_json(self, path)


def build_manifest(
    folder: Path,
    *,
    study: StudySettings,
    plan_fingerprint: str,
    code: Mapping[str, str],
    sources: Iterable[Source],
    parameters: Config | None = None,
) -> Manifest:
    """The manifest of a study.

    Parameters
    ----------
    folder
        The study's results folder.
    study, plan_fingerprint
        Block of the config, and fingerprint of the plan.
    code
        Rule -> code digest.
    sources
        Input files.
    parameters
        The resolved config.
    """
    whole = hashlib.sha256()
    place = tempfile.TemporaryDirectory()
    spool = Path(place.name) / "products.jsonl"
    with open(spool, "w", encoding="utf-8") as file:
        for name in _product_files(folder):
            digest, size = file_sha256(folder / name), (folder / name).stat().st_size
            whole.update(f"{name}\0{digest}\n".encode())
            file.write(json.dumps([name, digest, size, _role_of(name), _rule_of(name)]) + "\n")
    return Manifest(
        study={**study.plain(), "plan_fingerprint": plan_fingerprint},
        products=StoredProducts(spool, place),
        products_sha256=whole.hexdigest(),
        sources=tuple(sorted(sources)),
        code=dict(sorted(code.items())),
        rules={rule.name: RuleCode(code.get(rule.name), rule.after) for rule in workflow_rules()},
        parameters=_host_independent(parameters.plain() if parameters else {}),
        software=software_versions(),
    )


class Verified(NamedTuple):
    """A product, and whether it is as the manifest has it; columns of :data:`VERIFIED`."""

    file: str
    verdict: str
    expected_sha256: str | None
    found_sha256: str | None


def verify(folder: Path, manifest: Manifest) -> Iterator[Verified]:
    """Hash every product again and compare with the manifest, in the order of their paths.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp()); (folder / "maps").mkdir()
    >>> file = folder / "maps" / "a.txt"; _ = file.write_text("1")
    >>> products = {"maps/a.txt": Product(file_sha256(file), 1)}.items()
    >>> _ = file.write_text("2")
    >>> [one.verdict for one in verify(folder, Manifest({"id": "a"}, products, "00"))]
    ['different']
    """
    listed = ((name, product.sha256) for name, product in manifest.products)
    there = ((name, None) for name in _product_files(folder))
    path_of = itemgetter(0)
    for name, entries in groupby(heapq.merge(listed, there, key=path_of), key=path_of):
        expected = next((digest for _, digest in entries if digest is not None), None)
        found = file_sha256(folder / name) if (folder / name).is_file() else None
        if expected is None:
            verdict = "unlisted"
        elif found is None:
            verdict = "missing"
        else:
            verdict = "same" if found == expected else "different"
        yield Verified(name, verdict, expected, found)


def _settings_words(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key=value`` of settings, sorted; blocks within by their path, items of a list by commas."""
    words: list[str] = []
    for key, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            words += _settings_words(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            words.append(f"{prefix}{key}={' '.join(map(str, value))}")
        else:
            words.append(f"{prefix}{key}={'n/a' if value is None else value}")
    return words


class _Step(NamedTuple):
    """A step of the chain behind a number; columns of :data:`TRACE`."""

    what: str
    name: str
    sha256: str | None = None
    detail: str = ""


def _record_chain(
    folder: Path, record: Mapping[str, Any], scan_ids: set[str], hashes: dict[str, str | None]
) -> list[_Step]:
    """Steps that a stage record tells about the scans of a row; ``hashes`` of files seen before."""
    steps: list[_Step] = []
    for mask in [*record.get("masks", []), *record.get("maps", [])]:
        ids = set(mask.get("scan_ids") or [])
        if mask.get("path") and (not scan_ids or not ids or ids & scan_ids):
            if mask["path"] not in hashes:
                file = folder / mask["path"]
                hashes[mask["path"]] = file_sha256(file) if file.is_file() else None
            settings = ", ".join(_settings_words(mask.get("parameters") or {}))
            steps.append(
                _Step(
                    *("mask" if "label" in mask else "map", mask["path"]),
                    *(hashes[mask["path"]], settings),
                )
            )
    for scan in record.get("scans", []):
        if scan.get("scan_id") in scan_ids:
            notes = "; ".join(scan.get("notes") or [])
            steps.append(_Step("scan", scan.get("source"), scan.get("sha256"), notes))
    return steps


def trace_rows(
    folder: Path, measurements: pd.DataFrame, records: Iterable[Path]
) -> Iterator[tuple[Any, ...]]:
    """For every measurement row, the chain of files, parameters and versions that made it.

    One row of the trace after the other: there are several for each measurement, so that the
    trace of a large study is never held.

    Parameters
    ----------
    folder
        The study's results folder.
    measurements
        ``endpoints/measurements.tsv`` as text.
    records
        Stage records (JSON) of the visits.

    Yields
    ------
    tuple
        Cells in the columns of :data:`TRACE`.
    """
    by_visit: dict[tuple[str, str], list[Path]] = {}
    for path in records:
        head = read_json(path)
        by_visit.setdefault((head["participant_id"], head.get("visit") or ""), []).append(path)
    versions = software_versions()
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    cache: dict[tuple[str, str, str], list[_Step]] = {}
    contents: dict[Path, Any] = {}
    hashes: dict[str, str | None] = {}
    participant = None
    rows: Iterable[Any] = measurements.itertuples(index=False)
    for row in rows:
        if row.participant_id != participant:
            # Rows are sorted by participant: what was read for the last one is not needed again.
            participant, cache, contents, hashes = row.participant_id, {}, {}, {}
        name = (
            f"{row.participant_id} {row.visit} {row.endpoint} {row.source} repeat {row.repeat} "
            f"{row.region}"
        )
        detail = f"value={row.value} {row.unit}; status={row.status}; {row.reason or ''}"
        key = (row.participant_id, row.visit, row.scan_ids or "")
        if key not in cache:
            ids = {part for part in (row.scan_ids or "").split(",") if part}
            records_of_visit = by_visit.get((row.participant_id, row.visit), []) if ids else []
            contents |= {one: read_json(one) for one in records_of_visit if one not in contents}
            cache[key] = [
                step
                for path in records_of_visit
                for step in _record_chain(folder, contents[path], ids, hashes)
            ] or [
                _Step(
                    "sheet",
                    row.scan_ids or "sheet of the study",
                    detail="read from a sheet, not from an image here",
                )
            ]
        chain = [
            _Step("value", name, detail=detail),
            *cache[key],
            _Step("software", "versions", detail=software),
        ]
        for number, step in enumerate(chain, 1):
            yield row.row_id, number, *step


def _statistic_lines(folder: Path, result_id: str) -> list[str]:
    """What stands behind a statistic, from the table of all results."""
    path = folder / "report" / "analysis_results.tsv"
    if not path.is_file():
        return []
    table = read_table(path)
    rows = table[table["result_id"] == result_id].to_dict("records")
    if not rows:
        return []
    lines = [f"     {name:<14} {value}" for name, value in rows[0].items() if value is not None]
    source = folder / "statistics" / "by_analysis" / f"{rows[0]['analysis_id']}.tsv"
    if source.is_file():
        lines.append(f"     computed into  statistics/by_analysis/{source.name}")
        lines.append(f"     sha256 {file_sha256(source)}")
        lines.append(f"     values behind  report/trace-{rows[0]['analysis_id']}.html#{result_id}")
    return ["  1  statistic", *lines]


def trace_lines(folder: Path, row_id: str) -> list[str]:
    """The chain of one number, as lines for a person.

    Parameters
    ----------
    folder
        The study's folder.
    row_id
        Of ``measurements.tsv``, or the result_id of a statistic (``report/analysis_results.tsv``).

    Raises
    ------
    LookupError
        If the study has no such number.
    """
    lines = _statistic_lines(folder, row_id)
    if lines:
        return lines
    table = read_table(folder / "provenance" / "trace.tsv")
    chain = table[table["row_id"] == row_id]
    if chain.empty:
        raise LookupError(
            f"no number '{row_id}' in {folder}; take a row_id from endpoints/measurements.tsv, or "
            "the result_id of a statistic from report/analysis_results.tsv"
        )
    lines = []
    for step in chain.to_dict("records"):
        lines.append(f"{step['step']:>3}  {step['what']:<10} {step['name']}")
        if step["sha256"]:
            lines.append(f"     sha256 {step['sha256']}")
        if step["detail"]:
            lines.append(f"     {step['detail']}")
    return lines


def study_sources(folder: Path, sheets: Iterable[Path]) -> list[Source]:
    """Input files of a study by name, with their sha256: sheets, and scans as the jobs read them.

    Parameters
    ----------
    folder
        The study's results folder.
    sheets
        Paths of the sheets.
    """
    sources = [Source(path.name, file_sha256(path)) for path in sheets if path.is_file()]
    records = [
        *sorted((folder / "derivatives").glob("*/*/prepare.json")),
        *sorted((folder / "endpoints" / "batches").glob("*.json")),
    ]
    for path in records:
        for scan in read_json(path).get("scans", []):
            if scan.get("sha256"):
                sources.append(Source(scan["scan_id"], scan["sha256"]))
    return sources


def verified_table(folder: Path, path: str) -> None:
    """Verify a study against its manifest and write the table, row by row."""
    counts: Counter[str] = Counter()

    def counted() -> Iterator[Verified]:
        for row in verify(folder, Manifest.read(folder / "provenance" / "manifest.json")):
            counts[row.verdict] += 1
            yield row

    write_rows(counted(), path, VERIFIED)
    show_verified(folder, counts)


def show_verified(folder: Path, counts: Mapping[str, int] | None = None) -> None:
    """Say on the report's first page how many products are as the manifest has them.

    The page is one of the products, and stays as it is: it loads the result from beside it.

    Parameters
    ----------
    folder
        Of the study.
    counts
        Products by verdict of :func:`verify`; None: not yet verified.
    """
    content = "null"
    if counts is not None:
        same, number = counts.get("same", 0), sum(counts.values())
        css = "good" if same == number else "bad"
        words = f"{same} of {number} files agree with the manifest"
        content = json.dumps({"css": css, "words": words})
    report = folder / "report"
    if (report / "index.html").is_file():
        # An archive may be read-only; the table and the terminal have the result too.
        with suppress(OSError):
            write_text(f"globalThis.VERIFIED = {content};\n", report / "verified.js")


def _input_lines(found: Compared) -> list[str]:
    """What has become of the inputs since they were read."""
    count = len(found.same) + len(found.changed)
    lines = [f"{len(found.same)} of {count} inputs are as they were read"]
    for path, jobs in list(found.changed.items())[:LISTED]:
        more = f" and {len(jobs) - 1} more jobs" if len(jobs) > 1 else ""
        lines.append(f"{'changed':<10} {path} since it was read by {jobs[0]}{more}")
    if found.missing:
        first = ", ".join(sorted(found.missing)[:3]) + ", ..." * (len(found.missing) > 3)
        lines.append(f"{len(found.missing)} inputs are missing and were not compared: {first}")
    return lines


def verify_lines(folder: Path) -> list[str]:
    """Verify a study now, its products and the inputs that they were made from.

    Lines for a person; missing inputs are named, because an archive may be without them. UserError
    with the list, if a product differs from the manifest, is missing, or is not listed, or if the
    content of an input is not that which was read.
    """
    manifest_path = folder / "provenance" / "manifest.json"
    manifest = Manifest.read(manifest_path)
    rows = list(verify(folder, manifest))
    counts = Counter(row.verdict for row in rows)
    show_verified(folder, counts)
    wrong = [row for row in rows if row.verdict != "same"]
    listed = len(rows) - counts["unlisted"]
    head = f"{counts['same']} of {listed} products are as in {manifest_path}"
    inputs = compare(standing(folder)[0], folder, read_all=True)
    changes = _input_lines(inputs)
    if not wrong and not inputs.changed:
        return [head, f"products sha256 {manifest.products_sha256}", *changes]
    lines = [head, *(f"{row.verdict:<10} {row.file}" for row in wrong[:LISTED])]
    if len(wrong) > LISTED:
        lines.append(f"... and {len(wrong) - LISTED} more")
    if wrong:
        lines.append(f"First cause: {_first_cause(folder, [row.file for row in wrong])}")
    raise UserError("\n".join([*lines, *changes]))


def _first_cause(folder: Path, files: Iterable[str]) -> str:
    """The most upstream of the files: the first that differs is the cause of the rest."""
    return min(files, key=lambda name: (PRODUCT_FOLDERS.index(name.split("/")[0]), name))
