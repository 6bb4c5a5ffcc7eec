"""Stage ``prepare`` of a visit: the record, the files, and that no file's fault ends the run."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from helpers import prepare_rows
from scipy import ndimage

from corelab.imaging import mask_volume_ml
from corelab.imaging.brain_quality import brain_rows
from corelab.measurement.collect import image_findings
from corelab.provenance.products import file_sha256
from corelab.records.images import Prepared
from corelab.settings.prepare import PrepareSettings

AFFINE = np.diag([4.0, 4.0, 5.0, 1.0])
SHAPE = (45, 55, 32)


def ellipsoid(scale=1.0, shape=SHAPE):
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    return (
        sum((axis / (size * scale)) ** 2 for axis, size in zip(grid, (16, 20, 12), strict=True)) < 1
    )


def dwi(shape=SHAPE):
    noise = np.abs(np.random.default_rng(1).normal(0, 4, shape))
    return (np.where(ellipsoid(shape=shape), 250, 5) + noise).astype(np.int16)


def save(path, voxels, affine=AFFINE, **sidecar):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_qform(affine, 1)
    image.header.set_sform(affine, 1)
    nib.save(image, path)
    if sidecar:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def row(kind, path, scan_id="s1", **more):
    return {
        "participant_id": "01",
        "visit": "day5",
        "kind": kind,
        "path": str(path),
        "scan_id": scan_id,
        **more,
    }


def lesion(shape=SHAPE):
    voxels = np.zeros(shape, np.uint8)
    voxels[25:29, 25:29, 15:18] = 1
    return voxels


def only(record, scan_id="s1"):
    return next(scan for scan in record.scans if scan.scan_id == scan_id)


def test_images_of_one_geometry_share_a_grid_and_have_one_brain_mask(tmp_path):
    flipped = np.diag([-4.0, 4, 5, 1])
    flipped[0, 3] = 4.0 * (SHAPE[0] - 1)
    rows = [
        row("dwi", save(tmp_path / "in/dwi.nii.gz", dwi()), "a"),
        row("b0", save(tmp_path / "in/b0.nii.gz", dwi()[::-1].copy(), flipped), "b"),
        row("FLAIR", save(tmp_path / "in/flair.nii.gz", dwi((45, 55, 30))), "c"),
    ]
    record = prepare_rows(rows, tmp_path / "out")
    assert [scan.grid for scan in record.scans] == ["g1", "g1", "g2"]
    assert record.status == "ok" and record.reference == "g1"
    assert set(record.brain_masks) == {"g1", "g2"}
    assert record.brain_masks["g1"].endswith("dwi/sub-01_ses-day5_label-brain_mask.nii.gz")
    assert record.brain_masks["g2"].endswith(
        "anat/sub-01_ses-day5_label-brain_desc-FLAIR_mask.nii.gz"
    )
    mask = nib.load(tmp_path / "out" / record.brain_masks["g1"])
    truth = nib.Nifti1Image(ellipsoid().astype(np.uint8), AFFINE)
    assert mask_volume_ml(mask) == pytest.approx(mask_volume_ml(truth), rel=0.05)
    assert record.brain_mask_quality["g1"].source == "dwi"


def test_reference_prefers_t1_to_all_others(tmp_path):
    rows = [
        row("FLAIR", save(tmp_path / "f.nii.gz", dwi()), "f"),
        row("T1w", save(tmp_path / "t.nii.gz", dwi((45, 55, 31))), "t"),
    ]
    record = prepare_rows(rows, tmp_path / "out")
    assert record.reference == only(record, "t").grid


def test_record_describes_the_conformed_file(tmp_path):
    source = save(tmp_path / "a.nii.gz", dwi(), EchoTime=0.09, SliceThickness=5, Manufacturer="X")
    record = prepare_rows([row("dwi", source, b_value="1000")], tmp_path / "out")
    scan = only(record)
    assert scan.sha256 == file_sha256(source)
    assert scan.path == "derivatives/sub-01/ses-day5/dwi/sub-01_ses-day5_desc-conformed_dwi.nii.gz"
    assert scan.shape == SHAPE and scan.voxel_size_mm == (4, 4, 5)
    assert scan.metadata["echo_time_s"] == 0.09 and scan.metadata["b_value"] == 1000
    sidecar = json.loads((tmp_path / "out" / scan.path.replace(".nii.gz", ".json")).read_text())
    assert sidecar["inputs"] == [{"name": "a.nii.gz", "sha256": scan.sha256}]
    assert sidecar["sha256"] == file_sha256(tmp_path / "out" / scan.path)
    assert nib.load(tmp_path / "out" / scan.path).get_data_dtype() == np.int16
    assert Prepared.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_sheet_wins_over_the_sidecar(tmp_path):
    source = save(tmp_path / "a.nii.gz", dwi(), EchoTime=0.09)
    record = prepare_rows([row("dwi", source, echo_time_s=0.07)], tmp_path / "out")
    assert only(record).metadata["echo_time_s"] == 0.07


def test_milliseconds_in_the_sheet_are_recognised_and_told(tmp_path):
    record = prepare_rows(
        [row("dwi", save(tmp_path / "a.nii.gz", dwi()), echo_time_s=90, repetition_time_s="5000")],
        tmp_path / "out",
    )
    assert only(record).metadata["echo_time_s"] == 0.09
    assert only(record).metadata["repetition_time_s"] == 5
    assert len([note for note in only(record).notes if "milliseconds" in note]) == 2


def test_bval_beside_a_dwi_gives_its_b_value(tmp_path):
    source = save(tmp_path / "a.nii.gz", dwi())
    (tmp_path / "a.bval").write_text("0 1000 1000")
    assert only(prepare_rows([row("dwi", source)], tmp_path / "out")).metadata["b_value"] == 1000


def test_a_faulty_file_is_a_status_and_the_rest_goes_on(tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"")
    rows = [row("dwi", save(tmp_path / "a.nii.gz", dwi()), "a"), row("adc", bad, "b")]
    record = prepare_rows(rows, tmp_path / "out")
    assert record.status == "ok"
    scan = only(record, "b")
    assert scan.status == "failed" and "empty" in scan.reason and scan.remedy
    assert scan.path is None and scan.grid is None
    lines = [line for line in record.acquisition if line.kind == "adc"]
    verdicts = {line.criterion: line.verdict for line in lines}
    assert verdicts.pop("readable") == "fail"
    assert verdicts and set(verdicts.values()) == {"not_assessable"}


def test_the_source_of_a_scan_is_the_file_as_listed(tmp_path):
    missing = tmp_path / "no.nii.gz"
    rows = [row("dwi", missing, source="scans/no.nii.gz"), row("adc", missing, "s2")]
    scans = prepare_rows(rows, tmp_path / "out").scans
    assert [scan.source for scan in scans] == ["scans/no.nii.gz", str(missing)]


def test_a_visit_of_faulty_files_alone_has_failed(tmp_path):
    record = prepare_rows([row("dwi", tmp_path / "no.nii.gz")], tmp_path / "out")
    assert record.status == "failed" and "is missing" in record.reason
    assert record.reference is None and record.brain_masks == {}


def test_rows_of_two_visits_are_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match="one visit"):
        prepare_rows([row("dwi", "a"), row("dwi", "a") | {"visit": "x"}], tmp_path)


def test_same_rows_same_bytes(tmp_path):
    source = save(tmp_path / "a.nii.gz", dwi())
    records = [prepare_rows([row("dwi", source)], tmp_path / out) for out in ("x", "y")]
    assert records[0] == records[1]
    files = [
        sorted(p.relative_to(tmp_path / out) for p in (tmp_path / out).rglob("*.*")) for out in "xy"
    ]
    assert files[0] == files[1]
    for name in files[0]:
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_two_scans_of_one_kind_get_two_files(tmp_path):
    rows = [row("dwi", save(tmp_path / f"{n}.nii.gz", dwi()), n) for n in "ab"]
    paths = {scan.path for scan in prepare_rows(rows, tmp_path / "out").scans}
    assert len(paths) == 2 and any("run-2" in path for path in paths)


# --- masks -------------------------------------------------------------------------------------


def with_mask(tmp_path, mask, affine=AFFINE, **more):
    rows = [
        row("mask-infarct", save(tmp_path / "m.nii.gz", mask, affine), "m", **more),
        row("dwi", save(tmp_path / "a.nii.gz", dwi()), "a"),
    ]
    return prepare_rows(rows, tmp_path / "out")


def test_mask_is_named_after_its_reader_and_the_scan_it_lies_on(tmp_path):
    scan = only(with_mask(tmp_path, lesion(), reader="reader-1", repeat=2), "m")
    assert scan.path.endswith("dwi/sub-01_ses-day5_run-2_label-infarct_desc-reader+2D1_mask.nii.gz")
    assert (scan.label, scan.on_kind, scan.grid, scan.unit) == (
        "infarct",
        "dwi",
        "g1",
        "label",
    )
    assert scan.volume_ml == pytest.approx(48 * 0.08)


def test_mask_without_a_reader_is_supplied(tmp_path):
    assert "desc-supplied" in only(with_mask(tmp_path, lesion()), "m").path


def test_rows_keep_the_order_of_the_sheet(tmp_path):
    assert [scan.scan_id for scan in with_mask(tmp_path, lesion()).scans] == ["m", "a"]


def test_label_values_choose_which_labels_count(tmp_path):
    labels = lesion()
    labels[25, 25, 15], labels[25, 25, 16] = 2, 4
    record = with_mask(tmp_path, labels, label_values="2,4")
    mask = nib.load(tmp_path / "out" / only(record, "m").path)
    assert np.asarray(mask.dataobj).sum() == 2 and mask.get_data_dtype() == np.uint8


def test_absent_labels_give_no_value(tmp_path):
    scan = only(with_mask(tmp_path, lesion(), label_values="3"), "m")
    assert scan.status == "failed" and "no voxel of the label 3; it holds 1" in scan.reason


def test_an_empty_mask_is_a_true_zero(tmp_path):
    scan = only(with_mask(tmp_path, np.zeros_like(lesion()), label_values="3"), "m")
    assert scan.status == "ok" and scan.volume_ml == 0


def test_several_labels_without_a_choice_are_a_warning(tmp_path):
    labels = lesion()
    labels[25, 25, 15], labels[25, 25, 16] = 2, 4
    scan = only(with_mask(tmp_path, labels), "m")
    assert scan.status == "ok" and "the labels 1, 2, 4" in scan.warnings[0]
    assert image_findings([("1", "v", scan)])["severity"].tolist()[0] == "warning"


@pytest.mark.parametrize("highest", [100, 255, 1000])
def test_probability_maps_of_whole_numbers_are_refused(tmp_path, highest):
    soft = ndimage.gaussian_filter(lesion().astype(float), 2) * highest
    kind = np.uint8 if highest < 256 else np.int16
    scan = only(with_mask(tmp_path, np.rint(soft).astype(kind)), "m")
    assert scan.status == "failed" and "probability map" in scan.reason
    assert "threshold" in scan.remedy


def test_unreadable_label_values_fail_the_mask(tmp_path):
    scan = only(with_mask(tmp_path, lesion(), label_values="one"), "m")
    assert scan.status == "failed" and "label_values" in scan.remedy


def test_empty_mask_is_a_zero_volume(tmp_path):
    scan = only(with_mask(tmp_path, np.zeros(SHAPE, np.uint8)), "m")
    assert scan.status == "ok" and scan.volume_ml == 0


def test_mask_on_another_grid_keeps_its_own_and_is_told(tmp_path):
    scan = only(with_mask(tmp_path, lesion((45, 55, 20))), "m")
    assert scan.grid == "g2" and "grid of no scan" in " ".join(scan.notes)


def test_mask_of_the_same_shape_in_another_place_is_told(tmp_path):
    moved = AFFINE.copy()
    moved[:3, 3] = 500
    notes = " ".join(only(with_mask(tmp_path, lesion(), moved), "m").notes)
    assert "the shape of dwi but another position" in notes
    assert "only 0% of it lies inside" in notes


def test_template_mask_is_kept_out_of_the_native_grids(tmp_path):
    affine = np.diag([-4.0, 4, 5, 1])
    record = with_mask(tmp_path, lesion(), affine, space="MNI152")
    scan = only(record, "m")
    assert scan.grid == "mni1" and scan.status == "ok"
    assert "_space-MNI152NLin2009aSym_label-infarct_desc-supplied_mask" in scan.path
    kept = nib.load(tmp_path / "out" / scan.path)
    assert nib.aff2axcodes(kept.affine) == ("L", "A", "S")
    assert np.array_equal(kept.dataobj, lesion())
    assert set(record.brain_masks) == {"g1"}


def test_supplied_brain_mask_takes_the_place_of_ours(tmp_path):
    rows = [
        row("dwi", save(tmp_path / "a.nii.gz", dwi()), "a"),
        row("mask-brain", save(tmp_path / "m.nii.gz", ellipsoid(0.9).astype(np.uint8)), "m"),
    ]
    record = prepare_rows(rows, tmp_path / "out")
    assert record.brain_masks["g1"] == only(record, "m").path
    assert record.brain_mask_quality["g1"].source == "supplied"


def test_a_brain_that_the_field_cuts_off_is_told(tmp_path):
    cut = dwi()[:, 18:, :]  # 35 mm of the back of the head lie outside
    record = prepare_rows([row("dwi", save(tmp_path / "a.nii.gz", cut))], tmp_path / "out")
    (found,) = record.brain_mask_quality["g1"].cut
    assert found.side == "posterior" and found.area_cm2 > 60
    rows = {one.criterion: one for one in brain_rows(record)}
    assert rows["brain_in_field"].verdict == "fail"
    assert rows["brain_in_field"].value == "cut posterior"
    assert "a volume is a lower bound" in rows["brain_in_field"].reason


def test_a_whole_brain_is_not_cut_off_in_whatever_box(tmp_path):
    inside = ellipsoid()
    tight = tuple(
        slice(*np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {k})))[[0, -1]] + [0, 1])
        for k in range(3)
    )
    stripped = np.where(inside, dwi(), 0)
    images = {"whole": dwi(), "stripped": stripped, "tight": stripped[tight]}
    for name, voxels in images.items():
        path = save(tmp_path / f"{name}.nii.gz", voxels)
        record = prepare_rows([row("dwi", path)], tmp_path / name)
        assert record.brain_mask_quality["g1"].cut == (), name


def test_padding_does_not_hide_a_cut(tmp_path):
    padded = dwi()
    padded[:, :, 20:] = 0  # the upper 60 mm were never scanned
    path = save(tmp_path / "a.nii.gz", padded)
    record = prepare_rows([row("dwi", path)], tmp_path / "out")
    assert [one.side for one in record.brain_mask_quality["g1"].cut] == ["superior"]


def test_visit_of_masks_alone(tmp_path):
    record = prepare_rows(
        [row("mask-infarct", save(tmp_path / "m.nii.gz", lesion()))], tmp_path / "out"
    )
    assert record.status == "ok" and record.reference is None and record.brain_masks == {}
    assert only(record).grid == "g1"


# --- series ------------------------------------------------------------------------------------


def series(tmp_path, frames=8, header_interval=None, **sidecar):
    voxels = np.stack([dwi((20, 24, 12))] * frames, -1)
    path = save(tmp_path / "p.nii.gz", voxels, **sidecar)
    if header_interval:
        image = nib.load(path)
        image.header["pixdim"][4] = header_interval
        image.header.set_xyzt_units("mm", "sec")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    return path


def times_of(record):
    return only(record).metadata["frame_times_s"]


def test_frame_times_come_from_the_sidecar(tmp_path):
    times = [0, 1, 2, 4, 6, 8, 10, 12]
    for key in ("frame_times_s", "FrameTimes", "VolumeTiming"):
        path = series(tmp_path, **{key: times})
        assert times_of(prepare_rows([row("dsc", path)], tmp_path / "out")) == times


@pytest.mark.parametrize(("direction", "expected"), [(None, 0.0), ("k-", 1.1)])
def test_slice_times_follow_their_slices(tmp_path, direction, expected):
    """BIDS SliceTiming runs along the file's slices; a file stored from the top is turned over."""
    times = [round(0.1 * k, 1) for k in range(12)]
    more = {} if direction is None else {"SliceEncodingDirection": direction}
    path = series(tmp_path, RepetitionTime=1.5, SliceTiming=times, **more)
    record = prepare_rows([row("dsc", path)], tmp_path / "out")
    found = only(record).metadata["slice_times_s"]
    assert found[0] == expected and sorted(found) == times
    stored = nib.load(path)
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = 11
    turned = save(
        tmp_path / "t.nii.gz", np.asarray(stored.dataobj)[:, :, ::-1], stored.affine @ flip,
        RepetitionTime=1.5, SliceTiming=times[::-1], **more,
    )  # fmt: skip
    again = prepare_rows([row("dsc", turned)], tmp_path / "other")
    assert only(again).metadata["slice_times_s"] == found


