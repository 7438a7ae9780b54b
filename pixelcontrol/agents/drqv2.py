"""DrQ-v2: DDPG from pixels with random shifts, n-step returns and decaying exploration noise.

Read `update` beside the paper's Algorithm 1. Where the paper and the official code differ we follow the code,
because it produced the published curves; each such place says "departure".

The rows of the paper's Figure 9 that are built on DDPG are settings of this agent (see `PRESETS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pixelcontrol.agents.quick import QUICK
from pixelcontrol.augment import random_shift
from pixelcontrol.distributions import noisy_action, saturated_share, uniform_action
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import (
    ConvEncoder,
    DeterministicActor,
    TwinCritic,
    adam,
    descend,
    ema_update,
    initialise,
    load_state,
    rounded,
    save_state,
    twin_loss,
)
from pixelcontrol.schedules import linear_schedule
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update


@dataclass(frozen=True)
class DrQV2Settings:
    """What can be chosen about the agent. Defaults are Table 2 of the paper.

    Discount, n, batch size, replay and update ratio are the loop's (`config.LoopSettings`).
    """

    learning_rate: float = setting(1e-4, "Adam's step size, for all networks", "Table 2", low=0.0)
    critic_tau: float = setting(
        0.01, "rate at which the target critic follows the critic", "Table 2", low=0.0, high=1.0
    )
    feature_dim: int = setting(50, "width of the trunks' output", "Table 2", low=1)
    hidden_dim: int = setting(1024, "width of the hidden layers", "Table 2", low=1)
    stddev_initial: float = setting(1.0, "exploration noise at the start", "Table 2", low=0.0)
    stddev_final: float = setting(0.1, "exploration noise after the decay", "Table 2", low=0.0)
    stddev_duration: int = setting(
        500_000,
        "agent steps over which the noise decays; easy tasks 100k, hard tasks 2M",
        "Table 2; the unit, agent steps, is the official code's",
        low=1,
    )
    stddev_clip: float = setting(
        0.3,
        "bound of the noise in both losses; exploration is not clipped",
        "Table 2, official code",
        low=0.0,
    )
    saturation_penalty: float = setting(
        0.0,
        "weight of the squared mean action before tanh, in the actor's loss; keeps an actor with a high learning "
        "rate from saturating, where tanh has no gradient and the seed is dead",
        "departure; 0 is the paper's",
        low=0.0,
    )
    saturation_margin: float = setting(
        0.0,
        "means before tanh up to this size bear no penalty; 2 where rewards are rare, since there the penalty "
        "outweighs the rest of the loss and draws actions to zero",
        "ours",
        low=0.0,
    )
    exploration_steps: int = setting(
        2_000, "agent steps with uniformly random actions at the start", "Table 2", low=0
    )
    shift_pad: int = setting(4, "random shifts of up to this many pixels each way", "section 3.1", low=0)
    conv_filters: int = setting(32, "channels of each convolution", "SAC-AE's encoder, section 3.1", low=1)
    conv_strides: tuple[int, ...] = setting(
        (2, 1, 1, 1), "strides of the 3x3 convolutions", "as above", low=1
    )


class DrQV2:
    """The agent: an encoder, a deterministic actor, two critics and their slowly moving copies."""

    metric_names: tuple[str, ...] = (
        "critic_loss", "actor_loss", "q_mean", "target_mean", "saturation", "std"
    )  # fmt: skip

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: DrQV2Settings,
        *,
        device: torch.device,
        seed: int,
        proprio_dim: int = 0,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) of a stack.

        `proprio_dim` numbers of proprioception come beside it.
        """
        self.settings = settings
        self.device = device
        self.action_dim = action_dim

        # Weights are drawn on the CPU, so that a seed means the same network on every device.
        self.encoder = ConvEncoder(
            observation_shape, settings.conv_filters, settings.conv_strides, proprio_dim=proprio_dim
        )
        sizes = (self.encoder.feature_count, action_dim, settings.feature_dim, settings.hidden_dim)
        self.actor = DeterministicActor(*sizes, proprio_dim=proprio_dim)
        self.critic = TwinCritic(*sizes, proprio_dim=proprio_dim)
        weights = torch.Generator().manual_seed(seed)
        for network in (self.encoder, self.actor, self.critic):
            initialise(network, weights)
            network.to(device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

        # One optimiser for critic and encoder: Adam treats every parameter alone, so it equals the official two.
        critic_weights = [*self.critic.parameters(), *self.encoder.parameters()]
        self.critic_optimiser = adam(critic_weights, settings.learning_rate)
        self.actor_optimiser = adam(self.actor.parameters(), settings.learning_rate)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """All updates are alike."""
        return (self.update,)

    def std(self, agent_step: Int64[Tensor, ""]) -> Float32[Tensor, ""]:
        """Return the standard deviation of the exploration noise (Eq. 3; see `linear_schedule`)."""
        s = self.settings
        return linear_schedule(agent_step, s.stddev_initial, s.stddev_final, s.stddev_duration)

    def memory(self, generator: torch.Generator) -> FrameStack:
        """Return a memory of the last images, which needs no random numbers."""
        return FrameStack(self.encoder.channels)

    @torch.no_grad()
    def act(self, observation: Observation, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions: uniform at first, then the policy's with unclipped noise."""
        self.encoder.show(observation.proprio)
        if agent_step < self.settings.exploration_steps:
            return uniform_action(len(observation.stack), self.action_dim, self.generator)
        std = self.std(torch.full((), agent_step, device=self.device))
        return noisy_action(self.act_greedily(observation), std, self.generator)

    @torch.no_grad()
    def act_greedily(self, observation: Observation) -> Float32[Tensor, "worlds action"]:
        """Choose the policy's mean actions."""
        return self.actor(self.encoder(*observation.seen)).tanh()

    def update(self, batch: Transitions, agent_step: Int64[Tensor, ""]) -> dict[str, Tensor]:
        """Update critic, encoder, actor and target critic once (Algorithm 1).

        Departures from the printed algorithm, all as in the official code: one batch and one shift serve both
        losses, and the actor sees the features from before the encoder's step.

        Networks are called by way of `rounded`, which casts all their weights together: fewer launches in bf16.
        """
        std = self.std(agent_step)
        stack, proprio = batch.observation.seen
        next_stack, next_proprio = batch.next_observation.seen
        stack = random_shift(stack, self.settings.shift_pad, self.generator)
        next_stack = random_shift(next_stack, self.settings.shift_pad, self.generator)
        (encoder,) = rounded(self.encoder)
        features = encoder(stack, proprio)
        with torch.no_grad():
            next_features = encoder(next_stack, next_proprio)
        loss, metrics = critic_loss(self, features, batch, next_features, next_features, std)
        descend(loss, self.critic_optimiser)
        metrics |= update_actor(self, features.detach(), features.detach(), std)
        ema_update(self.target_critic.parameters(), self.critic.parameters(), self.settings.critic_tau)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self)


@runtime_checkable
class ActorCritic(Protocol):
    """What the losses below are of: DrQ-v2, and the privileged agent, whose critics see more than its actor."""

    @property
    def settings(self) -> DrQV2Settings:
        """Of the agent."""

    generator: torch.Generator
    actor: DeterministicActor
    critic: TwinCritic
    target_critic: TwinCritic
    critic_optimiser: torch.optim.Adam
    actor_optimiser: torch.optim.Adam


def critic_loss(
    agent: ActorCritic,
    known: Tensor,
    batch: Transitions,
    next_seen: Tensor,
    next_known: Tensor,
    std: Float32[Tensor, ""],
) -> tuple[Float32[Tensor, ""], dict[str, Tensor]]:
    """Return Eq. 1, for the critic and, through `known`, the encoder to minimise; and metrics.

    The n steps of the return are in the batch: its `reward` is their discounted sum, its `discount` gamma^n,
    or 0 behind a true end. There is no slow copy of the encoder: next features are its present ones.

    Args:
        agent: whose critic learns.
        known: what the critics know of each observation: features, in DrQ-v2.
        batch: the transitions.
        next_seen: what the actor sees n steps on: features, in DrQ-v2.
        next_known: what the critics know then.
        std: of the noise of the next actions.
    """
    actor, critic, target_critic = rounded(agent.actor, agent.critic, agent.target_critic)
    with torch.no_grad():
        next_mean = actor(next_seen).tanh()
        next_action = noisy_action(next_mean, std, agent.generator, agent.settings.stddev_clip)
        next_value = target_critic(next_known, next_action).amin(dim=0)
        target = batch.reward + batch.discount * next_value

    q = critic(known, batch.action)
    loss = twin_loss(q, target)
    return loss, {"critic_loss": loss.detach(), "q_mean": q.detach().mean(), "target_mean": target.mean()}


def saturation_loss(
    pre_tanh: Float32[Tensor, "batch action"], settings: DrQV2Settings
) -> Float32[Tensor, ""]:
    """Return the penalty on mean actions, given before tanh (departure, see `saturation_penalty`)."""
    beyond = (pre_tanh.abs() - settings.saturation_margin).relu()
    return settings.saturation_penalty * beyond.square().mean()


def update_actor(
    agent: ActorCritic, seen: Tensor, known: Tensor, std: Float32[Tensor, ""]
) -> dict[str, Tensor]:
    """Minimise Eq. 2 with respect to the actor alone, which sees `seen` and is judged by what critics know."""
    (actor,) = rounded(agent.actor)
    with torch.no_grad():
        (critic,) = rounded(agent.critic)
    pre_tanh = actor(seen)
    action = noisy_action(pre_tanh.tanh(), std, agent.generator, agent.settings.stddev_clip)
    loss = -critic(known, action).amin(dim=0).mean()
    if agent.settings.saturation_penalty:
        loss = loss + saturation_loss(pre_tanh, agent.settings)
    descend(loss, agent.actor_optimiser)
    return {"actor_loss": loss.detach(), "saturation": saturated_share(pre_tanh), "std": std}


# Overrides of the defaults, which are Table 2, and of the deviations that belong to a task.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # What Figure 9 adds row by row to DDPG: one-step returns (a), three steps (b), a large replay (c), decaying
    # noise (d), which is DrQ-v2. The first three keep their values on tasks for which DrQ-v2 has others. The
    # paper does not state batch size, learning rate and update ratio of its rows; these have DrQ-v2's.
    "ablation-a": {"n_step": 1, "replay_capacity": 100_000, "stddev_initial": 0.2, "stddev_final": 0.2},
    "ablation-b": {"n_step": 3, "replay_capacity": 100_000, "stddev_initial": 0.2, "stddev_final": 0.2},
    "ablation-c": {"n_step": 3, "replay_capacity": 1_000_000, "stddev_initial": 0.2, "stddev_final": 0.2},
    "ablation-d": {},
    # A body that learns to run on two CPU cores while one has a coffee: the same algorithm, smaller, with rates to
    # match. Found by the trials in LOG.md.
    "quick": QUICK
    | {
        "shift_pad": 2,  # the paper's share of the image
        "learning_rate": 4e-4,
        "saturation_penalty": 0.01,
        "saturation_margin": {"pendulum": 2.0, "other": 0.0},
        "critic_tau": 0.02,
        "stddev_duration": 32_000,
        "n_step": 3,  # the walker's too
    },
}
