"""The imaging charter: breaking one criterion flags exactly that one."""

from __future__ import annotations

import pytest

from corelab.imaging.acquisition import (
    DEFAULT_LIMITS,
    FIELDS,
    QUANTITIES,
    acquisition_rows,
    charter,
    observe,
)
from corelab.records.images import Scan
from corelab.settings.acquisition import AcquisitionSettings

#: A scan of each kind that keeps every default limit: shape, voxel size, metadata.
GOOD = {
    "ctp": ((256, 256, 16, 40), (0.9, 0.9, 5.0), {"frame_times_s": [1.5 * i for i in range(40)]}),
    "dsc": (
        (128, 128, 20, 60),
        (1.8, 1.8, 5.0),
        {"frame_times_s": [1.5 * i for i in range(60)], "echo_time_s": 0.030},
    ),
    "dwi": ((160, 192, 32), (1.2, 1.2, 5.0), {"b_value": 1000, "slice_thickness_mm": 4.5}),
    "adc": ((160, 192, 32), (1.2, 1.2, 5.0), {}),
    "FLAIR": ((192, 232, 32), (0.9, 0.9, 5.0), {"slice_thickness_mm": 5.0}),
    "ncct": ((512, 512, 32), (0.45, 0.45, 5.0), {}),
}


def seen_of(shape, sizes, metadata):
    return observe(Scan("s1", "dwi", shape=shape, voxel_size_mm=sizes, metadata=metadata))


def verdicts(kind, shape, sizes, metadata, limits=None):
    rows = acquisition_rows(
        kind, seen_of(shape, sizes, metadata), limits or charter(AcquisitionSettings())
    )
    return {row.criterion: row.verdict for row in rows}


@pytest.mark.parametrize("kind", DEFAULT_LIMITS)
def test_a_scan_within_the_charter_passes_every_criterion(kind):
    got = verdicts(kind, *GOOD[kind])
    assert set(got) == set(DEFAULT_LIMITS[kind])
    assert set(got.values()) == {"pass"}


BREAKS = [
    (
        "ctp",
        "frame_interval_s_max",
        (256, 256, 16, 31),
        (0.9, 0.9, 5.0),
        {"frame_times_s": [3.0 * i for i in range(31)]},
    ),
    (
        "ctp",
        "duration_s_min",
        (256, 256, 16, 39),
        (0.9, 0.9, 5.0),
        {"frame_times_s": [1.5 * i for i in range(39)]},
    ),
    ("ctp", "coverage_mm_min", (256, 256, 15, 40), (0.9, 0.9, 5.0), GOOD["ctp"][2]),
    ("ctp", "slice_thickness_mm_max", (256, 256, 8, 40), (0.9, 0.9, 10.5), GOOD["ctp"][2]),
    (
        "dsc",
        "echo_time_s_min",
        GOOD["dsc"][0],
        GOOD["dsc"][1],
        {**GOOD["dsc"][2], "echo_time_s": 0.015},
    ),
    (
        "dsc",
        "echo_time_s_max",
        GOOD["dsc"][0],
        GOOD["dsc"][1],
        {**GOOD["dsc"][2], "echo_time_s": 0.065},
    ),
    (
        "dsc",
        "frames_min",
        (128, 128, 20, 39),
        GOOD["dsc"][1],
        {"frame_times_s": [1.8 * i for i in range(39)], "echo_time_s": 0.03},
    ),
    (
        "dwi",
        "b_value_min",
        GOOD["dwi"][0],
        GOOD["dwi"][1],
        {"b_value": 800, "slice_thickness_mm": 4.5},
    ),
    (
        "dwi",
        "b_value_max",
        GOOD["dwi"][0],
        GOOD["dwi"][1],
        {"b_value": 1500, "slice_thickness_mm": 4.5},
    ),
    ("dwi", "coverage_mm_min", (160, 192, 19), GOOD["dwi"][1], GOOD["dwi"][2]),
    (
        "dwi",
        "slice_gap_mm_max",
        (160, 192, 20),
        (1.2, 1.2, 7.5),
        {"b_value": 1000, "slice_thickness_mm": 5.0},
    ),
    (
        "dwi",
        "slice_thickness_mm_max",
        GOOD["dwi"][0],
        (1.2, 1.2, 7.0),
        {"b_value": 1000, "slice_thickness_mm": 7.0},
    ),
]


