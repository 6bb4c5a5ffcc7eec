"""MeshNets that the user supplies: read a TensorFlow.js layers model and run it on one CPU.

A MeshNet is a chain of dilated 3 x 3 x 3 convolutions at full resolution (Fedorov 2017,
arXiv:1612.00940). The input is resampled to the network's grid (256^3 at 1 mm, axes left,
inferior, anterior) and scaled to 0 to 1. As in brainchop, a convolution whose name ends in ``_gn``
is followed by a z-score of each channel over the whole grid.

The layers are computed in place, on the head's box alone. Outside of the box each channel has the
value that the layers make of an empty image, in the convolution and in the z-score alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to
from corelab.imaging.values import CT_WINDOW_HU, scaled
from corelab.provenance.products import file_sha256
from corelab.study.models import known_model, model_files

SCALINGS = ("quantile", "minmax")
#: The head is where the mean of 5^3 voxels is above this share of the 98th percentile of the grid;
#: noise of a DWI lies below.
HEAD_ABOVE = 0.2
#: Voxels around the head that are computed too; with 16 the mask of a head differs by 0.5 %.
MARGIN = 16
#: Of the z-score, as in PyTorch's GroupNorm.
EPSILON = 1e-5
_ORIENTATION = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
#: Activations by their number in the kernels.
_CODES = {"linear": 0, "relu": 1, "elu": 2, "gelu": 3}


class WeightsError(RuntimeError):
    """A network that cannot be used: an error of the configuration, not of a scan."""


@dataclass(frozen=True)
class Layer:
    """One convolution with what follows it.

    Parameters
    ----------
    weights
        (3, 3, 3, input channels, output channels), float32.
    dilation
        In voxels.
    scale, shift
        Applied to each output channel (bias, folded batch normalisation).
    normalised
        Whether each channel is z-scored over the grid first.
    activation
        ``linear``, ``relu``, ``elu`` or ``gelu``.
    """

    weights: NDArray[np.float32]
    dilation: int
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    normalised: bool = False
    activation: str = "linear"


@dataclass(frozen=True)
class NetworkRecord:
    """Name and licence of known weights, and the SHA-256 of the files."""

    model: str
    licence: str | None
    files_sha256: Mapping[str, str]


@dataclass(frozen=True)
class MeshNet:
    """A network as read: its layers, its grid and what it came from."""

    layers: tuple[Layer, ...]
    shape: tuple[int, int, int]
    files_sha256: Mapping[str, str]

    @property
    def known(self) -> dict[str, str] | None:
        """Its row in the lock file, if its files are known."""
        return known_model(self.files_sha256)

    @property
    def record(self) -> NetworkRecord:
        """Record of the network for a mask that it made."""
        known: Mapping[str, str | None] = self.known or {"model": "unknown weights"}
        model, licence = known["model"], known.get("licence")
        return NetworkRecord(str(model), licence, dict(self.files_sha256))


# --- reading -----------------------------------------------------------------------------------


def read_meshnet(weights: str | Path) -> MeshNet:
    """Read a TensorFlow.js layers model that is a chain of 3D convolutions.

    Parameters
    ----------
    weights
        ``model.json``, or its folder; the weights file that it names lies beside it.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the network is not such a chain.

    Examples
    --------
    >>> read_meshnet("no/such/model.json")
    Traceback (most recent call last):
    ...
    corelab.imaging.meshnet.WeightsError: no/such/model.json: the file is missing
    """
    files = model_files(weights)
    for path in files:
        if not path.is_file():
            raise WeightsError(f"{path}: the file is missing")
    try:
        model = json.loads(files[0].read_text(encoding="utf-8"))
        values = _values(model["weightsManifest"], files[0].parent)
        topology = model["modelTopology"]
        config = topology.get("model_config", topology)["config"]
        entries = config["layers"] if isinstance(config, Mapping) else config
        layers, shape = _chain(entries, values)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WeightsError(
            f"{files[0]}: not a TensorFlow.js layers model that can be run "
            f"({type(error).__name__}: {error}); expected is a chain of Conv3D layers"
        ) from error
    return MeshNet(layers, shape, {path.name: file_sha256(path) for path in files})


def _values(manifest: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, NDArray[np.float32]]:
    """Arrays of the manifest by name; each group's files are one stream of little-endian floats."""
    found: dict[str, NDArray[np.float32]] = {}
    for group in manifest:
        stream = b"".join((folder / str(name)).read_bytes() for name in group["paths"])
        position = 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or entry.get("quantization"):
                raise ValueError(f"{entry['name']} is not stored as float32")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if position + 4 * count > len(stream):
                raise ValueError(f"the weights file ends before {entry['name']}")
            array = np.frombuffer(stream, "<f4", count, position).reshape(entry["shape"])
            if not np.isfinite(array).all():
                raise ValueError(f"{entry['name']} has values that are not finite")
            found[str(entry["name"])] = array
            position += 4 * count
        if position != len(stream):
            raise ValueError(f"the weights file has {len(stream) - position} bytes too many")
    return found


