"""Use a trained agent from Python, in three lines::

policy = pixelcontrol.load("runs/my_run")
observation = ...  # uint8 (9, 84, 84): the last three images, oldest first, colour planes first
action = policy(observation)  # float32 (action_dim,), in [-1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pixelcontrol import machine
from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import Config, read_config
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.evaluate import Evaluation, evaluate
from pixelcontrol.train import EVAL_STREAM, build_agent, build_env, choose_hardware
from pixelcontrol.types import Agent

MAX_WORLDS = 10


@dataclass(frozen=True)
class Policy:
    """A trained agent, ready to act.

    Attributes:
        config: of the run that trained it.
        agent: the agent itself.
        frame: environment frames that it has seen.
    """

    config: Config
    agent: Agent
    frame: int

    def __call__(
        self, observation: UInt8[np.ndarray, "*batch channels height width"]
    ) -> Float32[np.ndarray, "*batch action"]:
        """Return the best action for one observation, or for a batch of them."""
        pixels = torch.from_numpy(np.ascontiguousarray(observation))
        single = pixels.ndim == 3
        action = self.agent.act_greedily(pixels[None] if single else pixels).numpy()
        return action[0] if single else action

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
    agent = build_agent(config, tuple(state["image_shape"]), state["action_dim"], torch.device("cpu"))
    agent.load_state_dict(state["agent"])
    return Policy(config, agent, state["counters"]["agent_step"] * config.loop.action_repeat)
