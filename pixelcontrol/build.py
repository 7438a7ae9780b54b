"""From a configuration to the parts of a run: device, worlds, agent and replay."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8

from pixelcontrol import machine
from pixelcontrol.checkpoint import CheckpointError, Checkpoints
from pixelcontrol.config import AGENTS, Config, agent_kind, read_config
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.envs.make import make_env, refuse_several_robots
from pixelcontrol.envs.tasks import find_task
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.learner import choose_precision
from pixelcontrol.replay import SequenceReplay, TransitionReplay
from pixelcontrol.rundir import read_json
from pixelcontrol.settings import flag, spell
from pixelcontrol.types import Agent, Replay, WorldSpec

# Training and evaluation worlds draw their episodes from different random streams of one seed.
TRAIN_STREAM, EVAL_STREAM = 0, 1


@dataclass(frozen=True)
class Hardware:
    """What "auto" became on this machine, and why.

    At most `workers` processes step the worlds, and at most as many others those of evaluations.
    """

    device: torch.device
    precision: str
    precision_reason: str
    envs: int
    workers: int


def choose_hardware(config: Config) -> Hardware:
    """Fill in what depends on this machine.

    Raises:
        ValueError: the wanted device or precision does not exist here.
    """
    loop = config.loop
    device = machine.choose_device(loop.device)
    precision, reason = choose_precision(loop.precision, device)
    envs = loop.envs or (16 if device.type == "cuda" else 1)
    cores = machine.usable_cores()
    if "OMP_NUM_THREADS" in os.environ:  # a sweep's way of giving each run its share
        cores = min(cores, torch.get_num_threads())
    return Hardware(device, precision, reason, envs, loop.workers or cores)


@dataclass(frozen=True)
class Shapes:
    """What of its worlds an agent is built for: one trained in others can neither go on in these nor act.

    Attributes:
        image_shape: (channels, height, width).
        action_dim, proprio_dim, privileged_dim: see `WorldSpec`.
    """

    image_shape: tuple[int, int, int]
    action_dim: int
    proprio_dim: int = 0
    privileged_dim: int = 0

    @classmethod
    def of(cls, env: VectorEnv) -> Shapes:
        """Return those of an environment's worlds."""
        spec = env.spec
        return cls(env.image_shape, spec.action_dim, spec.proprio_dim, spec.privileged_dim)


def build_agent(config: Config, shapes: Shapes, device: torch.device) -> Agent:
    """Build the configured agent with fresh weights.

    Raises:
        ValueError: it takes no proprioception, or no images of this size, or learns with what these worlds do not
            disclose; or it is a user's own, and not all that a run asks of an agent.
    """
    channels, *size = shapes.image_shape
    shape = (channels * config.loop.frame_stack, *size)
    kind = agent_kind(config.agent)
    if shapes.proprio_dim and config.of_sequences:
        sensing = [name for name, other in AGENTS.items() if other.learns_from == "transitions"]
        raise ValueError(
            f"{config.task} gives proprioception ({shapes.proprio_dim} numbers), and {config.agent} learns from "
            f"images alone; use --agent {', '.join(sensing[:-1])} or {sensing[-1]}, or a world without"
        )
    if kind.privileged and not shapes.privileged_dim:
        raise ValueError(
            f"{config.agent} learns with what the simulator knows, and {config.task} discloses nothing; the "
            "suite's tasks do, and own worlds that were made with privileged=True"
        )
    # Ours draw weights from the seed by a generator of their own; a user's may take them as PyTorch makes them.
    torch.manual_seed(config.seed)
    own = {"proprio_dim": shapes.proprio_dim} if shapes.proprio_dim else {}
    if kind.privileged:
        own["privileged_dim"] = shapes.privileged_dim
    agent = kind.build(
        shape, shapes.action_dim, config.agent_settings, device=device, seed=config.seed, **own
    )
    asked = (*Agent.__annotations__, *(name for name in vars(Agent) if not name.startswith("_")))
    if missing := [name for name in asked if not hasattr(agent, name)]:
        raise ValueError(
            f"{config.agent} has no {', no '.join(missing)} (see `Agent` in pixelcontrol/types.py)"
        )
    return agent


def learned(agent_state: Mapping[str, Any]) -> dict[str, Any]:
    """Return of an agent's state what it has learned: all but its optimisers and its random state."""
    of_an_optimiser = {"state", "param_groups"}
    return {
        name: part
        for name, part in agent_state.items()
        if name != "generator" and not (isinstance(part, Mapping) and part.keys() == of_an_optimiser)
    }


def restore(agent: Agent, state: Mapping[str, Any]) -> None:
    """Give an agent a state that was saved.

    Raises:
        ValueError: an agent of another kind, or of other settings, saved it; says how they differ.
    """
    try:
        agent.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError) as error:
        if machine.ran_out_of_memory(error):
            raise
        difference = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"what was saved is no state of {type(agent).__name__} as it is here: {difference}"
        ) from error


def reach(config: Config) -> int:
    """Return how many rows of one world an element of a batch reaches over."""
    if config.of_sequences:
        return int(config.agent_settings.sequence_length)
    return config.loop.n_step + config.loop.frame_stack


