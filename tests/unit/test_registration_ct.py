"""CT to MNI152: by the user's CT template where there is one, else by mutual information."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from corelab.registration import (
    registrar,
    template_brain_mask,
    template_image,
    transform_points,
)
from corelab.registration.heads import Head
from corelab.registration.pairs import fit_to_template
from corelab.registration.transforms import Affine, apply_transforms
from corelab.settings.registration import RegistrationSettings

#: Subject points = this (template points).
TRUTH = np.array(
    [[1.04, 0.05, 0, 4.0], [-0.05, 0.97, 0.08, -6.0], [0, -0.08, 1.02, 5.0], [0, 0, 0, 1]]
)


def hounsfield() -> nib.Nifti1Image:
    """CT-like image in template space: fluid 8, white 28, grey 37 HU, a skull, air."""
    template = np.asarray(template_image().dataobj, np.float32)
    brain = np.asarray(template_brain_mask().dataobj) != 0
    top = np.percentile(template[brain], 95)
    tissue = np.select([template < 0.35 * top, template < 0.8 * top], [8.0, 37.0], 28.0)
    return nib.Nifti1Image(
        np.where(brain, tissue, -1000).astype(np.float32), template_image().affine
    )


@pytest.fixture(scope="module")
def head() -> Head:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = -105, -150, -85
    grid = nib.Nifti1Image(np.zeros((106, 128, 40), np.float32), affine)
    back = [Affine(np.linalg.inv(TRUTH))]
    scan = np.asarray(apply_transforms(hounsfield(), grid, back).dataobj)
    noise = np.random.default_rng(1).normal(0, 2, scan.shape)
    brain = apply_transforms(template_brain_mask(), grid, back, "label")
    image = nib.Nifti1Image(np.clip(scan + noise, 0, 100).astype(np.float32), affine)
    return Head(image, brain, "ncct", "s", "p")


def fitted(head: Head, **settings):
    checked = RegistrationSettings.model_validate({"preset": "testing", **settings})
    return fit_to_template(registrar(checked), head, np.zeros(head.image.shape, bool), checked)


def error_mm(fit) -> float:
    places = np.argwhere(np.asarray(template_brain_mask().dataobj))[::997]
    points = places + template_image().affine[:3, 3]
    there = transform_points(points, fit.transform.to_fixed)
    return float(np.linalg.norm(there - Affine(TRUTH)(points), axis=1).mean())


def test_users_ct_template_brings_ct_to_mni(head, tmp_path):
    path = tmp_path / "ct_template.nii.gz"
    nib.save(hounsfield(), path)
    fit = fitted(head, ct_template=str(path))
    assert fit.reason is None
    assert fit.transform.kind == "affine"
    assert error_mm(fit) < 2.0
    # The other contrast of the T1 template is the harder way, and works too.
    assert error_mm(fitted(head)) < 3.0
    # Intensities of the same kind are close to one-to-one: more information than across contrasts.
    assert fit.quality["correlation"] > 0.8


def test_a_template_outside_mni_space_is_the_study_s_fault(head, tmp_path):
    path = tmp_path / "elsewhere.nii.gz"
    affine = np.eye(4)
    affine[:3, 3] = 900
    nib.save(nib.Nifti1Image(np.indices((9, 9, 9), np.float32)[0], affine), path)
    with pytest.raises(ValueError, match="does not lie in MNI152 space"):
        fitted(head, ct_template=str(path))
    with pytest.raises(ValueError, match=r"registration\.ct_template: "):
        fitted(head, ct_template=str(tmp_path / "none.nii.gz"))
