"""Lesion frequency maps: at each voxel of MNI152, the share of subjects with lesion there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import (
    ImageFault,
    load_image,
    load_mask,
    resample_to,
    same_grid,
    save_image,
)
from corelab.measurement.visit import selected_labels
from corelab.provenance.decisions import exclusion_of, exclusions, read_decisions
from corelab.records.images import SUPPLIED, ScanRow
from corelab.records.subjects import Normalised
from corelab.registration import template_image
from corelab.terms.labels import volume_endpoint


@dataclass(frozen=True)
class MappedMask:
    """A mask in MNI152 space whose voxels are counted; ``label_values`` as in the scans sheet."""

    participant_id: str
    visit: str
    label: str
    source: str
    file: Path
    repeat: int = 1
    label_values: str | None = None

    @property
    def place(self) -> dict[str, str]:
        """Whose mask it is, for sidecars."""
        return {
            "participant_id": self.participant_id, "visit": self.visit, "source": self.source,
        }  # fmt: skip


def mapped_masks(records: Iterable[str | Path], folder: Path) -> list[MappedMask]:
    """Masks that ``normalise`` brought to MNI152; ``folder`` is the study's results folder."""
    return [
        MappedMask(
            *(record.participant_id, mask.visit, mask.label, mask.source),
            *(folder / str(mask.path), mask.repeat),
        )
        for record in map(Normalised.read, records)
        for mask in record.masks
        if mask.status == "ok"
    ]


class NoMask(ValueError):
    """There is no mask to map."""


@dataclass(frozen=True)
class FrequencyMap:
    """A frequency map and what it counts.

    ``image``: share of subjects, 0 to 1, float32. ``n_mapped``: subjects with a mask in MNI152
    space (an empty one too). ``denominator``: what the sum was divided by. ``largest``,
    ``largest_count``: the largest share, and how many subjects that is.
    """

    image: nib.Nifti1Image
    n_mapped: int
    denominator: int
    largest: float
    largest_count: int


def frequency_map(
    masks: Iterable[nib.Nifti1Image | Path],
    *,
    enrolled: int,
    denominator: str,
    template: nib.Nifti1Image | None = None,
) -> FrequencyMap:
    """Sum masks (images or files, one per subject) over subjects and divide by their number.

    The masks' own grid is used if all share it, else the template's. Masks are taken one at a time,
    so memory does not grow with their number: those of one grid are summed on it, and only the sums
    are brought to the template (by nearest voxel, which picks voxels and so is the same for a sum
    as for each mask). The ``denominator`` is ``enrolled``, or ``mapped``: the masks given.

    Raises
    ------
    NoMask
        If there are no masks.
    ValueError
        If the grids differ and there is no template.

    Examples
    --------
    >>> a = np.zeros((2, 1, 1), np.uint8); a[0] = 1
    >>> masks = [nib.Nifti1Image(a, np.eye(4)), nib.Nifti1Image(np.ones_like(a), np.eye(4))]
    >>> found = frequency_map(masks, enrolled=4, denominator="enrolled")
    >>> np.asanyarray(found.image.dataobj).ravel().tolist(), found.largest_count
    ([0.5, 0.25], 2)
    """
    sums: list[tuple[nib.Nifti1Image, np.ndarray]] = []
    mapped = 0
    for item in masks:
        image: Any = nib.load(item) if isinstance(item, Path) else item
        total = next((total for grid, total in sums if same_grid(grid, image)), None)
        if total is None:
            # Fortran order, as files are: voxels are counted in the order in which they lie.
            total = np.zeros(image.shape[:3], np.int32, order="F")
            sums.append((nib.Nifti1Image(total, image.affine), total))
        lesion = np.asanyarray(image.dataobj).ravel(order="F") > 0
        total.ravel(order="F")[np.flatnonzero(lesion)] += 1
        mapped += 1
    if not sums:
        raise NoMask("a frequency map needs at least one mask")
    grid, together = _one_grid([nib.as_closest_canonical(image) for image, _ in sums], template)
    n = enrolled if denominator == "enrolled" else mapped
    share = (together / n).astype(np.float32)
    return FrequencyMap(
        nib.Nifti1Image(share, grid.affine), mapped, n, float(share.max()), int(together.max())
    )


