"""Masks derived from readers' masks of one visit: consensus, tumour core, oedema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import mask_volume_ml, same_grid, save_image
from corelab.records.images import Mask, Prepared, Scan, Segmented
from corelab.records.visits import VisitMask, visit_masks
from corelab.segmentation.consensus import majority_vote, staple
from corelab.settings.segmentation import Consensus
from corelab.study.naming import mask_path


def consensus_masks(record: Prepared, folder: Path, *, settings: Consensus) -> list[Mask]:
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
    list of Mask
        Of the source ``consensus:<method>``. A label with fewer
        than two usable masks of the first read has none; masks on different grids give an entry
        ``not_computable`` with the reason.
    """
    method = settings.method
    if method == "none":
        return []
    voters = set(settings.readers)
    by_label: dict[str, list[Scan]] = {}
    for scan in record.scans:
        named = scan.reader and (not voters or scan.reader in voters)
        if scan.label not in (None, "brain") and scan.usable and named and scan.repeat == 1:
            by_label.setdefault(str(scan.label), []).append(scan)
    entries = []
    for label, scans in sorted(by_label.items()):
        if len(scans) < 2:
            continue
        source = f"consensus:{method}"
        entry = Mask(
            *(label, source, source),
            kind=f"mask-{label}",
            grid=scans[0].grid,
            scan_ids=tuple(scan.scan_id for scan in scans),
            parameters={"method": method, "readers": [scan.reader for scan in scans]},
        )
        images: list[Any] = [nib.load(folder / scan.file) for scan in scans]
        if not all(same_grid(images[0], image) for image in images[1:]):
            reason = "the readers' masks differ in grid"
            entries.append(replace(entry, status="not_computable", reason=reason))
            continue
        voxels = [np.asanyarray(image.dataobj) > 0 for image in images]
        quality = {}
        if method == "majority":
            labels, tied = majority_vote([mask.astype(np.uint8) for mask in voxels])
            mask = labels > 0
            quality["tied_voxels"] = int(tied.sum())
        else:
            mask = staple(voxels).mask
        path = mask_path(
            record.participant_id, record.visit, label, kind=str(entry.kind), desc=source
        )
        save_image(
            nib.Nifti1Image(mask.astype(np.uint8), images[0].affine),
            folder / path,
            sidecar={
                "unit": "label",
                "description": f"consensus of {len(scans)} readers",
                "parameters": entry.parameters,
                "inputs": [{"path": s.path, "sha256": s.sha256} for s in scans],
            },
            dtype=np.uint8,
        )
        entries.append(replace(entry, path=path, quality=quality))
    return entries


#: Labels that a tumour core is made of.
_CORE_PARTS = ("enhancing", "necrosis", "nonenhancing")


def derived_masks(record: Prepared, segmented: Segmented, folder: Path) -> list[Mask]:
    """Write the tumour core and the oedema of sources that drew their parts but not these.

    ``tumourcore`` is the union of enhancing tumour, necrosis and non-enhancing tumour, where
    enhancing tumour and one of the others are drawn. ``oedema`` is the whole tumour less the core,
    so that core and oedema add to the whole; a source without necrosis has it in its oedema, and
    the entry says so. Where a core reaches outside the whole tumour the entry says by how much,
    because the sum then exceeds the whole by that.

    Parameters
    ----------
    record
        Of the prepare stage.
    segmented
        Record of the visit (consensus masks have their oedema too).
    folder
        The study's results folder.

    Returns
    -------
    list of Mask
        Further masks of the record.
    """
    by_source: dict[str, dict[str, VisitMask]] = {}
    for mask in visit_masks(record, segmented, repeat=1, space="native", usable=True):
        by_source.setdefault(mask.source, {}).setdefault(mask.label, mask)
    entries = []
    for source, found in sorted(by_source.items()):
        parts = [found[label] for label in _CORE_PARTS if label in found]
        if "tumourcore" in found:
            parts.append(found["tumourcore"])
        elif "enhancing" in found and len(parts) > 1:
            entries.append(_derived(record, folder, source, "tumourcore", None, parts))
        if parts and "whole-tumour" in found and "oedema" not in found:
            entries.append(_derived(record, folder, source, "oedema", found["whole-tumour"], parts))
    return entries


def _derived(
    record: Prepared,
    folder: Path,
    source: str,
    label: str,
    whole: VisitMask | None,
    parts: Sequence[VisitMask],
) -> Mask:
    """The union of the parts, or the whole less that union, written with its entry."""
    used = [*parts, *([whole] if whole else [])]
    names = [part.label for part in parts]
    entry = Mask(
        *(label, source, source),
        kind=f"mask-{label}",
        grid=used[-1].grid,
        scan_ids=tuple(sorted({one for mask in used for one in mask.scan_ids})),
        parameters={"difference_of": ["whole-tumour", *names]} if whole else {"union_of": names},
    )
    images: list[Any] = [nib.load(folder / mask.file) for mask in used]
    if not all(same_grid(images[0], image) for image in images[1:]):
        words = " and ".join(mask.label.replace("-", " ") for mask in used)
        return replace(entry, status="not_computable", reason=f"{words} differ in grid")
    voxels = [np.asanyarray(image.dataobj) > 0 for image in images]
    inner = np.any(voxels[: len(parts)], axis=0)
    mask = inner
    notes = []
    if whole:
        outer = voxels[-1]
        mask = outer & ~inner
        beyond_ml = mask_volume_ml(
            nib.Nifti1Image((inner & ~outer).astype(np.uint8), images[0].affine)
        )
        if beyond_ml > 0:
            notes.append(
                f"warning: {beyond_ml:.3g} mL of the core lie outside the whole tumour, so core "
                "and oedema exceed it by that"
            )
            quality = {"core_outside_ml": beyond_ml, "flags": ["core_outside"]}
            entry = replace(entry, quality=quality)
        if names == ["enhancing"]:
            notes.append("necrosis is part of it: this source drew none")
    path = mask_path(record.participant_id, record.visit, label, kind="T1c", desc=source)
    how = "whole tumour less" if whole else "union of"
    save_image(
        nib.Nifti1Image(mask.astype(np.uint8), images[0].affine),
        folder / path,
        sidecar={
            "unit": "label",
            "description": f"{how} {', '.join(names)}",
            "parameters": entry.parameters,
            "inputs": [{"path": m.path, "sha256": m.sha256} for m in used],
        },
        dtype=np.uint8,
    )
    return replace(entry, path=path, reason="; ".join(notes) or None)
