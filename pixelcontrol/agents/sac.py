"""Soft actor-critic from pixels: SAC (arXiv:1812.05905) with the encoder of SAC-AE, without its decoder.

This is the paper's weakest opponent and the root of the others: DrQ and CURL are made of the functions in this
file, which work on a `SACModel`. We follow the code of SAC-AE, as its author advises for "SAC:pixel".

Actor and critic share the convolutions, which only the critic's loss trains; each has a trunk of its own. Unlike
in DrQ-v2 the target critic sees through a slow copy of the convolutions, and pixels are not centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from pixelcontrol.agents.quick import QUICK
from pixelcontrol.distributions import tanh_normal, uniform_action
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import (
    ConvEncoder,
    StochasticActor,
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
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update


@dataclass(frozen=True)
class SACSettings:
    """What can be chosen about the agent. Defaults are those of SAC-AE's official code ("SAC-AE" below)."""

    learning_rate: float = setting(1e-3, "Adam's step size, for actor, critic and encoder", "SAC-AE", low=0.0)
    temperature_learning_rate: float = setting(
        1e-4, "Adam's step size, for the temperature", "SAC-AE", low=0.0
    )
    temperature_beta1: float = setting(
        0.5, "Adam's decay of the first moment, for the temperature", "SAC-AE", low=0.0, high=0.999
    )
    temperature_initial: float = setting(0.1, "weight of the entropy at the start", "SAC-AE", low=1e-6)
    critic_tau: float = setting(
        0.01, "rate at which the target's Q-functions follow", "SAC-AE", low=0.0, high=1.0
    )
    encoder_tau: float = setting(
        0.05, "rate at which the target's convolutions and its trunk follow", "SAC-AE", low=0.0, high=1.0
    )
    feature_dim: int = setting(50, "width of the trunks' output", "SAC-AE", low=1)
    hidden_dim: int = setting(1024, "width of the hidden layers", "SAC-AE", low=1)
    log_std_min: float = setting(-10.0, "smallest log σ of the policy, before tanh", "SAC-AE")
    log_std_max: float = setting(2.0, "largest log σ of the policy, before tanh", "SAC-AE")
    trunk_tanh: bool = setting(True, "whether the trunks end in tanh", "SAC-AE; CURL leaves it out")
    delta_orthogonal: bool = setting(
        True, "whether convolutions start as maps of single pixels", "SAC-AE; DrQ fills the whole filter"
    )
    slope_floor: float = setting(
        1e-6,
        "added to tanh's slope in the density of an action",
        "SAC-AE; DrQ adds nothing",
        low=0.0,
        high=1.0,
    )
    exploration_steps: int = setting(
        1_000, "agent steps with uniformly random actions at the start", "SAC-AE", low=0
    )
    conv_filters: int = setting(32, "channels of each convolution", "SAC-AE", low=1)
    conv_strides: tuple[int, ...] = setting((2, 1, 1, 1), "strides of the 3x3 convolutions", "SAC-AE", low=1)


class Temperature(nn.Module):
    """The weight α of the entropy, learned as its logarithm."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor(log(initial)))

    def forward(self) -> Float32[Tensor, ""]:
        """Return α."""
        return self.log_value.exp()


class SACModel:
    """What SAC, DrQ and CURL learn: networks, their slow copies and the temperature, with their optimisers."""

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: SACSettings,
        device: torch.device,
        weights: torch.Generator,
        proprio_dim: int,
    ) -> None:
        """Draw the weights from `weights`, which is on the CPU: a seed means the same network on every device."""
        self.settings = settings
        self.device = device
        self.action_dim = action_dim

        self.encoder = ConvEncoder(
            observation_shape,
            settings.conv_filters,
            settings.conv_strides,
            pixel_offset=0.0,
            proprio_dim=proprio_dim,
        )
        sizes = (self.encoder.feature_count, action_dim, settings.feature_dim, settings.hidden_dim)
        self.actor = StochasticActor(
            *sizes,
            proprio_dim=proprio_dim,
            log_std_bounds=(settings.log_std_min, settings.log_std_max),
            trunk_tanh=settings.trunk_tanh,
        )
        self.critic = TwinCritic(*sizes, proprio_dim=proprio_dim, trunk_tanh=settings.trunk_tanh)
        self.temperature = Temperature(settings.temperature_initial).to(device)
        for network in (self.encoder, self.actor, self.critic):
            initialise(network, weights, delta_orthogonal=settings.delta_orthogonal)
            network.to(device)
        self.target_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.target_encoder.norm = self.encoder.norm
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

        critic_weights = [*self.critic.parameters(), *self.encoder.parameters()]
        self.critic_optimiser = adam(critic_weights, settings.learning_rate)
        self.actor_optimiser = adam(self.actor.parameters(), settings.learning_rate)
        self.temperature_optimiser = adam(
            self.temperature.parameters(),
            settings.temperature_learning_rate,
            betas=(settings.temperature_beta1, 0.999),
        )


@torch.no_grad()
def explore(
    model: SACModel, observation: Observation, agent_step: int, generator: torch.Generator
) -> Float32[Tensor, "worlds action"]:
    """Choose exploring actions: uniform at first, then drawn from the policy."""
    model.encoder.show(observation.proprio)
    if agent_step < model.settings.exploration_steps:
        return uniform_action(len(observation.stack), model.action_dim, generator)
    mean, log_std = model.actor(model.encoder(*observation.seen))
    return tanh_normal(mean, log_std, generator)[0]


@torch.no_grad()
def exploit(model: SACModel, observation: Observation) -> Float32[Tensor, "worlds action"]:
    """Choose the policy's median actions, tanh of its mean before tanh."""
    mean, _ = model.actor(model.encoder(*observation.seen))
    return mean.tanh()


