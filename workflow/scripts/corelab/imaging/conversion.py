"""DICOM series to NIfTI through dcm2niix, with proof that the stored values are the same."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.dicom import (
    IDENTIFYING_TAGS,
    DicomFile,
    Listing,
    Series,
    frame_sha256,
    list_series,
    scaled_frames,
    single_frames,
    slice_distances_mm,
)
from corelab.imaging.dynamic import DYNAMIC_KINDS, TimeTable, time_table
from corelab.imaging.enhanced import write_single_frames
from corelab.imaging.faults import ImageFault
from corelab.imaging.nifti import sidecar_path
from corelab.imaging.sidecars import read_b_values, read_sidecar
from corelab.imaging.values import UNITS
from corelab.records.images import DAMAGED, Conversion, DicomListing, DicomSeries, LeftOut, ScanRow
from corelab.settings.acquisition import DicomSettings

#: Endings that dcm2niix gives to images which are not the magnitude.
_NOT_MAGNITUDE = ("_ph", "_real", "_imaginary", "_fieldmaphz", "_phMag")
#: Files of one reason that are named in a record; the rest are counted.
_NAMED = 20
#: A gap this many times the median slice distance cannot be bridged by interpolation.
_MISSING_SLICES = 2.5
#: A gap of two slice distances between distances of one: a slice is missing and is interpolated.
_ONE_MISSING = (1.75, 2.25)
#: Slice distances that differ by less than this share are equal but for rounding.
_SAME_STEP = 0.005


@dataclass(frozen=True)
class Converted:
    """A series as NIfTI.

    Attributes
    ----------
    path
        The image to use: corrected for gantry tilt and unequal slice distances where needed.
    proof
        ``unchanged`` (every stored frame is found again, bit by bit), ``changed`` or
        ``not_comparable``.
    notes
        What was corrected or is odd.
    command
        Command line, with folders left out.
    warnings
        What a person should decide or repair.
    table
        Frames of a dynamic series by time.
    """

    path: Path
    proof: str
    notes: tuple[str, ...]
    command: str
    version: str
    warnings: tuple[str, ...] = ()
    table: TimeTable | None = None


@dataclass(frozen=True)
class FoundScan:
    """A row of the scans sheet with the file that stands for it.

    Attributes
    ----------
    row
        Of the sheet; of a DICOM row with the kind and the converted file of one series.
    source, sha256
        File or folder as listed, and the digest of a folder.
    notes, warnings
        Of the conversion.
    fault
        Why there is no file.
    """

    row: ScanRow
    source: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dicom: DicomListing | None = None
    fault: ImageFault | None = None


def scans_of_folder(row: ScanRow, scratch: Path, settings: DicomSettings) -> list[FoundScan]:
    """Scans that stand for a ``dicom`` row: one per kind that its folder shows.

    Parameters
    ----------
    row
        Row of the scans sheet with kind ``dicom``.
    scratch
        Folder for converted files.
    settings
        Block ``dicom`` of the config; without ``identifying_tags`` they are
        :data:`corelab.imaging.dicom.IDENTIFYING_TAGS`.

    Examples
    --------
    >>> row = ScanRow("dicom", "none", "s1")
    >>> scans_of_folder(row, Path("x"), DicomSettings())[0].fault.message
    'none is no folder'
    """
    folder = Path(row.path)
    if not folder.is_dir():
        fault = ImageFault(f"{folder} is no folder", "name the folder that holds the DICOM files")
        return [FoundScan(row, fault=fault)]
    tags = settings.identifying_tags or IDENTIFYING_TAGS
    listing = list_series(folder, identifying_tags=tags)
    whole = FoundScan(row, str(folder), _folder_sha256(folder), dicom=described(listing, {}))
    chosen = _chosen(listing.series)
    if not chosen:
        fault = ImageFault(
            f"{folder.name} holds no series of a kind that is analysed ({_summary(listing)})",
            "check the folder; or convert the right series to NIfTI and name it with its kind",
        )
        return [replace(whole, fault=fault)]
    out: list[FoundScan] = []
    for kind, series in chosen.items():
        target = scratch / kind
        try:
            converted = convert(series, target)
        except ImageFault as fault:
            out.append(replace(whole, row=replace(row, kind=kind), fault=fault))
            continue
        more_notes = _complete_sidecar(series, converted, settings.date_shift_days)
        record = described(listing, {series.uid: converted})
        notes = [*converted.notes, *more_notes, *_notes(series, listing)]
        notes += _spacing_notes(series, converted.path)
        for own_kind, path, more in _split_diffusion(kind, converted.path):
            made = replace(row, kind=own_kind, path=str(path))
            found = replace(whole, row=made, notes=(*notes, *more), warnings=converted.warnings)
            out.append(replace(found, dicom=record))
    return out


def convert(series: Series, target: Path) -> Converted:
    """Convert one series with dcm2niix and compare stored values before and after.

    Parameters
    ----------
    series
        Usable files of one series.
    target
        Folder to write to; it is made.

    Returns
    -------
    Converted

    Raises
    ------
    ImageFault
        If slices are missing, dcm2niix makes nothing of the series, or it changes stored values.
    """
    steps = slice_distances_mm(series)
    if steps and max(steps) > _MISSING_SLICES * float(np.median(steps)):
        raise ImageFault(
            f"series {series.number} has a gap of {max(steps):g} mm between slices that lie "
            f"{float(np.median(steps)):g} mm apart: slices are missing",
            "export the whole series again",
        )
    warnings = _missing_slices(series)
    series, notes, repeats = _without_repeats(series)
    table = time_table(series)
    notes += [] if table is None else table.notes
    inputs, outputs = target / "in", target / "out"
    for folder in (inputs, outputs):
        folder.mkdir(parents=True)
    notes += _copied(series, table, inputs)
    command, version, printed = _run_dcm2niix(inputs, outputs, public=_needs_public_scale(series))
    shutil.rmtree(inputs)
    images = sorted(outputs.glob("*.nii"))
    plain = [
        path
        for path in images
        if not any(part in path.stem for part in ("_Tilt", "_Eq", *_NOT_MAGNITUDE))
    ]
    if not plain:
        last = printed.strip().splitlines()[-1:] or ["no output"]
        raise ImageFault(
            f"dcm2niix made no image of series {series.number} ({last[0]})",
            "export the series again, or convert it elsewhere and name the NIfTI file",
        )
    base = max(plain, key=lambda path: (path.stat().st_size, path.name))
    if len(plain) > 1:
        names = ", ".join(path.name for path in plain if path != base)
        notes.append(f"the series gave {len(plain)} images; the largest is used, not {names}")
    corrected = [path for path in images if path.stem.startswith(f"{base.stem}_")]
    corrected = [path for path in corrected if "_Tilt" in path.stem or "_Eq" in path.stem]
    stored = [path for path in images if path not in corrected]
    proof = _proof(series, table, stored)
    if proof in _FAULTS:
        raise ImageFault(
            f"dcm2niix {_FAULTS[proof]} of series {series.number}: no number from it could be "
            "trusted",
            "export the series again without compression, or convert it elsewhere",
        )
    rank = {path: ("_Tilt" in path.stem) + ("_Eq" in path.stem) for path in corrected}
    if proof == "not_comparable":
        notes.append(
            "stored values could not be compared before and after conversion (mosaic or other "
            "packing of frames, or no decoder for the compression)"
        )
    slopes = {slope for file in series.files for slope, _ in file.facts.get("scales", ())}
    if len(slopes) > 1:
        notes.append(
            f"the rescale slope differs between frames ({min(slopes):g} to {max(slopes):g}); each "
            "was scaled by its own"
        )
    best = max(corrected, key=lambda path: (rank[path], path.name), default=None)
    if best is not None:
        sidecar = sidecar_path(base)
        if sidecar.exists():
            shutil.copyfile(sidecar, sidecar_path(best))
        notes.append(_corrected_note(series, best))
    warnings += repeats
    return Converted(best or base, proof, tuple(notes), command, version, tuple(warnings), table)


def _missing_slices(series: Series) -> list[str]:
    """Single slices that are missing between equally spaced ones; their place is interpolated."""
    places = sorted({file.facts["position"] for file in single_frames(series.files)} - {None})
    steps = np.diff(places)
    if not steps.size:
        return []
    usual = float(np.median(steps))
    low, high = (factor * usual for factor in _ONE_MISSING)
    # Beside a distance that is usual: where thick slices follow thin ones, none is missing.
    equal = np.abs(steps - usual) < 0.1 * usual
    beside = np.pad(equal, 1, constant_values=True)
    gaps = (steps > low) & (steps < high) & beside[:-2] & beside[2:]
    shown = ", ".join(f"{0.5 * (places[k] + places[k + 1]):g}" for k in np.flatnonzero(gaps)[:5])
    if not shown:
        return []
    count = int(gaps.sum())
    return [
        f"{count} slice{'s are' if count > 1 else ' is'} missing in series {series.number} (at "
        f"{shown} mm along the slice normal, where slices lie {usual:g} mm apart): what an image "
        "shows there is interpolated from the neighbours; export the whole series again"
    ]


def _without_repeats(series: Series) -> tuple[Series, list[str], list[str]]:
    """Series without images of places that occur again; notes and warnings that say so.

    A stack that was taken twice as a whole, and series with several images of a place by design
    (time, diffusion), are left as they are.
    """
    if series.kind in (*DYNAMIC_KINDS, "dwi"):
        return series, [], []
    groups: dict[tuple[Any, ...], list[DicomFile]] = {}
    for file in series.files:
        facts = file.facts
        place = facts.get("position") if facts.get("frames") == 1 else file.name
        alike = (facts.get("orientation"), facts.get("image_type"), facts.get("echo_time_ms"))
        groups.setdefault((place, str(alike)), []).append(file)
    counts = [len(group) for group in groups.values()]
    copies = all(len({file.pixel_sha256 or file.name for file in g}) == 1 for g in groups.values())
    if max(counts) == 1 or (min(counts) > 1 and not copies):
        return series, [], []
    first = {
        min(group, key=lambda f: (f.facts.get("time_s") or 0.0, f.facts.get("instance") or 0)).name
        for group in groups.values()
    }
    kept = tuple(file for file in series.files if file.name in first)
    again = (
        f"{sum(count > 1 for count in counts)} of {len(counts)} slices of series {series.number}"
    )
    series = replace(series, files=kept)
    if copies:
        return series, [f"{again} occur more than once, with the same pixels"], []
    warning = f"{again} were taken more than once (a scan repeated in part): the first is used"
    return series, [], [warning]


def _copied(series: Series, table: TimeTable | None, inputs: Path) -> list[str]:
    """Copy the files for dcm2niix, numbered by time and place where their own numbers are not."""
    if table is not None and table.within_files():
        write_single_frames(table.frames, inputs)
        return ["the frames of enhanced files were ordered by place and time"]
    renumber = table is not None and not table.numbered()
    files = [f for frame in table.frames for f in frame] if table and renumber else series.files
    uids = [file.facts.get("sop_uid") for file in files]
    shared = len(uids) - len(set(uids)) if all(uids) else 0
    for index, file in enumerate(files):
        copy = inputs / f"{index:06d}.dcm"
        if not (renumber or shared):
            shutil.copyfile(file.path, copy)
            continue
        import pydicom

        dataset = pydicom.dcmread(file.path, force=True)
        if renumber and table is not None:
            dataset.InstanceNumber = index + 1
            dataset.AcquisitionNumber = 1 + index // len(table.frames[0])
            if "TemporalPositionIdentifier" in dataset:
                dataset.TemporalPositionIdentifier = dataset.AcquisitionNumber
        if shared:
            dataset.SOPInstanceUID = f"2.25.{index + 1}"
            if getattr(dataset, "file_meta", None) is not None:
                dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(copy)
    notes = []
    if renumber:
        notes.append(
            "the image numbers do not follow the frames: they were ordered by place and "
            "acquisition time"
        )
    if shared:
        notes.append(
            f"{shared} images bear the SOPInstanceUID of another that shows something else (an "
            "anonymiser's fault); all are used"
        )
    return notes


def _needs_public_scale(series: Series) -> bool:
    """Whether dcm2niix has to be kept from the private scale slope of Philips.

    Of a map in a unit, only the rescale slope of the standard gives the unit. Signals have none,
    and the private slope makes those of several series (b = 0 and diffusion) comparable. Files of
    other makers would lose slopes that differ between frames.
    """
    maker = str(series.files[0].facts.get("sidecar", {}).get("Manufacturer") or "")
    return series.kind in UNITS and "philips" in maker.lower()


def _run_dcm2niix(inputs: Path, outputs: Path, *, public: bool) -> tuple[str, str, str]:
    """Run dcm2niix through Nipype; return its command line, version and output."""
    import dcm2niix
    from nipype import logging as nipype_logging
    from nipype.interfaces.dcm2nii import Dcm2niix

    nipype_logging.getLogger("nipype.interface").setLevel("WARNING")
    program = Path(str(dcm2niix.bin))
    interface = Dcm2niix(
        source_dir=str(inputs),
        output_dir=str(outputs),
        out_filename="scan",
        compress="n",
        anon_bids=True,
        merge_imgs=2,
        environ={"PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        # Values as stored; a user's own ~/.dcm2nii.ini must not change a result.
        args="-g i -l o -p n" if public else "-g i -l o",
    )
    command = interface.cmdline.replace(str(inputs), "IN").replace(str(outputs), "OUT")
    try:
        printed = str(interface.run().runtime.stdout)
    except RuntimeError as error:  # Nipype's word for an exit status other than 0
        last = str(error).strip().splitlines()[-1:] or ["no output"]
        raise ImageFault(
            f"dcm2niix stopped with an error ({last[0]})",
            "export the series again, or convert it elsewhere and name the NIfTI file",
        ) from None
    words = printed.split("version ", 1)
    return command, words[1].split()[0] if len(words) > 1 else "unknown", printed


def _corrected_note(series: Series, best: Path) -> str:
    """Sentence on what dcm2niix had to resample."""
    parts = []
    if "_Tilt" in best.stem:
        tilt = series.files[0].facts.get("tilt_deg")
        angle = f" of {abs(tilt):g} degrees" if tilt else ""
        parts.append(f"a gantry tilt{angle}")
    if "_Eq" in best.stem:
        steps = slice_distances_mm(series)
        equal = max(steps) - min(steps) <= _SAME_STEP * max(steps)
        from_to = f"from {min(steps):g} to {max(steps):g} mm"
        parts.append(f"slice distances {'that differ by rounding' if equal else from_to}")
    return f"dcm2niix resampled the slices to correct {' and '.join(parts)}"


#: What a verdict of the comparison says against a conversion.
_FAULTS = {
    "changed": "changed stored values",
    "reordered": "put images in another order than their places and times have",
    "rescaled": "scaled values by another factor than the header's rescale slope",
    "flat": "could not stack the slices",
}
#: Values that differ by less than this share of their range are the same.
_SAME_VALUE = 1e-5


def _proof(series: Series, table: TimeTable | None, paths: Sequence[Path]) -> str:
    """Compare the digest of every stored frame with that of the same place and time in the image.

    For kinds with a unit the scaled values are compared, too.
    """
    orientation = series.files[0].facts.get("orientation")
    if orientation is None or any(not file.pixel_sha256 for file in series.files):
        return "not_comparable"
    images: list[Any] = [nib.load(path) for path in paths]
    if any(abs(np.linalg.det(image.affine[:3, :3])) < 1e-9 for image in images):
        return "flat"
    volumes = [_stored_frames(image, orientation) for image in images]
    frames = [frame for volume in volumes for place in volume for frame in place]
    own = single_frames(series.files)
    due = [(file, k) for file in own for k in range(len(file.pixel_sha256))]
    if len(frames) != len(due):
        return "not_comparable"
    groups = [(due, frames)]
    if len(images) == 1:
        groups = _groups(own, table, volumes[0]) or groups
    if all(frame.dtype.kind in "iu" for frame in frames):
        digests = [
            (sorted(file.pixel_sha256[k] for file, k in wanted), sorted(map(frame_sha256, found)))
            for wanted, found in groups
        ]
        if sorted(d for wanted, _ in digests for d in wanted) != sorted(
            d for _, found in digests for d in found
        ):
            return "changed"
        if any(wanted != found for wanted, found in digests):
            return "reordered"
        if series.kind in UNITS and not all(_scaled_alike(series, image) for image in images):
            return "rescaled"
        return "unchanged"
    scaled = {file.name: scaled_frames(file.path) for file in series.files}
    same = all(
        _same_frames([scaled[file.name][file.facts.get("frame", k)] for file, k in wanted], found)
        for wanted, found in groups
    )
    return "unchanged" if same else "changed"


def _stored_frames(image: Any, orientation: Sequence[float]) -> list[list[NDArray[Any]]]:
    """Stored pictures of an image as DICOM has them: by rising place, then in order of time."""
    stored = np.asanyarray(image.dataobj.get_unscaled())
    turned = nib.orientations.apply_orientation(stored, _to_dicom(image.affine, orientation))
    slices = turned.reshape(*turned.shape[:3], -1)
    return [[slices[:, :, k, t].T for t in range(slices.shape[3])] for k in range(slices.shape[2])]


def _groups(
    files: Sequence[DicomFile], table: TimeTable | None, volume: list[list[NDArray[Any]]]
) -> list[tuple[list[tuple[DicomFile, int]], list[NDArray[Any]]]] | None:
    """Pictures of the files, and of the image, that have to be the same, in the smallest groups.

    One picture where place and time of it are known; a frame where a file holds all its slices; a
    place where only that is known. None where an image and files cannot be laid side by side.
    """
    places, times = len(volume), len(volume[0])
    single = all(len(file.pixel_sha256) == 1 for file in files)
    if table is not None and len(table.frames) == times:
        if single and len(table.frames[0]) == places:
            return [
                ([(file, 0)], [volume[k][t]])
                for t, frame in enumerate(table.frames)
                for k, file in enumerate(frame)
            ]
        return [
            (
                [(file, k) for file in frame for k in range(len(file.pixel_sha256))],
                [place[t] for place in volume],
            )
            for t, frame in enumerate(table.frames)
        ]
    by_place: dict[Any, list[tuple[DicomFile, int]]] = {}
    for file in files:
        by_place.setdefault(file.facts.get("position"), []).append((file, 0))
    one_way = len({str(file.facts.get("orientation")) for file in files}) == 1
    if not (single and one_way and None not in by_place and len(by_place) == places):
        return None
    return [(by_place[at], volume[k]) for k, at in enumerate(sorted(by_place))]


def _scaled_alike(series: Series, image: Any) -> bool:
    """Whether an image scales its stored values as the headers of all files do."""
    ends = [float(end(image.dataobj.get_unscaled())) for end in (np.min, np.max)]
    got = [image.dataobj.slope * value + image.dataobj.inter for value in ends]
    rules = {rule for file in series.files for rule in file.facts.get("scales", ())}
    return all(
        abs(slope * value + intercept - own) <= _SAME_VALUE * max(map(abs, got))
        for slope, intercept in rules
        for value, own in zip(ends, got, strict=True)
    )


def _same_frames(wanted: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> bool:
    """Whether two groups hold the same scaled pictures."""

    def place(frame: NDArray[Any]) -> tuple[float, float]:
        return float(np.mean(frame, dtype=np.float64)), float(np.std(frame, dtype=np.float64))

    return len(wanted) == len(found) and all(
        one.shape == other.shape and np.allclose(one, other, rtol=_SAME_VALUE, atol=_SAME_VALUE)
        for one, other in zip(sorted(wanted, key=place), sorted(found, key=place), strict=True)
    )


def _to_dicom(affine: NDArray[Any], orientation: Sequence[float]) -> NDArray[Any]:
    """Axis order and turns that give an image the axes (column, row, slice) of its DICOM frames.

    dcm2niix turns rows and, of 3D series, swaps axes; neither changes a value.
    """
    across, down = np.asarray(orientation, float).reshape(2, 3)
    dicom_axes = np.stack([across, down, np.cross(across, down)], axis=1)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0])
    relative = np.eye(4)
    relative[:3, :3] = np.linalg.inv(lps_to_ras @ dicom_axes) @ affine[:3, :3]
    return nib.orientations.io_orientation(relative)


def _complete_sidecar(series: Series, converted: Converted, shift_days: int) -> list[str]:
    r"""Write a valid sidecar with what the headers know; return what was wrong with dcm2niix's.

    Added are the moment of acquisition, the times of the frames, losses, and every field that is
    missing. dcm2niix writes invalid JSON for some headers (v1.0.20260724 does not escape the last
    backslash of a Siemens kernel ``J30s\3``); the fields then come from the headers alone.
    """
    path = converted.path
    file = sidecar_path(path)
    content, notes = read_sidecar(path)
    if notes and not content:
        notes = [
            "the sidecar that dcm2niix wrote is not valid JSON; its fields were taken from the "
            "DICOM headers"
        ]
    for name, value in series.files[0].facts.get("sidecar", {}).items():
        if name != "SequenceName" or "PulseSequenceName" not in content:
            content.setdefault(name, value)
    moment = series.first.facts.get("acquired_at")
    if moment is not None:
        content.pop("AcquisitionDateTime", None)
        # A date of year 1, which some anonymisers write, cannot be shifted back.
        with suppress(OverflowError):
            shifted = datetime.datetime.fromisoformat(moment) + datetime.timedelta(days=shift_days)
            content["AcquisitionDateTime"] = shifted.isoformat()
    content["lossy"] = series.lossy
    content["PixelProof"] = converted.proof
    # The image that dcm2niix makes of uneven slices has one distance, which may be the least.
    distances = slice_distances_mm(series)
    if distances:
        content["LargestSliceDistance"] = max(distances)
    if not series.files[0].facts.get("contrast"):
        content.setdefault("ContrastPhase", "none")
    notes += _add_times(series, converted.table, path, content)
    file.write_text(json.dumps(content), encoding="utf-8")
    return notes


def _add_times(
    series: Series, table: TimeTable | None, path: Path, content: dict[str, Any]
) -> list[str]:
    """Times of the frames and delays of the slices of a dynamic series, for the sidecar."""
    if table is None or table.times_s is None:
        return []
    image: Any = nib.load(path)
    if len(image.shape) != 4 or image.shape[3] != len(table.times_s):
        return []
    content["frame_times_s"] = list(table.times_s)
    delays = table.slice_times_s
    if delays is None or content.get("SliceTiming") is not None:
        return []
    if len(delays) != image.shape[2]:
        return ["the slices were resampled, so that their own times could not be used"]
    turns = _to_dicom(image.affine, series.files[0].facts["orientation"])
    content["SliceTiming"] = list(delays if turns[2, 1] > 0 else delays[::-1])
    content.pop("SliceEncodingDirection", None)
    return [
        f"slices of one frame were taken up to {max(delays):g} s apart (a table that moves, or 2D "
        "imaging); their curves are brought to one time"
    ]


def _split_diffusion(kind: str, path: Path) -> list[tuple[str, Path, list[str]]]:
    """A diffusion series in one file becomes its b = 0 image and its trace image.

    The trace is the geometric mean over the directions of the highest b value, which is
    what scanners export under that name.
    """
    image: Any = nib.load(path)
    if kind != "dwi" or len(image.shape) < 4:
        return [(kind, path, [])]
    listed, faults = read_b_values(path)
    if listed is None:
        return [(kind, path, faults)]
    b_values = np.array(listed)
    if b_values.shape != (image.shape[3],) or b_values.max() < 100:
        return [(kind, path, [])]
    voxels = image.get_fdata(dtype=np.float32)
    low, high = b_values <= 50, b_values >= 0.95 * b_values.max()
    logs = np.log(np.maximum(voxels[..., high], 1e-3))
    parts = {"dwi": (np.exp(logs.mean(axis=3)), float(b_values[high].mean()), int(high.sum()))}
    if low.any():
        parts["b0"] = (voxels[..., low].mean(axis=3), 0.0, int(low.sum()))
    out = []
    content, _ = read_sidecar(path)
    for own_kind, (values, b_value, count) in parts.items():
        file = path.with_name(f"{own_kind}.nii")
        nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), file)
        own = {**content, "DiffusionBValue": b_value, "b_values": sorted(set(b_values.tolist()))}
        sidecar_path(file).write_text(json.dumps(own))
        mean = "geometric mean" if own_kind == "dwi" else "mean"
        note = f"{mean} of {count} volumes with b of {b_value:.0f} s/mm2 from one diffusion series"
        out.append((own_kind, file, [note]))
    return out


# --- choosing and describing -------------------------------------------------------------------


def _chosen(series: Sequence[Series]) -> dict[str, Series]:
    """For each kind the series with the most images; the first of equals."""
    chosen: dict[str, Series] = {}
    for one in series:
        if one.kind is None:
            continue
        best = chosen.get(one.kind)
        if best is None or _images(one) > _images(best):
            chosen[one.kind] = one
    return chosen


def _images(series: Series) -> int:
    return sum(int(file.facts.get("frames") or 1) for file in series.files)


def _summary(listing: Listing) -> str:
    """The folder in half a sentence."""
    parts = [
        f"series {one.number} '{one.description}' ({one.modality}, {_images(one)} images)"
        for one in listing.series[:5]
    ]
    reasons: dict[str, int] = {}
    for file in listing.left_out:
        reasons[file.reason or ""] = reasons.get(file.reason or "", 0) + 1
    parts += [f"{count} x {reason}" for reason, count in sorted(reasons.items())[:8]]
    return "; ".join(parts) or "it is empty"


def _notes(series: Series, listing: Listing) -> list[str]:
    """Warnings about the series that was used."""
    notes = []
    if series.lossy:
        notes.append("the images were compressed with loss: values may differ from the scanner's")
    others = [one for one in listing.series if one.kind == series.kind and one.uid != series.uid]
    if others:
        numbers = ", ".join(str(one.number) for one in others)
        notes.append(f"series {series.number} was chosen; series {numbers} shows the same kind")
    people = {one.files[0].facts.get("patient") for one in listing.series} - {None}
    if len(people) > 1:
        notes.append(
            f"the folder holds series of {len(people)} different patients: check that series "
            f"{series.number} is of the right one"
        )
    damaged = [file for file in listing.left_out if (file.reason or "").startswith(DAMAGED)]
    if damaged:
        names = ", ".join(file.name for file in damaged[:5])
        notes.append(f"{len(damaged)} damaged files were left out: {names}")
    if listing.identifying:
        notes.append(f"identifying tags are filled: {', '.join(listing.identifying)}")
    return notes


def _spacing_notes(series: Series, image: Path) -> list[str]:
    """Slice distances that differ by more than rounding, and what that does to a volume."""
    steps = slice_distances_mm(series)
    if not steps or max(steps) - min(steps) <= _SAME_STEP * max(steps):
        return []
    note = f"slices lie {min(steps):g} to {max(steps):g} mm apart"
    loaded: Any = nib.load(image)
    given, mean = float(loaded.header.get_zooms()[2]), float(np.mean(steps))
    error = 100 * (given / mean - 1)
    if "_Eq" not in image.stem and abs(error) >= 0.05:
        note += f"; the image has {given:g} mm throughout, which makes volumes {error:+.1f} % wrong"
    return [note]


def described(listing: Listing, converted: Mapping[str, Converted]) -> DicomListing:
    """The listing for a record: series, files left out by reason, identifying tags.

    Parameters
    ----------
    listing
        Content of a folder.
    converted
        Series UID -> conversion, for those that were converted.

    Examples
    --------
    >>> described(Listing((), (), {}), {})
    DicomListing(series=(), left_out=(), identifying_tags={})
    """
    series = []
    for one in listing.series:
        made = converted.get(one.uid)
        conversion = Conversion(made.proof, made.command, made.version) if made else None
        names = (one.number, one.description, one.modality, one.kind)
        series.append(DicomSeries(*names, _images(one), one.lossy, conversion))
    reasons: dict[str, list[str]] = {}
    for file in listing.left_out:
        reasons.setdefault(file.reason or "", []).append(file.name)
    left_out = tuple(
        LeftOut(reason, len(names), tuple(names[:_NAMED]))
        for reason, names in sorted(reasons.items())
    )
    return DicomListing(tuple(series), left_out, dict(listing.identifying))


def _folder_sha256(folder: Path) -> str:
    """One digest of all files of a folder, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with open(path, "rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
