"""Nothing to draw: images of worlds that have cameras of their own."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor


class PixelRenderer:
    """For worlds whose payload is the finished image: moves the images to the device.

    Attributes:
        name: who drew the images.
        image_shape: (channels, height, width).
    """

    def __init__(self, name: str, image_shape: tuple[int, int, int], device: str) -> None:
        """Move images drawn by `name` to torch `device`."""
        self.name = name
        self.image_shape = image_shape
        self._device = torch.device(device)
        self._staging = torch.empty(0, dtype=torch.uint8)

    def images(self, payload: np.ndarray) -> UInt8[Tensor, "worlds channels height width"]:
        """See `pixelcontrol.types.Renderer`."""
        images = torch.from_numpy(payload)
        if self._device.type == "cpu":
            return images.clone()
        if self._staging.shape != images.shape:
            self._staging = torch.empty_like(images).pin_memory()
            self._copied = torch.cuda.Event()
        self._copied.synchronize()  # the last copy has left the staging buffer
        self._staging.copy_(images)
        moved = self._staging.to(self._device, non_blocking=True)
        self._copied.record()
        return moved
