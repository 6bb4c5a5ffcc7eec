"""One contract for every registration backend; a backend that is not there is skipped by name."""

import os
import stat

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from corelab.imaging.template import template_brain_mask, template_image
from corelab.registration import BackendMissing, RegistrationFault
from corelab.registration.backends import BACKENDS, registrar
from corelab.registration.preparation import brain_only, coarsened
from corelab.registration.presets import load_preset
from corelab.registration.registrar import Transform
from corelab.registration.transforms import Affine, apply_transforms, transform_points
from corelab.settings.registration import RegistrationLimits, RegistrationSettings


def rigid_matrix(degrees=6.0, shift=(5.0, -4.0, 3.0)) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


AFFINE = rigid_matrix() @ np.array(
    [[1.06, 0.03, 0, 0], [0, 0.95, 0.02, 0], [0, 0, 1.03, 0], [0, 0, 0, 1]]
)


@pytest.fixture(scope="module")
def fixed() -> nib.Nifti1Image:
    brain = np.asarray(template_brain_mask().dataobj) != 0
    cut, _ = brain_only(template_image(), brain, margin_mm=0.0)
    return coarsened(cut, 4.0)


@pytest.fixture(scope="module")
def points(fixed) -> np.ndarray:
    return Affine(fixed.affine)(np.argwhere(np.asarray(fixed.dataobj) > 20)[::29].astype(float))


def moved_by(matrix: np.ndarray, fixed: nib.Nifti1Image) -> nib.Nifti1Image:
    """Subject whose points are matrix(template points), on a LAS grid of 3 mm."""
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 105, -135, -85
    grid = nib.Nifti1Image(np.zeros((70, 80, 66), np.float32), affine)
    image = apply_transforms(template_image(), grid, [Affine(np.linalg.inv(matrix))])
    return image


class RegistrarContract:
    """What every backend keeps; a subclass names the backend."""

    backend: str
    rigid_mm = 1.0
    affine_mm = 1.5

    @pytest.fixture(scope="class")
    def tool(self):
        reason = BACKENDS[self.backend].missing()
        if reason is not None:
            pytest.skip(f"backend {self.backend}: {reason[0]} ({reason[1]})")
        return registrar(
            RegistrationSettings.model_validate({"preset": "testing", "backend": self.backend})
        )

    def test_rigid_recovers_a_known_motion(self, tool, fixed, points):
        truth = rigid_matrix()
        found = tool.rigid(fixed, moved_by(truth, fixed))
        assert found.kind == "rigid"
        error = np.linalg.norm(
            transform_points(points, found.to_fixed) - Affine(truth)(points), axis=1
        )
        assert error.mean() < self.rigid_mm
        linear = found.matrix[:3, :3]
        np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-4)

    def test_a_start_is_used(self, tool, fixed, points):
        # 60 degrees are beyond the reach of a fit from the centres of mass.
        truth = rigid_matrix(60.0)
        start = rigid_matrix(57.0)
        found = tool.rigid(fixed, moved_by(truth, fixed), start=start)
        error = np.linalg.norm(
            transform_points(points, found.to_fixed) - Affine(truth)(points), axis=1
        )
        assert error.mean() < self.rigid_mm

    def test_affine_recovers_a_known_map_in_both_directions(self, tool, fixed, points):
        found = tool.affine(fixed, moved_by(AFFINE, fixed))
        there = transform_points(points, found.to_fixed)
        assert np.linalg.norm(there - Affine(AFFINE)(points), axis=1).mean() < self.affine_mm
        np.testing.assert_allclose(transform_points(there, found.to_moving), points, atol=1e-6)

    def test_affine_finds_a_head_that_nods(self, tool, fixed, points):
        # 40 degrees about the left-right axis: beyond the reach of one fit from the centres.
        truth = rigid_matrix()
        angle = np.deg2rad(40.0)
        truth[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        truth[:2, 0], truth[0, :2] = (1, 0), (1, 0)
        found = tool.affine(fixed, moved_by(truth, fixed), first_pass=True)
        error = np.linalg.norm(
            transform_points(points, found.to_fixed) - Affine(truth)(points), axis=1
        )
        assert error.mean() < self.affine_mm

    def test_what_the_metric_mask_hides_has_no_say(self, tool, fixed, points):
        moving = moved_by(AFFINE, fixed)
        clean = np.array(moving.dataobj)
        hidden = np.zeros(clean.shape, bool)
        hidden[10:35, 20:60, 20:55] = True
        spoilt = np.where(hidden, 300 - clean, clean)
        # The rim is for the smoothing of the coarser levels, as that of a lesion is.
        grown = ndimage.binary_dilation(hidden, iterations=2)
        keep = nib.Nifti1Image((~grown).astype(np.uint8), moving.affine)
        there = [
            transform_points(
                points,
                tool.affine(fixed, nib.Nifti1Image(data, moving.affine), metric_mask=keep).to_fixed,
            )
            for data in (clean, spoilt)
        ]
        assert np.linalg.norm(there[0] - there[1], axis=1).mean() < 0.5
        assert np.linalg.norm(there[1] - Affine(AFFINE)(points), axis=1).mean() < self.affine_mm

    def test_deformable_keeps_its_start_and_inverts(self, tool, fixed, points):
        if self.backend == "flirt":
            with pytest.raises(ValueError, match="no deformable fit"):
                tool.deformable(fixed, fixed, start=np.eye(4))
            return
        found = tool.deformable(fixed, moved_by(AFFINE, fixed), start=AFFINE)
        assert found.kind == "deformable"
        np.testing.assert_array_equal(found.matrix, AFFINE)
        there = transform_points(points, found.to_fixed)
        # The start is the truth: what the warp adds is the method's own error.
        assert np.linalg.norm(there - Affine(AFFINE)(points), axis=1).mean() < 1.5
        back = transform_points(there, found.to_moving)
        assert np.linalg.norm(back - points, axis=1).mean() < 1.0

    def test_same_input_same_result_and_nothing_left_behind(
        self, tool, fixed, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        moving = moved_by(rigid_matrix(), fixed)
        first, second = tool.rigid(fixed, moving), tool.rigid(fixed, moving)
        np.testing.assert_array_equal(first.matrix, second.matrix)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (np.zeros((9, 9, 9)), "constant"),
            (np.full((9, 9, 9), np.nan), "not finite"),
            (np.arange(81.0).reshape(9, 9, 1), "3 axes of 4 or more"),
        ],
    )
    def test_what_registers_to_nonsense_is_refused(self, tool, fixed, data, words):
        image = nib.Nifti1Image(data.astype(np.float32), np.eye(4))
        with pytest.raises(RegistrationFault, match=words):
            tool.rigid(fixed, image)


