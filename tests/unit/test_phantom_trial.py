"""The simulated trial: is its truth what it says, and do its images and sheets follow from it?"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import REPOSITORY
from phantom_truth import scan_to_template, template_mask, template_to_scan, write_truth_images

from corelab.phantom.anatomy import make_anatomy
from corelab.phantom.contours import reader_contour
from corelab.phantom.design import TrialSpec, enrol, volume_readings
from corelab.phantom.head import ORIGIN_MM, load_head
from corelab.phantom.kinetics import (
    DENSITY_G_ML,
    FAMILIES,
    HAEMATOCRIT_FACTOR,
    Bolus,
    residue,
    tissue_curves,
)
from corelab.phantom.lesion import subject_points, tissue_at
from corelab.phantom.protocol import grid_affine, placement, protocol
from corelab.phantom.scans import perfusion_truth, simulate_scan
from corelab.phantom.scene import build_scene, view_scan
from corelab.phantom.trial import scan_path, sheets, write_sheets
from corelab.phantom.truth import trial_truth, true_masks
from corelab.provenance.products import file_sha256

SMALL = TrialSpec.testing()
FULL = TrialSpec()


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Testing-flavour scans by (participant, visit, kind), made once."""
    folder = tmp_path_factory.mktemp("phantom")
    made = {}

    def get(participant_id, visit, kind):
        key = (participant_id, visit, kind)
        if key not in made:
            path = folder / scan_path(*key)
            made[key] = simulate_scan(SMALL, *key, path)
        return made[key]

    return get


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def brain_points():
    inside = np.argwhere(load_head().brain[::9, ::9, ::9] > 0.5) * 9.0
    return inside + np.asarray(ORIGIN_MM)


# Anatomy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("participant_id", ["001", "002"])
def test_mapping_to_the_template_can_be_inverted(participant_id, brain_points):
    anatomy = make_anatomy(FULL.seed, participant_id)
    subject = anatomy.to_subject(brain_points)
    assert np.abs(anatomy.to_template(subject) - brain_points).max() < 0.01
    assert np.abs(anatomy.to_subject(anatomy.to_template(subject)) - subject).max() < 0.05


@pytest.mark.parametrize("participant_id", ["001", "002", "004"])
def test_deformation_is_as_large_as_between_people_and_does_not_fold(participant_id, brain_points):
    anatomy = make_anatomy(FULL.seed, participant_id)
    length = np.linalg.norm(anatomy._displace(brain_points), axis=1)
    assert 3.0 < length.mean() < 4.0
    assert np.percentile(length, 95) < 7.0
    step = 0.5
    columns = [
        (anatomy.to_template(brain_points + e) - anatomy.to_template(brain_points - e)) / (2 * step)
        for e in step * np.eye(3)
    ]
    jacobian = np.linalg.det(np.stack(columns, axis=-1))
    assert jacobian.min() > 0.5
    assert jacobian.max() < 2.0
    scale = np.linalg.norm(anatomy.linear, axis=0)
    assert np.abs(scale - 1).max() <= 0.05


def test_grid_mapping_agrees_with_the_exact_mapping():
    anatomy = make_anatomy(FULL.seed, "001")
    affine = np.diag([1.2, 1.2, 5.0 / 3, 1.0])
    affine[:3, 3] = (-90, -130, -70)
    field = anatomy.grid_to_template(affine, (150, 190, 90))
    index = np.stack(
        np.meshgrid(*(np.arange(3, n, 17) for n in field.shape[1:]), indexing="ij"), -1
    )
    world = index @ affine[:3, :3].T + affine[:3, 3]
    approximate = np.moveaxis(field, 0, -1)[tuple(np.moveaxis(index, -1, 0))]
    error = np.linalg.norm(approximate - anatomy.to_template(world), axis=-1)
    assert error.mean() < 0.03
    assert error.max() < 0.2


def test_scan_to_template_and_back(brain_points):
    there = template_to_scan(SMALL, "001", "baseline", "ctp", brain_points)
    back = scan_to_template(SMALL, "001", "baseline", "ctp", there)
    assert np.abs(back - brain_points).max() < 0.05


