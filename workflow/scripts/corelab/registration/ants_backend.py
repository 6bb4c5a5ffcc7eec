"""ANTs in the Python process (ANTsPy), with one thread and a seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from corelab.registration.presets import Stage
from corelab.registration.quality import tilted_affine_start
from corelab.registration.registrar import (
    Fit,
    Registrar,
    RegistrationFault,
    Transform,
    missing_module,
    private_folder,
)
from corelab.registration.transforms import RAS_LPS, read_affine, read_warp, write_affine

_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
_LIBRARY = "ants.lib"


def ants_library() -> Any:
    """Load ANTsPy's compiled library with one thread, so that its results can be repeated.

    The package itself imports plotting and statistics that no fit needs: 2 to 3 s of CPU a job.

    Raises
    ------
    RuntimeError
        If ANTsPy was imported earlier with another number of threads: results would differ from
        run to run, and ITK does not look at the number again.

    Examples
    --------
    >>> ants_library().__name__, os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"]
    ('ants.lib', '1')
    """
    loaded = sys.modules.get(_LIBRARY)
    if loaded is not None and os.environ.get(_THREADS) != "1":
        raise RuntimeError(
            f"ants was imported before with {_THREADS}={os.environ.get(_THREADS)}; results would "
            "differ from run to run. Load it through ants_library() only"
        )
    if loaded is not None:
        return loaded
    os.environ[_THREADS] = "1"
    package = find_spec("ants")
    assert package is not None and package.submodule_search_locations
    found = PathFinder.find_spec(_LIBRARY, package.submodule_search_locations)
    assert found is not None and found.loader is not None
    library = module_from_spec(found)
    # A later import of the package takes this one, and loads no second ITK.
    sys.modules[_LIBRARY] = library
    found.loader.exec_module(library)
    return library


@dataclass(frozen=True)
class ItkImage:
    """An image in the memory of ANTs.

    Attributes
    ----------
    text
        The pointer as an argument of antsRegistration.
    voxels
        What the pointer leads to: both are valid as long as this object.
    """

    pointer: Any
    text: str
    voxels: np.ndarray


def to_ants(image: nib.Nifti1Image, dtype: Any = np.float32) -> ItkImage:
    """Turn a nibabel image into an ANTs image by its affine (RAS to LPS), never through a file.

    Parameters
    ----------
    image
        3D.
    dtype
        float32 for an image, uint8 for a mask.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 3, 4, 1]))
    >>> ants_library().getSpacing(to_ants(image).pointer)
    [2.0, 3.0, 4.0]
    """
    library = ants_library()
    lps = RAS_LPS @ image.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    voxels = np.asarray(image.dataobj).astype(dtype)
    make = library.fromNumpyF3 if voxels.dtype == np.float32 else library.fromNumpyUC3
    # ITK runs through x fastest.
    memory = np.ascontiguousarray(voxels.T)
    pointer = make(memory, voxels.shape)
    library.setOrigin(pointer, [float(value) for value in lps[:3, 3]])
    library.setSpacing(pointer, [float(value) for value in spacing])
    library.setDirection(pointer, lps[:3, :3] / spacing)
    return ItkImage(pointer, library.ptrstr(pointer), memory)


class AntsRegistrar(Registrar):
    """ANTsPy: antsRegistration as a library call, stages from the preset.

    The deformable fit is SyN (Avants et al., Med Image Anal 2008;12:26-41).
    """

    name = "ants"

    @classmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why ANTsPy cannot be used."""
        return missing_module("ants", "antspyx")

    def _fit(self, fit: Fit) -> Transform:
        library = ants_library()
        start = tilted_affine_start(fit)

        # The pointers stand in the arguments as text: the images must outlive the call.
        images = [to_ants(fit.fixed), to_ants(fit.moving)]
        names = [image.text for image in images]
        masks = "[NA,NA]"
        if fit.metric_mask is not None:
            seen = (np.asarray(fit.metric_mask.dataobj) != 0).astype(np.uint8)
            images.append(to_ants(nib.Nifti1Image(seen, fit.metric_mask.affine), np.uint8))
            masks = f"[NA,{images[-1].text}]"
        with private_folder() as folder:
            arguments = registration_arguments(
                self.preset.stages(self.name, fit.kind),
                names,
                prefix=f"{folder}/x",
                start=start_argument(start, names, folder),
                masks=masks,
                seed=self.seed,
            )
            try:
                code = library.antsRegistration(arguments)
            except RuntimeError as error:
                raise RegistrationFault(f"ANTs could not do the {fit.kind} fit: {error}") from error
            if code != 0:
                raise RegistrationFault(f"ANTs could not do the {fit.kind} fit: error code {code}")
            return read_result(folder, fit.kind, start)


