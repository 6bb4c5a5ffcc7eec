"""First stage of a visit: a listed scan becomes a conformed file, or a status that says why not."""

from __future__ import annotations

import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.acquisition import (
    MEASURED,
    acquisition_rows,
    charter,
    lossless_row,
    observe,
    subject_of,
)
from corelab.imaging.brain import extract_brain
from corelab.imaging.brain_quality import judged_mask
from corelab.imaging.conversion import FoundScan, scans_of_folder
from corelab.imaging.faults import ImageFault
from corelab.imaging.geometry import mask_volume_ml, same_grid, voxel_sizes_mm
from corelab.imaging.head_fit import HeadFit
from corelab.imaging.laterality import left_right_rows
from corelab.imaging.lesion_checks import outside_brain, volume_fault
from corelab.imaging.nifti import Conformed, conform, save_image, stored_image
from corelab.imaging.quality import image_quality
from corelab.imaging.sidecars import finite_numbers, read_b_values, read_sidecar
from corelab.imaging.values import (
    CENTRAL_VOLUME,
    SHORTEST_IN_MS,
    central_volume_ratio,
    chosen_labels,
)
from corelab.learned import brain as learned
from corelab.provenance.places import own_weights
from corelab.provenance.products import file_sha256, read_table, write_table
from corelab.records.images import AcquisitionRow, BrainQuality, HeadPose, Prepared, Scan, ScanRow
from corelab.settings.prepare import PrepareSettings
from corelab.settings.segmentation import BrainExtractionSettings
from corelab.study.naming import TEMPLATE_SPACE, derivative, mask_path
from corelab.terms.kinds import BRAIN_ORDER, DATATYPES, REFERENCE_ORDER, SERIES_KINDS
from corelab.terms.plugins import registry
from corelab.terms.verdicts import FAIL, PASS

#: Keys of a BIDS sidecar and what they are called in ``metadata``.
_SIDECAR_KEYS = {
    "EchoTime": "echo_time_s",
    "RepetitionTime": "repetition_time_s",
    "InversionTime": "inversion_time_s",
    "FlipAngle": "flip_angle_deg",
    "MagneticFieldStrength": "field_strength_t",
    "SliceThickness": "slice_thickness_mm",
    "LargestSliceDistance": "largest_slice_distance_mm",
    "KVP": "tube_voltage_kv",
    "DiffusionBValue": "b_value",
    "Manufacturer": "manufacturer",
    "ManufacturersModelName": "scanner",
    "AcquisitionDateTime": "acquired_at",
    "AcquisitionDuration": "scan_duration_s",
    "PulseSequenceName": "sequence",
    "SequenceName": "sequence",
    "ConvolutionKernel": "convolution_kernel",
    "SoftwareVersions": "software_version",
    "ContrastPhase": "contrast_phase",
    "LossyImageCompression": "lossy",
    "PixelProof": "pixels",
}
_FRAME_TIME_KEYS = ("frame_times_s", "FrameTimes", "FrameTimesStart", "VolumeTiming")
_ROW_METADATA = (
    *("echo_time_s", "repetition_time_s", "b_value", "acquired_at"),
    *("scanner", "sequence", "contrast_phase", "scan_duration_s"),
)
_NUMBERS = ("echo_time_s", "repetition_time_s", "b_value", "scan_duration_s")


_DEFAULTS = PrepareSettings()


