"""Lesion frequency maps: at each voxel of MNI152, the share of subjects with lesion there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, load_image, resample_to, same_grid, save_image
from corelab.measurement.visit import selected_labels
from corelab.provenance.decisions import exclusion_of, exclusions, read_decisions
from corelab.provenance.products import read_json
from corelab.registration import template_image
from corelab.study.columns import volume_endpoint


@dataclass(frozen=True)
class FrequencyMap:
    """A frequency map and what it counts.

    Attributes
    ----------
    image
        Share of subjects, 0 to 1, float32.
    n_mapped
        Subjects with a mask in MNI152 space (an empty one too).
    denominator
        What the sum was divided by.
    largest
        Largest share, and how many subjects that is.
    """

    image: nib.Nifti1Image
    n_mapped: int
    denominator: int
    largest: float
    largest_count: int


def frequency_map(
    masks: Sequence[nib.Nifti1Image | Path],
    *,
    enrolled: int,
    denominator: str,
    template: nib.Nifti1Image | None = None,
) -> FrequencyMap:
    """Sum masks over subjects and divide by their number.

    The masks' own grid is used if all share it, else the template's. Masks are read one at a
    time, so memory does not grow with their number.

    Parameters
    ----------
    masks
        One per subject: images, or files of binary masks.
    enrolled
        Number of subjects in the study.
    denominator
        ``enrolled`` or ``mapped`` (the subjects whose masks are given).
    template
        Needed only if the grids differ.

    Raises
    ------
    ValueError
        If there are no masks.

    Examples
    --------
    >>> a = np.zeros((2, 1, 1), np.uint8); a[0] = 1
    >>> masks = [nib.Nifti1Image(a, np.eye(4)), nib.Nifti1Image(np.ones_like(a), np.eye(4))]
    >>> found = frequency_map(masks, enrolled=4, denominator="enrolled")
    >>> np.asanyarray(found.image.dataobj).ravel().tolist(), found.largest_count
    ([0.5, 0.25], 2)
    """
    if not masks:
        raise ValueError("a frequency map needs at least one mask")
    resampled: np.ndarray | None = None
    first = _read(masks[0])
    common = np.zeros(first.shape[:3], np.uint32)
    for number, item in enumerate(masks):
        image = _read(item)
        if resampled is None and same_grid(image, first):
            common += np.asanyarray(image.dataobj) > 0
            continue
        if template is None:
            raise ValueError("the masks lie on different grids, and no template was given")
        if resampled is None:
            resampled = np.zeros(template.shape[:3], np.uint32)
            for earlier in masks[:number]:
                resampled += _on(_read(earlier), template)
        resampled += _on(image, template)
    if resampled is None or template is None:
        grid, total = first, common
    else:
        grid, total = template, resampled
    n = enrolled if denominator == "enrolled" else len(masks)
    share = (total / n).astype(np.float32)
    return FrequencyMap(
        nib.Nifti1Image(share, grid.affine), len(masks), n, float(share.max()), int(total.max())
    )


def _read(item: nib.Nifti1Image | Path) -> nib.Nifti1Image:
    loaded: Any = nib.load(item) if isinstance(item, Path) else item
    return loaded


def _on(image: nib.Nifti1Image, template: nib.Nifti1Image) -> Any:
    moved = image if same_grid(image, template) else resample_to(image, template, order=0)
    return np.asanyarray(moved.dataobj) > 0


def choose_masks(
    entries: Sequence[Mapping[str, Any]], visit_order: Sequence[str]
) -> list[Mapping[str, Any]]:
    """One mask per subject: its first visit, the pipeline's mask before a supplied one.

    Parameters
    ----------
    entries
        With ``participant_id``, ``visit``, ``source``, ``repeat``.
    visit_order
        Visits in time.

    Examples
    --------
    >>> entries = [{"participant_id": "1", "visit": v, "source": s, "repeat": 1}
    ...            for v in ("day5", "baseline") for s in ("reader-1", "pipeline")]
    >>> [(e["visit"], e["source"]) for e in choose_masks(entries, ["baseline", "day5"])]
    [('baseline', 'pipeline')]
    """
    rank = {visit: number for number, visit in enumerate(visit_order)}

    def order(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        source = entry["source"]
        preference = {"pipeline": 0, "supplied": 1}.get(
            source, 3 if source.startswith("pipeline:") else 2
        )
        return (
            entry["participant_id"],
            rank.get(entry["visit"], len(rank)),
            preference,
            source,
            int(entry.get("repeat") or 1),
        )

    chosen: dict[str, Mapping[str, Any]] = {}
    for entry in sorted(entries, key=order):
        chosen.setdefault(entry["participant_id"], entry)
    return [chosen[key] for key in sorted(chosen)]


def _entries(
    label: str,
    records: Sequence[str | Path],
    supplied: Sequence[Mapping[str, Any]],
    folder: Path,
) -> list[dict[str, Any]]:
    """Masks of a label in MNI152 space, with the file of each."""
    entries: list[dict[str, Any]] = []
    for record_path in records:
        record = read_json(record_path)
        for mask in record.get("masks", []):
            if mask["label"].replace("-", "") == label and mask.get("status") == "ok":
                entries.append(
                    {
                        **mask,
                        "participant_id": record["participant_id"],
                        "file": folder / mask["path"],
                        "label_values": None,
                    }
                )
    for row in supplied:
        entries.append(
            {
                **row,
                "label": row["kind"].removeprefix("mask-"),
                "source": row.get("reader") or "supplied",
                "file": Path(row["path"]),
            }
        )
    return entries


def _written(
    path: str | Path,
    label: str,
    entries: Sequence[Mapping[str, Any]],
    out: list[dict[str, Any]],
    how: Mapping[str, Any],
) -> None:
    """One map and its sidecar; ``out`` is what people excluded."""
    images, used, left = [], [], list(out)
    for entry in choose_masks(entries, how["visit_order"]):
        try:
            image = load_image(entry["file"], kind=f"mask-{label}")
        except ImageFault as fault:
            left.append({"participant_id": entry["participant_id"], "reason": str(fault)})
            continue
        images.append(selected_labels(image, entry.get("label_values")))
        used.append({key: entry[key] for key in ("participant_id", "visit", "source")})
    sidecar: dict[str, Any] = {
        "label": label,
        "unit": "fraction",
        "description": "share of subjects with lesion at each voxel",
        "n_enrolled": how["enrolled"],
        "excluded": left,
    }
    template = template_image()
    if not images:
        empty = nib.Nifti1Image(np.zeros(template.shape, np.float32), template.affine)
        reason = "no mask of this label is in MNI152 space"
        sidecar |= {"n_mapped": 0, "status": "not_computable", "reason": reason}
        save_image(empty, path, sidecar=sidecar)
        return
    found = frequency_map(
        images, enrolled=how["enrolled"], denominator=how["denominator"], template=template
    )
    sidecar |= {
        "status": "ok",
        "denominator": how["denominator"],
        "n": found.denominator,
        "n_mapped": found.n_mapped,
        "largest_fraction": found.largest,
        "largest_count": found.largest_count,
        "masks": used,
    }
    save_image(found.image, path, sidecar=sidecar)


def write_frequency_map(
    path: str | Path,
    *,
    label: str,
    records: Sequence[str | Path],
    supplied: Sequence[Mapping[str, Any]],
    folder: Path,
    enrolled: int,
    denominator: str,
    visit_order: Sequence[str],
    decisions: str | Path | None = None,
    whole: str | Path | None = None,
) -> None:
    """Write the frequency map of one label with its sidecar.

    Parameters
    ----------
    path
        ``maps/<label>_frequency.nii.gz``.
    label
        Mask label without hyphens.
    records
        ``normalise.json`` of subjects with images.
    supplied
        Scan rows of supplied masks of this label in MNI152 space.
    folder
        The study's results folder.
    enrolled, denominator, visit_order
        See :func:`frequency_map` and :func:`choose_masks`.
    decisions
        Table of the review desk: masks of visits, or of volumes of this label, that it excludes
        are left out, and told in the sidecar.
    whole
        Where the map of all masks goes, whatever was excluded; None: it is not written.
    """
    entries = _entries(label, records, supplied, folder)
    excluded = exclusions(read_decisions(decisions)) if decisions else {}
    # The label of a file has no hyphens, that of an endpoint does: a mask knows its own.
    named = [{**entry, "endpoint": volume_endpoint(entry["label"])} for entry in entries]
    kept, out = [], []
    for entry in named:
        made = exclusion_of(entry, excluded)
        if made is None:
            kept.append(entry)
            continue
        told = {key: entry[key] for key in ("participant_id", "visit", "source")}
        out.append({**told, "reason": f"decision {made.number}: {made.reason}"})
    how = {"enrolled": enrolled, "denominator": denominator, "visit_order": visit_order}
    _written(path, label, kept, out, how)
    if whole is not None:
        _written(whole, label, entries, [], how)