def test_template_lesion_carried_to_the_scan_is_the_lesion_on_the_scan():
    scene = build_scene(SMALL, "001")
    masks, view = true_masks(scene, "day5", "dwi")
    truth = template_mask(SMALL, "001", "infarct")
    index = np.argwhere(masks["infarct"])
    world = index @ view.affine[:3, :3].T + view.affine[:3, 3]
    where = scan_to_template(SMALL, "001", "day5", "dwi", world) - np.asarray(ORIGIN_MM)
    hit = np.asarray(truth.dataobj)[tuple(np.rint(where).astype(int).T)]
    # Voxel centres of the mask, border voxels of 6 mm slices among them.
    assert hit.mean() > 0.92


# Lesions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("participant_id", ["001", "002"])
def test_lesion_has_the_planned_volume_in_the_participants_own_space(participant_id):
    scene = build_scene(SMALL, participant_id)
    points = subject_points(scene.anatomy)
    tissue = tissue_at(scene.head, points)
    plan = scene.participant.lesion
    names = ("core", "infarct", "hypoperfused")
    regions = scene.lesion.fractions(points, *names)
    for region, wanted in zip(
        regions, (plan.core_ml, plan.infarct_ml, plan.hypoperfused_ml), strict=True
    ):
        assert float((region * tissue).sum(dtype=float)) * 0.008 == pytest.approx(wanted, abs=0.05)
    assert np.all(regions[0] <= regions[1])
    assert np.all(regions[1] <= regions[2])


def test_lesion_stays_on_its_side():
    for participant_id in ("001", "002"):  # right and left
        scene = build_scene(SMALL, participant_id)
        points = subject_points(scene.anatomy)
        region = scene.lesion.fractions(points, "hypoperfused")[0] * tissue_at(scene.head, points)
        other = (points[0] * scene.lesion.plan.side) < 0
        assert region[other].sum() < 0.01 * region.sum()


@pytest.fixture(scope="module")
def truth():
    return trial_truth(SMALL)


def test_true_volume_on_the_scan_grids_is_the_planned_volume_within_partial_volume(truth):
    planned = truth[truth["kind"].isna()].set_index(["participant_id", "visit", "endpoint"])[
        "value"
    ]
    counted = truth[truth["kind"].notna()]
    checked = 0
    for row in counted.itertuples():
        if row.endpoint in ("infarct_volume", "core_volume", "hypoperfused_volume"):
            wanted = planned[row.participant_id, row.visit, row.endpoint]
            assert row.value == pytest.approx(wanted, rel=0.04), row
            checked += 1
    assert checked == 11


def test_truth_table_holds_the_built_in_effects(truth):
    effects = truth[truth["participant_id"] == "all"].set_index("endpoint")["value"]
    assert effects["dose_slope:infarct_growth"] == FULL.growth_slope_ml_per_mg_kg
    assert effects["bias:reader-1|reader-2"] == 2.5
    assert not truth.duplicated(["participant_id", "visit", "endpoint", "kind"]).any()


# Scans -----------------------------------------------------------------------------------------


def test_a_scan_has_the_same_bytes_every_time(scans, tmp_path):
    for kind in ("dwi", "ctp"):
        first = scans("001", "baseline", kind)
        build_scene.cache_clear()
        make_anatomy.cache_clear()
        second = simulate_scan(SMALL, "001", "baseline", kind, tmp_path / first.name)
        assert file_sha256(first) == file_sha256(second)
        assert (
            first.with_name(first.name.replace(".nii.gz", ".json")).read_bytes()
            == second.with_name(second.name.replace(".nii.gz", ".json")).read_bytes()
        )


def test_another_seed_gives_another_participant(scans, tmp_path):
    other = simulate_scan(
        TrialSpec.testing(seed=5), "001", "baseline", "dwi", tmp_path / "sub-001_dwi.nii.gz"
    )
    assert file_sha256(other) != file_sha256(scans("001", "baseline", "dwi"))


