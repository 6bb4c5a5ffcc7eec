"""Measurement of one visit, or of a batch of supplied masks: masks -> rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
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
from corelab.segmentation.hypodensity import CtHypodensity
from corelab.settings.measurement import AtlasSettings, MeasurementSettings
from corelab.terms.labels import volume_endpoint


def _load(path: Path) -> Any:
    """A conformed product of an earlier stage; its typed base class hides what it has."""
    return nib.load(path)


def _row(
    participant_id: str,
    visit: str,
    endpoint: str,
    source: str,
    value: float | None,
    unit: str,
    *,
    repeat: int = 1,
    region: str = "all",
    status: str = "ok",
    reason: str | None = None,
    scan_ids: Iterable[str] = (),
) -> dict[str, Any]:
    if value is not None and not np.isfinite(value):
        value, status = None, "not_computable" if status == "ok" else status
        reason = reason or "not defined for these masks"
    ids = ",".join(sorted(scan_ids)) or None
    return measurement_row(
        *(participant_id, visit, endpoint, source, value, unit),
        repeat=repeat,
        region=region,
        status=status,
        reason=reason,
        scan_ids=ids,
    )


def _source(reader: str | None) -> str:
    return reader or "supplied"


def _location_rows(
    participant_id: str,
    visit: str,
    mask: Mapping[str, Any],
    image: nib.Nifti1Image,
    atlases: Sequence[Atlas],
    aspects_min_share: float = 0.2,
) -> list[dict[str, Any]]:
    """Territory and hemisphere fractions of a mask in MNI152 space."""
    # Territory fractions of two labels must not share a key: the label is named where it is not
    # the lesion that the study is about.
    label = mask["label"]
    suffix = "" if label in {"infarct", "lesion", "whole-tumour"} else f":{label}"
    common: dict[str, Any] = {
        "repeat": int(mask.get("repeat") or 1),
        "scan_ids": mask.get("scan_ids") or [],
    }
    known = joined_reasons(mask.get("native_reason"), mask.get("reason"))
    rows = []

    def add(endpoint: str, region: str, share: float, undefined: str) -> None:
        reason = known if np.isfinite(share) else undefined
        rows.append(
            _row(
                participant_id,
                visit,
                f"{endpoint}{suffix}",
                mask["source"],
                share,
                "fraction",
                region=region,
                reason=reason,
                **common,
            )
        )

    for side, share in hemisphere_fractions(image).items():
        add("hemisphere_fraction", side, share, "the lesion is empty")
    for atlas in atlases:
        for region, share in territory_fractions(image, atlas).items():
            add("territory_fraction", region, share, "the region has no voxel")
        # Readers score ASPECTS themselves; a score from their contour is no reading of theirs.
        if label == "infarct" and str(mask["source"]).startswith("pipeline"):
            for endpoint, region, value, unit, detail in aspects_rows(
                image, atlas, min_share=aspects_min_share
            ):
                rows.append(
                    _row(
                        participant_id, visit, endpoint, mask["source"], value, unit,
                        region=region, reason=joined_reasons(detail, known), **common,
                    )
                )  # fmt: skip
    return rows


def _masks_of(
    prepared: Mapping[str, Any],
    segmented: Mapping[str, Any] | None,
    perfused: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """All masks of a visit in one shape, supplied ones first."""
    masks = []
    for scan in prepared["scans"]:
        if scan.get("label") and scan["label"] != "brain":
            masks.append(
                {
                    **{
                        key: scan.get(key) for key in ("label", "path", "status", "reason", "space")
                    },
                    "source": _source(scan.get("reader")),
                    "repeat": int(scan.get("repeat") or 1),
                    "scan_ids": [scan["scan_id"]],
                    "variant": False,
                }
            )
    for record in (segmented, perfused):
        for mask in (record or {}).get("masks", []):
            variant = record is perfused
            masks.append({**mask, "repeat": 1, "space": "native", "variant": variant})
    return masks


def _registry_rows(
    perfused: Mapping[str, Any], folder: Path, participant_id: str, visit: str
) -> list[dict[str, Any]]:
    """Volumes by every published cut-off: frames of one 4D mask image."""
    registry = perfused.get("registry") or {}
    if not registry.get("path"):
        return []
    image = _load(folder / registry["path"])
    voxels = np.asanyarray(image.dataobj)
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000.0
    rules = {entry["id"]: entry["rule"] for entry in registry.get("rows", [])}
    rows = []
    for number, (name, label) in enumerate(zip(registry["ids"], registry["labels"], strict=True)):
        rows.append(
            _row(
                participant_id,
                visit,
                volume_endpoint(label),
                f"pipeline:{name}",
                float(np.count_nonzero(voxels[..., number])) * voxel_ml,
                "mL",
                reason=f"{rules.get(name, name)}, engine {registry['engine']}",
                scan_ids=registry.get("scan_ids") or [],
            )
        )
    return rows


def overlap_rows(
    participant_id: str,
    visit: str,
    masks: Sequence[Mapping[str, Any]],
    images: Mapping[int, nib.Nifti1Image],
    *,
    nsd_tolerance_mm: float,
) -> list[dict[str, Any]]:
    """Overlap of every pair of sources that outlined one label of a visit.

    Parameters
    ----------
    participant_id, visit
        Of the rows.
    nsd_tolerance_mm
        Tolerance of the surface Dice.
    masks
        With ``label``, ``source``, ``repeat``, ``scan_ids``.
    images
        Position in ``masks`` -> mask image, for those that could be read.
    """
    rows: list[dict[str, Any]] = []
    groups: dict[tuple[str, int], list[int]] = {}
    for position in images:
        mask = masks[position]
        # Registry and threshold variants are volumes to compare, not readers to agree.
        groups.setdefault((mask["label"], mask["repeat"]), []).append(position)
    for (label, repeat), members in sorted(groups.items()):
        members.sort(key=lambda position: masks[position]["source"])
        for first, second in itertools.combinations(members, 2):
            a, b = images[first], images[second]
            base = {
                "participant_id": participant_id,
                "visit": visit,
                "label": label,
                "source_a": masks[first]["source"],
                "source_b": masks[second]["source"],
                "repeat": repeat,
                "scan_ids": ",".join(
                    sorted({*masks[first]["scan_ids"], *masks[second]["scan_ids"]})
                ),
            }
            if not same_grid(a, b):
                if masks[first].get("space") != masks[second].get("space"):
                    rows.append(
                        {
                            **base,
                            "metric": "dice",
                            "value": None,
                            "status": "not_computable",
                            "reason": "one mask is in native space, the other in MNI152",
                        }
                    )
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
                rows.append({**base, "metric": metric, **result})
        if len(members) > 2:
            base = {"participant_id": participant_id, "visit": visit, "label": label}
            rows.append(_overlap_of_many(base, repeat, [masks[m] for m in members],
                                         [images[m] for m in members]))  # fmt: skip
    return rows


def _overlap_of_many(
    base: Mapping[str, Any],
    repeat: int,
    masks: Sequence[Mapping[str, Any]],
    images: Sequence[nib.Nifti1Image],
) -> dict[str, Any]:
    """Generalised Dice of three or more sources, on the grid of the first."""
    row = {
        **base,
        "source_a": "all",
        "source_b": "all",
        "repeat": repeat,
        "metric": overlap.MANY_METRIC,
        "scan_ids": ",".join(sorted({one for mask in masks for one in mask["scan_ids"]})),
    }
    if len({mask.get("space") for mask in masks}) > 1:
        reason = "masks are in native space and in MNI152"
        return {**row, "value": None, "status": "not_computable", "reason": reason}
    first = images[0]
    stack = [
        np.asanyarray((one if same_grid(one, first) else resample_to(one, first, order=0)).dataobj)
        > 0
        for one in images
    ]
    value = overlap.generalised_dice(stack)
    if np.isnan(value):
        return {**row, "value": None, "status": "not_computable", "reason": overlap.BOTH_EMPTY}
    sources = ", ".join(mask["source"] for mask in masks)
    return {**row, "value": value, "status": "ok", "reason": f"of {sources}"}


def measure_visit(
    prepared: Mapping[str, Any],
    segmented: Mapping[str, Any] | None,
    perfused: Mapping[str, Any] | None,
    normalised: Mapping[str, Any] | None,
    folder: Path,
    *,
    atlases: Sequence[AtlasSettings],
    settings: MeasurementSettings,
    first_visit: str | None = None,
) -> dict[str, Any]:
    """Measure everything that one visit's masks and maps say.

    Parameters
    ----------
    prepared, segmented, perfused, normalised
        Records of the stages; None where a stage does not apply.
    folder
        The study's results folder; paths in records are relative to it.
    atlases
        ``atlases`` of the config.
    settings
        ``measurement`` of the config.
    first_visit
        Visit of the first window of ``serial_imaging``, where this one lies in a later window:
        the infarct is compared with that of then, voxel by voxel.

    Returns
    -------
    dict
        ``rows`` (columns of measurements.tsv without row_id), ``overlap``, ``acquisition``.
    """
    participant_id, visit = prepared["participant_id"], prepared["visit"]
    loaded = [load_atlas(atlas) for atlas in atlases]
    masks = _masks_of(prepared, segmented, perfused)
    images = {
        position: _load(folder / mask["path"])
        for position, mask in enumerate(masks)
        if mask["status"] == "ok"
    }
    rows: list[dict[str, Any]] = []
    for position, mask in enumerate(masks):
        rows += _mask_rows(participant_id, visit, mask, images.get(position), loaded)
    for entry in (normalised or {}).get("masks", []):
        if entry.get("visit") == visit and entry.get("status") == "ok":
            image = _load(folder / entry["path"])
            rows += _location_rows(
                participant_id, visit, entry, image, loaded, settings.aspects_min_share
            )
    rows += _perfusion_rows(participant_id, visit, perfused, folder)
    rows += reversal_rows(normalised, folder, visit, first_visit)
    # Cut-offs of perfusion are variants to compare by volume, not readers to agree.
    agreeing = {n: image for n, image in images.items() if not masks[n]["variant"]}
    return {
        "stage": "measure",
        "participant_id": participant_id,
        "visit": visit,
        "rows": _settle_doubles(rows),
        "overlap": overlap_rows(
            participant_id, visit, masks, agreeing, nsd_tolerance_mm=settings.nsd_tolerance_mm
        ),
        "acquisition": _acquisition_rows(participant_id, visit, prepared, perfused),
    }


#: The segmentation whose region net water uptake is measured in.
WATER_UPTAKE_SOURCE = CtHypodensity.source


def _mask_rows(
    participant_id: str,
    visit: str,
    mask: Mapping[str, Any],
    image: nib.Nifti1Image | None,
    atlases: Sequence[Atlas],
) -> list[dict[str, Any]]:
    """Volume of a mask where it was drawn, and what goes with it."""
    key = (participant_id, visit)
    source = mask["source"]
    common = {
        "repeat": mask["repeat"],
        "scan_ids": mask.get("scan_ids") or [],
        "reason": mask.get("reason"),
    }
    endpoint = volume_endpoint(mask["label"])
    if image is None:
        endpoints = [(endpoint, "mL")]
        if source == WATER_UPTAKE_SOURCE:
            endpoints.append(("net_water_uptake", "percent"))
        return [
            _row(*key, name, source, None, unit, status=mask["status"], **common)
            for name, unit in endpoints
        ]
    rows = [_row(*key, endpoint, source, mask_volume_ml(image), "mL", **common)]
    rows += _limit_rows(key, endpoint, mask)
    water = (mask.get("quality") or {}).get("net_water_uptake_percent")
    if water is not None:
        rows.append(_row(*key, "net_water_uptake", source, float(water), "percent", **common))
    if mask.get("space") == "MNI152":
        rows += _location_rows(*key, mask, image, atlases)
    return rows


def _limit_rows(
    key: tuple[str, str], endpoint: str, mask: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Volume at the limits of the segmentation's thresholds: its uncertainty, as two variants."""
    quality = mask.get("quality") or {}
    if not (mask.get("parameters") or {}).get("limits") or "volume_low_ml" not in quality:
        return []
    made = []
    for end, name in (("lower", "volume_low_ml"), ("upper", "volume_high_ml")):
        left_out = float(quality.get("candidates_unexplained_ml") or 0.0) if end == "upper" else 0.0
        added = f", and {left_out:.1f} mL that may be normal structures" if left_out else ""
        variant = "-".join([*([str(mask["desc"])] if mask.get("desc") else []), f"{end}-limit"])
        made.append(
            _row(
                *key, endpoint, f"pipeline:{variant}", float(quality[name]), "mL",
                repeat=mask["repeat"],
                scan_ids=mask.get("scan_ids") or [],
                reason=joined_reasons(
                    f"{mask['source']} with its thresholds at the limits that give the "
                    f"{'smallest' if end == 'lower' else 'largest'} volume{added}",
                    mask.get("reason"),
                ),
            )
        )  # fmt: skip
    return made


