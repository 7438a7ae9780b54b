"""What a picture of a dm_control world depends on: fixed things as arrays, moving things as one flat row.

Unusual: workers import this module and nothing heavier. It knows NumPy and MuJoCo, no torch, Warp or OpenGL.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Scene:
    """The drawable content of one task, as seen by one camera. Picklable; never edits the task's model.

    Attributes:
        payload_size: length of the float32 row that `pack` writes.
    """

    def __init__(self, physics: Any, camera: int | str) -> None:
        """Collect what is drawn.

        Args:
            physics: a dm_control `Physics` (suite or composer).
            camera: id or name of one of the model's cameras.

        Raises:
            ValueError: the model has no such camera.
        """
        raise NotImplementedError

    payload_size: int

    def pack(self, physics: Any, out: np.ndarray) -> None:
        """Write poses, sizes, colours, camera and lights of the present moment into float32 `out` (payload_size,).

        `physics` must come from the same task as the one given at construction; its data must be up to date
        with its state, as they are after a dm_control `env.reset()` or `env.step()`.
        """
        raise NotImplementedError
