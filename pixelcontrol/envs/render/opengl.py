"""dm_control's own picture, the reference: one persistent OpenGL context, bit-identical to `physics.render`."""

from __future__ import annotations

from typing import Any

import numpy as np


class OpenGLRenderer:
    """Draws one dm_control world, in the process and thread that steps it."""

    def __init__(self, physics: Any, camera: int | str, image_size: tuple[int, int]) -> None:
        """Open a context for `image_size` = (height, width). Call `gl.choose_opengl()` before dm_control is imported."""
        raise NotImplementedError

    def draw(self, out: np.ndarray) -> None:
        """Write the present picture into uint8 `out` (3, height, width)."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the context."""
        raise NotImplementedError
