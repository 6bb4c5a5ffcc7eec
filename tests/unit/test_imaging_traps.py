"""One test per known way in which a NIfTI file of a trial goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct

import nibabel as nib
import numpy as np
import pytest

from corelab.imaging import ImageFault, load_image, mask_volume_ml, save_image
from corelab.imaging.geometry import affine_distance_mm
from corelab.imaging.nifti import check_header, conform, sidecar_path
from corelab.imaging.values import SHIFTED, checked

SHAPE = (20, 24, 16)


def ball(shape=SHAPE, radius=8.0):
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    return np.sqrt(sum(axis**2 for axis in grid)) < radius


def scan(shape=SHAPE):
    """Something like a head: bright inside, noisy dark outside."""
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return (
        np.where(ball(shape[:3]) if len(shape) == 3 else ball(shape[:3])[..., None], 500, 20)
        + noise
    ).astype(np.float32)


def write(
    folder, voxels, affine=None, name="a.nii.gz", codes=(1, 1), qform=None, kind=nib.Nifti1Image
):
    affine = np.diag([2.0, 2, 3, 1]) if affine is None else affine
    image = kind(voxels, affine, dtype=voxels.dtype if voxels.dtype.fields is None else None)
    image.header.set_sform(affine, code=1)
    image.header.set_qform(affine if qform is None else qform, code=1)
    path = folder / name
    nib.save(image, path)
    # nibabel would mend codes of 0 while writing.
    return path if codes == (1, 1) else patched(path, qform_code=codes[0], sform_code=codes[1])


def patched(path, **fields):
    """Rewrite header fields of a written file, keeping its data."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def fault(path, **arguments):
    with pytest.raises(ImageFault) as caught:
        load_image(path, **arguments)
    assert caught.value.remedy
    assert caught.value.message
    return caught.value.message


# --- the file ----------------------------------------------------------------------------------


def test_sound_file_is_loaded_as_it_is(tmp_path):
    voxels = scan()
    got = conform(write(tmp_path, voxels), kind="T1w")
    assert np.array_equal(got.image.dataobj, voxels)
    assert got.image.get_data_dtype() == np.float32
    assert got.notes == ()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_truncated_gz_is_refused(tmp_path, share):
    path = write(tmp_path, scan())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in fault(path)


def test_truncated_before_compression_is_refused(tmp_path):
    path = write(tmp_path, scan())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    assert "truncated" in fault(path)


def test_truncated_uncompressed_file_is_refused(tmp_path):
    path = write(tmp_path, scan(), name="a.nii")
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated" in fault(path)


def test_flipped_bit_in_gz_is_refused(tmp_path):
    path = write(tmp_path, scan())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "damaged" in fault(path)


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.touch()
    assert "empty" in fault(path)


@pytest.mark.parametrize(
    "content", [b"x", b"not an image" * 100, b"\x1f\x8b", gzip.compress(b"hello", mtime=0)]
)
def test_garbage_file_is_refused(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    assert fault(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "is missing" in fault(tmp_path / "no.nii.gz")
    assert "folder" in fault(tmp_path)


def test_gz_without_its_suffix_is_read_by_content(tmp_path):
    path = write(tmp_path, scan())
    renamed = path.rename(tmp_path / "a.nii")
    assert load_image(renamed).shape == SHAPE


def test_analyze_and_pair_files_are_refused(tmp_path):
    image = nib.Nifti1Pair(scan(), np.eye(4))
    nib.save(image, tmp_path / "a.hdr")
    assert "pair" in fault(tmp_path / "a.hdr")


def test_nifti2_is_read(tmp_path):
    path = write(tmp_path, scan(), kind=nib.Nifti2Image)
    assert load_image(path).shape == SHAPE


def test_big_endian_is_read(tmp_path):
    image = nib.Nifti1Image(scan(), np.diag([2.0, 2, 3, 1]), nib.Nifti1Header(endianness=">"))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.asarray(load_image(tmp_path / "a.nii.gz").dataobj).max() == pytest.approx(520, abs=20)


def test_huge_dimensions_are_refused_before_allocation(tmp_path):
    path = patched(write(tmp_path, scan()), dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
    assert "more than" in fault(path)


@pytest.mark.parametrize("dim", [[3, 0, 5, 5, 1, 1, 1, 1], [3, -5, 5, 5, 1, 1, 1, 1]])
def test_impossible_dimensions_are_refused(tmp_path, dim):
    assert "impossible" in fault(patched(write(tmp_path, scan()), dim=dim))


def test_unknown_data_type_is_refused(tmp_path):
    assert "header" in fault(patched(write(tmp_path, scan()), datatype=9999))


def test_decompression_bomb_is_refused(tmp_path):
    path = write(tmp_path, scan())
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw + bytes(64 * 2**20)))
    assert "far more" in fault(path)


def test_trailing_padding_is_no_fault(tmp_path):
    path = write(tmp_path, scan())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1000)))
    assert load_image(path).shape == SHAPE