def _one_grid(
    sums: Sequence[nib.Nifti1Image], template: nib.Nifti1Image | None
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Sums of all grids on one: their own if it is the same, else the template's."""
    grid = sums[0]
    if not all(same_grid(grid, other) for other in sums):
        if template is None:
            raise ValueError("the masks lie on different grids, and no template was given")
        grid = template
    together = np.zeros(grid.shape[:3], np.int32)
    for own in sums:
        moved = own if same_grid(own, grid) else resample_to(own, grid, order=0)
        together += np.asanyarray(moved.dataobj)
    return grid, together


def choose_masks(entries: Sequence[MappedMask], visit_order: Sequence[str]) -> list[MappedMask]:
    """One mask per subject: its first visit, the pipeline's mask before a supplied one.

    Examples
    --------
    >>> entries = [MappedMask("1", v, "infarct", s, Path("x"))
    ...            for v in ("day5", "baseline") for s in ("reader-1", "pipeline")]
    >>> [(e.visit, e.source) for e in choose_masks(entries, ["baseline", "day5"])]
    [('baseline', 'pipeline')]
    """
    rank = {visit: number for number, visit in enumerate(visit_order)}

    def order(entry: MappedMask) -> tuple[Any, ...]:
        source = entry.source
        preference = {"pipeline": 0, "supplied": 1}.get(
            source, 3 if source.startswith("pipeline:") else 2
        )
        return (
            entry.participant_id,
            rank.get(entry.visit, len(rank)),
            preference,
            source,
            entry.repeat,
        )

    chosen: dict[str, MappedMask] = {}
    for entry in sorted(entries, key=order):
        chosen.setdefault(entry.participant_id, entry)
    return [chosen[key] for key in sorted(chosen)]


def _entries(
    label: str,
    records: Sequence[str | Path],
    supplied: Sequence[ScanRow],
    folder: Path,
) -> list[MappedMask]:
    """Masks of a label in MNI152 space, with the file of each."""
    mapped = mapped_masks(records, folder)
    return [mask for mask in mapped if mask.label.replace("-", "") == label] + [
        MappedMask(
            *(row.participant_id, row.visit, row.label, row.reader or SUPPLIED),
            *(Path(row.path), int(row.repeat or 1), row.label_values),
        )
        for row in supplied
    ]


def _written(
    path: str | Path,
    label: str,
    entries: Sequence[MappedMask],
    out: list[dict[str, Any]],
    how: Mapping[str, Any],
) -> None:
    """One map and its sidecar; ``out`` is what people excluded."""
    chosen = choose_masks(entries, how["visit_order"])
    template = template_image()
    used: list[dict[str, Any]] = []
    left = list(out)
    sidecar: dict[str, Any] = {
        "label": label,
        "unit": "fraction",
        "description": "share of subjects with lesion at each voxel",
        "n_enrolled": how["enrolled"],
    }
    try:
        found = frequency_map(
            _readable(chosen, label, used, left),
            enrolled=how["enrolled"],
            denominator=how["denominator"],
            template=template,
        )
    except NoMask:
        empty = nib.Nifti1Image(np.zeros(template.shape, np.float32), template.affine)
        reason = "no mask of this label is in MNI152 space"
        sidecar |= {"n_mapped": 0, "status": "not_computable", "reason": reason}
        save_image(empty, path, sidecar={**sidecar, "excluded": left})
        return
    sidecar |= {
        "status": "ok",
        "denominator": how["denominator"],
        "n": found.denominator,
        "n_mapped": found.n_mapped,
        "largest_fraction": found.largest,
        "largest_count": found.largest_count,
        "masks": used,
        "excluded": left,
    }
    save_image(found.image, path, sidecar=sidecar)


def write_frequency_map(
    path: str | Path,
    *,
    label: str,
    records: Sequence[str | Path],
    supplied: Sequence[ScanRow],
    folder: Path,
    enrolled: int,
    denominator: str,
    visit_order: Sequence[str],
    decisions: str | Path | None = None,
    whole: str | Path | None = None,
) -> None:
    """Write the frequency map of one label (without hyphens) to ``path``, with its sidecar.

    ``records`` are ``normalise.json`` of subjects with images, their paths relative to ``folder``;
    ``supplied`` masks of this label in MNI152 space. Masks of visits, or of volumes of this label,
    that ``decisions`` of the review desk exclude are left out, and listed in the sidecar; the map
    before exclusions goes to ``whole``, if that is given.
    """
    entries = _entries(label, records, supplied, folder)
    excluded = exclusions(read_decisions(decisions)) if decisions else {}
    # The label of a file has no hyphens, that of an endpoint does: a mask knows its own.
    kept, out = [], []
    for entry in entries:
        named = {**entry.place, "endpoint": volume_endpoint(entry.label)}
        made = exclusion_of(named, excluded)
        if made is None:
            kept.append(entry)
        else:
            out.append({**entry.place, "reason": f"decision {made.number}: {made.reason}"})
    how = {"enrolled": enrolled, "denominator": denominator, "visit_order": visit_order}
    _written(path, label, kept, out, how)
    if whole is not None:
        _written(whole, label, entries, [], how)


def _readable(
    chosen: Sequence[MappedMask],
    label: str,
    used: list[dict[str, Any]],
    failed: list[dict[str, Any]],
) -> Iterator[nib.Nifti1Image]:
    """Masks one at a time, noting whose were used and whose could not be read."""
    for entry in chosen:
        try:
            # A mask with several labels is read whole: which of them count is in the sheet.
            values = entry.label_values
            load = load_image if values else load_mask
            image = load(entry.file, kind=f"mask-{label}")
            if values:
                image = selected_labels(image, values, entry.file.name, [])
        except ImageFault as fault:
            failed.append({"participant_id": entry.participant_id, "reason": str(fault)})
            continue
        used.append(entry.place)
        yield image
