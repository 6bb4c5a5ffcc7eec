"""The engines on a graphics card, by PyTorch or CuPy where one of them is installed.

The same sums as the compiled loops, for many voxels at once. Only what both libraries and NumPy
spell alike is used, so that one text serves all three, and NumPy itself can stand in for a card in
a test. Nothing here is imported unless ``device: cuda`` is requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Voxels at a time: the largest array of the Bayesian engine is then 150 MB.
CHUNK = 16384


class DeviceError(RuntimeError):
    """The requested device is missing; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """An array library, and the way to it and back.

    Attributes
    ----------
    name
        Library and card, for the record.
    put, take
        From a NumPy array to the device and back.
    """

    name: str
    xp: Any
    put: Callable[[np.ndarray], Any]
    take: Callable[[Any], np.ndarray]


def find_device(name: str) -> Device | None:
    """The device of a configuration: None for ``cpu`` (the compiled loops).

    ``cuda``: CuPy, else PyTorch, with a card that answers; :class:`DeviceError` if there is none.
    Another device is never taken instead.

    Examples
    --------
    >>> find_device("cpu") is None
    True
    """
    if name == "cpu":
        return None
    if name != "cuda":
        raise DeviceError(f"unknown device '{name}'; known: cpu, cuda")
    why = []
    for finder in (_cupy, _torch):
        try:
            return finder()
        except Exception as error:  # an absent library, driver or card says so in many ways
            why.append(f"{finder.__name__.strip('_')}: {str(error).splitlines()[0]}")
    raise DeviceError(
        "perfusion.device is cuda, but no graphics card can be used (" + "; ".join(why) + "). "
        "Install CuPy or PyTorch for your CUDA version and check that the card is visible to the "
        "job, or set perfusion.device to cpu, which gives the same maps"
    )


def _cupy() -> Device:
    import cupy  # type: ignore[import-not-found]

    card = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return Device(f"CuPy {cupy.__version__} on {card}", cupy, cupy.asarray, cupy.asnumpy)


def _torch() -> Device:
    import torch  # type: ignore[import-not-found]

    if not torch.cuda.is_available():
        raise DeviceError("PyTorch is installed, but sees no CUDA device")
    name = f"PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}"
    return _torch_device(torch, "cuda", name)


def _torch_device(torch: Any, where: str, name: str) -> Device:
    """PyTorch on one of its devices (``cuda``, or ``cpu`` in tests), at full float32 precision."""
    torch.backends.cuda.matmul.allow_tf32 = False

    def put(array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array)).to(where)

    return Device(name, torch, put, lambda array: array.cpu().numpy())


def _numpy_device() -> Device:
    """NumPy in place of a card, for tests."""
    return Device("NumPy", np, np.asarray, np.asarray)


def _chunks(curves: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(curves), CHUNK):
        part = slice(start, min(start + CHUNK, len(curves)))
        yield part, np.ascontiguousarray(curves[part], dtype=np.float32)


def _peak(device: Device, residue: Any, wrap: bool) -> tuple[Any, Any]:
    """Height and position (in frames, by parabola) of the highest sample of each row."""
    xp = device.xp
    n = residue.shape[1]
    rows = device.put(n * np.arange(residue.shape[0]))
    flat = residue.reshape(-1)
    top = xp.argmax(residue, axis=1)
    height = flat[rows + top]
    before, after = flat[rows + (top - 1) % n], flat[rows + (top + 1) % n]
    curvature = before - 2.0 * height + after
    bent = xp.abs(curvature) > 1e-12
    if not wrap:
        bent = bent & (top > 0) & (top < n - 1)
    shift = 0.5 * (before - after) / xp.where(bent, curvature, xp.ones_like(curvature))
    position = top + xp.where(bent, xp.clip(shift, -0.5, 0.5), xp.zeros_like(shift))
    if wrap:
        position = xp.where(position > n / 2.0, position - n, position)
    return height, position


