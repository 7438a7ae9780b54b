"""A user's own gymnasium environment as a `World`.

All of it, in an importable file `my_robot.py`; then `pixelcontrol train my_robot:make_world`::

    import gymnasium
    from pixelcontrol.envs.gymnasium import GymnasiumWorld

    def make_world(image_size, action_repeat):
        env = gymnasium.make("MyRobot-v0", render_mode="rgb_array")
        return GymnasiumWorld(env, image_size, action_repeat)

Where observations are a dictionary, `GymnasiumWorld(env, image_size, action_repeat, proprio="state")` gives the
agent its part "state" too, as a vector beside the images.

Unusual: a terminated episode has discount 0, a truncated one 1; an episode must repeat itself from its seed and
actions, which an environment does if it draws all randomness from its own `np_random`. One that cannot, such as a
real robot, says `repeats=False`: a resumed run then drops its last episode.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pixelcontrol.types import WorldSpec


class GymnasiumWorld:
    """One gymnasium environment that shows images and takes continuous actions.

    Images are its observations where these are uint8 with 3 channels, (height, width, 3) or (3, height, width),
    else what `render()` returns in mode "rgb_array". Images of another size than wanted are resized by averaging.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        image_size: tuple[int, int] = (84, 84),
        action_repeat: int = 1,
        *,
        proprio: str | None = None,
        repeats: bool = True,
    ) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            image_size: (height, width) of the images that the agent sees.
            action_repeat: frames per agent step.
            proprio: key of a Box in a Dict of observations, whose numbers are the proprioception; scale them to
                about unit size.
            repeats: False for a real robot, or whatever else does not repeat an episode from its seed and actions.

        Raises:
            ValueError: actions are not a flat box with finite bounds, or there are no images, or no such Box.
        """
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(f"actions must be a 1-dimensional Box with finite bounds, got {space}")
        seen = env.observation_space
        self._observes_images = (
            isinstance(seen, gymnasium.spaces.Box)
            and seen.dtype == np.uint8
            and len(seen.shape) == 3
            and 3 in (seen.shape[0], seen.shape[2])
        )
        if not self._observes_images and env.render_mode != "rgb_array":
            raise ValueError(
                f"no images: observations are {seen} and render_mode is {env.render_mode!r}; "
                f'make the environment with render_mode="rgb_array"'
            )
        self._repeats = repeats
        self._proprio, self._proprio_dim = proprio, 0
        if proprio is not None:
            sensed = seen.get(proprio) if isinstance(seen, gymnasium.spaces.Dict) else None
            if not isinstance(sensed, gymnasium.spaces.Box):
                raise ValueError(f"proprio is {proprio!r}, but observations have no Box of that name: {seen}")
            self._proprio_dim = gymnasium.spaces.flatdim(sensed)
        self._env = env
        self._image_size = image_size
        self._action_repeat = action_repeat
        self._low = space.low.astype(np.float64)
        self._half_range = (space.high.astype(np.float64) - self._low) / 2.0
        self._dtype = space.dtype
        self._observation: Any = None

    @cached_property
    def spec(self) -> WorldSpec:
        """See `pixelcontrol.types.WorldSpec`."""
        from pixelcontrol.types import WorldSpec  # It brings torch, which a worker process does without.

        return WorldSpec(
            action_dim=len(self._low),
            payload_shape=(3, *self._image_size),
            payload_dtype="uint8",
            action_repeat=self._action_repeat,
            episode_frames=self._env.spec.max_episode_steps if self._env.spec else None,
            repeats=self._repeats,
            proprio_dim=self._proprio_dim,
        )

    def reset(self, seed: int) -> None:
        """See `pixelcontrol.types.World`."""
        self._observation, _ = self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        """See `pixelcontrol.types.World`."""
        control = (self._low + self._half_range * (action.astype(np.float64) + 1.0)).astype(self._dtype)
        total = 0.0
        for _ in range(self._action_repeat):
            self._observation, reward, terminated, truncated, _ = self._env.step(control)
            total += float(reward)
            if terminated or truncated:
                return total, 0.0 if terminated else 1.0, True
        return total, 1.0, False

    def observe(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.World`.

        Raises:
            ValueError: the environment's picture is not uint8 with 3 channels.
        """
        picture = np.asarray(self._observation if self._observes_images else self._env.render())
        if picture.dtype != np.uint8 or picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]):
            raise ValueError(
                f"pictures must be uint8 (height, width, 3) or (3, height, width), "
                f"got {picture.dtype} {picture.shape}"
            )
        if picture.shape[2] != 3:
            picture = picture.transpose(1, 2, 0)
        height, width = self._image_size
        if picture.shape[:2] != (height, width):
            resized = Image.fromarray(np.ascontiguousarray(picture)).resize(
                (width, height), Image.Resampling.BOX
            )
            picture = np.asarray(resized)
        out[:] = picture.transpose(2, 0, 1)

    def sense(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.SensingWorld`."""
        out[:] = np.asarray(self._observation[self._proprio]).flatten()

    def close(self) -> None:
        """See `pixelcontrol.types.World`."""
        self._env.close()