@dataclass
class _Visit:
    """State of the preparation of one visit."""

    participant_id: str
    visit: str
    folder: Path
    settings: PrepareSettings
    scans: list[Scan] = field(default_factory=list)
    grids: dict[str, nib.Nifti1Image] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    series: dict[str, nib.Nifti1Image] = field(default_factory=dict)

    def read(self, path: str) -> nib.Nifti1Image:
        """A product of the visit; a series, which is dear to unpack, is kept."""
        if path in self.series:
            return self.series[path]
        image = stored_image(self.folder / path)
        if image.ndim == 4:
            self.series[path] = image
        return image

    def grid_of(self, image: Any, prefix: str) -> str:
        """Id of the grid that an image lies on; a new one where no earlier image has it."""
        for name, known in self.grids.items():
            if name.startswith(prefix) and same_grid(known, image):
                return name
        name = f"{prefix}{1 + sum(known.startswith(prefix) for known in self.grids)}"
        empty = np.broadcast_to(np.uint8(0), image.shape[:3])
        self.grids[name] = nib.Nifti1Image(empty, image.affine)
        return name

    def warn(self, scan: Scan, text: str) -> None:
        """Add a warning to a scan."""
        at = next(number for number, one in enumerate(self.scans) if one is scan)
        self.scans[at] = replace(self.scans[at], warnings=(*self.scans[at].warnings, text))

    def free_path(self, make: Any, run: int) -> str:
        """A path that no other product of the visit has; the run entity distinguishes equals."""
        while True:
            path = str(make(None if run == 1 else str(run)))
            if path not in self.used:
                self.used.add(path)
                return path
            run += 1


def prepare_visit(
    rows: Sequence[ScanRow],
    folder: str | os.PathLike[str],
    *,
    settings: PrepareSettings = _DEFAULTS,
) -> Prepared:
    """Conform every scan of one visit and describe it.

    Parameters
    ----------
    rows
        One per scan, all of one visit.
    folder
        Results folder of the study; all paths in the record are relative to it.
    settings
        Blocks ``acquisition``, ``dicom`` and ``brain_extraction`` of the config.

    Returns
    -------
    Prepared
        Without ``transforms``. A file that cannot be used is a scan with the status ``failed``, a
        reason and a remedy.

    Raises
    ------
    ValueError
        If the rows are none or of several visits, or a limit in the settings does not exist.
    corelab.imaging.meshnet.WeightsError
        If the network of ``brain_extraction`` cannot be used: no fault of the scans.

    Notes
    -----
    Native grids are named ``g1, g2 ...`` in the order of the images, then of the masks that lie
    on no image's grid; masks in template space have grids ``mni1 ...``, keep their own voxel
    order and take no part in brain masks, reference and alignment.

    Examples
    --------
    >>> row = ScanRow("dwi", "none.nii.gz", "s1", participant_id="01", visit="day5")
    >>> record = prepare_visit([row], "results/x")
    >>> record.status, record.scans[0].remedy
    ('failed', 'check the path in the scans sheet')
    """
    visits = {(row.participant_id, row.visit) for row in rows}
    if len(visits) != 1:
        raise ValueError(
            f"prepare_visit takes the rows of one visit, got those of {sorted(visits)}"
        )
    limits = charter(settings.acquisition)
    participant_id, name = visits.pop()
    visit = _Visit(participant_id, name, Path(folder), settings)
    with tempfile.TemporaryDirectory() as scratch:
        found = list(_expanded(rows, visit, Path(scratch)))
        # Images first: a mask is named after the image whose grid it lies on.
        for one in sorted(found, key=lambda one: one.row.kind.startswith("mask-")):
            visit.scans.append(_scan(one, visit))
    order = {row.scan_id: index for index, row in enumerate(rows)}
    visit.scans.sort(key=lambda scan: order.get(scan.scan_id, len(order)))
    reference = _best_grid(visit.scans, REFERENCE_ORDER)
    brain_masks, quality = _brain_masks(visit, reference)
    _tell_outside(visit, reference, brain_masks, quality)
    _tell_central_volume(visit, brain_masks)
    failed = [scan for scan in visit.scans if scan.status == "failed"]
    whole = len(failed) == len(visit.scans)
    reason = "; ".join(f"{scan.scan_id}: {scan.reason}" for scan in failed) if whole else None
    record = Prepared(
        participant_id,
        name,
        "failed" if whole else "ok",
        f"no scan of the visit can be used ({reason})" if whole else None,
        scans=tuple(visit.scans),
        brain_masks=brain_masks,
        brain_mask_quality=quality,
        reference=reference,
        acquisition=tuple(_acquisition(visit, brain_masks, limits)),
    )
    return record.settled()


# --- one row -----------------------------------------------------------------------------------