def _perfusion_rows(
    participant_id: str, visit: str, perfused: Mapping[str, Any] | None, folder: Path
) -> list[dict[str, Any]]:
    """Volumes by every published cut-off, and ratios and indices of the perfusion stage."""
    if not perfused:
        return []
    rows = _registry_rows(perfused, folder, participant_id, visit)
    for quantity in perfused.get("quantities", []):
        rows.append(
            _row(
                participant_id,
                visit,
                quantity["endpoint"],
                quantity["source"],
                quantity.get("value"),
                quantity["unit"],
                status=quantity.get("status") or "ok",
                reason=quantity.get("reason"),
                scan_ids=quantity.get("scan_ids") or [],
            )
        )
    return rows


def _acquisition_rows(
    participant_id: str,
    visit: str,
    prepared: Mapping[str, Any],
    perfused: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Verdicts on the acquisition: the charter's limits, and the gates of perfusion series."""
    key = {"participant_id": participant_id, "visit": visit}
    rows = [{**key, **row} for row in prepared.get("acquisition", [])]
    # A series between its pass and fail limits is still analysed; the report shows it as a warning.
    verdicts = {"PASS": "pass", "WARN": "pass", "FAIL": "fail"}
    for gate in (perfused or {}).get("gates", []):
        rows.append(
            {
                **key,
                "kind": gate.get("kind") or "perfusion",
                "criterion": f"gate:{gate['criterion']}",
                "value": gate.get("value"),
                "limit": gate.get("limit"),
                "verdict": verdicts.get(str(gate["verdict"]), "not_assessable"),
            }
        )
    return rows


def _settle_doubles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per key; two different values under one key are a fault of our own code."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(
            row[k] for k in ("participant_id", "visit", "endpoint", "source", "repeat", "region")
        )
        if key in kept and kept[key]["value"] != row["value"]:
            raise RuntimeError(f"two values for {key}: {kept[key]['value']} and {row['value']}")
        kept.setdefault(key, row)
    return list(kept.values())


