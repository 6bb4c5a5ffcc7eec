"""Rigid maps in the space half-way: exact algebra, and what a backend makes of two noisy scans."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from corelab.imaging.template import template_brain_mask
from corelab.registration import registrar, template_image
from corelab.registration.halfway import halfway_rigid, rigid_fraction, rigid_part
from corelab.registration.preparation import brain_only, coarsened
from corelab.registration.registrar import Transform
from corelab.registration.transforms import Affine, apply_transforms
from corelab.settings.registration import RegistrationSettings


def motion(degrees, shift):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.parametrize("degrees", [0.0, 3.0, 40.0, 120.0])
def test_two_halves_make_the_whole(degrees):
    whole = motion(degrees, (5, -7, 2))
    half = rigid_fraction(whole)
    np.testing.assert_allclose(half @ half, whole, atol=1e-9)
    np.testing.assert_allclose(half[:3, :3] @ half[:3, :3].T, np.eye(3), atol=1e-12)
    # Half the rotation of an analytic case: about one axis the angle is halved.
    assert np.degrees(np.arctan2(half[2, 1], half[1, 1])) == pytest.approx(degrees / 2)


class KnowsTheAnswer:
    """Backend that finds a known residual, one way and, with an error, the other way."""

    def __init__(self, residual, error):
        self.answers = [residual @ error, np.linalg.inv(residual @ np.linalg.inv(error))]

    def rigid(self, fixed, moving, *, start, metric_mask=None):
        assert np.array_equal(start, np.eye(4))
        return Transform("rigid", self.answers.pop(0))


def test_errors_of_the_two_directions_cancel():
    data = np.random.default_rng(1).uniform(1, 2, (12, 12, 12)).astype(np.float32)
    image = nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1]))
    start, residual, error = motion(10, (3, 0, 0)), motion(2, (0.5, 1, 0)), motion(0, (0.2, 0, 0))
    found, figures = halfway_rigid(KnowsTheAnswer(residual, error), image, image, start)
    half = rigid_fraction(start)
    np.testing.assert_allclose(found.matrix, half @ residual @ half, atol=1e-9)
    assert figures["inverse_consistency_mm"] == pytest.approx(0.4)  # 0.2 mm each way


def test_exchanging_the_scans_inverts_the_map():
    """Follow-up to baseline and baseline to follow-up agree better than direct fits do."""
    brain = np.asarray(template_brain_mask().dataobj) != 0
    cut, _ = brain_only(template_image(), brain, margin_mm=0.0)
    truth = motion(7, (6, -4, 3))
    first = coarsened(cut, 4.0)
    second = apply_transforms(cut, first, [Affine(np.linalg.inv(truth))])
    scans = []
    for seed, image in enumerate((first, second)):
        data = np.asarray(image.dataobj)
        noise = np.random.default_rng(seed).normal(0, 8, data.shape)
        scans.append(nib.Nifti1Image((data + noise * (data > 0)).astype(np.float32), image.affine))
    tool = registrar(RegistrationSettings.model_validate({"preset": "testing"}))
    direct = [tool.rigid(*pair).matrix for pair in (scans, scans[::-1])]
    points = Affine(first.affine)(np.argwhere(np.asarray(first.dataobj) > 20)[::53].astype(float))

    def apart(forth, back):
        away = Affine(forth)(points) - Affine(np.linalg.inv(back))(points)
        return float(np.linalg.norm(away, axis=1).mean())

    half, figures = zip(
        *(
            halfway_rigid(tool, *pair, matrix)
            for pair, matrix in zip((scans, scans[::-1]), direct, strict=True)
        ),
        strict=True,
    )
    assert apart(half[0].matrix, half[1].matrix) < 0.15
    assert figures[0]["inverse_consistency_mm"] < 1.0
    error = np.linalg.norm(Affine(half[0].matrix)(points) - Affine(truth)(points), axis=1).mean()
    assert error < 0.5
    np.testing.assert_allclose(rigid_part(half[0].matrix), half[0].matrix, atol=1e-9)
