"""Features: hand-computed toy volumes, invariances, bad input, the long table."""

from __future__ import annotations

import contextlib
import logging
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, planned

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.risk_score import _feature_table as selected_features
from corelab.radiomics import features
from corelab.radiomics.features import (
    FeatureSettings,
    _ibsi_name,
    _mirp_table,
    _spatial_autocorrelation,
    extract_features,
    feature_rows,
)
from corelab.radiomics.normalise import grey_levels
from corelab.radiomics.visit import collect_features


def volume(values, sizes=(1.0, 1.0, 1.0)):
    return nib.Nifti1Image(np.asarray(values, np.float32), np.diag([*sizes, 1.0]))


KEY = {
    "participant_id": "007",
    "visit": "baseline",
    "series": "T1c",
    "label": "enhancing",
    "source": "pipeline",
}


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(5)
    levels = rng.integers(0, 6, (9, 8, 7))
    mask = np.zeros(levels.shape)
    mask[2:7, 1:7, 2:6] = 1
    mask[8, 7, 6] = 1
    return volume(levels, (1, 2, 5)), volume(mask, (1, 2, 5))


def test_toy_volume_by_hand():
    # One row of voxels 1 1 2 2 along x: pairs along x, both ways: (1,1) 2, (1,2) 1, (2,1) 1, (2,2) 2.
    image = volume(np.array([1, 1, 2, 2]).reshape(4, 1, 1), (2, 3, 4))
    mask = volume(np.ones((4, 1, 1)), (2, 3, 4))
    found = extract_features(image, mask, settings=FeatureSettings(**{"discretisation": "none"}))
    assert found["stat_mean"] == 1.5 and found["stat_var"] == 0.25
    assert found["morph_vol_approx"] == 4 * 24
    assert found["ih_entropy"] == pytest.approx(1.0)
    assert found["cm_joint_max_3D_comb"] == pytest.approx(2 / 6)
    assert found["cm_contrast_3D_comb"] == pytest.approx(2 / 6)
    assert found["cm_energy_3D_comb"] == pytest.approx((4 + 1 + 1 + 4) / 36)
    # Zones: two of size 2.
    assert found["szm_lze_3D"] == 4.0 and found["szm_z_perc_3D"] == 0.5
    # Dependence counts (with the voxel itself): 2, 2, 2, 2.
    assert found["ngl_hde_3D"] == 4.0


def test_run_lengths_by_hand_and_the_masks_for_which_there_are_none():
    # 2 x 2 x 1 voxels of one level. Runs: 2 of length 2 along x and along y; 1 of length 2 and 2
    # of length 1 along each diagonal; 4 of length 1 in each of the 9 other directions: 46 in all.
    image = volume(np.ones((4, 4, 4)))
    mask = np.zeros((4, 4, 4))
    mask[1:3, 1:3, 1] = 1
    settings = FeatureSettings(**{"discretisation": "none", "families": ["glrlm", "glcm"]})
    found = extract_features(image, volume(mask), settings=settings)
    assert found["rlm_lre_3D_comb"] == pytest.approx((2 * 4 + 2 * 4 + 2 * (4 + 2) + 36) / 46)
    assert found["rlm_r_perc_3D_comb"] == pytest.approx(46 / (4 * 13))
    for turned in (mask.transpose(2, 0, 1), mask.transpose(0, 2, 1)):
        found = extract_features(image, volume(turned), settings=settings)
        assert all(np.isnan(v) for k, v in found.items() if k.startswith("rlm_"))
        assert found["cm_joint_max_3D_comb"] == 1.0


def test_levels_from_0_give_the_texture_of_whole_numbers_from_1(texture):
    image, mask = texture
    from_0 = extract_features(image, mask)
    from_1 = extract_features(
        volume(image.get_fdata() + 1, (1, 2, 5)),
        mask,
        settings=FeatureSettings(**{"discretisation": "none"}),
    )
    assert list(from_0) == list(from_1) and len(from_0) == 145
    for name in from_0:
        if name.startswith(("cm_", "rlm_", "szm_", "ngt_", "ngl_", "ih_")):
            assert from_0[name] == from_1[name], name
    assert from_1["stat_mean"] == pytest.approx(from_0["stat_mean"] + 1, abs=1e-6)


