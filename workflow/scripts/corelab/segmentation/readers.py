"""Consensus of the masks that several readers drew of one label at one visit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import same_grid, save_image
from corelab.segmentation.consensus import majority_vote, staple
from corelab.study.naming import mask_path


def consensus_masks(
    record: Mapping[str, Any], folder: Path, *, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write the consensus of readers' masks of a prepared visit.

    Parameters
    ----------
    record
        Of the prepare stage; supplied masks have a ``label`` and a ``reader``.
    folder
        The study's results folder.
    settings
        ``method`` (none, majority, staple) and ``readers`` (empty: all).

    Returns
    -------
    list of dict
        Mask entries of the segment record, source ``consensus:<method>``. A label with fewer
        than two usable masks of the first read has none; masks on different grids give an entry
        ``not_computable`` with the reason.
    """
    method = settings.get("method", "none")
    if method == "none":
        return []
    voters = set(settings.get("readers") or [])
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for scan in record["scans"]:
        named = scan.get("reader") and (not voters or scan["reader"] in voters)
        first = int(scan.get("repeat") or 1) == 1
        if scan.get("label") not in (None, "brain") and scan["status"] == "ok" and named and first:
            by_label.setdefault(scan["label"], []).append(scan)
    entries = []
    for label, scans in sorted(by_label.items()):
        if len(scans) < 2:
            continue
        source = f"consensus:{method}"
        entry: dict[str, Any] = {
            "label": label,
            "source": source,
            "desc": source,
            "path": None,
            "kind": f"mask-{label}",
            "grid": scans[0].get("grid"),
            "scan_ids": [scan["scan_id"] for scan in scans],
            "status": "ok",
            "reason": None,
            "parameters": {"method": method, "readers": [scan["reader"] for scan in scans]},
            "quality": {},
        }
        images: list[Any] = [nib.load(folder / scan["path"]) for scan in scans]
        if not all(same_grid(images[0], image) for image in images[1:]):
            entry |= {"status": "not_computable", "reason": "the readers' masks differ in grid"}
            entries.append(entry)
            continue
        voxels = [np.asanyarray(image.dataobj) > 0 for image in images]
        if method == "majority":
            labels, tied = majority_vote([mask.astype(np.uint8) for mask in voxels])
            mask = labels > 0
            entry["quality"]["tied_voxels"] = int(tied.sum())
        else:
            mask = staple(voxels).mask
        entry["path"] = mask_path(
            record["participant_id"], record["visit"], label, kind=entry["kind"], desc=source
        )
        save_image(
            nib.Nifti1Image(mask.astype(np.uint8), images[0].affine),
            folder / entry["path"],
            sidecar={
                "unit": "label",
                "description": f"consensus of {len(scans)} readers",
                "parameters": entry["parameters"],
                "inputs": [{"path": s["path"], "sha256": s.get("sha256")} for s in scans],
            },
            dtype=np.uint8,
        )
        entries.append(entry)
    return entries
