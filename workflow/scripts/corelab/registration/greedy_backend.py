"""Greedy (P. Yushkevich) through its Python wheel picsl_greedy, one thread and a seed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.registration.preparation import centred
from corelab.registration.quality import tilted_start
from corelab.registration.registrar import (
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
        """Why Greedy cannot be used."""
        return missing_module("picsl_greedy", "picsl-greedy")

    def _fit(
        self,
        fit: str,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        metric_mask: nib.Nifti1Image | None,
        start: np.ndarray | None,
    ) -> Transform:
        if fit.startswith("deformable"):
            assert start is not None
            return self._deformable(fit, fixed, moving, metric_mask, start)
        if start is None and fit.startswith("affine"):
            start = tilted_start(fixed, moving, centred(fixed, moving))
        transform = self._linear(fit, 6, fixed, moving, metric_mask, start)
        if fit == "rigid":
            return transform
        return self._linear(fit, 12, fixed, moving, metric_mask, transform.matrix)

    def _deformable(
        self,
        fit: str,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        metric_mask: nib.Nifti1Image | None,
        start: np.ndarray,
    ) -> Transform:
        steps = self.preset.steps(self.name, fit)
        with private_folder() as folder:
            files = self._inputs(fixed, moving, folder)
            np.savetxt(folder / "start.txt", start, fmt="%.17g")
            command = [
                *("-i", *files, "-it", folder / "start.txt", "-m", steps["metric"]),
                *("-n", "x".join(str(count) for count in steps["iterations"])),
                *("-s", steps["smoothing"], "-wp", "0"),
                *("-o", folder / "warp.nii.gz", "-oinv", folder / "inverse.nii.gz"),
                *self._mask(fixed, metric_mask, start, folder),
            ]
            self._execute(command, fit)
            warp = read_warp(folder / "warp.nii.gz")
            inverse = read_warp(folder / "inverse.nii.gz")
        return Transform("deformable", np.asarray(start), warp, inverse)

    def _linear(
        self,
        fit: str,
        parameters: int,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        metric_mask: nib.Nifti1Image | None,
        start: np.ndarray | None,
    ) -> Transform:
        steps = self.preset.steps(self.name, fit)
        begin = centred(fixed, moving) if start is None else np.asarray(start)
        with private_folder() as folder:
            files = self._inputs(fixed, moving, folder)
            np.savetxt(folder / "start.txt", begin, fmt="%.17g")
            command = [
                *("-a", "-dof", parameters, "-i", *files, "-m", steps["metric"]),
                *("-ia", folder / "start.txt"),
                *("-n", "x".join(str(count) for count in steps["iterations"])),
                *("-o", folder / "matrix.txt"),
                *self._mask(fixed, metric_mask, begin, folder),
            ]
            self._execute(command, fit)
            matrix = np.loadtxt(folder / "matrix.txt")
        return Transform("rigid" if parameters == 6 else "affine", matrix)

    @staticmethod
    def _inputs(fixed: Any, moving: Any, folder: Path) -> list[Path]:
        return [
            write_input(fixed, folder / "fixed.nii"),
            write_input(moving, folder / "moving.nii"),
        ]

    @staticmethod
    def _mask(fixed: Any, metric_mask: Any, start: np.ndarray, folder: Path) -> list[Any]:
        if metric_mask is None:
            return []
        left_out = np.asarray(metric_mask.dataobj) == 0
        outside = nib.Nifti1Image(left_out.astype(np.uint8), metric_mask.affine)
        brought = apply_transforms(outside, fixed, [Affine(start)], "nearest")
        keep = nib.Nifti1Image((np.asarray(brought.dataobj) == 0).astype(np.uint8), fixed.affine)
        return ["-gm", write_input(keep, folder / "mask.nii")]

    def _execute(self, command: list[Any], fit: str) -> None:
        from picsl_greedy import Greedy3D

        text = " ".join(
            str(part) for part in ["-threads", 1, "-seed", self.seed, "-V", 0, *command]
        )
        messages = io.StringIO()
        try:
            Greedy3D().execute(text, out=messages, err=messages)
        except RuntimeError as error:
            raise RegistrationFault(f"Greedy could not do the {fit} fit: {error}") from error
