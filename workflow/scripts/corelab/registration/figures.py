"""Figures to look at before a number is believed: fits, masks, and the cohort worst first.

Patients are shown as radiologists look at them: the patient's left on the viewer's right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging import ImageFault, load_image
from corelab.imaging.geometry import voxel_sizes_mm
from corelab.imaging.nifti import stored_image
from corelab.imaging.template import template_image
from corelab.provenance.figure_style import PNG_OPTIONS
from corelab.provenance.products import atomic_path
from corelab.records.images import Prepared
from corelab.records.subjects import Anchor, Chain, Checked, Normalised
from corelab.records.visits import VisitRecords
from corelab.registration.preparation import best_scan, windowed
from corelab.registration.quality import values_at
from corelab.registration.transforms import apply_transforms, read_steps, transform_points
from corelab.study.naming import derivative
from corelab.terms.kinds import kind_words
from corelab.terms.words import in_sentence, label_words

if TYPE_CHECKING:
    import pandas as pd

#: Axial, coronal and sagittal planes of the template that are shown, in MNI152 mm.
PLANES = ((2, -20.0), (2, 8.0), (2, 24.0), (2, 45.0), (1, -20.0), (0, -14.0))
EDGE_COLOUR, BRAIN_COLOUR = "#00d9ff", "#4cc9f0"
#: Of the masks on one scan, the primary one first; of more another row is drawn.
MASK_COLOURS = ("#ff3b6b", "#ffd166", "#7ae582", "#a78bfa", "#4cc9f0", "#f4a261")
FAILED_COLOUR, OUTLYING_COLOUR, SOUND_COLOUR = "#ff6b6b", "#ffb347", "#e8e8e8"
#: Figures by which fits are ranked; low is bad for each.
RANKED = ("dice", "mutual_information", "edge_correlation")
#: Below this robust z a fit stands out from its cohort.
OUTLYING_Z = -3.0
#: So many like fits make a cohort that one can stand out from.
LEAST_FITS = 5
_SLICES = 7
#: Voxels between two slices in a row.
_GAP = 2
_SQUARE_MM = 22
#: Planes of a tile of the contact sheet: a tilt of a coarse fit is seen in the upright ones.
_TILE_PLANES = (1, 4, 5)
_COLUMNS = 3
#: Tiles on the contact sheet; the table holds every subject.
MAX_TILES = 60

QUALITY_COLUMNS = {
    "rank": "1 is the fit to look at first",
    "participant_id": "Subject identifier",
    "status": "ok, failed or not_computable",
    "reason": "Why there is no fit, or which limit it broke",
    "anchor": "Kind and visit of the scan that was fitted to the template",
    "method": "syn or affine",
    "lesion": "What was done about the lesion: mask, fill or none",
    "worst_z": "Least robust z of dice, mutual_information and edge_correlation among like fits",
    "dice": "Overlap of the brain masks",
    "mutual_information": "Normalised mutual information, 1 to 2",
    "edge_correlation": "Correlation of the edges inside the brain with the template's",
    "ventricle_offset_mm": "Largest offset of a part of the ventricles' wall, mm",
    "warning": "A figure beyond a limit that does not fail the fit",
    "scale": "Determinant of the affine part",
    "jacobian_min": "Least Jacobian determinant",
    "jacobian_max": "Largest Jacobian determinant",
    "folds": "Share of the brain where the field folds",
    "inverse_consistency_mm": "Mean distance after going to the subject and back, mm",
    "figure": "Figure of the fit, relative to the study's results",
}


def quality_figures(
    visits: Sequence[VisitRecords], normalised: Normalised, folder: Path
) -> Checked:
    """Draw a subject's fit to the template and every native mask on its image.

    Parameters
    ----------
    visits
        Records of the visits.
    normalised
        Record of the subject.
    folder
        The study's results folder.

    Returns
    -------
    Checked
        Paths of the figures, and what the contact sheet says about the fit.
    """
    subject = normalised.participant_id
    prepares = {visit.visit: visit.prepare for visit in visits}
    record = Checked(
        subject,
        normalised.status,
        normalised.reason,
        anchor=normalised.anchor,
        method=normalised.method,
        warning=normalised.warning,
        lesion=(normalised.lesion or {}).get("used"),
        quality=normalised.quality,
    )
    # Most masks of a visit lie on a few scans.
    read = lru_cache(partial(_scan_image, folder))
    anchor = normalised.anchor
    if anchor is not None:
        scan = best_scan(prepares[anchor.visit].scans, anchor.grid)
        assert scan is not None
        chain = normalised.transforms.get(anchor.visit, {}).get(anchor.grid)
        planes = _planes(read(scan.file, scan.kind), chain, folder)
        fit, tile, layer = (
            _figure(subject, anchor.visit, name) for name in ("registration", "tile", "layer")
        )
        _draw_fit(planes, record, anchor, folder / fit)
        _draw_tile([planes[k] for k in _TILE_PLANES], folder / tile)
        _write_layer(planes, folder / layer)
        record = replace(record, fit=fit, tile=tile, layer=layer)
    masks = {}
    for visit in visits:
        rows = _mask_rows(visit, folder, read)
        if rows:
            masks[visit.visit] = _figure(subject, visit.visit, "masks")
            _draw_masks(rows, f"{subject}  {visit.visit}", folder / masks[visit.visit])
    return replace(record, masks=masks)


def _figure(subject: str, visit: str, name: str) -> str:
    return derivative(subject, visit, "figures", "qc", extension=".png", desc=name)


def quality_table(records: Sequence[Checked]) -> pd.DataFrame:
    """All fits of a study, worst first.

    Failed fits come first, then those with a warning, then those that stand out most:
    ``worst_z`` is the least of (value - median) / (1.4826 x median absolute deviation) over the
    figures in :data:`RANKED`, among the fits of one method and one kind of anchor (an affine fit of
    a thick b0 is no worse for being unlike a deformable one of a T1). Fewer than
    :data:`LEAST_FITS` of a kind have none.

    Examples
    --------
    >>> def record(name, dice):
    ...     quality = {"dice": dice, "mutual_information": 1.1, "edge_correlation": 0.5}
    ...     return Checked(name, "ok", method="syn", lesion="mask", quality=quality)
    >>> quality_table([record("a", 0.95), record("b", 0.90), record("c", 0.96)])[
    ...     "participant_id"].tolist()
    ['b', 'a', 'c']
    """
    import pandas as pd

    rows = []
    for record in records:
        anchor = record.anchor
        rows.append(
            {
                "participant_id": record.participant_id,
                "status": record.status,
                "reason": record.reason,
                "method": record.method,
                "lesion": record.lesion,
                "warning": record.warning,
                "anchor": f"{anchor.kind} {anchor.visit}" if anchor else None,
                "figure": record.fit,
                **{key: value for key, value in record.quality.items() if key in QUALITY_COLUMNS},
            }
        )
    frame = pd.DataFrame(rows, columns=[name for name in QUALITY_COLUMNS if name != "rank"])
    scores = frame[list(RANKED)].astype(float)
    alike = [frame["method"].astype(str), frame["anchor"].astype(str).str.split().str[0]]
    off = scores - scores.groupby(alike).transform("median")
    spread = 1.4826 * off.abs().groupby(alike).transform("median")
    enough = scores.groupby(alike).transform("count") >= LEAST_FITS
    frame["worst_z"] = (off / spread.where((spread > 1e-9) & enough)).min(axis=1)
    frame["_failed"] = (frame["status"] == "ok").astype(int)
    frame["_unwarned"] = frame["warning"].isna().astype(int)
    frame["_dice"] = scores["dice"]
    # With too few subjects for a spread the overlap decides.
    frame = frame.sort_values(
        ["_failed", "_unwarned", "worst_z", "_dice", "participant_id"],
        na_position="last",
        kind="stable",
    ).reset_index(drop=True)
    frame["rank"] = frame.index + 1
    return frame[list(QUALITY_COLUMNS)]


def contact_sheet(
    records: Sequence[Checked], table: pd.DataFrame, folder: Path, path: Path
) -> None:
    """One tile of three planes per subject, worst first, with the quality metrics on each.

    Parameters
    ----------
    records, table
        Of :func:`quality_figures` and :func:`quality_table`.
    folder
        The study's results folder.
    path
        The PNG.
    """
    from matplotlib.image import imread

    tiles = {record.participant_id: record.tile for record in records}
    shown = table.head(MAX_TILES)
    rows = max(1, -(-len(shown) // _COLUMNS))
    figure, axes = _canvas(rows, _COLUMNS, (4.4 * _COLUMNS, 1.95 * rows + 0.5))
    more = f"; the worst {len(shown)} of {len(table)}" if len(shown) < len(table) else ""
    figure.suptitle(
        f"Fit to MNI152, worst first{more}. Cyan: edges of the template; the patient's left is on "
        "the right. J: least and largest Jacobian determinant",
        color="white",
        fontsize=11,
    )
    for axis, row in zip(axes.flat, shown.to_dict("records"), strict=False):
        tile = tiles[row["participant_id"]]
        if tile is not None:
            axis.imshow(imread(folder / tile))
        failed = row["status"] != "ok"
        outlying = not failed and (row["worst_z"] < OUTLYING_Z or isinstance(row["warning"], str))
        colour = FAILED_COLOUR if failed else OUTLYING_COLOUR if outlying else SOUND_COLOUR
        axis.set_title(_tile_words(row), color=colour, fontsize=7, loc="left")
    for axis in axes.flat:
        axis.set_axis_off()
    _save(figure, path)


def _tile_words(row: Mapping[Any, Any]) -> str:
    """Heading of a tile: who, what was fitted, and the metrics or the reason."""
    head = f"{row['rank']}. {row['participant_id']}  {row['anchor'] or 'no image'}"
    if row["status"] != "ok":
        reason = str(row["reason"])
        words = reason if len(reason) <= 80 else reason[:78] + "..."
        return f"{head}\n{row['status']}\n{words}"
    folds = f"folds in {row['folds']:.2%}" if row["folds"] > 0 else "no folds"
    figures = [
        f"Dice {row['dice']:.3f}  MI {row['mutual_information']:.3f}  "
        f"edges {row['edge_correlation']:.2f}  "
        f"J {row['jacobian_min']:.2f} to {row['jacobian_max']:.2f}, {folds}",
    ]
    if isinstance(row["warning"], str):
        figures.append(f"ventricles {row['ventricle_offset_mm']:.1f} mm off")
    return "\n".join([f"{head}  {row['method']}", *figures])


# --- one fit -----------------------------------------------------------------------------------


def _scan_image(folder: Path, path: str, kind: str) -> nib.Nifti1Image:
    return windowed(stored_image(folder / path), kind)


def template_edges(plane: np.ndarray) -> np.ndarray:
    """Edges in a plane of the template: the outline of the brain, of its fluid and of white matter.

    Examples
    --------
    >>> edges = template_edges(np.asarray(template_image().dataobj)[:, :, 80])
    >>> edges.shape, 0.02 < float(edges.mean()) < 0.08
    ((197, 233), True)
    """
    brain = ndimage.binary_fill_holes(plane > 0)
    bright = np.percentile(plane[brain], 95) if brain.any() else 1.0
    inner = ndimage.binary_erosion(brain, iterations=4)
    fluid = inner & (ndimage.gaussian_filter(plane, 1.2) < 0.55 * bright)
    white = inner & (ndimage.gaussian_filter(plane, 1.8) > 0.82 * bright)
    edges = brain & ~ndimage.binary_erosion(brain)
    for region in (ndimage.binary_opening(fluid), ndimage.binary_opening(white, iterations=2)):
        edges |= region & ~ndimage.binary_erosion(region)
    return np.asarray(edges)


def _planes(image: nib.Nifti1Image, chain: Chain | None, folder: Path) -> list[np.ndarray]:
    """The scan in the planes that are shown: by its fit, or by the headers where there is none."""
    steps = (
        read_steps([folder / name for name in chain.to_mni], chain.whichtoinvert) if chain else []
    )
    template = template_image()
    shown = []
    for axis, at_mm in PLANES:
        index = round(at_mm - template.affine[axis, 3])
        shape = list(template.shape)
        shape[axis] = 1
        voxel = np.indices(shape).reshape(3, -1).T.astype(float)
        voxel[:, axis] = index
        points = transform_points(voxel + template.affine[:3, 3], steps)
        values, _ = values_at(image, points)
        shown.append(_upright(values.reshape(shape).squeeze(axis), axis))
    return shown


def checkerboard(first: np.ndarray, second: np.ndarray, square: int) -> np.ndarray:
    """Two 2D images in alternating squares, each scaled to 0..1 by its 1st and 99th percentile.

    Examples
    --------
    >>> stripes = np.tile([1.0, 3.0], (4, 2))
    >>> checkerboard(stripes, stripes[:, ::-1], 2)[0].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    x, y = np.indices(first.shape) // square
    return np.where((x + y) % 2 == 0, _scaled(first), _scaled(second))


