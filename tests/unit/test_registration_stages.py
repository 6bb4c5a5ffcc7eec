"""The two stages on a small head (3 mm, preset testing): records, statuses, composition, laterality."""

import hashlib
import json
import pickle
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import prepare_rows
from scipy.ndimage import gaussian_filter

from corelab.imaging import mask_volume_ml
from corelab.records.images import Prepared, Scan, Transform
from corelab.records.visits import VisitRecords
from corelab.registration import (
    align_visit,
    apply_transforms,
    normalise_subject,
    template_brain_mask,
    template_image,
    transform_points,
)
from corelab.registration.backends import registrar
from corelab.registration.filling import filled_lesion
from corelab.registration.heads import Head
from corelab.registration.pairs import fit_to_template
from corelab.registration.preparation import best_scan
from corelab.registration.registrar import Registrar
from corelab.registration.transforms import Affine
from corelab.settings.registration import RegistrationLimits, RegistrationSettings

TESTING = RegistrationSettings(preset="testing", lesion="mask")


def motion(degrees: float, shift) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


#: Scanner positions (template points -> scan points): the visits and series of one subject.
PLACES = {
    ("baseline", "T1w"): motion(4, (3, -2, 5)),
    ("baseline", "dwi"): motion(-3, (0, 4, 1)),
    ("day5", "FLAIR"): motion(8, (-6, 3, 2)),
}
SIZES = {"T1w": (1.5, 1.5, 1.5), "dwi": (2.5, 2.5, 5.0), "FLAIR": (2.0, 2.0, 5.0)}


def brain() -> np.ndarray:
    return np.asarray(template_brain_mask().dataobj) != 0


@cache
def lesion_mni() -> nib.Nifti1Image:
    """A ball of 12 mm radius in the LEFT hemisphere."""
    template = template_image()
    centre = np.array([-38, -10, 18]) - template.affine[:3, 3]
    i, j, k = np.ogrid[tuple(slice(0, n) for n in template.shape)]
    ball = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 < 12**2
    return nib.Nifti1Image((ball & brain()).astype(np.uint8), template.affine)


def scan_of(visit: str, kind: str, image: nib.Nifti1Image, interpolation: str) -> nib.Nifti1Image:
    sizes = np.array(SIZES[kind])
    shape = tuple(int(n) for n in np.ceil(np.array([180, 220, 180]) / sizes))
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -90, -128, -75
    grid = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
    to_template = Affine(np.linalg.inv(PLACES[visit, kind]))
    return apply_transforms(image, grid, [to_template], interpolation)


@pytest.fixture(scope="module", autouse=True)
def fits():
    """Each fit is computed once: tests vary limits, records and masks, seldom what is fitted."""
    known, checked = {}, Registrar._checked

    def once(self, fit):
        images = fit.fixed, fit.moving, fit.metric_mask
        voxels = [image and (np.asarray(image.dataobj), image.affine) for image in images]
        parts = self.name, self.seed, self.preset, fit.kind, fit.start, voxels
        key = hashlib.sha256(pickle.dumps(parts)).hexdigest()
        if key not in known:
            known[key] = checked(self, fit)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registrar, "_checked", once)
        yield


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """T1w, DWI with a lesion mask at baseline; FLAIR with a reader's mask at day 5."""
    folder = tmp_path_factory.mktemp("scans")
    template = np.asarray(template_image().dataobj)
    lesion = np.asarray(lesion_mni().dataobj) != 0
    contrast = {
        "T1w": np.where(lesion, 0.7 * template, template),
        "dwi": np.where(lesion, 400, 250 - 0.6 * template) * brain(),
        "FLAIR": np.where(lesion, 350, 280 - 0.8 * template) * brain(),
    }
    for visit, kind in PLACES:
        data = contrast[kind].astype(np.float32)
        image = scan_of(visit, kind, nib.Nifti1Image(data, template_image().affine), "linear")
        noise = np.random.default_rng(1).normal(0, 3, image.shape).astype(np.float32)
        noisy = np.abs(np.asarray(image.dataobj) + noise)
        nib.save(nib.Nifti1Image(noisy, image.affine), folder / f"{visit}_{kind}.nii.gz")
        for name, mask in (("lesion", lesion_mni()), ("brain", template_brain_mask())):
            moved = scan_of(visit, kind, mask, "label")
            nib.save(moved, folder / f"{visit}_{kind}_{name}.nii.gz")
    nib.save(lesion_mni(), folder / "lesion_mni.nii.gz")
    return folder


