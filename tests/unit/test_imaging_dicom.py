"""DICOM folders: real files with known contents, and made ones with one fault each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import made_enhanced, made_series, made_slice
from helpers import data_folder, prepare_rows

from corelab.imaging import ImageFault
from corelab.imaging.conversion import convert, scans_of_folder
from corelab.imaging.dicom import DicomFile, Series, list_series
from corelab.imaging.dynamic import time_table
from corelab.measurement.collect import image_findings
from corelab.records.images import ScanRow
from corelab.settings.acquisition import DicomSettings
from corelab.settings.prepare import PrepareSettings


def reasons(listing):
    return {file.name: file.reason for file in listing.left_out}


# --- made folders ------------------------------------------------------------------------------


def test_a_sound_series_is_converted_with_its_pixels_proven(tmp_path):
    (series,) = list_series(made_series(tmp_path / "in")).series
    assert (series.kind, series.number, len(series.files)) == ("ncct", 3, 8)
    made = convert(series, tmp_path / "work")
    assert made.proof == "unchanged" and made.notes == ()
    assert made.command.startswith("dcm2niix") and str(tmp_path) not in made.command
    assert made.version.startswith("v1.0.")
    image = nib.load(made.path)
    # Slice k has 30 + k HU (and the ramp of 0 to 2) in its middle.
    assert np.median(image.get_fdata()[16, 16]) == pytest.approx(30 + 3.5, abs=2)


def test_a_changed_pixel_is_found_out(tmp_path):
    folder = made_series(tmp_path / "in")
    (series,) = list_series(folder).series
    ds = pydicom.dcmread(folder / "003.dcm")
    pixels = bytearray(ds.PixelData)
    pixels[200] ^= 1
    ds.PixelData = bytes(pixels)
    ds.save_as(folder / "003.dcm")
    with pytest.raises(ImageFault, match="changed stored values"):
        convert(series, tmp_path / "work")


def test_sagittal_series_is_turned_without_a_changed_value(tmp_path):
    def sagittal(ds):
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [5.0 * (ds.InstanceNumber - 1), -112, 112]
        ds.MRAcquisitionType = "3D"

    folder = made_series(tmp_path / "in", 12, kind="MR", edit=sagittal)
    (series,) = list_series(folder).series
    assert convert(series, tmp_path / "work").proof == "unchanged"


def edit_one(folder, name, edit):
    ds = pydicom.dcmread(folder / name)
    edit(ds)
    ds.save_as(folder / name)


LEFT_OUT = {
    "localizer": (
        lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "localizer",
    ),
    "secondary capture": (
        lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
        "secondary capture",
    ),
    "derived": (
        lambda ds: setattr(ds, "ImageType", ["DERIVED", "SECONDARY", "MPR"]),
        "derived (secondary mpr)",
    ),
    "other modality": (lambda ds: setattr(ds, "Modality", "US"), "modality US"),
    "report": (lambda ds: ds.__delitem__("PixelData"), "no image"),
    "phase": (lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "P"]), "phase image"),
    "truncated": (
        lambda ds: setattr(ds, "PixelData", ds.PixelData[:-100]),
        "truncated: 1948 of 2048",
    ),
    "bad rows": (lambda ds: setattr(ds, "BitsAllocated", 13), "damaged"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_no_scan_is_left_out_with_its_reason(tmp_path, what):
    folder = made_series(tmp_path / "in")
    edit, reason = LEFT_OUT[what]
    edit_one(folder, "007.dcm", edit)
    listing = list_series(folder)
    assert reason in reasons(listing)["007.dcm"]
    assert len(listing.series[0].files) == 7


def test_files_cut_off_or_empty_are_named_and_the_rest_goes_on(tmp_path):
    folder = made_series(tmp_path / "in")
    content = (folder / "000.dcm").read_bytes()
    (folder / "000.dcm").write_bytes(content[: len(content) // 2])
    (folder / "007.dcm").write_bytes(b"")
    shutil.copyfile(folder / "002.dcm", folder / "copy of 002.dcm")
    found = reasons(list_series(folder))
    assert found["000.dcm"].startswith("truncated")
    assert found["007.dcm"] == "empty file"
    assert found["copy of 002.dcm"] == "the same image as 002.dcm"
    record = prepared(folder, tmp_path)
    assert record.scans[0].status == "ok"
    assert "2 damaged files were left out: 000.dcm, 007.dcm" in record.scans[0].notes


def test_each_frame_is_scaled_by_its_own_slope_and_proven(tmp_path):
    def own_slope(ds):
        ds.RescaleSlope, ds.RescaleIntercept = 1 + 0.5 * (ds.InstanceNumber - 1), 0

    (series,) = list_series(made_series(tmp_path / "in", edit=own_slope)).series
    made = convert(series, tmp_path / "work")
    assert made.proof == "unchanged"
    assert "slope differs between frames (1 to 4.5)" in made.notes[0]
    image = nib.load(made.path).get_fdata()
    for index in range(8):
        file = pydicom.dcmread(tmp_path / "in" / f"{index:03d}.dcm")
        due = np.sort(file.pixel_array * float(file.RescaleSlope), axis=None)
        assert np.sort(image[..., index], axis=None) == pytest.approx(due, rel=1e-6)


def mosaic(slices, *, output=True):
    """Edit that packs slices of 32 x 32 into one picture, as Siemens scanners do."""

    def edit(ds):
        side = int(np.ceil(np.sqrt(slices)))
        y, x = np.mgrid[:32, :32] - 16
        picture = np.zeros((32 * side, 32 * side), "<i2")
        for k in range(slices):
            row, column = 32 * (k // side), 32 * (k % side)
            disc = np.where(np.hypot(x, y) < 10, 100 + 10 * k + ds.InstanceNumber, x % 3)
            picture[row : row + 32, column : column + 32] = disc
        ds.Rows, ds.Columns, ds.PixelData = *picture.shape, picture.tobytes()
        ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        ds.SeriesDescription, ds.RescaleIntercept = "ep2d_perf", 0
        ds.ImagePositionPatient, ds.SpacingBetweenSlices = [-336, -336, 0.0], 5.0
        ds.AcquisitionTime = f"1015{ds.InstanceNumber:02d}"
        if output:
            block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
            block.add_new(0x0A, "US", slices)

    return edit


def test_mosaics_are_unpacked_and_proven_tile_by_tile(tmp_path):
    folder = made_series(tmp_path / "in", 25, kind="MR", edit=mosaic(7))
    (series,) = list_series(folder).series
    assert series.kind == "dsc"
    made = convert(series, tmp_path / "work")
    assert made.proof == "unchanged"
    image = nib.load(made.path)
    assert image.shape == (32, 32, 7, 25)
    # Slice k of frame t has 100 + 10 k + t + 1 in its middle.
    middle = np.asarray(image.dataobj)[16, 16]
    assert np.array_equal(middle, 101 + 10 * np.arange(7)[:, None] + np.arange(25)[None, :])


def test_a_mosaic_that_does_not_tell_its_slices_is_refused(tmp_path):
    listing = list_series(made_series(tmp_path, 3, kind="MR", edit=mosaic(7, output=False)))
    assert not listing.series
    assert "mosaic" in reasons(listing)["000.dcm"]


def test_series_of_two_patients_in_one_folder_are_told(tmp_path):
    made_series(tmp_path / "in" / "a", edit=lambda ds: setattr(ds, "PatientID", "A"))
    made_series(
        tmp_path / "in" / "b", 4, uid="1.2.4", edit=lambda ds: setattr(ds, "PatientID", "B")
    )
    row = {"kind": "dicom", "path": str(tmp_path / "in"), "scan_id": "s"}
    (found,) = scans_of_folder(ScanRow.from_row(row), tmp_path / "work", DicomSettings())
    assert any("series of 2 different patients" in note for note in found.notes)
    assert "'A'" not in str(found.dicom)


def test_missing_slices_are_refused(tmp_path):
    folder = made_series(tmp_path / "in", 12)
    for index in (5, 6):
        (folder / f"{index:03d}.dcm").unlink()
    (series,) = list_series(folder).series
    with pytest.raises(ImageFault, match="gap of 15 mm between slices that lie 5 mm apart"):
        convert(series, tmp_path / "work")


def test_slices_that_alternate_are_told_with_what_it_does_to_a_volume(tmp_path):
    def alternating(ds):
        index = ds.InstanceNumber - 1
        place = 9.0 * (index - index // 2) + 8.865 * (index // 2)
        ds.ImagePositionPatient = [-112, -112, place]

    folder = made_series(tmp_path / "in", 9, spacing=9.0, edit=alternating)
    scan = prepared(folder, tmp_path).scans[0]
    (note,) = [note for note in scan.notes if note.startswith("slices lie")]
    assert note.startswith("slices lie 8.865 to 9 mm apart; the image has 9 mm throughout")
    assert note.endswith("which makes volumes +0.8 % wrong")
    assert scan.metadata["largest_slice_distance_mm"] == 9.0


def test_equal_slices_are_not_told(tmp_path):
    scan = prepared(made_series(tmp_path / "in"), tmp_path).scans[0]
    assert not [note for note in scan.notes if "slices lie" in note]


def test_two_folders_of_one_visit_become_two_scans(tmp_path):
    def diffusion(ds):
        ds.SeriesDescription = "DWI b1000"

    folders = {
        "s1": made_series(tmp_path / "ct"),
        "s2": made_series(tmp_path / "mr", kind="MR", uid="1.2.7", edit=diffusion),
        "s3": made_series(tmp_path / "ct2", uid="1.2.8"),
    }
    rows = [
        {"participant_id": "1", "visit": "v", "kind": "dicom", "path": str(path), "scan_id": name}
        for name, path in folders.items()
    ]
    scans = prepare_rows(rows, tmp_path / "out").scans
    assert [(scan.kind, scan.status) for scan in scans] == [
        ("ncct", "ok"),
        ("dwi", "ok"),
        ("ncct", "ok"),
    ]
    note = "the visit has the scan s1 of the same kind, ncct, too"
    assert [note in scan.notes for scan in scans] == [False, False, True]
    assert scans[0].path != scans[2].path


def test_lossy_compression_is_flagged(tmp_path):
    folder = made_series(
        tmp_path / "in", edit=lambda ds: setattr(ds, "LossyImageCompression", "01")
    )
    record = prepared(folder, tmp_path)
    assert record.scans[0].dicom.series[0].lossy is True
    assert "compressed with loss" in " ".join(record.scans[0].notes)


def test_identifying_tags_are_reported_without_their_values(tmp_path):
    def named(ds):
        ds.PatientName, ds.PatientBirthDate = "Doe^Jane", "19500101"

    record = prepared(made_series(tmp_path / "in", edit=named), tmp_path)
    scan = record.scans[0]
    assert scan.dicom.identifying_tags == {
        "PatientBirthDate": 8,
        "PatientName": 8,
        "StudyDate": 8,
    }
    assert "Doe" not in str(record) and "1950" not in str(record)


def test_the_list_of_identifying_tags_is_configurable(tmp_path):
    folder = made_series(tmp_path / "in")
    assert list_series(folder, identifying_tags=["Manufacturer"]).identifying == {"Manufacturer": 8}


def prepared(folder, tmp_path, **settings):
    row = {
        "participant_id": "1",
        "visit": "v",
        "kind": "dicom",
        "path": str(folder),
        "scan_id": "s",
    }
    return prepare_rows(
        [row], tmp_path / "out", settings=PrepareSettings.model_validate({"dicom": settings})
    )


def test_dicom_row_becomes_a_scan_of_its_kind(tmp_path):
    folder = made_series(tmp_path / "in")
    scan = prepared(folder, tmp_path).scans[0]
    assert (scan.kind, scan.status, scan.unit) == ("ncct", "ok", "HU")
    assert scan.source == str(folder) and len(scan.sha256) == 64
    assert scan.metadata["acquired_at"] == "2024-02-29T10:15:30"
    assert scan.metadata["slice_thickness_mm"] == 5
    assert scan.dicom.series[0].conversion.pixels == "unchanged"


def test_dates_are_shifted_on_request(tmp_path):
    record = prepared(made_series(tmp_path / "in"), tmp_path, date_shift_days=-60)
    assert record.scans[0].metadata["acquired_at"] == "2023-12-31T10:15:30"


def siemens_iterative(ds):
    """Header of a SAFIRE or ADMIRE reconstruction, for which dcm2niix writes invalid JSON."""
    ds.Manufacturer, ds.ManufacturerModelName = "SIEMENS", "SOMATOM Force"
    ds.ConvolutionKernel, ds.KVP, ds.SoftwareVersions = ["J30s", "3"], "120", "VA48A"


def test_invalid_json_of_dcm2niix_is_replaced_by_the_headers(tmp_path):
    folder = made_series(tmp_path / "in", edit=siemens_iterative)
    scan = prepared(folder, tmp_path).scans[0]
    assert scan.status == "ok"
    assert any("dcm2niix wrote is not valid JSON" in note for note in scan.notes)
    facts = scan.metadata
    assert facts["convolution_kernel"] == "J30s\\3"
    assert (facts["manufacturer"], facts["scanner"]) == ("SIEMENS", "SOMATOM Force")
    assert (facts["tube_voltage_kv"], facts["software_version"]) == (120.0, "VA48A")
    assert (facts["slice_thickness_mm"], facts["contrast_phase"]) == (5.0, "none")
    assert facts["acquired_at"] == "2024-02-29T10:15:30" and facts["lossy"] is False


def test_dcm2niix_still_writes_invalid_json_for_that_kernel(tmp_path):
    """If this fails, dcm2niix was corrected and the test above no longer tests anything."""
    (series,) = list_series(made_series(tmp_path / "in", edit=siemens_iterative)).series
    made = convert(series, tmp_path / "work")
    with pytest.raises(ValueError):
        json.loads(made.path.with_suffix(".json").read_text())


def test_header_fields_of_mr_carry_the_units_of_a_sidecar(tmp_path):
    def edit(ds):
        ds.EchoTime, ds.RepetitionTime, ds.InversionTime, ds.FlipAngle = "90", "8000", "", "150"
        ds.MagneticFieldStrength, ds.SeriesDescription = "1.5", "AX_FLAIR"

    folder = made_series(tmp_path / "in", kind="MR", edit=edit)
    fields = list_series(folder).series[0].files[0].facts["sidecar"]
    assert (fields["EchoTime"], fields["RepetitionTime"]) == (0.09, 8.0)
    assert (fields["FlipAngle"], fields["MagneticFieldStrength"]) == (150.0, 1.5)
    assert "InversionTime" not in fields and "KVP" not in fields


@pytest.mark.parametrize("date", ["00000000", "20241399", "00010101"])
def test_a_date_that_cannot_be_is_no_date(tmp_path, date):
    folder = made_series(tmp_path / "in", edit=lambda ds: setattr(ds, "AcquisitionDate", date))
    scan = prepared(folder, tmp_path, date_shift_days=-60).scans[0]
    assert scan.status == "ok" and scan.metadata["acquired_at"] is None


def test_folder_without_a_scan_is_a_failed_row_with_the_reason(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("nothing")
    record = prepared(tmp_path / "in", tmp_path)
    scan = record.scans[0]
    assert (record.status, scan.kind, scan.status) == ("failed", "dicom", "failed")
    assert "1 x no DICOM file" in scan.reason


def test_missing_folder_is_a_failed_row(tmp_path):
    assert "no folder" in prepared(tmp_path / "none", tmp_path).scans[0].reason


def test_of_two_series_of_one_kind_the_larger_is_chosen_and_told(tmp_path):
    made_series(tmp_path / "in/a", 8)
    made_series(tmp_path / "in/b", 12, uid="1.2.4", edit=lambda ds: setattr(ds, "SeriesNumber", 9))
    scan = prepared(tmp_path / "in", tmp_path).scans[0]
    assert scan.shape[2] == 12
    assert "series 9 was chosen; series 3 shows the same kind" in scan.notes


def test_perfusion_ct_gets_the_times_of_its_frames(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for frame in range(12):
        for index in range(4):

            def at(ds, frame=frame):
                ds.AcquisitionTime = f"1015{30 + 2 * frame:02d}"
                ds.AcquisitionNumber = frame + 1
                ds.InstanceNumber = frame * 4 + ds.InstanceNumber

            made_slice(folder / f"{frame:02d}{index}.dcm", index, edit=at)
    row = ScanRow("dicom", str(folder), "s")
    (found,) = scans_of_folder(row, tmp_path / "w", DicomSettings())
    assert found.row.kind == "ctp"
    sidecar = json.loads((tmp_path / "w/ctp/out/scan.json").read_text())
    assert sidecar["frame_times_s"] == [2.0 * frame for frame in range(12)]
    assert nib.load(found.row.path).shape[3] == 12


# --- series in time ----------------------------------------------------------------------------


def perfusion_series(
    folder, *, frames=12, slices=4, skip=(), start=36000.0, number=None, offset=None, edit=None
):
    """Slice k of frame t has 30 + k HU (and the ramp), and 10 HU more for every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(frames):
        for k in range(slices):
            if (k, t) in skip:
                continue

            def at(ds, t=t, k=k):
                when = start + 2.0 * t + (offset[k] if offset else 0.0)
                clock = int(when % 86400)
                ds.AcquisitionDate = "20240229" if when < 86400 else "20240301"
                ds.AcquisitionTime = (
                    f"{clock // 3600:02d}{clock % 3600 // 60:02d}{clock % 60:02d}."
                    f"{round(when % 1 * 1000):03d}"
                )
                ds.InstanceNumber = (number or (lambda k, t: t * slices + k))(k, t) + 1
                ds.AcquisitionNumber = t + 1
                pixels = np.frombuffer(ds.PixelData, "<i2") + 10 * t
                ds.PixelData = pixels.astype("<i2").tobytes()
                if edit:
                    edit(ds, k, t)

            made_slice(folder / f"{t:02d}{k}.dcm", k, edit=at)
    return folder


