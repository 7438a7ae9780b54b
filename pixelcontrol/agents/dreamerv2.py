"""Dreamer-v2 for continuous control: learns a model of the world, and its policy inside of that model.

arXiv:2010.02193 with the settings for the DeepMind Control Suite in the official code of June 2021, which is what
the DrQ-v2 paper compared with. Where paper and code differ we follow the code. The model is in `rssm.py`.

How an update's sequences and imagined steps align::

    row              t-1             t             t+1
    image            o(t-1)          o(t)          o(t+1)       each decoded from (z, h) of its own row
    reward           r(t-1)          r(t)          r(t+1)       each predicted from (z, h) of its own row
    action                 a(t) ---->     a(t+1) ->

    imagined state   s(0) = (z, h) of any row     s(1)     ...     s(H-1)
    action                  a(0) from s(0) ------>
    reward           r(0)                         r(1)             predicted, the first one too
    value            v(0)                         v(1)             of the slow critic
    target           R(0) = r(0) + γ ((1 - λ) v(1) + λ R(1))       none at the last state

Departures: Adam's ε is added after its bias correction (Keras: before), which matters in the first few hundred
updates; mean and deviation of the policy come from one layer, so their first weights are drawn a little narrower;
the slow critic starts as a copy, not with weights of its own for one update; products are rounded to bf16 (the
official code: fp16 with scaled losses) or not at all. Where ends are foreseen, that head learns towards the row's
discount (the official code: γ times that), and imagination starts from a sequence's last row too.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from pixelcontrol.agents.rssm import (
    IMAGE_SIZE,
    ImageDecoder,
    ImageEncoder,
    LatentHead,
    Transition,
    balanced_kl,
    categorical_kl,
    centred,
    dense,
    imagine,
    initialise_glorot,
    observe,
)
from pixelcontrol.distributions import gumbel_noise, truncated_normal, uniform_action
from pixelcontrol.machine import random_stream, to_device
from pixelcontrol.networks import Value, descend, load_state, rounded, save_state
from pixelcontrol.returns import lambda_return
from pixelcontrol.settings import setting
from pixelcontrol.types import Sequences, TimeStep, Update


@dataclass(frozen=True)
class DreamerV2Settings:
    """What can be chosen about the agent. Defaults are the official code's for the control suite ("code")."""

    sequence_length: int = setting(50, "images per sequence of a batch", "code", low=2)
    model_learning_rate: float = setting(3e-4, "Adam's step size, for the world model", "code", low=0.0)
    actor_learning_rate: float = setting(8e-5, "Adam's step size, for the actor", "code", low=0.0)
    critic_learning_rate: float = setting(8e-5, "Adam's step size, for the critic", "code", low=0.0)
    gradient_clip: float = setting(100.0, "largest norm of each optimiser's gradient", "code", low=0.0)
    weight_decay: float = setting(
        1e-6, "share that every weight loses at each update, whatever the learning rate", "code", low=0.0
    )
    deter_dim: int = setting(200, "width of the state's deterministic part", "code", low=1)
    latent_groups: int = setting(32, "one-hot vectors in the state's stochastic part", "code", low=1)
    latent_classes: int = setting(32, "length of each of those", "code", low=2)
    model_dim: int = setting(200, "width of the hidden layers of the recurrent model", "code", low=1)
    head_dim: int = setting(400, "width of the four hidden layers of reward, actor, critic", "code", low=1)
    conv_depth: int = setting(
        48, "channels of the first convolution; each next has twice as many", "code", low=1
    )
    kl_balance: float = setting(
        0.8, "share of the KL loss that trains the prior rather than the posterior", "code", low=0.0, high=1.0
    )
    free_nats: float = setting(1.0, "mean KL up to which neither is trained", "code", low=0.0)
    imagined_states: int = setting(15, "states of an imagined sequence", "code", low=2)
    imagined_discount: float = setting(
        0.99, "gamma in imagination, per agent step", "code", low=0.0, high=1.0
    )
    foresee_ends: bool = setting(
        False,
        "learn where episodes truly end, and imagine no rewards beyond; for tasks that have such ends",
        "code: pred_discount and oversample_ends, which are off for the suite",
    )
    return_lambda: float = setting(0.95, "lambda of the imagined returns", "code", low=0.0, high=1.0)
    entropy_weight: float = setting(1e-4, "weight of the policy's entropy", "code", low=0.0)
    target_every_updates: int = setting(100, "updates after which the slow critic is copied", "code", low=1)
    exploration_steps: int = setting(
        2_500, "agent steps with uniformly random actions at the start", "code: prefill", low=0
    )


