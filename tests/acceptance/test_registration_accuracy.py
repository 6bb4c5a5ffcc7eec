"""Registration to MNI152 against simulated truth, and the same bytes from two processes.

The subject is the template under a known smooth map (affine of up to 4 degrees and 5 %, random
displacements of 3 to 4 mm on average, Jacobian 0.5 to 1.7), with a bias field of 22 %, Rician noise of 4 %,
a dark gap, skull and scalp, and a lesion of 28 to 41 mL that takes away 40 % of the T1 signal. The map
is defined from subject to template, so that the error |phi(T(y)) - y| needs no inversion.
Real anatomy differs from the template by more than a map: all figures are optimistic.
"""

import hashlib
import os
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from helpers import REPOSITORY
from scipy import ndimage

from corelab.registration import (
    apply_transforms,
    registrar,
    registration_settings,
    template_brain_mask,
    template_image,
    transform_points,
)
from corelab.registration.pairs import Head, fit_to_template

pytestmark = pytest.mark.acceptance


def random_field(rng, shape, sigma_voxel, amplitude):
    """Smooth random vector field with a given root mean square."""
    coarse = [
        ndimage.gaussian_filter(
            rng.standard_normal(tuple(n // 4 + 1 for n in shape)), sigma_voxel / 4, mode="nearest"
        )
        for _ in range(3)
    ]
    field = np.stack(
        [
            ndimage.zoom(c, [n / m for n, m in zip(shape, c.shape, strict=True)], order=1)
            for c in coarse
        ]
    )
    return field * amplitude / np.sqrt((field**2).sum(0).mean())


def turned(degrees):
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        part = np.eye(3)
        part[i, i] = part[j, j] = np.cos(angle)
        part[i, j], part[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ part
    return matrix


@cache
def subject(seed, mean_mm, side, spacing=(1.0, 1.0, 1.0)):
    """Head, lesion mask, true MNI lesion and phi of one simulated subject."""
    rng = np.random.default_rng(seed)
    template = np.asarray(template_image().dataobj)
    origin = template_image().affine[:3, 3]
    brain_mni = np.asarray(template_brain_mask().dataobj) != 0
    linear = turned(rng.uniform(-4, 4, 3)) @ np.diag(1 + rng.uniform(-0.05, 0.05, 3))
    centre = np.array([0.0, -18.0, 10.0])
    shift = centre + rng.uniform(-6, 6, 3) - linear @ centre
    field = random_field(rng, template.shape, 17, mean_mm * 1.62)

    def phi(points):
        moved = points @ linear.T + shift
        voxel = (moved - origin).T
        return moved + np.stack(
            [ndimage.map_coordinates(c, voxel, order=1, mode="nearest") for c in field], axis=1
        )

    grid = np.indices(template.shape).reshape(3, -1).T + origin
    far = np.sqrt((((grid - [38.0 * side, -10, 18]) / [20, 23, 19]) ** 2).sum(1))
    lesion_mni = (far.reshape(template.shape) < 1) & brain_mni

    sizes = np.array(spacing)
    shape = tuple(round(n / s) for n, s in zip((192, 232, 192), sizes, strict=True))
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -95, -135, -80
    places = np.indices(shape).reshape(3, -1).T * sizes + affine[:3, 3]
    voxel = (phi(places) - origin).T

    def sampled(data):
        values = ndimage.map_coordinates(data.astype(np.float32), voxel, order=1, mode="constant")
        return values.reshape(shape)

    brain = sampled(brain_mni) > 0.5
    lesion = sampled(lesion_mni) > 0.5
    image = np.maximum(sampled(template), 0)
    image *= 1 - 0.4 * ndimage.gaussian_filter(lesion.astype(np.float32), 0.7 / sizes)
    white = np.percentile(image[brain], 95)
    depth = ndimage.distance_transform_edt(~brain, sampling=sizes)
    shells = np.select([depth < 3, depth < 7, depth < 12], [0.15, 0.08, 0.9], 0.0) * white
    image = np.where(brain, image, shells)
    bias = random_field(rng, shape, 35 / sizes.mean(), 1.0)[0]
    image *= np.exp(0.22 * bias / np.abs(bias).max())
    noise = 0.04 * white * rng.standard_normal((2, *shape))
    image = np.hypot(image + noise[0], noise[1]).astype(np.float32)
    kind = "T1w" if max(spacing) < 1.6 else "FLAIR"
    head = Head(
        nib.Nifti1Image(image, affine),
        nib.Nifti1Image(brain.astype(np.uint8), affine),
        kind,
        "s",
        "p",
    )
    return SimpleNamespace(head=head, lesion=lesion, lesion_mni=lesion_mni, phi=phi)


def fitted(seed, mean_mm, side, settings, spacing=(1.0, 1.0, 1.0)):
    """Error in mm over the brain and error of the lesion's volume in percent."""
    truth = subject(seed, mean_mm, side, spacing)
    checked = registration_settings(settings)
    fit = fit_to_template(registrar(checked), truth.head, truth.lesion, checked)
    assert fit.reason is None, fit.reason
    steps = fit.transform.to_fixed
    points = (
        np.argwhere(np.asarray(template_brain_mask().dataobj))[::37]
        + template_image().affine[:3, 3]
    )
    error_mm = np.linalg.norm(truth.phi(transform_points(points, steps)) - points, axis=1)
    mask = nib.Nifti1Image(truth.lesion.astype(np.uint8), truth.head.image.affine)
    moved = np.asarray(apply_transforms(mask, template_image(), steps, "label").dataobj) != 0
    percent = 100 * (moved.sum() / truth.lesion_mni.sum() - 1)
    print(settings, spacing, f"{error_mm.mean():.2f} mm, lesion {percent:+.1f} %", fit.quality)
    return error_mm.mean(), percent, fit


SUBJECTS = [(11, 4.2, -1), (22, 3.2, 1)]


def test_fast_is_within_1_4_mm_and_keeps_the_lesion_s_volume():
    error_mm, percent, fit = fitted(*SUBJECTS[0], {"preset": "fast"})
    assert fit.transform.kind == "deformable"
    assert fit.lesion["used"] == "mask"
    assert error_mm <= 1.4
    assert abs(percent) <= 5
    assert fit.quality["inverse_consistency_mm"] < 0.1
    assert fit.quality["folds"] == 0


@pytest.mark.slow
def test_fast_on_the_second_subject():
    error_mm, percent, _ = fitted(*SUBJECTS[1], {"preset": "fast"})
    assert error_mm <= 1.4
    assert abs(percent) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("who", SUBJECTS)
def test_filling_the_lesion_is_no_less_accurate(who):
    error_mm, percent, fit = fitted(*who, {"preset": "fast", "lesion": "fill"})
    assert fit.lesion["used"] == "fill"
    assert fit.lesion["filled_from_other_side"] > 0.9
    assert error_mm <= 1.4
    # Measured up to 6 %; masking, the default, is the one that is held to 5 %.
    assert abs(percent) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("who", SUBJECTS)
def test_precise_is_within_1_0_mm(who):
    error_mm, percent, _ = fitted(*who, {"preset": "precise"})
    assert error_mm <= 1.0
    assert abs(percent) <= 5


@pytest.mark.parametrize("who", SUBJECTS)
def test_thick_slices_get_the_best_affine_there_is(who):
    spacing = (1.0, 1.0, 5.0)
    error_mm, _, fit = fitted(*who, {"preset": "fast"}, spacing)
    assert fit.transform.kind == "affine"
    # No affine can do better than the one that is fitted to the truth itself.
    truth = subject(*who, spacing)
    places = np.argwhere(np.asarray(truth.head.brain.dataobj))[::37]
    points = nib.affines.apply_affine(truth.head.image.affine, places)
    there = truth.phi(points)
    design = np.column_stack([points, np.ones(len(points))])
    best = design @ np.linalg.lstsq(design, there, rcond=None)[0]
    floor_mm = np.linalg.norm(best - there, axis=1).mean()
    assert error_mm <= floor_mm + 0.4


_SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from corelab.registration import registrar, registration_settings, template_image
from corelab.registration.preparation import coarsened
from corelab.registration.transforms import Affine, apply_transforms
settings = registration_settings({"preset": "testing", "backend": sys.argv[2]})
tool = registrar(settings)
fixed = coarsened(template_image(), 4.0)
matrix = np.eye(4); matrix[:3, 3] = 4, -3, 2; matrix[0, 0] = 1.05
moving = apply_transforms(template_image(), coarsened(template_image(), 3.0), [Affine(matrix)])
affine = tool.affine(fixed, moving)
found = tool.deformable(fixed, moving, start=affine.matrix)
rigid = tool.rigid(fixed, moving)
for part in (rigid.matrix, found.matrix, found.warp.displacement_mm, found.inverse_warp.displacement_mm):
    print(hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("backend", ["ants", "greedy"])
def test_two_processes_give_the_same_bits_and_leave_nothing_behind(backend, tmp_path):
    results = []
    for threads in ("1", "2"):  # what the surroundings ask for has no say
        room = tmp_path / threads
        room.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(room),
            "OMP_NUM_THREADS": threads,
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(REPOSITORY / "workflow" / "scripts"), backend],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
        assert list(room.iterdir()) == []
    assert results[0] == results[1]
    assert results[0].count("\n") == 4
    assert hashlib.sha256(b"").hexdigest() not in results[0]