@pytest.mark.parametrize("times", [[0.0] * 5, [1000.0 * k for k in range(12)], "odd"])
def test_slice_times_that_cannot_be_are_told_and_not_used(tmp_path, times):
    path = series(tmp_path, RepetitionTime=1.5, SliceTiming=times)
    scan = only(prepare_rows([row("dsc", path)], tmp_path / "out"))
    assert scan.status == "ok" and scan.metadata["slice_times_s"] is None
    assert "SliceTiming" in " ".join(scan.notes)


def test_times_in_milliseconds_are_taken_as_such_and_told(tmp_path):
    path = series(
        tmp_path,
        FrameTimes=[2000.0 * t for t in range(8)],
        SliceTiming=[100.0 * k for k in range(12)],
    )
    scan = only(prepare_rows([row("dsc", path)], tmp_path / "out"))
    assert scan.metadata["frame_times_s"] == [2.0 * t for t in range(8)]
    assert scan.metadata["slice_times_s"] == [round(0.1 * k, 6) for k in range(12)]
    assert sum("taken as milliseconds" in note for note in scan.notes) == 2


@pytest.mark.parametrize("form", [None, "sform", "qform"])
def test_which_form_places_an_image_is_the_studys_decision(tmp_path, form):
    path = save(tmp_path / "a.nii.gz", dwi())
    image = nib.load(path)
    mirrored = AFFINE.copy()
    mirrored[0] *= -1
    image.header.set_qform(mirrored, 1)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    settings = {"acquisition": {"orientation": form} if form else {}}
    scan = only(
        prepare_rows(
            [row("dwi", path)], tmp_path / "out", settings=PrepareSettings.model_validate(settings)
        )
    )
    assert bool(scan.warnings) == (form is None)
    voxels = np.asanyarray(nib.load(tmp_path / "out" / scan.path).dataobj)
    # Array axes run towards the right: one of the two choices turns them over.
    assert np.array_equal(voxels, dwi()[::-1] if form == "qform" else dwi())


