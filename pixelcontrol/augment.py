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
    images: UInt8[Tensor, "batch channels height width"], offset: Int64[Tensor, "batch 2"], pad: int
) -> UInt8[Tensor, "batch channels height width"]:
    """Move each image's window down by offset[:, 0] and right by offset[:, 1] pixels; edge pixels repeat.

    Args:
        images: to be seen through the windows.
        offset: in [-pad, pad] on both axes.
        pad: pixels.
    """
    height, width = images.shape[2:]
    left, right = (images[..., edge, None].expand(-1, -1, -1, pad) for edge in (0, -1))
    y = (torch.arange(height, device=images.device) + offset[:, :1]).clamp_(0, height - 1)
    return _window(torch.cat([left, images, right], dim=-1), y, offset[:, 1:] + pad, width)


def _window(
    images: UInt8[Tensor, "batch channels height width"],
    y: Int64[Tensor, "batch rows"],
    x: Int64[Tensor, "batch 1"],
    width: int,
) -> UInt8[Tensor, "batch channels rows {width}"]:
    """Cut `width` pixels from `x` on out of rows `y` of each image, each copied as one stretch of memory."""
    batch, channels, height, full_width = images.shape
    plane = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    start = (plane * height + y[:, None]) * full_width + x[:, None]
    stretches = images.contiguous().as_strided((images.numel() - width + 1, width), (1, 1))
    return stretches.index_select(0, start.flatten()).view(batch, channels, -1, width)


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
    return shift(images, offset, pad)


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
    return _window(images, top + torch.arange(size, device=images.device), left, size)


def centre_crop(
    images: UInt8[Tensor, "batch channels height width"], size: int
) -> UInt8[Tensor, "batch channels {size} {size}"]:
    """Cut the middle square out of every sample."""
    top, left = ((length - size) // 2 for length in images.shape[2:])
    return images[:, :, top : top + size, left : left + size]