class TestAnts(RegistrarContract):
    backend = "ants"


class TestGreedy(RegistrarContract):
    backend = "greedy"


class TestAntsGreedy(RegistrarContract):
    backend = "ants_greedy"
    # Linear fits are those of ants to the last bit (below), so TestAnts shows this of them.
    test_rigid_recovers_a_known_motion = test_a_start_is_used = None
    test_affine_recovers_a_known_map_in_both_directions = None
    test_affine_finds_a_head_that_nods = test_what_the_metric_mask_hides_has_no_say = None

    def test_linear_fits_are_those_of_ants_and_the_deformable_one_is_greedy_s(self, tool, fixed):
        moving = moved_by(AFFINE, fixed)
        parts = [
            registrar(
                RegistrationSettings.model_validate({"preset": "testing", "backend": backend})
            )
            for backend in ("ants", "greedy")
        ]
        half = np.ones(moving.shape, np.uint8)
        half[:35] = 0
        masked = {"metric_mask": nib.Nifti1Image(half, moving.affine), "first_pass": True}
        for fit, more in (("affine", masked), ("rigid", {"start": rigid_matrix()})):
            ours, theirs = (getattr(one, fit)(fixed, moving, **more) for one in (tool, parts[0]))
            np.testing.assert_array_equal(ours.matrix, theirs.matrix)
        bent = [part.deformable(fixed, moving, start=AFFINE) for part in (tool, parts[1])]
        np.testing.assert_array_equal(bent[0].warp.displacement_mm, bent[1].warp.displacement_mm)


class TestFlirt(RegistrarContract):
    backend = "flirt"


class TestAntsProgram(RegistrarContract):
    backend = "ants_cli"


@pytest.mark.parametrize("backend", ["flirt", "ants_cli"])
def test_missing_program_is_told_and_not_replaced(backend, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BackendMissing, match=f"registration.backend {backend}: .* Remedy: "):
        registrar(RegistrationSettings.model_validate({"backend": backend}))


