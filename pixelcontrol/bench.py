"""`pixelcontrol bench`: how fast the parts are on this machine, and where the time of a whole run goes.

The machine is printed in words. Times of parts are medians with quartiles over repeats. Whatever can be stands
beside a plain form of the same thing, measured in the same run, because a ratio survives a busy machine better
than milliseconds do.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import re
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pixelcontrol import machine, storage
from pixelcontrol.augment import random_shift
from pixelcontrol.build import (
    TRAIN_STREAM,
    Hardware,
    Shapes,
    build_agent,
    build_env,
    build_replay,
    choose_hardware,
    reach,
)
from pixelcontrol.config import Config
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.errors import RunError
from pixelcontrol.experiments.places import ThisMachine
from pixelcontrol.experiments.plan import Variant, plan
from pixelcontrol.experiments.runs import read_table
from pixelcontrol.experiments.sweep import run_all
from pixelcontrol.learner import Learner
from pixelcontrol.loop import TrainingRun
from pixelcontrol.memory import FrameStack
from pixelcontrol.replay import ring_rows
from pixelcontrol.types import Replay, TimeStep

WARM_UP = 5
# Calls that are timed together on a GPU: a round of 16 worlds queues as many updates before it waits.
QUEUED = 8
EPISODE_ROWS = 500
# Rows of so many worlds fill a replay of a million in half a minute.
FILLING_WORLDS = 16
PLAIN = "plain"


def measure(action: Callable[[], object], repeats: int, device: torch.device) -> np.ndarray:
    """Return the milliseconds of a call, `repeats` times, after a few that do not count."""
    together = QUEUED if device.type == "cuda" else 1
    milliseconds = []
    for index in range(WARM_UP + repeats):
        started = time.perf_counter()
        for _ in range(together):
            action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if index >= WARM_UP:
            milliseconds.append((time.perf_counter() - started) * 1e3 / together)
    return np.array(milliseconds)


def spread(milliseconds: np.ndarray) -> str:
    """Write a median and its quartiles."""
    low, median, high = np.percentile(milliseconds, [25, 50, 75])
    return f"{median:8.2f} ms  (quartiles {low:.2f} .. {high:.2f})"


def print_ratio(what: str, plain: np.ndarray, ours: np.ndarray, name: str) -> None:
    """Say how many times as fast as its plain form something is, by the medians."""
    print(f"{what:7s} {np.median(plain) / np.median(ours):.1f} times as fast as {name}", flush=True)


class Operations(TorchDispatchMode):
    """Counts, inside a `with` block, what on a GPU would be kernel launches; the same on every machine.

    Attributes:
        count: operations that read or write tensors. Views and allocations are none; one may be several launches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count it."""
        schema = operation._schema
        view = any(part.alias_info and not part.alias_info.is_write for part in schema.returns)
        self.count += (
            schema.name.startswith("aten::") and not view and not re.search("empty|_view", schema.name)
        )
        return operation(*args, **(kwargs or {}))


def filled_replay(config: Config, env: VectorEnv, device: torch.device, place: str, folder: Path) -> Replay:
    """Build the configured replay of `env`, full, in `place` ("gpu", "ram" or "disk"); its images are noise."""
    loop, spec = config.loop, env.spec
    envs = loop.envs or FILLING_WORLDS
    rows = ring_rows(loop.replay_capacity, envs, reach(config))
    shape = (rows, envs, *env.image_shape)
    size = int(np.prod(shape))
    images = storage.allocate(shape, storage.Storage(place, size, "benchmark"), device, folder)
    replay = build_replay(config, images, Shapes.of(env), device)
    noise = torch.randint(0, 256, (envs, *shape[2:]), dtype=torch.uint8, device=images.device)
    actions = np.zeros((envs, spec.action_dim), dtype=np.float32)
    ones = np.ones(envs, dtype=np.float32)
    beside = [np.zeros((envs, count), dtype=np.float32) for count in (spec.proprio_dim, spec.privileged_dim)]
    for row in range(rows):
        first = np.full(envs, row % EPISODE_ROWS == 0)
        last = np.full(envs, row % EPISODE_ROWS == EPISODE_ROWS - 1)
        replay.add(TimeStep(noise, actions, ones, ones, first, last, *beside))
    return replay


def bench_update(config: Config, hardware: Hardware, env: VectorEnv, repeats: int) -> None:
    """Time one whole update, sampling included, beside its eager fp32 form."""
    device = hardware.device
    small = config.with_loop(replay_capacity=5_000)
    times = {}
    for name, precision in ((hardware.precision, hardware.precision), (PLAIN, "fp32")):
        replay = filled_replay(small, env, device, "gpu" if device.type == "cuda" else "ram", Path())
        agent = build_agent(config, Shapes.of(env), device)
        learner = Learner(
            agent,
            replay,
            batch_size=config.loop.batch_size,
            precision=precision,
            device=device,
            capture=name != PLAIN,
        )
        make_cycle, cycle = _updater(learner)
        make_cycle()  # the first also creates the optimisers' state
        with Operations() as operations:
            make_cycle()
        times[name] = measure(make_cycle, repeats, device) / cycle
        print(
            f"update  {name:10s} batch {config.loop.batch_size}  {spread(times[name])}, "
            f"{operations.count / cycle:g} operations",
            flush=True,
        )
    print_ratio("update", times[PLAIN], times[hardware.precision], "eager fp32")


def _updater(learner: Learner) -> tuple[Callable[[], None], int]:
    """Return a function that makes one update of each kind that the agent has, and how many those are."""
    numbers = itertools.count()
    cycle = len(learner.agent.update_cycle)

    def make_cycle() -> None:
        for _ in range(cycle):
            learner.update(100_000, next(numbers))

    return make_cycle, cycle


def bench_replay(config: Config, hardware: Hardware, env: VectorEnv, repeats: int) -> None:
    """Time drawing a batch from a full replay and shifting it, wherever images can be kept here.

    The plain form shifts as the paper says, by bilinear interpolation of float32 images.

    Raises:
        ValueError: the agent learns from sequences, which nobody shifts.
    """
    if config.of_sequences:
        raise ValueError(
            f"bench replay draws and shifts transitions, and {config.agent} learns from sequences"
        )
    device, batch_size = hardware.device, config.loop.batch_size
    generator = torch.Generator(device).manual_seed(config.seed)

    def draw(replay: Replay, shifted: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
        batch = replay.sample(batch_size)
        shifted(batch.observation.stack, 4, generator)
        shifted(batch.next_observation.stack, 4, generator)

    with tempfile.TemporaryDirectory(dir=".") as folder:
        for place in ("gpu", "ram", "disk") if device.type == "cuda" else ("ram", "disk"):
            replay = filled_replay(config, env, device, place, Path(folder))
            times = measure(partial(draw, replay, random_shift), repeats, device)
            size = replay.images.nbytes / 1e9
            print(
                f"replay  {place:4s} {len(replay):,} transitions, {size:.2f} GB  {spread(times)}", flush=True
            )
            plain = measure(partial(draw, replay, interpolated_shift), repeats, device)
            print_ratio("replay", plain, times, "bilinear shifts in fp32")
            del replay


def interpolated_shift(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift (batch, channels, size, size) images by a sampling grid over their padded float32 form."""
    batch, _, size, _ = images.shape
    padded = F.pad(images.float(), (pad, pad, pad, pad), mode="replicate")
    offset = torch.randint(0, 2 * pad + 1, (batch, 1, 1, 2), generator=generator, device=images.device)
    pixel = torch.arange(size, device=images.device)
    place = torch.stack(torch.meshgrid(pixel, pixel, indexing="xy"), dim=-1) + offset
    grid = (2.0 * place + 1.0) / (size + 2 * pad) - 1.0
    return F.grid_sample(padded, grid, align_corners=False)