def test_excluded_voxels_count_for_shape_only(texture):
    image, mask = texture
    values = image.get_fdata().copy()
    values[2, 1, 2] = -1
    found = extract_features(volume(values, (1, 2, 5)), mask)
    whole = extract_features(image, mask)
    assert found["morph_volume"] == whole["morph_volume"]
    inside = values[mask.get_fdata() > 0]
    assert found["stat_mean"] == pytest.approx(inside[inside >= 0].mean(), abs=1e-6)
    assert found["stat_min"] == 0


def test_same_values_every_time_and_in_a_larger_field_of_view(texture):
    rng = np.random.default_rng(2)
    values = rng.integers(0, 256, (30, 30, 12))
    mask = np.zeros(values.shape)
    mask[10:20, 10:22, 2:11] = 1  # 1080 voxels: MIRP itself would sample Moran's I
    first = extract_features(volume(values), volume(mask))
    assert extract_features(volume(values), volume(mask)) == first
    padding = ((25, 30), (40, 20), (0, 0))
    wide = extract_features(volume(np.pad(values, padding)), volume(np.pad(mask, padding)))
    assert wide == pytest.approx(first, rel=1e-9, abs=1e-9)


def test_moran_and_geary_equal_those_of_mirp_where_it_takes_all_pairs(texture, monkeypatch):
    # Otherwise MIRP is kept from going through the pairs.
    monkeypatch.setattr(features, "_without_voxel_pairs", contextlib.nullcontext)
    image, mask = texture
    settings = FeatureSettings(families=("shape",))
    region, sizes = mask.get_fdata() > 0, np.array([1.0, 2.0, 5.0])
    table = _mirp_table(image.get_fdata(), region, sizes, settings, 0.0)
    found = _spatial_autocorrelation(image.get_fdata(), region, sizes)
    for name, value in found.items():
        assert value == pytest.approx(table[name].iloc[0], rel=1e-9), name


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_moran_and_geary_equal_the_sum_over_pairs(scale):
    rng = np.random.default_rng(8)
    values = np.floor(scale * rng.gamma(3.0, 20.0, (14, 13, 12)))
    mask = rng.random(values.shape) < 0.7
    found = _spatial_autocorrelation(values, mask, np.array([1.0, 2.0, 5.0]))
    places = np.argwhere(mask) * np.array([1.0, 2.0, 5.0])
    distance = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    np.fill_diagonal(distance, np.inf)
    weights, x = 1 / distance, values[mask]
    away, n = x - x.mean(), x.size
    spread = weights.sum() * (away**2).sum()
    moran = n * away @ weights @ away / spread
    geary = (n - 1) * (weights * (x[:, None] - x[None]) ** 2).sum() / (2 * spread)
    assert found["morph_moran_i"] == pytest.approx(moran, rel=1e-9, abs=1e-12)
    assert found["morph_geary_c"] == pytest.approx(geary, rel=1e-9)


def test_bin_width_and_bin_number(texture):
    image, mask = texture
    scaled = volume(image.get_fdata() * 25.0 + 100.0, (1, 2, 5))
    plain = extract_features(image, mask, settings=FeatureSettings(**{"families": ["glcm"]}))
    for settings in (
        {"discretisation": "bin-width", "bin_width": 25.0, "lowest": 100.0},
        {"discretisation": "bin-width", "bin_width": 25.0},
        {"discretisation": "bin-number", "n_bins": 6},
    ):
        found = extract_features(
            scaled, mask, settings=FeatureSettings(**{"families": ["glcm"], **settings})
        )
        assert found == pytest.approx(plain, rel=1e-12), settings


def test_degenerate_masks_give_nan_and_no_error():
    values = np.random.default_rng(1).integers(0, 9, (6, 6, 6))
    flat, apart = np.zeros(values.shape), np.zeros(values.shape)
    flat[1:5, 1:5, 3] = 1
    apart[1, 1, 1] = apart[4, 4, 4] = 1
    found = extract_features(volume(values), volume(flat))
    assert found["morph_pca_flatness"] == 0 and np.isfinite(found["cm_contrast_3D_comb"])
    assert np.isnan(extract_features(volume(values), volume(apart))["cm_contrast_3D_comb"])
    constant = extract_features(volume(np.full(values.shape, 7)), volume(flat))
    assert constant["stat_var"] == 0 and np.isnan(constant["cm_inv_var_3D_comb"])


def test_nothing_is_printed_and_logging_stays_as_it_was(texture, capfd, recwarn):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, root.manager.disable)
    extract_features(*texture)
    assert (list(root.handlers), root.level, root.manager.disable) == before
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == "" and not recwarn.list


