"""The network as PyTorch trains it; :mod:`corelab.learned.unet` runs it without PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def folded(image: Tensor) -> Tensor:
    """Blocks of 2 x 2 x 2 voxels as channels: (b, c, x, y, z) to (b, 8 c, x/2, y/2, z/2)."""
    batch, c, x, y, z = image.shape
    parts = image.reshape(batch, c, x // 2, 2, y // 2, 2, z // 2, 2)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, 8 * c, x // 2, y // 2, z // 2)


def unfolded(image: Tensor) -> Tensor:
    """Inverse of :func:`folded`."""
    batch, c, x, y, z = image.shape
    parts = image.reshape(batch, c // 8, 2, 2, 2, x, y, z)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, c // 8, 2 * x, 2 * y, 2 * z)


class Block(nn.Module):
    """Convolution of 3 x 3 x 3, z score of each channel over the grid, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)
        self.activation = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """Features of the same size."""
        return self.activation(self.norm(self.convolution(image)))


class UNet(nn.Module):
    """A U-Net whose finest features have twice the voxel size of image and labels.

    Parameters
    ----------
    inputs, outputs
        Channels of image and classes.
    widths
        Channels of each level, from fine to coarse.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        before = 8 * inputs
        for width in widths:
            self.down.append(nn.Sequential(Block(before, width), Block(width, width)))
            before = width
        self.up = nn.ModuleList()
        for width in widths[-2::-1]:
            self.up.append(nn.Sequential(Block(before + width, width), Block(width, width)))
            before = width
        self.last = nn.Conv3d(before, 8 * outputs, 1)
        self.pool = nn.AvgPool3d(2)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of the classes, of the image's size."""
        state, kept = folded(image), []
        for number, step in enumerate(self.down):
            state = step(self.pool(state) if number else state)
            kept.append(state)
        for step, skip in zip(self.up, kept[-2::-1], strict=True):
            wider = interpolate(state, scale_factor=2, mode="nearest")
            state = step(torch.cat([wider, skip], 1))
        return unfolded(self.last(state))