def measure_supplied(
    scans: Sequence[Mapping[str, Any]],
    *,
    atlases: Sequence[AtlasSettings],
    settings: MeasurementSettings,
) -> dict[str, Any]:
    """Measure masks that others supplied, of visits that have no images to process.

    Parameters
    ----------
    scans
        Scan rows (``participant_id``, ``visit``, ``kind``, ``path``, ...).
    atlases, settings
        As for :func:`measure_visit`.

    Returns
    -------
    dict
        ``rows``, ``overlap`` and ``scans`` (with sha256, status and reason of every file).
    """
    loaded = [load_atlas(atlas) for atlas in atlases]
    rows: list[dict[str, Any]] = []
    overlaps: list[dict[str, Any]] = []
    scan_entries: list[dict[str, Any]] = []
    for key, group in itertools.groupby(
        sorted(scans, key=lambda s: (s["participant_id"], s["visit"], s["scan_id"])),
        key=lambda s: (s["participant_id"], s["visit"]),
    ):
        masks: list[dict[str, Any]] = []
        images: dict[int, nib.Nifti1Image] = {}
        for scan in group:
            mask, image, status = _supplied_mask(scan)
            scan_entries.append(status)
            if mask["label"] == "brain":
                continue
            rows += _mask_rows(*key, mask, image, loaded)
            if image is not None:
                images[len(masks)] = image
            masks.append(mask)
        overlaps += overlap_rows(*key, masks, images, nsd_tolerance_mm=settings.nsd_tolerance_mm)
    return {
        "stage": "measure_supplied",
        "rows": _settle_doubles(rows),
        "overlap": overlaps,
        "scans": scan_entries,
        "acquisition": [],
    }


