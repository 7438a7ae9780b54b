"""How far the `warp` renderer's pictures are from OpenGL's, task by task, in figures and in a picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelcontrol.envs.render import gl
from pixelcontrol.envs.tasks import Cameras, Task, channel_count
from pixelcontrol.envs.user import build_world

STRONG = 16  # a pixel that is off by more, of 255, counts as off
TABLE_HEAD = f"""\
| task | mean difference, of 255 | pixels off by > {STRONG} | in the worst state | ms per image |
|---|---|---|---|---|"""
_PANELS = 3  # states shown in the picture


@dataclass(frozen=True)
class Comparison:
    """The pictures of one task's states by both renderers.

    Attributes:
        opengl: uint8 (states, height, width, 3).
        warp: uint8, likewise.
        warp_seconds: process time of one image by `warp`, drawn together with the others on one CPU core.
    """

    opengl: np.ndarray
    warp: np.ndarray
    warp_seconds: float

    @property
    def difference(self) -> np.ndarray:
        """The absolute difference of each channel, uint8 (states, height, width, 3)."""
        return np.abs(self.opengl.astype(np.int16) - self.warp).astype(np.uint8)

    @property
    def mean_difference(self) -> float:
        """The mean absolute difference, of 255."""
        return float(self.difference.mean())

    @property
    def off_fractions(self) -> np.ndarray:
        """The part of each state's pixels of which some channel is off by more than `STRONG`: (states,)."""
        return (self.difference.max(axis=-1) > STRONG).mean(axis=(1, 2))

    def table_row(self) -> str:
        """The figures under `TABLE_HEAD`, from the second column on."""
        off = self.off_fractions
        return (
            f"{self.mean_difference:.2f} | {off.mean():.2%} | {off.max():.2%} | {self.warp_seconds * 1e3:.2f}"
        )

    def picture(self) -> np.ndarray:
        """A few states, one per row, as OpenGL | warp | difference x4, in uint8 (height, width, 3)."""
        few = slice(0, _PANELS)
        amplified = np.minimum(4 * self.difference[few].astype(int), 255).astype(np.uint8)
        rows = np.concatenate([self.opengl[few], self.warp[few], amplified], axis=2)
        return np.concatenate(list(rows), axis=0)

    def save(self, path: Path) -> None:
        """Write `picture` as a PNG, each pixel twice as wide and high."""
        import imageio.v3 as imageio

        path.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(path, self.picture().repeat(2, axis=0).repeat(2, axis=1))


def compare(task: Task, states: int = 200, image_size: tuple[int, int] = (84, 84)) -> Comparison:
    """Draw random states of dm_control's task or an own one, always the same, with both renderers, on the CPU.

    A state is what up to 50 frames of random actions leave of an episode; every fourth starts a new one, so that
    what an episode's start changes (a target's place, size, colour) is compared too.

    Args:
        task: a task of the suite or of manipulation, or a factory of `DmcWorld`s.
        states: how many, at least 1.
        image_size: (height, width).

    Raises:
        ValueError: the task is neither dm_control's nor a factory of `DmcWorld`s, or `warp` cannot draw it.
        NoOpenGL: there is no OpenGL here.
    """
    gl.choose_opengl()
    from pixelcontrol.envs.dmc import seed_episodes
    from pixelcontrol.envs.render.opengl import OpenGLRenderer
    from pixelcontrol.envs.render.scene import Scene
    from pixelcontrol.envs.render.warp import WarpRenderer

    environment, camera = _model(task, image_size)
    random = np.random.RandomState(0)
    seed_episodes(environment, 0)
    environment.reset()
    scene = Scene(environment.physics, camera)
    control = environment.action_spec()
    low, high = np.maximum(control.minimum, -1.0), np.minimum(control.maximum, 1.0)

    rows = np.zeros((states, *scene.payload_shape), np.float32)
    opengl = np.zeros((states, channel_count(camera, 0.0), *image_size), np.uint8)
    for i in range(states):
        if i % 4 == 0:
            environment.reset()
            reference = OpenGLRenderer(environment.physics, camera, image_size)
        for _ in range(random.randint(51)):
            # a step beyond an episode's end begins another, for which composer compiles the model anew
            if environment.step(random.uniform(low, high)).first():
                reference = OpenGLRenderer(environment.physics, camera, image_size)
        scene.pack(environment.physics, rows[i])
        reference.draw(opengl[i])
    environment.close()

    renderer = WarpRenderer(scene, states, image_size, "cpu")
    renderer.images(rows)
    start = time.process_time()
    warp = renderer.images(rows).numpy()
    seconds = time.process_time() - start
    # several cameras lie behind one another along the channels
    by_opengl, by_warp = (drawn.reshape(-1, 3, *image_size).transpose(0, 2, 3, 1) for drawn in (opengl, warp))
    return Comparison(by_opengl, by_warp, seconds / len(by_warp))


def _model(task: Task, image_size: tuple[int, int]) -> tuple[Any, Cameras]:
    """Return a task's dm_control environment, and the cameras through which an agent sees it."""
    from pixelcontrol.envs.dmc import DmcWorld, load_environment

    if task.source in ("suite", "manipulation"):
        return load_environment(task), task.camera
    world = build_world(task.name, image_size, 1, "warp") if task.source == "factory" else None
    if not isinstance(world, DmcWorld):
        raise ValueError(
            f"{task.name}: only dm_control's tasks and an own model in a DmcWorld have pictures by both renderers"
        )
    return world._environment, world._camera