def _expanded(rows: Sequence[ScanRow], visit: _Visit, scratch: Path) -> Iterable[FoundScan]:
    """Rows with DICOM folders replaced by the images that are in them."""
    seen = {row.kind: row.scan_id for row in rows}
    for number, row in enumerate(rows):
        if row.kind != "dicom":
            yield FoundScan(row)
            continue
        for made in scans_of_folder(row, scratch / str(number), visit.settings.dicom):
            kind = made.row.kind
            other = seen.setdefault(kind, row.scan_id)
            if other != row.scan_id and made.fault is None:
                note = f"the visit has the scan {other} of the same kind, {kind}, too"
                made = replace(made, notes=(*made.notes, note))
            yield made


def _scan(found: FoundScan, visit: _Visit) -> Scan:
    """One scan as it was read; a fault of its file is its status."""
    row = found.row
    entry: dict[str, Any] = {
        "scan_id": row.scan_id,
        "kind": row.kind,
        "label": row.kind.removeprefix("mask-") if row.kind.startswith("mask-") else None,
        "reader": row.reader,
        "repeat": int(row.repeat or 1),
        "space": row.space or "native",
        "source": found.source or row.source or row.path,
        "status": "failed",
        "sha256": None,
        "on_kind": None,
        "notes": list(found.notes),
        "warnings": list(found.warnings),
        "metadata": {},
    }
    try:
        if found.fault is not None:
            raise found.fault
        file = Path(row.path)
        if file.is_file():
            entry["sha256"] = found.sha256 or file_sha256(file)
        if row.kind == "aif":
            _arterial_input(row, entry, visit)
        else:
            _image(found, entry, visit)
        entry["status"] = "ok"
    except ImageFault as fault:
        entry |= {"path": None, "grid": None, "reason": fault.message, "remedy": fault.remedy}
    return replace(Scan.from_json(entry), dicom=found.dicom)


def _image(found: FoundScan, entry: dict[str, Any], visit: _Visit) -> None:
    """Conform one image or mask, write it, and complete its entry."""
    row = found.row
    kind, in_template = entry["kind"], entry["space"] == "MNI152"
    ndim = 4 if kind in SERIES_KINDS else 3
    conformed = conform(
        row.path,
        ndim=ndim,
        kind=kind,
        reorient=not in_template,
        orientation=visit.settings.acquisition.orientation,
    )
    entry["notes"] += conformed.notes
    entry["warnings"] += conformed.warnings
    entry["unit"] = conformed.unit
    entry["metadata"] = _metadata(found, conformed, entry["notes"])
    image = conformed.image
    if entry["label"] is not None:
        name = Path(row.path).name
        labels = np.asanyarray(image.dataobj)
        chosen = chosen_labels(labels, row.label_values, name, entry["warnings"])
        image = nib.Nifti1Image(chosen.astype(np.uint8), image.affine)
    grid = visit.grid_of(image, "mni" if in_template else "g")
    entry["grid"] = grid
    entry["shape"] = [int(size) for size in image.shape]
    entry["voxel_size_mm"] = [round(float(size), 6) for size in voxel_sizes_mm(image.affine)]
    if entry["label"] is not None:
        entry["on_kind"] = _kind_of_grid(visit.scans, grid)
        entry["volume_ml"] = mask_volume_ml(image)
        _possible(entry, in_template)
        if entry["on_kind"] is None and not in_template and _has_images(visit.scans):
            entry["notes"].append(_other_grid_note(visit, image))
        path = visit.free_path(
            lambda run: mask_path(
                visit.participant_id,
                visit.visit,
                entry["label"],
                kind=entry["on_kind"] or "T1w",
                desc=entry["reader"] or "supplied",
                space=TEMPLATE_SPACE if in_template else None,
                run=run,
            ),
            entry["repeat"],
        )
    else:
        path = visit.free_path(
            lambda run: derivative(
                visit.participant_id,
                visit.visit,
                DATATYPES.get(kind, "anat"),
                kind,
                desc="conformed",
                space=TEMPLATE_SPACE if in_template else None,
                run=run,
            ),
            entry["repeat"],
        )
    times = entry["metadata"].get("frame_times_s")
    if times:
        image.header["pixdim"][4] = float(np.median(np.diff(times)))
    sidecar = {
        "unit": entry["unit"],
        "inputs": [{"name": _shown(entry["source"], visit.folder), "sha256": entry["sha256"]}],
        "parameters": {"kind": kind, "label_values": row.label_values},
        "notes": entry["notes"],
        **{key: value for key, value in entry["metadata"].items() if value is not None},
    }
    save_image(image, visit.folder / path, sidecar=sidecar, dtype=_storage_type(image))
    entry["path"] = path


