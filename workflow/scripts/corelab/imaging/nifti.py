"""One file in, one trustworthy image out: decoding, geometry, orientation, units.

Everything that is known to go wrong with NIfTI files of trials is either fixed and reported in a
note, or refused with an :class:`ImageFault` in words. What ITK would read without a word
(truncated gzip, a qform that contradicts the sform) is settled here, and
:func:`save_image` writes files on which all readers agree.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab import __version__
from corelab.imaging import values
from corelab.imaging.faults import ImageFault
from corelab.imaging.frames import last_axis_fault, without_gaps
from corelab.imaging.geometry import (
    SAME_PLACE_MM,
    affine_distance_mm,
    in_memory,
    orthonormal_affine,
    voxel_sizes_mm,
)
from corelab.provenance.products import atomic_path, file_sha256, plain, write_json

#: Files that declare more voxels than this are refused before anything is allocated
#: (as float32 they would take 4 GiB).
MAX_VOXELS = 2**30
#: Bytes that may follow the declared voxels (padding, extensions) before a file counts as a bomb.
MAX_TRAILING_BYTES = 2**20
#: Cosine between two array axes above which a grid counts as sheared (0.06 degrees).
SHEAR_COSINE = 1e-3
#: Distance between qform and sform from which a person has to decide.
CONTRADICTION_MM = 20.0
#: Centre of the grid further from the world's origin than this is reported.
FAR_ORIGIN_MM = 500.0
#: A qform is written where it says the affine to within this; else the sform stands alone.
EXACT_QFORM_MM = 0.01
#: Level 4 takes twice the time, and noise makes its files no smaller (measured: 0 to 4 %).
_COMPRESSION = 1
#: Byte of a NIfTI-1 file at which the voxels begin: header and the mark of no extension.
_VOXELS_FROM = 352
#: Share of voxels and frames of a series that may have no value and be interpolated in time.
MOST_FILLED = 0.05
_REEXPORT = "export the scan again from its DICOM files, or take it out of the sheet"


@dataclass(frozen=True)
class Conformed:
    """A conformed image and what was found on the way.

    Attributes
    ----------
    image
        float32, finite, closest to RAS, 3D or 4D.
    unit
        Unit of the values: ``HU``, ``mm2/s``, ``s``, ``mL/100g/min``, ``mL/100g``, ``label`` or
        ``a.u.``.
    notes
        What was fixed or is unusual, one sentence each.
    frame_interval_s
        From the header of a 4D file, None where the header has none.
    filled_slices
        Of a 4D image: (frame, slice) from 0 that held no value and were interpolated in time.
    warnings
        What a person should decide or look at.
    """

    image: nib.Nifti1Image
    unit: str
    notes: tuple[str, ...]
    frame_interval_s: float | None
    filled_slices: tuple[tuple[int, int], ...] = ()
    warnings: tuple[str, ...] = ()


def load_image(
    path: str | os.PathLike[str], *, ndim: int = 3, kind: str | None = None
) -> nib.Nifti1Image:
    """Load one NIfTI file as a conformed image; see :func:`conform` for what that means.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file.
    ndim
        3, or 4 for a time series.
    kind
        Kind of scan (``dwi``, ``ncct``, ``mask-infarct`` ...); None checks the file alone.

    Returns
    -------
    nibabel.Nifti1Image
        float32, finite, array axes closest to RAS, world in mm.

    Raises
    ------
    ImageFault
        If the file cannot be trusted; it has a ``message`` and a ``remedy``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.nii.gz"); file.touch()
    ...     load_image(file)
    Traceback (most recent call last):
    corelab.imaging.faults.ImageFault: a.nii.gz is empty (0 bytes). Remedy: ...
    """
    return conform(path, ndim=ndim, kind=kind).image


def conform(
    path: str | os.PathLike[str],
    *,
    ndim: int = 3,
    kind: str | None = None,
    reorient: bool = True,
    orientation: str | None = None,
) -> Conformed:
    """Decode a file fully, settle its geometry and units, and report what was done.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file (what it is, is decided by its content).
    ndim
        3, or 4 for a time series (ctp, dsc).
    kind
        Kind of scan; decides unit, plausibility and whether values are labels.
    reorient
        Turn the array axes closest to RAS. False keeps the file's own voxel order (masks that
        are already in template space are used as they are).
    orientation
        ``sform`` or ``qform``: which places an image that has both; None takes the sform and warns
        where they contradict each other.

    Returns
    -------
    Conformed

    Raises
    ------
    ImageFault
        Empty, damaged or truncated file; more than :data:`MAX_VOXELS` voxels; complex or colour
        values; wrong number of dimensions; no orientation, a singular or sheared one; non-finite
        values inside the head; constant image; labels that are not whole numbers; values that
        cannot have the unit of the kind.

    Notes
    -----
    The sform is used where its code is above 0, else the qform, as nibabel does, unless
    ``orientation`` says otherwise; the output carries both, equal, with code 1.
    """
    file = Path(path)
    raw_image = _decode(file)
    notes: list[str] = []
    warnings: list[str] = []
    voxels, frame_interval_s = _squeezed(raw_image, file.name, ndim, notes)
    affine = _settled_affine(
        raw_image.header, file.name, voxels.shape, notes, warnings, orientation
    )
    is_mask = kind is not None and kind.startswith("mask-")
    if kind is not None and not is_mask and ndim == 3 and min(voxels.shape) < 2:
        raise ImageFault(
            f"{file.name} has the shape {voxels.shape}: a single slice is no volume",
            "give the whole stack of slices as one 3D file",
        )
    filled: tuple[tuple[int, int], ...] = ()
    if ndim == 4:
        voxels, affine, filled = _as_series(voxels, affine, file.name, reorient, notes)
    checked, unit = values.checked(voxels, kind, file.name, notes, warnings)
    image = nib.Nifti1Image(checked, affine)
    if reorient:
        image = nib.as_closest_canonical(image)
    if is_mask and not checked.any():
        notes.append("the mask is empty: a volume of 0 mL is its result")
    return Conformed(
        nib.Nifti1Image(_in_c_order(np.asarray(image.dataobj)), image.affine),
        unit,
        tuple(notes),
        frame_interval_s,
        filled,
        warnings=tuple(warnings),
    )


def _as_series(
    voxels: NDArray[Any], affine: NDArray[np.float64], name: str, reorient: bool, notes: list[str]
) -> tuple[NDArray[Any], NDArray[np.float64], tuple[tuple[int, int], ...]]:
    """A 4D series, its axes in order and its gaps filled in time."""
    series = np.asarray(voxels, dtype=np.float32)
    if reorient:
        turned = nib.as_closest_canonical(nib.Nifti1Image(series, affine))
        series, affine = np.asarray(turned.dataobj), np.asarray(turned.affine)
    finite = np.isfinite(series)
    if not finite.any():
        return series, affine, ()
    filled, lost = without_gaps(series)
    fault = last_axis_fault(filled)
    if fault:
        raise ImageFault(f"{name}: {fault}", "export the series with time as the fourth axis")
    if finite.all():
        return series, affine, ()
    share = float((~finite).mean())
    elsewhere = float((~finite & ~lost).mean())
    if elsewhere > MOST_FILLED or lost.mean() > 0.5:
        raise ImageFault(
            f"{name} has no value (NaN or Inf) in {share:.1%} of its voxels and frames: too many "
            "to interpolate",
            "export the series again",
        )
    frames = sorted({int(frame) + 1 for frame in np.flatnonzero(lost.any(axis=0))})
    shown = f"; slices of frame {', '.join(map(str, frames))} held none" if frames else ""
    notes.append(
        f"{share:.2%} of the voxels and frames had no value (NaN or Inf) and were interpolated in "
        f"time{shown}"
    )
    return filled, affine, tuple((int(t), int(z)) for z, t in np.argwhere(lost))


def stored_image(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """A product of this workflow with its voxels in memory, as stored and without checks.

    Unpacked in one piece: nibabel takes twice the time, piece by piece.

    Examples
    --------
    >>> import tempfile
    >>> image = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stored_image(save_image(image, f"{folder}/a.nii.gz", sidecar=None)).shape
    (3, 3, 3)
    """
    content = Path(path).read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return in_memory(nib.Nifti1Image.from_bytes(content))


def load_mask(path: str | os.PathLike[str], *, kind: str) -> nib.Nifti1Image:
    """Load a mask as stored, with the checks of :func:`conform`, for jobs that read thousands.

    What :func:`load_image` adds, float32 and array axes closest to RAS, costs most of its time.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file.
    kind
        ``mask-<label>``.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, 1 where the file is not 0, voxels in the file's own order.

    Raises
    ------
    ImageFault
        As for :func:`conform`.

    Examples
    --------
    >>> import tempfile
    >>> voxels = np.array([[[0, 3]], [[1, 0]]], np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.nii"); nib.save(nib.Nifti1Image(voxels, np.eye(4)), file)
    ...     np.asanyarray(load_mask(file, kind="mask-x").dataobj).ravel().tolist()
    [0, 1, 1, 0]
    """
    file, notes = Path(path), list[str]()
    raw_image = _decode(file)
    voxels, _ = _squeezed(raw_image, file.name, 3, notes)
    affine = _settled_affine(raw_image.header, file.name, voxels.shape, notes, notes)
    if voxels.dtype != np.uint8:
        voxels, _ = values.checked(voxels, kind, file.name, notes, notes)
    return nib.Nifti1Image((voxels != 0).view(np.uint8), affine)


def check_header(
    path: str | os.PathLike[str], *, kind: str, ndim: int = 3, orientation: str | None = None
) -> tuple[str, ...]:
    """Findings from a file's header alone, in the words of :func:`conform`; in milliseconds.

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file, of which the first 544 bytes are read.
    kind
        Kind of scan.
    ndim
        3, or 4 for a time series.
    orientation
        As for :func:`conform`.

    Returns
    -------
    tuple of str
        What is odd and would be settled, one sentence each.

    Raises
    ------
    ImageFault
        If no image can come of it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "a.nii.gz"); _ = file.write_bytes(b"no image at all")
    ...     check_header(file, kind="dwi")
    Traceback (most recent call last):
    corelab.imaging.faults.ImageFault: a.nii.gz is not a NIfTI file (it begins with b'no image')...
    """
    file = Path(path)
    with _opened(file) as (_, _, header):
        _declared_bytes(header, file.name)
    dims = [int(value) for value in header["dim"]]
    notes: list[str] = []
    shape = tuple(dims[1 : dims[0] + 1])
    kept = _due_shape(shape, header.get_data_dtype(), file.name, ndim, notes)
    _settled_affine(header, file.name, tuple(kept), notes, notes, orientation)
    return tuple(notes)


# --- the bytes ---------------------------------------------------------------------------------


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, bytes, Any]]:
    """Unpacked stream of a file, its first bytes (which were read) and the header in them."""
    _present(file)
    with open(file, "rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
        handle.seek(0)
        stream: Any = gzip.GzipFile(fileobj=handle) if packed else handle
        start = _unpacked(stream, 544, file.name)
        yield stream, start, _header(start, file.name)


def _decode(file: Path) -> Any:
    """Read the whole file, never more than its header declares, and let nibabel interpret it."""
    with _opened(file) as (stream, start, header):
        declared = _declared_bytes(header, file.name)
        more = max(declared + MAX_TRAILING_BYTES + 1 - len(start), 0)
        content = start + _unpacked(stream, more, file.name)
    if len(content) < declared:
        raise ImageFault(
            f"{file.name} is truncated: its header declares {declared} bytes, "
            f"{len(content)} are there",
            "copy the file again and compare sizes; some programs would read the missing part "
            "as zeros",
        )
    if len(content) > declared + MAX_TRAILING_BYTES:
        raise ImageFault(
            f"{file.name} unpacks to far more than the {declared} bytes that its header declares",
            "the file is damaged or hostile: " + _REEXPORT,
        )
    family = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    try:
        return family.from_bytes(content)
    except (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError) as error:
        raise ImageFault(f"{file.name} has a damaged header: {error}", _REEXPORT) from None


def _present(file: Path) -> None:
    """Refuse what is no file, or an empty one."""
    if file.is_dir():
        raise ImageFault(
            f"{file.name} is a folder", "name one NIfTI file, or give the kind 'dicom'"
        )
    if not file.exists():
        raise ImageFault(f"{file} is missing", "check the path in the scans sheet")
    if file.stat().st_size == 0:
        raise ImageFault(f"{file.name} is empty (0 bytes)", "copy the file again; " + _REEXPORT)


def _unpacked(stream: Any, count: int, name: str) -> bytes:
    """The next bytes of a stream; damage is a fault."""
    try:
        return bytes(stream.read(count))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageFault(
            f"{name} is truncated or damaged: it cannot be unpacked to its end ({error})",
            "copy the file again and compare sizes; some programs would read the missing "
            "part as zeros",
        ) from None
    except OSError as error:
        raise ImageFault(
            f"{name} cannot be read: {error}", "check the permissions and the disk"
        ) from None


def _header(start: bytes, name: str) -> Any:
    """Header of a single-file NIfTI-1 or -2, or a fault that says what the file is instead."""
    family: Any = None
    for order in ("<", ">"):
        declared = int(np.frombuffer(start[:4], order + "i4")[0]) if len(start) >= 4 else 0
        if declared in (348, 540):
            family = nib.Nifti1Header if declared == 348 else nib.Nifti2Header
    if family is None or len(start) < family.sizeof_hdr:
        raise ImageFault(
            f"{name} is not a NIfTI file (it begins with {start[:8]!r})",
            "convert it to NIfTI (.nii.gz); DICOM folders are given with the kind 'dicom'",
        )
    try:
        header = family.from_fileobj(io.BytesIO(start), check=False)
        header.get_data_dtype()
        magic = bytes(header["magic"])
    except (nib.spatialimages.HeaderDataError, KeyError, ValueError, TypeError) as error:
        what = f"unknown data type {error}" if isinstance(error, KeyError) else str(error)
        raise ImageFault(f"{name} has a damaged header: {what}", _REEXPORT) from None
    if not magic.startswith((b"n+1", b"n+2")):
        raise ImageFault(
            f"{name} is an Analyze file or half of a .hdr/.img pair, which keep no orientation",
            "convert it to a single NIfTI file (.nii.gz) from the original DICOM",
        )
    _check_scaling(header, name)
    return header


def _check_scaling(header: Any, name: str) -> None:
    """Refuse scale factors that no program writes.

    A slope of 0 or NaN says that stored values are the values. An infinite one would be taken for
    that too by nibabel, and make everything infinite in other programs.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    scaled = np.isfinite(slope) and slope != 0.0
    if np.isinf(slope) or np.isinf(intercept) or (scaled and np.isnan(intercept)):
        raise ImageFault(
            f"{name} has impossible scale factors (scl_slope {slope:g}, scl_inter {intercept:g}): "
            "what its stored numbers mean cannot be known",
            _REEXPORT,
        )