def test_importing_the_room_does_not_import_mirp():
    import subprocess

    library = str(REPOSITORY / "workflow" / "scripts")
    code = (
        f"import sys; sys.path.insert(0, {library!r}); import corelab.radiomics; "
        "sys.exit('mirp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _bad(change):
    values, mask = np.arange(64.0).reshape(4, 4, 4), np.ones((4, 4, 4))
    sizes = (1.0, 1.0, 1.0)
    if change == "empty":
        mask[:] = 0
    elif change == "one":
        mask[:] = 0
        mask[1, 1, 1] = 1
    elif change == "grid":
        sizes = (1.0, 1.0, 2.0)
    elif change == "shape":
        mask = np.ones((4, 4, 5))
    elif change == "labels":
        mask[0] = 2
    elif change == "share":
        mask[0] = 0.4
    elif change == "nan":
        values[0, 0, 0] = np.nan
    elif change == "fraction":
        values += 0.5
    elif change == "no levels":
        values[:] = -1
    elif change == "4D":
        values = np.ones((4, 4, 4, 2))
    return volume(values), volume(mask, sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "mask is empty"),
        ("one", "one voxel"),
        ("grid", "not on the grid"),
        ("shape", "not on the grid"),
        ("labels", "holds the value 2"),
        ("share", "holds the value 0.4"),
        ("nan", "1 of 64 voxels in the mask are not finite"),
        ("fraction", "whole numbers"),
        ("no levels", "0 of 64 voxels in the mask"),
        ("4D", "3D images"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        extract_features(*_bad(change))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": ["colour"]}, "Input should be 'shape'"),
        ({"families": []}, "at least 1 item"),
        ({"discretisation": "some"}, "Input should be 'levels', 'none'"),
        ({"aggregation": "4D"}, "Input should be '3D_comb'"),
        ({"discretisation": "bin-width"}, "bin_width is None"),
        ({"discretisation": "bin-number", "n_bins": 1}, "greater than or equal to 2"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(**settings)


def test_rows_are_what_the_risk_score_reads(texture):
    image, mask = texture
    rows = feature_rows(extract_features(image, mask), **KEY)
    assert rows.columns.tolist() == [
        "participant_id", "visit", "series", "label", "source", "feature", "value",
    ]  # fmt: skip
    assert rows["value"].dtype == np.float64 and len(rows) == 145
    shape = rows.loc[rows["series"] == "mask", "feature"]
    assert shape.str.startswith("morph_").all() and len(shape) == 21
    tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": ["007"]}), radiomics=rows)
    plan = planned({"type": "radiomics", "series": ["T1c"], "labels": ["enhancing"]})
    chosen = selected_features(plan, tables)
    # Shape belongs to the mask, whichever series are requested.
    assert len(chosen) == 145
    assert set(chosen["series"]) == {"T1c", "mask"}
    assert "T1c/enhancing/cm_contrast_3D_comb" in set(chosen["name"])


def test_a_feature_with_two_values_is_refused():
    cells = {"participant_id": "1", "source": "lab", "endpoint": "radiomics:T1c:mask:stat_mean"}
    sheet = pd.DataFrame([{**cells, "value": "1"}, {**cells, "value": "2"}])
    with pytest.raises(ValueError, match="two values of one feature"):
        collect_features([], sheet)
    with pytest.raises(ValueError, match="visit"):
        feature_rows({"stat_mean": 1.0}, **{**KEY, "visit": ""})


def test_normalised_image_goes_straight_into_features():
    rng = np.random.default_rng(4)
    values = rng.gamma(4.0, 30.0, (20, 20, 20))
    mask = np.zeros(values.shape)
    mask[5:14, 5:14, 5:14] = 1
    levels = grey_levels(values)
    found = extract_features(volume(levels.levels), volume(mask))
    inside = levels.levels[mask > 0]
    assert found["stat_mean"] == pytest.approx(inside[inside >= 0].mean(), rel=1e-6)
    assert found["ih_max"] <= 256


def test_names_are_those_of_the_ibsi_reference_tables():
    assert _ibsi_name("cm_joint_entr_d1_3d_v_mrg_fbs_w1.0", "3D_comb") == "cm_joint_entr_3D_comb"
    assert _ibsi_name("ngl_lde_d1_a0.0_2.5d", "2_5D_avg") == "ngl_lde_2_5D"
