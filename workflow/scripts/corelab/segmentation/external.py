"""A program (container, nnU-Net, DeepISLES), a MeshNet of the user, or a network of Corelab's own.

Off unless the configuration lists it, never downloaded, never taken in place of the pipeline's own
mask: its result stands beside it as ``pipeline:<id>``. What made a mask is on record: the command,
the declared version and image digest, and the SHA-256 of every file (container, weights) named.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nipype.interfaces.base import (
    CommandLine,
    CommandLineInputSpec,
    File,
    InputMultiPath,
    TraitedSpec,
    traits,
)

from corelab.imaging import resample_to, same_grid
from corelab.learned.infarct import outlined_infarct
from corelab.provenance.places import own_weights
from corelab.provenance.products import file_sha256
from corelab.registration.nipype_backends import last_error
from corelab.segmentation.diffusion import apparent_diffusion
from corelab.segmentation.scans import Image, Mask, NotSegmentable
from corelab.segmentation.segmenter import Segmentation, Segmenter, check_grid
from corelab.settings.segmentation import ExternalProgram
from corelab.terms.plugins import registry

BRAIN = "brain.nii.gz"


class BackendError(RuntimeError):
    """The program that the configuration names cannot be started; no fault of the scans."""


class _ProgramInput(CommandLineInputSpec):  # type: ignore[misc]
    images = InputMultiPath(File(exists=True), mandatory=True, desc="NIfTI files that it reads")
    arguments = traits.List(traits.Str(), argstr="%s", position=0, desc="words of the command")
    mask_file = traits.Str(mandatory=True, desc="where it writes the mask, relative to its folder")


class _ProgramOutput(TraitedSpec):  # type: ignore[misc]
    mask = File(exists=True, desc="label image in the space of the images")


class SegmentationProgram(CommandLine):  # type: ignore[misc]
    """Nipype interface: images in, one label image out, in a folder of its own."""

    input_spec = _ProgramInput
    output_spec = _ProgramOutput

    def _list_outputs(self) -> dict[str, str]:
        folder = Path(self.inputs.images[0]).parents[0]
        return {"mask": str(folder / self.inputs.mask_file)}


class _Entry:
    """One entry of ``segmentation.external``, and voxel to world (RAS) of its images."""

    def __init__(self, backend: ExternalProgram, affine: np.ndarray) -> None:
        self.backend = backend
        self.affine = affine
        self.label: str = backend.label
        self.source = f"pipeline:{backend.id}"
        # Required by the schema, each for its kind.
        self.command, self.output = backend.command or (), backend.output or ""
        self.weights = backend.weights or ""

    def _segmentation(
        self,
        mask: Mask,
        voxel_size_mm: Sequence[float],
        parameters: ExternalProgram,
        quality: Mapping[str, Any],
    ) -> Segmentation:
        """The mask as a result; a program gives no limits of its volume."""
        volume_ml = float(mask.sum()) * float(np.prod(voxel_size_mm)) / 1000.0
        return Segmentation(
            label=self.label,
            source=self.source,
            mask=mask,
            volume_ml=volume_ml,
            volume_low_ml=volume_ml,
            volume_high_ml=volume_ml,
            parameters=parameters.plain(),
            quality=dict(quality),
        )


class ExternalSegmenter(_Entry):
    """A program (``command`` and ``output``) as a :class:`corelab.segmentation.Segmenter`."""

    def __call__(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: Sequence[float],
        parameters: ExternalProgram,
    ) -> Segmentation:
        """Run the program on images of one grid.

        Raises
        ------
        BackendError
            If the program, or a file of it, is missing.
        NotSegmentable
            If it ended with an error, or gave no usable mask: the scan's status.
        """
        voxel = check_grid(images, brain, voxel_size_mm)
        record = self._record()
        reference = nib.Nifti1Image(brain.astype(np.uint8), self.affine)
        with tempfile.TemporaryDirectory(prefix="corelab-") as name:
            folder = Path(name)
            paths = [
                _write(images[kind].astype(np.float32), self.affine, folder / file)
                for kind, file in self.backend.inputs.items()
            ]
            # First, since the interface takes its folder from it.
            paths.insert(0, _write(brain.astype(np.uint8), self.affine, folder / BRAIN))
            (folder / self.output).parent.mkdir(parents=True, exist_ok=True)
            self._run(folder, paths)
            mask = self._mask(folder / self.output, reference)
        return self._segmentation(mask, voxel, parameters, record)

    def _record(self) -> dict[str, Any]:
        """Record of program and files, taken before the run: a missing file stops here."""
        program = self.command[0]
        if shutil.which(program) is None:
            raise BackendError(
                f"segmentation.external '{self.backend.id}': the program {program} is not on "
                "the PATH; install it, or take the entry out of the configuration"
            )
        missing = [file for file in self.backend.files if not Path(file).is_file()]
        if missing:
            raise BackendError(
                f"segmentation.external '{self.backend.id}': {', '.join(missing)} is missing; "
                "nothing is ever downloaded, so put the container and the weights in place"
            )
        return {
            "program": program,
            "version": self.backend.version,
            "image_digest": self.backend.image_digest,
            "files_sha256": {
                Path(file).name: file_sha256(Path(file)) for file in self.backend.files
            },
        }

    def _run(self, folder: Path, paths: Sequence[Path]) -> None:
        words = [word.replace("{folder}", str(folder)) for word in self.command]
        node = SegmentationProgram(command=shlex.quote(words[0]))
        node.inputs.images = [str(path) for path in paths]
        node.inputs.arguments = [shlex.quote(word) for word in words[1:]]
        node.inputs.mask_file = self.output
        node.terminal_output = "file_split"
        try:
            node.run(cwd=str(folder))
        except (RuntimeError, FileNotFoundError) as error:
            reason = last_error(folder) or str(error).strip().splitlines()[-1]
            reason = reason.replace(str(folder), "{folder}")
            raise NotSegmentable(f"{self.backend.id} failed: {reason}") from error

    def _mask(self, path: Path, reference: nib.Nifti1Image) -> Mask:
        """The program's label image as a mask on the images' grid."""
        try:
            image: Any = nib.load(path)
            labels = np.asanyarray(image.dataobj)
        except (ImageFileError, OSError, EOFError, ValueError) as error:
            raise NotSegmentable(
                f"{self.backend.id} wrote no readable image to {self.output}"
            ) from error
        if labels.ndim != 3 or not np.isfinite(labels).all():
            raise NotSegmentable(
                f"{self.backend.id} wrote an image of shape {labels.shape}, or with values that "
                "are not finite, where a 3D label image is expected"
            )
        chosen = self.backend.label_values
        # Labels may be stored as 1.000015: whole numbers are meant.
        whole = np.rint(labels)
        mask = np.isin(whole, chosen) if chosen else whole > 0
        found = nib.Nifti1Image(mask.astype(np.uint8), image.affine)
        if not same_grid(found, reference):
            found = resample_to(found, reference, order=0)
        return np.asarray(found.dataobj) > 0


class MeshNetSegmenter(_Entry):
    """A network that is run here (kind ``meshnet``): ``weights`` and one kind of scan."""

    def __call__(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: Sequence[float],
        parameters: ExternalProgram,
    ) -> Segmentation:
        """Run the network on the image; what it outlines outside of the brain mask is kept.

        Raises
        ------
        BackendError
            If the weights cannot be used.
        """
        from corelab.imaging.meshnet import WeightsError, network_mask, read_meshnet

        voxel = check_grid(images, brain, voxel_size_mm)
        (kind,) = self.backend.inputs
        try:
            network = read_meshnet(self.weights)
        except WeightsError as error:
            raise BackendError(f"segmentation.external '{self.backend.id}': {error}") from error
        mask = network_mask(
            network,
            nib.Nifti1Image(images[kind].astype(np.float32), self.affine),
            kind,
            scaling=self.backend.scaling,
            label_values=self.backend.label_values,
        )
        quality = {**asdict(network.record), "version": self.backend.version}
        return self._segmentation(mask, voxel, parameters, quality)


class LearnedSegmenter(_Entry):
    """The network for infarcts that is part of Corelab (kind ``learned``)."""

    def __call__(
        self,
        images: Mapping[str, Image],
        brain: Mask,
        voxel_size_mm: Sequence[float],
        parameters: ExternalProgram,
    ) -> Segmentation:
        """Run the network; its limits enclose 90 % of simulated volumes."""
        voxel = check_grid(images, brain, voxel_size_mm)
        if not brain.any():
            raise NotSegmentable("the brain mask is empty")
        dwi, adc = images["dwi"], images.get("adc")
        if adc is None and "b0" in images:
            # Any b-value: the network takes the ADC in units of normal tissue's.
            adc = apparent_diffusion(images["b0"], dwi, 1000.0)
        try:
            made = outlined_infarct(dwi, adc, brain, self.affine)
        except ValueError as fault:
            raise NotSegmentable(str(fault)) from fault
        quality = {
            "weights_sha256": file_sha256(own_weights("infarct")),
            "flipped_dice": made.flipped_dice,
        }
        return replace(
            self._segmentation(made.mask, voxel, parameters, quality),
            volume_low_ml=made.low_ml,
            volume_high_ml=made.high_ml,
        )


def _write(values: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


#: Segmenters by ``kind`` of an entry of ``segmentation.external``: made of the entry and the affine
#: of its images.
SEGMENTERS: Mapping[str, Callable[[ExternalProgram, np.ndarray], Segmenter[ExternalProgram]]] = (
    registry(
        "segmenters",
        {"command": ExternalSegmenter, "meshnet": MeshNetSegmenter, "learned": LearnedSegmenter},
    )
)
