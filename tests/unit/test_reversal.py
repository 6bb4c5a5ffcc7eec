"""Voxelwise reversal between two visits whose heads lie differently, against known voxels."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from corelab.measurement.reversal import ENDPOINTS, _steps_between, reversal_rows
from corelab.records.subjects import Anchor, Chain, Normalised, NormalisedMask
from corelab.registration.transforms import write_affine

GRID = np.diag([2.0, 2.0, 5.0, 1.0])
VOXEL_ML = 0.02


def translation(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


@pytest.fixture
def subject(tmp_path):
    """Day 1 is the anchor; on day 5 the head lies 6 mm to the side and 5 mm higher."""
    first, later = np.zeros((30, 30, 8), np.uint8), np.zeros((30, 30, 8), np.uint8)
    first[10:14, 10:14, 3:5] = 1  # 32 voxels
    later[13 + 2 : 13 + 4, 10:14, 4:6] = 1  # those of x >= 12, as they lie on day 5
    later[17:19, 10:14, 4:5] = 1  # and 8 voxels beside them
    for name, voxels in (("first", first), ("later", later)):
        nib.save(nib.Nifti1Image(voxels, GRID), tmp_path / f"{name}.nii.gz")
    write_affine(translation(40, -30, 12), tmp_path / "fit.mat")
    write_affine(translation(6, 0, 5), tmp_path / "join.mat")
    write_affine(translation(0, 0, 0), tmp_path / "within.mat")

    def mask(visit, grid, path):
        return NormalisedMask(
            *(visit, "infarct", "pipeline"), grid=grid, native_path=path, scan_ids=(f"{visit}-dwi",)
        )

    def place(paths, flags):
        return Chain(
            to_mni=("fit.mat", *paths),
            whichtoinvert=(False, *flags),
            from_mni=(*paths[::-1], "fit.mat"),
            from_mni_whichtoinvert=(*(not f for f in flags[::-1]), True),
        )

    return tmp_path, Normalised(
        "7",
        anchor=Anchor("day1", "g1", "dwi"),
        transforms={
            "day1": {"g1": place([], [])},
            "day5": {
                "g1": place(["join.mat"], [False]),
                "g2": place(["join.mat", "within.mat"], [False, False]),
            },
        },
        masks=(mask("day1", "g1", "first.nii.gz"), mask("day5", "g2", "later.nii.gz")),
    )


def test_volumes_are_those_of_the_voxels(subject):
    folder, record = subject
    rows = reversal_rows(record, folder, "day5", "day1")
    values = {row.endpoint: row.value for row in rows}
    assert values == pytest.approx(
        {
            "infarct_reversed_volume": 16 * VOXEL_ML,
            "infarct_persisting_volume": 16 * VOXEL_ML,
            "infarct_new_volume": 8 * VOXEL_ML,
            "infarct_reversed_percent": 50.0,
        }
    )
    assert {row.scan_ids for row in rows} == {"day1-dwi,day5-dwi"}
    assert set(values) == set(ENDPOINTS) and {row.status for row in rows} == {"ok"}


def test_what_is_known_of_both_masks_stands_in_the_reason(subject):
    folder, record = subject
    reasons = zip(record.masks, ("no ADC", None), strict=True)
    masks = tuple(replace(mask, native_reason=reason) for mask, reason in reasons)
    record = replace(record, masks=masks)
    rows = reversal_rows(record, folder, "day5", "day1")
    assert {row.reason for row in rows} == {"day1: no ADC"}


def test_the_way_back_is_the_inverse(subject):
    folder, record = subject
    there = _steps_between(record, ("day1", "g1"), ("day5", "g2"), folder)
    back = _steps_between(record, ("day5", "g2"), ("day1", "g1"), folder)
    point = np.array([[11.0, -4.0, 20.0]])
    moved = point
    for step in there:
        moved = step(moved)
    assert moved[0] == pytest.approx([17.0, -4.0, 25.0])
    for step in back:
        moved = step(moved)
    assert moved == pytest.approx(point)


def test_what_cannot_be_compared_is_told(subject):
    folder, record = subject
    assert reversal_rows(record, folder, "day5", None) == []
    assert reversal_rows(record, folder, "day1", "day5") != []
    unjoined = replace(record, transforms={"day1": record.transforms["day1"], "day5": {}})
    rows = reversal_rows(unjoined, folder, "day5", "day1")
    assert len(rows) == 4 and all(row.status == "not_computable" for row in rows)
    assert "not joined by a registration" in rows[0].reason
    nothing = nib.Nifti1Image(np.zeros((30, 30, 8), np.uint8), GRID)
    nib.save(nothing, folder / "first.nii.gz")
    rows = {row.endpoint: row for row in reversal_rows(record, folder, "day5", "day1")}
    assert rows["infarct_new_volume"].value == pytest.approx(24 * VOXEL_ML)
    assert rows["infarct_reversed_percent"].reason == "no lesion at day1"
    failed = replace(record, anchor=None, transforms={})
    assert reversal_rows(failed, folder, "day5", "day1")[0].status == "not_computable"