def test_frame_times_from_the_repetition_time(tmp_path):
    path = series(tmp_path, RepetitionTime=1.5)
    record = prepare_rows([row("dsc", path)], tmp_path / "out")
    assert times_of(record)[:3] == [0, 1.5, 3]


def test_frame_times_from_the_header_are_told(tmp_path):
    record = prepare_rows([row("dsc", series(tmp_path, header_interval=2.0))], tmp_path / "out")
    assert times_of(record)[:3] == [0, 2, 4]
    assert "image header" in " ".join(only(record).notes)
    conformed = nib.load(tmp_path / "out" / only(record).path)
    assert conformed.header["pixdim"][4] == 2


def test_header_that_contradicts_the_repetition_time_is_told(tmp_path):
    path = series(tmp_path, header_interval=3.0, RepetitionTime=1.5)
    record = prepare_rows([row("dsc", path)], tmp_path / "out")
    assert times_of(record)[1] == 1.5 and "the former is used" in " ".join(only(record).notes)


def test_unknown_frame_times_fail_the_series(tmp_path):
    scan = only(prepare_rows([row("dsc", series(tmp_path))], tmp_path / "out"))
    assert scan.status == "failed" and "times of the frames" in scan.reason


@pytest.mark.parametrize(
    "times", [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 6], "soon", [0, 1, 2, 3, 4, 5, 6, None]]
)
def test_frame_times_that_do_not_fit_fail_the_series(tmp_path, times):
    path = series(tmp_path, frame_times_s=times)
    assert only(prepare_rows([row("dsc", path)], tmp_path / "out")).status == "failed"