def middle_of_frames(scan, tmp_path):
    image = nib.load(tmp_path / "out" / scan.path)
    return np.median(np.asarray(image.dataobj)[14:19, 14:19], axis=(0, 1))


#: HU of slice k in frame t; the ramp of 0 to 2 adds 1 in the median.
EXPECTED = 31.0 + np.arange(4)[:, None] + 10.0 * np.arange(12)[None, :]

ORDERS = {
    "as numbered": {},
    "numbers backwards": {"number": lambda k, t: (11 - t) * 4 + k},
    "numbers slice by slice": {"number": lambda k, t: k * 12 + t},
    "over midnight": {"start": 86400.0 - 9},
    "over midnight, one date": {
        "start": 86400.0 - 9,
        "edit": lambda ds, k, t: setattr(ds, "AcquisitionDate", "20240229"),
    },
    "ids given twice": {
        "edit": lambda ds, k, t: setattr(
            ds, "SOPInstanceUID", f"1.2.3.{k}" if t in (1, 7) else ds.SOPInstanceUID
        )
    },
}


@pytest.mark.parametrize("what", ORDERS)
def test_frames_follow_their_times_whatever_numbers_dates_and_ids_say(tmp_path, what):
    scan = prepared(perfusion_series(tmp_path / "in", **ORDERS[what]), tmp_path).scans[0]
    assert (scan.kind, scan.status) == ("ctp", "ok"), scan["reason"]
    assert scan.metadata["frame_times_s"] == [2.0 * t for t in range(12)]
    assert scan.metadata["slice_times_s"] is None
    assert scan.metadata["pixels"] == "unchanged"
    assert np.array_equal(middle_of_frames(scan, tmp_path), EXPECTED)
    at = "2024-02-29T23:59:51" if "midnight" in what else "2024-02-29T10:00:00"
    assert scan.metadata["acquired_at"] == at
    output = " ".join(scan.notes)
    assert "one of them is wrong" not in output
    assert ("numbers do not follow the frames" in output) == what.startswith("numbers")
    assert ("4 images bear the SOPInstanceUID of another" in output) == what.startswith("ids")