def _supplied_mask(
    scan: Mapping[str, Any],
) -> tuple[dict[str, Any], nib.Nifti1Image | None, dict[str, Any]]:
    """A supplied mask as the visits' masks are, its image, and the status of its file."""
    mask = {
        "label": scan["kind"].removeprefix("mask-"),
        "source": _source(scan["reader"]),
        "repeat": scan["repeat"],
        "scan_ids": [scan["scan_id"]],
        "space": scan["space"],
        "status": "ok",
        "reason": None,
    }
    named = ("participant_id", "visit", "kind", "scan_id", "source")
    scan_entries = {
        **{key: scan[key] for key in named},
        "status": "ok",
        "reason": None,
        "sha256": None,
    }
    try:
        if not Path(scan["path"]).exists():
            raise ImageFault("the file is missing", "correct the path in the scans sheet")
        conformed = conform(scan["path"], kind=scan["kind"])
        warnings: list[str] = []
        name = Path(scan["path"]).name
        image = selected_labels(conformed.image, scan["label_values"], name, warnings)
        in_template = scan["space"] == "MNI152"
        fault = volume_fault(mask_volume_ml(image), in_template=in_template)
        if fault and mask["label"] != "brain":
            raise ImageFault(fault, "supply the mask of the lesion alone, and check label_values")
        if in_template and mask["label"] != "brain":
            warnings += filter(None, [outside_brain(image, template_brain_mask())])
    except ImageFault as fault:
        failed = {"status": "failed", "reason": str(fault)}
        return {**mask, **failed}, None, {**scan_entries, **failed, "remedy": fault.remedy}
    scan_entries |= {"sha256": file_sha256(scan["path"]), "notes": list(conformed.notes)}
    return mask, image, {**scan_entries, "warnings": [*conformed.warnings, *warnings]}


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
