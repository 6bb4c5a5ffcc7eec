"""Features of one visit: images brought to grey levels, masks of every source, one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import ImageFault, load_image
from corelab.imaging.geometry import voxel_sizes_mm
from corelab.provenance.products import read_table
from corelab.radiomics.derived import gd_zscore, t2_edge
from corelab.radiomics.features import (
    SHAPE_SERIES,
    FeatureSettings,
    extract_features,
    feature_rows,
)
from corelab.radiomics.normalise import grey_levels, top_mode
from corelab.records.images import Prepared, Segmented
from corelab.records.measured import Featured
from corelab.records.visits import visit_masks
from corelab.segmentation.scans import NotSegmentable, VisitScans
from corelab.settings.radiomics import RadiomicsSettings
from corelab.study.columns import FEATURES, RADIOMICS_PREFIX

#: Length over which the displacement of a perturbed border varies.
_LENGTH_MM = 6.0
#: Series that are derived from others.
DERIVED = {"T2edge": ("T2w",), "Gdzscore": ("T1w", "T1c")}


@dataclass(frozen=True)
class Outline:
    """A volume of interest: a label as one source outlined it, on one grid."""

    label: str
    source: str
    grid: str
    voxels: NDArray[np.bool_]


def radiomics_visit(
    prepared: Prepared,
    segmented: Segmented,
    folder: str | Path,
    *,
    settings: RadiomicsSettings,
) -> tuple[Featured, pd.DataFrame]:
    """Features of every series within every mask of a visit.

    Each series is brought to the mask's grid by the visit's rigid transforms and to grey levels
    over the brain there; T2edge and Gdzscore are derived before that (a linear change of
    intensities changes neither once levels are taken). A series scanned twice gives rows with
    ``repeat`` 2. The masks of ``perturb_source`` are also moved about within their uncertainty:
    rows of ``<source>:perturbed-<n>``.

    Parameters
    ----------
    prepared, segmented
        Records of the visit.
    folder
        The study's results folder.
    settings
        Block ``radiomics`` of the config.

    Returns
    -------
    record, table
        The record of the stage (every combination with its status and reason), and rows in the
        columns of features.tsv.
    """
    visit = {"participant_id": prepared.participant_id, "visit": prepared.visit}
    entries: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    outlines = list(_outlines(prepared, segmented, Path(folder), settings, entries))
    for repeat in _repeats(prepared, settings):
        scans = tuple(s for s in prepared.scans if s.label or s.repeat == repeat)
        record = replace(prepared, scans=scans)
        for grid in sorted({outline.grid for outline in outlines}):
            here = [outline for outline in outlines if outline.grid == grid]
            images = dict(_series(record, Path(folder), grid, here, settings, entries, repeat))
            for outline in _perturbed(here, images, settings, visit) if repeat == 1 else here:
                tables += _features(outline, images, visit, repeat, settings, entries)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FEATURES))
    done = [entry for entry in entries if entry["status"] == "ok"]
    found = bool(done or not entries)
    made = Featured(
        *(prepared.participant_id, prepared.visit),
        status="ok" if found else "not_computable",
        reason=None if found else entries[0]["reason"],
        settings=settings.plain(),
        combinations=tuple(entries),
    )
    return made, table.drop_duplicates()


def _repeats(prepared: Prepared, settings: RadiomicsSettings) -> list[int]:
    needed = {kind for name in settings.series for kind in DERIVED.get(name, (name,))}
    found = {s.repeat for s in prepared.scans if s.kind in needed}
    return sorted(found | {1})


def _outlines(
    prepared: Prepared,
    segmented: Segmented,
    folder: Path,
    settings: RadiomicsSettings,
    entries: list[dict[str, Any]],
) -> Iterator[Outline]:
    """Masks of the wanted labels and sources; an unusable one is reported."""
    labels, sources = settings.labels, settings.sources
    for mask in visit_masks(prepared, segmented, labels=labels, repeat=1, space="native"):
        if sources and mask.source not in sources:
            continue
        entry = {"label": mask.label, "source": mask.source}
        if mask.status != "ok":
            entries.append({**entry, "status": mask.status, "reason": mask.reason})
            continue
        try:
            image = load_image(folder / mask.file, kind=f"mask-{mask.label}")
        except ImageFault as fault:
            entries.append({**entry, "status": "failed", "reason": str(fault)})
            continue
        voxels = np.asanyarray(image.dataobj) > 0
        if voxels.sum() < settings.min_voxels:
            few = f"{int(voxels.sum())} voxels, fewer than min_voxels {settings.min_voxels}"
            entries.append({**entry, "status": "not_computable", "reason": few})
            continue
        yield Outline(mask.label, mask.source, str(mask.grid), voxels)


def _series(
    record: Prepared,
    folder: Path,
    grid: str,
    outlines: Sequence[Outline],
    settings: RadiomicsSettings,
    entries: list[dict[str, Any]],
    repeat: int,
) -> Iterator[tuple[str, nib.Nifti1Image]]:
    """Every wanted series in grey levels on one grid."""
    visit = VisitScans(record, folder)
    on_this = [s for s in record.scans if s.grid == grid and s.status == "ok"]
    target = next((s for s in on_this if not s.label), None)
    lesion = np.any([outline.voxels for outline in outlines], axis=0)
    raw: dict[str, nib.Nifti1Image] = {}
    brain = np.zeros(lesion.shape, bool)
    for name in settings.series:
        entry = {"series": name, "repeat": repeat}
        try:
            if target is None:
                raise NotSegmentable("the masks lie on the grid of no image of this visit")
            reference = visit.load(target)
            brain = visit.brain(grid, reference)
            for kind in DERIVED.get(name, (name,)):
                if kind in raw:
                    continue
                scan = visit.scan(kind)
                if scan is None:
                    raise NotSegmentable(f"the visit has no {kind} scan")
                values, _ = visit.on_grid(scan, target, reference)
                raw[kind] = nib.Nifti1Image(values.astype(np.float32), reference.affine)
            image = _derived(name, raw, brain & ~lesion, settings)
            region = brain | lesion
            levels = grey_levels(
                np.asarray(image.dataobj),
                mask=region,
                top=settings.top.get(name, top_mode(name)),
                top_share=settings.top_share,
                n_levels=settings.n_levels,
            )
        except (NotSegmentable, ImageFault, ValueError) as fault:
            entries.append({**entry, "status": "not_computable", "reason": str(fault)})
            continue
        yield name, nib.Nifti1Image(levels.levels, image.affine)


def _derived(
    name: str,
    raw: Mapping[str, nib.Nifti1Image],
    reference: NDArray[np.bool_],
    settings: RadiomicsSettings,
) -> nib.Nifti1Image:
    if name == "T2edge":
        edge = settings.edge
        return t2_edge(raw["T2w"], dimensions=edge.dimensions, unit=edge.unit)
    if name == "Gdzscore":
        return gd_zscore(raw["T1w"], raw["T1c"], reference=reference)
    return raw[name]


def _features(
    outline: Outline,
    images: Mapping[str, nib.Nifti1Image],
    visit: Mapping[str, str],
    repeat: int,
    settings: RadiomicsSettings,
    entries: list[dict[str, Any]],
) -> Iterator[pd.DataFrame]:
    """Rows of one mask, and what became of each series."""
    chosen = FeatureSettings(families=settings.families, aggregation=settings.aggregation)
    for series, image in images.items():
        entry = {
            "label": outline.label,
            "source": outline.source,
            "series": series,
            "repeat": repeat,
            "status": "ok",
            "reason": None,
        }
        mask = nib.Nifti1Image(outline.voxels.astype(np.uint8), image.affine)
        try:
            found = extract_features(image, mask, settings=chosen)
        except ValueError as fault:
            entries.append({**entry, "status": "not_computable", "reason": str(fault)})
            continue
        entries.append(entry)
        rows = feature_rows(
            found, **visit, series=series, label=outline.label, source=outline.source
        ).assign(repeat=repeat)
        # A mask has one shape, however often the patient was scanned.
        keep = (rows["series"] != SHAPE_SERIES) | (repeat == 1)
        yield rows.loc[keep, list(FEATURES)]


def _perturb_mask(
    voxels: NDArray[np.bool_],
    sizes_mm: Sequence[float],
    rng: np.random.Generator,
    *,
    sd_mm: float,
) -> NDArray[np.bool_]:
    """A mask whose border wavers smoothly about where it was, by an SD of ``sd_mm``.

    After the contour randomisation of Zwanenburg et al., Sci Rep 2019;9:614, with a smooth random
    displacement in place of superpixels.
    """
    inside = ndimage.distance_transform_edt(voxels, sampling=sizes_mm)
    outside = ndimage.distance_transform_edt(~voxels, sampling=sizes_mm)
    # The border runs half a voxel from the centres of the outermost voxels.
    half = float(np.mean(sizes_mm)) / 2
    depth = np.where(voxels, inside - half, half - outside)
    sigma = [_LENGTH_MM / float(size) / 2 for size in sizes_mm]
    noise = ndimage.gaussian_filter(rng.standard_normal(voxels.shape), sigma, mode="wrap")
    return np.asarray(depth + sd_mm * noise / noise.std() > 0)


def _perturbed(
    outlines: Sequence[Outline],
    images: Mapping[str, nib.Nifti1Image],
    settings: RadiomicsSettings,
    visit: Mapping[str, str],
) -> Iterator[Outline]:
    """The outlines, and the perturbed ones of the chosen source."""
    yield from outlines
    how = settings.perturbations
    if not images:
        return
    sizes = voxel_sizes_mm(next(iter(images.values())).affine)
    for outline in outlines:
        if outline.source != how.source:
            continue
        for number in range(1, how.number + 1):
            key = "/".join([*visit.values(), outline.label, str(number), str(how.seed)])
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
            moved = _perturb_mask(
                outline.voxels, list(sizes), np.random.default_rng(seed), sd_mm=how.sd_mm
            )
            if moved.sum() >= settings.min_voxels:
                source = f"{outline.source}:perturbed-{number}"
                yield Outline(outline.label, source, outline.grid, moved)


def collect_features(tables: Sequence[str | Path], sheet: pd.DataFrame | None) -> pd.DataFrame:
    """Features of all visits and those of the measurements sheets, one row each.

    Parameters
    ----------
    tables
        ``radiomics.tsv`` of visits.
    sheet
        Joined measurements sheets, as text; rows whose endpoint is
        ``radiomics:<series>:<label>:<feature>`` are taken.

    Raises
    ------
    ValueError
        If an endpoint has not three parts after ``radiomics:``, or a key has two values.

    Examples
    --------
    >>> sheet = pd.DataFrame([{"participant_id": "1", "visit": "a", "source": "lab", "value": "2",
    ...                        "endpoint": "radiomics:T1c:enhancing:stat_mean"}])
    >>> collect_features([], sheet)[["series", "label", "feature", "value"]].values.tolist()
    [['T1c', 'enhancing', 'stat_mean', 2.0]]
    """

    frames = [read_table(path, numeric=["value"]) for path in tables]
    if sheet is not None:
        own = sheet[sheet["endpoint"].fillna("").str.startswith(RADIOMICS_PREFIX)].copy()
        parts = own["endpoint"].str.removeprefix(RADIOMICS_PREFIX).str.split(":", expand=True)
        if len(own):
            if parts.shape[1] != 3 or parts.isna().any(axis=None):
                wrong = own.loc[parts.isna().any(axis=1) | (parts.shape[1] != 3), "endpoint"]
                raise ValueError(
                    f"endpoint '{wrong.iloc[0]}' of a measurements sheet: a feature is written "
                    "radiomics:<series>:<label>:<feature>"
                )
            own[["series", "label", "feature"]] = parts.to_numpy()
            repeat = own["repeat"] if "repeat" in own else pd.Series(None, index=own.index)
            own["repeat"] = pd.to_numeric(repeat).fillna(1).astype(int)
            own["visit"] = own["visit"] if "visit" in own else pd.Series(None, index=own.index)
            own["visit"] = own["visit"].fillna("all")
            own["value"] = pd.to_numeric(own["value"]).astype(float)
            frames.append(own[list(FEATURES)])
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=list(FEATURES)).astype({"value": float})
    found = pd.concat([f.astype({"repeat": int, "value": float}) for f in frames])
    keys = [column for column in FEATURES if column != "value"]
    doubled = found.duplicated(keys)
    if doubled.any():
        first = found[doubled].iloc[0]
        raise ValueError(
            "two values of one feature: " + ", ".join(f"{key} {first[key]}" for key in keys)
        )
    return found.sort_values(keys, kind="stable").reset_index(drop=True)