def test_frames_put_in_another_order_are_found_out(tmp_path, monkeypatch):
    # As if dcm2niix sorted by the numbers, which run backwards here.
    folder = perfusion_series(tmp_path / "in", number=lambda k, t: (11 - t) * 4 + k)
    monkeypatch.setattr("corelab.imaging.dynamic.TimeTable.numbered", lambda table: True)
    scan = prepared(folder, tmp_path).scans[0]
    assert scan.status == "failed"
    assert "in another order than their places and times" in scan.reason


@pytest.mark.parametrize(
    ("skip", "words"),
    [
        ({(2, 5)}, "series 3 is incomplete: frame 6 (10 s) lacks 1 of 4 slices"),
        ({(0, 0), (1, 0)}, "series 3 is incomplete: frame 1 (0 s) lacks 2 of 4 slices"),
        ({(0, 11)}, "series 3 is incomplete: frame 12 (22 s) lacks 1 of 4 slices"),
        ({(k, 3 + k) for k in range(4)}, "was taken 2 s before or after the others"),
    ],
)
def test_a_series_that_lacks_images_is_refused_in_words(tmp_path, skip, words):
    scan = prepared(perfusion_series(tmp_path / "in", skip=skip), tmp_path).scans[0]
    assert (scan.status, scan.kind) == ("failed", "ctp")
    assert words in scan.reason


