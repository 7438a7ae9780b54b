"""The `warp` renderer: N worlds drawn by a few ray-tracing launches on the CPU or a CUDA device, no OpenGL.

The kernels (see `trace.py`) follow the rules by which MuJoCo's OpenGL renderer draws an `mjvScene`, so that a
policy sees the same picture from both.
"""

from __future__ import annotations

import numpy as np
import torch
import warp as wp
from jaxtyping import UInt8
from torch import Tensor

from pixelcontrol.envs.render import trace
from pixelcontrol.envs.render.scene import Scene

wp.config.quiet = True


class WarpRenderer:
    """Turns the payload rows of `Scene.pack` into images; see `pixelcontrol.types.Renderer`."""

    name = "warp"

    def __init__(self, scene: Scene, num_worlds: int, image_size: tuple[int, int], device: str) -> None:
        """Prepare to draw `num_worlds` images of `image_size` = (height, width) on torch `device`.

        The first renderer of a machine compiles the kernels, which takes some seconds; later ones load them.
        """
        self._device = torch.device(device)
        self._shape = (num_worlds, 3, *image_size)
        wp.init()
        with wp.ScopedDevice(str(self._device)):
            self._tracer = trace.Tracer(scene, num_worlds, image_size)
        self._rows = torch.zeros(num_worlds, scene.payload_size, device=self._device)
        if self._device.type == "cuda":
            self._staging = torch.zeros(num_worlds, scene.payload_size).pin_memory()
            self._copied = torch.cuda.Event()
            # Warp must not be given PyTorch's default stream: it is the legacy one, which nothing can capture.
            self._stream = torch.cuda.Stream(self._device)

    def images(self, payload: np.ndarray) -> UInt8[Tensor, "worlds 3 height width"]:
        """Draw float32 (num_worlds, scene.payload_size) rows. The result is a fresh tensor on `device`."""
        images = torch.empty(self._shape, dtype=torch.uint8, device=self._device)
        if self._device.type == "cpu":
            self._rows.copy_(torch.from_numpy(payload))
            self._tracer.draw(wp.from_torch(self._rows), wp.from_torch(images))
            return images

        self._copied.synchronize()  # the last copy has left the staging buffer
        self._staging.copy_(torch.from_numpy(payload))
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        side = wp.stream_from_torch(self._stream)
        with torch.cuda.stream(self._stream), wp.ScopedStream(side, sync_enter=False):
            self._rows.copy_(self._staging, non_blocking=True)
            self._copied.record()
            self._tracer.draw(wp.from_torch(self._rows), wp.from_torch(images))
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return images
