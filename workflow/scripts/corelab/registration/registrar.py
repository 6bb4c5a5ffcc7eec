"""The interface of registration, and what its backends share.

:mod:`corelab.registration.backends` lists the backends. A backend that is not installed is an
error with its remedy (:class:`BackendMissing`); no other backend takes its place.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np

from corelab.registration.presets import Preset
from corelab.registration.transforms import Affine, Step, Warp, write_affine, write_warp


class BackendMissing(RuntimeError):
    """The program behind a backend is not installed.

    Examples
    --------
    >>> str(BackendMissing("flirt", "the program flirt is not on the PATH", "install FSL"))
    'registration.backend flirt: the program flirt is not on the PATH. Remedy: install FSL'
    """

    def __init__(self, backend: str, reason: str, remedy: str) -> None:
        super().__init__(f"registration.backend {backend}: {reason}. Remedy: {remedy}")
        self.backend = backend
        self.remedy = remedy


class RegistrationFault(RuntimeError):
    """Two images that could not be registered: a status of that scan, with the reason.

    Examples
    --------
    >>> str(RegistrationFault("the moving image is empty"))
    'the moving image is empty'
    """


@dataclass(frozen=True)
class Transform:
    """Result of a registration of ``moving`` to ``fixed``.

    Attributes
    ----------
    kind
        ``rigid``, ``affine`` or ``deformable``.
    matrix
        4x4, RAS millimetres of fixed to RAS millimetres of moving (after the warp, if any).
    warp, inverse_warp
        Displacement fields in fixed space, or None: ``warp`` acts on a fixed point before the
        matrix, ``inverse_warp`` on a moving point after the inverted matrix.

    Examples
    --------
    >>> shift = np.eye(4); shift[0, 3] = 2
    >>> transform = Transform("rigid", shift)
    >>> [float(step(np.zeros((1, 3)))[0, 0]) for step in transform.to_fixed + transform.to_moving]
    [2.0, -2.0]
    """

    kind: str
    matrix: np.ndarray
    warp: Warp | None = None
    inverse_warp: Warp | None = None

    @property
    def to_fixed(self) -> list[Step]:
        """Steps that bring a moving image to fixed space (and fixed points to moving)."""
        return [*([self.warp] if self.warp else []), Affine(self.matrix)]

    @property
    def to_moving(self) -> list[Step]:
        """Steps that bring a fixed image to moving space (and moving points to fixed)."""
        inverse = [self.inverse_warp] if self.inverse_warp else []
        return [Affine(np.linalg.inv(self.matrix)), *inverse]

    def save(
        self, matrix: Path, warp: Path | None = None, inverse_warp: Path | None = None
    ) -> None:
        """Write the files: ``.mat`` for the matrix, ``.nii.gz`` for the fields."""
        write_affine(self.matrix, matrix)
        if self.warp is not None and warp is not None:
            write_warp(self.warp, warp)
        if self.inverse_warp is not None and inverse_warp is not None:
            write_warp(self.inverse_warp, inverse_warp)


@dataclass(frozen=True)
class Fit:
    """Request of one fit.

    Attributes
    ----------
    kind
        Name of its steps in the preset: ``rigid``, ``affine``, ``affine_first``, ``deformable`` or
        ``deformable_first``.
    fixed, moving, metric_mask, start
        As in :class:`Registrar`.

    Examples
    --------
    >>> Fit("deformable_first", None, None).is_deformable
    True
    """

    kind: str
    fixed: Any
    moving: Any
    metric_mask: Any = None
    start: np.ndarray | None = None

    @property
    def is_deformable(self) -> bool:
        """Whether it ends in a displacement field."""
        return self.kind.startswith("deformable")


class Registrar(ABC):
    """Registers two images that are prepared already (brain only, cropped, coarse enough).

    Parameters
    ----------
    preset
        What to do, see :mod:`corelab.registration.presets`.
    seed
        Of the optimiser's random numbers.

    Notes
    -----
    All methods take 3D images whose affine is free of shear, and return a :class:`Transform`.
    ``metric_mask`` lies on the grid of ``moving``: voxels that are 0 there are kept out of the
    metric. ``start`` is a 4x4 matrix (fixed to moving, RAS millimetres).
    The same images, preset and seed give the same bytes in every process.
    """

    name: ClassVar[str]

    def __init__(self, preset: Preset, seed: int = 1) -> None:
        reason = self.missing()
        if reason is not None:
            raise BackendMissing(self.name, *reason)
        self.preset = preset
        self.seed = seed

    @classmethod
    @abstractmethod
    def missing(cls) -> tuple[str, str] | None:
        """Reason why the backend cannot be used here, and the remedy; None if it can."""

    def rigid(
        self,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        *,
        metric_mask: nib.Nifti1Image | None = None,
        start: np.ndarray | None = None,
    ) -> Transform:
        """Rotation and translation."""
        return self._checked(Fit("rigid", fixed, moving, metric_mask, start))

    def affine(
        self,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        *,
        metric_mask: nib.Nifti1Image | None = None,
        start: np.ndarray | None = None,
        first_pass: bool = False,
    ) -> Transform:
        """Twelve parameters; ``first_pass`` requests the shorter fit before a deformable one."""
        kind = "affine_first" if first_pass else "affine"
        return self._checked(Fit(kind, fixed, moving, metric_mask, start))

    def deformable(
        self,
        fixed: nib.Nifti1Image,
        moving: nib.Nifti1Image,
        *,
        start: np.ndarray,
        metric_mask: nib.Nifti1Image | None = None,
        first_pass: bool = False,
    ) -> Transform:
        """Displacement field after the matrix ``start``, which is kept as it is.

        ``first_pass`` requests the short fit that precedes the filling of a lesion.
        """
        kind = "deformable_first" if first_pass else "deformable"
        return self._checked(Fit(kind, fixed, moving, metric_mask, start))

    def _checked(self, fit: Fit) -> Transform:
        check_images(fit.fixed, fit.moving)
        return self._fit(fit)

    @abstractmethod
    def _fit(self, fit: Fit) -> Transform:
        """One fit by the steps of the preset."""


def missing_module(module: str, package: str) -> tuple[str, str] | None:
    """Reason and remedy if a Python module is not installed, else None.

    Examples
    --------
    >>> missing_module("numpy", "numpy") is None
    True
    >>> missing_module("no_such_module", "no-such-package")
    ('the Python module no_such_module is not installed', 'pip install no-such-package')
    """
    if find_spec(module) is not None:
        return None
    return (f"the Python module {module} is not installed", f"pip install {package}")


def missing_program(program: str, remedy: str) -> tuple[str, str] | None:
    """Reason and remedy if a program is not on the PATH, else None.

    Examples
    --------
    >>> missing_program("no-such-program", "install it")
    ('the program no-such-program is not on the PATH', 'install it')
    """
    if shutil.which(program) is not None:
        return None
    return (f"the program {program} is not on the PATH", remedy)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Folder of this registration alone, removed with all that is in it.

    Examples
    --------
    >>> with private_folder() as folder:
    ...     there = folder.is_dir()
    >>> there, folder.exists()
    (True, False)
    """
    with tempfile.TemporaryDirectory(prefix="corelab-registration-") as folder:
        yield Path(folder)


