"""segment_visit: what is segmented from what, names, sidecars, statuses, determinism."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging import load_image, save_image
from corelab.imaging.values import SHIFTED
from corelab.records.images import BrainQuality, Cut, Prepared, Scan, Transform
from corelab.registration.transforms import write_affine
from corelab.segmentation import Segmenter, segment_visit, visit
from corelab.segmentation.external import BackendError, ExternalSegmenter
from corelab.segmentation.methods import DERIVED, METHODS
from corelab.segmentation.segmenter import (
    Decision,
    Evidence,
    Segmentation,
    ThresholdSegmenter,
)
from corelab.segmentation.visit import _derived, _Result
from corelab.settings.segmentation import ExternalProgram, SegmentationSettings
from corelab.study.schema import load_schema

SHAPE, VOXEL_MM = (56, 66, 20), (3.0, 3.0, 6.0)
AXES = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(SHAPE, VOXEL_MM, strict=True)]
X, Y, Z = np.meshgrid(*AXES, indexing="ij")
BRAIN = (X / 66) ** 2 + (Y / 80) ** 2 + (Z / 50) ** 2 < 1
LESION = BRAIN & ((X - 34) ** 2 + (Y - 5) ** 2 + (Z - 3) ** 2 < 18**2)
AFFINE = np.diag([*VOXEL_MM, 1.0])
AFFINE[:3, 3] = [axis[0] for axis in AXES]
VOXEL_ML = np.prod(VOXEL_MM) / 1000


def noisy(values, sd, seed):
    return values + np.random.default_rng(seed).normal(0, sd, SHAPE)


def pictures():
    normal = np.where(BRAIN, 1.0, 0.0)
    adc = np.where(LESION, 450e-6, 800e-6)
    b0 = 300.0 * normal
    grey = noisy(np.where(LESION, 63.0, 32.0), 3.0, 4)
    bone = ndimage.binary_dilation(BRAIN, iterations=2) & ~BRAIN
    return {
        "b0": noisy(b0, 4, 1),
        "dwi": noisy(b0 * np.exp(-1000 * adc), 3, 2),
        "adc": np.where(BRAIN, noisy(adc, 40e-6, 3), 0.0),
        "FLAIR": noisy(np.where(LESION, 250.0, 160.0) * normal, 6, 5),
        "ncct": np.where(BRAIN, grey, np.where(bone, 900.0, -1000.0)),
        "gre": noisy(np.where(LESION, 20.0, 140.0) * normal, 4, 6),
        "T1w": noisy(130.0 * normal, 3, 7),
        "T1c": noisy(np.where(LESION & (Y > 0), 220.0, 130.0) * normal, 3, 8),
        "T2w": noisy(np.where(LESION, 250.0, 160.0) * normal, 6, 9),
        "mask-chronic": (LESION & (Y > 5)).astype(float),
        "mask-infarct": LESION.astype(float),
    }


PICTURES = pictures()


@pytest.fixture
def study(tmp_path):
    """A folder and a function that prepares a visit with the kinds given."""

    def prepared(*kinds, failed=(), visit="day5", affines=None, brain=True):
        scans = []
        for kind in kinds:
            affine = (affines or {}).get(kind, AFFINE)
            path = f"derivatives/sub-01/ses-{visit}/prep/{kind}.nii.gz"
            image = nib.Nifti1Image(PICTURES[kind].astype(np.float32), affine)
            save_image(image, tmp_path / path, sidecar=None)
            bad = kind in failed
            scans.append(
                Scan(
                    *(f"01-{kind}", kind, kind[5:] if kind.startswith("mask-") else None),
                    path=None if bad else path,
                    grid=None if bad else ("g2" if kind in (affines or {}) else "g1"),
                    sha256="0" * 64,
                    status="failed" if bad else "ok",
                    reason="truncated" if bad else None,
                    metadata={"b_value": 1000.0},
                )
            )
        masks = {}
        grids = [("g1", AFFINE), *(("g2", affine) for affine in (affines or {}).values())]
        for grid, affine in grids:
            if brain:
                masks[grid] = f"brain_{grid}.nii.gz"
                image = nib.Nifti1Image(BRAIN.astype(np.uint8), affine)
                save_image(image, tmp_path / masks[grid], sidecar=None)
        return Prepared("01", visit, scans=tuple(scans), brain_masks=masks, reference="g1")

    return tmp_path, prepared


def summary(record):
    return [(m.label, m.source, m.desc, m.status) for m in record.masks]


def test_stroke_with_everything(study):
    folder, prepared = study
    record = prepared("b0", "dwi", "adc", "FLAIR", "ncct", "gre")
    found = segment_visit(record, folder, disease="stroke")
    assert summary(found) == [
        ("infarct", "pipeline", None, "ok"),
        ("infarct", "pipeline:adc620", "adc620", "ok"),
        ("infarct", "pipeline:flair", "flair", "ok"),
        ("haematoma", "pipeline", None, "ok"),
        ("infarct", "pipeline:ncct", "ncct", "not_computable"),
        ("haematoma", "pipeline:gre", "gre", "ok"),
    ]
    # The CT of this study has slices of 6 mm.
    assert "6.0 mm are thicker" in found.masks[4].reason
    paths = [mask.path for mask in found.masks if mask.path is not None]
    assert len(set(paths)) == len(paths)
    assert paths[0] == "derivatives/sub-01/ses-day5/dwi/sub-01_ses-day5_label-infarct_mask.nii.gz"
    assert paths[2].endswith("anat/sub-01_ses-day5_label-infarct_desc-flair_mask.nii.gz")
    assert paths[3].endswith("ct/sub-01_ses-day5_label-haematoma_mask.nii.gz")
    assert found.masks[0].scan_ids == ("01-dwi", "01-adc")
    for entry in [mask for mask in found.masks if mask.usable]:
        image = load_image(folder / entry.path, kind="mask-infarct")
        mask = np.asarray(image.dataobj) > 0
        assert entry.quality["volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML)
        sidecar = json.loads((folder / entry.path.replace(".nii.gz", ".json")).read_text())
        assert sidecar["inputs"][0]["sha256"] == "0" * 64
        assert sidecar["parameters"]["limits"]
        assert 2 * (mask & LESION).sum() / (mask.sum() + LESION.sum()) > 0.85
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("fact", ["slice_thickness_mm", "largest_slice_distance_mm"])
def test_slices_that_were_acquired_thick_give_no_hypodensity(study, fact):
    """Uneven slices of 4 and 7 mm are resampled to 4 mm, which makes none of them thin."""
    folder, prepared = study
    record = prepared("ncct")
    record.scans[0].metadata[fact] = 7.4
    only = ("infarct", "pipeline:ncct")
    [dark] = segment_visit(record, folder, disease="stroke", only=only).masks
    assert dark.status == "not_computable" and "7.4 mm" in dark.reason


def test_flair_is_primary_without_dwi_and_chronic_is_taken_out(study):
    folder, prepared = study
    plain = segment_visit(prepared("FLAIR"), folder, disease="stroke")
    assert summary(plain) == [("infarct", "pipeline", None, "ok")]
    assert "desc-" not in plain.masks[0].path
    old = segment_visit(prepared("FLAIR", "mask-chronic"), folder, disease="stroke")
    assert old.masks[0].quality["volume_ml"] < 0.7 * plain.masks[0].quality["volume_ml"]
    assert old.masks[0].scan_ids == ("01-FLAIR", "01-mask-chronic")


def test_adc_is_computed_from_b0(study):
    folder, prepared = study
    found = segment_visit(prepared("b0", "dwi"), folder, disease="stroke").masks
    assert [mask.status for mask in found] == ["ok", "ok"]
    assert "ADC computed from b0 and DWI with b = 1000 s/mm2" in found[0].reason
    assert found[0].scan_ids == ("01-dwi", "01-b0")
    alone = segment_visit(prepared("dwi"), folder, disease="stroke").masks
    assert [mask.status for mask in alone] == ["ok", "not_computable"]
    assert alone[0].quality["flags"] == ["no_adc"]
    assert alone[1].path is None


def test_failures_are_statuses_with_a_reason(study):
    folder, prepared = study
    record = prepared("dwi", "adc", "ncct", failed=("dwi", "adc", "ncct"))
    found = segment_visit(record, folder, disease="stroke").masks
    assert {mask.status for mask in found} == {"failed"}
    assert all("truncated" in mask.reason and mask.path is None for mask in found)
    no_brain = segment_visit(prepared("ncct", brain=False), folder, disease="stroke").masks
    assert {mask.status for mask in no_brain} == {"not_computable"}
    assert "no brain mask" in no_brain[0].reason


def test_a_failed_adc_is_told_and_dwi_goes_on(study):
    folder, prepared = study
    found = segment_visit(prepared("dwi", "adc", failed=("adc",)), folder, disease="stroke")
    assert found.masks[0].status == "ok"
    assert "without the adc scan" in found.masks[0].reason


def test_a_file_that_broke_since_is_a_status(study):
    folder, prepared = study
    record = prepared("ncct")
    file = folder / record.scans[0].path
    file.write_bytes(file.read_bytes()[:-2000])
    found = segment_visit(record, folder, disease="stroke").masks
    assert {mask.status for mask in found} == {"failed"}


def test_glioma_on_one_grid_adds_up(study):
    folder, prepared = study
    found = segment_visit(prepared("T1w", "T1c", "FLAIR"), folder, disease="glioma").masks
    assert [(m.label, m.status) for m in found] == [
        ("enhancing", "ok"),
        ("oedema", "ok"),
        ("necrosis", "ok"),
        ("nonenhancing", "not_computable"),
        ("tumourcore", "ok"),
        ("whole-tumour", "ok"),
    ]
    volumes = {mask.label: mask.quality.get("volume_ml") for mask in found}
    assert volumes["enhancing"] > 3 and volumes["oedema"] > 3
    assert volumes["tumourcore"] == volumes["enhancing"] + volumes["necrosis"]
    assert volumes["whole-tumour"] == pytest.approx(volumes["tumourcore"] + volumes["oedema"])
    assert found[5].path.endswith("_label-wholetumour_mask.nii.gz")
    assert found[4].path.endswith("_label-tumourcore_mask.nii.gz")
    assert "counted as oedema" in found[3].reason and found[3].path is None
    assert {mask.kind for mask in found} == {"T1c"}
    assert found[5].scan_ids == ("01-T1c", "01-T1w", "01-FLAIR")


def test_glioma_with_a_part_missing(study):
    folder, prepared = study
    only = segment_visit(prepared("T1c"), folder, disease="glioma").masks
    assert [(m.label, m.status) for m in only] == [("enhancing", "ok")]
    assert "no_t1" in only[0].quality["flags"]
    t2 = segment_visit(prepared("T2w"), folder, disease="glioma").masks
    assert [(m.label, m.quality["flags"]) for m in t2] == [("oedema", ["core_included", "t2_only"])]
    broken = segment_visit(prepared("T1c", "FLAIR", failed=("T1c",)), folder, disease="glioma")
    assert [(m.label, m.status) for m in broken.masks] == [
        ("enhancing", "failed"),
        ("oedema", "ok"),
        ("necrosis", "not_computable"),
        ("nonenhancing", "not_computable"),
        ("tumourcore", "not_computable"),
        ("whole-tumour", "not_computable"),
    ]
    assert "core_included" in broken.masks[1].quality["flags"]
    assert "truncated" in broken.masks[5].reason


def test_a_derived_mask_has_the_sentences_of_its_flags_once():
    """The sentence of an open ring, and those of the parts, reach the core and whole tumour."""
    grid = np.stack(np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    # A slot of 12 mm through the wall, along the whole ring.
    ring = (radius < 16) & (radius > 12) & ~((grid[0] > 0) & (np.abs(grid[1]) < 6))
    blank = np.zeros(ring.shape, bool)
    image = nib.Nifti1Image(blank.astype(np.uint8), np.eye(4))

    def part(label, mask):
        found = Segmentation(label, "pipeline", mask, 1.0, 1.0, 1.0, {}, {}, ("no_t1",), "no T1")
        return _Result(label, "pipeline", "T1c", "g1", (), found, image, "ok", "cut off; no T1")

    done = {"enhancing": part("enhancing", ring), "oedema": part("oedema", blank)}
    for derived in DERIVED:
        done[derived.label] = _derived(derived, done)
    assert done["nonenhancing"].status == "not_computable"
    for result in (done["necrosis"], done["tumourcore"], done["whole-tumour"]):
        assert result.segmentation.flags == ("no_t1", "open_ring")
        assert result.reason.startswith("cut off; no T1; the ring of enhancing tumour is open")
        assert result.reason.count("no T1") == result.reason.count("is open") == 1


def test_every_method_declares_what_it_runs_on():
    """A disease with a plan, a block of thresholds of its own type, kinds of scan, and a label."""
    blocks = SegmentationSettings()
    for method in METHODS:
        assert isinstance(method, Segmenter) and method.kinds and method.label
        assert method.disease in {"stroke", "glioma"}
        assert method.label == method.label.lower() and getattr(blocks, method.block).plain()
    written = [(m.disease, m.label, m.source) for m in METHODS if m.written]
    assert len(set(written)) == len(written)


def test_a_method_runs_from_its_entry_alone(study, monkeypatch):
    """What an entry declares is enough: no other file names a method."""

    class Bright(ThresholdSegmenter):
        """What is bright on T2w."""

        label, source, disease = "infarct", "pipeline:t2", "stroke"
        block, kinds = "infarct_flair", ("T2w",)

        def measure(self, given, parameters):
            return Evidence({"T2w": given.images["T2w"]}, given.voxel_size_mm)

        def decide(self, evidence, parameters):
            image = evidence.maps["T2w"]
            bright = image > np.percentile(image, 99)
            return Decision(bright, {"least": 0.0}, {"t2_only": "on T2 alone"})

    monkeypatch.setattr(visit, "METHODS", (*METHODS, Bright()))
    folder, prepared = study
    (found,) = segment_visit(prepared("T2w"), folder, disease="stroke").masks
    assert (found.source, found.desc, found.status) == ("pipeline:t2", "t2", "ok")
    assert found.quality["least"] == 0.0 and found.reason == "on T2 alone"
    only = segment_visit(prepared("T2w"), folder, disease="stroke", only=("infarct", "pipeline"))
    assert only.masks == ()


def test_shifted_intensities_are_on_the_row(study):
    folder, prepared = study
    record = prepared("T1c")
    note = f"{SHIFTED} (down to -2): 2 was added so that no signal is 0"
    record = replace(record, scans=(replace(record.scans[0], notes=(note,)),))
    (found,) = segment_visit(record, folder, disease="glioma").masks
    assert "intensities_shifted" in found.quality["flags"]
    assert "T1c: negative intensities" in found.reason


def test_other_grids_come_through_the_transforms(study):
    folder, prepared = study
    # The FLAIR lies 12 mm to the right in its own world: only the transform knows.
    moved = AFFINE.copy()
    moved[0, 3] += 12.0
    record = prepared("T1c", "FLAIR", affines={"FLAIR": moved})
    shift = np.eye(4)
    shift[0, 3] = 12.0  # a point of the reference lies at this point of the moving image
    write_affine(shift, folder / "g2.mat")
    transforms = {"g1": Transform("g1"), "g2": Transform("g1", "g2.mat", "rigid")}
    record = replace(record, transforms=transforms)
    found = segment_visit(record, folder, disease="glioma").masks
    (path,) = [mask.path for mask in found if mask.label == "whole-tumour"]
    whole = np.asarray(load_image(folder / path, kind="mask-x").dataobj) > 0
    assert 2 * (whole & LESION).sum() / (whole.sum() + LESION.sum()) > 0.85
    record = replace(record, transforms={})
    trusted = segment_visit(record, folder, disease="glioma").masks
    assert "by the headers alone" in trusted[1].reason
    assert "not_registered" in trusted[1].quality["flags"]
    assert all("not_registered" not in (mask.quality.get("flags") or ()) for mask in found)


def judged(record, **quality):
    """The record with what the prepare stage says of the brain mask of g1."""
    own = BrainQuality("dwi", "dwi", volume_ml=1000.0)
    return replace(record, brain_mask_quality={"g1": replace(own, **quality)})


def test_nothing_rests_on_a_brain_mask_that_failed(study):
    folder, prepared = study
    record = judged(prepared("b0", "dwi", "FLAIR", "ncct"), volume_ml=431.0, verdict="fail")
    masks = segment_visit(record, folder, disease="stroke").masks
    assert masks and {mask.status for mask in masks} == {"not_computable"}
    assert all("brain mask (from dwi, 431 mL)" in mask.reason for mask in masks)


@pytest.mark.parametrize(
    "quality", [{"verdict": "pass"}, {"verdict": "fail", "source": "supplied"}]
)
def test_a_sound_or_supplied_brain_mask_carries_a_number(study, quality):
    folder, prepared = study
    record = judged(prepared("b0", "dwi"), **quality)
    assert {m.status for m in segment_visit(record, folder, disease="stroke").masks} == {"ok"}


def test_a_failed_brain_mask_of_another_grid_does_not_take_its_scan_away(study):
    folder, prepared = study
    record = prepared("dwi", "adc", affines={"adc": AFFINE @ np.diag([1.0, 1, 1.001, 1])})
    bad = BrainQuality("adc", "adc", volume_ml=300.0, verdict="fail")
    record = replace(record, brain_mask_quality={"g2": bad})
    mask = segment_visit(record, folder, disease="stroke").masks[0]
    assert mask.status == "ok" and mask.scan_ids == ("01-dwi", "01-adc")


def test_a_doubtful_mask_and_a_brain_cut_off_are_flags_and_reasons(study):
    folder, prepared = study
    cut = (Cut("superior", 90.0, 12.5),)
    record = judged(prepared("b0", "dwi"), verdict="warn", volume_ml=739.0, cut=cut)
    mask = segment_visit(record, folder, disease="stroke").masks[0]
    assert mask.status == "ok"
    assert {"brain_mask_doubtful", "brain_cut_off"} <= set(mask.quality["flags"])
    assert "739 mL" in mask.reason and "a volume is a lower bound" in mask.reason


@pytest.mark.parametrize(
    ("disease", "kinds", "rows"),
    [
        ("stroke", ("dwi", "adc", "T2w"), [("infarct", "pipeline:t2w")]),
        ("stroke", ("T2w",), [("infarct", "pipeline:t2w")]),
        ("stroke", ("T1w", "T2w"), [("infarct", "pipeline:t2w")]),
        ("stroke", ("T1w",), [("infarct", "pipeline:t1w")]),
        ("stroke", ("dwi", "adc", "T1w"), []),
        ("stroke", ("T2w", "mask-infarct"), []),
        ("stroke", (), []),
        ("glioma", ("T2w",), []),
        ("glioma", ("ncct",), [("whole-tumour", "pipeline:ncct")]),
        ("glioma", ("T1w", "dwi"), [("whole-tumour", "pipeline:t1w")]),
    ],
)
def test_an_image_that_nothing_segments_is_a_row_with_the_reason(study, disease, kinds, rows):
    folder, prepared = study
    masks = segment_visit(prepared(*kinds), folder, disease=disease).masks
    silent = [mask for mask in masks if "no method segments" in (mask.reason or "")]
    assert [(mask.label, mask.source) for mask in silent] == rows
    assert all(mask.status == "not_computable" and mask.path is None for mask in silent)


def test_same_bytes_twice_and_settings_count(study):
    folder, prepared = study
    record = prepared("dwi", "adc")
    only = ("infarct", "pipeline")
    digests = []
    for _ in range(2):
        path = segment_visit(record, folder, disease="stroke", only=only).masks[0].path
        digests.append(hashlib.sha256((folder / path).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    none = segment_visit(
        record,
        folder,
        disease="stroke",
        settings=SegmentationSettings(
            infarct={"adc_seed_below_mm2_s": 1e-5, "bright_adc_below_mm2_s": 1e-5}
        ),
        only=only,
    ).masks[0]
    assert none.status == "ok"
    assert none.quality["volume_ml"] == 0.0
    with pytest.raises(ValueError, match="disease is 'ms'"):
        segment_visit(record, folder, disease="ms")
    with pytest.raises(ValueError, match="lesion\n"):
        segment_visit(
            record,
            folder,
            disease="stroke",
            settings=SegmentationSettings.model_validate({"lesion": {}}),
        )


# --- a program of somebody else, by a stand-in ---------------------------------------------------

#: Reads two images and the brain mask, outlines what is bright on DWI and dark on ADC, and writes
#: float labels on a flipped grid, as programs do.
STAND_IN = """
import sys
from pathlib import Path
import nibabel as nib
import numpy as np
folder = Path(sys.argv[1])
dwi, adc = (nib.load(folder / name) for name in ("in/case_0000.nii.gz", "in/case_0001.nii.gz"))
brain = np.asarray(nib.load(folder / "brain.nii.gz").dataobj) > 0
if "--fail" in sys.argv:
    sys.exit(f"CUDA out of memory near {folder}")
