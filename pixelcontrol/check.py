"""`pixelcontrol check`: what a task is like, found by acting in it at random, before hours go into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from pixelcontrol import advice
from pixelcontrol.build import (
    TRAIN_STREAM,
    Hardware,
    Shapes,
    build_agent,
    build_env,
    choose_hardware,
    refuse_what_cannot_run,
    start_from,
)
from pixelcontrol.config import Config
from pixelcontrol.demonstrations import read_demonstrations
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.logger import write_video
from pixelcontrol.types import TimeStep

# An episode that has not ended by then is left.
MOST_AGENT_STEPS = 1_000
# How far the episode goes that is to repeat itself.
REPEATED_AGENT_STEPS = 50
# Of an agent step; the suite's rewards are at most 1 for a frame.
LARGE_REWARD = 100.0


def check(config: Config, film: Path) -> None:
    """Act in one world as training begins, uniformly at random; print what was found, and film an episode.

    Args:
        config: as a run would have it; what it would be refused for, but for memory, is refused here.
        film: file to write: .mp4 or .gif; cameras side by side, each with its distances in grey below.

    Raises:
        ValueError: the task cannot be built, or the agent not for it.
        WorkerError: the world is not as it must be; what it raises itself comes out as it is.
    """
    # in this process: nothing that the world raises is to be mended
    hardware = replace(choose_hardware(config), workers=0)
    env = build_env(config, hardware, 1, TRAIN_STREAM)
    try:
        spec, shapes = env.spec, Shapes.of(env)
        refuse_what_cannot_run(config, spec, hardware.envs)
        agent = build_agent(config, shapes, hardware.device)
        if config.loop.start_from:
            start_from(Path(config.loop.start_from), config, agent, shapes)
        if config.loop.demonstrations:
            read_demonstrations(config, env)
        actions = np.random.default_rng(config.seed)
        print(f"{config.task}: {spec.about or 'says nothing of itself'}")
        _say("observation", _observation(env))
        started = time.monotonic()
        rows = [env.reset()]
        while len(rows) <= MOST_AGENT_STEPS and not rows[-1].last[0]:
            rows.append(_step(env, actions))
        seconds = time.monotonic() - started
        repeats = _repeats(config, hardware, env, actions)
    finally:
        env.close()
    rewards = np.array([row.reward[0] for row in rows[1:]])
    _say("episode", _ending(rows))
    _say(
        "rewards",
        f"{rewards.min():.3g} to {rewards.max():.3g} for an agent step, 0 in {(rewards == 0).mean():.0%}; return "
        f"{rewards.sum():.1f} of random actions",
    )
    if spec.tells_success:
        _say("success", "yes" if rows[-1].success else "no")
    images = np.concatenate([row.image.cpu().numpy() for row in rows])
    cameras = np.split(images, range(spec.camera_channels, images.shape[1], spec.camera_channels), axis=1)
    for number, seen in enumerate(cameras):
        _say(f"camera {number}", f"brightness {seen.mean():.0f} of 255, from {seen.min()} to {seen.max()}")
    for name in ("proprio", "privileged"):
        numbers = np.concatenate([getattr(row, name) for row in rows])
        if numbers.size:
            ends = zip(numbers.min(axis=0), numbers.max(axis=0), strict=True)
            _say(name, ", ".join(f"{low:.3g} to {high:.3g}" for low, high in ends))
    _say("repeats", repeats)
    _say("speed", f"{len(rewards) / seconds:.0f} agent steps/s of one world, images included")
    film.parent.mkdir(parents=True, exist_ok=True)
    write_video(film, np.concatenate([_as_film(seen) for seen in cameras], axis=2))
    _say("film", str(film))
    for warning in (*advice.on_settings(config, spec.episode_frames), *_faults(cameras, rewards)):
        print(f"warning: {warning}")


def _say(what: str, found: str) -> None:
    print(f"  {what:12s} {found}")


def _observation(env: VectorEnv) -> str:
    channels, height, width = env.image_shape
    numbers = {"proprioception": env.spec.proprio_dim, "privileged": env.spec.privileged_dim}
    beside = "".join(f", {count} numbers of {name}" for name, count in numbers.items() if count)
    return (
        f"images of {channels} planes, {height}x{width} pixels, by renderer {env.renderer.name}{beside}; "
        f"{env.spec.action_dim} actions, each for {env.spec.action_repeat} frames"
    )


def _ending(rows: list[TimeStep]) -> str:
    agent_steps = len(rows) - 1
    if not rows[-1].last[0]:
        return f"no end within {agent_steps:,} agent steps"
    return f"{agent_steps:,} agent steps, to {'a time limit' if rows[-1].discount[0] else 'a true end'}"


def _step(env: VectorEnv, actions: np.random.Generator) -> TimeStep:
    env.send(actions.uniform(-1.0, 1.0, (1, env.spec.action_dim)).astype(np.float32))
    return env.receive()


def _repeats(config: Config, hardware: Hardware, env: VectorEnv, actions: np.random.Generator) -> str:
    """Say whether another episode becomes what it was from its seed and actions, in a process of its own."""
    if not env.spec.repeats:
        return "not, as its spec says: a resumed run drops the episode that was running"
    env.reset()
    state = env.state_dict()
    for _ in range(REPEATED_AGENT_STEPS):
        if _step(env, actions).last[0]:
            break
        state = env.state_dict()
    other = build_env(config, replace(hardware, workers=1), 1, TRAIN_STREAM)
    try:
        other.load_state_dict(state)
        if other.state_dict()["last"] == state["last"]:
            return "yes, from its seed and actions: a resumed run goes on exactly"
        return "NO: a resumed run is not the undisturbed one; see the warning above"
    finally:
        other.close()


def _as_film(
    seen: UInt8[np.ndarray, "images channels height width"],
) -> UInt8[np.ndarray, "images all_rows width 3"]:
    """Colours, and below them the fourth channel in grey where there is one."""
    colours = seen[:, :3].transpose(0, 2, 3, 1)
    distances = [seen[:, channel, :, :, None].repeat(3, axis=3) for channel in range(3, seen.shape[1])]
    return np.concatenate([colours, *distances], axis=1)


def _faults(
    cameras: list[UInt8[np.ndarray, "images channels height width"]], rewards: Float32[np.ndarray, " steps"]
) -> Iterator[str]:
    """Name what makes learning impossible or hard."""
    for number, seen in enumerate(cameras):
        whose = f"camera {number}: " if len(cameras) > 1 else ""
        if (seen == seen[:1]).all():
            yield f"{whose}all images of the episode are the same: is what is drawn what is stepped?"
        elif seen.std(axis=(1, 2, 3)).max() < 1.0:
            yield f"{whose}images are of one colour: where does the camera look?"
    if not rewards.any():
        yield (
            "random actions met no reward: show how (--demonstrations), reward what leads there, or see what "
            "--saturation-margin 2 finds in the preset quick"
        )
    elif (rewards == rewards[0]).all():
        yield (
            f"every reward was {rewards[0]:g}, whatever was done: show how it gets another (--demonstrations), or "
            "reward what leads there"
        )
    if (largest := np.abs(rewards).max()) > LARGE_REWARD:
        yield (
            f"rewards of up to {largest:.3g}: the settings were found with rewards of at most 1 for a frame; "
            "divide yours"
        )
