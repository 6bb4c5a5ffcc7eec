"""Measurement of the visits of a participant, or of a batch of supplied masks: masks -> rows."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, mask_volume_ml, resample_to, same_grid
from corelab.imaging.lesion_checks import outside_brain, volume_fault
from corelab.imaging.nifti import conform
from corelab.imaging.template import template_brain_mask
from corelab.imaging.values import chosen_labels
from corelab.measurement import overlap
from corelab.measurement.regions import (
    Atlas,
    aspects_rows,
    hemisphere_fractions,
    load_atlas,
    territory_fractions,
)
from corelab.measurement.reversal import joined_reasons, reversal_rows
from corelab.measurement.rows import measurement_row
from corelab.provenance.products import file_sha256
from corelab.records.images import SUPPLIED, AcquisitionRow, Prepared, ScanRow, Segmented
from corelab.records.measured import (
    Measured,
    MeasuredSupplied,
    MeasurementRow,
    OverlapRow,
    SuppliedScan,
    UnmeasuredVisit,
)
from corelab.records.perfusion import Perfused, Registry
from corelab.records.subjects import Normalised, NormalisedMask
from corelab.records.visits import VisitMask, VisitRecords, visit_masks
from corelab.segmentation.hypodensity import CtHypodensity
from corelab.settings.measurement import AtlasSettings, MeasurementSettings
from corelab.terms.labels import volume_endpoint
from corelab.terms.verdicts import PASS, WARN


def _load(path: Path) -> Any:
    """A conformed product of an earlier stage; its typed base class hides what it has."""
    return nib.load(path)


#: Maker of the rows of a visit: endpoint, source, value, unit and what ``measurement_row`` takes.
_Make = Callable[..., MeasurementRow]


def _maker(participant_id: str, visit: str) -> _Make:
    undefined = "not defined for these masks"
    return partial(measurement_row, participant_id, visit, undefined=undefined)


def _location_rows(
    make: _Make,
    mask: VisitMask | NormalisedMask,
    image: nib.Nifti1Image,
    atlases: Sequence[Atlas],
    aspects_min_share: float = 0.2,
) -> list[MeasurementRow]:
    """Territory and hemisphere fractions of a mask in MNI152 space."""
    # Territory fractions of two labels must not share a key: the label is named where it is not
    # the lesion that the study is about.
    label = mask.label
    suffix = "" if label in {"infarct", "lesion", "whole-tumour"} else f":{label}"
    native_reason = mask.native_reason if isinstance(mask, NormalisedMask) else None
    known = joined_reasons(native_reason, mask.reason)
    own = partial(make, repeat=mask.repeat, scan_ids=mask.scan_ids)
    rows = []

    def add(endpoint: str, region: str, share: float, undefined: str) -> None:
        reason = known if np.isfinite(share) else undefined
        name = f"{endpoint}{suffix}"
        rows.append(own(name, mask.source, share, "fraction", region=region, reason=reason))

    for side, share in hemisphere_fractions(image).items():
        add("hemisphere_fraction", side, share, "the lesion is empty")
    for atlas in atlases:
        for region, share in territory_fractions(image, atlas).items():
            add("territory_fraction", region, share, "the region has no voxel")
        # Readers score ASPECTS themselves; a score from their contour is no reading of theirs.
        if label == "infarct" and mask.source.startswith("pipeline"):
            for endpoint, region, value, unit, detail in aspects_rows(
                image, atlas, min_share=aspects_min_share
            ):
                reason = joined_reasons(detail, known)
                rows.append(own(endpoint, mask.source, value, unit, region=region, reason=reason))
    return rows


def _registry_rows(make: _Make, registry: Registry | None, folder: Path) -> list[MeasurementRow]:
    """Volumes by every published cut-off: frames of one 4D mask image."""
    if registry is None:
        return []
    image = _load(folder / registry.path)
    voxels = np.asanyarray(image.dataobj)
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000.0
    rules = {entry.id: entry.rule for entry in registry.rows}
    return [
        make(
            *(volume_endpoint(label), f"pipeline:{name}"),
            *(float(np.count_nonzero(voxels[..., number])) * voxel_ml, "mL"),
            reason=f"{rules.get(name, name)}, engine {registry.engine}",
            scan_ids=registry.scan_ids,
        )
        for number, (name, label) in enumerate(zip(registry.ids, registry.labels, strict=True))
    ]


def _overlap_rows(
    participant_id: str,
    visit: str,
    masks: Sequence[VisitMask],
    images: Mapping[int, nib.Nifti1Image],
    *,
    nsd_tolerance_mm: float,
) -> list[OverlapRow]:
    """Overlap of every pair of sources that outlined one label of a visit.

    ``images``: position in ``masks`` -> mask image, for those that could be read.
    """
    rows: list[OverlapRow] = []
    groups: dict[tuple[str, int], list[int]] = {}
    for position in images:
        mask = masks[position]
        # Registry and threshold variants are volumes to compare, not readers to agree.
        groups.setdefault((mask.label, mask.repeat), []).append(position)
    for (_, _), members in sorted(groups.items()):
        members.sort(key=lambda position: masks[position].source)
        own = [(masks[member], images[member]) for member in members]
        for first, second in itertools.combinations(own, 2):
            row = partial(_overlap_row, participant_id, visit, [first[0], second[0]])
            a, b = first[1], second[1]
            if not same_grid(a, b):
                if first[0].space != second[0].space:
                    reason = "one mask is in native space, the other in MNI152"
                    rows.append(row("dice", None, "not_computable", reason))
                    continue
                # The finer grid keeps the outline of both.
                coarse_first = abs(np.linalg.det(a.affine[:3, :3])) > abs(
                    np.linalg.det(b.affine[:3, :3])
                )
                a, b = (
                    (resample_to(a, b, order=0), b)
                    if coarse_first
                    else (a, resample_to(b, a, order=0))
                )
            for metric, result in overlap.overlap_metrics(
                np.asanyarray(a.dataobj) > 0,
                np.asanyarray(b.dataobj) > 0,
                a.affine,
                nsd_tolerance_mm=nsd_tolerance_mm,
            ).items():
                rows.append(row(metric, *result))
        if len(members) > 2:
            row = partial(_overlap_row, participant_id, visit, [mask for mask, _ in own])
            rows.append(_overlap_of_many(row, own))
    return rows


def _overlap_row(
    participant_id: str,
    visit: str,
    masks: Sequence[VisitMask],
    metric: str,
    value: float | str | None,
    status: str,
    reason: str | None,
) -> OverlapRow:
    """Row of one metric of a pair of masks, or of more."""
    pair = (masks[0].source, masks[1].source) if len(masks) == 2 else ("all", "all")
    ids = ",".join(sorted({one for mask in masks for one in mask.scan_ids}))
    return OverlapRow(
        *(participant_id, visit, masks[0].label, *pair, masks[0].repeat),
        *(metric, value, status, reason, ids),
    )


def _overlap_of_many(
    row: Callable[..., OverlapRow], own: Sequence[tuple[VisitMask, nib.Nifti1Image]]
) -> OverlapRow:
    """Generalised Dice of three or more sources, on the grid of the first."""
    metric = overlap.MANY_METRIC
    if len({mask.space for mask, _ in own}) > 1:
        reason = "masks are in native space and in MNI152"
        return row(metric, None, "not_computable", reason)
    first = own[0][1]
    stack = [
        np.asanyarray((one if same_grid(one, first) else resample_to(one, first, order=0)).dataobj)
        > 0
        for _, one in own
    ]
    value = overlap.generalised_dice(stack)
    if np.isnan(value):
        return row(metric, None, "not_computable", overlap.BOTH_EMPTY)
    return row(metric, value, "ok", "of " + ", ".join(mask.source for mask, _ in own))


def measure_subject(
    visits: Sequence[VisitRecords],
    normalised: Normalised,
    folder: Path,
    *,
    atlases: Sequence[AtlasSettings],
    settings: MeasurementSettings,
    first_visits: Mapping[str, str],
    sources: Sequence[str] = (),
) -> Measured:
    """Measure all visits of a participant.

    A visit whose measurement ends in an unexpected error is listed in the record with its cause,
    and the traceback is printed; the other visits keep their rows. ``first_visits`` is a visit in a
    later window of ``serial_imaging`` -> that of the first window; ``sources`` are the record's,
    see :class:`~corelab.records.measured.Measured`.
    """
    list(map(load_atlas, atlases))  # a fault of the config is one of all visits
    measured: list[Measured] = []
    failed: list[UnmeasuredVisit] = []
    for one in visits:
        try:
            record = measure_visit(
                *(one.prepare, one.segment, one.perfuse, normalised, folder),
                atlases=atlases,
                settings=settings,
                first_visit=first_visits.get(one.visit),
            )
        except MemoryError:
            raise  # not a fault of the visit: the job runs again with more
        except Exception as error:
            traceback.print_exc()
            cause = " ".join(str(error).split())[:300]
            failed.append(UnmeasuredVisit(one.visit, f"{type(error).__name__}: {cause}"))
        else:
            measured.append(record)
    return Measured(
        normalised.participant_id,
        tuple(row for record in measured for row in record.rows),
        tuple(row for record in measured for row in record.overlap),
        tuple(row for record in measured for row in record.acquisition),
        tuple(failed),
        tuple(sources),
    )


def measure_visit(
    prepared: Prepared,
    segmented: Segmented | None,
    perfused: Perfused | None,
    normalised: Normalised | None,
    folder: Path,
    *,
    atlases: Sequence[AtlasSettings],
    settings: MeasurementSettings,
    first_visit: str | None = None,
) -> Measured:
    """Measure everything that one visit's masks and maps say.

    Records are None where a stage does not apply, their paths relative to ``folder``. Where the
    visit lies in a later window of ``serial_imaging``, the infarct is compared with that of the
    ``first_visit`` of the first window, voxel by voxel.
    """
    participant_id, visit = prepared.participant_id, prepared.visit
    loaded = [load_atlas(atlas) for atlas in atlases]
    masks = visit_masks(prepared, segmented, perfused)
    images = {
        position: _load(folder / mask.file)
        for position, mask in enumerate(masks)
        if mask.status == "ok"
    }
    rows: list[MeasurementRow] = []
    make = _maker(participant_id, visit)
    for position, mask in enumerate(masks):
        rows += _mask_rows(make, mask, images.get(position), loaded)
    for entry in normalised.masks if normalised else ():
        if entry.visit == visit and entry.status == "ok" and entry.path is not None:
            image = _load(folder / entry.path)
            rows += _location_rows(make, entry, image, loaded, settings.aspects_min_share)
    if perfused is not None:
        rows += _perfusion_rows(make, perfused, folder)
    rows += reversal_rows(normalised, folder, visit, first_visit)
    # Cut-offs of perfusion are variants to compare by volume, not readers to agree.
    agreeing = {n: image for n, image in images.items() if masks[n].origin != Perfused.stage}
    overlaps = _overlap_rows(
        participant_id, visit, masks, agreeing, nsd_tolerance_mm=settings.nsd_tolerance_mm
    )
    return Measured(
        *(participant_id, tuple(_settle_doubles(rows)), tuple(overlaps)),
        tuple(_acquisition_rows(prepared, perfused)),
    ).settled()


#: The segmentation whose region net water uptake is measured in.
WATER_UPTAKE_SOURCE = CtHypodensity.source


def _mask_rows(
    make: _Make, mask: VisitMask, image: nib.Nifti1Image | None, atlases: Sequence[Atlas]
) -> list[MeasurementRow]:
    """Volume of a mask where it was drawn, and what goes with it."""
    source = mask.source
    own = partial(make, repeat=mask.repeat, scan_ids=mask.scan_ids, reason=mask.reason)
    endpoint = volume_endpoint(mask.label)
    if image is None:
        endpoints = [(endpoint, "mL")]
        if source == WATER_UPTAKE_SOURCE:
            endpoints.append(("net_water_uptake", "percent"))
        return [own(name, source, None, unit, status=mask.status) for name, unit in endpoints]
    rows = [own(endpoint, source, mask_volume_ml(image), "mL")]
    rows += _limit_rows(make, endpoint, mask)
    water = mask.quality.get("net_water_uptake_percent")
    if water is not None:
        rows.append(own("net_water_uptake", source, float(water), "percent"))
    if mask.space == "MNI152":
        rows += _location_rows(make, mask, image, atlases)
    return rows


def _limit_rows(make: _Make, endpoint: str, mask: VisitMask) -> list[MeasurementRow]:
    """Volume at the limits of the segmentation's thresholds: its uncertainty, as two variants."""
    quality = mask.quality
    if not mask.parameters.get("limits") or "volume_low_ml" not in quality:
        return []
    made = []
    for end, name in (("lower", "volume_low_ml"), ("upper", "volume_high_ml")):
        left_out = float(quality.get("candidates_unexplained_ml") or 0.0) if end == "upper" else 0.0
        added = f", and {left_out:.1f} mL that may be normal structures" if left_out else ""
        variant = "-".join([*([mask.desc] if mask.desc else []), f"{end}-limit"])
        words = (
            f"{mask.source} with its thresholds at the limits that give the "
            f"{'smallest' if end == 'lower' else 'largest'} volume{added}"
        )
        made.append(
            make(
                *(endpoint, f"pipeline:{variant}", float(quality[name]), "mL"),
                repeat=mask.repeat,
                scan_ids=mask.scan_ids,
                reason=joined_reasons(words, mask.reason),
            )
        )
    return made


