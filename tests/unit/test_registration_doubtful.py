"""A broken brain mask must not fail the fit by which it would be replaced."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.brain_quality import brain_rows, judged_mask, mask_warnings
from corelab.records.images import Prepared, Scan
from corelab.registration import (
    align_visit,
    share_brain_masks,
    template_brain_mask,
    template_image,
)
from corelab.registration.backends import registrar
from corelab.registration.heads import Head
from corelab.registration.pairs import fit_rigid
from corelab.registration.transforms import Affine, apply_transforms, read_affine
from corelab.settings.registration import RegistrationSettings

SETTINGS = RegistrationSettings(preset="testing")


def motion(degrees, shift):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


#: Points of the CT to points of the DWI.
TRUTH = motion(12, (6, -9, 14))
#: Points of the template, whose brain is large, to those of the CT.
SIZE = np.diag([0.9, 0.9, 0.9, 1.0])


@cache
def contrasts():
    """CT with a skull and DWI without scalp, with a lesion, both in template space."""
    template = np.asarray(template_image().dataobj, np.float32)
    brain = np.asarray(template_brain_mask().dataobj) != 0
    top = np.percentile(template[brain], 95)
    tissue = np.select([template < 0.35 * top, template < 0.8 * top], [8.0, 37.0], 28.0)
    skull = ndimage.binary_dilation(brain, iterations=6) & ~ndimage.binary_dilation(
        brain, iterations=2
    )
    ct = np.where(brain, tissue, np.where(skull, 900.0, -1000.0))
    dwi = np.where(
        brain, np.select([template < 0.35 * top, template < 0.8 * top], [40.0, 260.0], 190.0), 0
    )
    lesion = np.zeros(brain.shape, bool)
    lesion[130:160, 90:130, 80:110] = True
    return ct, np.where(lesion & brain, 480.0, dwi)


def on_grid(values, sizes, matrix, mask=False):
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -105, -145, -85
    shape = tuple(int(n) for n in np.ceil(np.array([210, 250, 190]) / sizes))
    grid = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
    image = nib.Nifti1Image(np.asarray(values, np.float32), template_image().affine)
    return apply_transforms(
        image, grid, [Affine(np.linalg.inv(matrix @ SIZE))], "label" if mask else "linear"
    )


def half(mask):
    """The mask without what lies in front of its centre, as on a DWI of the elderly."""
    voxels = np.asarray(mask.dataobj) != 0
    middle = int(ndimage.center_of_mass(voxels)[1])
    voxels = voxels.copy()
    voxels[:, middle:] = False
    return nib.Nifti1Image(voxels.astype(np.uint8), mask.affine)


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """A prepared visit: CT (reference g1) and DWI (g2) of which half the mask is lost."""
    folder = tmp_path_factory.mktemp("visit")
    ct, dwi = contrasts()
    brain = np.asarray(template_brain_mask().dataobj) != 0
    rng = np.random.default_rng(1)
    scans, masks, quality = [], {}, {}
    for grid, kind, values, sizes, matrix in (
        ("g1", "ncct", ct, (2.0, 2.0, 5.0), np.eye(4)),
        ("g2", "dwi", dwi, (2.5, 2.5, 5.0), TRUTH),
    ):
        image = on_grid(values - values.min(), sizes, matrix)
        noisy = np.asarray(image.dataobj) + values.min() + rng.normal(0, 4, image.shape)
        noisy = np.abs(noisy) if kind == "dwi" else noisy
        image = nib.Nifti1Image(noisy.astype(np.float32), image.affine)
        whole = on_grid(brain, sizes, matrix, mask=True)
        mask = half(whole) if kind == "dwi" else whole
        for name, one in ((kind, image), (f"{kind}_brain", mask), (f"{kind}_whole", whole)):
            nib.save(
                nib.Nifti1Image(np.asarray(one.dataobj), one.affine), folder / f"{name}.nii.gz"
            )
        scans.append(Scan(kind, kind, grid=grid, path=f"{kind}.nii.gz", shape=image.shape))
        masks[grid] = f"{kind}_brain.nii.gz"
        quality[grid] = judged_mask(mask, image, kind, kind)
    record = Prepared(
        *("01", "v"),
        scans=tuple(scans),
        brain_masks=masks,
        brain_mask_quality=quality,
        reference="g1",
    )
    return folder, record


def error_mm(matrix):
    points = (
        np.argwhere(np.asarray(template_brain_mask().dataobj))[::997]
        + template_image().affine[:3, 3]
    )
    return float(np.linalg.norm(Affine(matrix)(points) - Affine(TRUTH)(points), axis=1).mean())


def dice(first, second):
    first, second = (np.asarray(image.dataobj) != 0 for image in (first, second))
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_ct_to_dwi_with_half_a_mask_is_found_and_the_mask_is_lent(visit):
    folder, record = visit
    verdicts = [quality.verdict for quality in record.brain_mask_quality.values()]
    assert verdicts[0] == "pass" and verdicts[1] != "pass"
    aligned = align_visit(record, folder, settings=SETTINGS)
    found = aligned.transforms["g2"]
    assert found.status == "ok", found
    assert found.quality["dice"] < 0.75 and found.quality["donor"] == "ncct"
    assert error_mm(read_affine(folder / found.path)) < 3.0
    shared = share_brain_masks(aligned, folder)
    assert shared.brain_mask_quality["g2"].source == "ncct of g1"
    assert shared.brain_mask_quality["g2"].verdict == "pass"
    lent = nib.load(folder / record.brain_masks["g2"])
    assert dice(lent, nib.load(folder / "dwi_whole.nii.gz")) > 0.93
    rows = [row for row in shared.acquisition if row.criterion == "brain_mask"]
    assert [row.verdict for row in rows] == ["pass", "pass"]
    assert [row.verdict for row in brain_rows(record)] == ["pass", "pass", "fail", "pass"]


def heads(folder, dwi_image=None, verdicts=("pass", "fail")):
    made = []
    for kind, verdict in zip(("ncct", "dwi"), verdicts, strict=True):
        image = nib.load(folder / f"{kind}.nii.gz")
        if kind == "dwi" and dwi_image is not None:
            image = dwi_image
        data = np.clip(image.get_fdata(dtype=np.float32), 0, 100 if kind == "ncct" else None)
        whole = nib.load(folder / f"{kind}_whole.nii.gz")
        mask = half(whole) if verdict != "pass" else whole
        made.append(Head(nib.Nifti1Image(data, image.affine), mask, kind, kind, kind, verdict))
    return made


def test_the_donor_may_be_the_moving_scan(visit):
    fixed, moving = heads(visit[0], verdicts=("warn", "pass"))
    fit = fit_rigid(registrar(SETTINGS), fixed, moving, SETTINGS)
    transform, quality, reason = fit.transform, fit.quality, fit.reason
    assert reason is None and quality["donor"] == "dwi"
    assert error_mm(transform.matrix) < 3.0


def test_masks_of_plausible_volume_that_disagree_are_flagged(visit):
    folder, record = visit
    quality = {
        grid: replace(found, verdict="pass") for grid, found in record.brain_mask_quality.items()
    }
    nib.save(half(nib.load(folder / "dwi_whole.nii.gz")), folder / record.brain_masks["g2"])
    aligned = align_visit(replace(record, brain_mask_quality=quality), folder, settings=SETTINGS)
    found = aligned.transforms["g2"]
    assert found.status == "ok" and found.quality["dice"] < 0.75
    assert error_mm(read_affine(folder / found.path)) < 3.0
    shared = share_brain_masks(aligned, folder)
    for grid in ("g1", "g2"):
        assert "one of them is wrong" in mask_warnings(shared, grid)["brain_masks_disagree"]
    rows = [row for row in shared.acquisition if row.criterion == "brain_mask"]
    assert [row.verdict for row in rows] == ["fail", "fail"]


def test_noise_is_no_fit_whatever_the_masks(visit):
    folder = visit[0]
    image = nib.load(folder / "dwi.nii.gz")
    noise = np.random.default_rng(2).uniform(0, 300, image.shape).astype(np.float32)
    fixed, moving = heads(folder, nib.Nifti1Image(noise, image.affine))
    fit = fit_rigid(registrar(SETTINGS), fixed, moving, SETTINGS)
    quality, reason = fit.quality, fit.reason
    assert reason is not None and "mutual information" in reason, quality
