"""Index of a folder: participants and scans sheets, without opening an image.

BIDS, and the layouts of ISLES'24, UPENN-GBM and SOOP (OpenNeuro ds004889), as published.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from corelab.provenance.job import UserError
from corelab.provenance.products import write_table, write_text
from corelab.study.sheets import read_sheet
from corelab.terms.kinds import KIND_OF_SUFFIX

_ENTITY = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")
_SUFFIX = re.compile(r"_([A-Za-z0-9-]+)\.nii(\.gz)?$", re.IGNORECASE)
_Row = dict[str, str | None]
SCANS = ("participant_id", "visit", "kind", "path", "reader", "repeat", "space", "label_values")


def _row(name: str, path: str) -> _Row | None:
    suffix = _SUFFIX.search(name)
    entities = dict(_ENTITY.findall(name[: suffix.start()] if suffix else ""))
    # Phase and the parts of complex images are no magnitude.
    if suffix is None or "sub" not in entities or entities.get("part", "mag") != "mag":
        return None
    word = suffix.group(1)
    if word in {"msk", "mask", "dseg"}:
        kind: str | None = f"mask-{entities.get('label', 'lesion')}"
    elif word == "T1w" and "ce" in entities:
        kind = "T1c"
    elif word == "dwi" and entities.get("rec", "").upper() == "ADC":
        kind = "adc"
    else:
        kind = KIND_OF_SUFFIX.get(word)
    if kind is None:
        return None
    reader = entities.get("rater") or entities.get("desc")
    return _scan(entities, kind, path, reader if kind.startswith("mask-") else None)


def _scan(entities: Mapping[str, str], kind: str, path: str, reader: str | None = None) -> _Row:
    """Row of a file with the entities of BIDS."""
    space = "MNI152" if entities.get("space", "").startswith("MNI152") else "native"
    who, visit = f"sub-{entities['sub']}", entities.get("ses", "1")
    cells = (who, visit, kind, path, reader, entities.get("run"), space, None)
    return dict(zip(SCANS, cells, strict=True))


#: File of UPENN-GBM -> kind: UPENN-GBM-00001_11_T1GD.nii.gz, _segm, _automated_approx_segm.
_UPENN = re.compile(
    r"(UPENN-GBM-\d{5})_(\d{2})_"
    r"(T1GD|T1|T2|FLAIR|segm|automated_approx_segm|brain_segm)(_unstripped)?\.nii(?:\.gz)?$"
)
_UPENN_KINDS = {"T1GD": "T1c", "T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR"}
#: Tissue of UPENN-GBM (BraTS): 1 necrosis and non-enhancing core, 2 oedema, 4 enhancing.
_UPENN_LABELS = {
    "mask-enhancing": "4",
    "mask-oedema": "2",
    "mask-tumourcore": "1,4",
    "mask-whole-tumour": "1,2,4",
}
#: Files of ISLES'24 whose suffix BIDS does not have: lesion-msk, lvo-msk, cow-msk, space-ncct_*.
_ISLES = re.compile(r"_(lesion|lvo|cow)-msk\.nii(?:\.gz)?$")


def _upenn_rows(name: str, path: str) -> list[_Row]:
    """UPENN-GBM: 11 is the scan before surgery, 21 that of the recurrence."""
    found = _UPENN.search(name)
    if found is None or found.group(4):
        return []
    subject, time, what, _ = found.groups()
    visit = {"11": "preoperative", "21": "follow-up"}.get(time, time)

    def row(kind: str, reader: str | None = None, values: str | None = None) -> _Row:
        cells = (subject, visit, kind, path, reader, None, "native", values)
        return dict(zip(SCANS, cells, strict=True))

    if what in _UPENN_KINDS:
        return [row(_UPENN_KINDS[what])]
    if what == "brain_segm":
        return [row("mask-brain")]
    reader = "automated" if what.startswith("automated") else "corrected"
    return [row(kind, reader, values) for kind, values in _UPENN_LABELS.items()]


def _isles_rows(name: str, path: str) -> list[_Row]:
    """ISLES'24: the lesion mask of the follow-up, which the challenge calls ``lesion-msk``."""
    found = _ISLES.search(name)
    entities = dict(_ENTITY.findall(name))
    if found is None or "sub" not in entities or found.group(1) != "lesion":
        return []
    return [_scan(entities, "mask-infarct", path)]


def _rows(name: str, path: str, dataset: str) -> list[_Row]:
    """Rows of a file in any of the layouts; none where no kind fits."""
    found = _upenn_rows(name, path) or _isles_rows(name, path)
    if found:
        return found
    row = _row(name, path)
    if row is None:
        return []
    # SOOP (ds004889) masks the lesion of the acute DWI and names no label.
    if row["kind"] == "mask-lesion" and dataset == "soop":
        row["kind"] = "mask-infarct"
    return [row]