def write_input(image: nib.Nifti1Image, path: Path) -> Path:
    """Write an image for an outside program: float32, qform equal to sform, both with code 1.

    ITK takes the qform when the sform's code is 2, so both must say the same.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((3, 3, 3)), np.diag([2.0, 2, 2, 1]))
    >>> with private_folder() as folder:
    ...     header = nib.load(write_input(image, folder / "a.nii")).header
    ...     int(header["qform_code"]), int(header["sform_code"])
    (1, 1)
    """
    data = np.asarray(image.dataobj, dtype=np.float32)
    written = nib.Nifti1Image(data, image.affine)
    written.set_qform(image.affine, 1)
    written.set_sform(image.affine, 1)
    written.header.set_xyzt_units("mm")
    path.write_bytes(written.to_bytes())
    return path


def check_images(fixed: Any, moving: Any) -> None:
    """Refuse what registers to nonsense in silence: empty, constant or flat images.

    Raises
    ------
    RegistrationFault
        With the image and what is wrong with it.

    Examples
    --------
    >>> flat = nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4))
    >>> check_images(flat, flat)
    Traceback (most recent call last):
    ...
    corelab.registration.registrar.RegistrationFault: the fixed image is constant (1)
    """
    for name, image in (("fixed", fixed), ("moving", moving)):
        data = np.asarray(image.dataobj)
        if data.ndim != 3 or min(data.shape) < 4:
            raise RegistrationFault(
                f"the {name} image has shape {data.shape}: registration needs 3 axes of 4 or more"
            )
        if not np.isfinite(data).all():
            raise RegistrationFault(f"the {name} image has values that are not finite")
        if data.max() == data.min():
            raise RegistrationFault(f"the {name} image is constant ({data.flat[0]:g})")
