"""What a DICOM folder holds: its series, what each is good for, and what had to stay out and why.

Every file is read to its end. A file that is no image of a patient's head (scout, secondary
capture, derived picture, report), is damaged, or occurs twice, is listed with the reason and
the rest goes on. Values of identifying tags are never repeated, only their presence.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.provenance.products import file_sha256

#: Tags that can tell who a patient is; the config key ``dicom.identifying_tags`` replaces them.
IDENTIFYING_TAGS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "OtherPatientIDs",
    "OtherPatientNames",
    "IssuerOfPatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "PhysiciansOfRecord",
    "OperatorsName",
    "RequestingPhysician",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "DeviceSerialNumber",
    "StudyDate",
    "PatientComments",
    "AdditionalPatientHistory",
)
#: Transfer syntaxes that can lose detail (JPEG baseline and extended, JPEG-LS near-lossless,
#: JPEG 2000, JPEG XL and HTJ2K in their general forms).
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.4.203",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LOCALIZER = re.compile(r"scout|localiz|localis|topogram|surview|survey|pilot|3.?plane", re.I)
_MAPS = {
    "adc": re.compile(r"\badc\b|apparent.?diffusion|_adc", re.I),
    "dwi": re.compile(r"\btracew?\b|_trace", re.I),
    "cbf": re.compile(r"\br?cbf\b", re.I),
    "cbv": re.compile(r"\br?cbv\b", re.I),
    "mtt": re.compile(r"\bmtt\b", re.I),
    "tmax": re.compile(r"\btmax\b", re.I),
    "ttp": re.compile(r"\bttp\b", re.I),
}
_CONTRAST = re.compile(r"contrast|\bgd\b|\+c\b|\bpost|\bce\b|\bkm\b", re.I)
_ELSEWHERE = re.compile(
    r"chest|thorax|abdom|pelvi|spine|cardi|heart|liver|knee|extrem|smartscore", re.I
)
#: Frames at one place from which a CT or MR series counts as dynamic.
_DYNAMIC_FRAMES = 10


@dataclass(frozen=True)
class DicomFile:
    """What is known of one file.

    Attributes
    ----------
    name
        Path relative to the folder.
    reason
        Why it cannot be used; None if it can.
    facts
        Header values that kind and geometry hang on.
    pixel_sha256
        One digest per frame of the stored values; empty where no decoder was at hand.
    identifying
        Names of identifying tags that are filled.
    lossy
        Whether its compression can have changed values.
    """

    name: str
    path: Path
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    pixel_sha256: tuple[str, ...] = ()
    identifying: tuple[str, ...] = ()
    lossy: bool = False


@dataclass(frozen=True)
class Series:
    """Usable files of one series, sorted by place and time, and the kind that they show.

    The fact ``time_s`` of a file counts from the first image of its series.
    """

    uid: str
    number: int
    description: str
    modality: str
    kind: str | None
    files: tuple[DicomFile, ...]

    @property
    def lossy(self) -> bool:
        """Whether any file was compressed with loss."""
        return any(file.lossy for file in self.files)

    @property
    def first(self) -> DicomFile:
        """The file that was acquired first."""
        return min(self.files, key=lambda file: file.facts.get("time_s") or 0.0)


@dataclass(frozen=True)
class Listing:
    """All series and all files left out of one folder."""

    series: tuple[Series, ...]
    left_out: tuple[DicomFile, ...]
    identifying: Mapping[str, int]


def list_series(folder: Path, *, identifying_tags: Sequence[str] = IDENTIFYING_TAGS) -> Listing:
    """Read every file of a folder and sort the usable ones into series.

    Parameters
    ----------
    folder
        Folder with DICOM files at any depth, under any names.
    identifying_tags
        Keywords of the tags to look for.

    Returns
    -------
    Listing
        Series by number; files left out by name, each with its reason; how many files have each
        identifying tag filled.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = Path(name, "notes.txt").write_text("no scan")
    ...     [(file.name, file.reason) for file in list_series(Path(name)).left_out]
    [('notes.txt', 'no DICOM file')]
    """
    files = [
        read_file(path, folder, identifying_tags)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    files = _without_duplicates(files)
    counts: dict[str, int] = {}
    for file in files:
        for tag in file.identifying:
            counts[tag] = counts.get(tag, 0) + 1
    groups: dict[str, list[DicomFile]] = {}
    for file in files:
        if file.reason is None:
            groups.setdefault(str(file.facts["series_uid"]), []).append(file)
    series = [_series(uid, members) for uid, members in groups.items()]
    return Listing(
        tuple(sorted(series, key=lambda one: (one.number, one.uid))),
        tuple(file for file in files if file.reason is not None),
        dict(sorted(counts.items())),
    )


# --- one file ----------------------------------------------------------------------------------


def read_file(path: Path, folder: Path, identifying_tags: Sequence[str]) -> DicomFile:
    """Read one file to its end; a fault becomes its ``reason``.

    Parameters
    ----------
    path, folder
        The file, and the folder that names are relative to.
    identifying_tags
        Keywords of tags to look for.

    Returns
    -------
    DicomFile

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     file = Path(name, "a.dcm"); _ = file.write_bytes(b"")
    ...     read_file(file, Path(name), IDENTIFYING_TAGS).reason
    'empty file'
    """
    bare = DicomFile(path.relative_to(folder).as_posix(), path)
    if path.stat().st_size == 0:
        return replace(bare, reason="empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dataset_of(path)
            if dataset is None:
                return replace(bare, reason="no DICOM file")
            found = replace(
                bare,
                facts=_facts(dataset),
                identifying=tuple(
                    tag for tag in identifying_tags if str(dataset.get(tag) or "").strip()
                ),
                lossy=_is_lossy(dataset),
            )
            reason = _unusable(dataset)
            if reason is not None:
                return replace(found, reason=reason)
            return replace(found, pixel_sha256=_pixel_digests(dataset))
        # pydicom meets damage with nearly every built-in exception; whichever it is, this one
        # file is named and the others go on.
        except Exception as error:
            return replace(bare, reason=f"damaged: {type(error).__name__}: {error}"[:200])


def dataset_of(path: Path) -> Any:
    """The data set, also of files without the 128-byte preamble; None for other files."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(path)
    except InvalidDicomError:
        pass
    with open(path, "rb") as handle:
        group = handle.read(2)
    if group not in (b"\x08\x00", b"\x02\x00", b"\x00\x08"):
        return None
    dataset = pydicom.dcmread(path, force=True)
    return dataset if "SOPClassUID" in dataset else None


