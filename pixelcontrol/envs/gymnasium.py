"""A user's own gymnasium environment as a `World`.

All of it, in an importable file `my_robot.py`; then `pixelcontrol train my_robot:make_world`::

    import gymnasium
    from pixelcontrol.envs.gymnasium import GymnasiumWorld

    def make_world(image_size, action_repeat):
        env = gymnasium.make("MyRobot-v0", render_mode="rgb_array")
        return GymnasiumWorld(env, image_size, action_repeat)

Where observations are a dictionary, `GymnasiumWorld(env, image_size, action_repeat, images=("front", "wrist"),
proprio="state")` gives the agent the images of two cameras, and its part "state" too, as a vector beside them.

Unusual: a terminated episode has discount 0, a truncated one 1; an episode must repeat itself from its seed and
actions, which an environment does if it draws all randomness from its own `np_random`. One that cannot, such as a
real robot, says `repeats=False`: a resumed run then drops its last episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from PIL import Image

from pixelcontrol.envs.user import in_brief, in_words, number, part_of, sizes_of, write_numbers
from pixelcontrol.errors import WorldMistake

if TYPE_CHECKING:
    from pixelcontrol.types import WorldSpec

_WHOLE = "observation"  # the name of an observation that is no Dict
# spaces of observations that are numbers; with Discrete a number of which
_ARRAYS = (
    gymnasium.spaces.Box, gymnasium.spaces.MultiBinary, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.Discrete
)  # fmt: skip
_PICTURE = "a uint8 Box (height, width, 3) or (3, height, width)"
_RETURNS = {
    "reset": ("observation", "info"),
    "step": ("observation", "reward", "terminated (a true end)", "truncated (a time limit)", "info"),
}


class GymnasiumWorld:
    """One gymnasium environment that shows images and takes continuous actions.

    Images are those parts of its observations that are asked for; else its observations where these are pictures;
    else what `render()` returns in mode "rgb_array". A picture is uint8 with 3 channels, (height, width, 3) or
    (3, height, width); one of another size than wanted is resized by averaging.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        image_size: tuple[int, int] = (84, 84),
        action_repeat: int = 1,
        *,
        images: str | Sequence[str] = (),
        proprio: str | Sequence[str] = (),
        privileged: bool | str | Sequence[str] = False,
        success: str | None = None,
        repeats: bool = True,
    ) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            image_size: (height, width) of the images that the agent sees.
            action_repeat: frames per agent step.
            images: keys, or one, of pictures in a Dict of observations, one for each camera; they lie behind one
                another along the channels. Without it such pictures are not looked at.
            proprio: keys, or one, of parts of a Dict of observations, whose numbers are the proprioception, one
                part behind another; "observation" where observations are one Box.
            privileged: keys, or one, of parts that an agent which can make use of it learns with: a simulator's
                state; True for all that are no pictures, of fewer than three dimensions.
            success: key of `info` that says whether the task is achieved, such as "is_success" or "success", at
                every frame or at the last; an episode is a success if it once was so. Rates of success stand
                beside returns then.
            repeats: False for a real robot: it does not repeat an episode from its seed and actions, and there is
                one, so that no second one is opened beside it.

        Raises:
            ValueError: actions are not a flat box with finite bounds, or there are no such images, or no such
                part that is an array of numbers.
        """
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            made_one = "; gymnasium.wrappers.TransformAction(env, to_its_own, Box(-1, 1, (n,))) makes it one"
            raise ValueError(
                f"actions must be a 1-dimensional Box with finite bounds, got {space}"
                + (made_one if isinstance(space, gymnasium.spaces.Box) else "")
            )
        seen = env.observation_space
        parts = seen.spaces if isinstance(seen, gymnasium.spaces.Dict) else {}
        boxes = {
            name: part.shape
            for name, part in (parts or {_WHOLE: seen}).items()
            if isinstance(part, _ARRAYS) and part.shape is not None
        }
        self._proprio_sizes, self._privileged_sizes = sizes_of(boxes, proprio, privileged)
        self._images = (images,) if isinstance(images, str) else tuple(images)
        for name in self._images:
            if not _is_picture(parts.get(name)):
                raise ValueError(
                    f"images has {name!r}, which must be {_PICTURE} in a Dict of observations; they are {seen}"
                )
        self._is_dict = bool(parts)
        self._observes_images = _is_picture(seen)
        if self._images:
            self._pictures = [repr(name) for name in self._images]
        elif self._observes_images:
            self._pictures = ["what is observed"]
        elif env.render_mode == "rgb_array":
            # grey or in floats it may be meant to be seen
            unseen = [
                name for name, shape in boxes.items() if len(shape) > 1 and name not in self._proprio_sizes
            ]
            not_of = f" (and not of {', '.join(map(repr, sorted(unseen)))})" if unseen else ""
            self._pictures = [f"what render() shows{not_of}"]
        else:
            shown = f"name pictures among {', '.join(parts)} by images=(...), or " if parts else ""
            raise ValueError(
                f"no images: observations are {'a Dict' if parts else seen}, where {_PICTURE} is wanted, and "
                f'render_mode is {env.render_mode!r}; {shown}make the environment with render_mode="rgb_array"'
            )
        self._repeats = repeats
        self._success = success
        self._told = self.success = False
        self._env = env
        self._image_size = image_size
        self._action_repeat = action_repeat
        self._low = space.low.astype(np.float64)
        self._high = space.high.astype(np.float64)
        self._half_range = (self._high - self._low) / 2.0
        self._dtype = space.dtype
        self._observation: Any = None

    @cached_property
    def spec(self) -> WorldSpec:
        """See `pixelcontrol.types.WorldSpec`."""
        from pixelcontrol.types import WorldSpec  # It brings torch, which a worker process does without.

        return WorldSpec(
            action_dim=len(self._low),
            payload_shape=(3 * max(1, len(self._images)), *self._image_size),
            payload_dtype="uint8",
            action_repeat=self._action_repeat,
            episode_frames=_time_limit(self._env),
            repeats=self._repeats,
            proprio_dim=sum(self._proprio_sizes.values()),
            privileged_dim=sum(self._privileged_sizes.values()),
            tells_success=self._success is not None,
            about=in_words(self._pictures, "red, green, blue", self._proprio_sizes, self._low, self._high),
        )

    def reset(self, seed: int) -> None:
        """See `pixelcontrol.types.World`.

        Raises:
            WorldMistake: the environment returned something else than an observation and its info, or takes no
                seed.
        """
        try:
            returned = self._env.reset(seed=seed)
        except TypeError as error:
            if "'seed'" not in str(error):
                raise
            raise WorldMistake(
                "`reset` takes no `seed`: write it as Gymnasium's, `def reset(self, *, seed=None, options=None)`"
            ) from error
        self._observation, _ = _returned("reset", returned)
        self._told = self.success = False

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        """See `pixelcontrol.types.World`.

        Raises:
            WorldMistake: the environment did not return five values, or others than they must be; or no `info` of
                an episode said whether the task was achieved, or one said no truth value.
        """
        control = self._low + self._half_range * (action.astype(np.float64) + 1.0)
        if np.issubdtype(self._dtype, np.integer):
            control = control.round()
        control = np.clip(control, self._low, self._high).astype(self._dtype)  # rounding may go beyond
        total = 0.0
        for _ in range(self._action_repeat):
            # a copy: some change it in place
            returned = _returned("step", self._env.step(control.copy()))
            self._observation, reward, terminated, truncated, info = returned
            total += number("reward", reward)
            terminated, truncated = number("terminated", terminated), number("truncated", truncated)
            if self._success is not None and self._success in _dictionary(info):
                self._told = True
                self.success |= _truth(self._success, info[self._success])
            if terminated or truncated:
                if self._success is not None and not self._told:
                    raise WorldMistake(
                        f"success is {self._success!r}, but info has only {list(info)}; name one of these"
                    )
                return total, 0.0 if terminated else 1.0, True
        return total, 1.0, False

    def observe(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.World`.

        Raises:
            WorldMistake: a picture is not there, or is not uint8 with 3 channels.
        """
        if self._images:
            pictures = [part_of(self._observation, name) for name in self._images]
        else:
            pictures = [self._observation if self._observes_images else self._rendered()]
        places = out.reshape(-1, 3, *self._image_size)
        for place, name, picture in zip(places, self._pictures, pictures, strict=True):
            place[:] = self._fitted(name, picture)

    def _rendered(self) -> Any:
        try:
            return self._env.render()
        except Exception as error:  # of whichever library draws
            if "OpenGL" not in str(error):
                raise
            raise WorldMistake(f"`render` raised {error}: with --renderer opengl it finds one") from error

    def _fitted(self, name: str, shown: Any) -> np.ndarray:
        """Return a picture in the agent's size, colours first."""
        picture = np.asarray(shown)
        if picture.dtype != np.uint8 or picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]):
            raise WorldMistake(
                f"the picture of {name} is {in_brief(shown)}, but must be uint8 (height, width, 3) or (3, height, "
                "width), at reset and at every step; a gymnasium.Wrapper can convert it"
            )
        if picture.shape[2] != 3:
            picture = picture.transpose(1, 2, 0)
        height, width = self._image_size
        if picture.shape[:2] != (height, width):
            resized = Image.fromarray(np.ascontiguousarray(picture)).resize(
                (width, height), Image.Resampling.BOX
            )
            picture = np.asarray(resized)
        return picture.transpose(2, 0, 1)

    def sense(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.SensingWorld`."""
        write_numbers(self._boxes(), self._proprio_sizes, out)

    def disclose(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.DisclosingWorld`."""
        write_numbers(self._boxes(), self._privileged_sizes, out)

    def _boxes(self) -> Any:
        return self._observation if self._is_dict else {_WHOLE: self._observation}

    def close(self) -> None:
        """See `pixelcontrol.types.World`."""
        self._env.close()


def _returned(method: str, values: Any) -> Any:
    """Return what an environment's method did, once it is as many values as Gymnasium's return."""
    names = _RETURNS[method]
    several = isinstance(values, tuple | list)
    if not several or len(values) != len(names):
        raise WorldMistake(
            f"`{method}` returned {f'{len(values)} values' if several else in_brief(values)}, but must return "
            f"{len(names)}, as Gymnasium's does and older Gym's did not: {', '.join(names)}"
        )
    return values


def _dictionary(info: Any) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise WorldMistake(f"info is {in_brief(info)}, but must be a dictionary")
    return info


def _truth(key: str, told: Any) -> bool:
    """Return what `info` says under `key`: True, False or a number, perhaps as an array of one."""
    value = np.asarray(told)
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise WorldMistake(f"success is {key!r}, but info has no truth value there: {in_brief(told)}")
    return bool(value.item())


def _time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Return after how many frames an environment cuts its episodes off, if it says so."""
    if env.spec is not None:
        return env.spec.max_episode_steps
    # that of an environment made without `gymnasium.make`, which has no spec
    return env.get_wrapper_attr("_max_episode_steps") if env.has_wrapper_attr("_max_episode_steps") else None


def _is_picture(space: gymnasium.Space[Any] | None) -> bool:
    return (
        isinstance(space, gymnasium.spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and 3 in (space.shape[0], space.shape[2])
    )