class LatentMemory:
    """Follows N running worlds by the agent's model; see `pixelcontrol.types.Memory`."""

    def __init__(self, agent: DreamerV2, generator: torch.Generator) -> None:
        self.agent, self.generator = agent, generator
        self.observation: Float32[Tensor, "worlds features"] | None = None

    @torch.no_grad()
    def push(self, step: TimeStep) -> Float32[Tensor, "worlds features"]:
        """Take in one row of every world and return the features of where each is now."""
        agent, device = self.agent, step.image.device
        goes_on = to_device(~step.first, device)[:, None]
        action = to_device(step.action, device) * goes_on
        kept = self.observation
        before = agent.no_features(len(action)) if kept is None else kept * goes_on
        noise = gumbel_noise((len(action), *agent.latent_shape), self.generator, device)
        self.observation = agent.remember(before, action, step.image, noise)
        return self.observation

    def state_dict(self) -> dict[str, Tensor]:
        """See `pixelcontrol.types.Memory`."""
        return {} if self.observation is None else {"observation": self.observation}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pixelcontrol.types.Memory`."""
        self.observation = state.get("observation")


class DreamerV2:
    """The agent: a world model, an actor, a critic and its slow copy."""

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: DreamerV2Settings,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) of an image.

        Raises:
            ValueError: images are not of the one size that the decoder makes.
        """
        channels, *size = observation_shape
        if size != [IMAGE_SIZE, IMAGE_SIZE]:
            raise ValueError(
                f"dreamerv2 sees images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels, and these have {size[0]}x{size[1]}; "
                f"use --image-size {IMAGE_SIZE}"
            )
        self.settings = s = settings
        model_losses = "image_loss", "reward_loss", "kl_loss", *(["ending_loss"] if s.foresee_ends else [])
        self.metric_names = *model_losses, "kl", "actor_loss", "critic_loss", "target_mean", "entropy"
        self.device = device
        self.action_dim = action_dim
        self.latent_shape = (s.latent_groups, s.latent_classes)
        latent_dim = s.latent_groups * s.latent_classes
        features = latent_dim + s.deter_dim

        # Weights are drawn on the CPU, so that a seed means the same network on every device.
        self.encoder = ImageEncoder(channels, s.conv_depth)
        self.transition = Transition(latent_dim, action_dim, s.deter_dim, s.model_dim)
        self.prior = LatentHead(s.deter_dim, s.model_dim, *self.latent_shape)
        self.posterior = LatentHead(s.deter_dim + self.encoder.feature_count, s.model_dim, *self.latent_shape)
        self.decoder = ImageDecoder(features, channels, s.conv_depth)
        self.reward = dense(features, s.head_dim, Value(s.head_dim))
        self.actor = dense(features, s.head_dim, nn.Linear(s.head_dim, 2 * action_dim))
        self.critic = dense(features, s.head_dim, Value(s.head_dim))
        # from features to the logit of not being at a true end; none or one
        self.survival = nn.ModuleList(
            [dense(features, s.head_dim, Value(s.head_dim))] if s.foresee_ends else []
        )
        weights = torch.Generator().manual_seed(seed)
        for network in (*self.model(), self.actor, self.critic):
            initialise_glorot(network, weights)
            network.to(device)
        self.slow_critic = deepcopy(self.critic).requires_grad_(False)

        self.model_optimiser = self._adam(s.model_learning_rate, *self.model())
        self.actor_optimiser = self._adam(s.actor_learning_rate, self.actor)
        self.critic_optimiser = self._adam(s.critic_learning_rate, self.critic)
        # on the device, so that a captured update counts too
        self.updates = torch.zeros((), dtype=torch.int64, device=device)
        self.generator = random_stream(seed, "agent", device)

    def model(self) -> tuple[nn.Module, ...]:
        """Return the networks of the world model; the last, which foresees ends, is there or not."""
        known = self.encoder, self.transition, self.prior, self.posterior, self.decoder, self.reward
        return *known, *self.survival

    def _adam(self, learning_rate: float, *networks: nn.Module) -> torch.optim.AdamW:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        # PyTorch multiplies the decay by the learning rate, the official code does not
        decay = self.settings.weight_decay / learning_rate if learning_rate else 0.0
        # capturable on a CPU too, so that a run may move to a GPU
        return torch.optim.AdamW(
            parameters, learning_rate, eps=1e-5, weight_decay=decay, fused=True, capturable=True
        )

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """All updates are alike."""
        return (self.update,)

    def split(
        self, features: Float32[Tensor, "*batch features"]
    ) -> tuple[Float32[Tensor, "*batch latent"], Float32[Tensor, "*batch deter"]]:
        """Return z and h of features."""
        deter_dim = self.settings.deter_dim
        return features[..., :-deter_dim], features[..., -deter_dim:]

    def no_features(self, batch: int) -> Float32[Tensor, "batch features"]:
        """Return the state before an episode's first row, and before a sequence's."""
        groups, classes = self.latent_shape
        return torch.zeros(batch, groups * classes + self.settings.deter_dim, device=self.device)

    def remember(
        self,
        features: Float32[Tensor, "worlds features"],
        action: Float32[Tensor, "worlds action"],
        image: UInt8[Tensor, "worlds channels height width"],
        gumbel: Float32[Tensor, "worlds groups classes"],
    ) -> Float32[Tensor, "worlds features"]:
        """Return the features of the state to which `action` led, where `image` is seen.

        Args:
            features: of the state before; `no_features` at an episode's start.
            action: zeros at an episode's start.
            image: of now.
            gumbel: noise of the draws; zeros take what is most likely.
        """
        latent, deter, _ = observe(
            self.transition,
            self.posterior,
            self.encoder(image)[None],
            action[None],
            self.split(features),
            gumbel[None],
        )
        return torch.cat([latent[0], deter[0]], dim=-1)

    def memory(self, generator: torch.Generator) -> LatentMemory:
        """Return a memory that follows the worlds by this agent's model, as it will be at each moment."""
        return LatentMemory(self, generator)

    @torch.no_grad()
    def act(
        self, observation: Float32[Tensor, "worlds features"], agent_step: int
    ) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions: uniform at first, then drawn from the policy."""
        shape = (observation.shape[0], self.action_dim)
        if agent_step < self.settings.exploration_steps:
            return uniform_action(*shape, self.generator)
        uniform = torch.rand(shape, generator=self.generator, device=self.device)
        return truncated_normal(*policy_of(self.actor(observation)), uniform)[0]

    @torch.no_grad()
    def act_greedily(
        self, observation: Float32[Tensor, "worlds features"]
    ) -> Float32[Tensor, "worlds action"]:
        """Choose the policy's most likely actions."""
        return policy_of(self.actor(observation))[0]

    def update(self, batch: Sequences, agent_step: Int64[Tensor, ""]) -> dict[str, Tensor]:
        """Update the world model, then actor and critic inside of it, once each (Algorithm 1).

        Networks are called by way of `rounded`, which casts all their weights together: fewer launches in bf16.
        """
        features, metrics = self.update_model(batch)
        metrics |= self.update_behaviour(features)
        self.updates += 1
        return metrics

    def update_model(self, batch: Sequences) -> tuple[Float32[Tensor, "states features"], dict[str, Tensor]]:
        """Minimise the loss of the world model; return the features of every row as they were before the step."""
        s = self.settings
        length, size = batch.reward.shape
        encoder, transition, prior, posterior, decoder, reward, *survival = rounded(*self.model())
        encoded = encoder(batch.image.flatten(0, 1)).unflatten(0, (length, size))
        noise = gumbel_noise((length, size, *self.latent_shape), self.generator, self.device)
        start = self.split(self.no_features(size))
        latent, deter, seen = observe(transition, posterior, encoded, batch.action, start, noise)
        features = torch.cat([latent, deter], dim=-1).flatten(0, 1)

        expected = prior(deter)
        kl_loss = balanced_kl(seen, expected, s.kl_balance, s.free_nats)
        kl = categorical_kl(seen.detach(), expected.detach()).mean()  # as it is below the free nats too
        # minus the log-likelihoods of normal distributions with variance 1, but for a constant
        wrong = decoder(features) - centred(batch.image.flatten(0, 1))
        image_loss = 0.5 * wrong.square().sum(dim=(1, 2, 3)).mean()
        reward_loss = 0.5 * (reward(features) - batch.reward.flatten()).square().mean()
        losses = {"image_loss": image_loss, "reward_loss": reward_loss, "kl_loss": kl_loss}
        for head in survival:
            logit = head(features)
            losses["ending_loss"] = F.binary_cross_entropy_with_logits(logit, batch.discount.flatten())
        descend(torch.stack(list(losses.values())).sum(), self.model_optimiser, s.gradient_clip)
        return features.detach(), {name: loss.detach() for name, loss in losses.items()} | {"kl": kl}

    def update_behaviour(self, start: Float32[Tensor, "states features"]) -> dict[str, Tensor]:
        """Imagine from every state of `start`, and improve actor and critic by what happens there."""
        s = self.settings
        steps, count = s.imagined_states - 1, len(start)
        (actor,) = rounded(self.actor)
        with torch.no_grad():  # the model and the slow critic judge, and do not learn here
            judges = self.transition, self.prior, self.reward, *self.survival
            transition, prior, reward, *survival = rounded(*judges)
            (slow_critic,) = rounded(self.slow_critic)
        noise = gumbel_noise((steps, count, *self.latent_shape), self.generator, self.device)
        uniform = torch.rand(steps, count, self.action_dim, generator=self.generator, device=self.device)
        entropies: list[Tensor] = []

        def policy(features: Tensor, step: int) -> Tensor:
            action, entropy = truncated_normal(*policy_of(actor(features.detach())), uniform[step])
            entropies.append(entropy)
            return action

        features = imagine(transition, prior, policy, self.split(start), noise)
        expected = reward(features[:-1])
        discount = torch.full_like(expected, s.imagined_discount)
        for head in survival:
            discount = discount * head(features[:-1]).sigmoid()
        target = lambda_return(expected, slow_critic(features), discount, s.return_lambda)
        # how much of each state is left after the discounts on the way there
        passed = torch.cat([torch.ones_like(discount[:1]), discount[:-1].detach()])
        weight = passed.cumprod(dim=0)
        entropy = torch.stack(entropies)
        actor_loss = -(weight * (target + s.entropy_weight * entropy)).mean()
        descend(actor_loss, self.actor_optimiser, s.gradient_clip)

        (critic,) = rounded(self.critic)
        value = critic(features[:-1].detach())
        critic_loss = 0.5 * (weight * (value - target.detach()).square()).mean()
        descend(critic_loss, self.critic_optimiser, s.gradient_clip)
        self._copy_critic()
        return {
            "actor_loss": actor_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "target_mean": target.detach().mean(),
            "entropy": entropy.detach().mean(),
        }

    @torch.no_grad()
    def _copy_critic(self) -> None:
        """Make the slow critic equal to the critic at the first update and at every so many after it."""
        due = (self.updates % self.settings.target_every_updates == 0).float()
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.lerp_(fast, due)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers, count of updates and random state."""
        return save_state(self.generator, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self)


def policy_of(
    raw: Float[Tensor, "*batch two_actions"],
) -> tuple[Float32[Tensor, "*batch action"], Float32[Tensor, "*batch action"]]:
    """Return mean, in [-1, 1], and standard deviation, in [0.1, 2.1], of the normal that is then truncated."""
    mean, std = raw.float().chunk(2, dim=-1)
    return mean.tanh(), 2.0 * (0.5 * std).sigmoid() + 0.1


PRESETS: dict[str, dict[str, Any]] = {
    # The official code of June 2021: batches of 50 sequences of 50 agent steps, an update every five agent steps,
    # and 101 at once at the start: one that builds its variables, and a hundred more.
    "paper": {
        "image_size": (IMAGE_SIZE,),
        "replay_capacity": 2_000_000,
        "seed_frames": 5_000,
        "catch_up_updates": 101,
        "batch_size": 50,
        "update_every_agent_steps": 5,
    },
    # Learns on one CPU core in twenty minutes: a tenth of the rows per update, smaller networks, larger rates.
    "quick": {
        "frames": 60_000,
        "envs": 4,
        "workers": 1,
        "image_size": (IMAGE_SIZE,),
        "action_repeat": 4,
        "replay_capacity": 100_000,
        "seed_frames": 4_000,
        "exploration_steps": 1_000,
        "batch_size": 16,
        "sequence_length": 16,
        "update_every_agent_steps": 5,
        "conv_depth": 16,
        "deter_dim": 128,
        "model_dim": 128,
        "head_dim": 200,
        "latent_groups": 16,
        "latent_classes": 16,
        "model_learning_rate": 6e-4,
        "actor_learning_rate": 2e-4,
        "critic_learning_rate": 2e-4,
        "imagined_discount": 0.98,
        "eval_every_frames": 10_000,
        "save_every_frames": 20_000,
    },
}
