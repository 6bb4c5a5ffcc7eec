"""The flavour hard: what real scans have and simulated heads lack, in stated sizes."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.phantom import glioma_scans
from corelab.phantom.conditions import (
    DIFFICULTIES,
    NEUTRAL,
    _ventricles,
    aged_head,
    draw_conditions,
    draw_tumour_conditions,
)
from corelab.phantom.design import TrialSpec
from corelab.phantom.glioma_design import GliomaSpec
from corelab.phantom.head import load_head
from corelab.phantom.protocol import protocol
from corelab.phantom.scans import _diffusion_signals, simulate_scan
from corelab.phantom.scene import build_scene
from corelab.phantom.truth import true_masks

HARD = TrialSpec(seed=5, flavour="hard")


def test_conditions_follow_the_seed_and_only_imaged_participants_have_them():
    assert set(HARD.imaged) == set(DIFFICULTIES)
    for name in DIFFICULTIES:
        assert draw_conditions(1, name) == draw_conditions(1, name) != draw_conditions(2, name)
    assert draw_conditions(1, "009") == NEUTRAL
    assert build_scene(TrialSpec.testing(), "001").conditions == NEUTRAL


def test_ventricles_have_the_volume_that_is_stated():
    head, aged = load_head(), aged_head(3.0, 0.0)
    before = float(head.csf[_ventricles(head.csf)].sum())
    gained = float((aged.csf - head.csf).sum())
    assert gained == pytest.approx(2.0 * before, rel=0.2)
    assert np.allclose(
        aged.grey + aged.white + aged.csf, head.grey + head.white + head.csf, atol=1e-5
    )


def test_a_shower_is_many_small_infarcts_of_the_planned_volume():
    masks, view = true_masks(build_scene(HARD, "004"), "baseline", "dwi")
    planned = build_scene(HARD, "004").participant.lesion.core_ml
    assert masks["infarct"].sum() * view.voxel_ml == pytest.approx(planned, rel=0.35)
    assert ndimage.label(masks["infarct"])[1] >= 4


def test_a_gain_error_moves_the_adc_of_all_tissue():
    scene = build_scene(HARD, "002")
    b0, dwi, view = _diffusion_signals(scene, "baseline")
    infarct = true_masks(scene, "baseline", "dwi")[0]["infarct"]
    tissue = view.average(view.sample(scene.head.grey + scene.head.white)) > 0.98
    adc = np.log(b0 / dwi)[tissue & ~ndimage.binary_dilation(infarct, iterations=3)] / 1000
    assert np.median(adc) == pytest.approx(0.78e-3 * scene.conditions.adc_gain, rel=0.04)


def test_a_cut_off_head_loses_its_crown_and_thick_slices_are_thick():
    cut = protocol(HARD, "006", "baseline", "dwi")
    height = cut.shape[2] * cut.voxel_mm[2]
    assert height <= 160 - draw_conditions(5, "006").cut_off_mm + cut.voxel_mm[2]
    brain = true_masks(build_scene(HARD, "006"), "baseline", "dwi")[0]["brain"]
    assert brain[:, :, -1].sum() > 0.5 * brain.sum(axis=(0, 1)).max()
    assert 8.0 <= protocol(HARD, "001", "baseline", "ncct").voxel_mm[2] <= 9.0


def test_dwi_alone_is_a_visit(tmp_path):
    assert HARD.schedule["005"] == {"baseline": ("dwi",)}
    image = nib.load(simulate_scan(HARD, "005", "baseline", "dwi", tmp_path / "a.nii.gz"))
    assert image.shape == protocol(HARD, "005", "baseline", "dwi").shape


@pytest.mark.parametrize("name", ["002", "003"])
def test_exports_are_stripped_or_z_scored(tmp_path, name):
    spec = GliomaSpec(seed=5, flavour="hard")
    path = glioma_scans.simulate_scan(spec, name, "preop", "T1c", tmp_path / "a.nii.gz")
    voxels = np.asarray(nib.load(path).dataobj)
    background = voxels.flat[0]
    share = float((voxels == background).mean())
    assert share > 0.5
    assert (background < 0) == (draw_tumour_conditions(5, name).export == "z-scored")


def test_a_silent_sector_is_tumour_that_does_not_enhance():
    hard, plain = GliomaSpec(seed=5, flavour="hard"), GliomaSpec(seed=5)
    assert draw_tumour_conditions(5, "002").silent > -1
    silent = glioma_scans.true_masks(hard, "002", "preop")[0]
    whole = glioma_scans.true_masks(plain, "002", "preop")[0]
    assert silent["enhancing"].sum() < 0.9 * whole["enhancing"].sum()
    assert silent["whole-tumour"].sum() == pytest.approx(whole["whole-tumour"].sum(), rel=0.2)
