"""From a task to an environment: the one way in which the rest of the project makes environments.

A task "my_robot:make_world" is a user's own: `make_world(image_size=..., action_repeat=...)` in an importable file
`my_robot.py` returns a `World`. `pixelcontrol.envs.gymnasium` makes one of a gymnasium environment, and
`DmcWorld` of anything written with dm_control::

    from dm_control.rl import control
    from pixelcontrol.envs.dmc import DmcWorld

    def make_world(image_size, action_repeat, renderer):
        environment = control.Environment(MyPhysics.from_xml_path("robot.xml"), MyTask(), time_limit=20)
        return DmcWorld(environment, 0, renderer, image_size, action_repeat)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pixelcontrol.envs.dmc import DmcWorld, RendererName, make_dmc_world
from pixelcontrol.envs.render import gl
from pixelcontrol.envs.render.pixels import PixelRenderer
from pixelcontrol.envs.tasks import Task
from pixelcontrol.envs.toy import ToyWorld
from pixelcontrol.envs.user import build_world
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.types import DisclosingWorld, JudgingWorld, Renderer, SensingWorld, World, WorldSpec


def make_env(
    task: Task,
    *,
    num_worlds: int,
    num_workers: int,
    renderer: RendererName,
    image_size: tuple[int, int] = (84, 84),
    action_repeat: int = 2,
    device: str | torch.device,
    seed: int,
    stream: int,
    privileged: bool = False,
) -> VectorEnv:
    """Make N worlds of a task.

    Args:
        task: as `find_task` gives it.
        num_worlds: N.
        num_workers: worker processes; 0 steps the worlds in this process.
        renderer: what draws dm_control's tasks, and a user's `DmcWorld`; other worlds decide themselves, but
            "opengl" sees to it that they can draw with it.
        image_size: (height, width).
        action_repeat: frames per agent step.
        device: torch device of the images.
        seed: of the run.
        stream: of the seed; training and evaluation take different ones.
        privileged: let the worlds disclose what they can.

    Raises:
        ValueError: a user's factory cannot be found or called, or its world has another image size, action repeat
            or renderer than asked for, or lacks a method that its spec promises.
        WorkerError: a worker could not build its worlds.
    """
    make_world = world_factory(task, renderer, image_size, action_repeat)
    world = make_world()
    if not isinstance(world, World) or not isinstance(world.spec, WorldSpec):
        raise ValueError(
            f"{task.name} returned {type(world).__name__}, but must return a World; wrap a Gymnasium environment "
            "in pixelcontrol.envs.gymnasium.GymnasiumWorld, one of dm_control in pixelcontrol.envs.dmc.DmcWorld"
        )
    try:
        spec = world.spec if privileged else replace(world.spec, privileged_dim=0)
        scene = world.scene if isinstance(world, DmcWorld) else None
        if isinstance(world, DmcWorld) and (drawn_by := "warp" if scene else "opengl") != renderer:
            raise ValueError(
                f"{task.name} draws with {drawn_by}, and --renderer is {renderer}: give it an argument "
                f"`renderer`, for DmcWorld, or use --renderer {drawn_by}"
            )
        _check_spec(task.name, world, spec, image_size, action_repeat)
        refuse_several_robots(task.name, spec, num_worlds)
        draw: Renderer
        if scene is not None:
            from pixelcontrol.envs.render.warp import WarpRenderer  # it takes half a second to load

            draw = WarpRenderer(scene, num_worlds, image_size, str(device))
        else:
            name = renderer if isinstance(world, DmcWorld) else "own"
            draw = PixelRenderer(name, (spec.payload_shape[0], *image_size), str(device))
    finally:
        world.close()
    return VectorEnv(
        make_world,
        spec,
        draw,
        num_worlds=num_worlds,
        num_workers=num_workers,
        seed=seed,
        stream=stream,
    )


def refuse_several_robots(name: str, spec: WorldSpec, num_worlds: int) -> None:
    """Refuse to open a robot more than once.

    Raises:
        ValueError: names the settings.
    """
    if num_worlds > 1 and not spec.repeats:
        raise ValueError(
            f"{name} does not repeat, as a robot of which there is one, and {num_worlds} were to be opened at "
            "once: use --envs 1 --eval-episodes 0"
        )


def world_factory(
    task: Task, renderer: RendererName, image_size: tuple[int, int], action_repeat: int
) -> Callable[[], Any]:
    """What builds one `World` of a task: picklable, and without torch where a worker calls it."""
    if task.source == "factory":
        if renderer == "opengl":
            gl.choose_opengl()  # Before the user's module imports dm_control.
        return partial(build_world, task.name, image_size, action_repeat, renderer)
    if task.source == "toy":
        return partial(ToyWorld, image_size, action_repeat)
    return partial(make_dmc_world, task, renderer, image_size, action_repeat)


def _check_spec(
    name: str, world: World, spec: WorldSpec, image_size: tuple[int, int], action_repeat: int
) -> None:
    """Refuse a world whose spec is not as asked for, or promises what it cannot do."""
    draws = spec.payload_dtype == "uint8" and spec.payload_shape[1:] == image_size
    scene = isinstance(world, DmcWorld) and world.scene is not None
    if not (draws or scene) or spec.action_repeat != action_repeat:
        raise ValueError(
            f"{name}: its spec has payload_shape {spec.payload_shape!r}, payload_dtype "
            f"{spec.payload_dtype!r} and action_repeat {spec.action_repeat}, but must have (channels, "
            f"{image_size[0]}, {image_size[1]}), 'uint8' and {action_repeat}: pass image_size and action_repeat on"
        )
    if spec.action_dim < 1:
        raise ValueError(f"{name}: its spec has action_dim {spec.action_dim}, but must have 1 or more")
    for promise, protocol, missing in (
        ("proprio_dim", SensingWorld, "method `sense`"),
        ("privileged_dim", DisclosingWorld, "method `disclose`"),
        ("tells_success", JudgingWorld, "attribute `success`"),
    ):
        if (promised := getattr(spec, promise)) and not isinstance(world, protocol):
            raise ValueError(
                f"{name}: its spec has {promise} {promised}, but it has no {missing} "
                f"(see pixelcontrol.types.{protocol.__name__})"
            )
