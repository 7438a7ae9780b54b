"""CURL (arXiv:2004.04136): SAC on random crops, and an encoder that also learns to tell images apart.

Everything but the crops and `update_contrast` is SAC's. With `contrast=False`, crops of the whole image and SAC's
settings it *is* SAC. We follow the official code (MishaLaskin/curl).

The worlds' images are larger than what the networks see: `image_size` (of the loop) 100, `crop_size` 84.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from pixelcontrol.agents.quick import QUICK
from pixelcontrol.agents.sac import (
    PLANET_ACTION_REPEAT,
    PLANET_SEED_FRAMES,
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
from pixelcontrol.augment import centre_crop, random_crop
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import adam, descend, load_state, rounded, save_state
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update


@dataclass(frozen=True)
class CURLSettings(SACSettings):
    """What can be chosen about the agent: SAC's settings, that in which CURL's code differs, and its own."""

    trunk_tanh: bool = setting(False, "whether the trunks end in tanh", "CURL's code")
    crop_size: int = setting(84, "height and width that the networks see, pixels", "CURL, table 3", low=1)
    contrast: bool = setting(
        True,
        "learn to tell images apart, too; without, and without crops, this is SAC (with --trunk-tanh yes)",
        "CURL; its ablation",
    )


class CURL:
    """The agent: a `SACModel` that learns from crops, with a bilinear measure of similarity beside it."""

    metric_names: tuple[str, ...] = (*SAC.metric_names, "contrast_loss", "contrast_accuracy")

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        action_dim: int,
        settings: CURLSettings,
        *,
        device: torch.device,
        seed: int,
        proprio_dim: int = 0,
    ) -> None:
        """Draw the weights from `seed`; `observation_shape` is (channels, height, width) before the crop.

        `proprio_dim` numbers of proprioception come beside it.

        Raises:
            ValueError: a crop is larger than the images.
        """
        channels, height, width = observation_shape
        if settings.crop_size > min(height, width):
            raise ValueError(
                f"--crop-size is {settings.crop_size}, but images have {height}x{width} pixels; lower it or "
                "raise --image-size"
            )
        self.settings = settings
        weights = torch.Generator().manual_seed(seed)
        cropped_shape = (channels, settings.crop_size, settings.crop_size)
        self.model = SACModel(cropped_shape, action_dim, settings, device, weights, proprio_dim)
        self.similarity = nn.Linear(settings.feature_dim, settings.feature_dim, bias=False)
        nn.init.uniform_(self.similarity.weight, 0.0, 1.0, generator=weights)
        self.similarity.to(device)
        # Quirk, kept because it matters: in the official code two optimisers step the encoder with the same
        # gradient of this loss. Two equal Adams are one with twice the step size.
        encoding = [*self.model.encoder.parameters(), *self.model.critic.trunk.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": encoding, "lr": 2.0 * settings.learning_rate},
            {"params": self.similarity.parameters()},
        ]
        self.contrast_optimiser = adam(groups, settings.learning_rate)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """Every second update leaves out actor, temperature and slow copies (CURL's code)."""
        return self.update, partial(self.update, delayed=False)

    def memory(self, generator: torch.Generator) -> FrameStack:
        """Return a memory of the last images; it draws nothing."""
        return FrameStack(self.model.encoder.channels)

    def act(self, observation: Observation, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions from the images' centre: uniform at first, then drawn from the policy."""
        return explore(self.model, self._centre(observation), agent_step, self.generator)

    def act_greedily(self, observation: Observation) -> Float32[Tensor, "worlds action"]:
        """Choose the policy's median actions from the images' centre."""
        return exploit(self.model, self._centre(observation))

    def _centre(self, observation: Observation) -> Observation:
        return observation._replace(stack=centre_crop(observation.stack, self.settings.crop_size))

    def update(
        self, batch: Transitions, agent_step: Int64[Tensor, ""], *, delayed: bool = True
    ) -> dict[str, Tensor]:
        """Update critic and encoder once; if `delayed`, then actor, temperature and slow copies; then contrast."""
        crop = partial(random_crop, size=self.settings.crop_size, generator=self.generator)
        anchor, positive = crop(batch.observation.stack), crop(batch.observation.stack)
        observation = batch.observation._replace(stack=anchor)
        next_observation = batch.next_observation._replace(stack=crop(batch.next_observation.stack))
        value = soft_value(self.model, next_observation, self.generator)
        target = batch.reward + batch.discount * value
        metrics = update_critic(self.model, observation, batch.action, target)
        if delayed:
            metrics |= update_actor(self.model, observation, self.generator)
            update_targets(self.model)
        return metrics | self.update_contrast(anchor, positive)

    def update_contrast(
        self,
        anchor: UInt8[Tensor, "batch channels height width"],
        positive: UInt8[Tensor, "batch channels height width"],
    ) -> dict[str, Tensor]:
        """Teach the critic's encoder and trunk which crops are of the same observation (InfoNCE).

        The row of anchor i holds its similarities z_i W z'_j to all positives j, encoded by the slow copies;
        the right answer is j = i, all others of the batch are negatives. Images are all there is to go by:
        proprioception would give the answer away.
        """
        model = self.model
        encoder, trunk, similarity = rounded(model.encoder, model.critic.trunk, self.similarity)
        target_encoder, target_trunk = rounded(model.target_encoder, model.target_critic.trunk)
        with torch.set_grad_enabled(self.settings.contrast):  # else it is looked at and not learned from
            query = trunk(encoder(anchor))
        with torch.no_grad():
            key = target_trunk(target_encoder(positive))
        logits = (query @ similarity(key).T).float()
        answer = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, answer)
        if self.settings.contrast:
            descend(loss, self.contrast_optimiser)
        accuracy = (logits.argmax(dim=1) == answer).float().mean()
        return {"contrast_loss": loss.detach(), "contrast_accuracy": accuracy}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self.model, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self.model, self)


LEARNING_RATE = {"cheetah": 2e-4, "other": 1e-3}

PRESETS: dict[str, dict[str, Any]] = {
    # CURL's paper, table 3.
    "author": SOFT_LOOP
    | {
        "action_repeat": PLANET_ACTION_REPEAT,
        "seed_frames": PLANET_SEED_FRAMES,
        "batch_size": 512,  # the code's default is 32
        "replay_capacity": 100_000,
        "image_size": (100,),
        "learning_rate": LEARNING_RATE,
    },
    # See `sac.PRESETS`.
    "paper": SOFT_LOOP
    | {
        "replay_capacity": 100_000,
        "image_size": (100,),
        "seed_frames": 2_000,
        "learning_rate": LEARNING_RATE,
    },
    # The author's share of the image, in even numbers.
    "quick": SOFT_LOOP | QUICK | {"image_size": (56,), "crop_size": 48},
}