@torch.no_grad()
def soft_value(
    model: SACModel, observation: Observation, generator: torch.Generator
) -> Float32[Tensor, " batch"]:
    """Estimate V = min Q̄(s, a) - α log π(a|s) with one action a ~ π; only Q̄ sees through the slow encoder."""
    encoder, actor, target_encoder, target_critic = rounded(
        model.encoder, model.actor, model.target_encoder, model.target_critic
    )
    mean, log_std = actor(encoder(*observation.seen))
    action, log_prob = tanh_normal(mean, log_std, generator, model.settings.slope_floor)
    value = target_critic(target_encoder(*observation.seen), action).amin(dim=0)
    return value - model.temperature() * log_prob


def update_critic(
    model: SACModel,
    observation: Observation,
    action: Float32[Tensor, "batch action"],
    target: Float32[Tensor, " batch"],
) -> dict[str, Tensor]:
    """Bring both Q-functions, and the convolutions with them, closer to `target`."""
    encoder, critic = rounded(model.encoder, model.critic)
    q = critic(encoder(*observation.seen), action)
    loss = twin_loss(q, target)
    descend(loss, model.critic_optimiser)
    return {"critic_loss": loss.detach(), "q_mean": q.detach().mean(), "target_mean": target.mean()}


def update_actor(model: SACModel, observation: Observation, generator: torch.Generator) -> dict[str, Tensor]:
    """Minimise E[α log π(a|s) - min Q(s, a)] with respect to the actor, then move the temperature."""
    (actor,) = rounded(model.actor)
    with torch.no_grad():
        encoder, critic = rounded(model.encoder, model.critic)
        features = encoder(*observation.seen)
    mean, log_std = actor(features)
    action, log_prob = tanh_normal(mean, log_std, generator, model.settings.slope_floor)
    value = critic(features, action).amin(dim=0)
    loss = (model.temperature().detach() * log_prob - value).mean()
    descend(loss, model.actor_optimiser)
    return {"actor_loss": loss.detach()} | update_temperature(model, log_prob.detach().mean())


def update_temperature(model: SACModel, log_prob: Float32[Tensor, ""]) -> dict[str, Tensor]:
    """Raise α where the entropy is below its goal of one negative nat per control, lower it where above."""
    temperature = model.temperature()
    entropy = -log_prob
    loss = temperature * (entropy + model.action_dim)
    descend(loss, model.temperature_optimiser)
    return {"entropy": entropy, "temperature": temperature.detach()}


def update_targets(model: SACModel) -> None:
    """Let the slow copies follow: what encodes at one rate, the Q-functions at another."""
    slow, fast = model.target_critic, model.critic
    ema_update(
        [*model.target_encoder.parameters(), *slow.trunk.parameters()],
        [*model.encoder.parameters(), *fast.trunk.parameters()],
        model.settings.encoder_tau,
    )
    ema_update(slow.twins.parameters(), fast.twins.parameters(), model.settings.critic_tau)


class SAC:
    """The agent: a `SACModel` that learns from images as they are."""

    metric_names: tuple[str, ...] = (
        "critic_loss",
        "actor_loss",
        "q_mean",
        "target_mean",
        "entropy",
        "temperature",
    )

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: SACSettings,
        *,
        device: torch.device,
        seed: int,
        proprio_dim: int = 0,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) of a stack.

        `proprio_dim` numbers of proprioception come beside it.
        """
        weights = torch.Generator().manual_seed(seed)
        self.model = SACModel(observation_shape, action_dim, settings, device, weights, proprio_dim)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """Every second update is one of the critic alone (SAC-AE)."""
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
        """Update critic and encoder once; if `delayed`, then actor, temperature and slow copies too."""
        value = soft_value(self.model, batch.next_observation, self.generator)
        target = batch.reward + batch.discount * value
        metrics = update_critic(self.model, batch.observation, batch.action, target)
        if delayed:
            metrics |= update_actor(self.model, batch.observation, self.generator)
            update_targets(self.model)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self.model, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self.model, self)


# What SAC, DrQ and CURL ask of the loop, whatever the preset.
SOFT_LOOP: dict[str, Any] = {"n_step": 1, "update_every_agent_steps": 1}

# Frames per agent step by domain, which SAC-AE and CURL took over from PlaNet. They learn after 1,000 agent steps.
PLANET_ACTION_REPEAT = {"cartpole": 8, "finger": 2, "walker": 2, "other": 4}
PLANET_SEED_FRAMES = {domain: 1_000 * repeat for domain, repeat in PLANET_ACTION_REPEAT.items()}

# SAC-AE makes 1,000 updates at its first step that learns, the usual one among them.
CATCH_UP_UPDATES = 999

PRESETS: dict[str, dict[str, Any]] = {
    # SAC-AE's official code.
    "author": SOFT_LOOP
    | {
        "action_repeat": PLANET_ACTION_REPEAT,
        "seed_frames": PLANET_SEED_FRAMES,
        "catch_up_updates": CATCH_UP_UPDATES,
        "batch_size": 128,
    },
    # The DrQ-v2 paper's comparison: its action repeat of 2 and its batch of 256, which are the loop's defaults. On
    # all else it is silent, so that is the author's; a replay of 1,000,000 is SAC-AE's too.
    "paper": SOFT_LOOP | {"seed_frames": 2_000, "catch_up_updates": CATCH_UP_UPDATES},
    "quick": SOFT_LOOP | QUICK,
}
