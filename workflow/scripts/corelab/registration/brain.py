"""Brain masks after alignment: an image that shows the border badly takes another one's mask.

On b0 and DSC the fluid around the brain is as bright as brain; on thick contrast-enhanced slices
scalp and brain touch. Where the visit has an image on which the border is plain, and the two are
aligned, its mask is brought over instead of guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import load_image, save_image
from corelab.imaging.brain_quality import brain_rows, judged_mask
from corelab.provenance.products import file_sha256
from corelab.records.images import SUPPLIED, BrainQuality, Prepared, Transform
from corelab.registration.transforms import apply_transforms, read_steps
from corelab.terms.kinds import SERIES_KINDS
from corelab.terms.verdicts import PASS

#: Images that show the brain's border, best first.
DONORS = ("T1w", "dwi", "ncct", "FLAIR")
#: Images that show it badly on any scanner.
WEAK = ("b0", "dsc", "adc", "T2w", "T1c")


def share_brain_masks(record: Prepared, folder: Path) -> Prepared:
    """Replace weak brain masks of an aligned visit by that of its best image.

    Parameters
    ----------
    record
        Of the stage ``prepare`` with ``transforms`` (:func:`corelab.registration.align_visit`).
    folder
        Results folder; the masks' files are rewritten in place.

    Returns
    -------
    Prepared
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
    >>> record = Prepared("1", "v", brain_mask_quality={"g1": BrainQuality("b0")},
    ...                   brain_masks={"g1": "m.nii.gz"}, transforms={"g1": Transform("g1")})
    >>> share_brain_masks(record, Path(".")).brain_mask_quality["g1"].source
    'b0'
    """
    quality = dict(record.brain_mask_quality)
    transforms = record.transforms
    sound = [grid for grid, fit in transforms.items() if fit.status == "ok"]
    placed = [grid for grid in quality if grid in sound]
    donor = _donor({grid: quality[grid] for grid in placed})
    for grid in placed:
        own = quality[grid]
        weak = own.source in WEAK or own.verdict != PASS
        if donor is None or grid == donor or own.source == SUPPLIED or not weak:
            continue
        quality[grid] = _brought(record, folder, donor, grid)
    quality |= _disagreeing(record.brain_mask_quality, quality, transforms)
    shared = replace(record, brain_mask_quality=quality)
    return replace(shared, acquisition=(*record.acquisition, *brain_rows(shared)))


def _disagreeing(
    before: Mapping[str, BrainQuality],
    after: Mapping[str, BrainQuality],
    transforms: Mapping[str, Transform],
) -> dict[str, BrainQuality]:
    """Masks of plausible volume, both kept, that did not agree after a fit judged without them."""
    found: dict[str, BrainQuality] = {}
    for grid, entry in transforms.items():
        pair = [name for name in (entry.to, grid) if name in after]
        kept = all(
            after[name].verdict == PASS and after[name].source == before[name].source
            for name in pair
        )
        if "donor" in entry.quality and kept:
            dice = entry.quality["dice"]
            found |= {name: replace(after[name], disagrees_dice=dice) for name in pair}
    return found


def _donor(quality: Mapping[str, BrainQuality]) -> str | None:
    order = (SUPPLIED, *DONORS)
    sound = [
        grid for grid, found in quality.items() if found.source in order and found.verdict == PASS
    ]
    return min(sound, key=lambda grid: order.index(quality[grid].source), default=None)


def _brought(record: Prepared, folder: Path, donor: str, grid: str) -> BrainQuality:
    """Write the donor's mask on a grid; its quality."""
    own = record.brain_mask_quality[grid]
    file = folder / record.brain_masks[grid]
    target: Any = load_image(file, kind="mask-brain")
    given = record.brain_masks[donor]
    # Points of the grid -> reference (inverted) -> points of the donor.
    paths, inverted = [], []
    for name, inverse in ((grid, True), (donor, False)):
        path = record.transforms[name].path
        if path is not None:
            paths.append(folder / path)
            inverted.append(inverse)
    moved = apply_transforms(
        load_image(folder / given, kind="mask-brain"), target, read_steps(paths, inverted), "label"
    )
    mask = nib.Nifti1Image((np.asarray(moved.dataobj) != 0).astype(np.uint8), target.affine)
    source = f"{record.brain_mask_quality[donor].source} of {donor}"
    save_image(
        mask,
        file,
        sidecar={
            "unit": "label",
            "inputs": [{"name": given, "sha256": file_sha256(folder / given)}],
            "parameters": {"method": "mask of another image of the visit", "source": source},
        },
    )
    kind = own.kind or own.source
    on_grid = [s for s in record.scans if s.grid == grid and s.kind == kind]
    ndim = 4 if kind in SERIES_KINDS else 3
    image = load_image(folder / on_grid[0].file, ndim=ndim) if on_grid else None
    return replace(judged_mask(mask, image, kind, source), own_volume_ml=own.volume_ml)
