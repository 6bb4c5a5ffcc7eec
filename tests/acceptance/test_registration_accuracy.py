"""Registration to MNI152 against simulated truth, and the same bytes from two processes.

How the subjects are made stands in tests/registration_truth.py. The limits are those of the issue:
mean error at most 1.4 mm (`precise`) and 2.0 mm (`fast`, 60 CPU s), lesion volume in MNI within 5 %
of its true one there for 10 mL and more, 15 % below; and then 1.0 mm, which `fast` is held to.
Nothing was chosen on the untouched seeds.
"""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPOSITORY, data_folder
from registration_truth import HARD, accuracy, affine_floor_mm, landmark_errors_mm, subject

pytestmark = pytest.mark.acceptance

SUBJECTS = [(11, 4.2, -1), (22, 3.2, 1)]
UNTOUCHED = [(303, 4.2, -1), (304, 3.2, 1)]
SMALL = (305, 3.2, -1)


def test_fast_is_within_1_mm_and_keeps_the_lesion_s_volume():
    found = accuracy(subject(*SUBJECTS[0]), {"preset": "fast"})
    print(found)
    assert found.fit.reason is None
    assert found.fit.transform.kind == "deformable"
    assert found.fit.lesion["used"] == "fill"
    assert found.fit.lesion["filled_with_own_tissue"] > 0.9
    assert found.error_mm <= 1.0
    assert abs(found.lesion_percent) <= 5
    assert found.fit.quality["inverse_consistency_mm"] < 0.1
    assert found.fit.quality["folds"] == 0


@pytest.mark.slow
def test_fast_on_a_real_head_with_landmarks():
    """Colin27, 30 landmarks placed by people; about 1 mm is their own scatter."""
    errors_mm, fit = landmark_errors_mm(data_folder("registration/afids"), {"preset": "fast"})
    print(f"mean {errors_mm.mean():.2f}, median {np.median(errors_mm):.2f} mm", fit.quality)
    assert fit.reason is None
    assert errors_mm.mean() <= 2.3


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_fast_on_heads_with_wrong_masks_and_other_anatomy(name):
    found = accuracy(subject(**HARD[name]), {"preset": "fast"})
    print(found, found.fit.quality["ventricle_offset_mm"])
    assert found.fit.reason is None
    assert found.error_mm <= 1.5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["ants_greedy", "ants", "greedy"])
@pytest.mark.parametrize("who", [SUBJECTS[1], *UNTOUCHED])
def test_fast_on_further_subjects(who, backend):
    found = accuracy(subject(*who), {"preset": "fast", "backend": backend})
    print(found)
    assert found.fit.reason is None
    assert found.fit.lesion["used"] == "fill"
    assert found.error_mm <= 1.0
    assert abs(found.lesion_percent) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["ants_greedy", "ants", "greedy"])
def test_lesions_below_10_ml_keep_their_volume_within_15_percent(backend):
    found = accuracy(subject(*SMALL, lesion_scale=0.4), {"preset": "fast", "backend": backend})
    print(found)
    assert found.error_mm <= 1.0
    assert abs(found.lesion_percent) <= 15


@pytest.mark.slow
def test_a_lesion_without_anatomy_is_filled_from_the_other_side():
    """A cavity: location holds; of the volume only what docs/registration.md says (-16 %)."""
    found = accuracy(subject(*UNTOUCHED[0], cavity=True), {"preset": "fast"})
    print(found)
    assert found.fit.lesion["filled_with_own_tissue"] == 0
    assert found.fit.lesion["filled_from_other_side"] > 0.9
    assert found.error_mm <= 1.0


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


@pytest.mark.parametrize("who", [SUBJECTS[0], pytest.param(SUBJECTS[1], marks=pytest.mark.slow)])
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
from corelab.registration import registrar, template_image
from corelab.settings.registration import RegistrationSettings
from corelab.registration.preparation import coarsened
from corelab.registration.transforms import Affine, apply_transforms
fixed = coarsened(template_image(), 6.0)
matrix = np.eye(4); matrix[:3, 3] = 4, -3, 2; matrix[0, 0] = 1.05
moving = apply_transforms(template_image(), coarsened(template_image(), 5.0), [Affine(matrix)])
for backend in sys.argv[2:]:
    settings = RegistrationSettings.model_validate({"preset": "testing", "backend": backend})
    tool = registrar(settings)
    affine = tool.affine(fixed, moving)
    found = tool.deformable(fixed, moving, start=affine.matrix)
    rigid = tool.rigid(fixed, moving)
    fields = found.warp.displacement_mm, found.inverse_warp.displacement_mm
    for part in (rigid.matrix, found.matrix, *fields):
        print(backend, hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest())
"""


def test_two_processes_give_the_same_bits_and_leave_nothing_behind(tmp_path):
    backends = ["ants_greedy", "ants", "greedy"]
    results = []
    for threads in ("1", "2"):  # what the surroundings ask for has no say
        folder = tmp_path / threads
        folder.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": threads,
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(REPOSITORY / "workflow" / "scripts"), *backends],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
        assert list(folder.iterdir()) == []
    assert results[0] == results[1]
    assert [line.split()[0] for line in results[0].splitlines()] == sorted(
        4 * backends, key=backends.index
    )
    assert hashlib.sha256(b"").hexdigest() not in results[0]
