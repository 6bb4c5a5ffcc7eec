"""Static pictures: slice mosaics with contours and frequency maps on the template.

A picture has two layers: the scan as a small lossy WebP image, and outlines, letters and scales
as a lossless transparent one of twice its size, so that their colours are exact and a page can
hide them. Drawn with numpy and Pillow only.
Images are in RAS order. Axial slices are shown in the radiological convention: the patient's
right is on the left of the picture.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.provenance.products import atomic_path
from corelab.records.base import Record
from corelab.records.images import Mask
from corelab.records.visits import VisitMask
from corelab.reporting.results import FrequencyMap, Results, Visit
from corelab.terms.kinds import SHOWN_ORDER
from corelab.terms.labels import label as mask_label

#: Colours of further outlines of a label (readers, software), after the pipeline's own.
SOURCE_COLOURS = ((0, 158, 115), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178))
#: Scans and maps whose contrast has a fixed display window.
WINDOWS = {
    "ncct": (0.0, 80.0),
    "ctp": (0.0, 80.0),
    "adc": (0.0, 2.0e-3),
    "tmax": (0.0, 12.0),
    "cbf": (0.0, 80.0),
    "cbv": (0.0, 8.0),
    "mtt": (0.0, 14.0),
}
#: Quantities of the perfusion stage that are shown, in colour; the figure of maps has the others.
MAP_KINDS = ("tmax",)
WEBP_QUALITY = 68
#: Frames of a series that its picture is the mean of.
FRAMES = 8
#: Pixels of the layer of outlines for one of the scan.
FINE = 2
#: Anchors of a perceptually ordered map from dark violet to yellow (after "inferno").
_HEAT = np.array(
    [
        [60, 9, 101],
        [106, 23, 110],
        [147, 38, 103],
        [188, 55, 84],
        [221, 81, 58],
        [243, 120, 25],
        [252, 165, 10],
        [246, 215, 70],
        [252, 255, 164],
    ],
    dtype=float,
)


@dataclass(frozen=True)
class Outline:
    """A mask to be drawn, with its colour and what the legend says."""

    name: str
    colour: tuple[int, int, int]
    mask: NDArray[np.bool_]

    @property
    def css(self) -> str:
        """The colour for the legend."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


@dataclass(frozen=True)
class Panel:
    """One scan with the outlines drawn on its grid.

    Attributes
    ----------
    visit, kind
        What is shown.
    image
        (x, y, z) in RAS order.
    spacing_mm
        Voxel size.
    outlines
        In drawing order.
    affine
        From voxels to millimetres.
    common_window
        Of :func:`in_common_windows`.
    """

    visit: str
    kind: str
    image: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    outlines: tuple[Outline, ...]
    affine: NDArray[np.float64]
    common_window: tuple[float, float] | None = None

    @cached_property
    def window(self) -> tuple[float, float]:
        """Display window: that of all scans of the kind, else see :func:`window_of`."""
        return self.common_window or window_of(self.image, self.kind)


@dataclass(frozen=True, slots=True)
class Picture(Record):
    """A picture as a page shows it: addresses of both layers (files beside the page, or ``data:``;
    no marks: an empty text), size of the scan in pixels, and (colour, text) of each outline.
    """

    scan: str
    marks: str
    width: int
    height: int
    alt: str
    legend: tuple[tuple[str, str], ...] = ()
    caption: str = ""

    def inlined(self, report: Path) -> Picture:
        """The picture with the content of its files as ``data:`` addresses."""
        scan, marks = (
            _data_address((report / unquote(name)).read_bytes()) if name else ""
            for name in (self.scan, self.marks)
        )
        return replace(self, scan=scan, marks=marks)


def _data_address(data: bytes) -> str:
    """WebP bytes as an address for an offline page."""
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


@dataclass(frozen=True)
class Drawing:
    """An encoded picture: WebP bytes of the scan, lossless ones of what is drawn over it
    (:data:`FINE` times as large), size of the scan in pixels, (colour, text) of each outline.
    """

    data: bytes
    marks: bytes
    width: int
    height: int
    legend: tuple[tuple[str, str], ...] = ()

    def beside(self, folder: Path, stem: str, alt: str, caption: str = "") -> Picture:
        """Write both layers into a folder beside the pages; the picture that shows them."""
        for suffix, layer in (("", self.data), ("_marks", self.marks)):
            with atomic_path(folder / f"{stem}{suffix}.webp") as temporary:
                temporary.write_bytes(layer)
        scan, marks = (f"{folder.name}/{quote(f'{stem}{s}.webp')}" for s in ("", "_marks"))
        return Picture(scan, marks, self.width, self.height, alt, self.legend, caption)