def refuse_what_cannot_run(config: Config, spec: WorldSpec, num_worlds: int) -> None:
    """Refuse a run that would open a robot twice, or have too few rows for a batch when its first update is due.

    Args:
        config: of the run.
        spec: of its worlds.
        num_worlds: that it trains in.

    Raises:
        ValueError: names the setting, and what it must be.
    """
    refuse_several_robots(config.task, spec, num_worlds)
    if config.loop.eval_episodes and not spec.repeats:
        raise ValueError(
            f"{config.task} does not repeat, as a robot of which there is one, and evaluations would open "
            "another: use --eval-episodes 0"
        )
    sequences = config.of_sequences
    needed = reach(config) if sequences else config.loop.n_step + 1
    repeat, frames = config.loop.action_repeat, spec.episode_frames
    rows = -(-frames // repeat) + 1 if frames else needed
    if sequences and rows < needed:
        raise ValueError(
            f"--sequence-length is {needed} images, but an episode of {config.task} has {rows} at --action-repeat "
            f"{repeat}; lower it to {rows}"
        )
    if config.loop.seed_frames // repeat // num_worlds + 1 < needed:
        why = "--sequence-length" if sequences else "--n-step and one"
        raise ValueError(
            f"--seed-frames {config.loop.seed_frames} give fewer than {needed} images ({why}) of each of "
            f"{num_worlds} worlds; raise it to {(needed - 1) * repeat * num_worlds}"
        )


def build_replay(
    config: Config,
    images: UInt8[torch.Tensor, "rows worlds channels height width"],
    shapes: Shapes,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Replay:
    """Build the replay from which the configured agent learns, on memory for its images.

    Its draws come from `generator`, or from a stream of their own of the run's seed.
    """
    loop = config.loop
    generator = generator or machine.random_stream(config.seed, "replay", images.device)
    if config.of_sequences:
        return SequenceReplay(
            images, action_dim=shapes.action_dim, length=reach(config), device=device, generator=generator,
            oversample_ends=config.agent_settings.foresee_ends,
        )  # fmt: skip
    return TransitionReplay(
        images, action_dim=shapes.action_dim, n_step=loop.n_step, gamma=loop.discount,
        frame_stack=loop.frame_stack, device=device, generator=generator, proprio_dim=shapes.proprio_dim,
        privileged_dim=shapes.privileged_dim,
    )  # fmt: skip


def build_env(
    config: Config, hardware: Hardware, num_worlds: int, stream: int, *, renderer: RendererName | None = None
) -> VectorEnv:
    """Start `num_worlds` worlds of the configured task; `renderer` overrides the configured one."""
    loop = config.loop
    task = find_task(config.task)
    return make_env(
        dataclasses.replace(task, camera=loop.camera or task.camera, depth=loop.depth, proprio=loop.proprio),
        num_worlds=num_worlds,
        num_workers=hardware.workers,
        renderer=renderer or loop.renderer,
        image_size=loop.height_and_width,
        action_repeat=loop.action_repeat,
        device=str(hardware.device),
        seed=config.seed,
        stream=stream,
        # a policy is judged where nothing is disclosed to it
        privileged=agent_kind(config.agent).privileged and stream != EVAL_STREAM,
    )


def start_from(run_dir: Path, config: Config, agent: Agent, shapes: Shapes) -> str:
    """Give `agent` the networks of another run's last checkpoint; all else of it begins anew.

    Args:
        run_dir: of that run.
        config: of this run.
        agent: of this run.
        shapes: of this run's worlds.

    Returns:
        What its worlds' images, proprioception and actions were, in words.

    Raises:
        ValueError: there is no such run, it has no usable checkpoint, or its worlds or networks are others.
    """
    before = read_config(run_dir)
    try:
        seen = dataclasses.asdict(shapes)
        del seen["privileged_dim"]  # of the agent's kind, which its networks tell better
        alike = "let worlds show the same, by task, --image-size, --camera, --depth, --proprio or code"
        state = Checkpoints(run_dir).load(expected=seen, remedy=alike)
    except CheckpointError as error:
        raise ValueError(f"--start-from is {run_dir}: {error}") from error
    if state["agent"].keys() == set(agent_kind(before.agent).acts_with):
        raise ValueError(f"--start-from is {run_dir}, a policy without critics; name the run that it is of")
    fresh = agent.state_dict()
    begins_anew = {name: fresh[name] for name in fresh.keys() - learned(fresh).keys()}
    try:
        restore(agent, begins_anew | learned(state["agent"]))
    except ValueError as error:
        there, here = before.flat(), config.flat()
        shaping = {item.name for item in dataclasses.fields(config.agent_settings)} | {"frame_stack"}
        others = [name for name in here if name in shaping and there.get(name) != here[name]]
        if before.agent != config.agent:
            remedy = f"are of {before.agent}, and this run's of {config.agent}"
        elif others:
            differ = ", ".join(
                f"{flag(name)} {spell(there[name])}, here {spell(here[name])}" for name in others
            )
            remedy = f"have other settings, some of which matter: {differ}"
        else:
            remedy = f"are not built as this run's: {error}"
        raise ValueError(f"--start-from is {run_dir}, whose networks {remedy}") from error
    return str(read_json(run_dir / "config.json").get("world", ""))
