"""Scans of a prepared visit, brought to one grid: what a segmenter works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging import ImageFault, load_image, resample_to, same_grid
from corelab.imaging.brain_quality import mask_fault
from corelab.records.images import Prepared, Scan
from corelab.registration.transforms import apply_transforms

Mask = NDArray[np.bool_]
Image = NDArray[Any]
#: End of the note on images that no registration joins.
BY_HEADERS = "by the headers alone"


class NotSegmentable(ValueError):
    """The images cannot carry this segmentation; the message says why. A status, not a crash."""


@dataclass(frozen=True)
class Inputs:
    """Images on one grid, the scans they came from, and notes on how they got there."""

    images: dict[str, Image]
    scans: tuple[Scan, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """The scan whose grid others are brought to, and its image."""

    scan: Scan
    image: nib.Nifti1Image


class VisitScans:
    """The scans of a prepared visit, brought to one grid on request.

    Examples
    --------
    >>> VisitScans(Prepared("1", "v"), ".").scan("T1c") is None
    True
    """

    def __init__(self, record: Prepared, folder: str | Path) -> None:
        self.record = record
        self.folder = Path(folder)
        #: Scan id -> images of MNI coordinates (``haematoma.in_template``).
        self.coordinates: dict[str, dict[str, Image]] = {}

    def scan(self, kind: str) -> Scan | None:
        """The scan of a kind: whole ones first, then the lowest repeat and id."""
        of_kind = [scan for scan in self.record.scans if scan.kind == kind]
        return min(of_kind, key=lambda s: (s.status != "ok", s.repeat, s.scan_id), default=None)

    def first(self, *kinds: str) -> Scan | None:
        """The first usable scan of several kinds, else the first present one."""
        there = [scan for scan in map(self.scan, kinds) if scan is not None]
        whole = [scan for scan in there if scan.status == "ok"]
        return next(iter(whole or there), None)

    def load(self, scan: Scan) -> nib.Nifti1Image:
        """A scan's conformed image.

        Raises
        ------
        NotSegmentable
            If its preparation failed.
        ImageFault
            If the file is damaged.
        """
        if not scan.usable:
            raise NotSegmentable(f"{scan.kind} scan {scan.scan_id} failed: {scan.reason}")
        return load_image(self.folder / scan.file, kind=scan.kind)

    def brain(self, grid: str | None, reference: nib.Nifti1Image) -> Mask:
        """Brain mask of a grid.

        Raises
        ------
        NotSegmentable
            If there is none, or its volume is that of no brain.
        """
        fault = mask_fault(self.record, grid)
        if fault is not None:
            raise NotSegmentable(fault)
        path = None if grid is None else self.record.brain_masks.get(grid)
        if path is None:
            raise NotSegmentable(f"grid {grid} has no brain mask; supply a mask-brain scan")
        mask = load_image(self.folder / path, kind="mask-brain")
        if not same_grid(mask, reference):
            mask = resample_to(mask, reference, order=0)
        return np.asarray(mask.dataobj) > 0.5

    def on_grid(
        self, scan: Scan, target: Scan, reference: nib.Nifti1Image
    ) -> tuple[Image, str | None]:
        """A scan on the grid of another, through the visit's rigid transforms.

        A scan that has to be moved is 0 outside its own brain mask.

        Returns
        -------
        values, note
            The note says when a transform was missing, so that headers alone were trusted.
        """
        image = self.load(scan)
        if same_grid(image, reference):
            return np.asarray(image.dataobj, np.float64), None
        masked = scan.grid in self.record.brain_masks
        if not scan.label and masked and mask_fault(self.record, scan.grid) is None:
            # Two brain masks err in different places: scalp that one lets in, the other keeps out.
            inside = self.brain(scan.grid, image)
            image = nib.Nifti1Image(
                np.where(inside, np.asarray(image.dataobj), np.float32(0)), image.affine
            )
        steps: list[str | Path] = []
        inverted: list[bool] = []
        note = None
        for grid, inverse in ((target.grid, True), (scan.grid, False)):
            found = None if grid is None else self.record.transforms.get(grid)
            if found is None or found.status != "ok":
                if grid != self.record.reference:
                    note = f"{scan.kind} was brought to {target.kind} {BY_HEADERS}"
                continue
            if found.path:
                steps.append(self.folder / found.path)
                inverted.append(inverse)
        if note:
            steps, inverted = [], []
        interpolation = "label" if scan.label else "linear"
        moved = apply_transforms(image, reference, steps, interpolation, inverted=inverted)
        return np.asarray(moved.dataobj, np.float64), note

    def together(self, target: Target, kinds: Sequence[str] = ()) -> Inputs:
        """A scan and those of other kinds on its grid; a failed one is noted and left out."""
        scan, reference = target.scan, target.image
        images: dict[str, Image] = {scan.kind: np.asarray(reference.dataobj, np.float64)}
        scans, notes = [scan], []
        for kind in kinds:
            other = self.scan(kind)
            if other is None or kind == scan.kind:
                continue
            try:
                images[kind], note = self.on_grid(other, scan, reference)
            except (ImageFault, NotSegmentable) as fault:
                notes.append(f"without the {kind} scan: {fault}")
                continue
            scans.append(other)
            if note:
                notes.append(note)
        return Inputs(images, tuple(scans), tuple(notes))