def read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read an image as (x, y, z) float32 in RAS order, and its affine.

    A series gives the mean of its first :data:`FRAMES` frames, before the contrast agent.

    Raises
    ------
    OSError, ValueError
        As nibabel raises them: a product that cannot be read is an error of ours.
    """
    image: Any = nib.load(path)  # type: ignore[attr-defined]
    if image.ndim > 3:
        image = image.slicer[..., :FRAMES]
    elif path.suffix == ".gz":
        # Faster in one piece than in nibabel's chunks.
        image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
    image = nib.as_closest_canonical(image)
    data = np.asarray(image.dataobj, dtype=np.float32)
    if data.ndim > 3:
        data = data.reshape(*data.shape[:3], -1).mean(axis=3)
    if not np.isfinite(data).all():
        data = np.nan_to_num(data)
    return data, np.asarray(image.affine)


def _spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Voxel size of an affine, mm."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).round(6).tolist()
    return x, y, z


def window_of(image: NDArray[np.float32], kind: str) -> tuple[float, float]:
    """Display window: fixed for CT and ADC, else the 1st to 99.7th percentile of what is not 0.

    Examples
    --------
    >>> window_of(np.zeros((2, 2, 2), np.float32), "ncct")
    (0.0, 80.0)
    """
    if kind in WINDOWS:
        return WINDOWS[kind]
    inside = image[image > 0]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside[:: max(inside.size // 200_000, 1)], [1.0, 99.7]).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def choose_slices(
    image: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]], number: int
) -> list[int]:
    """Axial slices to show: spread over the outlines, or over the head where there are none.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 20), bool); mask[1, 1, 5:15] = True
    >>> choose_slices(np.ones((4, 4, 20), np.float32), [mask], 4)
    [5, 8, 11, 14]
    """
    depth = image.shape[2]
    marked = np.zeros(depth, bool)
    for mask in masks:
        marked |= np.asarray(mask).any(axis=(0, 1))
    if marked.any():
        low, high = int(np.argmax(marked)), depth - 1 - int(np.argmax(marked[::-1]))
        # Few slices of a small lesion: show its surroundings too.
        while high - low + 1 < min(number, depth):
            low, high = max(low - 1, 0), min(high + 1, depth - 1)
    else:
        content = np.flatnonzero((image > 0).mean(axis=(0, 1)) > 0.05)
        low, high = (int(content[0]), int(content[-1])) if content.size else (0, depth - 1)
        margin = (high - low) // 6
        low, high = low + margin, high - margin
    return sorted({round(z) for z in np.linspace(low, high, number).tolist()})


def _box(image: NDArray[np.float32]) -> tuple[slice, slice]:
    """Square in-plane box around the head."""
    content = np.any(image > 0, axis=2)
    if not content.any():
        return slice(0, image.shape[0]), slice(0, image.shape[1])
    box = []
    for axis in (0, 1):
        found = np.flatnonzero(np.any(content, axis=1 - axis))
        box.append(slice(max(int(found[0]) - 2, 0), int(found[-1]) + 3))
    return box[0], box[1]


def _resize(
    plane: NDArray[Any], shape: tuple[int, int], order: Literal[0, 1]
) -> NDArray[np.float32]:
    """Resampling of a plane whose edges stay where they are; spline order 0 or 1."""
    values = plane.astype(np.float32)
    for axis, (new, old) in enumerate(zip(shape, plane.shape, strict=True)):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        if order == 0:
            values = values.take(np.floor(at + 0.5).astype(int), axis)
            continue
        low = at.astype(int)
        share = (
            (at - low).astype(np.float32)[:, None] if axis == 0 else (at - low).astype(np.float32)
        )
        upper = values.take(np.minimum(low + 1, old - 1), axis)
        values = values.take(low, axis)
        values += share * (upper - values)
    return values


def _tile(
    plane: NDArray[Any], spacing: tuple[float, float], size: int, order: Literal[0, 1] = 1
) -> NDArray[np.float32]:
    """A plane (x, y) as a square tile of rows and columns, anterior up, patient's right left."""
    extent = (plane.shape[0] * spacing[0], plane.shape[1] * spacing[1])
    scale = size / max(extent)
    shape = (max(round(extent[0] * scale), 1), max(round(extent[1] * scale), 1))
    drawn = _resize(plane, shape, order)
    tile = np.zeros((size, size), np.float32)
    left, top = (size - shape[0]) // 2, (size - shape[1]) // 2
    # In RAS order x grows to the patient's right and y to the front: both are reversed, so that
    # the right is on the left of the picture and the front is up.
    tile[top : top + shape[1], left : left + shape[0]] = drawn[::-1, ::-1].T
    return tile


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rim of a region, :data:`FINE` pixels wide."""
    core = inside
    for _ in range(FINE):
        padded = np.pad(core, 1)
        core = core & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return inside & ~core


class Word(NamedTuple):
    """A text on a layer: what, left and upper edge and size, in pixels of the layer."""

    text: str
    left: int
    top: int
    size: int


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write(pixels: NDArray[np.uint8], words: Iterable[Word]) -> None:
    """Write on a layer of colours, with or without alpha."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for word in words:
        draw.text((word.left, word.top), word.text, fill=(215, 215, 215), font=_font(word.size))
    pixels[:] = np.asarray(picture)