def row(scans: Path, visit: str, kind: str, name: str, **more) -> dict:
    return {
        "participant_id": "01", "visit": visit, "kind": kind, "path": str(scans / name),
        "scan_id": f"{visit}-{kind}-{name}", "reader": None, "repeat": 1, "space": "native", **more,
    }  # fmt: skip


def rows_of(scans: Path, visit: str, *, masks: bool = True) -> list[dict]:
    rows = []
    for at, kind in PLACES:
        if at == visit:
            rows.append(row(scans, visit, kind, f"{visit}_{kind}.nii.gz"))
            rows.append(row(scans, visit, "mask-brain", f"{visit}_{kind}_brain.nii.gz"))
    if masks and visit == "baseline":
        rows.append(row(scans, visit, "mask-infarct", "baseline_dwi_lesion.nii.gz", reader="r1"))
    if masks and visit == "day5":
        rows.append(row(scans, visit, "mask-infarct", "day5_FLAIR_lesion.nii.gz"))
        rows.append(row(scans, visit, "mask-infarct", "lesion_mni.nii.gz", space="MNI152"))
    return rows


def aligned(scans: Path, folder: Path, visit: str) -> dict:
    prepared = prepare_rows(rows_of(scans, visit), folder)
    assert [scan.status for scan in prepared.scans] == ["ok"] * len(prepared.scans)
    return align_visit(prepared, folder, settings=TESTING)


@pytest.fixture(scope="module")
def study(scans, tmp_path_factory):
    """Folder, records of both visits and the normalise record of one subject."""
    folder = tmp_path_factory.mktemp("results")
    visits = [VisitRecords(visit, aligned(scans, folder, visit)) for visit in ("baseline", "day5")]
    record = normalise_subject(
        visits, folder, settings=TESTING, visit_order=["baseline", "day5", "day90"]
    )
    return folder, visits, record


def grid_of(record: dict, kind: str) -> str:
    return next(scan.grid for scan in record.scans if scan.kind == kind)


class TestAlignVisit:
    def test_reference_is_the_t1_and_the_other_grid_is_fitted_to_it(self, study):
        folder, visits, _ = study
        record = visits[0].prepare
        t1, dwi = grid_of(record, "T1w"), grid_of(record, "dwi")
        assert record.reference == t1
        assert record.transforms[t1] == Transform(t1)
        entry = record.transforms[dwi]
        assert entry.path == (
            "derivatives/sub-01/ses-baseline/dwi/"
            "sub-01_ses-baseline_from-dwi_to-T1w_mode-image_xfm.mat"
        )
        assert entry.quality["dice"] > 0.9
        assert entry.quality["mutual_information"] > 1.0
        truth = PLACES["baseline", "dwi"] @ np.linalg.inv(PLACES["baseline", "T1w"])
        points = np.argwhere(brain())[::997] + template_image().affine[:3, 3]
        on_t1 = Affine(PLACES["baseline", "T1w"])(points)
        found = transform_points(on_t1, [folder / entry.path])
        assert np.linalg.norm(found - Affine(truth)(on_t1), axis=1).mean() < 1.0

    def test_sidecar_tells_inputs_and_parameters(self, study):
        folder, visits, _ = study
        record = visits[0].prepare
        path = folder / record.transforms[grid_of(record, "dwi")].path
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert len(sidecar["inputs"]) == 2 and all(item["sha256"] for item in sidecar["inputs"])
        assert sidecar["parameters"]["seed"] == 1 and sidecar["parameters"]["threads"] == 1

    def test_one_grid_needs_no_backend(self, study, monkeypatch):
        _, visits, _ = study
        monkeypatch.setitem(sys.modules, "ants", None)  # an import would raise
        record = visits[1].prepare
        again = align_visit(record, "nowhere", settings=TESTING)
        assert [entry.method for entry in again.transforms.values()] == ["identity"]

    def test_failed_fit_is_a_status_of_its_grid(self, study, tmp_path):
        folder, visits, _ = study
        record = visits[0].prepare
        shutil.copytree(folder / "derivatives", tmp_path / "derivatives")
        dwi = grid_of(record, "dwi")
        scan = next(scan for scan in record.scans if scan.kind == "dwi")
        flat = nib.load(tmp_path / scan.path)
        # The file is whole, its brain is empty.
        empty = nib.Nifti1Image(np.zeros(flat.shape, np.uint8), flat.affine)
        nib.save(empty, tmp_path / record.brain_masks[dwi])
        found = align_visit(record, tmp_path, settings=TESTING).transforms
        assert found[dwi].status == "failed" and found[dwi].path is None
        assert "brain mask" in found[dwi].reason
        assert found[record.reference].status == "ok"

    def test_limit_that_is_broken_is_a_status_with_its_number(self, study, tmp_path):
        folder, visits, _ = study
        shutil.copytree(folder / "derivatives", tmp_path / "derivatives")
        record = visits[0].prepare
        strict = TESTING.model_copy(update={"limits": RegistrationLimits(rigid_dice_min=0.999)})
        entry = align_visit(record, tmp_path, settings=strict).transforms[grid_of(record, "dwi")]
        assert entry.status == "failed"
        assert "below its limit 0.999" in entry.reason

    def test_failed_prepare_record_passes_through(self):
        record = Prepared("01", "day5", "failed")
        assert align_visit(record, ".", settings=RegistrationSettings()).transforms == {}


