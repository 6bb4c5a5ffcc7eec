"""Left and right: a swap is found, a sound visit passes, and what cannot be told is not told."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from helpers import data_folder, prepare_rows
from scipy import ndimage
from scipy.spatial.transform import Rotation

from corelab.imaging.laterality import LeftRight, _by_way_of, left_right

SHAPE = (72, 88, 60)


def anatomy(seed=0, symmetric=False):
    """Smooth random tissue in an ellipsoid; a mirror image of itself if asked."""
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    tissue = ndimage.gaussian_filter(noise, 2.5)
    if symmetric:
        tissue = tissue + tissue[::-1]
    tissue = 100 + 25 * tissue / tissue.std()
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    brain = sum((axis / 0.85) ** 2 for axis in grid) < 1
    return np.where(brain, tissue, 0), brain


def pair(voxels, brain, affine):
    return (
        nib.Nifti1Image(voxels.astype(np.float32), affine),
        nib.Nifti1Image(brain.astype(np.uint8), affine),
    )


def affine(degrees=0.0, shift=(0, 0, 0)):
    made = np.eye(4)
    made[:3, :3] = (
        2.0 * Rotation.from_euler("zyx", [degrees, degrees / 2, 0], degrees=True).as_matrix()
    )
    made[:3, 3] = -made[:3, :3] @ (np.array(SHAPE) - 1) / 2 + shift
    return made


@pytest.mark.parametrize("degrees", [0.0, 8.0], ids=["same grid", "tilted grid"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_swap_is_found_across_contrasts(degrees, swapped):
    voxels, brain = anatomy()
    # Another contrast: inverted and bent, as CT is to T1.
    other = np.where(brain, (220 - voxels) ** 1.5 / 10, 0)
    noisy = other + np.random.default_rng(1).normal(0, 8, SHAPE)
    if degrees:
        to = np.linalg.inv(affine()) @ affine(degrees, (5, -4, 3))
        move = [
            ndimage.affine_transform(v, to[:3, :3], to[:3, 3], order=1)
            for v in (noisy, brain * 1.0)
        ]
        noisy, brain_2 = move[0], move[1] > 0.5
    else:
        brain_2 = brain
    if swapped:
        noisy, brain_2 = noisy[::-1], brain_2[::-1]
    second = affine(degrees, (5, -4, 3)) if degrees else affine()
    found = left_right(pair(voxels, brain, affine()), pair(noisy, brain_2, second))
    assert found.verdict == ("fail" if swapped else "pass")
    assert (found.gain < 0) == swapped


def test_the_same_images_give_the_same_figure_to_the_last_bit():
    voxels, brain = anatomy()
    to = np.linalg.inv(affine()) @ affine(8.0, (5, -4, 3))
    turned = ndimage.affine_transform(voxels, to[:3, :3], to[:3, 3], order=1)
    there = ndimage.affine_transform(brain * 1.0, to[:3, :3], to[:3, 3], order=1) > 0.5
    pairs = pair(voxels, brain, affine()), pair(turned, there, affine(8.0, (5, -4, 3)))
    first, second = left_right(*pairs), left_right(*pairs)
    assert first == second and first.verdict == "pass"


def test_a_symmetric_head_cannot_be_told():
    voxels, brain = anatomy(symmetric=True)
    noise = np.random.default_rng(2).normal(0, 5, SHAPE)
    found = left_right(pair(voxels, brain, affine()), pair(voxels + noise, brain, affine()))
    assert found.verdict == "not_assessable"


def test_swapped_against_what_is_swapped_is_right():
    swapped, right = LeftRight(-0.9, -20.0, "fail"), LeftRight(0.8, 15.0, "pass")
    unclear = LeftRight(0.0, 0.1, "not_assessable")
    assert _by_way_of(right, swapped).verdict == "fail"
    assert _by_way_of(swapped, swapped).verdict == "pass"
    assert _by_way_of(swapped, None).verdict == "fail"
    assert _by_way_of(right, unclear).verdict == "not_assessable"


def test_a_real_visit_passes_and_its_mirrored_adc_is_flagged(tmp_path):
    folder = data_folder("stroke/ads_subject02")
    files = {
        kind: next(iter(sorted(folder.rglob(f"*{word}*.nii.gz"))))
        for kind, word in (("dwi", "DWI"), ("adc", "ADC"), ("b0", "b0"))
    }
    image = nib.load(files["adc"])
    mirrored = tmp_path / "adc.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine, image.header), mirrored)

    def verdicts(paths):
        rows = [
            {"participant_id": "1", "visit": "v", "kind": kind, "path": str(path), "scan_id": kind}
            for kind, path in paths.items()
        ]
        record = prepare_rows(rows, tmp_path / "out")
        return {
            row.kind: (row.verdict, row.reason)
            for row in record.acquisition
            if row.criterion == "left_right"
        }

    assert verdicts(files) == {"adc": ("pass", None), "b0": ("pass", None)}
    output = verdicts({**files, "adc": mirrored})
    assert output["b0"] == ("pass", None)
    assert output["adc"] == ("fail", "left and right are swapped against dwi (dwi)")
