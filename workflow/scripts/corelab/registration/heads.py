"""The scan by which a grid is registered, with its brain mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.imaging import ImageFault, load_image
from corelab.records.images import SUPPLIED, Prepared
from corelab.registration.preparation import (
    CT_KINDS,
    DEFORMABLE_KINDS,
    DEFORMABLE_VOXEL_MM,
    best_scan,
    brain_only,
    coarsened,
    voxel_mm,
    windowed,
)
from corelab.registration.presets import load_preset
from corelab.registration.registrar import RegistrationFault
from corelab.settings.registration import RegistrationSettings
from corelab.terms.verdicts import PASS


@dataclass(frozen=True)
class Head:
    """A scan that is to be registered.

    Attributes
    ----------
    image
        3D, windowed, whole head.
    brain
        Brain mask on the same grid, uint8.
    kind, scan_id, path
        As in the record of the stage ``prepare``.
    verdict
        Of the brain mask's volume: ``pass``, ``warn`` or ``fail``; a supplied mask passes.
    """

    image: nib.Nifti1Image
    brain: nib.Nifti1Image
    kind: str
    scan_id: str
    path: str
    verdict: str = PASS

    def stripped(self, settings: RegistrationSettings, spacing_mm: float) -> nib.Nifti1Image:
        """Brain only, cropped and on voxels of about ``spacing_mm``.

        On MR a rim of CSF around the mask steadies the fit; on CT it would bring bone in
        (error of the affine fit 4.3 mm with a rim of 2 mm, 3.6 mm without).
        """
        key = "ct_brain_margin_mm" if self.kind in CT_KINDS else "brain_margin_mm"
        margin_mm = float(load_preset(settings.preset).data[key])
        return coarsened(_cut(self, margin_mm), spacing_mm)

    @property
    def suits_deformable(self) -> bool:
        """Whether a deformable fit of this scan can be trusted."""
        thickest = float(voxel_mm(self.image.affine).max())
        return self.kind in DEFORMABLE_KINDS and thickest <= DEFORMABLE_VOXEL_MM


@lru_cache(maxsize=2)
def _cut(head: Head, margin_mm: float) -> nib.Nifti1Image:
    """Brain of a head, cropped: the same for every fit and grid that the head takes part in."""
    mask = np.asarray(head.brain.dataobj) != 0
    return brain_only(head.image, mask, margin_mm=margin_mm)[0]


def load_head(record: Prepared, folder: Path, grid: str) -> Head:
    """Scan by which a grid is registered, with its brain mask.

    Raises
    ------
    RegistrationFault
        If the grid has no usable image or no brain mask, or a file cannot be read.
    """
    scan = best_scan(record.scans, grid)
    if scan is None:
        raise RegistrationFault(f"grid {grid} has no usable image")
    mask_file = record.brain_masks.get(grid)
    if mask_file is None:
        raise RegistrationFault(f"grid {grid} ({scan.kind}) has no brain mask")
    try:
        ndim = 4 if scan.kind in ("ctp", "dsc") else 3
        image = windowed(load_image(folder / scan.file, ndim=ndim), scan.kind)
        mask: Any = load_image(folder / mask_file, kind="mask-brain")
    except ImageFault as fault:
        raise RegistrationFault(str(fault)) from fault
    brain = (np.asarray(mask.dataobj) != 0).astype(np.uint8)
    if brain.shape != image.shape or not brain.any():
        what = "is empty" if not brain.any() else f"has shape {brain.shape}, not {image.shape}"
        raise RegistrationFault(f"the brain mask of grid {grid} ({scan.kind}) {what}")
    head = nib.Nifti1Image(brain, image.affine)
    judged = record.brain_mask_quality.get(grid)
    verdict = PASS if judged is None or judged.source == SUPPLIED else judged.verdict
    return Head(image, head, scan.kind, scan.scan_id, scan.file, verdict)