def _perfusion_rows(make: _Make, perfused: Perfused, folder: Path) -> list[MeasurementRow]:
    """Volumes by every published cut-off, and ratios and indices of the perfusion stage."""
    return _registry_rows(make, perfused.registry, folder) + [
        make(
            *(quantity.endpoint, quantity.source, quantity.value, quantity.unit),
            status=quantity.status,
            reason=quantity.reason,
            scan_ids=quantity.scan_ids or (),
        )
        for quantity in perfused.quantities
    ]


def _acquisition_rows(prepared: Prepared, perfused: Perfused | None) -> list[AcquisitionRow]:
    """Verdicts on the acquisition: the charter's limits, and the gates of perfusion series."""
    key = {"participant_id": prepared.participant_id, "visit": prepared.visit}
    rows = [replace(row, **key) for row in prepared.acquisition]
    for gate in perfused.gates if perfused else ():
        # A series between its pass and fail limits is analysed; the report shows it as a warning.
        verdict = PASS if gate.verdict == WARN else gate.verdict
        rows.append(
            AcquisitionRow(
                "perfusion", f"gate:{gate.criterion}", gate.value, gate.limit, verdict, **key
            )
        )
    return rows


def _settle_doubles(rows: Sequence[MeasurementRow]) -> list[MeasurementRow]:
    """One row per key; two different values under one key are a fault of our own code."""
    kept: dict[tuple[Any, ...], MeasurementRow] = {}
    for row in rows:
        known = kept.setdefault(row.key, row)
        if known.value != row.value:
            raise RuntimeError(f"two values for {row.key}: {known.value} and {row.value}")
    return list(kept.values())


