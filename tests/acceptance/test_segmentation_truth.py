"""Segmentation against simulated truth and on real scans with known answers.

Targets: issue 4, point 5 (infarct Dice >= 0.85 and volume within 10 %, haematoma >= 0.93 and within
10 %, FLAIR >= 0.85, lesion-free 0 mL within 0.5 mL).
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import data_folder, prepare_rows

from corelab.imaging import brain_mask, load_image
from corelab.segmentation import majority_vote, segment_visit, staple
from corelab.segmentation.diffusion import DiffusionInfarct, apparent_diffusion
from corelab.settings.segmentation import SegmentationSettings

pytestmark = pytest.mark.acceptance


def dice(a, b):
    return 2.0 * (a & b).sum() / (a.sum() + b.sum())


def rows(files, visit="baseline"):
    return [
        {
            "participant_id": "01",
            "visit": visit,
            "kind": kind,
            "path": str(path),
            "scan_id": f"01-{visit}-{kind}",
            "repeat": 1,
            "space": "native",
        }
        for kind, path in files.items()
    ]


def read_mask(path):
    return np.asarray(load_image(path, kind="mask-lesion").dataobj) > 0.5


def segmented(files, folder, disease):
    record = prepare_rows(rows(files), folder)
    found = segment_visit(record, folder, disease=disease).masks
    return {(mask.label, mask.source): mask for mask in found}


# --- simulated trial -----------------------------------------------------------------------------

VISITS = [
    ("001", "baseline", ("b0", "dwi", "adc", "ncct")),
    ("002", "day5", ("b0", "dwi", "adc", "FLAIR", "ncct")),
    ("005", "day5", ("b0", "dwi", "adc", "FLAIR")),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20260101, 7], ids=["demo", "other"])
@pytest.mark.parametrize(("participant", "visit", "kinds"), VISITS)
def test_simulated_trial(participant, visit, kinds, seed, tmp_path):
    from phantom_truth import write_truth_images

    from corelab.phantom.design import TrialSpec
    from corelab.phantom.scans import simulate_scan

    spec = TrialSpec(seed=seed)
    files = {
        kind: simulate_scan(spec, participant, visit, kind, tmp_path / f"{kind}.nii.gz")
        for kind in kinds
    }
    found = segmented(files, tmp_path, "stroke")
    checks = [("infarct", "pipeline", "dwi", 0.85)]
    if "FLAIR" in kinds:
        checks.append(("infarct", "pipeline:flair", "FLAIR", 0.85))
    if "ncct" in kinds:
        checks.append(("haematoma", "pipeline", "ncct", 0.93))
    for label, source, kind, least in checks:
        folder = tmp_path / f"truth-{kind}"
        truth = read_mask(write_truth_images(spec, participant, visit, kind, folder)[label])
        entry = found[label, source]
        mask = read_mask(tmp_path / entry.path)
        if not truth.any():
            assert entry.quality["volume_ml"] <= 0.5
            continue
        assert dice(mask, truth) >= least, (label, source)
        assert abs(mask.sum() / truth.sum() - 1) <= 0.10, (label, source)


def test_adc_alone_gives_the_infarct_and_no_more(tmp_path):
    """A damaged DWI: growth without a signal once gave 377 mL where there were 35."""
    from phantom_truth import write_truth_images

    from corelab.phantom.design import TrialSpec
    from corelab.phantom.scans import simulate_scan

    spec = TrialSpec(seed=7)
    scan = simulate_scan(spec, "002", "day5", "adc", tmp_path / "adc.nii.gz")
    entry = segmented({"adc": scan}, tmp_path, "stroke")["infarct", "pipeline"]
    truth = read_mask(write_truth_images(spec, "002", "day5", "dwi", tmp_path / "truth")["infarct"])
    mask = read_mask(tmp_path / entry.path)
    assert "ADC alone" in entry.reason
    assert dice(mask, truth) >= 0.85
    assert abs(mask.sum() / truth.sum() - 1) <= 0.10


# --- real scans ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ads():
    return data_folder("stroke/ads_subject02")


def test_real_adc_is_the_logarithm(ads):
    # README of the data: ADC = ln(b0/DWI)/1000 in mm2/s
    b0, dwi, adc, brain = (
        np.asarray(load_image(ads / f"Subject02_{name}.nii.gz").dataobj, float)
        for name in ("b0", "DWI", "ADC", "Mask")
    )
    inside = (brain > 0.5) & (b0 > 0) & (dwi > 0)
    assert np.abs(apparent_diffusion(b0, dwi) - adc)[inside].max() < 1e-9


def test_real_small_infarct(ads, tmp_path):
    files = {kind: ads / f"Subject02_{kind if kind == 'b0' else kind.upper()}.nii.gz"
             for kind in ("b0", "dwi", "adc")}  # fmt: skip
    found = segmented(files, tmp_path, "stroke")["infarct", "pipeline"]
    ours = read_mask(tmp_path / found.path)
    network = read_mask(ads / "Subject02_DAGMNet_CH3_Lesion_Predict.nii.gz")
    # The network's mask is no truth; the one lesion of 0.22 mL in the pons has to be the one found.
    assert network.sum() == 31
    assert (ours & network).sum() >= 15
    assert found.quality["volume_ml"] < 0.5


@pytest.mark.slow
def test_real_small_infarct_with_the_adc_computed_from_b0_and_dwi(ads, tmp_path):
    """Faster on a simulated visit: tests/unit/test_segmentation_visit.py."""
    files = {kind: ads / f"Subject02_{kind if kind == 'b0' else kind.upper()}.nii.gz"
             for kind in ("b0", "dwi", "adc")}  # fmt: skip
    found = segmented(files, tmp_path, "stroke")["infarct", "pipeline"]
    del files["adc"]
    again = segmented(files, tmp_path / "computed", "stroke")["infarct", "pipeline"]
    assert again.quality["volume_ml"] == pytest.approx(found.quality["volume_ml"], abs=0.03)


def test_real_adc_in_other_units_with_negative_values(tmp_path):
    folder = data_folder("stroke/isles22_case0001")
    name = "sub-strokecase0001_ses-0001_"
    files = {kind: folder / f"{name}{kind}.nii.gz" for kind in ("dwi", "adc")}
    found = segmented(files, tmp_path, "stroke")["infarct", "pipeline"]
    # A few emboli in the right hemisphere; no mask is supplied, so only that it is sane.
    assert found.status == "ok"
    assert found.quality["adc_normal_mm2_s"] == pytest.approx(0.84e-3, rel=0.05)
    assert 0.3 < found.quality["volume_ml"] < 5.0


def test_real_hemispheric_infarct_whose_adc_is_off_by_a_common_factor():
    # b0 and DWI have different gains: tissue's ADC is 1.16e-3. The mask is a network's (165.2 mL).
    folder = data_folder("stroke/ads_subject01")
    image = load_image(folder / "Subject01_DWI.nii.gz", kind="dwi")
    dwi = np.asarray(image.dataobj, float)
    b0 = np.asarray(load_image(folder / "Subject01_b0.nii.gz", kind="b0").dataobj, float)
    brain = read_mask(folder / "Subject01_Mask.nii.gz")
    network = read_mask(folder / "Subject01_DAGMNet_CH3_Lesion_Predict.nii.gz")
    voxel_mm = image.header.get_zooms()[:3]
    images = {"dwi": dwi, "adc": apparent_diffusion(b0, dwi)}
    found = DiffusionInfarct()(images, brain, voxel_mm, SegmentationSettings().infarct)
    assert dice(found.mask, network) >= 0.85  # issue 13, section 4
    assert found.volume_ml == pytest.approx(165.2, rel=0.20)
    assert found.volume_low_ml <= 165.2 <= found.volume_high_ml
    assert "adc_calibration" in found.flags
    alone = DiffusionInfarct()({"dwi": dwi}, brain, voxel_mm, SegmentationSettings().infarct)
    assert dice(alone.mask, network) >= 0.85
    assert "no_adc" in alone.flags


def test_real_emboli_are_found_and_artefacts_are_not():
    """Emboli by eye, in voxels; beside the temporal base and the ventricle nothing is infarct."""
    folder = data_folder("stroke/isles22_case0001")
    name = "sub-strokecase0001_ses-0001_"
    image = load_image(folder / f"{name}dwi.nii.gz", kind="dwi")
    images = {
        "dwi": np.asarray(image.dataobj, float),
        "adc": np.asarray(load_image(folder / f"{name}adc.nii.gz", kind="adc").dataobj, float),
    }
    brain = brain_mask(image, "dwi")
    found = DiffusionInfarct()(
        images, brain, image.header.get_zooms()[:3], SegmentationSettings().infarct
    )
    for place in ((43, 54, 52), (34, 61, 43), (64, 19, 28), (48, 20, 33)):
        near = tuple(slice(n - 3, n + 4) for n in place)
        assert found.mask[near].any(), place
    for place in ((32, 57, 22), (77, 55, 23), (46, 57, 43), (57, 83, 27), (61, 35, 10)):
        near = tuple(slice(n - 2, n + 3) for n in place)
        assert not found.mask[near].any(), place
    assert 0.8 < found.volume_ml < 2.5


@pytest.fixture(scope="module")
def glioma():
    folder = data_folder("glioma/tcga_fg_6692")
    names = sorted(path.name for path in (folder / "segmentation").iterdir())
    read = [load_image(folder / "segmentation" / name, kind="mask-whole-tumour") for name in names]
    fused = load_image(folder / "fusion" / "mav.nii.gz", kind="mask-whole-tumour")
    return folder, [np.asarray(image.dataobj) for image in read], np.asarray(fused.dataobj)


def test_real_majority_vote_equals_the_supplied_but_for_ties(glioma):
    # issue 2, section 4: equal but for ties (195 voxels)
    _, readers, fused = glioma
    assert len(readers) == 5
    labels, tied = majority_vote(readers, ties="lowest")
    assert (labels != fused).sum() == 195
    assert tied[labels != fused].all()
    assert np.array_equal(majority_vote(readers, ties="background")[0], fused)


def test_real_staple_lies_near_the_majority(glioma):
    _, readers, fused = glioma
    found = staple([reader > 0 for reader in readers])
    assert dice(found.mask, fused > 0) > 0.9
    # What it says of each reader, computed again from masks: share of the consensus found.
    direct = [((reader > 0) & found.mask).sum() / found.mask.sum() for reader in readers]
    assert found.sensitivity == pytest.approx(direct, abs=0.01)


def test_real_glioma_against_the_majority(glioma, tmp_path):
    folder, _, fused = glioma
    files = {
        "T1c": folder / "OtherEXampleFromTCIA_t1c_bet.nii.gz",
        "FLAIR": folder / "OtherEXampleFromTCIA_fla_bet.nii.gz",
    }
    found = segmented(files, tmp_path, "glioma")
    masks = {
        label: read_mask(tmp_path / entry.path) for (label, _), entry in found.items() if entry.path
    }
    assert dice(masks["enhancing"], fused == 4) >= 0.80  # issue 4, point 5
    # The five algorithms agree with each other from 0.834 (README); a method without training that
    # reaches the lowest of them is what can be asked.
    assert dice(masks["whole-tumour"], fused > 0) >= 0.83
    volumes = {label: found[label, "pipeline"].quality["volume_ml"] for label in masks}
    parts = volumes["enhancing"] + volumes["necrosis"] + volumes["oedema"]
    assert volumes["whole-tumour"] == pytest.approx(parts)


@pytest.mark.slow
def test_real_glioma_with_expert_labels_as_given(tmp_path):
    """BRATS 2013 patient 1, z-scored and stripped: labels 1 necrosis, 2 oedema, 4 enhancing."""
    folder = data_folder("glioma/brats2013/pat0001")
    labels = np.rint(load_image(folder / "OTMultiClass.nii.gz", kind="mask-lesion").dataobj)
    names = {"T1c": "T1c_subtrMeanDivStd.nii.gz", "FLAIR": "Flair_subtrMeanDivStd.nii.gz"}
    found = segmented({kind: folder / name for kind, name in names.items()}, tmp_path, "glioma")
    truth = {
        "enhancing": labels == 4,
        "necrosis": labels == 1,
        "tumourcore": np.isin(labels, (1, 3, 4)),
        "oedema": np.isin(labels, (2, 3)),
        "whole-tumour": labels > 0,
    }
    least = {"enhancing": 0.84, "necrosis": 0.7, "tumourcore": 0.83, "oedema": 0.75}
    for label, expert in truth.items():
        entry = found[label, "pipeline"]
        assert dice(read_mask(tmp_path / entry.path), expert) >= least.get(label, 0.88), label
        assert "intensities_shifted" in entry.quality["flags"]
        if label in ("enhancing", "whole-tumour"):
            low, high = (entry.quality[f"volume_{end}_ml"] for end in ("low", "high"))
            assert low < expert.sum() / 1000 < high


def test_brain_mask_of_the_room_is_good_enough_for_a_real_infarct(ads):
    image = load_image(ads / "Subject02_DWI.nii.gz", kind="dwi")
    adc = np.asarray(load_image(ads / "Subject02_ADC.nii.gz", kind="adc").dataobj, float)
    dwi = np.asarray(image.dataobj, float)
    theirs = np.asarray(load_image(ads / "Subject02_Mask.nii.gz").dataobj) > 0.5
    voxel_mm = image.header.get_zooms()[:3]
    volumes = [
        DiffusionInfarct()(
            {"dwi": dwi, "adc": adc}, brain, voxel_mm, SegmentationSettings().infarct
        ).volume_ml
        for brain in (theirs, brain_mask(image, "dwi"))
    ]
    assert abs(volumes[0] - volumes[1]) < 0.2
