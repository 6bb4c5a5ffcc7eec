"""Outside programs through Nipype's typed interfaces: FSL FLIRT and antsRegistration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.registration.ants_backend import read_result
from corelab.registration.preparation import centred
from corelab.registration.presets import Stage
from corelab.registration.registrar import (
    Fit,
    Registrar,
    RegistrationFault,
    Transform,
    missing_program,
    private_folder,
    write_input,
)
from corelab.registration.transforms import write_affine


def fsl_to_world(
    matrix: np.ndarray, source: nib.Nifti1Image, target: nib.Nifti1Image
) -> np.ndarray:
    """Turn FLIRT's matrix into one on world points.

    FLIRT maps source to target in scaled voxel coordinates, whose first axis runs from right to
    left: it is mirrored where the affine's determinant is positive.

    Parameters
    ----------
    matrix
        FLIRT's 4x4 matrix (in, source; ref, target).
    source, target
        FLIRT's ``-in`` and ``-ref``.

    Returns
    -------
    numpy.ndarray
        4x4, RAS millimetres of source to RAS millimetres of target.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((10, 10, 10)), np.diag([2.0, 2, 2, 1]))
    >>> shift = np.eye(4); shift[0, 3] = 3          # FSL's x runs against ours
    >>> fsl_to_world(shift, image, image)[:3, 3].tolist()
    [-3.0, 0.0, 0.0]
    """
    return np.asarray(
        target.affine
        @ np.linalg.inv(_voxel_to_fsl(target))
        @ matrix
        @ _voxel_to_fsl(source)
        @ np.linalg.inv(source.affine)
    )


def world_to_fsl(
    matrix: np.ndarray, source: nib.Nifti1Image, target: nib.Nifti1Image
) -> np.ndarray:
    """Undo :func:`fsl_to_world`.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((10, 10, 10)), np.diag([2.0, 2, 2, 1]))
    >>> shift = np.eye(4); shift[0, 3] = 3
    >>> world_to_fsl(fsl_to_world(shift, image, image), image, image)[:3, 3].tolist()
    [3.0, 0.0, 0.0]
    """
    return np.asarray(
        _voxel_to_fsl(target)
        @ np.linalg.inv(target.affine)
        @ matrix
        @ source.affine
        @ np.linalg.inv(_voxel_to_fsl(source))
    )


def _voxel_to_fsl(image: nib.Nifti1Image) -> np.ndarray:
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    scaled = np.diag([*sizes, 1.0])
    if np.linalg.det(image.affine) > 0:
        scaled[0, 0] = -sizes[0]
        scaled[0, 3] = (image.shape[0] - 1) * sizes[0]
    return scaled


class FlirtRegistrar(Registrar):
    """FSL FLIRT: linear fits only. FSL is free for non-commercial use only."""

    name = "flirt"

    @classmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why FLIRT cannot be used."""
        return missing_program(
            "flirt", "install FSL and put its bin folder on the PATH, or use backend: ants"
        )

    def _fit(self, fit: Fit) -> Transform:
        if fit.is_deformable:
            raise ValueError(
                "registration.backend flirt has no deformable fit; use preset: jcog0911a2 "
                "(affine) or another backend"
            )
        from nipype.interfaces.fsl import FLIRT

        fixed, moving = fit.fixed, fit.moving
        steps = self.preset.steps(self.name, fit.kind)
        begin = centred(fixed, moving) if fit.start is None else np.asarray(fit.start)
        with private_folder() as folder:
            node = FLIRT()
            node.inputs.reference = str(write_input(fixed, folder / "fixed.nii"))
            node.inputs.in_file = str(write_input(moving, folder / "moving.nii"))
            np.savetxt(
                folder / "start.txt",
                world_to_fsl(np.linalg.inv(begin), moving, fixed),
                fmt="%.12f",
            )
            node.inputs.in_matrix_file = str(folder / "start.txt")
            node.inputs.out_matrix_file = str(folder / "matrix.txt")
            node.inputs.out_file = str(folder / "moved.nii.gz")
            node.inputs.cost = node.inputs.cost_func = steps["cost"]
            node.inputs.dof = steps["dof"]
            node.inputs.bins = steps["bins"]
            if fit.metric_mask is not None:
                node.inputs.in_weight = str(write_input(fit.metric_mask, folder / "weight.nii"))
            run_interface(node, folder, "FLIRT")
            matrix = np.loadtxt(folder / "matrix.txt")
        return Transform(
            fit.kind.removesuffix("_first"), np.linalg.inv(fsl_to_world(matrix, moving, fixed))
        )


