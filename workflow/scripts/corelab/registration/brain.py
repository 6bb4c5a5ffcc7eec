"""Brain masks after alignment: an image that shows the border badly takes another one's mask.

On b0 and DSC the fluid around the brain is as bright as brain; on thick contrast-enhanced slices
scalp and brain touch. Where the visit has an image on which the border is plain, and the two are
aligned, its mask is brought over instead of guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import load_image, save_image
from corelab.imaging.brain_quality import brain_rows, judged_mask
from corelab.imaging.prepare import SERIES_KINDS
from corelab.provenance.products import file_sha256
from corelab.registration.transforms import apply_transforms, read_steps

#: Images that show the brain's border, best first.
DONORS = ("T1w", "dwi", "ncct", "FLAIR")
#: Images that show it badly on any scanner.
WEAK = ("b0", "dsc", "adc", "T2w", "T1c")


def share_brain_masks(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Replace weak brain masks of an aligned visit by that of its best image.

    Parameters
    ----------
    record
        Of the stage ``prepare`` with ``transforms`` (:func:`corelab.registration.align_visit`).
    folder
        Results folder; the masks' files are rewritten in place.

    Returns
    -------
    dict
        The record; ``brain_mask_quality[grid]`` of a replaced mask names the donor in
        ``source`` (``T1w of g1``) and keeps what the image alone gave in ``own_volume_ml``.
        ``acquisition`` gets the rows of :func:`corelab.imaging.brain_quality.brain_rows`.

    Notes
    -----
    A supplied mask is never replaced. A mask is weak if its image is of a kind in :data:`WEAK`
    or if its volume was not judged ``pass``; a donor is of a kind in :data:`DONORS` (or supplied)
    with the verdict ``pass``. A grid whose rigid fit failed keeps its own.

    Examples
    --------
    >>> record = {"brain_mask_quality": {"g1": {"source": "b0", "verdict": "pass"}},
    ...           "brain_masks": {"g1": "m.nii.gz"}, "transforms": {"g1": {"status": "ok"}},
    ...           "scans": []}
    >>> share_brain_masks(record, Path("."))["brain_mask_quality"]["g1"]["source"]
    'b0'
    """
    quality = dict(record.get("brain_mask_quality", {}))
    transforms = record.get("transforms", {})
    placed = [grid for grid in quality if transforms.get(grid, {}).get("status") == "ok"]
    donor = _donor({grid: quality[grid] for grid in placed})
    for grid in placed:
        own = quality[grid]
        weak = own["source"] in WEAK or own["verdict"] != "pass"
        if donor is None or grid == donor or own["source"] == "supplied" or not weak:
            continue
        quality[grid] = _brought(record, folder, donor, grid)
    quality |= _disagreeing(record.get("brain_mask_quality", {}), quality, transforms)
    shared = {**record, "brain_mask_quality": quality}
    rows = [*record.get("acquisition", []), *brain_rows(shared)]
    return {**shared, "acquisition": rows}


def _disagreeing(
    before: Mapping[str, Any], after: Mapping[str, Any], transforms: Mapping[str, Any]
) -> dict[str, Any]:
    """Masks of plausible volume, both kept, that did not agree after a fit judged without them."""
    found: dict[str, Any] = {}
    for grid, entry in transforms.items():
        fit = entry.get("quality") or {}
        pair = [name for name in (entry.get("to"), grid) if name in after]
        kept = all(
            after[name]["verdict"] == "pass" and after[name]["source"] == before[name]["source"]
            for name in pair
        )
        if "donor" in fit and kept:
            found |= {name: {**after[name], "disagrees_dice": fit["dice"]} for name in pair}
    return found


def _donor(quality: Mapping[str, Mapping[str, Any]]) -> str | None:
    order = ("supplied", *DONORS)
    sound = [
        grid
        for grid, found in quality.items()
        if found["source"] in order and found["verdict"] == "pass"
    ]
    return min(sound, key=lambda grid: order.index(quality[grid]["source"]), default=None)


def _brought(record: Mapping[str, Any], folder: Path, donor: str, grid: str) -> dict[str, Any]:
    """Write the donor's mask on a grid; its quality."""
    own = record["brain_mask_quality"][grid]
    file = folder / record["brain_masks"][grid]
    target: Any = load_image(file, kind="mask-brain")
    given = record["brain_masks"][donor]
    # Points of the grid -> reference (inverted) -> points of the donor.
    paths, inverted = [], []
    for name, inverse in ((grid, True), (donor, False)):
        path = record["transforms"][name].get("path")
        if path is not None:
            paths.append(folder / path)
            inverted.append(inverse)
    moved = apply_transforms(
        load_image(folder / given, kind="mask-brain"), target, read_steps(paths, inverted), "label"
    )
    mask = nib.Nifti1Image((np.asarray(moved.dataobj) != 0).astype(np.uint8), target.affine)
    source = f"{record['brain_mask_quality'][donor]['source']} of {donor}"
    save_image(
        mask,
        file,
        sidecar={
            "unit": "label",
            "inputs": [{"name": given, "sha256": file_sha256(folder / given)}],
            "parameters": {"method": "mask of another image of the visit", "source": source},
        },
    )
    kind = own.get("kind") or own["source"]
    on_grid = [s for s in record.get("scans", []) if s["grid"] == grid and s["kind"] == kind]
    ndim = 4 if kind in SERIES_KINDS else 3
    image = load_image(folder / on_grid[0]["path"], ndim=ndim) if on_grid else None
    return {**judged_mask(mask, image, kind, source), "own_volume_ml": own["volume_ml"]}
