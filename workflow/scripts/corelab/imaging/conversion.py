"""DICOM series to NIfTI through dcm2niix, with proof that the stored values are the same."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
    frame_times_s,
    list_series,
    scaled_frames,
    slice_distances_mm,
)
from corelab.imaging.faults import ImageFault
from corelab.imaging.nifti import sidecar_path
from corelab.imaging.sidecars import read_b_values, read_sidecar

#: Endings that dcm2niix gives to images which are not the magnitude.
_NOT_MAGNITUDE = ("_ph", "_real", "_imaginary", "_fieldmaphz", "_phMag")
#: Files of one reason that are named in a record; the rest are counted.
_NAMED = 20
#: A gap this many times the median slice distance cannot be bridged by interpolation.
_MISSING_SLICES = 2.5
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
    version
        Version of dcm2niix.
    """

    path: Path
    proof: str
    notes: tuple[str, ...]
    command: str
    version: str


def rows_of_folder(
    row: Mapping[str, Any], scratch: Path, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows that stand for a ``dicom`` row: one per kind that its folder shows.

    Parameters
    ----------
    row
        Row of the scans sheet with kind ``dicom``.
    scratch
        Folder for converted files.
    settings
        ``identifying_tags`` (keywords; default :data:`corelab.imaging.dicom.IDENTIFYING_TAGS`)
        and ``date_shift_days`` (added to every acquisition date; default 0).

    Returns
    -------
    list of dict
        Rows of that kind with ``path`` (converted), ``source``, ``sha256``, ``notes``, ``dicom``
        (the listing); or the row itself with a ``fault``.

    Examples
    --------
    >>> row = {"kind": "dicom", "path": "none", "scan_id": "s1"}
    >>> rows_of_folder(row, Path("x"), {})[0]["fault"].message
    'none is no folder'
    """
    folder = Path(str(row["path"]))
    if not folder.is_dir():
        fault = ImageFault(f"{folder} is no folder", "name the folder that holds the DICOM files")
        return [{**row, "fault": fault}]
    tags = settings.get("identifying_tags") or IDENTIFYING_TAGS
    listing = list_series(folder, identifying_tags=tags)
    shared = {"source": str(folder), "sha256": _folder_sha256(folder)}
    chosen = _chosen(listing.series)
    if not chosen:
        fault = ImageFault(
            f"{folder.name} holds no series of a kind that is analysed ({_summary(listing)})",
            "check the folder; or convert the right series to NIfTI and name it with its kind",
        )
        return [{**row, **shared, "fault": fault, "dicom": described(listing, {})}]
    out: list[dict[str, Any]] = []
    for kind, series in chosen.items():
        target = scratch / kind
        try:
            converted = convert(series, target)
        except ImageFault as fault:
            out.append({**row, **shared, "kind": kind, "fault": fault})
            out[-1]["dicom"] = described(listing, {})
            continue
        shift_days = int(settings.get("date_shift_days") or 0)
        more_notes = _complete_sidecar(series, converted, shift_days)
        record = described(listing, {series.uid: converted})
        notes = [*converted.notes, *more_notes, *_notes(series, listing)]
        notes += _spacing_notes(series, converted.path)
        for own_kind, path, more in _split_diffusion(kind, converted.path):
            made = {**row, **shared, "kind": own_kind, "path": str(path), "notes": [*notes, *more]}
            out.append({**made, "dicom": record})
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
    inputs, outputs = target / "in", target / "out"
    for folder in (inputs, outputs):
        folder.mkdir(parents=True)
    for index, file in enumerate(series.files):
        shutil.copyfile(file.path, inputs / f"{index:06d}.dcm")
    command, version, printed = _run_dcm2niix(inputs, outputs)
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
    notes = []
    if len(plain) > 1:
        names = ", ".join(path.name for path in plain if path != base)
        notes.append(f"the series gave {len(plain)} images; the largest is used, not {names}")
    corrected = [path for path in images if path.stem.startswith(f"{base.stem}_")]
    corrected = [path for path in corrected if "_Tilt" in path.stem or "_Eq" in path.stem]
    stored = [path for path in images if path not in corrected]
    proof = _proof(series, stored)
    if proof == "changed":
        raise ImageFault(
            f"dcm2niix changed stored values of series {series.number}: no number from it "
            "could be trusted",
            "export the series again without compression, or convert it elsewhere",
        )
    rank = {path: ("_Tilt" in path.stem) + ("_Eq" in path.stem) for path in corrected}
    if proof == "not_comparable":
        notes.append(
            "stored values could not be compared before and after conversion (mosaic or other "
            "packing of frames, or no decoder for the compression)"
        )
    slopes = {float(s) for file in series.files if (s := file.facts.get("slope")) is not None}
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
    return Converted(best or base, proof, tuple(notes), command, version)


def _run_dcm2niix(inputs: Path, outputs: Path) -> tuple[str, str, str]:
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
        args="-g i -l o",
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
    """What dcm2niix had to resample, in words."""
    parts = []
    if "_Tilt" in best.stem:
        tilt = series.files[0].facts.get("tilt_deg")
        angle = f" of {abs(tilt):g} degrees" if tilt else ""
        parts.append(f"a gantry tilt{angle}")
    if "_Eq" in best.stem:
        steps = slice_distances_mm(series)
        parts.append(f"slice distances from {min(steps):g} to {max(steps):g} mm")
    return f"dcm2niix resampled the slices to correct {' and '.join(parts)}"


def _proof(series: Series, paths: Sequence[Path]) -> str:
    """Compare the digests of all stored frames with those of the slices of all images made."""
    due = sorted(digest for file in series.files for digest in file.pixel_sha256)
    orientation = series.files[0].facts.get("orientation")
    if orientation is None or any(not file.pixel_sha256 for file in series.files):
        return "not_comparable"
    frames: list[NDArray[Any]] = []
    for path in paths:
        image: Any = nib.load(path)
        stored = np.asanyarray(image.dataobj.get_unscaled())
        turned = nib.orientations.apply_orientation(stored, _to_dicom(image.affine, orientation))
        slices = turned.reshape(*turned.shape[:2], -1)
        frames += [slices[..., k].T for k in range(slices.shape[2])]
    if len(frames) != len(due):
        return "not_comparable"
    if all(frame.dtype.kind in "iu" for frame in frames):
        return "unchanged" if sorted(map(frame_sha256, frames)) == due else "changed"
    return _scaled_proof(series, frames)


def _scaled_proof(series: Series, frames: Sequence[NDArray[Any]]) -> str:
    """Compare scaled values, where each frame has a slope of its own and floats are stored."""
    wanted = [frame for file in series.files for frame in scaled_frames(file.path)]
    if len(wanted) != len(frames):
        return "not_comparable"

    def place(frame: NDArray[Any]) -> tuple[float, float]:
        return float(np.mean(frame, dtype=np.float64)), float(np.std(frame, dtype=np.float64))

    pairs = zip(sorted(wanted, key=place), sorted(frames, key=place), strict=True)
    same = all(
        one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-5)
        for one, other in pairs
    )
    return "unchanged" if same else "changed"


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
    moment = series.files[0].facts.get("acquired_at")
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
    times = frame_times_s(series)
    image: Any = nib.load(path)
    if times is not None and len(image.shape) == 4 and image.shape[3] == len(times):
        content["frame_times_s"] = times
    file.write_text(json.dumps(content), encoding="utf-8")
    return notes


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
    """What a person should know about the series that was used."""
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
    damaged = [file for file in listing.left_out if _is_damaged(file)]
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


def _is_damaged(file: DicomFile) -> bool:
    return (file.reason or "").startswith(("damaged", "truncated", "empty"))


def described(listing: Listing, converted: Mapping[str, Converted]) -> dict[str, Any]:
    """The listing for a record: series, files left out by reason, identifying tags.

    Parameters
    ----------
    listing
        Content of a folder.
    converted
        Series UID -> conversion, for those that were converted.

    Returns
    -------
    dict
        ``series`` (number, description, modality, kind, images, lossy, conversion), ``left_out``
        (reason, count, names of the first), ``identifying_tags`` (tag -> files).

    Examples
    --------
    >>> described(Listing((), (), {}), {})
    {'series': [], 'left_out': [], 'identifying_tags': {}}
    """
    series = []
    for one in listing.series:
        entry: dict[str, Any] = {
            "number": one.number,
            "description": one.description,
            "modality": one.modality,
            "kind": one.kind,
            "images": _images(one),
            "lossy": one.lossy,
            "conversion": None,
        }
        made = converted.get(one.uid)
        if made is not None:
            entry["conversion"] = {
                "pixels": made.proof,
                "command": made.command,
                "dcm2niix": made.version,
            }
        series.append(entry)
    reasons: dict[str, list[str]] = {}
    for file in listing.left_out:
        reasons.setdefault(file.reason or "", []).append(file.name)
    left_out = [
        {"reason": reason, "count": len(names), "files": names[:_NAMED]}
        for reason, names in sorted(reasons.items())
    ]
    return {
        "series": series,
        "left_out": left_out,
        "identifying_tags": dict(listing.identifying),
    }


def _folder_sha256(folder: Path) -> str:
    """One digest of all files of a folder, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with open(path, "rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