def _declared_bytes(header: Any, name: str) -> int:
    """Number of bytes that the header declares; refuses what no scanner makes."""
    dims = [int(value) for value in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(size < 1 for size in dims[1 : dims[0] + 1]):
        raise ImageFault(f"{name} has impossible dimensions {dims}", _REEXPORT)
    shape = dims[1 : dims[0] + 1]
    count = 1
    for size in shape:
        count *= size
    if count > MAX_VOXELS:
        raise ImageFault(
            f"{name} declares the shape {tuple(shape)}: {count} voxels, more than the "
            f"{MAX_VOXELS} that are accepted",
            "check the header; split or resample the scan if it is truly that large",
        )
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or not 0 <= offset <= MAX_TRAILING_BYTES * 64:
        raise ImageFault(f"{name} has the impossible voxel offset {offset}", _REEXPORT)
    return int(offset) + count * header.get_data_dtype().itemsize


# --- the shape ---------------------------------------------------------------------------------


def _squeezed(
    image: Any, name: str, ndim: int, notes: list[str]
) -> tuple[NDArray[Any], float | None]:
    """Voxels with the dimensions that are due, scale factors applied, and the frame interval."""
    stored = image.header.get_data_dtype()
    shape = tuple(int(size) for size in image.shape)
    kept = _due_shape(shape, stored, name, ndim, notes)
    slope = float(image.dataobj.slope)
    if slope not in (0.0, 1.0):
        notes.append(f"stored values were scaled by the header (slope {slope:g})")
    if stored.kind in "iu" and stored.itemsize == 8:
        notes.append("stored as 64-bit integers, which some programs cannot read")
    voxels = np.asanyarray(image.dataobj).reshape(kept, order="F")
    return voxels, _frame_interval_s(image.header) if ndim == 4 else None


def _due_shape(
    shape: tuple[int, ...], stored: np.dtype[Any], name: str, ndim: int, notes: list[str]
) -> list[int]:
    """The dimensions that are due, those of length 1 dropped; a fault where there are others."""
    if stored.fields is not None or np.issubdtype(stored, np.complexfloating):
        what = "colours (RGB)" if stored.fields is not None else "complex numbers"
        raise ImageFault(
            f"{name} holds {what}, not one value per voxel",
            "give the magnitude image or the original series, not a colour or derived picture",
        )
    kept = list(shape)
    while len(kept) > ndim and kept[-1] == 1:
        kept.pop()
    if len(kept) == 5 and ndim == 4 and kept[3] == 1:
        kept.pop(3)
    if len(kept) < ndim:
        due = "a 4D time series" if ndim == 4 else "a 3D volume"
        remedy = (
            "give the whole series, with all frames in one file"
            if ndim == 4
            else "give the whole stack of slices as one 3D file"
        )
        raise ImageFault(f"{name} has the shape {shape} where {due} is due", remedy)
    if len(kept) > ndim:
        raise ImageFault(
            f"{name} has the shape {shape}, {len(kept)}D, where a {ndim}D image is due",
            "extract the one volume that is meant (of a diffusion series: the b = 0 image as "
            "'b0' and the trace image as 'dwi')",
        )
    if ndim == 4 and kept[3] < 2:
        raise ImageFault(
            f"{name} has {kept[3]} frame where a time series is due",
            "give the whole series, with all frames in one file",
        )
    if len(shape) != ndim:
        notes.append(f"shape {shape} was read as {tuple(kept)} (dimensions of length 1 dropped)")
    return kept


def _frame_interval_s(header: Any) -> float | None:
    """``pixdim[4]`` in seconds; None where it is not a time that a scanner can have."""
    interval = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if unit == "unknown" and interval == 1.0:  # what writers put there who know nothing
        return None
    factor = {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    interval *= factor
    if unit == "unknown" and interval >= 100:  # milliseconds without a unit are common
        interval /= 1000.0
    return interval if np.isfinite(interval) and 0.01 <= interval <= 60 else None


# --- the place ---------------------------------------------------------------------------------


def _settled_affine(
    header: Any,
    name: str,
    shape: tuple[int, ...],
    notes: list[str],
    warnings: list[str],
    orientation: str | None = None,
) -> NDArray[np.float64]:
    """The one affine that is used from here on."""
    qform = _qform(header)
    has_q, has_s = int(header["qform_code"]) > 0, int(header["sform_code"]) > 0
    if not has_q and not has_s:
        raise ImageFault(
            f"{name} has no orientation (qform and sform codes are both 0): left and right, "
            "and where the scan lies, cannot be known",
            "convert it again from DICOM with dcm2niix; never set a code by guessing",
        )
    if has_s:
        affine = np.asarray(header.get_sform(), float)
        if has_q and qform is not None and np.isfinite(affine).all():
            _tell_forms(affine, qform, name, shape, notes, warnings, orientation)
            affine = qform if orientation == "qform" else affine
    elif qform is None:
        raise ImageFault(f"{name} has a qform that is no rotation", _REEXPORT)
    else:
        affine = qform
    affine = _in_mm(affine, header, notes)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ImageFault(
            f"{name} has an orientation matrix without an inverse or with non-finite numbers",
            _REEXPORT,
        )
    sizes = voxel_sizes_mm(affine)
    if sizes.min() < 0.01 or sizes.max() > 100:
        raise ImageFault(
            f"{name} has voxels of {_numbers(sizes)} mm, which no scanner makes",
            "correct the header (units are mm); " + _REEXPORT,
        )
    cosines = affine[:3, :3] / sizes
    shear = float(np.abs(np.triu(cosines.T @ cosines, 1)).max())
    if shear > SHEAR_COSINE:
        angle = abs(90 - np.degrees(np.arccos(min(shear, 1.0))))
        raise ImageFault(
            f"{name} is sheared: its axes are {angle:.1f} degrees off a right angle "
            "(an uncorrected gantry tilt, or an affine registration stored in the header)",
            "convert from DICOM with tilt correction, or resample the scan onto an upright grid",
        )
    _tell_geometry(header, affine, sizes, shape, notes)
    if not (has_q and has_s):
        absent, used = ("sform", "qform") if has_q else ("qform", "sform")
        notes.append(f"the {absent} code is 0; the {used} alone places the image")
    elif qform is None:
        notes.append("the qform is no rotation; the sform is used")
    return orthonormal_affine(affine, shape) if shear > 1e-6 else affine


def _tell_forms(
    sform: NDArray[np.float64],
    qform: NDArray[np.float64],
    name: str,
    shape: tuple[int, ...],
    notes: list[str],
    warnings: list[str],
    orientation: str | None,
) -> None:
    """Say how far qform and sform are apart; a warning where that decides what lies where."""
    apart = affine_distance_mm(sform, qform, shape)
    if apart <= SAME_PLACE_MM:
        return
    mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    message = f"qform and sform put voxels up to {apart:.1f} mm apart"
    if mirrored:
        message += " and are mirror images of each other"
    if orientation is not None:
        notes.append(f"{message}; the {orientation} is used, as acquisition.orientation says")
    elif mirrored or apart > CONTRADICTION_MM:
        side = "left and right" if mirrored else "the place of every lesion"
        warnings.append(
            f"{message}; the sform is used. {name} does not say which is right, and {side} "
            "depend on it: compare with the scanner's own pictures and set "
            "acquisition.orientation to sform or qform"
        )
    else:
        notes.append(f"{message}; the sform is used")


def _qform(header: Any) -> NDArray[np.float64] | None:
    """The qform's affine, None where its quaternion is no rotation."""
    try:
        affine = np.asarray(header.get_qform(), float)
    except (ValueError, nib.spatialimages.HeaderDataError):
        return None
    return affine if np.isfinite(affine).all() else None


def _in_mm(affine: NDArray[np.float64], header: Any, notes: list[str]) -> NDArray[np.float64]:
    """Apply the header's length unit where that makes sense of the voxel size."""
    unit = int(header["xyzt_units"]) & 7
    factor = {1: 1000.0, 3: 0.001}.get(unit, 1.0)
    if factor == 1.0:
        return affine
    word = "metres" if unit == 1 else "micrometres"
    sizes = voxel_sizes_mm(affine) * factor
    if sizes.min() < 0.05 or sizes.max() > 20:
        notes.append(f"the header says {word}, which cannot be; mm are taken")
        return affine
    notes.append(f"the header says {word}: converted to mm")
    return np.diag([factor, factor, factor, 1.0]) @ affine


def _tell_geometry(
    header: Any,
    affine: NDArray[np.float64],
    sizes: NDArray[np.float64],
    shape: tuple[int, ...],
    notes: list[str],
) -> None:
    """Notes on a geometry that is odd but usable."""
    declared = np.abs(np.asarray(header["pixdim"][1:4], float))
    if not np.allclose(declared, sizes, rtol=0.01, atol=1e-3):
        notes.append(
            f"pixdim says {_numbers(declared)} mm, the orientation matrix {_numbers(sizes)} mm; "
            "the matrix is used"
        )
    if sizes.min() < 0.1 or sizes.max() > 20:
        notes.append(f"voxels of {_numbers(sizes)} mm are unusual: check the header's unit")
    centre = (affine @ np.append((np.asarray(shape[:3]) - 1) / 2, 1.0))[:3]
    distance = float(np.linalg.norm(centre))
    if distance > FAR_ORIGIN_MM:
        notes.append(f"the scan's centre lies {distance:.0f} mm from the origin")


def _numbers(numbers: NDArray[Any]) -> str:
    return " x ".join(f"{float(number):.4g}" for number in numbers)


# --- writing -----------------------------------------------------------------------------------


def save_image(
    image: Any,
    path: str | os.PathLike[str],
    *,
    sidecar: Mapping[str, Any] | None,
    dtype: Any = None,
) -> Path:
    """Write an image so that every reader sees the same thing, and the same bytes every time.

    Parameters
    ----------
    image
        nibabel image; its affine must be free of shear.
    path
        Ends in ``.nii.gz`` (or ``.nii``).
    sidecar
        Content of the JSON beside it (``unit``, ``inputs``, ``parameters`` ...), to which the
        image's ``sha256`` and the ``software`` versions are added. An entry of ``inputs`` that
        is a path is replaced by its name and SHA-256. None writes no sidecar.
    dtype
        Data type on disk (None: that of the image). Values are never rescaled: a type that
        cannot hold them is an error.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    ValueError
        If ``dtype`` cannot hold the values, or the affine is sheared.

    Examples
    --------
    >>> import tempfile
    >>> image = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = save_image(image, Path(folder, "a.nii.gz"), sidecar={"unit": "s"}, dtype="u1")
    ...     sorted(item.name for item in Path(folder).iterdir()), nib.load(file).get_data_dtype()
    (['a.json', 'a.nii.gz'], dtype('uint8'))
    """
    target = Path(path)
    if not target.name.endswith((".nii.gz", ".nii")):
        raise ValueError(f"{target.name}: an image is written as .nii.gz or .nii")
    content = _encoded(image, dtype, target.name)
    if target.name.endswith(".gz"):
        content = packed(content)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    if sidecar is not None:
        write_json(_completed(sidecar, target), sidecar_path(target))
    return target


def packed(content: bytes) -> bytes:
    """Gzip the bytes of an image: one level for all files, and no time of packing.

    Examples
    --------
    >>> gzip.decompress(packed(b"voxels")), packed(b"voxels") == packed(b"voxels")
    (b'voxels', True)
    """
    return gzip.compress(content, compresslevel=_COMPRESSION, mtime=0)


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """Path of the JSON beside an image.

    Examples
    --------
    >>> sidecar_path("a/sub-01_T1w.nii.gz").as_posix()
    'a/sub-01_T1w.json'
    """
    file = Path(path)
    return file.with_name(file.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _encoded(image: Any, dtype: Any, name: str) -> bytes:
    """The uncompressed bytes of a fresh NIfTI-1 file: no two readers place it apart."""
    voxels = np.asanyarray(image.dataobj)
    wanted = np.dtype(dtype) if dtype is not None else voxels.dtype
    if wanted.kind == "b":
        wanted = np.dtype(np.uint8)
    stored = _cast(voxels, wanted, name)
    fresh = nib.Nifti1Image(stored, None, dtype=wanted)
    fresh.header.set_slope_inter(1.0, 0.0)
    affine = np.asarray(image.affine, float)
    apart = affine_distance_mm(orthonormal_affine(affine, stored.shape), affine, stored.shape)
    if apart > SAME_PLACE_MM:
        raise ValueError(f"{name}: the affine is sheared (up to {apart:.2f} mm); resample first")
    fresh.header.set_qform(affine, code=1, strip_shears=True)
    spoken = fresh.header.get_qform()
    if affine_distance_mm(spoken, affine, stored.shape) <= EXACT_QFORM_MM:
        fresh.header.set_sform(spoken, code=1)
    else:
        # Near a half turn (an oblique scan flipped in x, say) the float32 quaternion loses up to
        # half a millimetre; the sform alone, which every reader then uses, does not.
        fresh.header.set_qform(None, code=0)
        fresh.header.set_sform(affine, code=1)
    fresh.header.set_xyzt_units("mm", "sec")
    if stored.ndim == 4:
        interval = float(image.header["pixdim"][4])
        fresh.header["pixdim"][4] = interval if np.isfinite(interval) else 0.0
    # What fresh.to_bytes() gives, which takes ten times as long over slices one by one.
    header = fresh.header.copy()
    header.set_data_offset(_VOXELS_FROM)
    head = io.BytesIO()
    header.write_to(head)
    rim = bytes(_VOXELS_FROM - head.tell())
    return head.getvalue() + rim + _in_c_order(stored.T).tobytes()


def _in_c_order(voxels: NDArray[Any]) -> NDArray[Any]:
    """``numpy.ascontiguousarray``; a series line by line, which takes a third of the time."""
    if voxels.ndim != 4 or voxels.flags.c_contiguous:
        return np.ascontiguousarray(voxels)
    out = np.empty(voxels.shape, voxels.dtype)
    for line in np.ndindex(voxels.shape[1:3]):
        out[:, *line] = voxels[:, *line]
    return out


def _cast(voxels: NDArray[Any], wanted: np.dtype[Any], name: str) -> NDArray[Any]:
    """Change the type; refuse to lose anything but float precision."""
    if voxels.dtype == wanted or np.issubdtype(wanted, np.floating):
        return np.asarray(voxels, dtype=wanted)
    limits = np.iinfo(wanted)
    if voxels.size and (voxels.min() < limits.min or voxels.max() > limits.max):
        raise ValueError(f"{name}: values {voxels.min()} to {voxels.max()} do not fit {wanted}")
    stored = voxels.astype(wanted)
    if not np.array_equal(stored, voxels):
        raise ValueError(f"{name}: values are not whole numbers and do not fit {wanted}")
    return stored


def _completed(sidecar: Mapping[str, Any], target: Path) -> dict[str, Any]:
    """The sidecar with checksum, software, and checksums of inputs given as paths."""

    content = dict(plain(sidecar))
    content["inputs"] = [
        {"name": Path(item).name, "sha256": file_sha256(item)} if isinstance(item, str) else item
        for item in content.get("inputs", [])
    ]
    content["sha256"] = file_sha256(target)
    content["software"] = {
        "corelab": __version__,
        "nibabel": nib.__version__,
        "numpy": np.__version__,
        **content.get("software", {}),
    }
    return content
