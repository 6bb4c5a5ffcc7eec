"""Ventricles that lie off the template's are seen where overlap and similarity see nothing."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.template import template_image
from corelab.registration.quality import similarity, ventricle_offset_mm, ventricle_warning
from corelab.registration.transforms import Affine
from corelab.settings.registration import RegistrationLimits

LIMITS = RegistrationLimits()


def displaced(by_mm: float, noise: float = 10.0) -> nib.Nifti1Image:
    """Template whose right ventricle is pushed outwards by ``by_mm`` in its middle, with noise."""
    template = template_image()
    data = np.asarray(template.dataobj)
    origin = template.affine[:3, 3]
    x, y, z = (np.arange(n, dtype=np.float32) + o for n, o in zip(data.shape, origin, strict=True))
    bump = np.exp(
        -(((x[:, None, None] - 18) / 16) ** 2)
        - ((y[None, :, None] + 15) / 28) ** 2
        - ((z[None, None, :] - 16) / 18) ** 2
    )
    voxel = np.indices(data.shape, dtype=np.float32)
    voxel[0] -= by_mm * bump
    moved = ndimage.map_coordinates(data, voxel, order=1)
    moved += (moved > 0) * np.random.default_rng(1).normal(0, noise, moved.shape)
    return nib.Nifti1Image(moved.astype(np.float32), template.affine)


def test_a_ventricle_displaced_by_5_mm_is_a_warning_and_one_in_place_is_none():
    still, pushed = displaced(0.0), displaced(5.0)
    assert ventricle_offset_mm(still, []) < 1.0
    found = ventricle_offset_mm(pushed, [])
    # 5 mm at its peak; the medians of patches see the mean of what is about it.
    assert 3.0 < found < 5.5
    assert "ventricles' wall lies" in ventricle_warning(found, LIMITS.ventricle_offset_mm_max)
    assert ventricle_warning(ventricle_offset_mm(still, []), LIMITS.ventricle_offset_mm_max) is None
    # The mean similarity, which decides whether a fit has failed, hardly sees it.
    information = [similarity(template_image(), image, [])["mutual_information"]
                   for image in (still, pushed)]  # fmt: skip
    assert information[1] > 0.9 * information[0] > LIMITS.information_min


@pytest.mark.parametrize("shift_mm", [1.0, 2.0])
def test_a_fit_that_is_off_by_a_little_is_measured_in_mm(shift_mm):
    shift = np.eye(4)
    shift[0, 3] = shift_mm
    found = ventricle_offset_mm(template_image(), [Affine(shift)])
    assert shift_mm - 0.5 <= found <= shift_mm + 0.5


def test_a_cavity_beside_the_ventricle_is_not_taken_for_it():
    image = displaced(0.0)
    data = np.array(image.dataobj)
    place = np.zeros(data.shape, np.uint8)
    place[98 + 16 : 98 + 40, 100:136, 85:100] = 1  # right of the body, open to it
    data[place != 0] = 60
    cavity = nib.Nifti1Image(data, image.affine)
    lesion = nib.Nifti1Image(place, image.affine)
    assert ventricle_offset_mm(cavity, []) > 3.0
    assert ventricle_offset_mm(cavity, [], lesion) < 1.5


def test_without_fluid_there_is_no_figure():
    flat = nib.Nifti1Image((np.asarray(template_image().dataobj) > 0) * np.float32(200),
                           template_image().affine)  # fmt: skip
    assert np.isnan(ventricle_offset_mm(flat, []))
    assert ventricle_warning(float("nan"), LIMITS.ventricle_offset_mm_max) is None
