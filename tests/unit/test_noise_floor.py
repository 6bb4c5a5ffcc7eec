"""The noise floor: its statistics against analytic cases, and that a comparison goes by it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from corelab.measurement.noise_floor import _image_noise_sd, noise_floor_table
from corelab.measurement.rows import measurement_row
from corelab.provenance.compare import _compare_tables
from corelab.records.measured import Repeated


def record(seed, values, *, source="pipeline", endpoint="infarct_volume"):
    rows = [
        measurement_row(
            *(str(person), "day5", endpoint, source, value, "mL"),
            status="ok" if value is not None else "failed",
        )
        for person, value in enumerate(values)
    ]
    return Repeated("x", seed, tuple(rows))


def test_sd_is_recovered_within_its_interval_and_matches_one_way_anova():
    rng = np.random.default_rng(3)
    truth, sd, seeds = rng.uniform(5, 80, 30), 0.8, 6
    values = truth + rng.normal(0, sd, (seeds, 30))
    table = noise_floor_table([record(k + 1, row) for k, row in enumerate(values)])
    found = table.iloc[0]
    # Residual mean square of the one-way analysis of variance with subjects as groups.
    residual = ((values - values.mean(axis=0)) ** 2).sum() / (30 * (seeds - 1))
    assert found["within_sd"] == pytest.approx(np.sqrt(residual))
    assert found["within_sd_ci_low"] < sd < found["within_sd_ci_high"]
    freedom = 30 * (seeds - 1)
    high = np.sqrt(residual * freedom / stats.chi2.ppf(0.025, freedom))
    assert found["within_sd_ci_high"] == pytest.approx(high)
    assert found["minimal_detectable_change"] == pytest.approx(
        2.7719 * found["within_sd"], rel=1e-4
    )
    assert (found["n_targets"], found["n_repeats"], found["n_failed"]) == (30, seeds, 0)


def test_failed_repeats_are_counted_and_a_single_value_has_no_sd():
    table = noise_floor_table([record(1, [10.0, None]), record(2, [10.0, 4.0])])
    row = table.iloc[0]
    assert row["n_failed"] == 1
    assert row["within_sd"] == 0.0  # the subject with two values; the other gives no freedom
    alone = noise_floor_table([record(1, [None, 3.0])]).iloc[0]
    assert np.isnan(alone["within_sd"]) and alone["n_targets"] == 1


def test_no_repeat_gives_a_table_with_its_header():
    assert noise_floor_table([]).empty
    assert "minimal_detectable_change" in noise_floor_table([]).columns


@pytest.mark.parametrize("sd", [0.5, 20.0])
def test_noise_of_an_image_is_seen_through_its_anatomy(sd):
    x = np.linspace(0, 6, 80)
    anatomy = 100 + 40 * np.sin(x)[:, None, None] * np.cos(x)[None, :, None] * np.ones((1, 1, 20))
    noisy = anatomy + np.random.default_rng(1).normal(0, sd, anatomy.shape)
    brain = np.ones(noisy.shape, bool)
    assert _image_noise_sd(noisy, brain) == pytest.approx(sd, rel=0.05)
    assert _image_noise_sd(noisy, np.zeros_like(brain)) == 0.0


def test_differences_are_put_beside_the_noise_floor():
    key = ["participant_id", "visit", "endpoint", "source", "repeat", "region"]
    one = pd.DataFrame(
        {
            "participant_id": ["1", "2", "3"],
            "visit": "a",
            "endpoint": ["infarct_volume", "infarct_volume", "core_volume"],
            "source": "pipeline",
            "repeat": "1",
            "region": "all",
            "value": [10.0, 10.0, 5.0],
        }
    )
    other = one.assign(value=[10.4, 13.0, 9.0])
    table = noise_floor_table([record(1, [10.0]), record(2, [10.6])])
    limits = table.set_index(["endpoint", "source", "region"])["minimal_detectable_change"]
    found = _compare_tables(one, other, key, "value", limits.to_dict())
    verdicts = dict(zip(found["key"].str[0], found["verdict"], strict=True))
    assert verdicts == {
        "1": "below_noise",
        "2": "different",
        "3": "different",  # an endpoint without a noise floor is never excused
    }