def test_slices_of_a_shuttling_table_keep_their_times(tmp_path):
    folder = perfusion_series(tmp_path / "in", offset=[0.0, 0.0, 1.0, 1.0])
    scan = prepared(folder, tmp_path).scans[0]
    assert scan.metadata["frame_times_s"] == [2.0 * t for t in range(12)]
    assert scan.metadata["slice_times_s"] == [0.0, 0.0, 1.0, 1.0]
    assert any("up to 1 s apart" in note for note in scan.notes)


def test_table_stops_within_a_tenth_of_a_millimetre_are_one_place():
    def file(z, t):
        facts = {"position": z + 0.03 * (t % 2), "time_s": 2.0 * t, "frames": 1}
        return DicomFile("a", Path("a"), facts=facts)

    files = tuple(file(z, t) for t in range(12) for z in (0.0, 5.0))
    table = time_table(Series("1", 1, "", "CT", "ctp", files))
    assert [len(frame) for frame in table.frames] == [2] * 12
    assert table.times_s == tuple(2.0 * t for t in range(12))


# --- scales, repeats and single missing slices -------------------------------------------------


def philips_map(folder, description, rescale, private, values):
    """An MR map of Philips: stored x rescale is the value; the private slope means nothing."""

    def edit(ds):
        ds.Manufacturer, ds.SeriesDescription = "Philips Medical Systems", description
        ds.ImageType = ["DERIVED", "PRIMARY", description.upper()]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = rescale, 0, "US"
        block = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", private)
        stored = np.rint(values / rescale)
        ds.PixelRepresentation, ds.PixelData = 0, stored.astype("<u2").tobytes()

    return made_series(folder, kind="MR", edit=edit)