SIDECARS = {
    "invalid": (
        b'{"EchoTime": 0.09, "ReconFilterType": "J30s\\",\n"x": 3}',
        "cannot be read",
        None,
    ),
    "truncated": (b'{"EchoTime": 0.09, "Repe', "cannot be read", None),
    "empty": (b"", "cannot be read", None),
    "binary": (bytes(range(256)), "cannot be read", None),
    "nested too deep": (b"[" * 100_000, "cannot be read", None),
    "list": (b'[{"EchoTime": 0.09}]', "holds a list", None),
    "number": (b"3", "holds a single value", None),
    "byte order mark": (b'\xef\xbb\xbf{"EchoTime": 0.09}', None, 0.09),
    "utf-16": ('{"EchoTime": 0.09}'.encode("utf-16"), None, 0.09),
    "latin-1": (b'{"EchoTime": 0.09, "Name": "Sch\xe4del"}', "read as Latin-1", 0.09),
    "tab in a text": (b'{"EchoTime": 0.09, "Name": "a\tb"}', None, 0.09),
    "not a number": (b'{"EchoTime": NaN, "FlipAngle": 90}', "no finite number in EchoTime", None),
    "infinite": (b'{"EchoTime": 1e999}', "no finite number in EchoTime", None),
    "text for a number": (b'{"EchoTime": "short"}', "no number", None),
    "list for a number": (b'{"EchoTime": [0.09]}', "is no single value", None),
    "b values that are words": (b'{"EchoTime": 0.09, "b_values": "abc"}', None, 0.09),
}