def _possible(entry: Mapping[str, Any], in_template: bool) -> None:
    """Refuse the mask of a lesion that no head holds."""
    fault = volume_fault(entry["volume_ml"], in_template=in_template)
    if fault and entry["label"] != "brain":
        raise ImageFault(
            fault,
            "supply the mask of the lesion alone, and name its label in the column label_values",
        )


def _shown(source: str, folder: Path) -> str:
    """A source as the sidecar names it: relative inside the results, else its name alone."""
    path = Path(source)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _storage_type(image: Any) -> Any:
    """The smallest of uint8 (masks), int16 and float32 that keeps every value."""
    voxels = np.asanyarray(image.dataobj)
    if voxels.dtype == np.uint8:
        return np.uint8
    whole = voxels.min() >= -32768 and voxels.max() <= 32767
    return np.int16 if whole and np.array_equal(np.rint(voxels), voxels) else np.float32


def _kind_of_grid(scans: Iterable[Scan], grid: str) -> str | None:
    """Kind of the best image on a grid."""
    kinds = [scan.kind for scan in scans if scan.grid == grid and scan.label is None]
    ranked = [kind for kind in REFERENCE_ORDER if kind in kinds]
    return ranked[0] if ranked else (kinds[0] if kinds else None)


def _has_images(scans: Iterable[Scan]) -> bool:
    return any(scan.grid is not None and scan.label is None for scan in scans)


def _other_grid_note(visit: _Visit, mask: Any) -> str:
    """Warning about a mask that lies on the grid of no scan."""
    voxels = np.argwhere(np.asanyarray(mask.dataobj))
    alike = [
        scan.kind
        for scan in visit.scans
        if scan.grid is not None
        and scan.label is None
        and scan.shape is not None
        and scan.shape[:3] == mask.shape
    ]
    note = "the mask is on the grid of no scan of its visit; its own header places it"
    if alike:
        note += f" (it has the shape of {alike[0]} but another position: check its header)"
    if len(voxels):
        world = nib.affines.apply_affine(mask.affine, voxels)
        shares = []
        for name, grid in visit.grids.items():
            if _kind_of_grid(visit.scans, name) is not None:
                at = nib.affines.apply_affine(np.linalg.inv(grid.affine), world)
                shares.append(((at > -0.5) & (at < np.array(grid.shape) - 0.5)).all(1).mean())
        if max(shares) < 0.5:
            note += f"; only {max(shares):.0%} of it lies inside any scan's field of view"
    return note


# --- metadata ----------------------------------------------------------------------------------


def _metadata(found: FoundScan, conformed: Conformed, notes: list[str]) -> dict[str, Any]:
    """Acquisition facts: the sheet's columns win over the sidecar, that over the header."""
    row, file = found.row, Path(found.row.path)
    sidecar, faults = read_sidecar(file)
    notes += faults
    named = {**_SIDECAR_KEYS, **{name: name for name in _SIDECAR_KEYS.values()}}
    facts = {}
    for key, name in named.items():
        if isinstance(sidecar.get(key), list | dict):
            notes.append(f"the sidecar's {key} is no single value and was not used")
        elif sidecar.get(key) is not None:
            facts[name] = sidecar[key]
    listed = {name: getattr(row, name) for name in _ROW_METADATA}
    facts |= {name: value for name, value in listed.items() if value not in (None, "")}
    for name in _ROW_METADATA:
        facts.setdefault(name, None)
    if row.kind == "dwi":
        b_values, faults = read_b_values(file)
        notes += faults
        facts["b_values"] = finite_numbers(sidecar.get("b_values")) or b_values
        if facts["b_value"] is None and facts["b_values"]:
            facts["b_value"] = max(facts["b_values"])
    if facts.get("lossy") is not None:
        facts["lossy"] = str(facts["lossy"]).strip().lower() in ("1", "01", "true")
    _check_times(facts, notes)
    if conformed.image.ndim == 4:
        facts["frame_times_s"] = _frame_times_s(sidecar, facts, conformed, notes)
        facts["slice_times_s"] = _slice_times_s(file, sidecar, facts, notes)
        facts["filled_slices"] = [list(pair) for pair in conformed.filled_slices] or None
        # What dcm2niix writes there comes from the same times, but not across midnight.
        own = found.dicom is not None and sidecar.get("frame_times_s") is not None
        facts["header_interval_s"] = (
            None if own else _header_interval_s(conformed, facts["frame_times_s"], notes)
        )
    return facts


