"""Planted lesions: shape, volume, contrast, place; and the statistics of what is found of them."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers import REPOSITORY

from corelab.imaging.planting import LESIONS, SITES, NoSpace, Placed, background, plant
from corelab.imaging.shapes import draw_shape, mask_shape, place, shape_model
from corelab.measurement.recovery import (
    _compared,
    recover_visit,
    recovery_summary,
    recovery_table,
)
from corelab.measurement.recovery_targets import TARGETS, targets_of
from corelab.records.images import Prepared, Scan
from corelab.records.measured import Recovered
from corelab.settings.measurement import RecoverySettings
from corelab.settings.segmentation import SegmentationSettings
from corelab.study.schema import load_schema

SETTINGS = RecoverySettings()


def head(spacing=(2.0, 2.0, 4.0)):
    """A ball of brain with fluid in the middle, on a grid of thick slices, with noise."""
    sizes = np.asarray(spacing)
    shape = tuple(int(n) for n in np.rint(180 / sizes))
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -90
    where = [np.arange(n) * s - 90 + s / 2 for n, s in zip(shape, sizes, strict=True)]
    x, y, z = np.meshgrid(*where, indexing="ij")
    brain = (x / 68) ** 2 + (y / 84) ** 2 + (z / 66) ** 2 < 1
    skull = ((x / 73) ** 2 + (y / 89) ** 2 + (z / 71) ** 2 < 1) & ~brain
    fluid = (x / 12) ** 2 + (y / 25) ** 2 + (z / 12) ** 2 < 1
    noise = np.random.default_rng(5).normal(0, 1, shape)
    adc = np.where(fluid, 3.0e-3, 0.8e-3) + 2e-5 * noise
    b0 = np.where(brain, np.where(fluid, 900.0, 400.0), 0.0)
    images = {
        "adc": adc * brain,
        "b0": b0 + 4 * noise * brain,
        "dwi": np.where(brain, b0 * np.exp(-1000 * adc), 0.0) + 3 * noise * brain,
        "FLAIR": np.where(fluid, 30.0, 200.0) * brain + 5 * noise * brain,
        "ncct": np.where(brain, np.where(fluid, 6.0, 32.0), np.where(skull, 900.0, -1000.0))
        + 3 * noise,
    }
    return images, affine, brain, fluid


@pytest.fixture(scope="module")
def scans():
    images, affine, brain, _fluid = head()
    return {
        name: background(
            {k: images[k] for k in kinds}, affine, brain, np.zeros_like(brain), b_value=1000.0
        )
        for name, kinds in {
            "infarct_diffusion": ("dwi", "adc", "b0"),
            "infarct_flair": ("FLAIR",),
            "infarct_ct": ("ncct",),
            "haematoma": ("ncct",),
        }.items()
    }


def planted(scan, name, volume, site, seed=1):
    random = np.random.default_rng(seed)
    return plant(scan, name, draw_shape(random, volume), volume, site, random)


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", [0.3, 4.0, 60.0])
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (2.0, 2.0, 8.0)])
def test_a_lesion_has_the_requested_volume_on_any_grid(volume, sizes):
    shape = tuple(int(160 / size) for size in sizes)
    weight = np.ones(shape, np.float32)
    lesion = draw_shape(np.random.default_rng(2), volume)
    [found] = place(lesion, [volume], (80, 80, 80), np.diag([*sizes, 1.0]), weight)
    voxel_ml = np.prod(sizes) / 1000
    assert abs(found.volume_ml - volume) <= 0.03 * volume + voxel_ml
    assert abs(found.fraction.sum() * voxel_ml - volume) <= 0.01 * volume
    assert found.fraction.min() >= 0 and found.fraction.max() <= 1 + 1e-6


def test_the_seed_alone_decides_the_lesion():
    def lesion(seed):
        shape = draw_shape(np.random.default_rng(seed), 6.0)
        free = np.ones((81,) * 3, np.float32)
        [placed] = place(shape, [6.0], [40.0] * 3, np.eye(4), free)
        return placed.mask(free.shape)

    assert (lesion(3) == lesion(3)).all()
    assert (lesion(3) != lesion(4)).any()


def test_a_lesion_stays_where_it_may_and_encloses_the_smaller_one():
    weight = np.ones((60, 60, 60), np.float32)
    weight[:30] = 0
    shape = draw_shape(np.random.default_rng(1), 8.0)
    small, large = place(shape, [4.0, 8.0], (64, 60, 60), np.diag([2.0, 2, 2, 1]), weight)
    assert large.volume_ml == pytest.approx(8.0, rel=0.01)
    assert not large.mask((60, 60, 60))[:30].any()
    assert (large.fraction - small.fraction).min() > -1e-5


def test_tissue_without_space_is_refused():
    weight = np.zeros((40, 40, 40), np.float32)
    weight[18:22, 18:22, 18:22] = 1
    with pytest.raises(ValueError, match="no space"):
        place(draw_shape(np.random.default_rng(1), 20.0), [20.0], (40, 40, 40),
              np.diag([2.0, 2, 2, 1]), weight)  # fmt: skip


def test_a_supplied_mask_keeps_its_shape_at_another_volume():
    x, y, z = np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij")
    rod = (abs(x) <= 12) & (abs(y) <= 3) & (abs(z) <= 3)
    grid = np.ones((80, 80, 80), np.float32)
    [found] = place(mask_shape(rod, (1, 1, 1), 4.0), [4.0], (40, 40, 40), np.eye(4), grid)
    extents = np.ptp(np.argwhere(found.fraction > 0.5), axis=0) + 1
    assert found.volume_ml == pytest.approx(4.0, rel=0.01)
    # 25 x 7 x 7 mm are 1.2 mL; at 4 mL each length is 1.48 times as long.
    assert extents == pytest.approx([37, 10.4, 10.4], abs=2)


def test_the_shipped_model_holds_numbers_with_source_and_licence():
    text = json.loads((REPOSITORY / "resources/shapes/soop.json").read_text())
    assert "ds004889" in text["source"] and "BSD-2" in text["licence"]
    places = shape_model().territories
    assert sum(p.probability for p in places) == pytest.approx(1.0)
    left = {p.name.removesuffix(" left"): p for p in places if p.name.endswith(" left")}
    assert all(p.centre_mm[0] <= 0 for p in left.values())
    assert {"frontal pars of middle cerebral artery", "inferior cerebellar"} <= set(left)


@pytest.mark.parametrize("source", ["model", "mask"])
def test_the_simulated_trial_takes_shapes(source, tmp_path):
    from corelab.phantom.anatomy import make_anatomy
    from corelab.phantom.head import load_head
    from corelab.phantom.lesion import LesionPlan, make_lesion, subject_points, tissue_at

    shapes = ["model"]
    if source == "mask":
        x, y, z = np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij")
        mask = nib.Nifti1Image((np.hypot(x, y) + abs(z) < 15).astype(np.uint8), np.eye(4))
        shapes = [str(tmp_path / "shape.nii.gz")]
        nib.save(mask, shapes[0])
    anatomy, whole = make_anatomy(1, "001"), load_head()
    found, usual = (
        make_lesion(1, anatomy, whole, LesionPlan(-1, 10.0, 20.0, 60.0, 20.0, shapes=given))
        for given in (tuple(shapes), ())
    )
    points = subject_points(anatomy, step_mm=3.0)
    tissue = tissue_at(whole, points)
    lesion, territory = (one.fractions(points, "infarct")[0] * tissue for one in (found, usual))
    assert lesion.sum() * 0.027 == pytest.approx(20.0, rel=0.03)
    assert np.abs(lesion - territory).sum() > 0.2 * lesion.sum()
    assert (lesion * points[0]).sum() < 0


# --- planting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LESIONS)
@pytest.mark.parametrize("volume", [1.0, 15.0])
def test_nothing_but_the_lesion_changes(scans, name, volume):
    found = planted(scans[name], name, volume, "cortical")
    voxel_ml = 0.016
    assert abs(found.lesion.volume_ml - volume) <= 0.03 * volume + voxel_ml
    share = np.zeros(scans[name].brain.shape)
    share[found.lesion.box] = found.lesion.fraction
    for kind, image in found.images.items():
        before = scans[name].images[kind]
        changed = image != before
        if name != "haematoma":  # the rim of oedema lies outside the blood
            assert not changed[share == 0].any()
        assert not changed[~scans[name].brain].any()
        assert image[~changed].tobytes() == before[~changed].tobytes()
        assert changed[share > 0.5].mean() > 0.99


def test_the_same_seed_plants_the_same(scans):
    one, two = (planted(scans["haematoma"], "haematoma", 5.0, "deep", 7) for _ in range(2))
    assert one.images["ncct"].tobytes() == two.images["ncct"].tobytes()
    other = planted(scans["haematoma"], "haematoma", 5.0, "deep", 8)
    assert other.centre_mm != one.centre_mm


def test_diffusion_has_its_contrast_and_stays_consistent(scans):
    scan = scans["infarct_diffusion"]
    found = planted(scan, "infarct_diffusion", 15.0, "deep")
    inside = np.zeros(scan.brain.shape, bool)
    inside[found.lesion.box] = found.lesion.fraction > 0.98
    factor, shine = found.drawn["adc_factor"], found.drawn["s0_factor"]
    ratio = found.images["adc"][inside].mean() / scan.images["adc"][inside].mean()
    assert 0.45 <= factor <= 0.75 and ratio == pytest.approx(factor, abs=0.02)
    brighter = found.images["dwi"][inside].mean() / scan.images["dwi"][inside].mean()
    assert brighter == pytest.approx(shine * np.exp(0.8 * (1 - factor)), rel=0.03)
    # S0 = DWI exp(b ADC) is that of the changed b0.
    s0 = found.images["dwi"][inside] * np.exp(1000 * found.images["adc"][inside])
    assert s0.mean() == pytest.approx(found.images["b0"][inside].mean(), rel=0.03)
    # The noise is the scan's own, neither smoothed nor scaled.
    added = found.images["dwi"][inside] - scan.images["dwi"][inside]
    assert np.std(added) < 0.35 * np.mean(added)
    fluid = scan.images["adc"] > 2.4e-3
    assert not (inside & fluid).any()


def test_an_adc_of_wrong_gain_gets_the_same_contrast(scans):
    scan = scans["infarct_diffusion"]
    wrong = background(
        {**scan.images, "adc": 1.5 * scan.images["adc"]}, scan.affine, scan.brain,
        np.zeros_like(scan.brain),
    )  # fmt: skip
    one, two = (planted(s, "infarct_diffusion", 15.0, "deep") for s in (scan, wrong))
    assert np.allclose(two.images["dwi"], one.images["dwi"], rtol=0.02, atol=2.0)
    assert np.allclose(two.images["adc"], 1.5 * one.images["adc"], rtol=0.02, atol=1e-5)


def test_blood_and_partial_volume_in_thick_slices(scans):
    scan = scans["haematoma"]
    found = planted(scan, "haematoma", 15.0, "deep")
    share, image = found.lesion.fraction, found.images["ncct"][found.lesion.box]
    assert image[share > 0.98].mean() == pytest.approx(found.drawn["blood_hu"], abs=1.0)
    half = (share > 0.4) & (share < 0.6)
    assert half.sum() > 20
    middle = 0.5 * (found.drawn["blood_hu"] + 32.0)
    assert image[half].mean() == pytest.approx(middle, abs=4.0)


@pytest.mark.parametrize("site", SITES)
def test_lesions_lie_at_their_site(scans, site):
    from scipy import ndimage

    scan = scans["haematoma"]
    depth = ndimage.distance_transform_edt(scan.brain, sampling=scan.sizes_mm)
    for seed in range(4):
        found = planted(scan, "haematoma", 2.0, site, seed)
        x, y, z = found.centre_mm
        here = np.rint(np.linalg.solve(scan.affine, [x, y, z, 1])[:3]).astype(int)
        deep = depth[tuple(here)]
        if site == "deep":
            assert deep > 16
        elif site == "posterior_fossa":
            assert z < -15 and y < 0
        else:
            assert deep < 20
        touches = depth[found.lesion.box][found.lesion.fraction > 0.3].min() < 6
        assert touches or site != "bone"


def test_known_lesions_are_kept_away_from(scans):
    scan = scans["infarct_flair"]
    lesions = np.zeros_like(scan.brain)
    lesions[: scan.brain.shape[0] // 2] = True
    kept = background(scan.images, scan.affine, scan.brain, lesions)
    for seed in range(4):
        found = planted(kept, "infarct_flair", 8.0, "cortical", seed)
        assert not (found.lesion.mask(scan.brain.shape) & lesions).any()
    with pytest.raises(NoSpace, match="no brain is free"):
        background(scan.images, scan.affine, scan.brain, scan.brain)


def test_a_site_that_the_scan_does_not_show_is_said(scans):
    scan = scans["infarct_ct"]
    upper = scan.brain.copy()
    upper[:, :, : int(0.6 * upper.shape[2])] = False
    with pytest.raises(NoSpace, match="posterior_fossa: the scan shows no free brain"):
        planted(
            background(scan.images, scan.affine, upper, ~upper & False), "infarct_ct", 5.0,
            "posterior_fossa",
        )  # fmt: skip


# --- a visit -------------------------------------------------------------------------------------


def visit(folder, images, affine, brain):
    """Record of the stage prepare for images that are written here."""
    scans = []
    for kind, image in images.items():
        path = f"{kind}.nii.gz"
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / path)
        scans.append(Scan(kind, kind, grid="g1", path=path, sha256="x", shape=image.shape))
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), folder / "brain.nii.gz")
    masks = {"g1": "brain.nii.gz"}
    return Prepared("1", "a", scans=tuple(scans), reference="g1", brain_masks=masks)


def test_a_visit_is_planted_segmented_and_left_as_it_was(tmp_path):
    images, affine, brain, _ = head((2.5, 2.5, 5.0))
    record = visit(tmp_path, {"ncct": images["ncct"]}, affine, brain)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    settings = RecoverySettings(labels=["haematoma"], sizes_ml=[8.0], per_size=2)
    runs = [
        recover_visit(
            record,
            tmp_path,
            disease="stroke",
            segmentation=SegmentationSettings(),
            settings=settings,
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    rows = runs[0].rows
    assert [row["site"] for row in rows] == ["deep", "cortical"]
    for row in rows:
        assert row["status"] == "ok" and row["detected"] == 1
        assert row["found_ml"] == pytest.approx(8.0, rel=0.25) and row["dice"] > 0.8


def test_a_failed_scan_and_a_visit_without_a_segmenter_are_rows(tmp_path):
    images, affine, brain, _ = head((4.0, 4.0, 6.0))
    record = visit(tmp_path, {"FLAIR": images["FLAIR"], "T1w": images["FLAIR"]}, affine, brain)
    record = replace(record, brain_masks={})
    found = recover_visit(
        record, tmp_path, disease="stroke", segmentation=SegmentationSettings(), settings=SETTINGS
    )
    [row] = found.rows
    assert row["status"] == "not_computable" and "no brain mask" in row["reason"]
    record = replace(record, scans=record.scans[1:])
    found = recover_visit(
        record, tmp_path, disease="stroke", segmentation=SegmentationSettings(), settings=SETTINGS
    )
    [row] = found.rows
    assert row["status"] == "not_computable" and "no lesion is planted into T1w" in row["reason"]
    summary = recovery_summary(recovery_table([found]))
    assert summary.empty


# --- statistics ----------------------------------------------------------------------------------


def row(found, hit, *, site="deep", size=2.0, status="ok", dice=0.8, visit="a"):
    return {
        "participant_id": "1", "visit": visit, "kind": "dwi", "endpoint": "infarct_volume",
        "source": "pipeline", "site": site, "size_ml": size, "status": status,
        "planted_ml": size, "found_ml": found, "detected": hit, "dice": dice, "elsewhere_ml": 0.1,
    }  # fmt: skip


def test_summary_against_hand_computed_values():
    rows = [row(2.5, 1, dice=0.9), row(1.5, 1, dice=0.7), row(2.0, 1), row(0.0, 0, dice=0.0)]
    rows += [row(None, None, status="failed"), row(6.0, 1, site="bone", size=5.0, visit="b")]
    table = recovery_summary(recovery_table([Recovered("1", "a", tuple(rows))]))
    deep = table[(table["site"] == "deep") & (table["size_ml"] == 2.0)].iloc[0]
    assert (deep["n"], deep["n_failed"], deep["n_detected"], deep["n_visits"]) == (4, 1, 3, 1)
    # Clopper-Pearson of 3 in 4 (printed: 0.1941 to 0.9937).
    assert deep["detection_rate"] == 0.75
    assert deep["detection_ci_low"] == pytest.approx(0.1941, abs=1e-4)
    assert deep["detection_ci_high"] == pytest.approx(0.9937, abs=1e-4)
    # Differences .5, -.5, 0, -2: mean -.5, SD sqrt(3.5 / 3).
    assert deep["bias_ml"] == pytest.approx(-0.5) and deep["bias_percent"] == pytest.approx(-25.0)
    assert deep["sd_ml"] == pytest.approx(np.sqrt(3.5 / 3))
    assert deep["limits_high_ml"] == pytest.approx(-0.5 + 1.96 * np.sqrt(3.5 / 3))
    assert deep["dice_median"] == pytest.approx(0.8)
    whole = table[(table["site"] == "all") & table["size_ml"].isna()].iloc[0]
    assert (whole["n"], whole["n_detected"], whole["n_visits"]) == (5, 4, 2)
    one = table[(table["site"] == "bone") & (table["size_ml"] == 5.0)].iloc[0]
    assert one["bias_ml"] == 1.0 and np.isnan(one["sd_ml"])


def test_the_schema_allows_exactly_what_can_be_planted():
    keys = load_schema("config")["properties"]["recovery"]["properties"]
    assert set(keys["kinds"]["items"]["enum"]) == {target.kind for target in TARGETS}
    assert set(keys["labels"]["items"]["enum"]) == {target.label for target in TARGETS}
    assert set(keys["sites"]["items"]["enum"]) == set(SITES)
    assert {target.planted for target in TARGETS} == set(LESIONS)
    assert [t.label for t in targets_of("stroke", ["ncct"], RecoverySettings(labels=["infarct"]))]


def test_half_of_a_planted_lesion_is_found():
    share = np.zeros((4, 4, 4), np.float32)
    share[:2] = 1
    mask = np.zeros((4, 4, 4), bool)
    mask[0] = True
    found = _compared(Placed((slice(0, 4),) * 3, share, 32.0), mask, mask & False, 1.0)
    assert (found.found_ml, found.elsewhere_ml, found.covered) == (16.0, 0.0, 0.5)
    assert found.dice == pytest.approx(2 / 3)
