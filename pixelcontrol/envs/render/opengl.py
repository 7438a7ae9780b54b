"""dm_control's own picture, the reference, bit for bit what `physics.render` returns.

`physics.render` sets up a scene, a camera and buffers for each picture, about 1 ms of Python. Here they stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelcontrol.envs.render.scene import camera_id


class OpenGLRenderer:
    """Draws one dm_control world, in the process and thread that steps it."""

    def __init__(self, physics: Any, camera: int | str, image_size: tuple[int, int]) -> None:
        """Get ready to draw images of `image_size` = (height, width).

        `gl.choose_opengl()` must have run before anything imported dm_control. A composer environment has a new
        `physics` for each episode, and needs a new renderer with it.

        Raises:
            ValueError: the model has no such camera.
        """
        from dm_control.mujoco.engine import Camera

        self._camera = Camera(physics, *image_size, camera_id=camera_id(physics.model.ptr, camera))

    def draw(self, out: np.ndarray) -> None:
        """Write the present picture into uint8 `out` (3, height, width)."""
        out[:] = self._camera.render().transpose(2, 0, 1)

    def close(self) -> None:
        """Forget the camera; the context is the physics's own and ends with it."""
        del self._camera
