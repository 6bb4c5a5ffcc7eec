"""Orientation, contours and colours of the static pictures, on images with known content."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
from PIL import Image

from corelab.reporting import pictures as pic
from corelab.reporting.results import FrequencyMap
from corelab.terms.labels import label


def _head(shape=(40, 50, 20)) -> np.ndarray:
    grid = np.indices(shape)
    inside = sum(((grid[k] - shape[k] / 2) / (shape[k] * 0.45)) ** 2 for k in range(3)) < 1
    return (100.0 * inside).astype(np.float32)


def _panel(mask: np.ndarray, kind: str = "T1w") -> pic.Panel:
    outline = pic.Outline("infarct (pipeline)", (230, 159, 0), mask)
    return pic.Panel("baseline", kind, _head(mask.shape), (1.0, 1.0, 2.0), (outline,), np.eye(4))


def _coloured(row: np.ndarray) -> np.ndarray:
    return np.argwhere((row == (230, 159, 0, 255)).all(axis=2))


def test_patients_right_and_front_are_left_and_up():
    # In RAS order a high x is the patient's right, a high y the front.
    mask = np.zeros((40, 50, 20), bool)
    mask[28:33, 35:40, 9:11] = True
    _, row = pic.panel_row(_panel(mask), slices=1, tile=100)
    y, x = _coloured(row).mean(axis=0) / pic.FINE
    assert x < 40 and y < 40


def test_right_is_found_in_a_file_that_is_stored_left_to_right(tmp_path):
    data = np.zeros((6, 6, 6), np.float32)
    data[0, 2, 3] = 5  # stored with x to the left: the first column is the patient's right
    nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    volume, affine = pic.read_volume(tmp_path / "a.nii.gz")
    assert np.argwhere(volume == 5).tolist() == [[5, 2, 3]]
    assert affine[0, 0] > 0


def test_contour_is_an_outline_of_the_mask():
    mask = np.zeros((40, 50, 20), bool)
    mask[10:25, 15:35, 8:12] = True
    _, row = pic.panel_row(_panel(mask), slices=1, tile=200)
    marked = _coloured(row)
    assert len(marked) > 100
    centre = marked.mean(axis=0).round().astype(int)
    assert tuple(row[centre[0], centre[1]]) == (0, 0, 0, 0)


def test_empty_mask_draws_nothing_and_needs_no_lesion_to_choose_slices():
    mask = np.zeros((40, 50, 20), bool)
    scan, row = pic.panel_row(_panel(mask), slices=4, tile=60)
    assert scan.shape == (60, 240, 3) and row.shape == (120, 480, 4) and len(_coloured(row)) == 0


def test_slices_stay_inside_a_thin_volume():
    image = np.ones((8, 8, 3), np.float32)
    mask = np.zeros((8, 8, 3), bool)
    mask[2, 2, 1] = True
    assert pic.choose_slices(image, [mask], 6) == [0, 1, 2]


def test_picture_is_the_same_bytes_and_readable():
    mask = np.zeros((40, 50, 20), bool)
    mask[10:25, 15:35, 8:12] = True
    first = pic.mosaic([_panel(mask)], slices=3, tile=80)
    second = pic.mosaic([_panel(mask)], slices=3, tile=80)
    assert (first.data, first.marks) == (second.data, second.marks)
    assert Image.open(io.BytesIO(first.data)).size == (240, 80)
    # The layer over the scan is finer, and its colours are the legend's to the last digit.
    marks = np.asarray(Image.open(io.BytesIO(first.marks)).convert("RGBA"))
    assert marks.shape == (160, 480, 4)
    assert len(_coloured(marks)) == len(
        _coloured(pic.panel_row(_panel(mask), slices=3, tile=80)[1])
    )
    assert first.legend == (("#e69f00", "infarct (pipeline)"),)


def test_frequency_map_is_drawn_on_the_template_where_the_lesions_are(tmp_path):
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-98, -134, -72)
    share = np.zeros((49, 58, 47), np.float32)
    share[35:40, 25:30, 20:30] = 0.5  # world x = +42 to +58 mm: the patient's right
    path = tmp_path / "infarct_frequency.nii.gz"
    nib.save(nib.Nifti1Image(share, affine), path)
    frequency = FrequencyMap("infarct", path, {"n": 4})
    scale = pic.frequency_scale([4, 6])  # another map of the study has six subjects
    rgb = pic.frequency_rgb(frequency, scale, slices=4, rows=2, tile=100)
    marked = (rgb == np.array(scale[1][1])).all(axis=2)  # 2 of 4 has the colour of 2 of 6
    columns = np.argwhere(marked)[:, 1] % 100
    assert len(columns) and columns.max() < 50
    # Every tile shows the lesion, and nothing has the colour of another count.
    assert all(marked[r : r + 100, c : c + 100].any() for r in (0, 100) for c in range(0, 400, 100))
    for start, colour in scale:
        assert start == 2 or not (rgb == np.array(colour)).all(axis=2).any()
    legend = [count for _, count in pic.frequency_picture(frequency, scale, rgb).legend]
    assert legend == ["1", "2", "3", "4"]


def test_fixed_windows_do_not_depend_on_the_data():
    image = np.full((3, 3, 3), 5000.0, np.float32)
    assert pic.window_of(image, "adc") == (0.0, 2.0e-3)
    assert pic.window_of(image, "ncct") == (0.0, 80.0)


def test_the_core_is_seen_within_the_hypoperfused_tissue_and_a_map_has_its_scale():
    image = np.full((40, 40, 6), 5.0, np.float32)
    core, hypo = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    core[15:25, 15:25, 1:5] = True
    hypo[14:26, 14:26, 1:5] = True
    outlines = tuple(
        pic.Outline(f"{name} (pipeline)", label(name).colour, mask)
        for name, mask in (("core", core), ("penumbra", hypo & ~core), ("hypoperfused", hypo))
    )
    panel = pic.Panel("baseline", "tmax", image, (2.0, 2.0, 5.0), outlines, np.diag([2, 2, 5, 1.0]))
    _, row = pic.panel_row(panel, slices=4, tile=160)
    for name, seen in (("core", True), ("hypoperfused", True), ("penumbra", False)):
        number = (row[..., :3] == np.array(label(name).colour, np.uint8)).all(axis=2).sum()
        assert (number > 100) == seen, name
    # The scale runs from the upper end of the window to its lower end.
    bar = row[80:240, -12, :3].astype(int).sum(axis=1)
    assert bar[0] > bar[-1] and (np.diff(bar) < 0).mean() > 0.5
    legend = [name for _, name in pic.mosaic([panel]).legend]
    assert legend == ["hypoperfused (pipeline)", "core (pipeline)"]