def _scaled(plane: np.ndarray) -> np.ndarray:
    there = plane[plane != 0]
    low, high = np.percentile(there, [1, 99]) if there.size else (0.0, 1.0)
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)


@lru_cache(maxsize=1)
def _template_planes() -> list[np.ndarray]:
    template = template_image()
    data = np.asarray(template.dataobj)
    return [
        _upright(np.take(data, round(at_mm - template.affine[axis, 3]), axis=axis), axis)
        for axis, at_mm in PLANES
    ]


def _upright(plane: np.ndarray, axis: int) -> np.ndarray:
    """A plane with up where up is and the patient's left on the right."""
    return plane.T if axis == 0 else plane[::-1].T


def _draw_fit(planes: Sequence[np.ndarray], record: Checked, anchor: Anchor, path: Path) -> None:
    """Edges of the template on the scan, and a checkerboard of the two."""
    figure, axes = _canvas(2, len(PLANES), (2.0 * len(PLANES), 5.1))
    sound = record.status == "ok"
    caption = ", ".join(
        f"{in_sentence(label_words(key.removesuffix('_mm')))} {value:.3g}"
        + " mm" * key.endswith("_mm")
        for key, value in record.quality.items()
        if isinstance(value, (int, float)) and key in QUALITY_COLUMNS
    )
    state = record.method if sound else f"FAILED: {record.reason}"
    figure.suptitle(
        f"{record.participant_id}  {anchor.kind} of {anchor.visit} to MNI152"
        f"  ({state}; lesion: {record.lesion})\n{caption}",
        color="white" if sound else FAILED_COLOUR,
        fontsize=9,
    )
    columns = zip(PLANES, planes, _template_planes(), axes.T, strict=True)
    for (axis, at_mm), whole, standard, (above, below) in columns:
        box = _around(standard > 0)
        scan, template = whole[box], standard[box]
        _edges_on(above, scan, template_edges(template))
        if axis != 0:
            _sides(above)
        above.set_title(f"{'xyz'[axis]} = {at_mm:+.0f} mm", color="white", fontsize=8)
        board = checkerboard(scan, template, _SQUARE_MM)
        below.imshow(board, cmap="gray", origin="lower", vmin=0, vmax=1)
        below.set_axis_off()
    for row, words in enumerate(("template edges on the scan", "checkerboard with the template")):
        _beside(axes[row, 0], words, rotation=90, ha="center", x=-0.08)
    _save(figure, path)