def test_adc_is_the_logarithm_of_the_written_images(scans):
    b0, dwi, adc = (voxels(scans("001", "baseline", k)) for k in ("b0", "dwi", "adc"))
    brain = true_masks(build_scene(SMALL, "001"), "baseline", "dwi")[0]["brain"]
    use = brain & (adc > 0) & (adc < 3.9e-3) & (dwi > 100)
    recomputed = np.log(b0[use] / dwi[use]) / 1000
    # Signals are written as whole numbers of several hundred: 0.5 / 100 / 1000 at most.
    assert np.abs(recomputed - adc[use]).max() < 1e-5


def test_adc_values_are_physiological(scans):
    adc = voxels(scans("001", "baseline", "adc"))
    scene = build_scene(SMALL, "001")
    masks, view = true_masks(scene, "baseline", "dwi")
    white = view.average(view.sample(scene.head.white)) > 0.97
    core = masks["infarct"]
    pure = view.average(view.sample(scene.head.grey + scene.head.white)) > 0.99
    assert np.median(adc[white & ~core]) == pytest.approx(0.74e-3, abs=0.02e-3)
    assert np.median(adc[core & pure]) == pytest.approx(
        scene.participant.adc_core_mm2_s, abs=0.04e-3
    )
    ventricle = view.average(view.sample(scene.head.csf)) > 0.99
    assert np.median(adc[ventricle]) == pytest.approx(3.0e-3, rel=0.1)


def test_ct_shows_bone_tissue_and_blood_in_hounsfield_units(scans):
    hu = voxels(scans("002", "day5", "ncct"))
    scene = build_scene(SMALL, "002")
    masks, view = true_masks(scene, "day5", "ncct")
    assert hu.min() == -1024 or hu.min() < -950
    assert np.percentile(hu, 99.5) > 700
    blood = view.average(scene.lesion.blood(view.template_mm)) > 0.99
    assert blood.sum() > 20
    assert 60 < hu[blood].mean() < 68
    white = view.average(view.sample(scene.head.white)) > 0.99
    infarct = view.average(scene.lesion.fractions(view.template_mm, "infarct")[0])
    assert hu[white & (infarct < 0.01)].mean() == pytest.approx(29, abs=1.0)
    assert masks["haematoma"].sum() * view.voxel_ml == pytest.approx(14.0, rel=0.06)


def test_flair_is_bright_in_the_infarct_at_day_5(scans):
    signal = voxels(scans("001", "day5", "FLAIR")).astype(float)
    scene = build_scene(SMALL, "001")
    masks, view = true_masks(scene, "day5", "FLAIR")
    pure = view.average(view.sample(scene.head.grey + scene.head.white)) > 0.95
    assert signal[masks["infarct"] & pure].mean() > 1.5 * signal[pure & ~masks["infarct"]].mean()


def test_sidecars_say_how_the_scan_was_acquired(scans):
    def sidecar(kind):
        path = scans("001", "baseline", kind)
        return json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())

    assert sidecar("dwi")["b_value"] == 1000
    assert sidecar("dwi")["echo_time_s"] == 0.085
    ctp = sidecar("ctp")
    assert ctp["unit"] == "HU"
    assert ctp["frame_times_s"] == [2.0 * i for i in range(30)]
    assert nib.load(scans("001", "baseline", "ctp")).header["pixdim"][4] == 2.0


def test_full_flavour_has_the_voxel_sizes_of_the_charter():
    assert protocol(FULL, "001", "baseline", "dwi").voxel_mm == (1.2, 1.2, 5.0)
    ctp = protocol(FULL, "001", "baseline", "ctp")
    assert (ctp.voxel_mm, ctp.frames, ctp.interval_s) == ((1.2, 1.2, 5.0), 40, 1.5)
    outside = [
        (participant_id, visit, kind)
        for participant_id, visits in FULL.schedule.items()
        for visit, kinds in visits.items()
        for kind in kinds
        if protocol(FULL, participant_id, visit, kind).voxel_mm[2] > 6
    ]
    assert outside == [("005", "day5", kind) for kind in ("b0", "dwi", "adc")]