def _unusable(dataset: Any) -> str | None:
    """Why a readable file is no image to analyse; None if it is one."""
    modality = str(dataset.get("Modality") or "")
    sop_class = str(dataset.get("SOPClassUID") or "")
    if "DirectoryRecordSequence" in dataset or not sop_class:
        return "no image (directory or bare header)"
    if "PixelData" not in dataset or "Rows" not in dataset:
        return f"no image ({modality or 'unknown modality'})"
    if sop_class.startswith(_SECONDARY_CAPTURE):
        return "secondary capture (a picture, not the measured values)"
    if modality not in ("CT", "MR"):
        return f"modality {modality or 'unknown'}, neither CT nor MR"
    incomplete = _incomplete(dataset)
    if incomplete is not None:
        return incomplete
    image_type = [str(part).upper() for part in _many(dataset.get("ImageType"))]
    text = f"{dataset.get('SeriesDescription') or ''} {' '.join(image_type)}"
    if "LOCALIZER" in image_type or _LOCALIZER.search(text):
        return "localizer (scout)"
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return "colour picture"
    if "MOSAIC" in image_type and not _mosaic_slices(dataset):
        return "mosaic that does not say how many slices it holds (0019,100A): export it unpacked"
    if "P" in image_type[2:] or "PHASE" in image_type or "PHASE MAP" in image_type:
        return "phase image"
    if image_type[:1] == ["DERIVED"] and _map_kind(text) is None:
        return f"derived ({' '.join(image_type[1:]).lower()})"
    return None


