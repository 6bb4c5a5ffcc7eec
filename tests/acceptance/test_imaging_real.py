"""Images in: real scans with known answers, and brain masks of the simulated trial's heads."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest
from helpers import data_folder, prepare_rows

from corelab.imaging import load_image, mask_volume_ml, voxel_volume_ml
from corelab.imaging.brain import brain_mask
from corelab.imaging.nifti import conform

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def row(kind, path, scan_id, **more):
    return {
        "participant_id": "1",
        "visit": "v",
        "kind": kind,
        "path": str(path),
        "scan_id": scan_id,
        **more,
    }


# --- simulated heads ---------------------------------------------------------------------------

#: Issue on ingestion: Dice of the brain at least 0.98 on T1 and 0.97 on CT; the same 0.97 is asked
#: of every other kind that a visit is masked from.
TARGETS = [
    ("001", "baseline", "T1w", 0.98),
    ("001", "day5", "FLAIR", 0.97),
    ("001", "baseline", "dwi", 0.97),
    ("001", "baseline", "adc", 0.97),
    ("001", "baseline", "ncct", 0.97),
    ("001", "baseline", "ctp", 0.97),
    ("001", "baseline", "b0", 0.97),
    ("004", "baseline", "dsc", 0.97),
]


@pytest.mark.parametrize(("participant_id", "visit", "kind", "target"), TARGETS)
def test_brain_mask_of_a_simulated_head(tmp_path, participant_id, visit, kind, target):
    from phantom_truth import write_truth_images

    from corelab.phantom.design import TrialSpec
    from corelab.phantom.scans import simulate_scan

    path = simulate_scan(TrialSpec(), participant_id, visit, kind, tmp_path / "a.nii.gz")
    truth = write_truth_images(TrialSpec(), participant_id, visit, kind, tmp_path)["brain"]
    image = load_image(path, ndim=4 if kind in ("ctp", "dsc") else 3, kind=kind)
    expected = np.asarray(load_image(truth, kind="mask-brain").dataobj) > 0
    assert dice(brain_mask(image, kind), expected) >= target


# --- real scans --------------------------------------------------------------------------------


def test_ads_visit(tmp_path):
    folder = data_folder("stroke/ads_subject02")
    files = {"b0": "b0", "dwi": "DWI", "adc": "ADC", "mask-infarct": "DAGMNet_CH3_Lesion_Predict"}
    rows = [row(kind, folder / f"Subject02_{name}.nii.gz", kind) for kind, name in files.items()]
    record = prepare_rows(rows, tmp_path)
    scans = {scan.kind: scan for scan in record.scans}
    assert {scan.status for scan in scans.values()} == {"ok"}
    assert {scan["grid"] for scan in scans.values()} == {"g1"}
    assert scans["mask-infarct"]["volume_ml"] == pytest.approx(
        31 * 1.1979 * 1.1979 * 5 / 1000, rel=1e-3
    )
    b0, dwi, adc = (
        np.asarray(nib.load(tmp_path / scans[kind].path).dataobj, float)
        for kind in ("b0", "dwi", "adc")
    )
    # ADC = ln(b0 / DWI) / 1000 in mm2/s (data's own description).
    inside = np.asarray(nib.load(tmp_path / record.brain_masks["g1"]).dataobj) > 0
    inside &= (b0 > 0) & (dwi > 0) & (adc > 0)
    assert np.log(b0[inside] / dwi[inside]) / 1000 == pytest.approx(adc[inside], abs=2e-6)


@pytest.mark.parametrize(("kind", "least"), [("b0", 0.94), ("dwi", 0.92)])
def test_ads_brain_against_the_supplied_mask(kind, least):
    """The supplied mask is a network's and takes in dark fluid at the crown; 0.94 is agreement."""
    folder = data_folder("stroke/ads_subject02")
    image = load_image(folder / f"Subject02_{kind.replace('dwi', 'DWI')}.nii.gz", kind=kind)
    supplied = load_image(folder / "Subject02_Mask.nii.gz", kind="mask-brain")
    mask = brain_mask(image, kind)
    assert 900 <= mask.sum() * voxel_volume_ml(image) <= 1800
    assert dice(mask, np.asarray(supplied.dataobj) > 0) >= least


def test_isles_adc_unit_and_negative_values_are_told():
    folder = data_folder("stroke/isles22_case0001")
    got = conform(folder / "sub-strokecase0001_ses-0001_adc.nii.gz", kind="adc")
    notes = " ".join(got.notes)
    assert "ADC was in 10^-3 mm2/s" in notes and "78 negative ADC values" in notes
    values = np.asarray(got.image.dataobj)
    assert 0.6e-3 < np.median(values[values > 0]) < 1.2e-3
    mask = brain_mask(got.image, "adc")
    assert 900 <= mask.sum() * voxel_volume_ml(got.image) <= 1800


def test_tilted_head_ct_from_dicom_to_brain_mask(tmp_path):
    record = prepare_rows([row("dicom", data_folder("dicom/dcm_qa_ct"), "s")], tmp_path)
    assert record.scans[0].unit == "HU"
    assert record.brain_mask_quality["g1"].verdict == "pass"
    assert 1200 <= record.brain_mask_quality["g1"].volume_ml <= 1600


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("tcia_example_t1.nii.gz", "T1w"),
        ("tcia_example_t1c.nii.gz", "T1c"),
        ("*FLAIR*", "FLAIR"),
        ("*T2_AX*", "T2w"),
    ],
)
def test_clinical_thick_slices_with_bright_scalp(pattern, kind):
    """The stripped 1 mm images of the same patient hold 1602 mL of brain."""
    path = next(data_folder("glioma/tcga_fg_6692/raw").glob(pattern))
    image = load_image(path, kind=kind)
    assert brain_mask(image, kind).sum() * voxel_volume_ml(image) == pytest.approx(1602, rel=0.2)


def test_stripped_glioma_image_keeps_its_foreground():
    path = data_folder("glioma/tcga_fg_6692") / "OtherEXampleFromTCIA_t1c_bet.nii.gz"
    image = load_image(path, kind="T1c")
    foreground = np.asarray(image.dataobj) != 0
    assert dice(brain_mask(image, "T1c"), foreground) > 0.99


def test_soop_lesion_volumes_are_exact():
    folder = data_folder("stroke/soop_mni_lesions")
    with open(folder / "artery.tsv", encoding="utf-8") as handle:
        published = {
            line["participant_id"]: int(line["lesion_volume"])
            for line in csv.DictReader(handle, delimiter="\t")
        }
    counted = 0
    for path in sorted((folder / "lesions").glob("*.nii.gz")):
        name = path.name.removeprefix("bwsr").removesuffix("_lesion.nii.gz")
        image = conform(path, kind="mask-infarct", reorient=False).image
        assert round(mask_volume_ml(image) * 1000, 6) == published[name], name
        counted += 1
    assert counted == 120


def test_arterial_atlas_labels_are_whole_after_loading():
    folder = data_folder("atlases/arterial_atlas_liu_faria")
    for name in ("ArterialAtlas136.nii.gz", "ArterialAtlas_padding.nii.gz"):
        labels = np.unique(np.asarray(load_image(folder / name, kind="mask-atlas").dataobj))
        assert np.array_equal(labels, np.arange(labels.max() + 1))