def _slice_times_s(
    file: Path, sidecar: Mapping[str, Any], facts: Mapping[str, Any], notes: list[str]
) -> list[float] | None:
    """Seconds from the start of a frame to each slice of the conformed series (BIDS SliceTiming).

    A table that shuttles between two positions, and 2D acquisition, take slices one after the
    other; without this, delays of the later ones would be too short.
    """
    if sidecar.get("SliceTiming") is None:
        return None
    image: Any = nib.load(file)
    frames = facts["frame_times_s"]
    try:
        times = np.asarray(sidecar["SliceTiming"], dtype=float)
    except (TypeError, ValueError):
        times = np.array([])
    orientation = nib.io_orientation(image.affine)
    longest = float(np.max(np.diff(frames)))
    if times.size and longest < times.max() <= 1000 * longest and times.max() >= 100:
        notes.append(f"SliceTiming to {times.max():g} s cannot be; taken as milliseconds")
        times = times / 1000.0
    fault = None
    if times.shape != (image.shape[2],) or not np.isfinite(times).all():
        fault = f"does not give {image.shape[2]} numbers for {image.shape[2]} slices"
    elif times.min() < 0 or times.max() > longest:
        fault = f"goes to {times.max():g} s, beyond the frame interval (seconds are expected)"
    elif int(orientation[2, 0]) != 2:
        fault = "is given for slices that are not axial"
    if fault:
        notes.append(f"the sidecar's SliceTiming {fault} and was not used")
        return None
    backwards = str(sidecar.get("SliceEncodingDirection", "k")).endswith("-")
    if backwards != (orientation[2, 1] < 0):
        times = times[::-1]
    return [round(float(time), 6) for time in times] if np.ptp(times) > 0 else None


def _check_times(facts: dict[str, Any], notes: list[str]) -> None:
    """Numbers as numbers; an echo time that can only be in ms is converted and reported."""
    for name in _NUMBERS:
        if facts.get(name) is None:
            continue
        try:
            value = float(facts[name])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            notes.append(f"{name} is {facts[name]!r}, no number, and was not used")
        facts[name] = value if math.isfinite(value) else None
    echo = facts.get("echo_time_s")
    if echo is not None and echo >= 1.0:
        notes.append(f"an echo time of {echo:g} s cannot be; taken as milliseconds")
        facts["echo_time_s"] = echo / 1000.0
    repetition = facts.get("repetition_time_s")
    if repetition is not None and repetition >= SHORTEST_IN_MS:
        notes.append(f"a repetition time of {repetition:g} s cannot be; taken as milliseconds")
        facts["repetition_time_s"] = repetition / 1000.0