def _drawn_outlines(outlines: Sequence[Outline]) -> list[Outline]:
    """Outlines in drawing order, the smallest last, so that none is covered."""
    names = {outline.name for outline in outlines}

    def redundant(name: str) -> bool:
        label, _, source = name.partition(" ")
        whole = {f"core {source}", f"hypoperfused {source}"}
        return label == "penumbra" and whole <= names

    kept = [outline for outline in outlines if not redundant(outline.name)]
    return sorted(kept, key=lambda outline: -int(outline.mask.sum()))


#: Units of the maps that are shown, and a value that is marked on their colour bar.
_MAP_UNITS = {"tmax": ("s", 6.0)}


def _colour_bar(row: NDArray[np.uint8], kind: str, window: tuple[float, float]) -> list[Word]:
    """Draw the scale of a map at the right end of its row; its ends, unit and marked value."""
    height, width = row.shape[:2]
    top, bottom = height // 5, height - height // 5
    levels = np.linspace(1.0, 0.0, bottom - top, dtype=np.float32)[:, None]
    bar = row[top:bottom, width - 9 * FINE : width - 3 * FINE]
    bar[..., :3], bar[..., 3] = _heat_colours(np.repeat(levels, 6 * FINE, axis=1)), 255
    unit, mark = _MAP_UNITS.get(kind, ("", None))
    size = max(height // 11, 9)
    low, high = window
    end = f"{high:g} {unit}"
    words = [
        Word(end, width - 4 * FINE - len(end) * size // 2, top - size - 4 * FINE, size),
        Word(f"{low:g}", width - size, bottom, size),
    ]
    if mark is not None:
        at = round(bottom - (bottom - top) * (mark - low) / (high - low))
        row[at : at + FINE, width - 13 * FINE : width - 3 * FINE] = 255
        words.append(
            Word(f"{mark:g}", width - 15 * FINE - size // 2, at - size // 2 - 2 * FINE, size)
        )
    return words


def panel_row(
    panel: Panel, *, slices: int, tile: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One row of axial tiles of a scan, and what is drawn over it.

    Colours of shape (tile, slices * tile, 3), and colours with alpha, :data:`FINE` times as large.
    """
    box = _box(panel.image)
    masks = [outline.mask for outline in panel.outlines]
    low, high = panel.window
    outlines = _drawn_outlines(panel.outlines)
    fine = tile * FINE
    row = np.zeros((tile, tile * slices, 3), np.uint8)
    marks = np.zeros((fine, fine * slices, 4), np.uint8)
    spacing = (panel.spacing_mm[0], panel.spacing_mm[1])
    words: list[Word] = []
    for number, z in enumerate(choose_slices(panel.image, masks, slices)):
        level = _tile(panel.image[box[0], box[1], z], spacing, tile)
        level = np.clip((level - low) / (high - low), 0, 1)
        rgb = row[:, number * tile : (number + 1) * tile]
        if panel.kind in MAP_KINDS:
            rgb[:] = _heat_colours(level)
            rgb[level <= 0] = 0
        else:
            rgb[:] = (level * 235).astype(np.uint8)[..., None]
        over = marks[:, number * fine : (number + 1) * fine]
        for outline in outlines:
            plane = outline.mask[box[0], box[1], z]
            if plane.any():
                over[_edge(_tile(plane, spacing, fine) > 0.5)] = (*outline.colour, 255)
        z_mm = float((panel.affine @ [*_middle(panel), z, 1.0])[2])
        words += _tile_words(fine, z_mm, number * fine, first=number == 0)
    if panel.kind in MAP_KINDS:
        words += _colour_bar(marks, panel.kind, (low, high))
    _write(marks, words)
    return row, marks


def _middle(panel: Panel) -> list[float]:
    return [n / 2 for n in panel.image.shape[:2]]


def _tile_words(size: int, z_mm: float, left: int = 0, top: int = 0, *, first: bool) -> list[Word]:
    """Position of a slice on its tile, and the sides of the patient on the first."""
    letter, edge, middle = max(size // 11, 9), size // 50, top + size // 2 - size // 25
    sides = [
        Word("R", left + edge, middle, letter),
        Word("L", left + size - size // 11 - size // 80, middle, letter),
    ]
    place = Word(f"{z_mm:.0f} mm", left + edge, top + size - size // 8 - size // 80, letter)
    return [*sides * first, place]


def encode(rgb: NDArray[np.uint8]) -> bytes:
    """Lossy WebP bytes of a scan; the same picture gives the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", quality=WEBP_QUALITY, method=2)
    return buffer.getvalue()


def _encode_lossless(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless WebP bytes of colours, with or without alpha: a line or a step keeps its colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=1)
    return buffer.getvalue()


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """PNG bytes of a picture, for documents that know no WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _outlines(masks: Sequence[Mask], folder: Path, shape: tuple[int, ...]) -> tuple[Outline, ...]:
    """Masks of one grid as outlines; the pipeline's primary mask is drawn last, on top.

    Variants of the pipeline (other cut-offs of the same label) would hide the image; they are in
    the viewer and the tables.
    """
    drawn: list[Outline] = []
    primary = {mask.label for mask in masks if mask.source == "pipeline"}
    taken: dict[str, int] = {}
    for mask in masks:
        label, source = mask.label, mask.source
        if not (folder / mask.file).is_file():
            continue
        if source.startswith("pipeline:") and label in primary:
            continue
        data, _ = read_volume(folder / mask.file)
        if data.shape != shape:
            continue
        if source == "pipeline":
            colour = mask_label(label).colour
        else:
            colour = SOURCE_COLOURS[taken.get(label, 0) % len(SOURCE_COLOURS)]
            taken[label] = taken.get(label, 0) + 1
        drawn.append(Outline(f"{label} ({source})", colour, data > 0.5))
    return tuple(sorted(drawn, key=lambda outline: outline.name.endswith("(pipeline)")))


def _map_panels(visit: Visit, folder: Path) -> list[Panel]:
    """Perfusion maps of a visit with the masks made from them."""
    if visit.perfuse is None:
        return []
    masks = [mask for mask in visit.perfuse.masks if mask.usable]
    panels = []
    outlines: dict[tuple[int, ...], tuple[Outline, ...]] = {}
    for quantity in MAP_KINDS:
        entry = next((m for m in visit.perfuse.maps if m.quantity == quantity), None)
        if entry is None or not (folder / entry.path).is_file():
            continue
        image, affine = read_volume(folder / entry.path)
        if image.shape not in outlines:
            outlines[image.shape] = _outlines(masks, folder, image.shape)
        drawn = outlines[image.shape]
        panels.append(Panel(visit.visit, quantity, image, _spacing_of(affine), drawn, affine))
    return panels


def visit_panels(visit: Visit, folder: Path) -> list[Panel]:
    """Scans of a visit with the masks of their grids, then its perfusion maps.

    Scans that carry masks come first, and among them those that a mask was drawn on.
    """
    by_grid: dict[str, list[VisitMask]] = {}
    for mask in visit.masks:
        by_grid.setdefault(str(mask.grid), []).append(mask)
    rank = {kind: number for number, kind in enumerate(SHOWN_ORDER)}
    shown = [
        scan
        for scan in visit.scans
        if scan.usable and scan.kind in rank and (folder / scan.file).is_file()
    ]
    primary_kinds = {mask.kind for mask in visit.masks}
    shown.sort(
        key=lambda scan: (
            str(scan.grid) not in by_grid,
            scan.kind not in primary_kinds,
            rank[scan.kind],
            scan.scan_id,
        )
    )
    panels = []
    outlines: dict[tuple[str, tuple[int, ...]], tuple[Outline, ...]] = {}
    for scan in shown:
        image, affine = read_volume(folder / scan.file)
        place = (str(scan.grid), image.shape)
        if place not in outlines:
            outlines[place] = _outlines(
                [m for m in by_grid.get(place[0], ()) if m.repeat == 1], folder, image.shape
            )
        drawn = outlines[place]
        panels.append(Panel(visit.visit, scan.kind, image, _spacing_of(affine), drawn, affine))
    return panels + _map_panels(visit, folder)


#: Scans of one kind whose windows end further apart than by this factor have other units of signal.
_MOST_APART = 2.0


def in_common_windows(panels: Sequence[Panel]) -> list[Panel]:
    """A subject's panels with one display window per kind, so that visits can be compared by eye.

    Examples
    --------
    >>> image = np.linspace(0, 100, 1000, dtype=np.float32).reshape(10, 10, 10)
    >>> two = [Panel("a", "dwi", image * k, (1, 1, 1), (), np.eye(4)) for k in (1.0, 1.5)]
    >>> len({panel.window for panel in in_common_windows(two)})
    1
    """
    kinds: dict[str, list[tuple[float, float]]] = {}
    for panel in panels:
        kinds.setdefault(panel.kind, []).append(panel.window)
    common = {}
    for kind, windows in kinds.items():
        lows, highs = zip(*windows, strict=True)
        if max(highs) <= _MOST_APART * min(highs):
            common[kind] = (min(lows), max(highs))
    return [replace(panel, common_window=common.get(panel.kind)) for panel in panels]


def mosaic(panels: Sequence[Panel], *, slices: int = 6, tile: int = 132) -> Drawing:
    """Rows of axial slices, one row per panel."""
    rows = [panel_row(panel, slices=slices, tile=tile) for panel in panels]
    rgb, marks = (np.concatenate(layers, axis=0) for layers in zip(*rows, strict=True))
    legend: dict[str, str] = {}
    for panel in panels:
        for outline in _drawn_outlines(panel.outlines):
            legend.setdefault(outline.name, outline.css)
    outlined = {o.name for panel in panels for o in panel.outlines if o.mask.any()}
    named = tuple(
        (colour, name if name in outlined else f"{name}: no voxel")
        for name, colour in legend.items()
    )
    return Drawing(encode(rgb), _encode_lossless(marks), rgb.shape[1], rgb.shape[0], named)


def template_path() -> Path:
    """The MNI152 template that comes with nilearn (2009a symmetric, 1 mm); nothing is imported.

    Examples
    --------
    >>> template_path().is_file()
    True
    """
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("nilearn is not installed, and with it the MNI152 template")
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def template_on(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The template sampled on another MNI grid."""
    return _template_on(tuple(np.ravel(affine).tolist()), shape)


@lru_cache(maxsize=1)
def _template_on(affine: tuple[float, ...], shape: tuple[int, ...]) -> NDArray[np.float32]:
    from scipy.ndimage import affine_transform

    image, template_affine = read_volume(template_path())
    if image.shape == shape and np.array_equal(np.ravel(template_affine), affine):
        return image
    to_template = np.linalg.inv(template_affine) @ np.reshape(affine, (4, 4))
    return affine_transform(
        image, to_template[:3, :3], to_template[:3, 3], output_shape=shape, order=1
    )


def _heat_colours(fraction: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of values from 0 to 1, dark to light."""
    position = np.clip(fraction, 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(position, np.arange(len(_HEAT)), _HEAT[:, k]) for k in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


#: Most steps of the scale of frequency maps; with more subjects a step is several of them.
MAX_STEPS = 8


def frequency_scale(sizes: Iterable[int]) -> list[tuple[int, tuple[int, int, int]]]:
    """One discrete scale for all frequency maps of a study: lowest count of a step, and colour.

    Equal colours mean equal counts on every map; ``sizes`` are the subjects of each.

    Examples
    --------
    >>> [count for count, _ in frequency_scale([4, 6])]
    [1, 2, 3, 4, 5, 6]
    >>> [count for count, _ in frequency_scale([40])]
    [1, 6, 11, 16, 21, 26, 31, 36]
    """
    most = max([1, *sizes])
    width = -(-most // MAX_STEPS)
    starts = list(range(1, most + 1, width))
    at = np.linspace(0.15, 1.0, len(starts)) if len(starts) > 1 else np.array([0.6])
    colours = _heat_colours(at.astype(np.float32)).tolist()
    return [(start, (r, g, b)) for start, (r, g, b) in zip(starts, colours, strict=True)]


def subjects_of_map(frequency: FrequencyMap) -> int:
    """Subjects that a frequency map is of; 100 (per cent) where its sidecar does not say."""
    side = frequency.sidecar
    return int(side.get("n") or side.get("n_subjects") or 100)


def frequency_rgb(
    frequency: FrequencyMap,
    scale: Sequence[tuple[int, tuple[int, int, int]]],
    *,
    slices: int = 7,
    rows: int = 2,
    tile: int = 150,
) -> NDArray[np.uint8]:
    """Axial slices of a frequency map over the template, where lesions lie.

    Parameters
    ----------
    frequency
        A map of fractions.
    scale
        As from :func:`frequency_scale`.
    slices, rows, tile
        Tiles in a row, rows, and pixels of a tile.
    """
    share, affine = read_volume(frequency.path)
    background = template_on(affine, share.shape)
    spacing = _spacing_of(affine)[:2]
    counts = np.rint(share * subjects_of_map(frequency)).astype(np.int64)
    inside = np.flatnonzero((background > 0).mean(axis=(0, 1)) > 0.12)
    marked_planes = np.flatnonzero(counts.any(axis=(0, 1)))
    span = marked_planes if marked_planes.size else inside
    first, last = (int(span[0]), int(span[-1])) if span.size else (0, share.shape[2] - 1)
    planes = np.linspace(first, last, slices * rows + 2)[1:-1].round().astype(int).tolist()
    low, high = window_of(background, "T1w")
    box = _box(background)
    rgb = np.zeros((tile * rows, tile * slices, 3), np.uint8)
    words: list[Word] = []
    for number, z in enumerate(planes):
        grey = _tile(background[box[0], box[1], z], spacing, tile)
        cell = np.repeat((np.clip((grey - low) / (high - low), 0, 1) * 190)[..., None], 3, axis=2)
        # Whole counts: a tile samples the nearest voxel, so that no edge has a count of its own.
        here = _tile(counts[box[0], box[1], z], spacing, tile, order=0)
        for start, colour in scale:
            cell[here >= start] = colour
        r, c = divmod(number, slices)
        rgb[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile] = cell.astype(np.uint8)
        z_mm = float(affine[2, 3] + affine[2, 2] * z)
        words += _tile_words(tile, z_mm, c * tile, r * tile, first=number == 0)
    _write(rgb, words)
    return rgb


def frequency_pictures(
    results: Results,
) -> tuple[list[tuple[int, tuple[int, int, int]]], list[NDArray[np.uint8]]]:
    """The common scale of a study's frequency maps, and each of them drawn."""
    scale = frequency_scale(map(subjects_of_map, results.maps))
    return scale, [frequency_rgb(frequency, scale) for frequency in results.maps]


def frequency_caption(frequency: FrequencyMap) -> str:
    """Subjects of a map and its highest count, in words.

    Examples
    --------
    >>> frequency_caption(FrequencyMap("core", Path(), {"n": 6, "largest_count": 4}))
    'Subjects with a lesion at each voxel of MNI152 space; highest 4 of 6.'
    """
    side = frequency.sidecar
    n, basis = subjects_of_map(frequency), side.get("denominator")
    count = side.get("largest_count")
    highest = f"; highest {count} of {n}" if count is not None else f"; {n} subjects"
    more = f" ({basis})" if basis else ""
    return f"Subjects with a lesion at each voxel of MNI152 space{highest}{more}."


def frequency_picture(
    frequency: FrequencyMap,
    scale: Sequence[tuple[int, tuple[int, int, int]]],
    rgb: NDArray[np.uint8],
) -> Picture:
    """A frequency map that was drawn as a picture, with the steps of its scale as legend."""
    n = subjects_of_map(frequency)
    alt = f"Axial slices of the MNI152 template: {frequency.label}. {frequency_caption(frequency)}"
    width = scale[1][0] - scale[0][0] if len(scale) > 1 else 1
    legend = tuple(
        (
            "#{:02x}{:02x}{:02x}".format(*colour),
            f"{start}" if width == 1 else f"{start} to {min(start + width - 1, n)}",
        )
        for start, colour in scale
        if start <= n
    )
    scan = _data_address(_encode_lossless(rgb))
    caption = frequency_caption(frequency)
    return Picture(scan, "", rgb.shape[1], rgb.shape[0], alt, legend, caption)
