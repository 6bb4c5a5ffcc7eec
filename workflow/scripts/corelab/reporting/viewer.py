"""Volumes for the interactive viewer of a subject's page, small enough to be inside the page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.reporting.pictures import Panel, window_of
from corelab.reporting.vocabulary import KIND_WORDS

ASSETS = Path(__file__).parent / "assets"
#: Volumes above this many voxels are averaged down before they go into a page.
MAX_VOXELS = 1_300_000
#: Bytes of base64 text that a page may spend on volumes.
VOLUME_BUDGET_BYTES = 3_600_000


@dataclass(frozen=True)
class ViewerScan:
    """A scan with its overlays, ready for the page.

    Attributes
    ----------
    title
        What the list of scans says.
    content
        Goes to the page as JSON.
    size_bytes
        Of its base64 texts.
    """

    title: str
    content: dict[str, Any]
    size_bytes: int


def gzip_text(data: bytes) -> str:
    """Base64 of gzip without a time stamp: the same bytes for the same data.

    Examples
    --------
    >>> gzip_text(b"abc") == gzip_text(b"abc")
    True
    """
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


@cache
def niivue_source() -> str:
    """The vendored viewer, compressed for a page."""
    return gzip_text((ASSETS / "vendor" / "niivue.umd.js").read_bytes())


@cache
def niivue_sha256() -> str:
    """Base64 SHA-256 of the viewer's source, for the page's content security policy."""
    digest = hashlib.sha256((ASSETS / "vendor" / "niivue.umd.js").read_bytes()).digest()
    return base64.b64encode(digest).decode("ascii")


def averaging(shape: Sequence[int], spacing: Sequence[float], limit: int = MAX_VOXELS) -> list[int]:
    """Whole-number factors per axis that bring a volume below a number of voxels.

    The finest axis is averaged first, so that voxels become more nearly cubic.

    Examples
    --------
    >>> averaging((192, 192, 30), (1.2, 1.2, 5.0)), averaging((176, 240, 240), (1.0, 1.0, 1.0))
    ([1, 1, 1], [2, 2, 2])
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


def _averaged(data: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    trimmed = data[tuple(slice(0, n // f * f) for n, f in zip(data.shape, factors, strict=True))]
    blocks: list[int] = []
    for n, f in zip(trimmed.shape, factors, strict=True):
        blocks += [n // f, f]
    return trimmed.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)


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
    return gzip_text(buffer.getvalue())


def viewer_scan(panel: Panel) -> ViewerScan:
    """Quantise a panel's scan and masks to 8 bits for the page."""
    affine = panel.affine
    factors = averaging(panel.image.shape, panel.spacing_mm)
    image = _averaged(panel.image, factors)
    small = affine.copy()
    small[:3, :3] = affine[:3, :3] * np.array(factors)
    small[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    low, high = window_of(panel.image, panel.kind)
    # Room around the display window, so that the window can be moved.
    first, last = low - 0.25 * (high - low), high + 0.5 * (high - low)
    slope = (last - first) / 255
    levels = np.clip(np.round((image - first) / slope), 0, 255).astype(np.uint8)
    text = _nifti(levels, small, slope, first)
    masks = []
    centre = None
    for outline in panel.outlines:
        share = _averaged(outline.mask, factors)
        drawn = (share >= 0.5).astype(np.uint8)
        if not drawn.any() and outline.mask.any():
            drawn = (share > 0).astype(np.uint8)
        if drawn.any():
            middle = np.argwhere(drawn).mean(axis=0)
            centre = (small @ [*middle, 1.0])[:3].round(2).tolist()
        masks.append(
            {"name": outline.name, "rgb": list(outline.colour), "base64": _nifti(drawn, small)}
        )
    coarser = "" if factors == [1, 1, 1] else ", averaged for display"
    title = f"{panel.visit}: {KIND_WORDS.get(panel.kind, panel.kind)}{coarser}"
    content = {
        "title": title,
        "name": f"{panel.visit}-{panel.kind}",
        "base64": text,
        "colormap": "viridis" if panel.kind in {"tmax", "cbf", "cbv", "mtt", "ttp"} else "gray",
        "window": [round(low, 6), round(high, 6)],
        "masks": masks,
        "centre": centre,
    }
    return ViewerScan(title, content, len(text) + sum(len(mask["base64"]) for mask in masks))


def viewer_scans(visits: Sequence[Sequence[Panel]]) -> tuple[list[ViewerScan], list[str]]:
    """Scans of a subject's visits for a page within its budget, and titles of those left out.

    The first scan of every visit (the one that carries masks) comes before any second scan.
    """
    found: list[tuple[int, int, ViewerScan]] = []
    for number, panels in enumerate(visits):
        for rank, panel in enumerate(panels):
            found.append((rank, number, viewer_scan(panel)))
    found.sort(key=lambda item: item[:2])
    kept, left, spent = [], [], 0
    for rank, number, scan in found:
        if spent + scan.size_bytes > VOLUME_BUDGET_BYTES:
            left.append(scan.title)
            continue
        spent += scan.size_bytes
        kept.append((number, rank, scan))
    return [scan for _, _, scan in sorted(kept, key=lambda item: item[:2])], left


def volumes_json(scans: Sequence[ViewerScan]) -> str:
    r"""JSON for a script element: nothing in it can end the element.

    Examples
    --------
    >>> volumes_json([ViewerScan("a", {"title": "</script>"}, 0)])
    '[{"title": "\\u003c/script\\u003e"}]'
    """
    text = json.dumps([scan.content for scan in scans], sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
