"""DrQ-v2 whose critics are told what the simulator knows, and whose policy guesses it from images.

In a simulator, where bodies are and how fast they move need not be found in pixels by trial and error. So the
critics are told; the encoder learns, beside what the critics teach it, to say it; and the actor is given that
guess beside the features. All else is DrQ-v2's, and a trained policy sees what any other here sees.

Sources: Pinto et al., *Asymmetric Actor Critic for Image-Based Robot Learning*, 2017 (arXiv:1710.06542), for
critics that know more than the policy; Levine et al., *End-to-End Training of Deep Visuomotor Policies*, 2016
(arXiv:1504.00702), for convolutions that learn to tell poses which are known in training. Who compares a curve of
this agent with those of agents that learn from images alone must say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pixelcontrol.agents.drqv2 import PRESETS as DRQV2_PRESETS
from pixelcontrol.agents.drqv2 import DrQV2Settings, critic_loss, update_actor
from pixelcontrol.augment import random_shift
from pixelcontrol.distributions import noisy_action, uniform_action
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import (
    ConvEncoder,
    DeterministicActor,
    RunningNorm,
    Trunk,
    TwinCritic,
    adam,
    descend,
    ema_update,
    initialise,
    load_state,
    mlp,
    rounded,
    save_state,
)
from pixelcontrol.schedules import linear_schedule
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update


@dataclass(frozen=True)
class PrivilegedSettings(DrQV2Settings):
    """What can be chosen about the agent beside DrQ-v2's settings."""

    guess_weight: float = setting(
        1.0,
        "weight of the guess's error beside the critics' loss, in units of that loss, or of 1 where it is less; "
        "with 0 the guess learns nothing",
        "ours",
        low=0.0,
    )


class Privileged:
    """The agent: DrQ-v2's networks, and a guesser of what the simulator knows, on the encoder's features.

    What is privileged is normed by all that the run has met so far, and so are guesses of it. Critics and actor
    get it behind the features, where proprioception lies, too: critics as it is, the actor as it is guessed.
    """

    metric_names: tuple[str, ...] = (
        "critic_loss", "actor_loss", "q_mean", "target_mean", "saturation", "std", "guess_error"
    )  # fmt: skip

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: PrivilegedSettings,
        *,
        device: torch.device,
        seed: int,
        privileged_dim: int,
        proprio_dim: int = 0,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) of a stack.

        `proprio_dim` numbers of proprioception come beside it, and in training `privileged_dim` others.
        """
        self.settings = settings
        self.device = device
        self.action_dim = action_dim

        self.encoder = ConvEncoder(
            observation_shape, settings.conv_filters, settings.conv_strides, proprio_dim=proprio_dim
        )
        features, small = self.encoder.feature_count, settings.feature_dim
        sizes = (features, action_dim, small, settings.hidden_dim)
        self.actor = DeterministicActor(*sizes, proprio_dim=proprio_dim + privileged_dim)
        self.critic = TwinCritic(*sizes, proprio_dim=proprio_dim + privileged_dim)
        self.guesser = nn.Sequential(
            Trunk(features, small), mlp(small + proprio_dim, settings.hidden_dim, privileged_dim)
        )
        self.norm = RunningNorm(privileged_dim)
        weights = torch.Generator().manual_seed(seed)
        for network in (self.encoder, self.actor, self.critic, self.guesser, self.norm):
            initialise(network, weights)
            network.to(device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

        critic_weights = [
            *self.critic.parameters(), *self.encoder.parameters(), *self.guesser.parameters()
        ]  # fmt: skip
        self.critic_optimiser = adam(critic_weights, settings.learning_rate)
        self.actor_optimiser = adam(self.actor.parameters(), settings.learning_rate)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """All updates are alike."""
        return (self.update,)

    def std(self, agent_step: Int64[Tensor, ""]) -> Float32[Tensor, ""]:
        """Return the standard deviation of the exploration noise, as DrQ-v2."""
        s = self.settings
        return linear_schedule(agent_step, s.stddev_initial, s.stddev_final, s.stddev_duration)

    def memory(self, generator: torch.Generator) -> FrameStack:
        """Return a memory of the last images, which needs no random numbers."""
        return FrameStack(self.encoder.channels)

    @torch.no_grad()
    def act(self, observation: Observation, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions, as DrQ-v2, from what is seen alone; what is disclosed is shown to its norm."""
        self.encoder.show(observation.proprio)
        self.norm.show(observation.privileged)
        if agent_step < self.settings.exploration_steps:
            return uniform_action(len(observation.stack), self.action_dim, self.generator)
        std = self.std(torch.full((), agent_step, device=self.device))
        return noisy_action(self.act_greedily(observation), std, self.generator)

    @torch.no_grad()
    def act_greedily(self, observation: Observation) -> Float32[Tensor, "worlds action"]:
        """Choose the policy's mean actions, from what is seen alone."""
        features = self.encoder(*observation.seen)
        return self.actor(_behind(features, self.guesser(features))).tanh()

    def update(self, batch: Transitions, agent_step: Int64[Tensor, ""]) -> dict[str, Tensor]:
        """Update critic, encoder, guesser, actor and target critic once, as DrQ-v2 does."""
        s, std = self.settings, self.std(agent_step)
        stack, proprio = batch.observation.seen
        next_stack, next_proprio = batch.next_observation.seen
        stack = random_shift(stack, s.shift_pad, self.generator)
        next_stack = random_shift(next_stack, s.shift_pad, self.generator)
        truth = self.norm(batch.observation.privileged)
        next_truth = self.norm(batch.next_observation.privileged)
        encoder, guesser = rounded(self.encoder, self.guesser)
        features = encoder(stack, proprio)
        guess = guesser(features).float()
        with torch.no_grad():
            next_features = encoder(next_stack, next_proprio)
            next_seen = _behind(next_features, guesser(next_features))
        known, next_known = _behind(features, truth), _behind(next_features, next_truth)
        loss, metrics = critic_loss(self, known, batch, next_seen, next_known, std)
        error = F.mse_loss(guess, truth)
        # in units of the other loss, whose size is that of squared returns, neither drowns the other
        size = loss.detach().clamp(min=1.0)
        descend(loss + s.guess_weight * error * size, self.critic_optimiser)
        seen = _behind(features, guess).detach()
        metrics |= update_actor(self, seen, known.detach(), std)
        ema_update(self.target_critic.parameters(), self.critic.parameters(), s.critic_tau)
        return metrics | {"guess_error": error.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self)


def _behind(
    features: Float[Tensor, "batch features"], numbers: Float[Tensor, "batch privileged"]
) -> Float[Tensor, "batch all"]:
    return torch.cat([features, numbers.to(features.dtype)], dim=1)


PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "quick": DRQV2_PRESETS["quick"]}