@pytest.mark.parametrize(
    ("name", "value", "rescale", "private"),
    [
        ("ADC", 850.0, 1.0, 1.25),
        ("ADC", 850.0, 0.5, 1.0),
        ("CBF", 40.0, 1.0, 4.0),
        ("Tmax", 4.0, 2.0, 0.02),
    ],
)
def test_philips_maps_have_the_unit_of_the_public_rescale(tmp_path, name, value, rescale, private):
    y, x = np.mgrid[:32, :32] - 16
    values = np.where(np.hypot(x, y) < 10, value + 2 * (x % 2), 0)
    folder = philips_map(tmp_path / "in", name, rescale, private, values)
    scan = prepared(folder, tmp_path).scans[0]
    assert (scan.status, scan.metadata["pixels"]) == ("ok", "unchanged"), scan["reason"]
    got = np.asarray(nib.load(tmp_path / "out" / scan.path).dataobj)
    scale = 1e-6 if name == "ADC" else 1.0
    assert np.unique(got) == pytest.approx(np.array([0, value, value + 2]) * scale, rel=1e-5)


def test_a_scale_other_than_the_rescale_slope_is_found_out(tmp_path, monkeypatch):
    values = np.full((32, 32), 850.0) + np.arange(32)
    folder = philips_map(tmp_path / "in", "ADC", 1.0, 1.25, values)
    monkeypatch.setattr("corelab.imaging.conversion._needs_public_scale", lambda series: False)
    (series,) = list_series(folder).series
    with pytest.raises(ImageFault, match="another factor than the header's rescale slope"):
        convert(series, tmp_path / "work")


