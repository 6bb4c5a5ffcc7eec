"""Made DICOM series: a head of known values, and what a test edits in it."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid


def made_slice(path, index, *, kind="CT", spacing=5.0, uid="1.2.3", edit=None, rows=32):
    """One slice of a made head: HU = slice number + a ramp; on CT with bone around it."""
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage if kind == "CT" else MRImageStorage
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[uid, str(path)])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.SeriesInstanceUID, ds.StudyInstanceUID = uid, "1.2"
    ds.FrameOfReferenceUID = "1.9"
    ds.Modality, ds.Manufacturer = kind, "GE MEDICAL SYSTEMS"
    ds.SeriesNumber, ds.InstanceNumber = 3, index + 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDescription = "HEAD"
    ds.AcquisitionDate, ds.AcquisitionTime = "20240229", "101530"
    ds.StudyDate = "20240229"
    ds.Rows, ds.Columns = rows, rows
    ds.PixelSpacing, ds.SliceThickness = [7.0, 7.0], spacing
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-7.0 * rows / 2, -7.0 * rows / 2, spacing * index]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    y, x = np.mgrid[:rows, :rows] - rows / 2
    inside = np.hypot(x, y) < rows / 3
    pixels = np.where(inside, 1024 + 30 + index, 24) + (x.astype(int) % 3)
    if kind == "CT":
        # Bone, of another shape in every slice as in a head.
        edge = np.hypot(x, y) - rows / 3 - index % 3
        pixels[(edge >= 0) & (edge < 1.5)] = 1024 + 900
    ds.PixelData = pixels.astype("<i2").tobytes()
    if edit is not None:
        edit(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


def made_series(folder, count=8, **more):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        made_slice(folder / f"{index:03d}.dcm", index, **more)
    return folder


def made_enhanced(path, frames, *, times=True, time_first=True, rows=32):
    """Frames (slice number, time point) of a made head in one enhanced CT file, in that order.

    The dimension index has time before place, or behind it, which dcm2niix takes for the order.
    """
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedCTImageStorage

    ds = pydicom.dcmread(made_slice(path, 0, rows=rows))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, name)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.SeriesDescription, ds.NumberOfFrames = "PERFUSION", len(frames)
    del ds.RescaleIntercept, ds.RescaleSlope

    def item(**tags):
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return Sequence([made])

    ds.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[7.0, 7.0], SliceThickness=5.0),
        PixelValueTransformationSequence=item(RescaleIntercept=-1024, RescaleSlope=1),
    )
    order = reversed if time_first else tuple
    pointers = ("StackID", *order(("InStackPositionNumber", "TemporalPositionIndex")))
    ds.DimensionIndexSequence = Sequence(
        item(
            DimensionIndexPointer=pydicom.datadict.tag_for_keyword(name),
            FunctionalGroupPointer=pydicom.datadict.tag_for_keyword("FrameContentSequence"),
        )[0]
        for name in pointers
    )
    groups, pixels = [], b""
    for place, time in frames:
        content = {"TemporalPositionIndex": time + 1, "InStackPositionNumber": place + 1}
        content |= {"StackID": "1", "DimensionIndexValues": [1, *order((place + 1, time + 1))]}
        if times:
            content["FrameAcquisitionDateTime"] = f"20240229101{30 + 2 * time:03d}"
        group = Dataset()
        group.FrameContentSequence = item(**content)
        corner = -7.0 * rows / 2
        group.PlanePositionSequence = item(ImagePositionPatient=[corner, corner, 5.0 * place])
        groups.append(group)
        slice_ = pydicom.dcmread(made_slice(path.with_suffix(".one"), place, rows=rows))
        pixels += (slice_.pixel_array + 7 * time).astype("<i2").tobytes()
    path.with_suffix(".one").unlink()
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = pixels
    ds.save_as(path, enforce_file_format=True)
    return path