@pytest.mark.parametrize("what", SIDECARS)
def test_no_sidecar_stops_a_job_and_its_fault_is_a_note(tmp_path, what):
    content, words, echo_time = SIDECARS[what]
    path = save(tmp_path / "a.nii.gz", dwi())
    (tmp_path / "a.json").write_bytes(content)
    scan = only(prepare_rows([row("dwi", path)], tmp_path / "out"))
    assert scan.status == "ok" and scan.metadata["echo_time_s"] == echo_time
    notes = [note for note in scan.notes if words and words in note]
    assert len(notes) == (words is not None), scan["notes"]


@pytest.mark.parametrize("content", [b"0 1000 x", b"0 nan", b"\xff\xfe0", b""])
def test_damaged_bval_is_a_note(tmp_path, content):
    path = save(tmp_path / "a.nii.gz", dwi())
    (tmp_path / "a.bval").write_bytes(content)
    scan = only(prepare_rows([row("dwi", path)], tmp_path / "out"))
    assert scan.status == "ok" and scan.metadata["b_values"] is None
    assert "a.bval holds no list of finite numbers and was not used" in scan.notes


def test_charter_rows_stand_for_each_scan(tmp_path):
    record = prepare_rows(
        [row("dwi", save(tmp_path / "a.nii.gz", dwi()), b_value=500)],
        tmp_path / "out",
        settings=PrepareSettings.model_validate(
            {"acquisition": {"use_defaults": False, "dwi": {"b_value_min": 900, "slices_min": 10}}}
        ),
    )
    assert [(row.scan_id, row.criterion, row.value, row.limit) for row in record.acquisition] == [
        ("s1", "readable", "yes", "yes"),
        ("s1", "b_value_min", 500, 900),
        ("s1", "slices_min", 32, 10),
    ]
    assert [row.verdict for row in record.acquisition] == ["pass", "fail", "pass"]
    assert "reason" not in record.to_json()["acquisition"][1]