def _incomplete(dataset: Any) -> str | None:
    """Says so when there are fewer pixels than the header declares."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return None
    frames = int(dataset.get("NumberOfFrames") or 1)
    due = int(dataset.Rows) * int(dataset.Columns) * frames * int(dataset.BitsAllocated) // 8
    there = len(dataset.PixelData)
    return f"truncated: {there} of {due} bytes of pixels" if there < due else None


def _is_lossy(dataset: Any) -> bool:
    syntax = str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", ""))
    return syntax in LOSSY_SYNTAXES or str(dataset.get("LossyImageCompression") or "") == "01"


def _pixel_digests(dataset: Any) -> tuple[str, ...]:
    """SHA-256 of each frame's stored values, as 32-bit integers."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed and not _decodable(dataset):
        return ()
    return tuple(frame_sha256(frame) for frame in frames_of(dataset))


def frames_of(dataset: Any) -> list[NDArray[Any]]:
    """Slices of a file as (rows, columns) each; those of a Siemens mosaic are cut apart."""
    pixels = np.asarray(dataset.pixel_array)
    count = _mosaic_slices(dataset)
    if not count:
        return list(pixels if pixels.ndim == 3 else pixels[np.newaxis])
    # The tiles fill a square row by row; the last ones may be empty.
    side = math.ceil(math.sqrt(count))
    tiles = [tile for row in np.vsplit(pixels, side) for tile in np.hsplit(row, side)]
    return tiles[:count]


def _mosaic_slices(dataset: Any) -> int:
    """Number of slices in a Siemens mosaic; 0 for other images, and where it is not stated."""
    if "MOSAIC" not in [str(part).upper() for part in _many(dataset.get("ImageType"))]:
        return 0
    try:
        block = dataset.private_block(0x0019, "SIEMENS MR HEADER")
        count = int(block[0x0A].value)
    except (KeyError, TypeError, ValueError):
        return 0
    side = math.ceil(math.sqrt(max(count, 0)))
    fits = count > 0 and dataset.Rows % side == 0 and dataset.Columns % side == 0
    return count if fits else 0


def _decodable(dataset: Any) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return bool(get_decoder(dataset.file_meta.TransferSyntaxUID).is_available)
    except NotImplementedError:
        return False


def frame_sha256(frame: NDArray[Any]) -> str:
    """Digest of one frame of stored values (rows, columns), independent of their integer type.

    Examples
    --------
    >>> one = np.array([[1, 2], [3, 4]])
    >>> frame_sha256(one.astype(np.uint16)) == frame_sha256(one.astype(np.int32))
    True
    """
    return hashlib.sha256(np.ascontiguousarray(frame, dtype=np.int32).tobytes()).hexdigest()


def _facts(dataset: Any) -> dict[str, Any]:
    """Header values that the rest of this module asks for, enhanced files included."""
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    frame = _first(dataset.get("PerFrameFunctionalGroupsSequence"))
    place = _first(frame.get("PlanePositionSequence")) or dataset
    plane = (
        _first(shared.get("PlaneOrientationSequence"))
        or _first(frame.get("PlaneOrientationSequence"))
        or dataset
    )
    timing = _first(shared.get("MRTimingAndRelatedParametersSequence")) or dataset
    echo = _first(frame.get("MREchoSequence")) or _first(shared.get("MREchoSequence"))
    return {
        "series_uid": dataset.get("SeriesInstanceUID") or "none",
        "sop_uid": str(dataset.get("SOPInstanceUID") or ""),
        "number": int(dataset.get("SeriesNumber") or 0),
        "description": str(dataset.get("SeriesDescription") or dataset.get("ProtocolName") or ""),
        "modality": str(dataset.get("Modality") or ""),
        "image_type": [str(part).upper() for part in _many(dataset.get("ImageType"))],
        "orientation": _numbers(plane.get("ImageOrientationPatient"), 6),
        "position": _along_normal(
            _numbers(place.get("ImagePositionPatient"), 3),
            _numbers(plane.get("ImageOrientationPatient"), 6),
        ),
        "acquired_at": _moment(dataset),
        "time_s": _clock_s(dataset),
        "trigger_s": None
        if (trigger := _float(dataset.get("TriggerTime"))) is None
        else trigger / 1000,
        "instance": _whole(dataset.get("InstanceNumber")),
        "acquisition": _whole(dataset.get("AcquisitionNumber")),
        "temporal": _whole(dataset.get("TemporalPositionIdentifier")),
        "echo_time_ms": _float(dataset.get("EchoTime") or echo.get("EffectiveEchoTime")),
        "repetition_time_ms": _float(timing.get("RepetitionTime")),
        "inversion_time_ms": _float(dataset.get("InversionTime")),
        "sequence": " ".join(str(part) for part in _many(dataset.get("ScanningSequence"))),
        "b_value": _float(dataset.get("DiffusionBValue")),
        "body_part": str(dataset.get("BodyPartExamined") or ""),
        "contrast": str(dataset.get("ContrastBolusAgent") or "").strip(),
        "tilt_deg": _float(dataset.get("GantryDetectorTilt")),
        "frames": int(dataset.get("NumberOfFrames") or 1),
        "per_frame": _frame_facts(dataset, shared),
        "scales": tuple(_scales(dataset)),
        "patient": _patient(dataset),
        "sidecar": _sidecar_fields(dataset, timing, echo),
    }