def _frame_times_s(
    sidecar: Mapping[str, Any],
    facts: Mapping[str, Any],
    conformed: Conformed,
    notes: list[str],
) -> list[float]:
    """Start of every frame in seconds: a list in the sidecar, else a constant interval."""
    frames = int(conformed.image.shape[3])
    for key in _FRAME_TIME_KEYS:
        if sidecar.get(key) is None:
            continue
        try:
            times = np.asarray(sidecar[key], dtype=float)
        except (TypeError, ValueError):
            times = np.array([])
        if times.shape != (frames,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ImageFault(
                f"the sidecar's {key} does not give {frames} rising times for {frames} frames",
                "correct the list in the JSON beside the image (seconds, one per frame)",
            )
        return [float(time) for time in _in_seconds(times, f"the sidecar's {key}", notes)]
    interval = facts.get("repetition_time_s")
    header = conformed.frame_interval_s
    if interval:
        if header and abs(header - interval) > 0.01 * interval:
            notes.append(
                f"frame interval {interval:g} s (sheet or sidecar), the image header says "
                f"{header:g} s; the former is used"
            )
    elif header:
        interval = header
        notes.append(f"frame interval {header:g} s taken from the image header")
    else:
        raise ImageFault(
            "the times of the frames are not known: no perfusion can be computed without them",
            "give repetition_time_s in the scans sheet, or frame_times_s in the JSON beside it",
        )
    return [round(index * float(interval), 6) for index in range(frames)]


def _header_interval_s(
    conformed: Conformed, frame_times_s: Sequence[float], notes: list[str]
) -> float | None:
    """The header's frame interval; None where it has none, or the 1 s that writers put there."""
    header = conformed.frame_interval_s
    if header is None or header == 1.0:
        return None
    used = float(np.median(np.diff(frame_times_s)))
    if abs(header - used) > 0.1 * used:
        notes.append(
            f"the frames are {used:g} s apart by the sheet or the sidecar, {header:g} s by the "
            "image header: one of them is wrong, and every time in seconds depends on it"
        )
    return header


def _in_seconds(times: NDArray[Any], what: str, notes: list[str]) -> NDArray[Any]:
    """Times of a dynamic series in seconds, where they can only be milliseconds."""
    interval = float(np.median(np.diff(times)))
    if interval < SHORTEST_IN_MS:
        return times
    notes.append(f"{what} has intervals of {interval:g} s, which cannot be; taken as milliseconds")
    return times / 1000.0


def _arterial_input(row: ScanRow, entry: dict[str, Any], visit: _Visit) -> None:
    """A supplied arterial input: a table with rising times and finite values."""
    file = Path(row.path)
    if not file.is_file():
        raise ImageFault(f"{file} is missing", "check the path in the scans sheet")
    try:
        table = read_table(file, numeric=["time_s", "value"])
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ImageFault(
            f"{file.name} is no table of numbers ({error})", "give a TSV with time_s and value"
        ) from None
    missing = [name for name in ("time_s", "value") if name not in table.columns]
    if missing:
        raise ImageFault(
            f"{file.name} lacks the column {' and '.join(missing)}",
            "give a TSV with the columns time_s and value",
        )
    times, heights = table["time_s"].to_numpy(float), table["value"].to_numpy(float)
    if len(times) < 5 or not (np.isfinite(times).all() and np.isfinite(heights).all()):
        raise ImageFault(
            f"{file.name} has {len(times)} rows or gaps in them: an arterial input has 5 or more, "
            "all finite",
            "export the curve again",
        )
    if (np.diff(times) <= 0).any() or heights.min() == heights.max():
        raise ImageFault(
            f"{file.name} has times that do not rise, or a value that never changes",
            "sort the rows by time_s and check that the right column was exported",
        )
    path = visit.free_path(
        lambda run: derivative(
            visit.participant_id,
            visit.visit,
            DATATYPES["aif"],
            "aif",
            extension=".tsv",
            desc="conformed",
            run=run,
        ),
        entry["repeat"],
    )
    table["time_s"] = _in_seconds(times, file.name, entry["notes"])
    write_table(table, visit.folder / path, ["time_s", "value"], sort=False)
    entry |= {"path": path, "unit": "a.u.", "shape": [len(times)]}


# --- the visit as a whole ----------------------------------------------------------------------


def _usable(scans: Iterable[Scan]) -> list[Scan]:
    """Native images that were conformed."""
    return [
        scan
        for scan in scans
        if scan.status == "ok"
        and scan.label is None
        and scan.grid is not None
        and scan.space == "native"
    ]


def _best_grid(scans: Iterable[Scan], order: Sequence[str]) -> str | None:
    """Grid of the first usable image in an order of preference."""
    usable = _usable(scans)
    ranked = sorted(
        usable,
        key=lambda scan: order.index(scan.kind) if scan.kind in order else len(order),
    )
    return ranked[0].grid if ranked else None


def _brain_masks(
    visit: _Visit, reference: str | None
) -> tuple[dict[str, str], dict[str, BrainQuality]]:
    """One brain mask per native grid with an image: the supplied one, else from the best image."""
    masks: dict[str, str] = {}
    quality: dict[str, BrainQuality] = {}
    settings = visit.settings.brain_extraction
    extract, parameters = EXTRACTORS[settings.method](settings)
    parameters = {"method": settings.method, **parameters}
    for grid in [name for name in visit.grids if name.startswith("g")]:
        images = [scan for scan in _usable(visit.scans) if scan.grid == grid]
        if not images:
            continue
        supplied = [
            scan
            for scan in visit.scans
            if scan.label == "brain" and scan.grid == grid and scan.path is not None
        ]
        ranked = [kind for kind in BRAIN_ORDER if any(scan.kind == kind for scan in images)]
        kind = ranked[0] if ranked else images[0].kind
        source = next(scan for scan in images if scan.kind == kind)
        image: Any = visit.read(source.file)
        if supplied:
            masks[grid] = supplied[0].file
            mask_image: Any = nib.load(visit.folder / supplied[0].file)
            origin = "supplied"
            fit = None
        else:
            mask, fit = extract(image, kind)
            mask_image = nib.Nifti1Image(mask.astype(np.uint8), image.affine)
            origin = kind
            desc = None if grid == reference else kind
            path = visit.free_path(
                lambda run, kind=kind, desc=desc: mask_path(
                    visit.participant_id, visit.visit, "brain", kind=kind, desc=desc, run=run
                ),
                1,
            )
            save_image(
                mask_image,
                visit.folder / path,
                sidecar={
                    "unit": "label",
                    "inputs": [{"name": source.path, "sha256": source.sha256}],
                    "parameters": {**parameters, "kind": kind},
                },
            )
            masks[grid] = path
        method = "supplied" if supplied else parameters["method"]
        judged = judged_mask(mask_image, image, kind, origin, fit)
        head = None
        if fit is not None:
            head = HeadPose(source.scan_id, tuple(fit.matrix.ravel().tolist()), fit.score)
        quality[grid] = replace(judged, method=method, head=head)
    return masks, quality


def _tell_outside(
    visit: _Visit,
    reference: str | None,
    brain_masks: Mapping[str, str],
    quality: Mapping[str, BrainQuality],
) -> None:
    """Warn of supplied masks that reach outside of the brain mask of their grid or visit."""
    for scan in visit.scans:
        if scan.status != "ok" or scan.label in (None, "brain") or scan.space != "native":
            continue
        grid = str(scan.grid if scan.grid in brain_masks else reference)
        if grid not in brain_masks or quality[grid].verdict == FAIL:
            continue
        mask: Any = nib.load(visit.folder / scan.file)
        brain: Any = nib.load(visit.folder / brain_masks[grid])
        if text := outside_brain(mask, brain):
            visit.warn(scan, text)


def _tell_central_volume(visit: _Visit, brain_masks: Mapping[str, str]) -> None:
    """Warn of supplied maps of CBF, CBV and MTT that cannot all be in their units."""
    maps: dict[str, dict[str, Scan]] = {}
    for scan in visit.scans:
        if scan.status == "ok" and scan.kind in ("cbf", "cbv", "mtt"):
            maps.setdefault(str(scan.grid), {}).setdefault(scan.kind, scan)
    for grid, found in maps.items():
        if len(found) < 3 or grid not in brain_masks:
            continue
        paths = [*(found[kind].file for kind in ("cbf", "cbv", "mtt")), brain_masks[grid]]
        files: list[Any] = [nib.load(visit.folder / path) for path in paths]
        cbf, cbv, mtt, brain = (np.asanyarray(file.dataobj) for file in files)
        ratio = central_volume_ratio(cbf, cbv, mtt, brain > 0)
        if math.isfinite(ratio) and not CENTRAL_VOLUME[0] <= ratio <= CENTRAL_VOLUME[1]:
            for scan in found.values():
                visit.warn(
                    scan,
                    f"CBF x MTT is {ratio:.2g} times CBV in most tissue where it has to be equal "
                    "(central volume principle): one of the three maps is in another unit or "
                    "scale; export them with their rescale slopes",
                )


#: Image and kind of scan -> brain mask, and the fit of the template if there is one.
Extract = Callable[[Any, str], tuple[NDArray[np.bool_], HeadFit | None]]


def _classical(settings: BrainExtractionSettings) -> tuple[Extract, dict[str, Any]]:
    def extract(image: Any, kind: str) -> tuple[NDArray[np.bool_], HeadFit | None]:
        found = extract_brain(image, kind)
        return found.mask, found.fit

    return extract, {}


def _learned(settings: BrainExtractionSettings) -> tuple[Extract, dict[str, Any]]:
    def extract(image: Any, kind: str) -> tuple[NDArray[np.bool_], HeadFit | None]:
        return learned.brain_mask(image, kind), None

    return extract, {"weights_sha256": file_sha256(own_weights("brain"))}


def _network(settings: BrainExtractionSettings) -> tuple[Extract, dict[str, Any]]:
    from corelab.imaging.meshnet import network_mask, read_meshnet

    network = read_meshnet(settings.weights or "")

    def extract(image: Any, kind: str) -> tuple[NDArray[np.bool_], HeadFit | None]:
        return network_mask(network, image, kind), None

    return extract, asdict(network.record)


#: Brain extractors by their names in the config: of its block ``brain_extraction``, the function
#: and what to record of it.
EXTRACTORS: Mapping[str, Callable[[BrainExtractionSettings], tuple[Extract, dict[str, Any]]]] = (
    registry(
        "brain_extractors", {"classical": _classical, "learned": _learned, "mindgrab": _network}
    )
)


def _acquisition(
    visit: _Visit,
    brain_masks: Mapping[str, str],
    limits: Mapping[str, Mapping[str, float | list[float | str]]],
) -> list[AcquisitionRow]:
    """Rows of the imaging charter; a scan that cannot be read cannot be assessed."""
    settings = visit.settings.acquisition
    rows: list[AcquisitionRow] = []
    for scan in visit.scans:
        if scan.label is not None or scan.kind == "aif" or scan.space != "native":
            continue
        rows.append(_readable_row(scan))
        observed = _observed(scan, visit, brain_masks, limits)
        rows += acquisition_rows(scan.kind, observed, limits, scan.scan_id)
        if settings.lossless:
            facts = scan.metadata
            lossy, proof = facts.get("lossy"), facts.get("pixels")
            rows.append(lossless_row(scan.kind, lossy, proof, scan.scan_id))
    if settings.left_right:
        rows += left_right_rows(_usable(visit.scans), brain_masks, visit.read)
    return rows


def _readable_row(scan: Scan) -> AcquisitionRow:
    ok = scan.status == "ok"
    return AcquisitionRow(
        *(scan.kind, "readable", "yes" if ok else "no", "yes", PASS if ok else FAIL),
        *(scan.reason, scan.scan_id),
    )


def _observed(
    scan: Scan,
    visit: _Visit,
    brain_masks: Mapping[str, str],
    limits: Mapping[str, Mapping[str, float | list[float | str]]],
) -> dict[str, float | str | Sequence[float] | None]:
    """Quantities and fields of a scan; those in the voxels only where a limit needs them."""
    if scan.status != "ok" or scan.shape is None or scan.voxel_size_mm is None:
        return {}
    observed = observe(scan)
    asked = {subject_of(name) for name in limits.get(scan.kind, {})} & set(MEASURED)
    if asked:
        image: Any = nib.load(visit.folder / scan.file)
        path = brain_masks.get(str(scan.grid))
        mask: Any = None if path is None else nib.load(visit.folder / path)
        brain = None if mask is None else np.asanyarray(mask.dataobj) > 0
        ct = scan.unit == "HU"
        observed |= image_quality(image, brain, sorted(map(str, asked)), ct=ct)
    return observed
