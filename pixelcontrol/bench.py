"""`pixelcontrol bench`: how fast the parts are on this machine, and where the time of a whole run goes.

Every figure is a median with its quartiles over repeats, printed with the machine in words. The update stands
beside a plain form of the same thing, eager and in fp32, measured in the same run, because a ratio survives a
busy machine better than milliseconds do.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelcontrol import machine, storage
from pixelcontrol.config import Config
from pixelcontrol.learner import Learner
from pixelcontrol.replay import FrameStack, Replay, ring_rows
from pixelcontrol.train import TRAIN_STREAM, Hardware, Run, build_agent, build_env, choose_hardware
from pixelcontrol.types import TimeStep

WARM_UP = 5
EPISODE_ROWS = 500


def measure(action: Callable[[], object], repeats: int, device: torch.device) -> np.ndarray:
    """Return the milliseconds that each of `repeats` calls took, after a few that do not count."""
    milliseconds = []
    for index in range(WARM_UP + repeats):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if index >= WARM_UP:
            milliseconds.append((time.perf_counter() - started) * 1e3)
    return np.array(milliseconds)


def spread(milliseconds: np.ndarray) -> str:
    """Write a median and its quartiles."""
    low, median, high = np.percentile(milliseconds, [25, 50, 75])
    return f"{median:8.2f} ms  (quartiles {low:.2f} .. {high:.2f})"


def filled_replay(config: Config, action_dim: int, device: torch.device, place: str, folder: Path) -> Replay:
    """Build the configured replay, full, in `place` ("gpu", "ram" or "disk"); its images are noise."""
    loop = config.loop
    envs = max(loop.envs, 1)
    rows = ring_rows(loop.replay_capacity, envs, loop.n_step, loop.frame_stack)
    shape = (rows, envs, 3, loop.image_size, loop.image_size)
    size = int(np.prod(shape))
    images = storage.allocate(shape, storage.Storage(place, size, "benchmark"), device, folder)
    replay = Replay(
        images, action_dim=action_dim, n_step=loop.n_step, gamma=loop.discount,
        frame_stack=loop.frame_stack, device=device, seed=config.seed,
    )  # fmt: skip
    noise = torch.randint(0, 256, (envs, *shape[2:]), dtype=torch.uint8, device=images.device)
    actions = np.zeros((envs, action_dim), dtype=np.float32)
    ones = np.ones(envs, dtype=np.float32)
    for row in range(rows):
        first = np.full(envs, row % EPISODE_ROWS == 0)
        last = np.full(envs, row % EPISODE_ROWS == EPISODE_ROWS - 1)
        replay.add(TimeStep(noise, actions, ones, ones, first, last))
    return replay


def bench_update(config: Config, hardware: Hardware, action_dim: int, repeats: int) -> None:
    """Time one whole update, sampling included, beside its plain form."""
    device = hardware.device
    small = dataclasses.replace(config, loop=dataclasses.replace(config.loop, replay_capacity=5_000))
    times = {}
    for name, precision in ((hardware.precision, hardware.precision), ("plain fp32", "fp32")):
        replay = filled_replay(small, action_dim, device, "gpu" if device.type == "cuda" else "ram", Path())
        agent = build_agent(config, action_dim, device)
        learner = Learner(
            agent, replay, batch_size=config.loop.batch_size, precision=precision, device=device
        )
        if name == "plain fp32":
            learner.capturable = False
        count = 0

        def update(learner: Learner = learner) -> None:
            nonlocal count
            learner.update(100_000, count)
            count += 1

        times[name] = measure(update, repeats, device)
        print(f"update  {name:12s} batch {config.loop.batch_size}  {spread(times[name])}", flush=True)
    ratio = np.median(times["plain fp32"]) / np.median(times[hardware.precision])
    print(f"update  {ratio:.1f} times as fast as plain fp32")


def bench_replay(config: Config, hardware: Hardware, action_dim: int, repeats: int) -> None:
    """Time sampling a batch from a full replay, wherever its images can be kept here."""
    device = hardware.device
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for place in ("gpu", "ram", "disk") if device.type == "cuda" else ("ram", "disk"):
            replay = filled_replay(config, action_dim, device, place, Path(folder))
            times = measure(partial(replay.sample, config.loop.batch_size), repeats, device)
            size = replay.images.nbytes / 1e9
            print(
                f"replay  {place:4s} {len(replay):,} transitions, {size:.2f} GB  {spread(times)}", flush=True
            )


def bench_env(config: Config, hardware: Hardware, repeats: int) -> None:
    """Time physics, images and stacking of all worlds together, under random actions."""
    env = build_env(config, hardware, hardware.envs, TRAIN_STREAM)
    stack = FrameStack(config.loop.frame_stack)
    random = np.random.default_rng(config.seed)
    try:
        stack.push(env.reset())

        def step() -> None:
            env.send(random.uniform(-1, 1, (hardware.envs, env.spec.action_dim)).astype(np.float32))
            stack.push(env.receive())

        times = measure(step, repeats, hardware.device)
    finally:
        env.close()
    rate = hardware.envs / np.median(times) * 1e3
    print(
        f"env     {config.task}, {hardware.envs} worlds, {hardware.workers} workers, {config.loop.renderer}: "
        f"{rate:.0f} agent steps/s, each round {spread(times)}"
    )


def bench_train(config: Config, hardware: Hardware) -> None:
    """Time a whole run, and say which part of the loop its time went to."""
    spent: dict[str, float] = {}

    def timed(owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = original(*args, **kwargs)
            if hardware.device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
            return result

        setattr(owner, method, wrapper)

    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = Run(config, Path(folder), hardware, resume=False)
        timed(run.learner, "update", "learn")
        timed(run.agent, "act", "act")
        timed(run.env, "send", "send actions")
        timed(run.env, "receive", "wait for physics, draw images")
        timed(run.replay, "add", "store rows")
        started = time.perf_counter()
        try:
            run.train()
        finally:
            run.close()
        seconds = time.perf_counter() - started
    print(
        f"train   {config.task}: {config.loop.frames / seconds:.0f} frames/s over {config.loop.frames:,} frames"
    )
    spent["the rest"] = seconds - sum(spent.values())
    for name, part in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"train   {part / seconds:6.1%}  {name}")


def run(what: str, config: Config, repeats: int) -> None:
    """Run one benchmark, or all of them, and print its figures."""
    machine.prepare_process()
    hardware = choose_hardware(config)
    print(
        f"machine {machine.describe(hardware.device)}; commit {machine.commit()}; {config.agent}, {config.task}"
    )
    if what in ("update", "replay"):
        probe = build_env(config, dataclasses.replace(hardware, workers=1), 1, TRAIN_STREAM)
        action_dim = probe.spec.action_dim
        probe.close()
        {"update": bench_update, "replay": bench_replay}[what](config, hardware, action_dim, repeats)
    elif what == "env":
        bench_env(config, hardware, repeats)
    else:
        bench_train(config, hardware)
