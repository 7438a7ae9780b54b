"""dm_control's own picture, the reference, bit for bit what `physics.render` returns.

`physics.render` sets up a scene, a camera and buffers for each picture, about 1 ms of Python. Here they stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelcontrol.envs.render.scene import camera_ids
from pixelcontrol.envs.tasks import Cameras


class OpenGLRenderer:
    """Draws one dm_control world, in the process and thread that steps it."""

    def __init__(
        self, physics: Any, camera: Cameras, image_size: tuple[int, int], depth: float = 0.0
    ) -> None:
        """Get ready to draw images of `image_size` = (height, width); `camera` and `depth` as `Scene` takes them.

        `gl.choose_opengl()` must have run before anything imported dm_control. A composer environment has a new
        `physics` for each episode, and needs a new renderer with it.

        Raises:
            ValueError: the model has no such camera.
        """
        from dm_control.mujoco.engine import Camera

        ids = camera_ids(physics.model.ptr, camera)
        self._cameras = [Camera(physics, *image_size, camera_id=one) for one in ids]
        self._depth = depth

    def draw(self, out: np.ndarray) -> None:
        """Write the present picture into uint8 `out` (channels, height, width)."""
        for camera, part in zip(self._cameras, np.split(out, len(self._cameras)), strict=True):
            part[:3] = camera.render().transpose(2, 0, 1)
            if self._depth > 0:
                part[3] = np.rint(255 * np.minimum(camera.render(depth=True) / self._depth, 1))

    def close(self) -> None:
        """Forget the cameras; the context is the physics's own and ends with it."""
        self._cameras = []
