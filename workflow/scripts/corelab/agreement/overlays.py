"""Contours of several sources on the scan: the subjects of least, middle and best overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from corelab.agreement import figures
from corelab.agreement.figures import Drawn
from corelab.agreement.sources import chosen_sources
from corelab.measurement.selection import NotComputable, Tables, population
from corelab.provenance.products import read_json
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.study.naming import session_entity, subject_entity
from corelab.terms.labels import label as mask_label


def _visit(folder: Path, participant_id: str, visit: str) -> list[dict[str, Any]]:
    here = folder / "derivatives" / subject_entity(participant_id) / session_entity(visit)
    return [read_json(here / f"{n}.json") for n in ("prepare", "segment", "perfuse")
            if (here / f"{n}.json").is_file()]  # fmt: skip


def visit_masks(folder: Path, participant_id: str, visit: str, label: str) -> dict[str, str]:
    """Source -> mask file of one label, relative to the folder: the pipeline's and readers'."""
    records = _visit(folder, participant_id, visit)
    found: dict[str, str] = {}
    for record in records:
        for mask in record.get("masks", []):
            if mask["label"] == label and mask["path"] and mask["status"] == "ok":
                found.setdefault(mask["source"], mask["path"])
        for scan in record.get("scans", []):
            whose = scan.get("reader") or "supplied"
            usable = scan.get("label") == label and scan.get("status") == "ok" and scan.get("path")
            if usable and int(scan.get("repeat") or 1) == 1 and scan.get("space") != "MNI152":
                found.setdefault(whose, scan["path"])
    return found


def _background(folder: Path, participant_id: str, visit: str, label: str) -> str | None:
    scans = [
        (scan["kind"], scan["path"])
        for record in _visit(folder, participant_id, visit)
        for scan in record.get("scans", [])
        if scan["status"] == "ok" and scan.get("path") and not scan["kind"].startswith("mask-")
    ]
    for kind in mask_label(label).drawn_on:
        for found, path in scans:
            if found == kind:
                return path
    return scans[0][1] if scans else None


def _cases(analysis: OverlapSpec, tables: Tables) -> list[tuple[str, str, float]]:
    """Subject, visit and mean Dice over pairs of: the least, the middle and the best."""
    rows = tables.overlap
    people = population(analysis, tables)["participant_id"]
    own = rows[
        (rows["label"] == analysis.label)
        & (rows["metric"] == "dice")
        & (rows["status"] == "ok")
        & rows["participant_id"].isin(people)
    ]
    sources = chosen_sources(analysis, [*own["source_a"], *own["source_b"]])
    own = own[own["source_a"].isin(sources) & own["source_b"].isin(sources)]
    mean = own.groupby(["participant_id", "visit"])["value"].mean().sort_values(kind="stable")
    if not len(mean):
        raise NotComputable("no two masks of the label on one scan")
    places = sorted({0, len(mean) // 2, len(mean) - 1})
    return [(*mean.index[place], float(mean.iloc[place])) for place in places]


def draw_contours(analysis: OverlapSpec, tables: Tables, folder: Path) -> Drawn:
    """Contours of the sources of an overlap analysis on three subjects' scans.

    Raises
    ------
    NotComputable
        If no subject has a scan under its masks.
    """
    import nibabel as nib

    from corelab.imaging.geometry import resample_to

    label, panels = analysis.label, []
    for participant_id, visit, dice in _cases(analysis, tables):
        path = _background(folder, participant_id, visit, label)
        masks = visit_masks(folder, participant_id, visit, label)
        wanted = chosen_sources(analysis, list(masks))
        if path is None or not masks:
            continue
        image = nib.as_closest_canonical(nib.load(folder / path))
        outlines = {
            source: np.asanyarray(
                resample_to(nib.load(folder / masks[source]), image, order=0).dataobj
            )
            > 0
            for source in wanted
            if source in masks
        }
        spacing = [float(v) for v in np.linalg.norm(image.affine[:3, :3], axis=0)]
        volume = np.asanyarray(image.dataobj, dtype=np.float32)
        panels.append(
            figures.Overlay(
                volume, outlines, spacing, f"{participant_id}, {visit}: Dice {dice:.2f}"
            )
        )
    if not panels:
        raise NotComputable("no subject has a scan under its masks")
    titles = "; ".join(panel.title for panel in panels)
    return Drawn(
        figures.plot_contours(panels),
        "Contours of the sources on the scan",
        "The subjects of least, middle and best mean overlap; three slices evenly through the "
        "outlined area, radiological convention (the patient's right is on the left).",
        titles,
    )