def _frame_facts(dataset: Any, shared: Any) -> tuple[dict[str, Any], ...]:
    """Place and time of every frame of an enhanced file; empty where a frame has no place."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    found = []
    for number, group in enumerate(groups):
        place = _first(group.get("PlanePositionSequence"))
        plane = _first(shared.get("PlaneOrientationSequence")) or _first(
            group.get("PlaneOrientationSequence")
        )
        content = _first(group.get("FrameContentSequence"))
        orientation = _numbers(plane.get("ImageOrientationPatient"), 6)
        position = _along_normal(_numbers(place.get("ImagePositionPatient"), 3), orientation)
        if position is None:
            return ()
        moment = content.get("FrameAcquisitionDateTime") or content.get("FrameReferenceDateTime")
        trigger = _float(
            _first(group.get("CardiacSynchronizationSequence")).get(
                "NominalCardiacTriggerDelayTime"
            )
        )
        found.append(
            {
                "orientation": orientation,
                "position": position,
                "time_s": _clock_s({"AcquisitionDateTime": moment}),
                "trigger_s": None if trigger is None else trigger / 1000,
                "temporal": _whole(content.get("TemporalPositionIndex")),
                "instance": number + 1,
                "frames": 1,
            }
        )
    return tuple(found) if len({str(one["orientation"]) for one in found}) == 1 else ()


def single_frames(files: Iterable[DicomFile]) -> list[DicomFile]:
    """Files with each enhanced one as its frames, which have their own place, time and digest.

    Parameters
    ----------
    files
        Usable files; one whose frames have no places stays as it is.

    Returns
    -------
    list of DicomFile
        A frame has the fact ``frame``, its number in the file from 0.

    Examples
    --------
    >>> facts = {"frames": 2, "per_frame": ({"position": 0.0}, {"position": 5.0})}
    >>> file = DicomFile("a", Path("a"), facts=facts, pixel_sha256=("x", "y"))
    >>> [(one.facts["position"], one.pixel_sha256) for one in single_frames([file])]
    [(0.0, ('x',)), (5.0, ('y',))]
    """
    found = []
    for file in files:
        own = file.facts.get("per_frame") or ()
        if len(own) < 2:
            found.append(file)
            continue
        for number, facts in enumerate(own):
            digest = file.pixel_sha256[number : number + 1]
            more = {"frame": number, "per_frame": ()}
            found.append(replace(file, facts={**file.facts, **facts, **more}, pixel_sha256=digest))
    return found


def _sidecar_fields(dataset: Any, timing: Any, echo: Any) -> dict[str, Any]:
    """Header values under their names in a BIDS sidecar (times in seconds), where they are given.

    For a series whose sidecar by dcm2niix lacks them or is no valid JSON.
    """
    times = {
        "EchoTime": dataset.get("EchoTime") or echo.get("EffectiveEchoTime"),
        "RepetitionTime": timing.get("RepetitionTime"),
        "InversionTime": dataset.get("InversionTime"),
    }
    numbers = {
        "FlipAngle": timing.get("FlipAngle") or dataset.get("FlipAngle"),
        "MagneticFieldStrength": dataset.get("MagneticFieldStrength"),
        "SliceThickness": dataset.get("SliceThickness"),
        "KVP": dataset.get("KVP"),
        "DiffusionBValue": dataset.get("DiffusionBValue"),
    }
    words = {
        "Manufacturer": dataset.get("Manufacturer"),
        "ManufacturersModelName": dataset.get("ManufacturerModelName"),
        "SequenceName": dataset.get("SequenceName"),
        "ConvolutionKernel": dataset.get("ConvolutionKernel"),
        "SoftwareVersions": dataset.get("SoftwareVersions"),
    }
    found: dict[str, Any] = {
        name: None if (value := _float(given)) is None else value / 1000.0
        for name, given in times.items()
    }
    found |= {name: _float(given) for name, given in numbers.items()}
    # Several values of one tag are set apart by a backslash, as in the file.
    found |= {name: "\\".join(map(str, _many(given))).strip() for name, given in words.items()}
    return {
        name: value
        for name, value in found.items()
        if value not in (None, "") and (isinstance(value, str) or math.isfinite(value))
    }


def _patient(dataset: Any) -> str | None:
    """Digest that tells patients apart without saying who they are."""
    text = f"{dataset.get('PatientID') or ''}|{dataset.get('PatientName') or ''}"
    return None if text == "|" else hashlib.sha256(text.encode()).hexdigest()[:12]


def scaled_frames(path: Path) -> list[NDArray[np.float32]]:
    """Frames of a file in the unit that its rescale slopes and intercepts give.

    Parameters
    ----------
    path
        A readable file; enhanced files may have a slope for each frame.

    Returns
    -------
    list of numpy.ndarray
        (rows, columns) each, float32.
    """
    dataset = dataset_of(path)
    frames, scales = frames_of(dataset), _scales(dataset)
    # One rule holds for all tiles of a mosaic.
    scales = scales if len(scales) == len(frames) else scales[:1] * len(frames)
    return [
        np.asarray(np.float32(slope) * frame + np.float32(intercept), np.float32)
        for frame, (slope, intercept) in zip(frames, scales, strict=True)
    ]


def _scales(dataset: Any) -> list[tuple[float, float]]:
    """Public rescale slope and intercept of each frame; (1, 0) where the header has none."""
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    found = []
    for group in dataset.get("PerFrameFunctionalGroupsSequence") or [{}]:
        rule = (
            _first(group.get("PixelValueTransformationSequence"))
            or _first(shared.get("PixelValueTransformationSequence"))
            or dataset
        )
        slope, intercept = _float(rule.get("RescaleSlope")), _float(rule.get("RescaleIntercept"))
        found.append((1.0 if slope is None else slope, intercept or 0.0))
    return found


def _first(sequence: Any) -> Any:
    """First item of a sequence; an empty mapping where there is none."""
    return sequence[0] if sequence else {}


def _many(value: Any) -> list[Any]:
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value) if isinstance(value, Iterable) else [value]


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    number = _float(value)
    return int(number) if number is not None and math.isfinite(number) else None


def _numbers(values: Any, count: int) -> list[float] | None:
    """That many numbers, None where the header has others."""
    numbers = [_float(value) for value in _many(values)]
    found = [number for number in numbers if number is not None]
    return found if len(found) == count else None


def _along_normal(position: list[float] | None, orientation: list[float] | None) -> float | None:
    """Place of a slice along its own normal, in mm."""
    if position is None or orientation is None:
        return None
    row, column = np.asarray(orientation).reshape(2, 3)
    return round(float(np.dot(np.cross(row, column), np.asarray(position))), 3)


def _seconds(text: Any) -> float | None:
    """Seconds since midnight of a DICOM time (HHMMSS.ffffff)."""
    match = re.match(r"^(\d{2})(\d{2})(\d{2}(?:\.\d+)?)", str(text or "").replace(":", ""))
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _clock_s(dataset: Any) -> float | None:
    """Acquisition time in seconds, on a clock that goes on over midnight where there is a date."""
    stamp = str(dataset.get("AcquisitionDateTime") or "")
    if dataset.get("AcquisitionTime"):
        date = dataset.get("AcquisitionDate") or stamp or dataset.get("SeriesDate")
        time = dataset.get("AcquisitionTime")
    elif stamp:
        date, time = stamp, stamp[8:]
    else:
        date, time = dataset.get("ContentDate"), dataset.get("ContentTime")
    seconds = _seconds(time)
    if seconds is None:
        return None
    try:
        day = datetime.datetime.strptime(str(date or "")[:8], "%Y%m%d").toordinal()
    except ValueError:
        day = 0
    return 86400.0 * day + seconds


def _since_first(clocks: Sequence[float | None]) -> list[float | None]:
    """Times from the first image of a series; a clock without its date starts anew at midnight.

    Examples
    --------
    >>> _since_first([86398.0, 0.0, 2.0, None])
    [0.0, 2.0, 4.0, None]
    """
    known = np.unique([clock for clock in clocks if clock is not None])
    if not known.size:
        return list(clocks)
    start, pauses = known[0], np.diff(known)
    if pauses.size and pauses.max() > 43200 and known[-1] - known[0] < 86400:
        start = known[pauses.argmax() + 1]
    return [
        None if clock is None else round(float(clock - start + 86400 * (clock < start)), 6)
        for clock in clocks
    ]


def _moment(dataset: Any) -> str | None:
    """Date and time of the acquisition as ISO 8601 text."""
    stamp = str(dataset.get("AcquisitionDateTime") or "")
    if not stamp:
        date = (
            dataset.get("AcquisitionDate") or dataset.get("SeriesDate") or dataset.get("StudyDate")
        )
        stamp = f"{date or ''}{dataset.get('AcquisitionTime') or dataset.get('SeriesTime') or ''}"
    match = re.match(r"^(\d{4})(\d{2})(\d{2})(\d{2})?(\d{2})?(\d{2})?", stamp)
    if match is None:
        return None
    clock = ":".join(part or "00" for part in match.groups()[3:])
    moment = f"{match[1]}-{match[2]}-{match[3]}T{clock}"
    try:
        datetime.datetime.fromisoformat(moment)
    except ValueError:  # as 00000000, which some anonymisers write
        return None
    return moment


def _without_duplicates(files: Iterable[DicomFile]) -> list[DicomFile]:
    """Mark files that hold an image which was already seen under another name.

    The same id is not enough: some anonymisers give one to several images.
    """
    seen: dict[tuple[Any, ...], str] = {}
    out = []
    for file in files:
        facts = file.facts
        if file.reason is None and facts.get("sop_uid"):
            content = file.pixel_sha256 or file_sha256(file.path)
            image = (facts["sop_uid"], content, facts["position"], facts["time_s"])
            if image in seen:
                file = replace(file, reason=f"the same image as {seen[image]}")
            else:
                seen[image] = file.name
        out.append(file)
    return out


# --- one series --------------------------------------------------------------------------------


def _series(uid: str, files: list[DicomFile]) -> Series:
    """Sort by place, then time, and name the kind."""
    own = [one for file in files for one in (file.facts, *file.facts.get("per_frame", ()))]
    times = iter(_since_first([one["time_s"] for one in own]))
    files = [
        replace(
            file,
            facts={
                **file.facts,
                "time_s": next(times),
                "per_frame": tuple(
                    {**one, "time_s": next(times)} for one in file.facts.get("per_frame", ())
                ),
            },
        )
        for file in files
    ]
    ordered = sorted(
        files,
        key=lambda file: (file.facts["position"] or 0.0, file.facts["time_s"] or 0.0, file.name),
    )
    first = ordered[0].facts
    return Series(
        uid=uid,
        number=first["number"],
        description=first["description"],
        modality=first["modality"],
        kind=guess_kind(ordered),
        files=tuple(ordered),
    )


def guess_kind(files: Sequence[DicomFile]) -> str | None:
    """Kind of scan that a series shows, by its header alone.

    Returns
    -------
    str or None
        A kind of the scans sheet; None where the header does not say enough, or says something
        that no analysis here uses (a CT angiogram, a field map, a functional run).

    Examples
    --------
    >>> facts = {"description": "t2_tirm_tra_dark-fluid", "image_type": ["ORIGINAL"], "modality":
    ...          "MR", "position": 0.0, "frames": 1}
    >>> guess_kind([DicomFile("a", Path("a"), facts=facts)])
    'FLAIR'
    """
    first = files[0].facts
    text = f"{first['description']} {' '.join(first['image_type'])}"
    if _ELSEWHERE.search(f"{first.get('body_part') or ''} {first['description']}"):
        return None
    mapped = _map_kind(text)
    if mapped is not None:
        return mapped
    contrast = bool(first.get("contrast")) or bool(_CONTRAST.search(first["description"]))
    dynamic = frames_per_place(files) >= _DYNAMIC_FRAMES
    if first["modality"] == "CT":
        if dynamic:
            return "ctp"
        angiogram = re.search(r"angio|\bcta\b", text, re.I)
        return None if contrast or angiogram else "ncct"
    return _mr_kind(first, text, contrast=contrast, dynamic=dynamic, files=files)


def _mr_kind(
    first: Mapping[str, Any],
    text: str,
    *,
    contrast: bool,
    dynamic: bool,
    files: Sequence[DicomFile],
) -> str | None:
    """Kind of an MR series from its words, else from its timing."""
    if any((file.facts.get("b_value") or 0) > 0 for file in files) or re.search(
        r"\bdwi\b|diff|\bb1000\b", text, re.I
    ):
        return "dwi"
    if dynamic:
        return "dsc" if contrast or re.search(r"perf|\bpwi\b|\bdsc\b", text, re.I) else None
    # Word boundaries count underscores as letters; series names are full of them.
    words = re.sub(r"[_\W]+", " ", text).lower()
    if re.search(r"field ?map|\bb0\b|\btof\b|angio|\bbold\b|\brest(ing)?\b", words):
        return None
    if re.search(r"flair|tirm|dark fluid", words):
        return "FLAIR"
    if re.search(r"\bt2 ?star\b|\bt2\*|\bswi\b|\bhemo\b|\bgre\b", words) or "t2*" in text.lower():
        return "gre"
    if re.search(r"\bt1|mprage|spgr|bravo|\btfe\b", words):
        return "T1c" if contrast else "T1w"
    if re.search(r"\bt2", words):
        return "T2w"
    echo, repetition = first.get("echo_time_ms"), first.get("repetition_time_ms")
    inversion = first.get("inversion_time_ms") or 0.0
    if echo is None or repetition is None or "EP" in str(first.get("sequence")):
        return None
    if 1500 <= inversion <= 3000 and echo > 70:
        return "FLAIR"
    if echo > 70 and repetition > 2000:
        return "T2w"
    if echo < 30 and repetition < 1000:
        return "T1c" if contrast else "T1w"
    return None


def _map_kind(text: str) -> str | None:
    """Kind of a derived map that an analysis uses."""
    spaced = re.sub(r"_+", " ", text)
    return next((kind for kind, words in _MAPS.items() if words.search(spaced)), None)


def frames_per_place(files: Sequence[DicomFile]) -> int:
    """Most images at one slice place; files whose frames have no places count once.

    Examples
    --------
    >>> same = DicomFile("a", Path("a"), facts={"position": 1.0, "frames": 1})
    >>> frames_per_place([same, same, same])
    3
    """
    counts: dict[Any, int] = {}
    for file in single_frames(files):
        place = file.facts.get("position")
        counts[place] = counts.get(place, 0) + 1
    return max(counts.values())


def slice_distances_mm(series: Series) -> list[float]:
    """Distances between neighbouring slice places, in mm, along the normal.

    Examples
    --------
    >>> files = tuple(DicomFile("a", Path("a"), facts={"position": z, "frames": 1})
    ...               for z in (0.0, 4.0, 11.0))
    >>> slice_distances_mm(Series("1", 1, "", "CT", "ncct", files))
    [4.0, 7.0]
    """
    places = sorted({file.facts["position"] for file in single_frames(series.files)} - {None})
    return [round(float(step), 3) for step in np.diff(places)]