class TestNormaliseSubject:
    def test_anchor_is_the_t1_and_all_is_well(self, study):
        _, _, record = study
        assert record.status == "ok", record.reason
        assert record.anchor.kind == "T1w" and record.anchor.visit == "baseline"
        assert record.method == "syn"
        assert record.lesion["used"] == "mask" and record.lesion["excluded_ml"] > 7
        assert record.quality["dice"] > 0.93
        assert record.quality["folds"] == 0
        assert record.visits["day5"].status == "ok"
        assert record.settings["backend"] == "ants_greedy"

    def test_every_chain_leads_to_the_truth_in_both_directions(self, study):
        folder, visits, record = study
        points = np.argwhere(brain())[::997] + template_image().affine[:3, 3]
        for (visit, kind), place in PLACES.items():
            prepare = next(v.prepare for v in visits if v.visit == visit)
            chain = record.transforms[visit][grid_of(prepare, kind)]
            files = [folder / path for path in chain.to_mni]
            there = transform_points(points, files, chain.whichtoinvert)
            # 4 mm and a handful of iterations: a wrong order or sign would be 10 mm and more.
            assert np.linalg.norm(there - Affine(place)(points), axis=1).mean() < 2.0, (visit, kind)
            files = [folder / path for path in chain.from_mni]
            back = transform_points(there, files, chain.from_mni_whichtoinvert)
            assert np.linalg.norm(back - points, axis=1).mean() < 0.5

    def test_masks_lie_on_the_template_s_grid_where_they_belong(self, study):
        folder, _, record = study
        assert [(m.visit, m.source, m.status) for m in record.masks] == [
            ("baseline", "r1", "ok"),
            ("day5", "supplied", "ok"),
        ]
        truth = np.asarray(lesion_mni().dataobj) != 0
        for mask in record.masks:
            image = nib.load(folder / mask.path)
            assert image.shape == (197, 233, 189)
            assert image.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(image.affine, template_image().affine)
            assert "space-MNI152NLin2009aSym_label-infarct" in mask.path
            data = np.asarray(image.dataobj) != 0
            dice = 2 * (data & truth).sum() / (data.sum() + truth.sum())
            assert dice > 0.75, mask
            x_mm = np.argwhere(data) @ image.affine[0, :3] + image.affine[0, 3]
            assert mask_volume_ml(image) > 5 and (x_mm < 0).all()  # the subject's left
            assert abs(mask.quality["volume_discrepancy_percent"]) < 6
            assert mask.quality["mni_ml"] == pytest.approx(mask_volume_ml(image), abs=1e-6)

    def test_mask_equals_the_files_applied_in_one_go(self, study):
        folder, visits, record = study
        mask = record.masks[0]
        chain = record.transforms["baseline"][grid_of(visits[0].prepare, "dwi")]
        again = apply_transforms(
            nib.load(folder / mask.native_path),
            template_image(),
            [folder / path for path in chain.to_mni],
            "label",
            inverted=chain.whichtoinvert,
        )
        written = np.asarray(nib.load(folder / mask.path).dataobj)
        assert (np.asarray(again.dataobj) != written).sum() <= 2

    def test_supplied_template_mask_is_not_touched(self, study):
        _, visits, record = study
        supplied = [s for s in visits[1].prepare.scans if s.space == "MNI152"]
        assert len(supplied) == 1
        assert supplied[0].path not in [mask.native_path for mask in record.masks]

    def test_broken_limit_fails_the_subject_and_writes_no_mask(self, study, tmp_path):
        folder, visits, _ = study
        shutil.copytree(folder / "derivatives", tmp_path / "derivatives")
        for path in tmp_path.rglob("*space-MNI152NLin2009aSym_label-infarct*"):
            if "desc-supplied_run" not in path.name and "mask" in path.name:
                path.unlink()
        strict = TESTING.model_copy(update={"limits": RegistrationLimits(dice_min=0.9999)})
        record = normalise_subject([visits[0]], tmp_path, settings=strict, visit_order=["baseline"])
        assert record.status == "failed"
        assert "dice" in record.reason and "limit 0.9999" in record.reason
        assert [mask.path for mask in record.masks] == [None]
        assert record.masks[0].reason.startswith("no registration to MNI: dice")
        assert not list(tmp_path.rglob("*space-MNI*label-infarct_desc-r1*"))
        assert record.transforms == {}

    def test_ventricles_off_the_template_s_are_a_warning_of_the_fit_and_of_its_masks(
        self, study, tmp_path
    ):
        folder, visits, _ = study
        shutil.copytree(folder / "derivatives", tmp_path / "derivatives")
        strict = TESTING.model_copy(
            update={"limits": RegistrationLimits(ventricle_offset_mm_max=0.0)}
        )
        record = normalise_subject([visits[0]], tmp_path, settings=strict, visit_order=["baseline"])
        assert record.status == "ok" and record.reason is None
        assert record.quality["ventricle_offset_mm"] > 0
        assert "ventricles' wall lies" in record.warning
        assert [(m.status, m.reason) for m in record.masks] == [("ok", record.warning)]

    def test_thick_slices_are_never_fitted_deformably(self, study):
        folder, visits, _ = study
        record = normalise_subject(
            [visits[1]], folder, settings=TESTING, visit_order=["baseline", "day5"]
        )
        assert record.status == "ok", record.reason
        assert record.method == "affine" and record.anchor.kind == "FLAIR"
        chain = record.transforms["day5"][record.anchor.grid]
        assert len(chain.to_mni) == 1 and chain.to_mni[0].endswith(".mat")

    def test_failed_visit_takes_only_its_own_masks_along(self, study):
        folder, visits, _ = study
        broken = replace(visits[1], prepare=replace(visits[1].prepare, brain_masks={}))
        record = normalise_subject(
            [visits[0], broken], folder, settings=TESTING, visit_order=["baseline", "day5"]
        )
        assert record.status == "ok"
        assert [mask.status for mask in record.masks] == ["ok", "failed"]
        assert "no brain mask" in record.masks[1].reason
        assert record.visits["day5"].status == "failed"

    def test_without_an_image_nothing_can_be_computed(self, scans, tmp_path):
        rows = [row(scans, "day5", "mask-infarct", "day5_FLAIR_lesion.nii.gz")]
        prepared = align_visit(
            prepare_rows(rows, tmp_path), tmp_path, settings=RegistrationSettings()
        )
        visit = VisitRecords("day5", prepared)
        record = normalise_subject(
            [visit], tmp_path, settings=RegistrationSettings(), visit_order=["day5"]
        )
        assert record.status == "not_computable"
        assert [mask.status for mask in record.masks] == ["not_computable"]
        assert "no visit has an image" in record.masks[0].reason