found = brain & (dwi.get_fdata() > 160) & (adc.get_fdata() < 620e-6)
if "--upper" in sys.argv:
    found[:, :, : found.shape[2] // 2] = False
labels = np.where(found, 1.000015, 0.0) + 2.0 * (~brain)
flip = np.diag([-1.0, 1, 1, 1]); flip[0, 3] = labels.shape[0] - 1
if "--wrong" in sys.argv:
    (folder / "out/mask.nii.gz").write_text("no image")
elif "--silent" not in sys.argv:
    nib.save(nib.Nifti1Image(labels[::-1].astype(np.float32), dwi.affine @ flip),
             folder / "out/mask.nii.gz")
"""


@pytest.fixture
def backend(tmp_path):
    program = tmp_path / "a program.py"
    program.write_text(STAND_IN)
    return {
        "id": "stand-in",
        "label": "infarct",
        "inputs": {"dwi": "in/case_0000.nii.gz", "adc": "in/case_0001.nii.gz"},
        "command": [sys.executable, str(program), "{folder}"],
        "output": "out/mask.nii.gz",
        "label_values": [1],
        "files": [str(program)],
        "image_digest": "sha256:" + "a" * 64,
        "version": "0.1",
    }


def masks_of(study, backend, kinds=("dwi", "adc"), **more):
    folder, prepared = study
    record = prepared(*kinds, **more)
    found = segment_visit(
        record, folder, disease="stroke", settings=SegmentationSettings(external=[backend]),
        only=("infarct", "pipeline:stand-in"),
    )  # fmt: skip
    return folder, list(found.masks)


def test_it_is_a_segmenter(backend):
    assert isinstance(ExternalSegmenter(ExternalProgram(**backend), np.eye(4)), Segmenter)


def test_off_by_default(study):
    folder, prepared = study
    found = segment_visit(prepared("dwi", "adc"), folder, disease="stroke")
    assert {m.source for m in found.masks} == {"pipeline", "pipeline:adc620"}


def test_mask_stands_beside_our_own_with_what_made_it(study, backend):
    folder, (entry,) = masks_of(study, backend)
    assert entry.status == "ok" and "desc-stand+2Din" in entry.path
    image = nib.load(folder / entry.path)
    mask = np.asarray(image.dataobj) > 0
    overlap = 2 * (mask & LESION).sum() / (mask.sum() + LESION.sum())
    assert overlap > 0.95
    assert entry.quality["volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML)
    program = backend["files"][0]
    with open(program, "rb") as handle:
        digest = hashlib.sha256(handle.read()).hexdigest()
    assert entry.quality["files_sha256"] == {"a program.py": digest}
    assert entry.quality["image_digest"] == backend["image_digest"]
    assert entry.quality["version"] == "0.1"
    assert entry.scan_ids == ("01-dwi", "01-adc")


def test_its_agreement_with_our_own_mask_is_a_quality_metric(study, backend):
    folder, prepared = study
    upper = {**backend, "command": [*backend["command"], "--upper"]}
    found = segment_visit(
        prepared("dwi", "adc"), folder, disease="stroke",
        settings=SegmentationSettings(external=[upper]),
    )  # fmt: skip
    masks = {mask.source: mask for mask in found.masks}
    ours, theirs = (
        np.asarray(nib.load(folder / masks[source].path).dataobj) > 0
        for source in ("pipeline", "pipeline:stand-in")
    )
    dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
    assert 0.4 < dice < 0.9
    figures = masks["pipeline:stand-in"].quality
    assert figures["pipeline_source"] == "pipeline"
    assert figures["pipeline_dice"] == pytest.approx(dice, abs=1e-4)
    difference = (theirs.sum() - ours.sum()) * VOXEL_ML
    assert figures["pipeline_difference_ml"] == pytest.approx(difference, abs=1e-3)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("--fail", "stand-in failed: CUDA out of memory near {folder}"),
        ("--wrong", "wrote no readable image to out/mask.nii.gz"),
        ("--silent", "No such file or directory '{folder}/out/mask.nii.gz'"),
    ],
)
def test_a_program_that_fails_is_a_status(study, backend, word, reason):
    backend["command"].append(word)
    _, (entry,) = masks_of(study, backend)
    assert entry.status == "not_computable" and entry.path is None
    assert reason in entry.reason


def test_a_visit_without_its_scans_says_so(study, backend):
    _, (entry,) = masks_of(study, backend, kinds=("dwi",))
    assert entry.status == "not_computable" and "no usable adc" in entry.reason
    _, none = masks_of(study, backend, kinds=("FLAIR",))
    assert none == []


def test_an_absent_program_or_file_stops_the_job(study, backend):
    gone = {**backend, "command": ["no-such-program"]}
    with pytest.raises(BackendError, match="no-such-program is not on the PATH"):
        masks_of(study, gone)
    gone = {**backend, "files": ["weights.pth"]}
    with pytest.raises(BackendError, match=r"weights\.pth is missing; nothing is ever"):
        masks_of(study, gone)


def test_the_config_refuses_paths_that_leave_the_folder(backend):
    schema = load_schema("config")["properties"]["segmentation"]["properties"]["external"]
    jsonschema.validate([backend], schema)
    for change in ({"output": "../mask.nii.gz"}, {"output": "/mask.nii.gz"}, {"id": "a/b"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate([{**backend, **change}], schema)
