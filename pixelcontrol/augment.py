"""Random shifts of images (paper, section 3.1), and the crops of CURL.

Departure: the paper speaks of bilinear interpolation. The official code's sampling grid always hits pixel
centres, so what it computes is a whole-pixel crop of the edge-padded image, to within 4e-3 of 255. We do that
crop exactly, as a gather of uint8 values.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


def shift(
    images: UInt8[Tensor, "batch channels height width"], offset: Int64[Tensor, "batch 2"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Move each image's window down by offset[:, 0] and right by offset[:, 1] pixels; edge pixels repeat."""
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) + offset[:, :1]).clamp_(0, height - 1)
    x = (torch.arange(width, device=images.device) + offset[:, 1:]).clamp_(0, width - 1)
    return _window(images, y, x)


def _window(
    images: UInt8[Tensor, "batch channels height width"],
    y: Int64[Tensor, "batch h"],
    x: Int64[Tensor, "batch w"],
) -> UInt8[Tensor, "batch channels h w"]:
    """Gather rows `y` and columns `x` of each image; whole rows first, which is a third of the work on a CPU."""
    batch, channels, height, width = images.shape
    plane = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    rows = images.reshape(-1, width).index_select(0, (plane * height + y[:, None]).flatten())
    columns = x[:, None, None].expand(-1, channels, y.shape[1], -1)
    return rows.view(batch, channels, -1, width).gather(3, columns)


def random_shift(
    images: UInt8[Tensor, "batch channels height width"], pad: int, generator: torch.Generator
) -> UInt8[Tensor, "batch channels height width"]:
    """Shift every sample by its own whole number of pixels, uniform in [-pad, pad] on both axes.

    All channels of a sample, which are one stack of images, move together. Where there is nothing to choose
    (`pad` is 0), nothing is drawn.
    """
    if pad == 0:
        return images
    offset = torch.randint(
        -pad, pad + 1, (images.shape[0], 2), generator=generator, device=images.device, dtype=torch.int64
    )
    return shift(images, offset)


def random_crop(
    images: UInt8[Tensor, "batch channels height width"], size: int, generator: torch.Generator
) -> UInt8[Tensor, "batch channels {size} {size}"]:
    """Cut a square window out of every sample, its place uniform over all places (CURL, section 4.2).

    All channels of a sample are cut at the same place. Where there is nothing to choose, nothing is drawn.

    Departure: the official code never draws the last place of either axis.
    """
    height, width = images.shape[2:]
    if height == width == size:
        return images
    top, left = (
        torch.randint(
            length - size + 1, (len(images), 1), generator=generator, device=images.device, dtype=torch.int64
        )
        for length in (height, width)
    )
    side = torch.arange(size, device=images.device)
    return _window(images, top + side, left + side)


def centre_crop(
    images: UInt8[Tensor, "batch channels height width"], size: int
) -> UInt8[Tensor, "batch channels {size} {size}"]:
    """Cut the middle square out of every sample."""
    top, left = ((length - size) // 2 for length in images.shape[2:])
    return images[:, :, top : top + size, left : left + size]