@pytest.mark.parametrize("kind", ["T1w", "dwi", "ctp", "ncct", "FLAIR"])
def test_every_affine_survives_a_nifti_header(kind):
    for participant_id, visit in (("001", "baseline"), ("002", "day5")):
        affine, _ = grid_affine(FULL, make_anatomy(FULL.seed, participant_id), visit, kind)
        header = nib.Nifti1Header()
        header.set_qform(affine, code=1)
        assert np.abs(header.get_qform() - affine).max() < 1e-5


def test_head_lies_differently_in_each_session_but_diffusion_images_share_a_grid():
    b0, adc = (placement(FULL, "001", "baseline", kind) for kind in ("b0", "adc"))
    assert np.array_equal(b0, adc)
    for visit, kind in (("day5", "b0"), ("baseline", "ncct"), ("baseline", "T1w")):
        other = placement(FULL, "001", visit, kind)
        assert np.abs(other[:3, 3] - b0[:3, 3]).max() > 0.1


# Perfusion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_area_ratio_gives_cbv_and_the_first_moment_gives_delay_and_transit(family):
    # Central volume theorem (Meier & Zierler 1954): mean of the tissue curve minus mean of the
    # arterial curve is delay + mean age of the residue's impulse response.
    times = np.arange(0, 300, 0.5)
    bolus = Bolus(second_pass=0.0)
    cbv, mtt, delay = 3.0, 5.0, 2.0
    curve = tissue_curves(
        np.array([cbv]), np.array([mtt]), np.array([delay]), times, bolus, family
    )[0]
    arterial = bolus.arterial(times)
    ratio = 100 * HAEMATOCRIT_FACTOR / DENSITY_G_ML * curve.sum() / arterial.sum()
    assert ratio == pytest.approx(cbv, rel=0.01)
    fine = np.arange(0, 300, 0.01)
    kernel = residue(family, fine, mtt)
    expected = delay + (fine * kernel).sum() / kernel.sum()
    shift = (times * curve).sum() / curve.sum() - (times * arterial).sum() / arterial.sum()
    assert shift == pytest.approx(expected, abs=0.1)


def test_arterial_peak_and_venous_lag():
    times = np.arange(0, 90, 0.1)
    bolus = Bolus(second_pass=0.0)
    arterial, venous = bolus.arterial(times), bolus.venous(times)
    assert arterial.max() == pytest.approx(bolus.peak, rel=1e-3)
    lag = (times * venous).sum() / venous.sum() - (times * arterial).sum() / arterial.sum()
    assert lag == pytest.approx(5.0, abs=0.2)  # 4.8 s (3 to 6.7 s) in ISLES18


def test_ct_perfusion_scan_carries_its_truth(scans):
    series = voxels(scans("001", "baseline", "ctp")).astype(float)
    scene = build_scene(SMALL, "001")
    truth = perfusion_truth(scene, view_scan(scene, "baseline", "ctp"))
    times = protocol(SMALL, "001", "baseline", "ctp").frame_times_s
    change = series - series[..., :4].mean(axis=-1, keepdims=True)
    clear = (truth.artery == 0) & (truth.vein == 0) & (truth.parenchyma > 0.95)
    arterial = scene.participant.bolus.arterial(times)
    for region in (clear & (truth.delay_s == 0), clear & (truth.delay_s > 6.4)):
        curve = tissue_curves(
            truth.cbv_ml_100g[region],
            truth.mtt_s[region],
            truth.delay_s[region],
            times,
            scene.participant.bolus,
            scene.participant.residue,
        ).mean(axis=0)
        seen = change[region].mean(axis=0)
        # Noise of 5 HU, smoothed by [1 2 1] on two axes: neighbours add up to 16 / 6 per SD. The
        # baseline is the mean of four frames. Largest of 60 values: below 3.7 SD.
        sd = 5.0 * (16 / 6) * np.sqrt(1.25 / region.sum())
        assert np.abs(seen - curve).max() < 3.7 * sd
    normal = clear & (truth.delay_s == 0)
    area = (
        100 * HAEMATOCRIT_FACTOR / DENSITY_G_ML * change[normal].mean(axis=0).sum() / arterial.sum()
    )
    assert area == pytest.approx(truth.cbv_ml_100g[normal].mean(), rel=0.05)


