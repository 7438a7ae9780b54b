"""A tiny task in plain NumPy: move a red dot onto a green square. Learnable on one CPU core in seconds.

For tests and first experiments: it needs no physics and no renderer, and its pictures may be of any size.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pixelcontrol.types import WorldSpec

_FRAMES = 50
_MOVE = 0.1
"""Distance covered in one frame at full action; the field is 2 wide and 2 high."""


class ToyWorld:
    """A red dot in a square field, moved by a 2-dimensional action towards a green target.

    The reward of a frame is 1 - distance / 2, at least 0. Dot and target start uniformly at random; episodes
    end at a time limit of 50 frames. Mean returns: 26 at random, 29 standing still, 48 straight to the target.
    """

    def __init__(self, image_size: tuple[int, int] = (84, 84), action_repeat: int = 2) -> None:
        """Make a world that draws (height, width) images."""
        self._image_size = image_size
        self._action_repeat = action_repeat
        self._frame = 0
        self._dot = np.zeros(2)
        self._target = np.zeros(2)

    @cached_property
    def spec(self) -> WorldSpec:
        """See `pixelcontrol.types.WorldSpec`."""
        from pixelcontrol.types import WorldSpec  # It brings torch, which a worker process does without.

        return WorldSpec(
            action_dim=2,
            payload_shape=(3, *self._image_size),
            payload_dtype="uint8",
            action_repeat=self._action_repeat,
            episode_frames=_FRAMES,
            privileged_dim=4,
        )

    def reset(self, seed: int) -> None:
        """See `pixelcontrol.types.World`."""
        self._frame = 0
        self._dot, self._target = np.random.default_rng(seed).uniform(-0.8, 0.8, size=(2, 2))

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        """See `pixelcontrol.types.World`."""
        reward = 0.0
        for _ in range(min(self._action_repeat, _FRAMES - self._frame)):
            self._frame += 1
            self._dot = np.clip(self._dot + _MOVE * action.astype(np.float64), -1.0, 1.0)
            reward += max(0.0, 1.0 - float(np.linalg.norm(self._dot - self._target)) / 2.0)
        return reward, 1.0, self._frame == _FRAMES

    def observe(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.World`."""
        out[:] = 0
        height, width = self._image_size
        y, x = np.meshgrid(np.linspace(-1.2, 1.2, height), np.linspace(-1.2, 1.2, width), indexing="ij")
        out[1][np.maximum(abs(x - self._target[0]), abs(y - self._target[1])) < 0.2] = 255
        out[0][(x - self._dot[0]) ** 2 + (y - self._dot[1]) ** 2 < 0.2**2] = 255

    def disclose(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.DisclosingWorld`: where dot and target are."""
        out[:2], out[2:] = self._dot, self._target

    def close(self) -> None:
        """Nothing to release."""
