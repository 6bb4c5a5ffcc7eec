"""What follows from readers' masks of one visit: their consensus, and oedema as a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import mask_volume_ml, same_grid, save_image
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


def oedema_masks(
    record: Mapping[str, Any], masks: Sequence[Mapping[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """Write oedema as whole tumour less enhancing core, for sources that drew no oedema.

    The volumes add exactly: core + oedema = whole tumour. Where a core reaches outside the whole
    tumour the entry says by how much, because the sum then exceeds the whole by that.

    Parameters
    ----------
    record
        Of the prepare stage.
    masks
        Mask entries of the segment record (consensus masks have their oedema too).
    folder
        The study's results folder.

    Returns
    -------
    list of dict
        Mask entries of the segment record.
    """
    supplied = [
        {**scan, "source": scan.get("reader") or "supplied"}
        for scan in record["scans"]
        if scan.get("label") and scan["space"] == "native" and int(scan.get("repeat") or 1) == 1
    ]
    by_source: dict[str, dict[str, Mapping[str, Any]]] = {}
    for mask in [*supplied, *masks]:
        if mask["status"] == "ok":
            by_source.setdefault(mask["source"], {}).setdefault(mask["label"], mask)
    entries = []
    for source, found in sorted(by_source.items()):
        if "oedema" in found or not {"enhancing", "whole-tumour"} <= set(found):
            continue
        core, whole = found["enhancing"], found["whole-tumour"]
        entry: dict[str, Any] = {
            "label": "oedema",
            "source": source,
            "desc": source,
            "path": None,
            "kind": "mask-oedema",
            "grid": whole.get("grid"),
            "scan_ids": sorted({*_scan_ids(core), *_scan_ids(whole)}),
            "status": "ok",
            "reason": None,
            "parameters": {"difference_of": ["whole-tumour", "enhancing"]},
            "quality": {},
        }
        images: list[Any] = [nib.load(folder / mask["path"]) for mask in (core, whole)]
        if not same_grid(*images):
            entry |= {"status": "not_computable", "reason": "core and whole tumour differ in grid"}
            entries.append(entry)
            continue
        inner, outer = (np.asanyarray(image.dataobj) > 0 for image in images)
        beyond = nib.Nifti1Image((inner & ~outer).astype(np.uint8), images[0].affine)
        beyond_ml = mask_volume_ml(beyond)
        if beyond_ml > 0:
            entry["reason"] = (
                f"warning: {beyond_ml:.3g} mL of the enhancing core lie outside the whole tumour, "
                "so core and oedema exceed it by that"
            )
            entry["quality"]["core_outside_ml"] = beyond_ml
        entry["path"] = mask_path(
            record["participant_id"], record["visit"], "oedema", kind="T1c", desc=source
        )
        save_image(
            nib.Nifti1Image((outer & ~inner).astype(np.uint8), images[0].affine),
            folder / entry["path"],
            sidecar={
                "unit": "label",
                "description": "whole tumour less enhancing core",
                "parameters": entry["parameters"],
                "inputs": [{"path": m["path"], "sha256": m.get("sha256")} for m in (core, whole)],
            },
            dtype=np.uint8,
        )
        entries.append(entry)
    return entries


def _scan_ids(mask: Mapping[str, Any]) -> list[str]:
    return list(mask.get("scan_ids") or [mask["scan_id"]])