def test_one_missing_slice_is_reported_as_missing(tmp_path):
    folder = made_series(tmp_path / "in", 12)
    (folder / "005.dcm").unlink()
    scan = prepared(folder, tmp_path).scans[0]
    assert scan.status == "ok" and scan.shape[2] == 12
    (warning,) = scan.warnings
    assert warning.startswith("1 slice is missing in series 3 (at 25 mm along the slice normal")
    found = image_findings([("1", "v", scan)])
    assert warning in set(found.loc[found["severity"] == "warning", "message"])


def test_thick_slices_above_thin_ones_are_none_missing(tmp_path):
    def thin_then_thick(ds):
        k = ds.InstanceNumber - 1
        ds.ImagePositionPatient = [-112, -112, 5.0 * k if k < 9 else 40.0 + 10.0 * (k - 8)]

    scan = prepared(made_series(tmp_path / "in", 14, edit=thin_then_thick), tmp_path).scans[0]
    assert scan.status == "ok" and scan.warnings == ()


def test_slices_taken_twice_are_a_warning_and_copies_a_note(tmp_path):
    folder = made_series(tmp_path / "in")

    def again(ds):
        ds.ImagePositionPatient, ds.InstanceNumber = [-112, -112, 15.0], 20

    made_slice(folder / "100.dcm", 4, edit=again)
    scan = prepared(folder, tmp_path).scans[0]
    assert (scan.status, scan.shape[2]) == ("ok", 8)
    assert "1 of 8 slices of series 3 were taken more than once" in scan.warnings[0]
    shutil.copyfile(folder / "003.dcm", folder / "100.dcm")
    edit_one(folder, "100.dcm", lambda ds: setattr(ds, "SOPInstanceUID", "1.2.3.99"))
    scan = prepared(folder, tmp_path).scans[0]
    assert (scan.status, scan.shape[2], scan.warnings) == ("ok", 8, ())
    assert "1 of 8 slices of series 3 occur more than once, with the same pixels" in scan.notes