def test_every_preset_has_steps_for_every_backend():
    for name in ("testing", "fast", "precise", "jcog0911a2"):
        preset = load_preset(name)
        for backend in BACKENDS:
            assert preset.lesion(backend) and preset.lesion_margin_mm(backend) > 0
            if backend == "ants_greedy":
                continue  # its steps are those of ants and greedy
            fits = ["rigid", "affine"] + ["affine_first"] * preset.has_deformable
            if preset.has_deformable and backend != "flirt":
                fits += ["deformable_first", "deformable"]
            for fit in fits:
                assert preset.steps(backend, fit), (name, backend, fit)
    affine = load_preset("jcog0911a2").steps("flirt", "affine")
    assert (affine["dof"], affine["cost"]) == (12, "mutualinfo")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "best"}, "preset\n"),
        ({"backend": "elastix"}, "backend\n"),
        ({"lesion": "hide"}, "lesion\n"),
        ({"seed": 0}, "seed\n"),
        ({"seed": None}, "seed\n"),
        ({"limits": {"dice": 1}}, r"limits\.dice\n"),
        ({"threads": 4}, "threads\n"),
    ],
)
def test_wrong_settings_are_told(settings, words):
    with pytest.raises(ValueError, match=words):
        RegistrationSettings.model_validate(settings)


def test_limits_are_replaced_one_by_one():
    limits = RegistrationSettings.model_validate({"limits": {"dice_min": 0.5}}).limits
    assert limits == RegistrationLimits(dice_min=0.5)


# --- Nipype interfaces with a stand-in program: what is handed over and how it is read back -------


def stand_in(folder, name: str, script: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_flirt_gets_our_arguments_and_its_matrix_is_understood(tmp_path, monkeypatch, fixed):
    # FLIRT's matrix for "no motion in FSL's coordinates": corner to corner of the two grids.
    stand_in(
        tmp_path,
        "flirt",
        f'echo "$@" > {tmp_path}/call\n'
        'while [ "$1" ]; do case "$1" in -omat) m="$2";; -out) o="$2";; esac; shift; done\n'
        'printf "1 0 0 0\\n0 1 0 0\\n0 0 1 7\\n0 0 0 1\\n" > "$m"; : > "$o"\n',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI_GZ")
    found = registrar(
        RegistrationSettings.model_validate({"preset": "jcog0911a2", "backend": "flirt"})
    ).affine(fixed, fixed)
    call = (tmp_path / "call").read_text()
    for part in ("-cost mutualinfo", "-searchcost mutualinfo", "-dof 12", "-bins 256", "-init "):
        assert part in call
    # Source to target moves 7 mm up, so fixed (target) to moving (source) moves 7 mm down.
    want = np.eye(4)
    want[2, 3] = -7
    np.testing.assert_allclose(found.matrix, want, atol=1e-6)


def test_ants_program_gets_threads_seed_and_stages(tmp_path, monkeypatch, fixed):
    from corelab.registration.transforms import write_affine

    write_affine(AFFINE, tmp_path / "answer.mat")
    stand_in(
        tmp_path,
        "antsRegistration",
        # Nipype asks for the version first, in the folder that the tests run in.
        'case "$*" in *--version*) exit 0;; esac\n'
        f'echo "$@" > {tmp_path}/call\necho "$ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS" > {tmp_path}/threads\n'
        f"cp {tmp_path}/answer.mat x0GenericAffine.mat\n",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool = registrar(
        RegistrationSettings.model_validate({"preset": "fast", "backend": "ants_cli", "seed": 7})
    )
    found = tool.affine(fixed, fixed)
    np.testing.assert_allclose(found.matrix, AFFINE, atol=1e-12)
    call = (tmp_path / "call").read_text()
    for part in ("--random-seed 7", "Rigid[ 0.1 ]", "Affine[ 0.1 ]", "Mattes[", "Regular, 0.25"):
        assert part in call, call
    assert (tmp_path / "threads").read_text().strip() == "1"


def test_failing_program_is_a_fault_with_its_words(tmp_path, monkeypatch, fixed):
    stand_in(tmp_path, "antsRegistration", 'echo "out of luck" >&2\nexit 3\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool = registrar(
        RegistrationSettings.model_validate({"preset": "testing", "backend": "ants_cli"})
    )
    with pytest.raises(RegistrationFault, match="antsRegistration failed: out of luck"):
        tool.rigid(fixed, fixed)


def test_transform_without_a_warp_is_its_matrix():
    transform = Transform("affine", AFFINE)
    there = transform_points(np.ones((1, 3)), transform.to_fixed)
    np.testing.assert_allclose(transform_points(there, transform.to_moving), np.ones((1, 3)))