def test_core_follows_from_the_flow_whatever_the_reference():
    scene = build_scene(SMALL, "001")
    truth = perfusion_truth(scene, view_scan(scene, "baseline", "ctp"))
    normal = (truth.delay_s == 0) & (truth.parenchyma > 0.9)
    for percentile in (40, 50, 60):
        reference = np.percentile(truth.cbf_ml_100g_min[normal], percentile)
        below = (truth.cbf_ml_100g_min < 0.30 * reference) & truth.hypoperfused
        dice = 2 * (below & truth.core).sum() / (below.sum() + truth.core.sum())
        assert dice > 0.90
        assert below.sum() == pytest.approx(truth.core.sum(), rel=0.15)


def test_dsc_signal_drops_with_the_bolus_and_recovers(scans):
    series = voxels(scans("004", "baseline", "dsc")).astype(float)
    scene = build_scene(SMALL, "004")
    truth = perfusion_truth(scene, view_scan(scene, "baseline", "dsc"))
    grey = (truth.cbv_ml_100g > 3) & (truth.artery == 0) & (truth.vein == 0) & (truth.delay_s == 0)
    signal = series[grey].mean(axis=0)
    rate = -np.log(signal / signal[:4].mean()) / 0.03
    assert 5 < rate.max() < 10  # 1/s in grey matter, perfusion.md 7.2
    assert rate[-1] < 0.4 * rate.max()


def test_truth_maps_are_written(tmp_path):
    paths = write_truth_images(SMALL, "001", "baseline", "ctp", tmp_path)
    assert {
        "core",
        "hypoperfused",
        "penumbra",
        "brain",
        "cbf",
        "cbv",
        "mtt",
        "tmax",
        "delay",
    } == set(paths)
    cbf, cbv, mtt = (voxels(paths[name]) for name in ("cbf", "cbv", "mtt"))
    inside = cbf > 5
    assert np.allclose(cbv[inside] * 60 / cbf[inside], mtt[inside], atol=0.05)


# Sheets ----------------------------------------------------------------------------------------


def test_committed_sheets_are_those_of_the_default_spec(tmp_path):
    for path in write_sheets(FULL, tmp_path):
        committed = REPOSITORY / "config" / "demo" / path.name
        assert committed.read_text() == path.read_text(), (
            f"{committed.name} is out of date: corelab.phantom.write_sheets(TrialSpec(), 'config/demo')"
        )


def test_design_is_balanced_and_something_is_missing_as_in_life():
    people = enrol(FULL)
    assert len(people) == 36
    assert {arm: sum(p.arm == arm for p in people) for arm in FULL.arms} == {
        "placebo": 12,
        "low": 12,
        "high": 12,
    }
    assert {p.site for p in people[:6]} == set(FULL.sites)
    assert sum(p.withdrawn for p in people) == 1
    tables = sheets(FULL)
    scanned = tables["scans"]
    assert "006" not in set(scanned[scanned["visit"] == "day5"]["participant_id"])
    missing = tables["measurements"][tables["measurements"]["status"] == "missing"]
    assert set(missing["participant_id"]) == {"006", "017"}
    assert missing["value"].isna().all()
    assert missing["reason"].notna().all()


def test_scan_rows_are_unique_and_contours_come_in_pairs():
    scanned = sheets(FULL)["scans"]
    assert not scanned.duplicated(["participant_id", "visit", "kind", "reader", "repeat"]).any()
    assert not scanned.duplicated("path").any()
    contours = scanned[scanned["kind"] == "mask-infarct"]
    assert contours.groupby("participant_id")["reader"].apply(list).to_dict() == {
        "001": ["reader-1", "reader-2"],
        "003": ["reader-1", "reader-2"],
    }