class AntsProgramRegistrar(Registrar):
    """The program antsRegistration, with the same stages as the backend ``ants``."""

    name = "ants_cli"

    @classmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why the program cannot be used."""
        return missing_program(
            "antsRegistration", "install ANTs and put it on the PATH, or use backend: ants"
        )

    def _fit(self, fit: Fit) -> Transform:
        with private_folder() as folder:
            node = stage_node(self.preset.stages(self.name, fit.kind))
            node.inputs.dimension = 3
            node.inputs.float = True
            node.inputs.num_threads = 1
            node.inputs.random_seed = self.seed
            node.inputs.fixed_image = str(write_input(fit.fixed, folder / "fixed.nii"))
            node.inputs.moving_image = str(write_input(fit.moving, folder / "moving.nii"))
            node.inputs.output_transform_prefix = "x"
            node.inputs.collapse_output_transforms = True
            if fit.start is None:
                node.inputs.initial_moving_transform_com = 1
            else:
                node.inputs.initial_moving_transform = [
                    str(write_affine(fit.start, folder / "start.mat"))
                ]
            if fit.metric_mask is not None:
                mask = write_input(fit.metric_mask, folder / "mask.nii")
                node.inputs.moving_image_mask = str(mask)
            run_interface(node, folder, "antsRegistration")
            return read_result(folder, fit.kind, fit.start)


def stage_node(stages: Sequence[Stage]) -> Any:
    """Nipype's ``ants.Registration`` with the stages of a preset.

    Examples
    --------
    >>> stage = Stage("SyN[0.2,3,0]", "Mattes", 32, None, [5], [1], [0], (1e-6, 10))
    >>> inputs = stage_node([stage]).inputs
    >>> inputs.transforms, inputs.transform_parameters
    (['SyN'], [(0.2, 3.0, 0.0)])
    """
    from nipype.interfaces.ants import Registration

    named = [stage.transform.rstrip("]").split("[") for stage in stages]
    return Registration(
        transforms=[name for name, _ in named],
        transform_parameters=[tuple(map(float, text.split(","))) for _, text in named],
        metric=[stage.metric for stage in stages],
        metric_weight=[1.0] * len(stages),
        radius_or_number_of_bins=[stage.bins for stage in stages],
        sampling_strategy=["Regular" if stage.sampling_rate else "None" for stage in stages],
        sampling_percentage=[stage.sampling_rate for stage in stages],
        number_of_iterations=[stage.iterations for stage in stages],
        convergence_threshold=[stage.convergence[0] for stage in stages],
        convergence_window_size=[stage.convergence[1] for stage in stages],
        shrink_factors=[stage.shrink for stage in stages],
        smoothing_sigmas=[stage.smoothing_vox for stage in stages],
        sigma_units=["vox"] * len(stages),
        use_histogram_matching=[False] * len(stages),
    )


def run_interface(node: Any, folder: Path, program: str) -> None:
    """Run a Nipype interface in a folder; the last line of its errors is the reason.

    Raises
    ------
    RegistrationFault
        If the program ends with an error.
    """
    node.inputs.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    node.terminal_output = "file_split"
    try:
        node.run(cwd=str(folder))
    except (RuntimeError, FileNotFoundError) as error:
        reason = last_error(folder) or str(error).strip().splitlines()[0]
        raise RegistrationFault(f"{program} failed: {reason}") from error


def last_error(folder: Path) -> str | None:
    r"""Last line that a program run by Nipype in a folder wrote to its standard error.

    Examples
    --------
    >>> with private_folder() as folder:
    ...     _ = (folder / "stderr.nipype").write_text("starting\nno such file\n")
    ...     last_error(folder)
    'no such file'
    """
    errors = folder / "stderr.nipype"
    lines = errors.read_text(errors="replace").strip().splitlines() if errors.is_file() else []
    return lines[-1] if lines else None