def start_argument(start: np.ndarray | None, names: Sequence[str], folder: Path) -> str:
    """Start of a fit: a matrix as a file, or the centres of mass of both images.

    Examples
    --------
    >>> start_argument(None, ["fixed.nii", "moving.nii"], Path("."))
    '[fixed.nii,moving.nii,1]'
    """
    if start is None:
        return f"[{names[0]},{names[1]},1]"
    return str(write_affine(start, folder / "start.mat"))


def registration_arguments(
    stages: Sequence[Stage],
    names: Sequence[str],
    *,
    prefix: str,
    start: str,
    masks: str,
    seed: int,
) -> list[str]:
    """Command line of antsRegistration from the stages of a preset.

    Examples
    --------
    >>> stage = Stage("Rigid[0.1]", "Mattes", 32, 0.25, [50, 20], [2, 1], [1, 0], (1e-6, 10))
    >>> " ".join(registration_arguments([stage], ["f", "m"], prefix="x", start="[f,m,1]",
    ...                                 masks="[NA,NA]", seed=1)[8:])
    '--random-seed 1 --use-histogram-matching 0 --transform Rigid[0.1]
    --metric Mattes[f,m,1,32,Regular,0.25] --convergence [50x20,1e-06,10] --shrink-factors 2x1
    --smoothing-sigmas 1x0vox --masks [NA,NA]'
    """
    arguments = ["--dimensionality", "3", "--float", "1", "--output", prefix]
    arguments += ["--initial-moving-transform", start, "--random-seed", str(seed)]
    arguments += ["--use-histogram-matching", "0"]
    for stage in stages:
        sampling = f",Regular,{stage.sampling_rate}" if stage.sampling_rate else ""
        threshold, window = stage.convergence
        metric = f"{stage.metric}[{names[0]},{names[1]},1,{stage.bins}{sampling}]"
        iterations, shrink, sigmas = (
            "x".join(map(str, level))
            for level in (stage.iterations, stage.shrink, stage.smoothing_vox)
        )
        arguments += ["--transform", stage.transform, "--metric", metric]
        arguments += ["--convergence", f"[{iterations},{threshold},{window}]"]
        arguments += ["--shrink-factors", shrink]
        arguments += ["--smoothing-sigmas", f"{sigmas}vox", "--masks", masks]
    return arguments


def read_result(folder: Path, fit: str, start: np.ndarray | None) -> Transform:
    """Read what antsRegistration left under the prefix ``x``.

    A start is collapsed with the linear stages into one matrix; a deformable fit leaves it as
    it was, so that the matrix is the start itself, with all its digits.
    """
    matrices = sorted(folder.glob("x*GenericAffine.mat"))
    inverse = sorted(folder.glob("x*InverseWarp.nii.gz"))
    warps = sorted(set(folder.glob("x*Warp.nii.gz")) - set(inverse))
    deformable = fit.startswith("deformable")
    if len(matrices) != 1 or len(warps) != deformable or len(inverse) != deformable:
        raise RuntimeError(
            f"antsRegistration left {sorted(path.name for path in folder.iterdir())} "
            f"for the {fit} fit; one matrix{' and two fields' if deformable else ''} expected"
        )
    if not deformable:
        return Transform(fit.removesuffix("_first"), read_affine(matrices[0]))
    assert start is not None
    return Transform("deformable", np.asarray(start), read_warp(warps[0]), read_warp(inverse[0]))
