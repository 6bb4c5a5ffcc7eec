"""Enhanced multi-frame files of a dynamic series, taken apart into one file per frame.

dcm2niix orders the frames of an enhanced file by their dimension index, and of some makers lays
times out as places. Files of one frame each, numbered by place and time, leave nothing to order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corelab.imaging.dicom import DicomFile, dataset_of, frames_of

#: Elements that only describe many frames.
_OF_MANY = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"),
    *("DimensionIndexSequence", "DimensionOrganizationSequence", "DimensionOrganizationType"),
    *("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
#: Keywords of enhanced files and those of files with one frame.
_RENAMED = {"EffectiveEchoTime": "EchoTime"}


def write_single_frames(frames: Sequence[Sequence[DicomFile]], folder: Path) -> None:
    """Write the frames of enhanced files as files of one frame, in their order.

    Parameters
    ----------
    frames
        Frame in time -> its images by place, as :class:`corelab.imaging.dynamic.TimeTable` has
        them; each has the fact ``frame``, its number in its file.
    folder
        Folder to write to.
    """
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

    read: dict[Path, tuple[Any, list[Any]]] = {}
    index = 0
    for time, images in enumerate(frames):
        for image in images:
            if image.path not in read:
                dataset = dataset_of(image.path)
                read[image.path] = dataset, frames_of(dataset)
            dataset, pixels = read[image.path]
            single = _flat(dataset, int(image.facts["frame"]))
            index += 1
            single.InstanceNumber, single.AcquisitionNumber = index, time + 1
            kind = CTImageStorage if single.get("Modality") == "CT" else MRImageStorage
            single.SOPClassUID = single.file_meta.MediaStorageSOPClassUID = kind
            single.SOPInstanceUID = f"2.25.{index}"
            single.file_meta.MediaStorageSOPInstanceUID = single.SOPInstanceUID
            single.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            stored = np.ascontiguousarray(pixels[int(image.facts["frame"])])
            single.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
            single.save_as(folder / f"{index:06d}.dcm", enforce_file_format=True)


def _flat(dataset: Any, frame: int) -> Any:
    """Header of one frame: what all frames share, and what is its own, without the sequences."""
    from pydicom.dataset import Dataset, FileMetaDataset

    single = Dataset()
    single.file_meta = FileMetaDataset()
    for element in dataset:
        if element.keyword not in _OF_MANY and not element.tag.is_private:
            single[element.tag] = element
    groups = (
        (dataset.get("SharedFunctionalGroupsSequence") or [None])[0],
        dataset.PerFrameFunctionalGroupsSequence[frame],
    )
    for group in groups:
        for macro in group or ():
            if macro.VR != "SQ" or macro.tag.is_private or not macro.value:
                continue
            for element in macro.value[0]:
                name = _RENAMED.get(element.keyword, element.keyword)
                if name and element.VR != "SQ":
                    setattr(single, name, element.value)
    moment = str(single.get("FrameAcquisitionDateTime") or "")
    if len(moment) >= 14:
        single.AcquisitionDate, single.AcquisitionTime = moment[:8], moment[8:]
        single.AcquisitionDateTime = moment
    return single
