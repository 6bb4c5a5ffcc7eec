"""A small U-Net without a deep-learning framework: one thread, the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.provenance.places import own_weights

Array = NDArray[np.float32]

#: Edge of the voxels that the networks work on, mm.
STEP_MM = 2.0

#: As in training: of the z score, and the slope of the activation below 0.
EPSILON, SLOPE = 1e-5, np.float32(0.1)


@dataclass(frozen=True, eq=False)
class UNet:
    """Weights by their names in training (``down.0.1.convolution.weight``), float32.

    Convolutions are (outputs, inputs, 3, 3, 3), the last one (outputs, inputs, 1, 1, 1).
    """

    weights: Mapping[str, Array]

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return 1 + max(int(name.split(".")[1]) for name in self.weights if name[:4] == "down")


def read_unet(path: str | Path) -> UNet:
    """Read the weights of a network (``.npz``)."""
    with np.load(path, allow_pickle=False) as stored:
        return UNet({name: stored[name].astype(np.float32) for name in stored.files})


@lru_cache(maxsize=2)
def shipped(task: str) -> UNet:
    """The network of a task that is part of Corelab."""
    return read_unet(own_weights(task))


def grid_around(middle: NDArray[np.float64], shape: tuple[int, int, int]) -> nib.Nifti1Image:
    """An empty grid of 2 mm, axes right, anterior and superior, around a place in mm.

    Examples
    --------
    >>> grid_around(np.zeros(3), (2, 2, 2)).affine[:3, 3].tolist()
    [-1.0, -1.0, -1.0]
    """
    affine = np.diag([STEP_MM, STEP_MM, STEP_MM, 1.0])
    affine[:3, 3] = middle - STEP_MM * (np.array(shape) - 1) / 2
    return nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)


def _folded(image: Array) -> Array:
    """Blocks of 2 x 2 x 2 voxels as channels: (x, y, z) to (x/2, 8, y/2, z/2), plane by plane."""
    c, x, y, z = image.shape
    parts = image.reshape(c, x // 2, 2, y // 2, 2, z // 2, 2)
    folded = parts.transpose(1, 0, 2, 4, 6, 3, 5).reshape(x // 2, 8 * c, y // 2, z // 2)
    return np.ascontiguousarray(folded)


def _unfolded(state: Array) -> Array:
    """Inverse of :func:`_folded`."""
    x, c, y, z = state.shape
    parts = state.reshape(x, c // 8, 2, 2, 2, y, z)
    return parts.transpose(1, 0, 2, 5, 3, 6, 4).reshape(c // 8, 2 * x, 2 * y, 2 * z)


def _convolved(state: Array, weights: Array) -> Array:
    """3 x 3 x 3 convolution of (x, channels, y, z) with zeros beyond the edge."""
    from corelab.imaging.meshnet_kernels import convolve, grouped

    own = grouped(weights.transpose(2, 3, 4, 1, 0))
    padded = np.pad(state, [(1, 1), (0, 0), (1, 1), (1, 1)])
    out = np.empty((len(state), len(weights), *state.shape[2:]), np.float32)
    for number, plane in enumerate(out):
        convolve((padded[number], padded[number + 1], padded[number + 2]), own, 1, plane)
    return out


def _block(network: UNet, name: str, state: Array) -> Array:
    """Two convolutions, each with a z score over the grid and a leaky ReLU."""
    for part in (0, 1):
        own = {key: network.weights[f"{name}.{part}.{key}"] for key in _PARTS}
        state = _convolved(state, own["convolution.weight"])
        mean = state.mean(axis=(0, 2, 3), dtype=np.float64)
        variance = np.square(state, dtype=np.float64).mean(axis=(0, 2, 3)) - mean**2
        factor = own["norm.weight"] / np.sqrt(np.maximum(variance, 0) + EPSILON)
        offset = own["norm.bias"] - mean * factor
        state *= factor.astype(np.float32)[:, None, None]
        state += offset.astype(np.float32)[:, None, None]
        np.maximum(state, SLOPE * state, out=state)
    return state


_PARTS = ("convolution.weight", "norm.weight", "norm.bias")


def _pooled(state: Array) -> Array:
    x, c, y, z = state.shape
    blocks = state.reshape(x // 2, 2, c, y // 2, 2, z // 2, 2)
    return blocks.mean(axis=(1, 4, 6), dtype=np.float32)


def _widened(state: Array) -> Array:
    return state.repeat(2, 0).repeat(2, 2).repeat(2, 3)


def scores(network: UNet, image: Array) -> Array:
    """Scores of the classes in every voxel.

    Parameters
    ----------
    network
        As read.
    image
        (channels, x, y, z), scaled; each axis a multiple of 2 to the power of the levels.

    Returns
    -------
    NDArray of float32
        (classes, x, y, z).
    """
    state, kept = _folded(image), []
    for level in range(network.levels):
        state = _block(network, f"down.{level}", _pooled(state) if level else state)
        kept.append(state)
    for step, skip in enumerate(reversed(kept[:-1])):
        state = _block(network, f"up.{step}", np.concatenate([_widened(state), skip], 1))
    last = network.weights["last.weight"][:, :, 0, 0, 0]
    out = np.zeros((len(state), len(last), *state.shape[2:]), np.float32)
    # A fixed order of additions instead of a matrix product, whose order depends on the processor.
    for number, column in enumerate(last.T):
        out += column[:, None, None] * state[:, number : number + 1]
    out += network.weights["last.bias"][:, None, None]
    return _unfolded(out)


def mirrored_logits(network: UNet, image: Array) -> tuple[Array, Array]:
    """Logit of the second class of two, from the image and from its mirror image.

    ``image`` as for :func:`scores`; its first axis runs from left to right. Both are on its grid.
    """
    straight = scores(network, image)
    other = scores(network, np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    return straight[1] - straight[0], other[1] - other[0]