def _chain(
    entries: Sequence[Mapping[str, Any]], values: Mapping[str, NDArray[np.float32]]
) -> tuple[tuple[Layer, ...], tuple[int, int, int]]:
    """Layers and grid of a chain."""
    layers: list[Layer] = []
    shape, before = None, None
    for entry in entries:
        kind, config = str(entry["class_name"]), entry["config"]
        name = str(config["name"])
        nodes = entry.get("inbound_nodes")
        if nodes and before is not None and [link[0] for link in nodes[0]] != [before]:
            raise ValueError(f"layer {name} does not follow {before}: the network branches")
        before = name
        given = config.get("batch_input_shape")
        if given:
            shape = tuple(int(size) for size in given[1:4])
            if len(given) != 5 or given[4] != 1:
                raise ValueError(f"the input has the shape {given}; one channel is expected")
        if kind == "Conv3D":
            layers.append(_convolution(name, config, values))
        elif kind == "BatchNormalization" and layers and layers[-1].activation == "linear":
            layers[-1] = _with_batch_norm(layers[-1], name, config, values)
        elif kind in ("Activation", "ReLU", "ELU"):
            activation = str(config["activation"]) if kind == "Activation" else kind.lower()
            if layers[-1].activation != "linear":
                raise ValueError(f"{name} is a second activation")
            layers[-1] = replace(layers[-1], activation=activation)
        elif kind not in ("InputLayer", "Dropout", "SpatialDropout3D"):
            raise ValueError(f"layer {name} of type {kind} is not supported here")
    if shape is None or not layers:
        raise ValueError("there is no input shape or no convolution")
    # The label is the greatest output: a softmax at the end changes nothing.
    layers[-1] = replace(layers[-1], activation="linear")
    for layer, following in pairwise(layers):
        if layer.weights.shape[4] != following.weights.shape[3]:
            raise ValueError("the channels of two successive layers differ")
    unknown = {layer.activation for layer in layers} - set(_CODES)
    if unknown:
        raise ValueError(f"activation {', '.join(sorted(unknown))} is not supported")
    if layers[0].weights.shape[3] != 1 or layers[-1].weights.shape[4] < 2:
        raise ValueError("one input channel and two or more output classes are expected")
    return tuple(layers), (shape[0], shape[1], shape[2])


def _convolution(
    name: str, config: Mapping[str, Any], values: Mapping[str, NDArray[np.float32]]
) -> Layer:
    kernel = values[f"{name}/kernel"]
    size, dilation = list(config["kernel_size"]), list(config.get("dilation_rate") or [1, 1, 1])
    expected = (
        size in ([3, 3, 3], [1, 1, 1])
        and len(set(dilation)) == 1
        and list(config.get("strides") or [1, 1, 1]) == [1, 1, 1]
        and config.get("padding") == "same"
        and config.get("data_format", "channels_last") == "channels_last"
        and int(config.get("groups") or 1) == 1
    )
    if not expected or kernel.shape[:3] != tuple(size):
        raise ValueError(
            f"{name}: a convolution of 3 or 1 voxels, stride 1, padding same is expected"
        )
    if size == [1, 1, 1]:
        whole = np.zeros((3, 3, 3, *kernel.shape[3:]), np.float32)
        whole[1, 1, 1] = kernel[0, 0, 0]
        kernel, dilation = whole, [1, 1, 1]
    outputs = kernel.shape[4]
    bias = values[f"{name}/bias"] if config.get("use_bias") else np.zeros(outputs)
    return Layer(
        weights=kernel,
        dilation=int(dilation[0]),
        scale=np.ones(outputs),
        shift=bias.astype(np.float64),
        normalised=name.endswith("_gn"),
        activation=str(config.get("activation") or "linear"),
    )


def _with_batch_norm(
    layer: Layer,
    name: str,
    config: Mapping[str, Any],
    values: Mapping[str, NDArray[np.float32]],
) -> Layer:
    """A convolution with the batch normalisation that follows it."""
    one, zero = np.ones_like(layer.scale), np.zeros_like(layer.shift)
    gamma = values[f"{name}/gamma"] if config.get("scale", True) else one
    beta = values[f"{name}/beta"] if config.get("center", True) else zero
    mean = values[f"{name}/moving_mean"].astype(np.float64)
    spread = np.sqrt(values[f"{name}/moving_variance"].astype(np.float64) + config["epsilon"])
    factor = gamma / spread
    return replace(layer, scale=layer.scale * factor, shift=(layer.shift - mean) * factor + beta)