@pytest.mark.parametrize("source", ["software-b", "reader-1"])
def test_dose_effect_is_recovered_from_the_tables(source):
    slope, low, high = fitted_slope(FULL, source)
    assert low < FULL.growth_slope_ml_per_mg_kg < high
    assert high < 0  # the trial can tell that the drug works
    assert slope == pytest.approx(FULL.growth_slope_ml_per_mg_kg, abs=2.5)


def test_dose_effect_is_unbiased_over_many_trials():
    slopes = [fitted_slope(TrialSpec(seed=seed), "software-b") for seed in range(40)]
    estimates = np.array([slope for slope, _, _ in slopes])
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    assert abs(estimates.mean() - FULL.growth_slope_ml_per_mg_kg) < 3 * error
    covered = np.mean([low < FULL.growth_slope_ml_per_mg_kg < high for _, low, high in slopes])
    assert covered >= 0.85  # 95 % interval; 40 trials


def fitted_slope(spec, source):
    """Least squares of infarct growth on dose with its 95 % interval."""
    from scipy import stats

    tables = sheets(spec)
    table, column = (
        (tables["reads"], "reader")
        if source.startswith("reader")
        else (tables["measurements"], "source")
    )
    rows = table[
        (table[column] == source) & (table["endpoint"] == "infarct_volume") & (table["repeat"] == 1)
    ]
    wide = (
        rows.pivot(index="participant_id", columns="visit", values="value").astype(float).dropna()
    )
    dose = tables["participants"].set_index("participant_id")["dose"].reindex(wide.index)
    fit = stats.linregress(dose, wide["day5"] - wide["baseline"])
    half = stats.t.ppf(0.975, len(wide) - 2) * fit.stderr
    return fit.slope, fit.slope - half, fit.slope + half


def test_readers_err_as_stated():
    errors: dict[str, list[float]] = {}
    for seed in range(6):
        spec = TrialSpec(seed=seed)
        lesions = {p.participant_id: p.lesion for p in enrol(spec)}
        for (participant_id, visit, reader, _), value in volume_readings(spec).items():
            lesion = lesions[participant_id]
            truth = lesion.core_ml if visit == "baseline" else lesion.infarct_ml
            errors.setdefault(reader, []).append(value - truth)
    for rater in FULL.readers:
        found = np.array(errors[rater.name])
        assert found.mean() == pytest.approx(
            rater.bias_ml, abs=4 * rater.sd_ml / np.sqrt(found.size)
        )
        assert found.std() == pytest.approx(rater.sd_ml, rel=0.1)


def test_a_contour_has_the_volume_of_its_reading_and_overlaps_the_truth():
    scene = build_scene(SMALL, "001")
    truth = true_masks(scene, "day5", "dwi")[0]["infarct"]
    drawn = []
    for reader in FULL.readers:
        mask, view = reader_contour(scene, "day5", "mask-infarct", reader.name)
        wanted = volume_readings(SMALL)["001", "day5", reader.name, 1]
        assert mask.sum() * view.voxel_ml == pytest.approx(wanted, abs=0.2)
        assert 0.8 < 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) < 0.99
        drawn.append(mask)
    assert not np.array_equal(*drawn)


def test_unknown_settings_and_scans_are_told(tmp_path):
    with pytest.raises(ValueError, match="flavour"):
        TrialSpec(flavour="tiny")
    with pytest.raises(KeyError, match="not in the simulated trial"):
        simulate_scan(SMALL, "999", "baseline", "dwi", tmp_path / "x.nii.gz")
    with pytest.raises(KeyError, match="no reading"):
        simulate_scan(SMALL, "001", "day5", "mask-infarct", tmp_path / "x.nii.gz", reader="nobody")
    with pytest.raises(KeyError, match="not simulated"):
        simulate_scan(SMALL, "001", "baseline", "pet", tmp_path / "x.nii.gz")