def _layout_of(folder: Path) -> str:
    """``soop``, ``isles24``, ``upenn-gbm`` or ``bids``, by names and dataset_description.json."""
    described = folder / "dataset_description.json"
    text = described.read_text(encoding="utf-8", errors="replace") if described.is_file() else ""
    if re.search(r"ds004889|Stroke Outcome Optimization|SOOP", text):
        return "soop"
    names = [item.name for item in os.scandir(folder)][:200]
    if any(name.startswith("UPENN-GBM-") or name == "images_structural" for name in names):
        return "upenn-gbm"
    if re.search(r"ISLES.?.?24", text, re.I) or any(n.startswith("sub-stroke") for n in names):
        return "isles24"
    return "bids"


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and relative path of every image below a folder, without opening one.

    Hidden files (``._sub-01_T1w.nii.gz`` of macOS) are none; a folder that links to one above it is
    entered once.
    """
    waiting = [""]
    entered = set()
    while waiting:
        inside = waiting.pop()
        place = os.path.realpath(folder / inside)
        if place in entered:
            continue
        entered.add(place)
        try:
            entries = sorted(os.scandir(folder / inside), key=lambda item: item.name)
        except OSError as error:
            raise UserError(f"{folder / inside} cannot be listed: {error.strerror}") from None
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(path)
            elif entry.name.lower().endswith((".nii", ".nii.gz")):
                yield entry.name, path


def _listed(folder: Path, ids: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Ids with the columns of the data set's ``participants.tsv``, and what to know about it."""
    path = folder / "participants.tsv"
    if not path.is_file():
        return ids, []
    given, findings = read_sheet(path, path.name)
    lines = [str(finding) for finding in findings[:3]]
    if given is None or "participant_id" not in given:
        return ids, [*lines, f"{path} was not used: it has no column participant_id"]
    # Some leave out the prefix that the names of the folders have.
    names = given["participant_id"].astype("string").fillna("")
    known = set(ids["participant_id"])
    bare = ~names.isin(known) & ("sub-" + names).isin(known)
    given = given.assign(participant_id=names.where(~bare, "sub-" + names).astype(object))
    absent = sorted(known - set(given["participant_id"]))
    if absent:
        lines += [f"{len(absent)} participants have no row in {path.name}, the first {absent[0]}"]
    twice = int(given["participant_id"].duplicated().sum())
    if twice:
        lines.append(
            f"{twice} participants are listed again in {path.name}; their first row is used"
        )
    return ids.merge(
        given.drop_duplicates("participant_id"), on="participant_id", how="left"
    ), lines


def _misplaced(paths: Iterable[str]) -> list[str]:
    """Files that lie in the folder of another participant than their name says."""
    found = []
    for path in paths:
        subjects = set(re.findall(r"(?:^|/)(sub-[0-9A-Za-z+]+)(?=[_/])", path))
        if len(subjects) > 1:
            found.append(path)
    return found


def _index_bids(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Scans of a folder, in the columns of the scans sheet, and image files that no kind fits.

    The folder is a BIDS data set, or one of ISLES'24, UPENN-GBM or SOOP; ``derivatives`` inside it
    is read too.
    """
    rows, unknown = [], []
    dataset = _layout_of(folder)
    for name, path in _files(folder):
        found = _rows(name, path, dataset)
        rows += found
        if not found:
            unknown.append(path)
    frame = pd.DataFrame(rows, columns=list(SCANS)).sort_values("path", kind="stable")
    return frame.reset_index(drop=True), sorted(unknown)


def _starting_config(folder: Path, target: Path, kinds: Collection[str]) -> str:
    """A config that runs the indexed scans as they are, to be filled in; ``target`` is the folder
    of the sheets.
    """
    tumour = {"T1c", "mask-enhancing", "mask-whole-tumour", "mask-oedema"} & set(kinds)
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-") or "study"
    lines = [
        "# Written by the target index: a start, to be filled in. config/README.md has every key.",
        "# Left out: outcomes, exposures, events, and the plan (analyses).",
        "study:",
        f"  id: {name}",
        f"  title: {json.dumps(folder.resolve().name)}",
        f"  disease: {'glioma' if tumour else 'stroke'}",
        "inputs:",
        f"  participants: {json.dumps((target / 'participants.tsv').as_posix())}",
        f"  scans: {json.dumps((target / 'scans.tsv').as_posix())}",
        f"  data_dir: {json.dumps(folder.as_posix())}",
    ]
    return "\n".join(lines) + "\n"


def write_index(folder: Path, study_folder: Path) -> list[str]:
    """Write ``index/scans.tsv``, ``participants.tsv`` and ``config.yaml``; lines for a person.

    UserError if the folder does not exist or has no scan.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    scans, unknown = _index_bids(folder)
    if scans.empty:
        raise UserError(
            f"{folder} holds no scan by the names of BIDS "
            "(sub-<id>[_ses-<visit>]..._<suffix>.nii.gz), ISLES'24, UPENN-GBM or SOOP"
        )
    target = study_folder / "index"
    write_table(scans, target / "scans.tsv", SCANS)
    ids = pd.DataFrame({"participant_id": sorted(scans["participant_id"].unique())})
    ids, text = _listed(folder, ids)
    write_table(ids, target / "participants.tsv", list(ids.columns))
    counts = scans["kind"].value_counts().sort_index()
    config = write_text(_starting_config(folder, target, set(counts.index)), target / "config.yaml")
    lines = [
        f"{len(scans)} scans of {len(ids)} participants ({_layout_of(folder)} layout): "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        f"Written to {target}/: scans.tsv, participants.tsv, and config.yaml to start from",
        f"Next: snakemake --configfile {config} -- preflight",
    ]
    if unknown:
        lines.append(f"{len(unknown)} image files are of no known kind, for example {unknown[0]}")
    if misplaced := _misplaced(scans["path"]):
        lines.append(
            f"{len(misplaced)} files lie in the folder of another participant than their name "
            f"says, which was used: the first is {misplaced[0]}"
        )
    return lines + text