# --- running -----------------------------------------------------------------------------------


def predict(
    network: MeshNet, volume: NDArray[np.float32], box: tuple[slice, slice, slice]
) -> NDArray[np.uint8]:
    """Label of each voxel: the class with the greatest output.

    Parameters
    ----------
    network
        As read.
    volume
        Scaled image on the network's grid; 0 is background.
    box
        Part of the grid that is computed; the rest is taken for empty and labelled 0.

    Returns
    -------
    NDArray of uint8
        On the whole grid.

    Notes
    -----
    Memory: 4 bytes per voxel of the box and channel of the widest layer but the last, plus a few
    planes. Each plane is overwritten as soon as no other plane needs it: planes are taken in steps
    of the dilation, and copies of the last two are kept.
    """
    from corelab.imaging.meshnet_kernels import activate, convolve, grouped, moments

    inside = np.ascontiguousarray(volume[box], dtype=np.float32)
    depth, rows, columns = inside.shape
    widest = max([layer.weights.shape[4] for layer in network.layers[:-1]], default=1)
    state = np.empty((depth, widest, rows, columns), np.float32)
    source, channels, code = inside[:, None], 1, _CODES["linear"]
    scale, shift, empty = np.ones(1, np.float32), np.zeros(1, np.float32), np.zeros(1)
    labels = np.zeros(volume.shape, np.uint8)
    for number, layer in enumerate(network.layers):
        last = number == len(network.layers) - 1
        outputs, step = layer.weights.shape[4], layer.dilation
        weights = grouped(layer.weights)
        total = np.zeros((outputs, 2))
        result = np.empty((outputs, rows, columns), np.float32)
        beyond, nothing = _surroundings(empty, box, volume.shape, step)
        for first in range(min(step, depth)):
            before, here, after = beyond.copy(), beyond.copy(), beyond.copy()
            above = beyond if box[0].start + first - step >= 0 else nothing
            activate(source[first, :channels], scale, shift, code, here, step)
            for z in range(first, depth, step):
                if z + step < depth:
                    activate(source[z + step, :channels], scale, shift, code, after, step)
                    below = after
                else:
                    below = beyond if box[0].start + z + step < volume.shape[0] else nothing
                out = result if last else state[z, :outputs]
                convolve((above, here, below), weights, step, out)
                if last:
                    score = out * layer.scale[:, None, None] + layer.shift[:, None, None]
                    labels[box][z] = score.argmax(0)
                elif layer.normalised:
                    moments(out, total)
                before, here, after = here, after, before
                above = before
        if not last:
            raw = empty @ layer.weights.sum((0, 1, 2), dtype=np.float64)
            factor, offset = _pointwise(layer, total, raw, volume.size, inside.size)
            empty = _activated(raw * factor + offset, layer.activation)
            scale, shift = factor.astype(np.float32), offset.astype(np.float32)
            source, channels, code = state, outputs, _CODES[layer.activation]
    return labels