def test_damaged_headers_never_raise_anything_but_a_fault(tmp_path):
    path = write(tmp_path, scan())
    raw = gzip.decompress(path.read_bytes())
    random = np.random.default_rng(3)
    for _ in range(400):
        damaged = bytearray(raw)
        for at in random.integers(0, 352, 4):
            damaged[at] = random.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            image = load_image(path)
        except ImageFault as output:
            assert output.message and output.remedy
        else:
            assert np.isfinite(image.dataobj).all()


# --- the shape ---------------------------------------------------------------------------------


def test_2d_is_refused(tmp_path):
    assert "3D volume is due" in fault(write(tmp_path, scan()[:, :, 0]))


def test_single_slice_is_refused_for_a_scan(tmp_path):
    assert "single slice" in fault(write(tmp_path, scan()[:, :, :1]), kind="T1w")


def test_4d_with_one_frame_is_squeezed_and_told(tmp_path):
    got = conform(write(tmp_path, scan()[..., None]))
    assert got.image.shape == SHAPE
    assert "dropped" in got.notes[0]


def test_4d_where_3d_is_due_is_refused(tmp_path):
    series = np.stack([scan()] * 3, axis=-1)
    assert "4D, where a 3D image is due" in fault(write(tmp_path, series), kind="dwi")


def test_3d_where_4d_is_due_is_refused(tmp_path):
    assert "4D time series is due" in fault(write(tmp_path, scan()), ndim=4, kind="ctp")


def test_4d_with_one_frame_is_no_series(tmp_path):
    assert "time series" in fault(write(tmp_path, scan()[..., None]), ndim=4, kind="dsc")


def test_5d_series_with_a_dummy_axis_is_read(tmp_path):
    series = np.stack([scan()] * 3, axis=-1)[:, :, :, None, :]
    assert load_image(write(tmp_path, series), ndim=4, kind="dsc").shape == (*SHAPE, 3)


# --- the place ---------------------------------------------------------------------------------


def shifted(mm):
    affine = np.diag([2.0, 2, 3, 1])
    affine[0, 3] = mm
    return affine