@pytest.mark.parametrize(
    ("kind", "criterion", "shape", "sizes", "metadata"),
    BREAKS,
    ids=[f"{b[0]}-{b[1]}" for b in BREAKS],
)
def test_breaking_one_criterion_flags_exactly_that_one(kind, criterion, shape, sizes, metadata):
    got = verdicts(kind, shape, sizes, metadata)
    assert [name for name, verdict in got.items() if verdict != "pass"] == [criterion]
    assert got[criterion] == "fail"


@pytest.mark.parametrize(
    ("b_value", "verdict"), [(900, "pass"), (899.5, "fail"), (900.00001, "pass")]
)
def test_the_limit_itself_passes(b_value, verdict):
    assert verdicts("dwi", (9, 9, 9), (1, 1, 5), {"b_value": b_value})["b_value_min"] == verdict


def test_float32_headers_do_not_fail_a_limit():
    got = verdicts("dwi", (9, 9, 30), (1, 1, 6.000000238418579), {})
    assert got["slice_thickness_mm_max"] == "pass"


def test_what_is_not_known_is_not_assessable():
    got = verdicts("dwi", (160, 192, 32), (1.2, 1.2, 5.0), {})
    assert {name for name, verdict in got.items() if verdict == "not_assessable"} == {
        "b_value_min",
        "b_value_max",
        "slice_gap_mm_max",
    }


def test_a_kind_without_limits_gives_no_rows():
    assert verdicts("T1w", (9, 9, 9), (1, 1, 1), {}) == {}


def test_users_limits_override_one_by_one_and_none_removes():
    limits = charter(
        AcquisitionSettings.model_validate(
            {"dwi": {"b_value_max": None, "b_value_min": 500}, "T1w": {"voxel_size_mm_max": 1.2}}
        )
    )
    assert limits["dwi"]["b_value_min"] == 500 and "b_value_max" not in limits["dwi"]
    assert limits["dwi"]["coverage_mm_min"] == DEFAULT_LIMITS["dwi"]["coverage_mm_min"]
    assert verdicts("T1w", (9, 9, 9), (1, 1, 1.5), {}, limits) == {"voxel_size_mm_max": "fail"}
    assert charter(
        AcquisitionSettings.model_validate({"use_defaults": False, "dwi": {"slices_min": 3}})
    ) == {"dwi": {"slices_min": 3.0}}


@pytest.mark.parametrize("name", ["b_value", "colour_max", "slices_between"])
def test_a_limit_on_nothing_is_an_error(name):
    with pytest.raises(ValueError, match=f"acquisition.dwi.{name}"):
        charter(AcquisitionSettings.model_validate({"dwi": {name: 1}}))


def test_every_quantity_is_observed():
    seen = seen_of((9, 9, 9, 5), (1, 1, 2), {"frame_times_s": [0, 1, 2, 3, 4]})
    assert set(seen) == set(QUANTITIES) | set(FIELDS) | {"b_values"}


def test_slices_lie_along_the_longest_voxel_edge():
    sagittal = seen_of((20, 256, 256), (6.0, 1.0, 1.0), {})
    assert (sagittal["slices"], sagittal["coverage_mm"], sagittal["matrix"]) == (20, 120, 256)
    isotropic = seen_of((180, 220, 160), (1.0, 1.0, 1.0), {})
    assert (isotropic["slices"], isotropic["field_of_view_mm"]) == (160, 180)


def test_uneven_frames_are_judged_by_the_longest_interval():
    seen = seen_of((9, 9, 9, 5), (1, 1, 5), {"frame_times_s": [0, 1, 2, 5, 6]})
    assert seen["frame_interval_s"] == 3 and seen["duration_s"] == 7