def linear(
    device: Device, curves: np.ndarray, operator: np.ndarray, wrap: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Height and position (frames) of the peak of ``curves @ operator``."""
    height, position = np.zeros(len(curves), np.float32), np.zeros(len(curves), np.float32)
    matrix = device.put(operator.astype(np.float32))
    for part, block in _chunks(curves):
        top, at = _peak(device, device.put(block) @ matrix, wrap)
        height[part], position[part] = device.take(top), device.take(at)
    return height, position


def oscillation(
    device: Device,
    curves: np.ndarray,
    analysis: np.ndarray,
    synthesis: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height, position (frames) and level of oscillation-limited residues.

    As :func:`corelab.perfusion.kernels.oscillation`.
    """
    xp = device.xp
    height, position = np.zeros(len(curves), np.float32), np.zeros(len(curves), np.float32)
    level_used = np.zeros(len(curves), np.int32)
    forward = device.put(analysis.astype(np.float32))
    back = device.put(synthesis.astype(np.float32))
    length = synthesis.shape[1]
    for part, block in _chunks(curves):
        amplitude = device.put(block) @ forward
        used = int(counts[0])
        residue = amplitude[:, :used] @ back[:used]
        timed, high = residue, xp.amax(residue, axis=1)
        at_level = xp.zeros_like(high)
        for level in range(1, len(counts)):
            count = int(counts[level])
            if count == used:
                continue
            residue = residue + amplitude[:, used:count] @ back[used:count]
            used = count
            top = xp.amax(residue, axis=1)
            bend = residue[:, 2:] - 2.0 * residue[:, 1:-1] + residue[:, :-2]
            rough = xp.sum(xp.abs(bend), axis=1) / length
            smooth = (top > 0.0) & (rough < float(limits[0]) * top)
            steady = (top > 0.0) & (rough < float(limits[1]) * top)
            high = xp.where(smooth, top, high)
            at_level = xp.where(smooth, xp.zeros_like(top) + float(level), at_level)
            timed = xp.where(steady[:, None], residue, timed)
        height[part] = device.take(high)
        position[part] = device.take(_peak(device, timed, True)[1])
        level_used[part] = device.take(at_level)
    return height, position, level_used


def posterior(
    device: Device,
    curves: np.ndarray,
    atoms: np.ndarray,
    transit: np.ndarray,
    delays: np.ndarray,
    unit: np.ndarray,
    alive: np.ndarray,
    sigma: float,
    freedom: float,
) -> np.ndarray:
    """Posterior means and SDs, (v, 10), as :func:`corelab.perfusion.kernels.posterior`."""
    xp = device.xp
    out = np.zeros((len(curves), 10), np.float32)
    shapes, late = device.put(atoms), device.put(delays)
    units, there, mtt = device.put(unit), device.put(alive), device.put(transit)
    for part, block in _chunks(curves):
        on_card = device.put(block)
        match = xp.clip(on_card @ shapes, 0.0, None).reshape(len(block), *unit.shape)
        peaks = xp.amax(match, axis=2)
        best = xp.amax(peaks, axis=1)[:, None, None]
        energy = xp.sum(on_card * on_card, axis=1)[:, None, None]
        variance = xp.clip((energy - best * best) / freedom, sigma * sigma, None)
        hp = 0.5 / variance
        likely = (peaks * peaks >= best[:, :, 0] ** 2 - 12.0 / hp[:, :, 0])[:, :, None]
        weight = xp.exp((match - best) * (match + best) * hp) * there * likely
        area = match * units

        def total(values: Any, of: Any = weight) -> Any:
            return xp.sum(of * values, axis=2, dtype=xp.float64)

        ones, d, d2 = total(1.0), total(late), total(late * late)
        a, a2 = total(area), total(area * area + variance * units**2)
        sums = [
            ones, a, ones * mtt, d, d + 0.5 * mtt * ones, a / mtt,
            a2, ones * mtt**2, d2, d2 + mtt * d + 0.25 * mtt**2 * ones, a2 / mtt**2,
        ]  # fmt: skip
        n, *moments = (device.take(xp.sum(term, axis=1)) for term in sums)
        area_mean, mtt_mean, delay_mean, tmax_mean, flow_mean = (m / n for m in moments[:5])
        means = (area_mean, mtt_mean, delay_mean, tmax_mean, flow_mean)
        spreads = [
            np.sqrt(np.maximum(square / n - mean**2, 0.0))
            for square, mean in zip(moments[5:], means, strict=True)
        ]
        flow = area_mean / mtt_mean
        columns = [area_mean, mtt_mean, delay_mean, tmax_mean, flow, *spreads]
        out[part] = np.column_stack(columns)
    return out
