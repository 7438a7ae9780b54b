"""dm_control's own physics, rewards and time limits as a `World`; this project adds nothing to them.

Unusual: every episode is seeded on its own, so that it can be repeated from its seed and actions alone, and
only the `opengl` renderer draws here; for `warp` the payload is the poses, drawn later for all worlds at once.
Imports of dm_control stand inside of functions, because the OpenGL platform must be chosen before the first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pixelcontrol.envs.render import gl
from pixelcontrol.envs.tasks import Cameras, Task, channel_count
from pixelcontrol.envs.user import in_words, number, sizes_of, write_numbers
from pixelcontrol.errors import WorldMistake

if TYPE_CHECKING:
    from pixelcontrol.envs.render.opengl import OpenGLRenderer
    from pixelcontrol.types import WorldSpec

RendererName = Literal["warp", "opengl"]

# mjMAXVAL, dm_control's bound of a motor that has none
_UNBOUNDED = 1e10


def load_environment(task: Task) -> Any:
    """Load the dm_control environment of a "suite" or "manipulation" task."""
    # The cheetah's model is written in an old style, and reach_duplo's inverse kinematics may miss: both warn.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if task.source == "suite":
        from dm_control import suite

        # Some tasks draw parts of their model at construction: all worlds of a task must be the same.
        return suite.load(task.domain, task.task, task_kwargs={"random": 0})
    from dm_control import composer, manipulation

    # "_features" and "_vision" differ in their observables alone, and "_vision" draws while it loads. An agent
    # that sees the world's images needs none of the observables, and to compute them takes time.
    loaded = manipulation.load(f"{task.domain}_features")
    for observable in loaded.task.observables.values():
        observable.enabled = False
    control_steps = task.episode_frames
    assert control_steps is not None
    return composer.Environment(loaded.task, time_limit=control_steps * loaded.control_timestep())


def is_composer(environment: Any) -> bool:
    """Whether an environment of dm_control is one of `composer`'s, whose model changes with every episode."""
    return hasattr(environment, "random_state")


def seed_episodes(environment: Any, seed: int) -> None:
    """Let the next episodes of a dm_control environment follow from `seed`."""
    random = environment.random_state if is_composer(environment) else environment.task.random
    random.seed(seed)


def _time_limit(environment: Any) -> int | None:
    """Return after how many frames an environment cuts its episodes off; None where it does not tell."""
    if is_composer(environment):
        frames = environment._time_limit / environment.control_timestep()
    else:
        frames = getattr(environment, "_step_limit", math.inf)
    return math.ceil(round(frames, 6)) if math.isfinite(frames) else None


def make_dmc_world(
    task: Task, renderer: RendererName, image_size: tuple[int, int], action_repeat: int
) -> DmcWorld:
    """Build the world of a "suite" or "manipulation" task, as `DmcWorld` describes."""
    if renderer == "warp":
        gl.without_opengl()
    else:
        gl.choose_opengl()
    environment = load_environment(task)
    return DmcWorld(
        environment, task.camera, renderer, image_size, action_repeat, task.episode_frames, depth=task.depth,
        proprio=task.proprio, privileged=task.source == "suite",
    )  # fmt: skip


