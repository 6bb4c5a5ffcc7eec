"""Registration to MNI152 against simulated truth, and the same bytes from two processes.

How the subjects are made stands in tests/registration_truth.py. The limits are those of the issue:
mean error at most 1.4 mm (`precise`) and 2.0 mm (`fast`, 60 CPU s), lesion volume in MNI within 5 %
of its true one there for 10 mL and more; and 1.0 mm with local correlation after filling.
What is not reached is a strict xfail with its figure.
Seeds from 301 on were not looked at while anything was chosen.
"""

import hashlib
import os
import subprocess
import sys
from functools import cache

import pytest
from helpers import REPOSITORY
from registration_truth import accuracy, affine_floor_mm, subject

pytestmark = pytest.mark.acceptance

SUBJECTS = [(11, 4.2, -1), (22, 3.2, 1)]
UNTOUCHED = [(301, 4.2, 1), (302, 3.2, -1)]


def test_fast_is_within_1_4_mm_and_keeps_the_lesion_s_volume():
    found = accuracy(subject(*SUBJECTS[0]), {"preset": "fast"})
    print(found)
    assert found.fit.reason is None
    assert found.fit.transform.kind == "deformable"
    assert found.fit.lesion["used"] == "mask"
    assert found.error_mm <= 1.4
    assert abs(found.lesion_percent) <= 5
    assert found.fit.quality["inverse_consistency_mm"] < 0.1
    assert found.fit.quality["folds"] == 0


@cache
def fast(who, backend):
    return accuracy(subject(*who), {"preset": "fast", "backend": backend})


#: docs/registration.md: beside a large lesion the fit has one side only to go by.
SHRUNK = pytest.mark.xfail(
    reason="measured -6.6 to -8.9 % on subjects that nothing was tuned on", strict=True
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "lesion_percent"),
    [
        (SUBJECTS[1], 5),
        (UNTOUCHED[0], 10),
        pytest.param(UNTOUCHED[0], 5, marks=SHRUNK),
    ],
)
def test_fast_on_further_subjects(who, lesion_percent):
    found = fast(who, "ants")
    print(found)
    assert found.error_mm <= 1.4
    assert abs(found.lesion_percent) <= lesion_percent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "lesion_percent"),
    [
        (SUBJECTS[1], 5),
        (UNTOUCHED[0], 10),
        (UNTOUCHED[1], 10),
        pytest.param(UNTOUCHED[0], 5, marks=SHRUNK),
        pytest.param(UNTOUCHED[1], 5, marks=SHRUNK),
    ],
)
def test_local_correlation_after_filling_is_within_1_mm(who, lesion_percent):
    found = fast(who, "greedy")
    print(found)
    assert found.fit.reason is None
    assert found.fit.lesion["used"] == "fill"
    assert found.fit.lesion["filled_from_other_side"] > 0.9
    assert found.error_mm <= 1.0
    assert abs(found.lesion_percent) <= lesion_percent


@pytest.mark.slow
@pytest.mark.parametrize("who", SUBJECTS)
def test_filling_the_lesion_for_ants_is_no_less_accurate(who):
    found = accuracy(subject(*who), {"preset": "fast", "lesion": "fill"})
    print(found)
    assert found.fit.lesion["used"] == "fill"
    assert found.fit.lesion["filled_from_other_side"] > 0.9
    assert found.error_mm <= 1.4
    # Measured up to 6 %; masking, the default for ants, is the one that is held to 5 %.
    assert abs(found.lesion_percent) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("who", [SUBJECTS[0], UNTOUCHED[0]])
def test_precise_is_within_1_4_mm(who):
    found = accuracy(subject(*who), {"preset": "precise"})
    print(found)
    assert found.error_mm <= 1.4
    assert abs(found.lesion_percent) <= 5


@pytest.mark.slow
def test_jcog0911a2_is_an_affine_fit_near_the_best_affine():
    truth = subject(*UNTOUCHED[0])
    found = accuracy(truth, {"preset": "jcog0911a2"})
    print(found)
    assert found.fit.transform.kind == "affine"
    assert found.fit.lesion["used"] == "none"
    assert found.error_mm <= affine_floor_mm(truth) + 0.4


@pytest.mark.parametrize("who", SUBJECTS)
def test_thick_slices_get_the_best_affine_there_is(who):
    truth = subject(*who, (1.0, 1.0, 5.0))
    found = accuracy(truth, {"preset": "fast"})
    assert found.fit.reason is None
    assert found.fit.transform.kind == "affine"
    # No affine can do better than the one that is fitted to the truth itself.
    assert found.error_mm <= affine_floor_mm(truth) + 0.4


_SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from corelab.registration import registrar, registration_settings, template_image
from corelab.registration.preparation import coarsened
from corelab.registration.transforms import Affine, apply_transforms
settings = registration_settings({"preset": "testing", "backend": sys.argv[2]})
tool = registrar(settings)
fixed = coarsened(template_image(), 4.0)
matrix = np.eye(4); matrix[:3, 3] = 4, -3, 2; matrix[0, 0] = 1.05
moving = apply_transforms(template_image(), coarsened(template_image(), 3.0), [Affine(matrix)])
affine = tool.affine(fixed, moving)
found = tool.deformable(fixed, moving, start=affine.matrix)
rigid = tool.rigid(fixed, moving)
for part in (rigid.matrix, found.matrix, found.warp.displacement_mm, found.inverse_warp.displacement_mm):
    print(hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("backend", ["ants", "greedy"])
def test_two_processes_give_the_same_bits_and_leave_nothing_behind(backend, tmp_path):
    results = []
    for threads in ("1", "2"):  # what the surroundings ask for has no say
        room = tmp_path / threads
        room.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(room),
            "OMP_NUM_THREADS": threads,
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(REPOSITORY / "workflow" / "scripts"), backend],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
        assert list(room.iterdir()) == []
    assert results[0] == results[1]
    assert results[0].count("\n") == 4
    assert hashlib.sha256(b"").hexdigest() not in results[0]
