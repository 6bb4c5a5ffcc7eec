"""Contours of several sources on the scan: the subjects of least, middle and best overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corelab.agreement import figures
from corelab.agreement.sources import chosen_sources
from corelab.imaging.geometry import resample_to
from corelab.measurement.selection import NotComputable, Tables, population
from corelab.provenance.exhibits import Drawn
from corelab.records import VisitRecords, read_visits
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.study.naming import session_entity, subject_entity
from corelab.terms.labels import label as mask_label


def _visit(folder: Path, participant_id: str, visit: str) -> VisitRecords | None:
    here = folder / "derivatives" / subject_entity(participant_id) / session_entity(visit)
    names = ("prepare.json", "segment.json", "perfuse.json")
    return next(iter(read_visits(here / name for name in names if (here / name).is_file())), None)


def _label_masks(visit: VisitRecords, label: str) -> dict[str, str]:
    """Source -> mask file of one label, relative to the folder: readers' and the pipeline's."""
    found: dict[str, str] = {}
    for mask in visit.masks(labels=[label], repeat=1, space="native", usable=True):
        found.setdefault(mask.source, mask.file)
    return found


def _background(visit: VisitRecords, label: str) -> str | None:
    scans = [scan for scan in visit.prepare.scans if scan.usable and scan.label is None]
    for kind in mask_label(label).drawn_on:
        for scan in scans:
            if scan.kind == kind:
                return scan.path
    return scans[0].path if scans else None


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
    """Contours of the sources of an overlap analysis on three subjects' scans."""
    import nibabel as nib

    label, panels = analysis.label, []
    for participant_id, visit, dice in _cases(analysis, tables):
        records = _visit(folder, participant_id, visit)
        path = _background(records, label) if records else None
        masks = _label_masks(records, label) if records else {}
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