def bench_env(config: Config, hardware: Hardware, repeats: int) -> None:
    """Time physics, images and stacking of all worlds together, under random actions, beside one world alone."""
    times = {}
    for envs in dict.fromkeys((hardware.envs, 1)):
        env = build_env(config, hardware, envs, TRAIN_STREAM)
        try:
            times[envs] = measure(_stepper(env, config), repeats, hardware.device) / envs
        finally:
            env.close()
        workers = min(hardware.workers, envs)
        print(
            f"env     {config.task}, {envs} worlds, {workers} workers, {env.renderer.name}: "
            f"{1e3 / np.median(times[envs]):.0f} agent steps/s, each {spread(times[envs])}",
            flush=True,
        )
    if hardware.envs > 1:
        print_ratio("env", times[1], times[hardware.envs], "one world")


def _stepper(env: VectorEnv, config: Config) -> Callable[[], object]:
    """Return a function that makes one agent step in every world, images and stacks included."""
    stack = FrameStack(env.image_shape[0] * config.loop.frame_stack)
    random = np.random.default_rng(config.seed)
    stack.push(env.reset())

    def step() -> None:
        env.send(random.uniform(-1, 1, (env.num_worlds, env.spec.action_dim)).astype(np.float32))
        stack.push(env.receive())

    return step


