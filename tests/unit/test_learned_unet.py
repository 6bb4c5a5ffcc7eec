"""The network without PyTorch against a plain definition of each of its layers."""

import numpy as np
import pytest
from scipy import ndimage

from corelab.learned.unet import EPSILON, UNet, read_unet, scores

WIDTHS = (4, 6, 5)


def random_network(inputs=1, classes=2, widths=WIDTHS, seed=1):
    rng = np.random.default_rng(seed)
    weights = {}

    def block(name, before, width):
        for part, channels in enumerate((before, width)):
            key = f"{name}.{part}"
            weights[f"{key}.convolution.weight"] = rng.normal(0, 0.2, (width, channels, 3, 3, 3))
            weights[f"{key}.norm.weight"] = rng.uniform(0.5, 1.5, width)
            weights[f"{key}.norm.bias"] = rng.normal(0, 0.2, width)

    before = 8 * inputs
    for level, width in enumerate(widths):
        block(f"down.{level}", before, width)
        before = width
    for step, width in enumerate(widths[-2::-1]):
        block(f"up.{step}", before + width, width)
        before = width
    weights["last.weight"] = rng.normal(0, 0.3, (8 * classes, before, 1, 1, 1))
    weights["last.bias"] = rng.normal(0, 0.3, 8 * classes)
    return UNet({name: value.astype(np.float32) for name, value in weights.items()})


def plain_block(weights, name, state):
    """(channels, x, y, z), in float64 by scipy."""
    for part in (0, 1):
        kernel = weights[f"{name}.{part}.convolution.weight"].astype(float)
        state = np.stack(
            [
                sum(
                    ndimage.correlate(one, taps, mode="constant")
                    for one, taps in zip(state, row, strict=True)
                )
                for row in kernel
            ]
        )
        mean = state.mean(axis=(1, 2, 3), keepdims=True)
        spread = np.sqrt(state.var(axis=(1, 2, 3), keepdims=True) + EPSILON)
        gain, shift = (
            weights[f"{name}.{part}.norm.{key}"].astype(float)[:, None, None, None]
            for key in ("weight", "bias")
        )
        state = (state - mean) / spread * gain + shift
        state = np.where(state > 0, state, 0.1 * state)
    return state


def plain_scores(weights, image):
    places = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    state = np.stack([one[a::2, b::2, c::2] for one in image for a, b, c in places]).astype(float)
    kept = []
    for level in range(len(WIDTHS)):
        if level:
            state = np.mean([state[:, a::2, b::2, c::2] for a, b, c in places], axis=0)
        state = plain_block(weights, f"down.{level}", state)
        kept.append(state)
    for step, skip in enumerate(kept[-2::-1]):
        wider = np.kron(state, np.ones((1, 2, 2, 2)))
        state = plain_block(weights, f"up.{step}", np.concatenate([wider, skip]))
    last = weights["last.weight"][:, :, 0, 0, 0].astype(float)
    parts = np.tensordot(last, state, 1) + weights["last.bias"].astype(float)[:, None, None, None]
    out = np.empty((len(last) // 8, *image.shape[1:]))
    for number, part in enumerate(parts):
        a, b, c = places[number % 8]
        out[number // 8, a::2, b::2, c::2] = part
    return out


@pytest.mark.parametrize("inputs", [1, 2])
def test_scores_are_those_of_the_plain_layers(inputs):
    network = random_network(inputs)
    image = np.random.default_rng(2).random((inputs, 16, 24, 32)).astype(np.float32)
    found = scores(network, image)
    wanted = plain_scores(network.weights, image)
    assert found.shape == (2, 16, 24, 32)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_weights_are_read_as_written(tmp_path):
    network = random_network()
    half = {name: value.astype(np.float16) for name, value in network.weights.items()}
    np.savez(tmp_path / "weights.npz", **half)
    again = read_unet(tmp_path / "weights.npz")
    assert again.levels == len(WIDTHS)
    for name, value in half.items():
        assert again.weights[name].dtype == np.float32
        np.testing.assert_array_equal(again.weights[name], value.astype(np.float32))
