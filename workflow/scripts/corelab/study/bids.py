"""Index of a BIDS folder: participants and scans sheets, without opening an image."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from corelab.provenance.job import Plain
from corelab.provenance.products import read_table, write_table

#: Suffix of a BIDS file -> kind of scan.
KINDS = {
    "T1w": "T1w",
    "ce-T1w": "T1c",
    "T2w": "T2w",
    "FLAIR": "FLAIR",
    "T2star": "gre",
    "T2starw": "gre",
    "adc": "adc",
    "ADC": "adc",
    "trace": "dwi",
    "dwi": "dwi",
    "sbref": "b0",
    "ct": "ncct",
    "ncct": "ncct",
    "ctp": "ctp",
    "dsc": "dsc",
    "perf": "dsc",
    "cbf": "cbf",
    "cbv": "cbv",
    "mtt": "mtt",
    "tmax": "tmax",
    "ttp": "ttp",
}
_ENTITY = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")
_SUFFIX = re.compile(r"_([A-Za-z0-9-]+)\.nii(\.gz)?$")
SCANS = ("participant_id", "visit", "kind", "path", "reader", "repeat", "space")


def _row(name: str, path: str) -> dict[str, str | None] | None:
    suffix = _SUFFIX.search(name)
    entities = dict(_ENTITY.findall(name[: suffix.start()] if suffix else ""))
    if suffix is None or "sub" not in entities:
        return None
    word = suffix.group(1)
    if word in {"msk", "mask", "dseg"}:
        kind: str | None = f"mask-{entities.get('label', 'lesion')}"
    elif word == "T1w" and "ce" in entities:
        kind = "T1c"
    else:
        kind = KINDS.get(word)
    if kind is None:
        return None
    space = entities.get("space", "")
    return {
        "participant_id": f"sub-{entities['sub']}",
        "visit": entities.get("ses", "1"),
        "kind": kind,
        "path": path,
        "reader": entities.get("rater") or entities.get("desc")
        if kind.startswith("mask-")
        else None,
        "repeat": entities.get("run"),
        "space": "MNI152" if space.startswith("MNI152") else "native",
    }


def index_bids(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Scans of a BIDS folder and the image files whose kind is not known.

    Parameters
    ----------
    folder
        A BIDS data set; ``derivatives`` inside it is read too.

    Returns
    -------
    scans
        In the columns of the scans sheet; paths relative to ``folder``.
    unknown
        Image files that no kind fits.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp()); (root / "sub-1" / "ses-a" / "dwi").mkdir(parents=True)
    >>> (root / "sub-1" / "ses-a" / "dwi" / "sub-1_ses-a_adc.nii.gz").touch()
    >>> index_bids(root)[0][["participant_id", "visit", "kind"]].values.tolist()
    [['sub-1', 'a', 'adc']]
    """
    rows, unknown = [], []
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.endswith((".nii", ".nii.gz")):
                path = os.path.relpath(os.path.join(base, name), folder)  # noqa: PTH118
                row = _row(name, path)
                if row is None:
                    unknown.append(path)
                else:
                    rows.append(row)
    return pd.DataFrame(rows, columns=list(SCANS)), unknown


def write_index(folder: Path, study_folder: Path) -> list[str]:
    """Write ``index/scans.tsv`` and ``index/participants.tsv``; lines for a person.

    Raises
    ------
    corelab.provenance.job.Plain
        If the folder is not there or holds no scan.
    """
    if not folder.is_dir():
        raise Plain(f"{folder} is not a folder")
    scans, unknown = index_bids(folder)
    if scans.empty:
        raise Plain(f"{folder} holds no BIDS scan (sub-<id>[_ses-<visit>]..._<suffix>.nii.gz)")
    target = study_folder / "index"
    write_table(scans, target / "scans.tsv", SCANS)
    ids = pd.DataFrame({"participant_id": sorted(scans["participant_id"].unique())})
    listed = folder / "participants.tsv"
    if listed.is_file():
        ids = ids.merge(read_table(listed), on="participant_id", how="left")
    write_table(ids, target / "participants.tsv", list(ids.columns))
    counts = scans["kind"].value_counts().sort_index()
    lines = [
        f"{len(scans)} scans of {len(ids)} participants: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items()),
        f"Written: {target / 'scans.tsv'} and {target / 'participants.tsv'}",
        f"Use them with inputs: {{participants: ..., scans: ..., data_dir: {folder}}}",
    ]
    if unknown:
        lines.append(f"{len(unknown)} image files are of no known kind, for example {unknown[0]}")
    return lines