def bench_train(config: Config, hardware: Hardware) -> None:
    """Time a whole run from the end of its warm-up on, and say which part of the loop the time went to.

    Without its checkpoints. The plain form is the paper's loop, with one world, eager and in fp32, for a tenth of
    the frames.
    """
    rate, parts = _train(config, hardware, plain=False)
    print(f"train   {config.task}, {hardware.envs} worlds: {rate:.1f} frames/s", flush=True)
    if hardware.device.type == "cuda":
        print("train   shares of a run in which each part waits for the GPU, so that none overlap:")
    for name, share in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"train   {share:6.1%}  {name}")
    memory = f"{psutil.Process().memory_info().rss / 1e9:.2f} GB of host memory in the main process"
    if hardware.device.type == "cuda":
        memory += f", {torch.cuda.max_memory_reserved() / 1e9:.2f} GB of GPU memory"
    print(f"train   {memory}", flush=True)
    # that run is held by its wrappers, in cycles, and its memory with it
    gc.collect()
    torch.cuda.empty_cache()
    slow = dataclasses.replace(hardware, precision="fp32", envs=1, workers=1)
    plain, _ = _train(config.with_loop(frames=config.loop.frames // 10), slow, plain=True)
    print(f"train   {rate / plain:.1f} times as fast as one world, eager fp32 ({plain:.1f} frames/s)")


class _Unsaved(TrainingRun):
    """Makes no checkpoints, which would be timed too."""

    def save(self, wait: bool = True) -> None:
        """Do nothing."""


def _train(config: Config, hardware: Hardware, *, plain: bool) -> tuple[float, dict[str, float]]:
    """Return the frames/s of a run after its first tenth, and the share of time of each part of the loop.

    The shares are of as many frames more, since to know a part's time is to wait for its end; none of a plain run.
    """
    repeat = config.loop.action_repeat
    warm_up = config.loop.seed_frames + config.loop.frames // 10 // repeat * repeat
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

    def until(frames: int) -> Config:
        return config.with_loop(frames=frames)

    with tempfile.TemporaryDirectory(dir=".") as folder:
        # of a run that would fill its replay, though this one ends before
        run = _Unsaved(until(config.loop.replay_capacity * repeat), Path(folder), hardware, resume=False)
        run.learner.capturable &= not plain

        def seconds_until(frames: int) -> float:
            run.config, run.progress.total_frames = until(frames), frames
            started = time.perf_counter()
            run.train()
            if hardware.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        try:
            seconds_until(warm_up)
            first_frame = run.frame
            seconds = seconds_until(warm_up + config.loop.frames)
            rate = (run.frame - first_frame) / seconds
            if plain:
                return rate, {}
            timed(run.learner, "update", "learn")
            timed(run.agent, "act", "act")
            timed(run.env, "send", "send actions")
            timed(run.env, "receive", "wait for physics, draw images")
            timed(run.replay, "add", "store rows")
            timed(run.memory, "push", "remember what was seen")
            seconds = seconds_until(warm_up + 2 * config.loop.frames)
        finally:
            run.close()
    spent["the rest"] = seconds - sum(spent.values())
    return rate, {name: part / seconds for name, part in spent.items()}


def bench_seeds(config: Config) -> None:
    """Time several seeds that train at the same time on this machine, each in a process of its own."""
    chosen = ("frames", "envs", "renderer", "precision", "device", "replay_capacity")
    overrides = {name: getattr(config.loop, name) for name in chosen}
    overrides["frames"] += config.loop.seed_frames
    # an evaluation where learning begins, and one at the end, take the time
    overrides |= {"eval_episodes": 1, "eval_every_frames": config.loop.seed_frames}
    for count in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            variants = [Variant(config.agent, config.preset)]
            jobs = plan([config.task], variants, range(1, count + 1), Path(folder), overrides)
            if failed := run_all(jobs, ThisMachine(count)):
                words = (failed[0].directory / "output.log").read_text().splitlines()
                raise RunError(f"{len(failed)} of {count} runs failed: {' '.join(words[-1:])}")
            rates = [_learning_speed(job.directory / "eval.csv", config.loop.seed_frames) for job in jobs]
        print(f"seeds   {count}: {sum(rates):.1f} frames/s together, {np.mean(rates):.1f} each", flush=True)


def _learning_speed(evaluations: Path, seed_frames: int) -> float:
    """Return the frames/s of a run from the end of its seed frames to its last frame.

    The evaluation in between, of one episode, is part of it: time enough frames.
    """
    learning = [row for row in read_table(evaluations) if int(row["frame"]) >= seed_frames]
    frames, hours = (float(learning[-1][name]) - float(learning[0][name]) for name in ("frame", "hour"))
    return frames / hours / 3600


def run(what: str, config: Config, repeats: int) -> None:
    """Run one benchmark and print its figures."""
    machine.prepare_process()
    hardware = choose_hardware(config)
    print(
        f"machine {machine.describe(hardware.device)}; commit {machine.commit()}; {config.agent}, "
        f"{config.preset}, {config.task}"
    )
    if what in ("update", "replay"):
        probe = build_env(config, dataclasses.replace(hardware, workers=1), 1, TRAIN_STREAM)
        probe.close()
        {"update": bench_update, "replay": bench_replay}[what](config, hardware, probe, repeats)
    elif what == "env":
        bench_env(config, hardware, repeats)
    elif what == "train":
        bench_train(config, hardware)
    else:
        bench_seeds(config)
