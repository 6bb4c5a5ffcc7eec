"""Files of the interactive viewer: its program once per report, small volumes once per subject."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.provenance.products import write_text
from corelab.reporting.pictures import Panel
from corelab.terms.kinds import kind_words

ASSETS = Path(__file__).parent / "assets"
#: Folder below ``report/`` with the viewer's program and the subjects' volumes.
FOLDER = "viewer"
PROGRAM = "niivue.js"
#: Volumes above this many voxels are averaged down, after they were cropped to the head.
MAX_VOXELS = 450_000
#: Grey levels of a volume: more than a screen's window shows, and half the bytes of 256.
LEVELS = 64
#: Bytes of base64 text that a subject may spend on volumes.
VOLUME_BUDGET_BYTES = 450_000
#: With less left of it, no further scan is tried.
LEAST_BYTES = 50_000
#: Voxels around the head that stay when a volume is cropped.
MARGIN_VOXELS = 3


@dataclass(frozen=True)
class ViewerScan:
    """A scan with its overlays as JSON for the page, and the size of its base64 texts."""

    title: str
    content: dict[str, Any]
    size_bytes: int


def _gzip_text(data: bytes) -> str:
    """Base64 of gzip without a time stamp: the same bytes for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def averaging(shape: Sequence[int], spacing: Sequence[float], limit: int = MAX_VOXELS) -> list[int]:
    """Whole-number factors per axis that bring a volume below a number of voxels.

    The finest axis is averaged first, so that voxels become more nearly cubic.

    Examples
    --------
    >>> averaging((96, 96, 30), (2.4, 2.4, 5.0)), averaging((176, 240, 240), (1.0, 1.0, 1.0))
    ([1, 1, 1], [3, 3, 3])
    """
    factors = [1, 1, 1]

    def voxels() -> float:
        return float(np.prod([n // f for n, f in zip(shape, factors, strict=True)]))

    while voxels() > limit:
        effective = [s * f for s, f in zip(spacing, factors, strict=True)]
        finest = min(effective)
        for axis in range(3):
            if effective[axis] <= finest * 1.001:
                factors[axis] += 1
    return factors


def _averaged(volume: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Means of blocks of voxels; what does not fill a block at the far end is left out."""
    values = volume.astype(np.float32)
    for axis, (size, factor) in enumerate(zip(volume.shape, factors, strict=True)):
        if factor > 1:
            rows = np.moveaxis(values, axis, 0)[: size // factor * factor]
            total = rows[::factor].copy()
            for start in range(1, factor):
                total += rows[start::factor]
            values = np.moveaxis(total / np.float32(factor), 0, axis)
    return values


def _nifti(
    data: NDArray[np.uint8], affine: NDArray[np.float64], slope: float = 1.0, offset: float = 0.0
) -> str:
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, offset)
    image.header.set_xyzt_units("mm")
    # The scaling is in the header; the array is written as it is.
    buffer = io.BytesIO()
    header = image.header.copy()
    header.set_data_offset(352)
    header["magic"] = b"n+1"
    header.write_to(buffer)
    buffer.write(b"\x00" * (352 - buffer.tell()))
    buffer.write(np.asfortranarray(data).tobytes(order="F"))
    return _gzip_text(buffer.getvalue())


def head_box(panel: Panel) -> tuple[slice, slice, slice]:
    """Box around the head and every mask of a panel, with a margin; the whole grid where empty."""
    content = panel.image > panel.window[0]
    for outline in panel.outlines:
        content = content | outline.mask
    box = []
    for axis, size in enumerate(panel.image.shape):
        others = tuple(k for k in range(3) if k != axis)
        # A few bright voxels of noise outside the head do not widen the box.
        found = np.flatnonzero(content.mean(axis=others) > 0.002)
        marked = [np.flatnonzero(o.mask.any(axis=others)) for o in panel.outlines]
        found = np.unique(np.concatenate([found, *marked]))
        if not found.size:
            return slice(None), slice(None), slice(None)
        low, high = int(found[0]) - MARGIN_VOXELS, int(found[-1]) + MARGIN_VOXELS + 1
        box.append(slice(max(low, 0), min(high, size)))
    return box[0], box[1], box[2]


def _scan_title(panel: Panel) -> str:
    """What the list of scans says."""
    return f"{panel.visit}: {kind_words(panel.kind)}"


def _viewer_scan(panel: Panel) -> ViewerScan:
    """Crop a panel's scan and masks to the head and quantise them for the viewer."""
    box = head_box(panel)
    cropped = panel.image[box]
    affine = panel.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [float(part.start or 0) for part in box]
    factors = averaging(cropped.shape, panel.spacing_mm)
    image = _averaged(cropped, factors)
    small = affine.copy()
    small[:3, :3] = affine[:3, :3] * np.array(factors)
    small[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    low, high = panel.window
    # Space around the display window, so that the window can be moved.
    first, last = low - 0.25 * (high - low), high + 0.5 * (high - low)
    slope = (last - first) / (LEVELS - 1)
    levels = np.clip(np.round((image - first) / slope), 0, LEVELS - 1).astype(np.uint8)
    text = _nifti(levels, small, slope, first)
    masks = []
    centre = None
    for outline in panel.outlines:
        share = _averaged(outline.mask[box], factors)
        drawn = (share >= 0.5).astype(np.uint8)
        if not drawn.any() and outline.mask.any():
            drawn = (share > 0).astype(np.uint8)
        if drawn.any():
            middle = np.argwhere(drawn).mean(axis=0)
            centre = (small @ [*middle, 1.0])[:3].round(2).tolist()
        masks.append(
            {"name": outline.name, "rgb": list(outline.colour), "base64": _nifti(drawn, small)}
        )
    title = _scan_title(panel)
    content = {
        "title": title,
        "name": f"{panel.visit}-{panel.kind}",
        "base64": text,
        "colormap": "inferno" if panel.kind in {"tmax", "cbf", "cbv", "mtt", "ttp"} else "gray",
        "window": [round(low, 6), round(high, 6)],
        "masks": masks,
        "centre": centre,
    }
    return ViewerScan(title, content, len(text) + sum(len(mask["base64"]) for mask in masks))


def viewer_scans(visits: Sequence[Sequence[Panel]]) -> tuple[list[ViewerScan], list[str]]:
    """Scans of a subject's visits for a page within its budget, and titles of those left out.

    The first scan of every visit (the one that carries masks) comes before any second scan, and
    the map of Tmax next.
    """
    found: list[tuple[int, int, int, Panel]] = []
    for number, panels in enumerate(visits):
        for rank, panel in enumerate(panels):
            place = 0 if rank == 0 else 1 if panel.kind == "tmax" else rank + 1
            found.append((place, number, rank, panel))
    found.sort(key=lambda item: item[:3])
    kept, left, spent = [], [], 0
    for _, number, rank, panel in found:
        if VOLUME_BUDGET_BYTES - spent < LEAST_BYTES:
            left.append(_scan_title(panel))
            continue
        scan = _viewer_scan(panel)
        if spent + scan.size_bytes > VOLUME_BUDGET_BYTES:
            left.append(scan.title)
            continue
        spent += scan.size_bytes
        kept.append((number, rank, scan))
    return [scan for _, _, scan in sorted(kept, key=lambda item: item[:2])], left


def write_program(report: Path) -> Path:
    """Write the viewer's program, once for all pages of a report."""
    source = (ASSETS / "vendor" / "niivue.umd.js").read_text(encoding="utf-8")
    return write_text(source, report / FOLDER / PROGRAM)


def write_volumes(scans: Sequence[ViewerScan], report: Path, name: str) -> str:
    """Write a subject's volumes as a script that the page loads; its address from the page.

    A script is what a page that was opened as a file may load from beside it.
    """
    text = json.dumps([scan.content for scan in scans], sort_keys=True)
    path = write_text(f"globalThis.VOLUMES = {text};\n", report / FOLDER / f"{name}.js")
    return f"{FOLDER}/{path.name}"
