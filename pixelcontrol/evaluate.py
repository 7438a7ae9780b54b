"""Evaluation: episodes with the agent's best guess at each step, in worlds of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from pixelcontrol.distributions import SATURATED_MEAN
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.types import Agent

# What an agent's memory draws in an evaluation is the same every time.
MEMORY_SEED = 0

# 100 s of film; an episode may never end.
MAX_FILM_IMAGES = 3_000

ENDLESS = (
    "episodes of {task} tell no time limit, and an evaluation waits for their ends: where these may never come, "
    "use gymnasium.wrappers.TimeLimit, or DmcWorld(..., episode_frames=...)"
)


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        returns: undiscounted return of each episode.
        video: the first episode's first `MAX_FILM_IMAGES` by the first camera, (images, height, width, 3).
        renderer: what drew the images.
        success_rate: share of the episodes in which the task was achieved; None where the worlds do not tell.
        saturated: whether every action was one and the same, at its bounds: a policy that looks at nothing.
    """

    returns: Float64[np.ndarray, " episodes"]
    video: UInt8[np.ndarray, "images height width 3"]
    renderer: str
    success_rate: float | None
    saturated: bool

    @property
    def mean(self) -> float:
        """Of the returns."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Of the returns, over episodes."""
        return float(self.returns.std())

    def __str__(self) -> str:
        """Return, over how many episodes, and in which share of them the task was achieved, where that is told."""
        achieved = "" if self.success_rate is None else f", success in {self.success_rate:.0%}"
        return f"{self.mean:.1f} +- {self.std:.1f} over {len(self.returns)} episodes{achieved}"


def evaluate(
    agent: Agent,
    env: VectorEnv,
    episodes: int,
    before_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run `episodes` episodes, as many at a time as `env` has worlds. Neither agent nor training notices.

    Args:
        agent: acts greedily.
        env: where it acts.
        episodes: how many.
        before_step: called before each agent step; what it raises breaks the evaluation off.
    """
    returns: list[float] = []
    successes: list[bool] = []
    video: list[Tensor] = []
    lowest, highest = np.full(env.spec.action_dim, np.inf), np.full(env.spec.action_dim, -np.inf)
    while len(returns) < episodes:
        memory = agent.memory(torch.Generator(agent.generator.device).manual_seed(MEMORY_SEED + len(returns)))
        total, success = np.zeros(env.num_worlds), np.zeros(env.num_worlds, dtype=bool)
        running = np.ones(env.num_worlds, dtype=bool)
        filming = not returns
        step = env.reset()
        while True:
            observation = memory.push(step)
            if filming and running[0] and len(video) < MAX_FILM_IMAGES:
                video.append(step.image[0, :3].clone())  # a view would keep all worlds' images
            running &= ~step.last
            if not running.any():
                break
            before_step()
            with torch.no_grad():
                actions = agent.act_greedily(observation).cpu().numpy()
            lowest, highest = np.minimum(lowest, actions.min(0)), np.maximum(highest, actions.max(0))
            env.send(actions)
            step = env.receive()
            # A running world that is `first` failed and starts its episode again; others have done theirs.
            failed = running & step.first
            total = np.where(failed, 0.0, total + np.where(running, step.reward, 0.0))
            if step.success is not None:
                success = np.where(running, step.success, success)
            if filming and failed[0]:
                video.clear()
        returns.extend(total)
        successes.extend(success)
    bound = math.tanh(SATURATED_MEAN)
    saturated = bool(((lowest > bound) | (highest < -bound)).all())
    film = torch.stack(video).permute(0, 2, 3, 1).cpu().numpy()
    success_rate = float(np.mean(successes[:episodes])) if env.spec.tells_success else None
    return Evaluation(np.array(returns[:episodes]), film, env.renderer.name, success_rate, saturated)
