"""Random shifts of images (paper, section 3.1).

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
    """Move each image's window down by offset[:, 0] and right by offset[:, 1] pixels; edge pixels repeat.

    The result is laid out channels-last, which the convolutions want.
    """
    batch, _, height, width = images.shape
    device = images.device
    y = (torch.arange(height, device=device) + offset[:, :1]).clamp_(0, height - 1)
    x = (torch.arange(width, device=device) + offset[:, 1:]).clamp_(0, width - 1)
    index = torch.arange(batch, device=device)
    return images[index[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def random_shift(
    images: UInt8[Tensor, "batch channels height width"], pad: int, generator: torch.Generator
) -> UInt8[Tensor, "batch channels height width"]:
    """Shift every sample by its own whole number of pixels, uniform in [-pad, pad] on both axes.

    All channels of a sample, which are one stack of images, move together.
    """
    offset = torch.randint(
        -pad, pad + 1, (images.shape[0], 2), generator=generator, device=images.device, dtype=torch.int64
    )
    return shift(images, offset)