# --- arterial input ----------------------------------------------------------------------------


def curve(tmp_path, text):
    path = tmp_path / "aif.tsv"
    path.write_text(text)
    return prepare_rows([row("aif", path)], tmp_path / "out")


GOOD = "time_s\tvalue\n" + "".join(f"{t}\t{v}\n" for t, v in enumerate([0, 0, 5, 9, 3, 1]))


def test_arterial_input_is_checked_and_copied(tmp_path):
    record = curve(tmp_path, GOOD)
    scan = only(record)
    assert scan.status == "ok" and scan.path.endswith("perf/sub-01_ses-day5_desc-conformed_aif.tsv")
    assert (tmp_path / "out" / scan.path).read_text() == GOOD
    assert record.brain_masks == {} and record.reference is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time_s\tv\n0\t1\n", "lacks the column value"),
        (GOOD.replace("5\n", "x\n"), "no table of numbers"),
        ("time_s\tvalue\n0\t1\n1\t2\n", "2 rows"),
        (GOOD.replace("2\t5", "2\tn/a"), "gaps"),
        (GOOD.replace("2\t5", "1\t5"), "do not rise"),
        ("time_s\tvalue\n" + "".join(f"{t}\t4\n" for t in range(6)), "never changes"),
        ("", "no table"),
    ],
)
def test_faulty_arterial_input_is_a_status(tmp_path, text, words):
    scan = only(curve(tmp_path, text))
    assert scan.status == "failed" and words in scan.reason


