"""Use a trained agent from Python, in three lines::

policy = pixelcontrol.load("runs/my_run")
observation = ...  # uint8 (9, 84, 84): the last three images, oldest first, colour planes first
action = policy(observation)  # float32 (action_dim,), in [-1, 1]
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from pixelcontrol import machine
from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import Config, read_config
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.evaluate import Evaluation, evaluate
from pixelcontrol.train import EVAL_STREAM, build_agent, build_env, choose_hardware
from pixelcontrol.types import Agent

MAX_WORLDS = 10


class _Greedy(nn.Module):
    """An agent's best actions, as the module that `torch.export` wants."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, observation: Tensor) -> Tensor:
        return self.agent.act_greedily(observation)


@dataclass(frozen=True)
class Policy:
    """A trained agent, ready to act.

    Attributes:
        config: of the run that trained it.
        agent: the agent itself.
        frame: environment frames that it has seen.
        observation_shape: (channels, height, width) of what it acts on.
    """

    config: Config
    agent: Agent
    frame: int
    observation_shape: tuple[int, int, int]

    def __call__(
        self, observation: UInt8[np.ndarray, "*batch channels height width"]
    ) -> Float32[np.ndarray, "*batch action"]:
        """Return the best action for one observation, or for a batch of them."""
        pixels = torch.from_numpy(np.ascontiguousarray(observation))
        single = pixels.ndim == 3
        action = self.agent.act_greedily(pixels[None] if single else pixels).numpy()
        return action[0] if single else action

    def export(self, path: Path) -> None:
        """Write a program that chooses these actions with PyTorch alone, for a robot without this package::

            act = torch.export.load("policy.pt2").module()
            action = act(observations)  # uint8 (batch, channels, height, width) -> float32 (batch, action_dim)

        Raises:
            OSError: the file cannot be written.
        """
        # more than one: PyTorch would take a batch of 1 for a promise
        example = torch.zeros(2, *self.observation_shape, dtype=torch.uint8)
        program = torch.export.export(
            _Greedy(self.agent), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
        buffer = io.BytesIO()
        with warnings.catch_warnings():  # it takes weights that lie channels-last for parts of larger ones
            warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
            torch.export.save(program, buffer)
        path.write_bytes(buffer.getbuffer())

    def evaluate(
        self, episodes: int, *, renderer: RendererName | None = None, seed: int | None = None
    ) -> Evaluation:
        """Run episodes of the task it was trained on, on the images of `renderer` (its own by default)."""
        config = self.config if seed is None else replace(self.config, seed=seed)
        hardware = choose_hardware(config)
        env = build_env(config, hardware, min(episodes, MAX_WORLDS), EVAL_STREAM, renderer=renderer)
        try:
            return evaluate(self.agent, env, episodes, config.loop.frame_stack)
        finally:
            env.close()


def load(run_dir: str | Path) -> Policy:
    """Load the agent of a run's last checkpoint, on the CPU.

    Raises:
        ValueError: there is no run.
        CheckpointError: the checkpoint cannot be read; says why.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    config = replace(config, loop=replace(config.loop, device="cpu", precision="fp32"))
    machine.prepare_process()
    state = Checkpoints(run_dir).load()
    image_shape = tuple(state["image_shape"])
    agent = build_agent(config, image_shape, state["action_dim"], torch.device("cpu"))
    agent.load_state_dict(state["agent"])
    channels, height, width = image_shape
    observation_shape = (channels * config.loop.frame_stack, height, width)
    frame = state["counters"]["agent_step"] * config.loop.action_repeat
    return Policy(config, agent, frame, observation_shape)