MIRRORED = np.array([[-2.0, 0, 0, 40], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("qform", "words"),
    [(shifted(30), "30.0 mm apart; the sform is used"), (MIRRORED, "mirror images of each other")],
)
def test_forms_that_contradict_each_other_need_a_decision(tmp_path, qform, words):
    path = write(tmp_path, scan(), codes=(1, 2), qform=qform)
    got = conform(path)
    assert got.image.affine == pytest.approx(np.diag([2.0, 2, 3, 1]))
    assert got.notes == () and words in got.warnings[0]
    assert "set acquisition.orientation to sform or qform" in got.warnings[0]


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_a_decision_for_one_form_is_followed_and_is_no_warning(tmp_path, form):
    path = write(tmp_path, scan(), codes=(1, 2), qform=shifted(30))
    got = conform(path, orientation=form)
    assert got.image.affine[0, 3] == pytest.approx(30 if form == "qform" else 0)
    assert got.warnings == () and f"the {form} is used, as acquisition.orientation" in got.notes[0]
    output = check_header(path, kind="dwi", orientation=form)
    assert f"the {form} is used, as acquisition.orientation" in output[0]


def test_forms_a_few_millimetres_apart_are_a_note(tmp_path):
    got = conform(write(tmp_path, scan(), codes=(1, 2), qform=shifted(5)))
    assert got.warnings == () and "5.0 mm apart; the sform is used" in got.notes[0]


def test_qform_within_a_tenth_of_a_millimetre_is_not_told(tmp_path):
    assert conform(write(tmp_path, scan(), codes=(1, 2), qform=shifted(0.05))).notes == ()


@pytest.mark.parametrize(
    ("codes", "words"),
    [((0, 2), "the qform code is 0; the sform alone"), ((1, 0), "the sform code is 0; the qform")],
)
def test_an_image_placed_by_one_form_alone_is_accepted_and_told(tmp_path, codes, words):
    path = write(tmp_path, scan(), codes=codes)
    assert any(words in note for note in conform(path).notes)


def test_output_has_both_forms_equal_with_code_1(tmp_path):
    got = load_image(write(tmp_path, scan(), codes=(1, 2), qform=shifted(30)))
    header = nib.load(save_image(got, tmp_path / "out.nii.gz", sidecar=None)).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert np.array_equal(header.get_qform(), header.get_sform())


def test_qform_alone_is_used(tmp_path):
    path = write(tmp_path, scan(), codes=(1, 0), qform=shifted(7))
    assert load_image(path).affine[0, 3] == pytest.approx(7)


def test_missing_both_codes_is_refused(tmp_path):
    assert "no orientation" in fault(write(tmp_path, scan(), codes=(0, 0)))


def test_sheared_sform_is_refused(tmp_path):
    affine = np.diag([2.0, 2, 3, 1])
    affine[1, 2] = 3 * np.tan(np.radians(18.5))
    message = fault(write(tmp_path, scan(), affine, codes=(0, 1), qform=np.eye(4)))
    assert "sheared" in message and "18.5 degrees" in message


def test_rounding_shear_is_straightened(tmp_path):
    affine = np.diag([2.0, 2, 3, 1])
    affine[1, 2] = 3e-4
    image = load_image(write(tmp_path, scan(), affine, codes=(0, 1), qform=np.eye(4)))
    cosines = image.affine[:3, :3] / [2, 2, 3]
    assert cosines.T @ cosines == pytest.approx(np.eye(3), abs=1e-7)


def test_singular_and_nonfinite_sforms_are_refused(tmp_path):
    path = write(tmp_path, scan())
    assert "without an inverse" in fault(patched(path, srow_x=[0, 0, 0, 0]))
    assert "without an inverse" in fault(patched(path, srow_x=[np.nan, 0, 0, 0]))


def test_voxel_size_that_no_scanner_makes_is_refused(tmp_path):
    affine = np.diag([2000.0, 2000, 3000, 1])
    assert "no scanner makes" in fault(write(tmp_path, scan(), affine))


def test_micrometres_are_converted(tmp_path):
    path = patched(write(tmp_path, scan(), np.diag([90.0, 90, 90, 1])), xyzt_units=3)
    got = conform(path)
    assert np.diag(got.image.affine)[:3] == pytest.approx([0.09] * 3)
    assert "micrometres" in " ".join(got.notes)


def test_metres_that_cannot_be_are_told_and_not_applied(tmp_path):
    got = conform(patched(write(tmp_path, scan()), xyzt_units=1))
    assert np.diag(got.image.affine)[:3] == pytest.approx([2, 2, 3])
    assert "cannot be" in " ".join(got.notes)


def test_far_origin_is_told(tmp_path):
    got = conform(write(tmp_path, scan(), shifted(1500.0)))
    assert "from the origin" in got.notes[0]


def test_pixdim_that_contradicts_the_matrix_is_told(tmp_path):
    path = patched(write(tmp_path, scan(), codes=(0, 1)), pixdim=[1, 1, 1, 1, 0, 0, 0, 0])
    got = conform(path)
    assert "the matrix is used" in got.notes[0]
    assert np.diag(got.image.affine)[:3] == pytest.approx([2, 2, 3])


def test_zero_pixdim_with_a_valid_sform_is_told(tmp_path):
    path = patched(write(tmp_path, scan(), codes=(0, 1)), pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    assert any("matrix is used" in note for note in conform(path).notes)


@pytest.mark.parametrize("axes", ["LAS", "LPS", "RPI", "PIR", "ASL"])
def test_any_orientation_becomes_ras_with_each_voxel_in_its_place(tmp_path, axes):
    ras = nib.Nifti1Image(scan(), shifted(12))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    turned = ras.as_reoriented(turn)
    got = load_image(write(tmp_path, np.asarray(turned.dataobj), turned.affine))
    assert nib.aff2axcodes(got.affine) == ("R", "A", "S")
    assert np.array_equal(got.dataobj, ras.dataobj)
    assert got.affine == pytest.approx(ras.affine)


def test_template_mask_keeps_its_voxel_order(tmp_path):
    affine = np.diag([-1.0, 1, 1, 1])
    voxels = ball().astype(np.uint8)
    voxels[:5] = 0
    got = conform(write(tmp_path, voxels, affine), kind="mask-infarct", reorient=False)
    assert np.array_equal(got.image.dataobj, voxels)
    assert got.image.affine == pytest.approx(affine)


# --- the values --------------------------------------------------------------------------------


def test_nan_around_the_head_is_set_to_zero_and_told(tmp_path):
    voxels = scan()
    voxels[~ball(radius=11)] = np.nan
    got = conform(write(tmp_path, voxels), kind="T1w")
    assert np.isfinite(got.image.dataobj).all()
    assert "non-finite" in got.notes[0] and f"{int((~ball(radius=11)).sum())} " in got.notes[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_inside_the_head_is_refused(tmp_path, bad):
    voxels = scan()
    voxels[9:12, 11:14, 7:9] = bad
    assert "non-finite" in fault(write(tmp_path, voxels), kind="T1w")


def test_all_nan_is_refused(tmp_path):
    assert "no finite voxel" in fault(write(tmp_path, np.full(SHAPE, np.nan, np.float32)))


def test_values_too_large_for_float32_are_nonfinite(tmp_path):
    voxels = scan().astype(np.float64)
    voxels[0, 0, 0] = 1e200
    assert "non-finite" in conform(write(tmp_path, voxels)).notes[0]


def test_all_zero_image_is_refused(tmp_path):
    assert "all zero" in fault(write(tmp_path, np.zeros(SHAPE, np.int16)))


def test_constant_image_is_refused(tmp_path):
    assert "constant (7)" in fault(write(tmp_path, np.full(SHAPE, 7, np.int16)))


def test_int64_is_read_and_told(tmp_path):
    got = conform(write(tmp_path, scan().astype(np.int64)))
    assert got.image.get_data_dtype() == np.float32
    assert "64-bit" in got.notes[0]


def test_rgb_is_refused(tmp_path):
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colours" in fault(write(tmp_path, rgb))


def test_complex_is_refused(tmp_path):
    assert "complex" in fault(write(tmp_path, scan().astype(np.complex64)))


def test_scale_slope_is_applied_and_told(tmp_path):
    path = patched(write(tmp_path, scan().astype(np.int16)), scl_slope=0.5, scl_inter=10)
    got = conform(path)
    assert np.asarray(got.image.dataobj).max() == pytest.approx(
        scan().astype(np.int16).max() * 0.5 + 10
    )
    assert "slope 0.5" in got.notes[0]


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_zero_or_nan_slope_means_unscaled(tmp_path, slope):
    path = patched(write(tmp_path, scan().astype(np.int16)), scl_slope=slope, scl_inter=5)
    assert np.array_equal(load_image(path).dataobj, scan().astype(np.int16))


def adc(unit_per_mm2_s):
    random = np.random.default_rng(5)
    brain = np.where(ball(), random.normal(0.85e-3, 0.15e-3, SHAPE), 0)
    brain[ball(radius=3)] = 3.0e-3
    return (np.maximum(brain, 0) / unit_per_mm2_s).astype(np.float32)


@pytest.mark.parametrize(
    ("unit", "words"), [(1.0, None), (1e-3, "10^-3 mm2/s"), (1e-6, "10^-6 mm2/s"), (1e6, "m2/s")]
)
def test_adc_unit_is_recognised_converted_and_told(tmp_path, unit, words):
    got = conform(write(tmp_path, adc(unit)), kind="adc")
    inside = np.asarray(got.image.dataobj)[ball()]
    assert np.median(inside) == pytest.approx(0.85e-3, rel=0.1)
    assert got.unit == "mm2/s"
    assert (words in got.notes[0]) if words else got.notes == ()


def test_adc_of_no_known_unit_is_refused(tmp_path):
    assert "no ADC map in a known unit" in fault(write(tmp_path, adc(2e-5)), kind="adc")


@pytest.mark.parametrize(
    ("factor", "doubtful"), [(0.5, True), (0.6, False), (1.0, False), (1.6, False), (2.0, True)]
)
def test_a_scale_of_a_half_or_two_is_told_and_what_calibration_corrects_is_not(
    tmp_path, factor, doubtful
):
    # The published ADC, 0.80e-3, in the mode of tissue; 1.6 and 0.6 are of gains of b = 0 and DWI.
    voxels = adc(1e-6) * np.float32(factor * 0.80 / 0.85)
    got = conform(write(tmp_path, voxels), kind="adc")
    assert len(got.warnings) == doubtful
    if doubtful:
        assert "the scale of the map is doubtful" in got.warnings[0]
    assert got.notes[0].startswith("ADC was in 10^-6 mm2/s")


def test_adc_with_infarct_fluid_and_noise_in_air_passes(tmp_path):
    random = np.random.default_rng(8)
    voxels = adc(1.0)
    left = np.broadcast_to(np.arange(SHAPE[0])[:, None, None] < SHAPE[0] // 2, SHAPE)
    air = np.abs(random.normal(0, 0.6e-3, SHAPE)).astype(np.float32)
    infarct = np.where(left, np.float32(0.6) * voxels, voxels)
    fluid = np.where(left, random.normal(3.0e-3, 0.1e-3, SHAPE) * ball(), voxels)
    for name, image in (("infarct", infarct), ("fluid", fluid)):
        path = write(
            tmp_path, np.where(ball(), image, air).astype(np.float32), name=f"{name}.nii.gz"
        )
        got = conform(path, kind="adc")
        assert got.warnings == () and got.notes == (), name


@pytest.mark.parametrize(
    ("kind", "value", "factor", "words"),
    [
        ("tmax", 2.0, 1.0, None),
        ("tmax", 2000.0, 1e-3, "taken as milliseconds"),
        ("mtt", 5000.0, 1e-3, "taken as milliseconds"),
        ("cbf", 30.0, 1.0, None),
        ("cbf", 1500.0, 1.0, "another unit or relative"),
        ("cbv", 0.03, 1.0, "another unit or relative"),
        ("ttp", 20.0, 1.0, None),
    ],
)
def test_a_perfusion_map_off_its_unit_is_converted_or_told(tmp_path, kind, value, factor, words):
    voxels = (adc(0.85e-3) * value).astype(np.float32)
    got = conform(write(tmp_path, voxels), kind=kind)
    assert np.asarray(got.image.dataobj) == pytest.approx(voxels * factor, rel=1e-5)
    text = " ".join([*got.notes, *got.warnings])
    assert (words in text) if words else text == ""


def test_negative_adc_is_told_and_set_to_zero(tmp_path):
    voxels = adc(1e-3)
    voxels[0, 0, :5] = -0.3
    got = conform(write(tmp_path, voxels), kind="adc")
    assert np.asarray(got.image.dataobj).min() == 0
    assert "5 negative ADC values" in got.notes[1] and "-0.0003 mm2/s" in got.notes[1]


def ct(offset=0.0):
    random = np.random.default_rng(6)
    head = np.where(ball(radius=7), 35.0, np.where(ball(), 900.0, -1000.0))
    return (head + random.normal(0, 4, SHAPE) + offset).astype(np.float32)


@pytest.mark.parametrize(
    ("low", "high", "top"), [(-100, 200, 255), (0, 80, 80), (0, 80, 255), (-1000, 400, 400)]
)
def test_ct_through_a_display_window_is_refused(tmp_path, low, high, top):
    windowed = (np.clip(ct(), low, high) - low) / (high - low) * top
    if top == high:
        windowed = np.clip(ct(), low, high)
    message = fault(write(tmp_path, np.rint(windowed).astype(np.int16)), kind="ncct")
    assert "not in Hounsfield units" in message


def test_hounsfield_units_pass(tmp_path):
    got = conform(write(tmp_path, ct()), kind="ncct")
    assert got.unit == "HU" and got.notes == ()


def test_ct_without_its_rescale_intercept_is_refused(tmp_path):
    message = fault(write(tmp_path, ct(1024)), kind="ncct")
    assert "1024 too high" in message


def test_ct_padding_is_lifted_to_air_and_told(tmp_path):
    voxels = ct()
    voxels[0] = -3024
    got = conform(write(tmp_path, voxels), kind="ncct")
    assert np.asarray(got.image.dataobj).min() == -1024
    assert "padding" in got.notes[0]


def test_perfusion_ct_without_its_rescale_intercept_is_brought_to_hu(tmp_path):
    series = np.stack([ct(1024), ct(1030)], axis=-1)
    got = conform(write(tmp_path, series), ndim=4, kind="ctp")
    assert "1024 was subtracted" in got.notes[0]
    np.testing.assert_allclose(np.asarray(got.image.dataobj)[..., 0], ct(), atol=1e-3)


def test_perfusion_ct_off_the_hu_scale_is_told(tmp_path):
    series = np.stack([ct(400), ct(406)], axis=-1)
    got = conform(write(tmp_path, series), ndim=4, kind="ctp")
    assert "not in Hounsfield units" in got.notes[0]


def test_a_frame_without_values_is_interpolated_in_time(tmp_path):
    series = np.stack([ct(k) for k in (0, 2, 4, 6, 8)], axis=-1)
    series[..., 2] = np.nan
    series[0, 0, 0, 0] = np.inf
    got = conform(write(tmp_path, series), ndim=4, kind="ctp")
    assert "slices of frame 3 held none" in got.notes[0]
    assert got.filled_slices == tuple((2, z) for z in range(SHAPE[2]))
    np.testing.assert_allclose(np.asarray(got.image.dataobj)[1:, ..., 2], ct(4)[1:], atol=0.1)


def test_a_series_with_many_gaps_is_refused(tmp_path):
    series = np.stack([ct(k) for k in range(8)], axis=-1)
    series[np.random.default_rng(0).random(series.shape) < 0.1] = np.nan
    assert "too many to interpolate" in fault(write(tmp_path, series), ndim=4, kind="ctp")


def test_a_series_with_time_as_first_axis_is_refused(tmp_path):
    random = np.random.default_rng(1)
    series = ct()[..., None] + random.normal(0, 5, (*SHAPE, 12)).astype(np.float32)
    message = fault(write(tmp_path, np.moveaxis(series, 3, 0)), ndim=4, kind="ctp")
    assert "is not time" in message and "along axis 1" in message


# --- labels ------------------------------------------------------------------------------------


def test_labels_stored_as_1_000015_are_rounded_and_told(tmp_path):
    labels = np.where(ball(), 2.00003, 0.0).astype(np.float32)
    got = conform(write(tmp_path, labels), kind="mask-infarct")
    assert set(np.unique(got.image.dataobj)) == {0.0, 2.0}
    assert "rounded" in got.notes[0]


def test_large_atlas_labels_of_float32_slope_are_rounded(tmp_path):
    labels = np.where(ball(), 250 * 1.000015, 0.0).astype(np.float32)
    assert np.asarray(load_image(write(tmp_path, labels), kind="mask-x").dataobj).max() == 250


@pytest.mark.parametrize("value", [0.5, 1.002, 0.9])
def test_probabilities_are_no_labels(tmp_path, value):
    labels = np.where(ball(), value, 0.0).astype(np.float32)
    assert "no label" in fault(write(tmp_path, labels), kind="mask-infarct")


def test_empty_mask_is_a_result(tmp_path):
    got = conform(write(tmp_path, np.zeros(SHAPE, np.uint8)), kind="mask-infarct")
    assert mask_volume_ml(got.image) == 0.0
    assert "empty" in got.notes[0]


def test_mask_of_255_as_int8_still_counts(tmp_path):
    labels = np.where(ball(), -1, 0).astype(np.int8)
    got = conform(write(tmp_path, labels), kind="mask-infarct")
    assert np.count_nonzero(got.image.dataobj) == ball().sum()
    assert "negative labels" in got.notes[0]


def test_nan_background_of_a_mask_is_zero(tmp_path):
    labels = np.where(ball(), 1.0, np.nan).astype(np.float32)
    got = conform(write(tmp_path, labels), kind="mask-infarct")
    assert np.count_nonzero(got.image.dataobj) == ball().sum()


def test_full_mask_is_told(tmp_path):
    got = conform(write(tmp_path, np.ones(SHAPE, np.uint8)), kind="mask-infarct")
    assert "every voxel" in got.notes[0]


# --- writing -----------------------------------------------------------------------------------


def image(voxels=None, affine=None):
    return nib.Nifti1Image(
        scan() if voxels is None else voxels, shifted(3) if affine is None else affine
    )


def test_same_image_same_bytes(tmp_path):
    one = save_image(image(), tmp_path / "one.nii.gz", sidecar=None)
    two = save_image(image(), tmp_path / "other.nii.gz", sidecar=None)
    assert one.read_bytes() == two.read_bytes()
    assert struct.unpack("<I", one.read_bytes()[4:8])[0] == 0  # modification time of the gzip


def test_saved_image_is_loaded_the_same(tmp_path):
    path = save_image(image(), tmp_path / "a.nii.gz", sidecar=None)
    back = load_image(path)
    assert np.array_equal(back.dataobj, scan())
    assert back.affine == pytest.approx(shifted(3))
    assert conform(path).notes == ()


def test_sidecar_names_inputs_checksums_and_versions(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"abc")
    path = save_image(
        image(),
        tmp_path / "a.nii.gz",
        sidecar={"unit": "s", "inputs": [source], "parameters": {"k": 1}},
    )
    content = json.loads(sidecar_path(path).read_text())
    assert content["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["inputs"] == [
        {"name": "source.bin", "sha256": hashlib.sha256(b"abc").hexdigest()}
    ]
    assert content["unit"] == "s" and content["parameters"] == {"k": 1}
    assert set(content["software"]) >= {"corelab", "nibabel", "numpy"}


@pytest.mark.parametrize(
    ("value", "dtype"), [(0.5, np.uint8), (300, np.uint8), (-1, np.uint8), (40000, np.int16)]
)
def test_a_type_that_cannot_hold_the_values_is_an_error(tmp_path, value, dtype):
    voxels = np.zeros(SHAPE, np.float32)
    voxels[0, 0, 0] = value
    with pytest.raises(ValueError, match="fit"):
        save_image(image(voxels), tmp_path / "a.nii.gz", sidecar=None, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_sheared_affine_is_not_written(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(ValueError, match="sheared"):
        save_image(image(affine=affine), tmp_path / "a.nii.gz", sidecar=None)


@pytest.mark.parametrize("degrees", [0.001, 0.01, 0.02, 0.05, 0.3, 5.0])
def test_an_oblique_flipped_grid_is_written_where_it_is(tmp_path, degrees):
    """Flipped in x, an oblique grid is near a half turn: a float32 quaternion is 0.3 mm off."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.5, 0.62])).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, 1, 1])
    affine[:3, 3] = [120, -90, -50]
    image = nib.Nifti1Image(np.zeros((240, 240, 160), np.uint8), affine)
    file = save_image(image, tmp_path / "a.nii", sidecar=None)
    made = nib.load(file)
    assert affine_distance_mm(made.affine, affine, made.shape) < 0.02
    # ITK reads the qform where its code is not 0, and has to see the same place.
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    theirs = np.eye(4)
    theirs[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    theirs[:3, 3] = reader.GetOrigin()
    theirs = np.diag([-1.0, -1, 1, 1]) @ theirs
    assert affine_distance_mm(theirs, affine, made.shape) < 0.02


def test_boolean_mask_becomes_uint8(tmp_path):
    path = save_image(
        nib.Nifti1Image(ball().astype(np.uint8), np.eye(4)), tmp_path / "m.nii.gz", sidecar=None
    )
    assert nib.load(path).get_data_dtype() == np.uint8


# --- shifted intensities ---------------------------------------------------------------------------


def _head(background):
    """A stripped head: fluid 20, tissue 100, lesion 180; and where the head is."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    image = np.where(radius < 5, 20.0, np.where(grid[0] > 10, 180.0, 100.0))
    image = image + rng.normal(0, 4, image.shape)
    return np.where(radius < 17, image, background).astype(np.float32), radius < 17


def test_z_scores_of_the_whole_array_get_their_zero_back():
    image, head = _head(0.0)
    scores = (image - image[head].mean()) / image[head].std()
    notes = []
    shifted, _ = checked(scores, "T1c", "a.nii", notes)
    assert np.allclose(shifted * image[head].std(), image, atol=1e-3)
    assert notes[0].startswith(SHIFTED) and "was added" in notes[0]


def test_z_scores_of_the_brain_alone_start_at_the_darkest_tissue():
    image, head = _head(0.0)
    scores = np.where(head, (image - image[head].mean()) / image[head].std(), 0.0)
    notes = []
    shifted, _ = checked(scores, "FLAIR", "a.nii", notes)
    assert shifted.min() == 0 and not shifted[~head].any() and len(notes) == 1
    tissue = [float(np.median(shifted[head & (image > level)])) for level in (60, 140)]
    assert tissue[1] / tissue[0] > 1.4


def test_a_head_in_air_below_zero_is_shifted_and_small_undershoot_is_not():
    rng = np.random.default_rng(4)
    image, head = _head(0.0)
    image = np.where(head, image, np.abs(rng.normal(0, 4, image.shape))).astype(np.float32)
    notes = []
    shifted, _ = checked((image - 60) / 40, "T1w", "a.nii", notes)
    assert abs(float(np.median(shifted[~head]))) < 0.15 and notes
    few = image.copy()
    few[0, 0, :5] = -3.0
    notes = []
    same, _ = checked(few, "T1w", "a.nii", notes)
    assert (same == few).all() and not notes
    # ADC is computed from b0, whose ratio to DWI must stay as it is.
    assert (checked(few - 60, "b0", "a.nii", [])[0] == few - 60).all()
