"""The `warp` renderer: N worlds drawn by one ray-tracing launch on the CPU or a CUDA device, no OpenGL."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from pixelcontrol.envs.render.scene import Scene


class WarpRenderer:
    """Turns the payload rows of `Scene.pack` into images; see `pixelcontrol.types.Renderer`."""

    name = "warp"

    def __init__(self, scene: Scene, num_worlds: int, image_size: tuple[int, int], device: str) -> None:
        """Prepare to draw `num_worlds` images of `image_size` = (height, width) on torch `device`."""
        raise NotImplementedError

    def images(self, payload: np.ndarray) -> UInt8[Tensor, "worlds 3 height width"]:
        """Draw float32 (num_worlds, scene.payload_size) rows. The result is a fresh tensor on `device`."""
        raise NotImplementedError
