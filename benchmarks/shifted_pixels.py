"""A form of `forms.py`: stacking, shifting, casting and centring as one Warp kernel, straight from the ring."""

# Warp's types are calls, which mypy cannot read.
# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor

wp.config.log_level = wp.LOG_ERROR
wp.init()


@wp.kernel(enable_backward=False)
def _shifted_pixels(
    ring: wp.array4d(dtype=wp.uint8),
    stack: wp.array2d(dtype=wp.int64),
    offset: wp.array2d(dtype=wp.int64),
    out: wp.array4d(dtype=Any),
):
    sample, row, column = wp.tid()
    y = wp.clamp(row + int(offset[sample, 0]), 0, ring.shape[2] - 1)
    x = wp.clamp(column + int(offset[sample, 1]), 0, ring.shape[3] - 1)
    for image in range(stack.shape[1]):
        for channel in range(ring.shape[1]):
            pixel = float(ring[int(stack[sample, image]), channel, y, x])
            out[sample, row, column, image * ring.shape[1] + channel] = out.dtype(pixel - 127.5)


def shifted_pixels(ring: Tensor, stack: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Return centred (batch, channels, height, width) pixels, channels last, of the images at `stack`."""
    _, channels, height, width = ring.shape
    batch, images = stack.shape
    out = torch.empty(batch, height, width, images * channels, dtype=dtype, device=ring.device)
    # Warp may not be given PyTorch's default stream; the forms are warmed up and captured on others
    stream = wp.stream_from_torch(torch.cuda.current_stream()) if ring.is_cuda else None
    wp.launch(
        _shifted_pixels,
        dim=(batch, height, width),
        inputs=[wp.from_torch(part) for part in (ring, stack, offset, out)],
        device=str(ring.device),
        stream=stream,
    )
    return out.permute(0, 3, 1, 2)