KINDS = [
    ("t1_mprage_sag", {}, "T1w"),
    ("T1 POST GD", {}, "T1c"),
    ("AX_FLAIR", {}, "FLAIR"),
    ("t2_tse_tra", {}, "T2w"),
    ("SWI_Images", {}, "gre"),
    ("ep2d_diff_3scan_trace_ADC", {"ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "adc"),
    ("DWI b1000", {}, "dwi"),
    ("resting state", {}, None),
    ("gre_field_mapping", {}, None),
    ("unnamed", {"EchoTime": 100, "RepetitionTime": 9000, "InversionTime": 2500}, "FLAIR"),
    ("unnamed", {"EchoTime": 100, "RepetitionTime": 5000}, "T2w"),
    ("unnamed", {"EchoTime": 3, "RepetitionTime": 8, "ContrastBolusAgent": "Gd"}, "T1c"),
    ("lumbar spine t2", {}, None),
]


@pytest.mark.parametrize(("description", "tags", "kind"), KINDS)
def test_kind_of_an_mr_series_by_its_header(tmp_path, description, tags, kind):
    def named(ds):
        ds.SeriesDescription = description
        for name, value in tags.items():
            setattr(ds, name, value)

    (series,) = list_series(made_series(tmp_path / "in", 2, kind="MR", edit=named)).series
    assert series.kind == kind


@pytest.mark.parametrize(
    ("description", "agent", "kind"),
    [("HEAD", "", "ncct"), ("CTA neck", "", None), ("HEAD", "ISOVUE", None), ("CHEST", "", None)],
)
def test_kind_of_a_ct_series_by_its_header(tmp_path, description, agent, kind):
    def named(ds):
        ds.SeriesDescription, ds.ContrastBolusAgent = description, agent

    (series,) = list_series(made_series(tmp_path / "in", 2, edit=named)).series
    assert series.kind == kind


# --- real folders ------------------------------------------------------------------------------


def test_ge_tilted_head_ct_with_4_and_7_mm_slices(tmp_path):
    folder = data_folder("dicom/dcm_qa_ct")
    scan = prepared(folder, tmp_path).scans[0]
    assert (scan.kind, scan.status) == ("ncct", "ok")
    listing = scan.dicom
    assert [one.images for one in listing.series] == [28]
    assert listing.series[0].conversion.pixels == "unchanged"
    counts = {entry.reason.split(" (")[0]: entry.count for entry in listing.left_out}
    assert counts["secondary capture"] == 11 and counts["localizer"] == 1
    notes = " ".join(scan.notes)
    assert "gantry tilt of 18.5 degrees" in notes and "1.081 to 6.999 mm" in notes


def test_tilt_corrected_image_has_each_dicom_slice_in_its_place(tmp_path):
    """World positions from the DICOM headers, independent of dcm2niix."""
    from scipy.ndimage import map_coordinates

    (series,) = list_series(data_folder("dicom/dcm_qa_ct/In/GE")).series
    image = nib.load(convert(series, tmp_path / "work").path)
    volume, to_voxel = image.get_fdata(), np.linalg.inv(image.affine)
    rows, columns = np.mgrid[60:450:6, 60:450:6]
    for file in series.files[2:26:4]:
        ds = pydicom.dcmread(file.path)
        across, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        step_down, step_across = (float(step) for step in ds.PixelSpacing)
        lps = (
            np.array(ds.ImagePositionPatient, float)
            + columns[..., None] * step_across * across
            + rows[..., None] * step_down * down
        )
        voxels = nib.affines.apply_affine(to_voxel, lps * [-1, -1, 1])
        there = map_coordinates(volume, np.moveaxis(voxels, -1, 0), order=1, cval=-1000)
        truth = ds.pixel_array[60:450:6, 60:450:6] * float(ds.RescaleSlope) + float(
            ds.RescaleIntercept
        )
        assert np.corrcoef(there.ravel(), truth.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("dcm_qa_philips/Magdeburg_2014", 27),
        ("dcm_qa_enh/In/Siemens", 24),
        ("dcm_qa_enh/In/Philips", 64),
        ("dcm_qa_deident", 2),
    ],
)
def test_classic_and_enhanced_mr_keep_every_stored_value(tmp_path, name, images):
    (series,) = list_series(data_folder(f"dicom/{name}")).series
    assert sum(file.facts["frames"] for file in series.files) == images
    assert convert(series, tmp_path / "work").proof == "unchanged"


def test_scaled_philips_series_equals_the_published_conversion(tmp_path):
    folder = data_folder("dicom/dcm_qa_philips")
    (series,) = list_series(folder / "Magdeburg_2014").series
    ours = nib.load(convert(series, tmp_path / "work").path)
    reference = nib.load(folder / "Ref/EPI_asc_CLEAR_201.nii")
    turned = nib.as_closest_canonical(reference).get_fdata()
    assert nib.as_closest_canonical(ours).get_fdata() == pytest.approx(turned, rel=1e-5)


def test_bad_files_of_pydicom_are_all_named_with_a_reason():
    listing = list_series(data_folder("dicom/pydicom_test_files"))
    found = reasons(listing)
    assert found["MR_truncated.dcm"] == "truncated: 8130 of 8192 bytes of pixels"
    assert found["badVR.dcm"].startswith("damaged")
    assert found["rtstruct.dcm"] == "no image (RTSTRUCT)"
    assert found["reportsi.dcm"] == "no image (SR)"
    assert found["dicomdirtests/DICOMDIR"] == "no image (directory or bare header)"
    assert found["JPEG-lossy.dcm"].startswith("secondary capture")
    assert all(found.values())
    assert next(file for file in listing.left_out if file.name == "JPEG-lossy.dcm").lossy


def test_identifying_tags_of_a_real_folder():
    counts = list_series(data_folder("dicom/dcm_qa_deident")).identifying
    assert counts["PatientName"] == 2 and counts["InstitutionName"] == 2


@pytest.mark.parametrize("times", [True, False], ids=["times", "temporal-index"])
@pytest.mark.parametrize("order", ["time-major", "slice-major", "backwards"])
def test_frames_of_an_enhanced_series_are_ordered_by_place_and_time(tmp_path, order, times):
    """dcm2niix lays the times of such a file out as places, whatever its dimension index says."""
    frames = [(place, time) for time in range(12) for place in range(4)]
    if order == "slice-major":
        frames.sort()
    elif order == "backwards":
        frames.reverse()
    made_enhanced(tmp_path / "a.dcm", frames, times=times, time_first=order != "slice-major")
    (series,) = list_series(tmp_path).series
    assert series.kind == "ctp"
    found = convert(series, tmp_path / "work")
    assert found.proof == "unchanged"
    image = nib.load(found.path)
    assert image.shape == (32, 32, 4, 12)
    # 30 HU and 1 more for each place, 7 more for each time.
    values = image.get_fdata()[16, 16]
    at = np.add.outer(np.arange(4), 7 * np.arange(12)) + 30
    assert np.abs(values - at).max() <= 1
    assert image.affine[2, 2] == pytest.approx(5.0)
    expected = tuple(2.0 * time for time in range(12)) if times else None
    assert found.table.times_s == expected


def test_an_enhanced_series_that_lacks_a_frame_is_refused(tmp_path):
    frames = [(place, time) for time in range(12) for place in range(4)]
    made_enhanced(tmp_path / "a.dcm", frames[:-1])
    (series,) = list_series(tmp_path).series
    with pytest.raises(ImageFault, match=r"frame 12 \(22 s\) lacks 1 of 4 slices"):
        convert(series, tmp_path / "work")