def template_layer() -> np.ndarray:
    """The template in the planes of a fit's layer (``desc-layer``), at the same pixels.

    Shown in turn, a fitted scan and the template differ where the fit is wrong.

    Examples
    --------
    >>> layer = template_layer()
    >>> layer.dtype.name, layer.shape[1] > 4 * layer.shape[0]
    ('uint8', True)
    """
    return _layer(_template_planes())


def _layer(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Planes side by side in the template's box, as grey levels with up above."""
    boxes = [_around(standard > 0) for standard in _template_planes()]
    parts = [_scaled(plane[box])[::-1] for plane, box in zip(planes, boxes, strict=True)]
    high = max(len(part) for part in parts)
    padded = [np.pad(part, (((high - len(part)) // 2, -(-(high - len(part)) // 2)), (0, 0)))
              for part in parts]  # fmt: skip
    return np.asarray(np.concatenate(padded, axis=1) * 255).round().astype(np.uint8)


def _write_layer(planes: Sequence[np.ndarray], path: Path) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(_layer(planes)).save(temporary, "PNG")


def _draw_tile(planes: Sequence[np.ndarray], path: Path) -> None:
    """Three planes without words, for the contact sheet."""
    figure, axes = _canvas(1, len(planes), (1.45 * len(planes), 1.6))
    for axis, plane, at in zip(axes[0], planes, _TILE_PLANES, strict=True):
        template = _template_planes()[at]
        box = _around(template > 0)
        _edges_on(axis, plane[box], template_edges(template[box]))
    _save(figure, path)


def _around(seen: np.ndarray, rim: int = 8) -> tuple[slice, ...]:
    """Box around what is seen in a plane, with a rim."""
    found = ndimage.find_objects(seen.astype(np.uint8))
    if not found:
        return (slice(None), slice(None))
    return tuple(slice(max(0, part.start - rim), part.stop + rim) for part in found[0])


def _sides(axis: Any) -> None:
    """The letters of the patient's sides at the edges of a picture."""
    for letter, x, ha in (("R", 0.01, "left"), ("L", 0.99, "right")):
        axis.text(
            x, 0.02, letter, color="white", fontsize=8, ha=ha, va="bottom",
            transform=axis.transAxes,
        )  # fmt: skip


def _edges_on(axis: Any, plane: np.ndarray, edges: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap

    axis.imshow(_scaled(plane), cmap="gray", origin="lower", vmin=0, vmax=1)
    axis.imshow(
        np.ma.masked_where(~edges, edges), cmap=ListedColormap([EDGE_COLOUR]), origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    axis.set_axis_off()


# --- masks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MaskRow:
    """Masks that are drawn on one scan: words, colour and mask of each."""

    kind: str
    image: np.ndarray
    sizes: np.ndarray
    masks: list[tuple[str, str, np.ndarray]]


def _mask_rows(
    visit: VisitRecords, folder: Path, read: Callable[[str, str], nib.Nifti1Image]
) -> list[_MaskRow]:
    """Native masks of a visit by the scan that they lie on, brains each in a row of its own."""
    prepared = visit.prepare
    listed: list[tuple[str, str, str | None, str | None]] = [
        ("brain", file, grid, None) for grid, file in sorted(prepared.brain_masks.items())
    ]
    native = visit.masks(space="native", usable=True)
    for mask in sorted(native, key=lambda mask: mask.source != "pipeline"):
        kind = mask.on_kind if mask.origin == Prepared.stage else mask.kind
        listed.append((f"{mask.label}, {mask.source}", mask.file, mask.grid, kind))
    rows: list[_MaskRow] = []
    last: dict[str, _MaskRow] = {}
    for words, file, grid, kind in listed:
        same = [s for s in prepared.scans if s.kind == kind and s.grid == grid]
        scan = next((s for s in same if s.status == "ok"), None)
        scan = scan or best_scan(prepared.scans, grid or "")
        scan = scan or best_scan(prepared.scans, prepared.reference or "")
        if scan is None:
            continue
        try:
            image = read(scan.file, scan.kind)
            mask_image = load_image(folder / file, kind="mask")
        except ImageFault:
            continue  # Its own stage reports why.
        on_image = np.asarray(apply_transforms(mask_image, image, [], "label").dataobj) != 0
        sizes = np.asarray(voxel_sizes_mm(image.affine))
        volume_ml = float(on_image.sum() * sizes.prod()) / 1000
        brain = words == "brain"
        row = None if brain else last.get(scan.file)
        if row is None or len(row.masks) == len(MASK_COLOURS):
            row = _MaskRow(scan.kind, np.asarray(image.dataobj), sizes, [])
            rows.append(row)
        if not brain:
            last[scan.file] = row
        colour = BRAIN_COLOUR if brain else MASK_COLOURS[len(row.masks)]
        row.masks.append((f"{words}: {volume_ml:.1f} mL", colour, on_image))
    return rows


def _shown_slices(mask: np.ndarray) -> np.ndarray:
    """Slices over the extent of a mask; over the whole image where it is empty."""
    areas = mask.sum(axis=(0, 1))
    there = np.flatnonzero(areas) if areas.any() else np.arange(mask.shape[2])
    first, last = there[0], there[-1]
    if len(there) > 2 * _SLICES:  # the poles of a large mask show little
        first, last = first + len(there) // 12, last - len(there) // 12
    return np.unique(np.linspace(first, last, _SLICES).round().astype(int))


def _draw_masks(rows: Sequence[_MaskRow], title: str, path: Path) -> None:
    figure, axes = _canvas(len(rows), 1, (1.35 * _SLICES + 2.0, 1.55 * len(rows) + 0.4))
    figure.suptitle(title, color="white", fontsize=10)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        image, every = row.image, np.any([mask for *_, mask in row.masks], axis=0)
        low, high = np.percentile(image[image != 0], [1, 99.5]) if image.any() else (0, 1)
        # The image's body alone, so that air around the head takes no space.
        body = image.max(axis=2) > low + 0.15 * (high - low)
        box = (*_around(body | every.any(axis=2), rim=4), slice(None))
        slices = _shown_slices(every[box])
        axis.imshow(
            _in_a_row(image[box], slices, low), cmap="gray", origin="lower", vmin=low, vmax=high,
            aspect=row.sizes[1] / row.sizes[0], interpolation="nearest",
        )  # fmt: skip
        # The first, the primary one, is drawn last.
        for _, colour, mask in reversed(row.masks):
            if mask.any():
                outlined = _in_a_row(mask[box].astype(np.float32), slices, 0.0)
                axis.contour(outlined, [0.5], colors=colour, linewidths=0.8)
        axis.set_axis_off()
        axis.set_anchor("W")
        _sides(axis)
        _beside(axis, f"on {kind_words(row.kind)}", x=-0.01, y=0.94)
        for place, (words, colour, _) in enumerate(row.masks):
            _beside(axis, words, x=-0.01, y=0.78 - 0.15 * place, colour=colour)
    _save(figure, path)


def _in_a_row(image: np.ndarray, slices: Sequence[int] | np.ndarray, empty: float) -> np.ndarray:
    """Axial slices side by side, the patient's left on the right, which draw as one picture.

    Examples
    --------
    >>> _in_a_row(np.arange(4.0).reshape(2, 1, 2), [0, 1], -1.0)[:, :5].tolist()
    [[2.0, 0.0, -1.0, -1.0, 3.0]]
    """
    width, height = image.shape[:2]
    row = np.full((height, _SLICES * (width + _GAP) - _GAP), empty, image.dtype)
    for place, index in enumerate(slices):
        start = place * (width + _GAP)
        row[:, start : start + width] = image[::-1, :, index].T
    return row


def _beside(
    axis: Any,
    words: str,
    *,
    rotation: int = 0,
    ha: str = "right",
    x: float = -0.06,
    y: float = 0.5,
    colour: str = "white",
) -> None:
    """Words to the left of a row."""
    axis.text(
        x, y, words, color=colour, fontsize=7.5, va="center", ha=ha, rotation=rotation,
        transform=axis.transAxes,
    )  # fmt: skip


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    # With its layout done the figure is drawn once, else once more for the layout.
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    with atomic_path(path) as temporary:
        # No time stamp and no version in the file: same input, same bytes.
        figure.savefig(
            temporary, dpi=100, format="png", metadata={"Software": None}, pil_kwargs=PNG_OPTIONS
        )