def _surroundings(
    empty: NDArray[np.float64],
    box: tuple[slice, slice, slice],
    shape: tuple[int, ...],
    step: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Padded planes outside of the box: within the grid ``empty``, beyond the grid 0; and 0."""
    within = [
        (np.arange(part.start - step, part.stop + step) >= 0)
        & (np.arange(part.start - step, part.stop + step) < size)
        for part, size in zip(box[1:], shape[1:], strict=True)
    ]
    plane = (within[0][:, None] & within[1][None])[None] * empty[:, None, None]
    beyond = plane.astype(np.float32)
    return beyond, np.zeros_like(beyond)


def _pointwise(
    layer: Layer,
    total: NDArray[np.float64],
    raw: NDArray[np.float64],
    voxels: int,
    inside: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift of each channel; the z-score is over the whole grid, the box and the rest."""
    if not layer.normalised:
        return layer.scale, layer.shift
    outside = voxels - inside
    mean = (total[:, 0] + outside * raw) / voxels
    variance = np.maximum((total[:, 1] + outside * raw**2) / voxels - mean**2, 0.0)
    # A bias before a z-score has no effect.
    factor = layer.scale / np.sqrt(variance + EPSILON)
    return factor, -mean * factor


def _activated(values: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    from corelab.imaging.meshnet_kernels import activate

    count = len(values)
    out = np.empty((count, 1, 1), np.float32)
    one = np.ones(count, np.float32)
    raw = values.astype(np.float32)[:, None, None]
    activate(raw, one, 0 * one, _CODES[activation], out, 0)
    return out[:, 0, 0].astype(np.float64)


# --- images ------------------------------------------------------------------------------------


def network_mask(
    network: MeshNet,
    image: Any,
    kind: str,
    *,
    scaling: str | None = None,
    label_values: Sequence[int] | None = None,
) -> NDArray[np.bool_]:
    """Mask of an image by a network, on the image's own grid.

    Parameters
    ----------
    network
        As read.
    image
        3D, or 4D (the mean over time is used), in any orientation.
    kind
        Kind of scan; CT (``ncct``, ``ctp``) is clipped to -100 to 300 HU.
    scaling
        ``quantile`` (2 to 98 % of the grid) or ``minmax``; default: what the lock file says of
        the weights, else ``quantile``.
    label_values
        Classes that count; default: all above 0.

    Returns
    -------
    NDArray of bool
        Shape of the image's first three axes. Empty for an image without contrast.

    Raises
    ------
    ValueError
        If ``scaling`` is unknown.
    """
    scaling = scaling or (network.known or {}).get("scaling") or "quantile"
    if scaling not in SCALINGS:
        raise ValueError(f"scaling is '{scaling}'; known are {', '.join(SCALINGS)}")
    values = np.asarray(image.dataobj, dtype=np.float32)
    if values.ndim == 4:
        values = values.mean(axis=3, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if kind in ("ncct", "ctp"):
        # Zero is air: what lies outside of the image is filled with it.
        values = np.clip(values, *CT_WINDOW_HU) - np.float32(CT_WINDOW_HU[0])
    grid = nib.Nifti1Image(np.broadcast_to(np.uint8(0), network.shape), _grid(image, network.shape))
    moved = resample_to(nib.Nifti1Image(values, image.affine), grid, order=1)
    volume = scaled(np.asarray(moved.dataobj), scaling)
    box = head_box(volume)
    if box is None:
        return np.zeros(image.shape[:3], bool)
    labels = predict(network, volume, box)
    chosen = labels > 0 if label_values is None else np.isin(labels, label_values)
    on_grid = nib.Nifti1Image(chosen.astype(np.float32), grid.affine)
    native = nib.Nifti1Image(np.broadcast_to(np.uint8(0), image.shape[:3]), image.affine)
    return np.asarray(resample_to(on_grid, native, order=1).dataobj) > 0.5


def _grid(image: Any, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Voxel to world of the network's grid: 1 mm, centred on the image; its top where it is longer.

    An image that ends below the neck would otherwise push the vertex out of the grid.
    """
    size = np.array(image.shape[:3])
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in size])).reshape(3, -1).T
    world = nib.affines.apply_affine(image.affine, corners)
    low, high = world.min(0), world.max(0)
    centre = nib.affines.apply_affine(image.affine, (size - 1) / 2)
    tall = float(shape[1])
    if high[2] - low[2] > tall:
        centre[2] = high[2] - tall / 2
    affine = np.eye(4)
    affine[:3, :3] = _ORIENTATION
    affine[:3, 3] = centre - _ORIENTATION @ ((np.array(shape) - 1) / 2)
    return affine


def head_box(volume: NDArray[np.float32]) -> tuple[slice, slice, slice] | None:
    """Box of a scaled image's head with a margin; None if there is nothing in the image.

    The last axis, along which the kernel works, is a multiple of 16 voxels where there is space.

    Examples
    --------
    >>> volume = np.zeros((96, 96, 96), np.float32)
    >>> volume[40:60, 40:60, 40:60] = 1
    >>> [(part.start, part.stop) for part in head_box(volume)]
    [(23, 77), (23, 77), (23, 87)]
    """
    from scipy import ndimage

    bright = float(np.quantile(volume, 0.98)) or float(volume.max())
    if bright <= 0:
        return None
    head = ndimage.uniform_filter(volume, 5, mode="constant") > HEAD_ABOVE * bright
    if not head.any():
        return None
    box = []
    for axis, size in enumerate(volume.shape):
        there = np.flatnonzero(head.any(tuple(other for other in range(3) if other != axis)))
        start, stop = max(0, int(there[0]) - MARGIN), min(size, int(there[-1]) + 1 + MARGIN)
        if axis == 2:
            length = min(size, -(-(stop - start) // 16) * 16)
            start = min(start, size - length)
            stop = start + length
        box.append(slice(start, stop))
    return box[0], box[1], box[2]
