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