class DmcWorld:
    """One dm_control environment, from the suite, from `composer`, or a user's own.

    The rewards of an agent step's frames are summed, each times the discounts of the frames before it, and the
    discounts multiplied, as in the official code; nothing else is changed.

    Attributes:
        scene: what the `warp` renderer needs to know of the model; None with `opengl`.
    """

    def __init__(
        self,
        environment: Any,
        camera: Cameras | Sequence[int | str],
        renderer: RendererName,
        image_size: tuple[int, int],
        action_repeat: int,
        episode_frames: int | None = None,
        *,
        depth: float = 0.0,
        proprio: str | Sequence[str] = (),
        privileged: bool | str | Sequence[str] = False,
        success: Callable[[Any], bool] | None = None,
    ) -> None:
        """Wrap an environment.

        Args:
            environment: a `dm_control.rl.control.Environment` whose task has a `random` (as every suite task),
                or a `dm_control.composer.Environment`.
            camera: that the agent sees through, or several.
            renderer: "warp": the payload is the poses; "opengl": it is the finished image.
            image_size: (height, width).
            action_repeat: frames per agent step.
            episode_frames: frames until the time limit, where the environment's own is not to be waited for, or it
                has none.
            depth: metres that a fourth channel of each camera shows, or 0 (see `Task`).
            proprio: entries, or one, of the environment's observations, whose numbers are the proprioception, one
                behind another.
            privileged: entries, or one, of the environment's observations that an agent which can make use of it
                learns with; True for all that are no pictures, of fewer than three dimensions.
            success: asked of the environment's physics after each frame, whether the task is achieved now; an
                episode is a success if it once was. Rates of success stand beside returns then.

        Raises:
            ValueError: the environment's actions have no bounds to rescale [-1, 1] to, or there is no such
                entry, or no entry at all, or `success` cannot be asked.
        """
        bounds = environment.action_spec()
        largest = np.maximum(np.abs(bounds.minimum), np.abs(bounds.maximum))
        if not bounds.shape[0] or (largest >= _UNBOUNDED).any():
            raise ValueError(
                f"actions of {environment.task!r} have no finite bounds: {bounds}; the model needs actuators, "
                "each with a ctrlrange"
            )
        if renderer not in get_args(RendererName) or depth < 0.0:
            raise ValueError(
                f"renderer is {renderer!r} and depth {depth}, but must be 'warp' or 'opengl', and at least 0"
            )
        if not is_composer(environment) and not hasattr(environment.task, "random"):
            raise ValueError(
                f"{type(environment.task).__name__} has no `random`, a numpy.random.RandomState of which it draws "
                "all that is random, as every task of dm_control's suite: without, no episode repeats itself"
            )
        seen = environment.observation_spec() if proprio or privileged else {}
        shapes = {name: entry.shape for name, entry in seen.items()}
        self._proprio_sizes, self._privileged_sizes = sizes_of(shapes, proprio, privileged)
        self._is_achieved = success
        self.success = False
        self._observation: Any = None
        self._environment = environment
        self._camera: Cameras = camera if isinstance(camera, int | str) else tuple(camera)
        self._image_size = image_size
        self._depth = depth
        self._action_repeat = action_repeat
        self._episode_frames = min(filter(None, (episode_frames, _time_limit(environment))), default=None)
        self._frame = 0
        self._minimum = np.broadcast_to(bounds.minimum, bounds.shape).astype(np.float64)
        self._half_range = (bounds.maximum - self._minimum) / 2.0
        self._opengl: OpenGLRenderer | None = None
        if renderer == "warp" or success:
            seed_episodes(environment, 0)  # what is read once must be the same in all processes
            environment.reset()
        if success:
            self._is_achieved_now()  # a mistake in it is told before anything is trained
        if renderer == "warp":
            from pixelcontrol.envs.render.scene import Scene

            self.scene: Scene | None = Scene(environment.physics, self._camera, depth)
        else:
            self.scene = None

    @cached_property
    def spec(self) -> WorldSpec:
        """See `pixelcontrol.types.WorldSpec`."""
        from pixelcontrol.types import WorldSpec  # It brings torch, which a worker process does without.

        image_shape = (channel_count(self._camera, self._depth), *self._image_size)
        cameras = self._camera if isinstance(self._camera, tuple) else (self._camera,)
        distance = f", distance (255 at {self._depth:g} m)" if self._depth else ""
        return WorldSpec(
            action_dim=len(self._minimum),
            payload_shape=self.scene.payload_shape if self.scene else image_shape,
            payload_dtype="float32" if self.scene else "uint8",
            action_repeat=self._action_repeat,
            episode_frames=self._episode_frames,
            proprio_dim=sum(self._proprio_sizes.values()),
            privileged_dim=sum(self._privileged_sizes.values()),
            tells_success=self._is_achieved is not None,
            camera_channels=channel_count(0, self._depth),
            about=in_words(
                [f"camera {camera}" for camera in cameras], f"red, green, blue{distance}", self._proprio_sizes,
                self._minimum, self._minimum + 2.0 * self._half_range,
            ),
        )  # fmt: skip

    def reset(self, seed: int) -> None:
        """See `pixelcontrol.types.World`."""
        if is_composer(self._environment):
            self._close_opengl()  # it compiles a new model for every episode.
        seed_episodes(self._environment, seed)
        self._observation = self._environment.reset().observation
        self._frame = 0
        self.success = False

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        """See `pixelcontrol.types.World`.

        Raises:
            WorldMistake: a reward or discount is no number, or `success` cannot be asked.
        """
        # As dm_control's action_scale wrapper computes it, in float64.
        control = self._minimum + self._half_range * (action.astype(np.float64) + 1.0)
        reward, discount = 0.0, 1.0
        for _ in range(self._action_repeat):
            time_step = self._environment.step(control.copy())  # a task may change it in place
            self._observation = time_step.observation
            if self._is_achieved is not None:
                self.success |= self._is_achieved_now()
            reward += discount * number("reward", time_step.reward)
            discount *= number("discount", time_step.discount)
            self._frame += 1
            if time_step.last() or self._frame == self._episode_frames:
                return reward, discount, True
        return reward, discount, False

    def _is_achieved_now(self) -> bool:
        assert self._is_achieved is not None
        try:
            return bool(self._is_achieved(self._environment.physics))
        except Exception as error:  # a user's function may raise anything
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise WorldMistake(f"`success` was asked of the physics, and raised {words}") from error

    def observe(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.World`."""
        if self.scene is not None:
            out[:] = 0.0  # `pack` leaves the room for absent geoms as it was.
            self.scene.pack(self._environment.physics, out)
            return
        if self._opengl is None:
            from pixelcontrol.envs.render.opengl import OpenGLRenderer

            physics = self._environment.physics
            self._opengl = OpenGLRenderer(physics, self._camera, self._image_size, self._depth)
        self._opengl.draw(out)

    def sense(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.SensingWorld`."""
        write_numbers(self._observation, self._proprio_sizes, out)

    def disclose(self, out: np.ndarray) -> None:
        """See `pixelcontrol.types.DisclosingWorld`."""
        write_numbers(self._observation, self._privileged_sizes, out)

    def close(self) -> None:
        """See `pixelcontrol.types.World`."""
        self._close_opengl()
        self._environment.close()

    def _close_opengl(self) -> None:
        if self._opengl is not None:
            self._opengl.close()
            self._opengl = None