def measure_supplied(
    scans: Sequence[ScanRow],
    *,
    atlases: Sequence[AtlasSettings],
    settings: MeasurementSettings,
) -> MeasuredSupplied:
    """Measure masks that others supplied, of visits that have no images to process."""
    loaded = [load_atlas(atlas) for atlas in atlases]
    rows: list[MeasurementRow] = []
    overlaps: list[OverlapRow] = []
    files: list[SuppliedScan] = []
    for key, group in itertools.groupby(
        sorted(scans, key=lambda s: (s.participant_id, s.visit, s.scan_id)),
        key=lambda s: (s.participant_id, s.visit),
    ):
        masks: list[VisitMask] = []
        images: dict[int, nib.Nifti1Image] = {}
        for scan in group:
            mask, image, file = _supplied_mask(scan)
            files.append(file)
            if mask.label == "brain":
                continue
            rows += _mask_rows(_maker(*key), mask, image, loaded)
            if image is not None:
                images[len(masks)] = image
            masks.append(mask)
        overlaps += _overlap_rows(*key, masks, images, nsd_tolerance_mm=settings.nsd_tolerance_mm)
    return MeasuredSupplied(tuple(_settle_doubles(rows)), tuple(overlaps), tuple(files)).settled()


def _supplied_mask(scan: ScanRow) -> tuple[VisitMask, nib.Nifti1Image | None, SuppliedScan]:
    """A supplied mask as the visits' masks are, its image, and the status of its file."""
    entry = SuppliedScan(scan.participant_id, scan.visit, scan.kind, scan.scan_id, scan.source)
    mask = VisitMask(
        *(scan.label, scan.reader or SUPPLIED),
        scan_ids=(scan.scan_id,),
        repeat=int(scan.repeat or 1),
        space=scan.space or "native",
    )
    path = Path(scan.path)
    try:
        if not path.exists():
            raise ImageFault("the file is missing", "correct the path in the scans sheet")
        conformed = conform(path, kind=scan.kind)
        warnings: list[str] = []
        image = selected_labels(conformed.image, scan.label_values, path.name, warnings)
        in_template = scan.space == "MNI152"
        fault = volume_fault(mask_volume_ml(image), in_template=in_template)
        if fault and mask.label != "brain":
            raise ImageFault(fault, "supply the mask of the lesion alone, and check label_values")
        if in_template and mask.label != "brain":
            warnings += filter(None, [outside_brain(image, template_brain_mask())])
    except ImageFault as fault:
        mask = replace(mask, status="failed", reason=str(fault))
        entry = replace(entry, status="failed", reason=str(fault), remedy=fault.remedy)
        return mask, None, entry
    return (
        mask,
        image,
        replace(
            entry,
            sha256=file_sha256(path),
            notes=tuple(conformed.notes),
            warnings=(*conformed.warnings, *warnings),
        ),
    )


def selected_labels(
    image: nib.Nifti1Image, label_values: str | None, name: str, warnings: list[str]
) -> nib.Nifti1Image:
    """Binary mask of the voxels that count, see :func:`corelab.imaging.values.chosen_labels`.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.array([[[0, 1, 2, 4]]], np.float32), np.eye(4))
    >>> np.asanyarray(selected_labels(image, "1,4", "m.nii", []).dataobj).ravel().tolist()
    [0, 1, 0, 1]
    """
    chosen = chosen_labels(np.asanyarray(image.dataobj), label_values, name, warnings)
    return nib.Nifti1Image(chosen.astype(np.uint8), image.affine)