class TestLesion:
    def head(self) -> Head:
        def scan(image, how):
            return scan_of("baseline", "T1w", image, how)

        image, mask = scan(template_image(), "linear"), scan(template_brain_mask(), "label")
        return Head(image, mask, "T1w", "s", "p")

    def test_nothing_is_excluded_when_little_would_be_left(self):
        head = self.head()
        settings = RegistrationSettings.model_validate({"preset": "testing", "lesion": "mask"})
        tool = registrar(settings)
        whole = np.asarray(head.brain.dataobj) != 0
        fit = fit_to_template(tool, head, whole, settings)
        assert fit.lesion["used"] == "none" and "of the brain" in fit.lesion["note"]
        assert fit.reason is None

    def test_a_lesion_that_replaces_tissue_is_filled_from_the_other_side(self):
        # The symmetric template itself: what is filled must be nearly what was there.
        template = template_image()
        truth = np.asarray(template.dataobj)
        lesion = np.asarray(lesion_mni().dataobj) != 0
        noise = np.random.default_rng(5).normal(20, 4, lesion.sum())
        data = np.array(template.dataobj)
        data[lesion] = noise
        filling = filled_lesion(nib.Nifti1Image(data, template.affine), lesion, [], [])
        filled = np.asarray(filling.image.dataobj)
        assert filling.other_side > 0.99 and filling.own_tissue == 0
        assert abs(filling.anatomy_correlation) < 0.3
        assert np.abs(filled - truth)[lesion].mean() < 4  # of white matter at 200
        untouched = ~lesion & (filled != data)
        assert untouched.sum() < lesion.sum()  # the 2 mm rim only

    def test_a_lesion_that_keeps_the_anatomy_gets_healthy_intensities(self):
        template = template_image()
        truth = np.asarray(template.dataobj)
        lesion = np.asarray(lesion_mni().dataobj) != 0
        data = np.array(template.dataobj)
        # No scanner shows an edge sharper than its voxels.
        data *= 1 - 0.4 * gaussian_filter(lesion.astype(np.float32), 0.8)
        # The wrong tissue on the other side (5 mm further on) must not come in.
        shifted = np.eye(4)
        shifted[1, 3] = 5.0
        away = [Affine(shifted)], [Affine(np.linalg.inv(shifted))]
        other = filled_lesion(nib.Nifti1Image(data, template.affine), lesion, away[0], [])
        filling = filled_lesion(nib.Nifti1Image(data, template.affine), lesion, [], [])
        error = np.abs(np.asarray(filling.image.dataobj) - truth)[lesion]
        assert filling.own_tissue > 0.99 and filling.other_side == 0
        assert filling.anatomy_correlation > 0.9
        assert error.mean() < 6
        # Worse aligned the correlation falls, and with it the trust in it.
        assert other.anatomy_correlation < filling.anatomy_correlation - 0.1

    def test_each_lesion_is_judged_for_itself(self):
        template = template_image()
        data = np.array(template.dataobj)
        dimmed, replaced = (np.zeros(template.shape, bool) for _ in range(2))
        dimmed[60:75, 120:140, 90:105] = True
        replaced[60:75, 60:80, 90:105] = True
        data *= 1 - 0.5 * gaussian_filter(dimmed.astype(np.float32), 0.8)
        data[replaced] = np.random.default_rng(6).normal(20, 4, replaced.sum())
        filling = filled_lesion(nib.Nifti1Image(data, template.affine), dimmed | replaced, [], [])
        brain = np.asarray(template.dataobj) > 0
        share = (dimmed & brain).sum() / ((dimmed | replaced) & brain).sum()
        assert abs(filling.own_tissue - share) < 0.1
        assert abs(filling.other_side - (1 - share)) < 0.1
        error = np.abs(np.asarray(filling.image.dataobj) - np.asarray(template.dataobj))
        assert error[dimmed].mean() < 8 and error[replaced].mean() < 8

    def test_fill_of_a_midline_lesion_falls_back_to_the_local_mean(self):
        template = template_image()
        lesion = np.zeros(template.shape, bool)
        lesion[88:109, 120:135, 80:95] = True  # x from -10 to 10
        data = np.array(template.dataobj)
        data[lesion] = 5000
        filling = filled_lesion(nib.Nifti1Image(data, template.affine), lesion, [], [])
        assert filling.other_side < 0.05 and filling.own_tissue == 0
        assert np.asarray(filling.image.dataobj).max() <= data[~lesion].max()


def test_b0_stands_for_a_diffusion_grid_and_the_order_of_the_sheet_breaks_ties():
    rows = [Scan(str(n), kind, grid="g1", path="x") for n, kind in enumerate(("dwi", "b0", "b0"))]
    assert best_scan(rows, "g1").scan_id == "1"
    assert best_scan(rows, "g2") is None
