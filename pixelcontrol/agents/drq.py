"""DrQ (arXiv:2004.13649): SAC, with targets and losses averaged over randomly shifted views of each image.

Everything but `update` is SAC's. With one view of each kind and no shift, and SAC's settings, it *is* SAC.
We follow the official code (denisyarats/drq). A raw image is never learned from: all views are shifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pixelcontrol.agents.quick import QUICK
from pixelcontrol.agents.sac import (
    SAC,
    SOFT_LOOP,
    SACModel,
    SACSettings,
    exploit,
    explore,
    soft_value,
    update_actor,
    update_critic,
    update_targets,
)
from pixelcontrol.augment import random_shift
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import load_state, save_state
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update


@dataclass(frozen=True)
class DrQSettings(SACSettings):
    """What can be chosen about the agent: SAC's settings, those in which DrQ's code differs, and its own."""

    temperature_learning_rate: float = setting(
        1e-3, "Adam's step size, for the temperature", "DrQ, table 4", low=0.0
    )
    temperature_beta1: float = setting(
        0.9, "Adam's decay of the first moment, for the temperature", "DrQ's code", low=0.0, high=0.999
    )
    encoder_tau: float = setting(
        0.01, "rate at which the target's convolutions and its trunk follow", "DrQ's code", low=0.0, high=1.0
    )
    delta_orthogonal: bool = setting(
        False, "whether convolutions start as maps of single pixels", "DrQ's code"
    )
    slope_floor: float = setting(
        0.0, "added to tanh's slope in the density of an action", "DrQ's code", low=0.0, high=1.0
    )
    target_views: int = setting(
        2, "shifted views of the next observation that a target averages over (K)", "DrQ, section 4.2", low=1
    )
    views: int = setting(
        2, "shifted views of the observation that the critic's loss averages over (M)", "as above", low=1
    )
    shift_pad: int = setting(4, "random shifts of up to this many pixels each way", "DrQ, section 3.1", low=0)


def shifted(observation: Observation, views: int, pad: int, generator: torch.Generator) -> Observation:
    """Return `views` shifted views of a batch, one behind the other; all of them sense the same."""
    stack = random_shift(observation.stack.repeat(views, 1, 1, 1), pad, generator)
    return Observation(stack, observation.proprio.repeat(views, 1), observation.privileged.repeat(views, 1))


class DrQ:
    """The agent: a `SACModel` that learns from shifted images."""

    metric_names: tuple[str, ...] = SAC.metric_names

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: DrQSettings,
        *,
        device: torch.device,
        seed: int,
        proprio_dim: int = 0,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) of a stack.

        `proprio_dim` numbers of proprioception come beside it.
        """
        self.settings = settings
        weights = torch.Generator().manual_seed(seed)
        self.model = SACModel(observation_shape, action_dim, settings, device, weights, proprio_dim)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """Every second update is one of the critic alone (DrQ's code)."""
        return self.update, partial(self.update, delayed=False)

    def memory(self, generator: torch.Generator) -> FrameStack:
        """Return a memory of the last images; it draws nothing."""
        return FrameStack(self.model.encoder.channels)

    def act(self, observation: Observation, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions: uniform at first, then drawn from the policy."""
        return explore(self.model, observation, agent_step, self.generator)

    def act_greedily(self, observation: Observation) -> Float32[Tensor, "worlds action"]:
        """Choose the policy's median actions."""
        return exploit(self.model, observation)

    def update(
        self, batch: Transitions, agent_step: Int64[Tensor, ""], *, delayed: bool = True
    ) -> dict[str, Tensor]:
        """Update critic and encoder once; if `delayed`, then actor, temperature and slow copies too.

        The views of a batch lie one behind the other in a larger batch. All views of the observation are held
        against the same target, and the actor learns from the first of them.

        Departure: the critic's loss is the mean over views, as in the paper; the code takes the sum. Adam does
        not notice.
        """
        s = self.settings
        observation = shifted(batch.observation, s.views, s.shift_pad, self.generator)
        next_observation = shifted(batch.next_observation, s.target_views, s.shift_pad, self.generator)
        values = soft_value(self.model, next_observation, self.generator)
        target = batch.reward + batch.discount * values.view(s.target_views, -1).mean(dim=0)
        metrics = update_critic(
            self.model, observation, batch.action.repeat(s.views, 1), target.repeat(s.views)
        )
        if delayed:
            first_view = Observation(*(part[: len(batch.action)] for part in observation))
            metrics |= update_actor(self.model, first_view, self.generator)
            update_targets(self.model)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self.model, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self.model, self)


PRESETS: dict[str, dict[str, Any]] = {
    # DrQ's paper on the Dreamer benchmark, whose curves its repository ships: action repeat 2.
    "author": SOFT_LOOP
    | {
        "batch_size": 512,  # "use 512 to reproduce the results in the paper"; the code's default is 128
        "replay_capacity": 100_000,
        "seed_frames": 2_000,  # 1,000 agent steps
    },
    # See `sac.PRESETS`. The replay's size is DrQ's and Figure 9c's.
    "paper": SOFT_LOOP | {"replay_capacity": 100_000, "seed_frames": 2_000},
    "quick": SOFT_LOOP | QUICK | {"shift_pad": 2},
}
