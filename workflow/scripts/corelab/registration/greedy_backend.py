"""Greedy (P. Yushkevich) through its Python wheel picsl_greedy, one thread and a seed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.registration.preparation import centred
from corelab.registration.quality import tilted_affine_start
from corelab.registration.registrar import (
    Fit,
    Registrar,
    RegistrationFault,
    Transform,
    missing_module,
    private_folder,
    write_input,
)
from corelab.registration.transforms import Affine, apply_transforms, read_warp


class GreedyRegistrar(Registrar):
    """Greedy: fast and accurate; its local correlation shrinks lesions unless they are filled.

    The deformable fit is that of Yushkevich et al. (Alzheimers Dement 2016;12:P126).

    Notes
    -----
    A metric mask is handed over in fixed space (brought there by the start), since Greedy's
    moving mask pulls tissue into the masked region (lesion volume -75 % in a simulation).
    """

    name = "greedy"

    @classmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why Greedy cannot be used."""
        return missing_module("picsl_greedy", "picsl-greedy")

    def _fit(self, fit: Fit) -> Transform:
        if fit.is_deformable:
            assert fit.start is not None
            return self._deformable(fit, fit.start)
        transform = self._linear(fit, 6, tilted_affine_start(fit))
        if fit.kind == "rigid":
            return transform
        return self._linear(fit, 12, transform.matrix)

    def _deformable(self, fit: Fit, start: np.ndarray) -> Transform:
        steps = self.preset.steps(self.name, fit.kind)
        # The inverse by fixed-point iteration of the field itself (`-exp 0`): its 64th root, the
        # default, takes half of the fit's time and misses more at steep places.
        with private_folder() as folder:
            files = self._inputs(fit, folder)
            np.savetxt(folder / "start.txt", start, fmt="%.17g")
            command = [
                *("-i", *files, "-it", folder / "start.txt", "-m", steps["metric"]),
                *("-n", "x".join(str(count) for count in steps["iterations"])),
                *("-s", steps["smoothing"], "-wp", "0"),
                *("-o", folder / "warp.nii", "-oinv", folder / "inverse.nii", "-exp", 0),
                *self._mask(fit, start, folder),
            ]
            self._execute(command, fit.kind)
            warp = read_warp(folder / "warp.nii")
            inverse = read_warp(folder / "inverse.nii")
        return Transform("deformable", np.asarray(start), warp, inverse)

    def _linear(self, fit: Fit, parameters: int, start: np.ndarray | None) -> Transform:
        steps = self.preset.steps(self.name, fit.kind)
        begin = centred(fit.fixed, fit.moving) if start is None else np.asarray(start)
        with private_folder() as folder:
            files = self._inputs(fit, folder)
            np.savetxt(folder / "start.txt", begin, fmt="%.17g")
            command = [
                *("-a", "-dof", parameters, "-i", *files, "-m", steps["metric"]),
                *("-ia", folder / "start.txt"),
                *("-n", "x".join(str(count) for count in steps["iterations"])),
                *("-o", folder / "matrix.txt"),
                *self._mask(fit, begin, folder),
            ]
            self._execute(command, fit.kind)
            matrix = np.loadtxt(folder / "matrix.txt")
        return Transform("rigid" if parameters == 6 else "affine", matrix)

    @staticmethod
    def _inputs(fit: Fit, folder: Path) -> list[Path]:
        return [
            write_input(fit.fixed, folder / "fixed.nii"),
            write_input(fit.moving, folder / "moving.nii"),
        ]

    @staticmethod
    def _mask(fit: Fit, start: np.ndarray, folder: Path) -> list[Any]:
        if fit.metric_mask is None:
            return []
        fixed = fit.fixed
        left_out = np.asarray(fit.metric_mask.dataobj) == 0
        outside = nib.Nifti1Image(left_out.astype(np.uint8), fit.metric_mask.affine)
        brought = apply_transforms(outside, fixed, [Affine(start)], "nearest")
        keep = nib.Nifti1Image((np.asarray(brought.dataobj) == 0).astype(np.uint8), fixed.affine)
        return ["-gm", write_input(keep, folder / "mask.nii")]

    def _execute(self, command: list[Any], kind: str) -> None:
        from picsl_greedy import Greedy3D

        text = " ".join(
            str(part) for part in ["-threads", 1, "-seed", self.seed, "-V", 0, *command]
        )
        messages = io.StringIO()
        try:
            Greedy3D().execute(text, out=messages, err=messages)
        except RuntimeError as error:
            raise RegistrationFault(f"Greedy could not do the {kind} fit: {error}") from error
