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

        `gl.choose_opengl()` must have run before anything imported dm_control.

        Raises:
            ValueError: the model has no such camera.
        """
        self._physics = physics
        self._id = camera_id(physics.model.ptr, camera)
        self._image_size = image_size
        self._open()

    def draw(self, out: np.ndarray) -> None:
        """Write the present picture into uint8 `out` (3, height, width)."""
        if self._model is not self._physics.model.ptr:
            self._open()  # a composer task compiles a new model for each episode
        out[:] = self._camera.render().transpose(2, 0, 1)

    def close(self) -> None:
        """Forget the camera; the context is the physics's own and ends with it."""
        del self._camera

    def _open(self) -> None:
        from dm_control.mujoco.engine import Camera

        self._model = self._physics.model.ptr
        self._camera = Camera(self._physics, *self._image_size, camera_id=self._id)
