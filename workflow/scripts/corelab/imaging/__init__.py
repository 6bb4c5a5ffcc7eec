"""Imaging: a file becomes an image on a known grid, in a known unit, or a fault in words.

:func:`load_image` (:func:`load_mask` for thousands) and :func:`save_image` are the only ways in and
out; :func:`prepare_visit` does the whole first stage for one visit. DICOM conversion and its
programs are loaded only when a row needs them.
"""

from corelab.imaging.brain import brain_mask
from corelab.imaging.faults import ImageFault
from corelab.imaging.geometry import mask_volume_ml, resample_to, same_grid, voxel_volume_ml
from corelab.imaging.nifti import load_image, load_mask, save_image
from corelab.imaging.prepare import prepare_visit

__all__ = [
    "ImageFault",
    "brain_mask",
    "load_image",
    "load_mask",
    "mask_volume_ml",
    "prepare_visit",
    "resample_to",
    "same_grid",
    "save_image",
    "voxel_volume_ml",
]