def test_an_input_that_no_reader_opens_is_a_status_for_every_kind(tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(bytes(range(256)) * 40)
    kinds = [
        "T1w",
        "T1c",
        "T2w",
        "FLAIR",
        "b0",
        "dwi",
        "adc",
        "gre",
        "ncct",
        "ctp",
        "dsc",
        "cbf",
        "cbv",
        "mtt",
        "tmax",
        "ttp",
        "aif",
        "dicom",
        "mask-infarct",
    ]
    rows = [row(kind, bad, kind) for kind in kinds]
    record = prepare_rows(rows, tmp_path / "out")
    assert {scan.status for scan in record.scans} == {"failed"}
    assert all(scan.reason and scan.remedy for scan in record.scans)


@pytest.mark.parametrize(
    ("scale", "output"), [(1.0, False), (0.7, False), (0.1, True), (10.0, True)]
)
def test_supplied_maps_are_held_against_the_central_volume_principle(tmp_path, scale, output):
    head = ellipsoid()
    rng = np.random.default_rng(3)
    cbf = np.where(head, rng.normal(50, 5, SHAPE), 0).astype(np.float32)
    cbv = np.where(head, rng.normal(4, 0.3, SHAPE), 0).astype(np.float32)
    mtt = np.where(head, 60 * cbv / np.maximum(cbf, 1), 0).astype(np.float32)
    maps = {"cbf": cbf, "cbv": scale * cbv, "mtt": mtt}
    rows = [
        row(kind, save(tmp_path / f"{kind}.nii.gz", np.asarray(voxels, np.float32)), kind)
        for kind, voxels in maps.items()
    ]
    for scan in prepare_rows(rows, tmp_path / "out").scans:
        found = [text for text in scan.warnings if "central volume principle" in text]
        assert len(found) == output, scan["warnings"]
        if output:
            assert f"CBF x MTT is {1 / scale:.2g} times CBV" in found[0]
