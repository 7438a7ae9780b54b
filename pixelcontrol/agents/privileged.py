"""A teacher that learns with what the simulator knows, and a student that learns from it to act on images.

In a simulator positions and speeds need not be guessed from pixels while one learns. So the teacher is DrQ-v2's
actor and critics on the simulator's numbers, without an encoder, which makes an update cheap; and the student is
DrQ-v2's encoder and actor on images, which imitates it and heeds its critics. The student alone is evaluated and
exported: it sees what any other agent here sees.

Sources: Pinto et al., *Asymmetric Actor Critic for Image-Based Robot Learning*, 2017 (arXiv:1710.06542), for
critics that know more than the policy; Fujimoto and Gu, *A Minimalist Approach to Offline Reinforcement Learning*,
2021 (arXiv:2106.06860), "TD3+BC", for the sum of a value and a distance from given actions; Ross et al., *A
Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning*, 2011 (arXiv:1011.0686),
"DAgger", for a student that acts in part of the worlds while it learns, so that it learns from where its own
mistakes lead. Who compares a curve of this agent with those of agents that learn from images alone must say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pixelcontrol.agents.drqv2 import PRESETS as DRQV2_PRESETS
from pixelcontrol.agents.drqv2 import DrQV2Settings, saturation_loss, update_actor, update_critic
from pixelcontrol.agents.quick import by_frame_length
from pixelcontrol.augment import random_shift
from pixelcontrol.distributions import noisy_action, saturated_share, uniform_action
from pixelcontrol.machine import random_stream
from pixelcontrol.memory import FrameStack
from pixelcontrol.networks import (
    ConvEncoder,
    DeterministicActor,
    RunningNorm,
    TwinCritic,
    adam,
    descend,
    ema_update,
    initialise,
    load_state,
    rounded,
    save_state,
)
from pixelcontrol.schedules import linear_schedule
from pixelcontrol.settings import setting
from pixelcontrol.types import Observation, Transitions, Update

# The student acts in one world of so many, for so many agent steps in a row, then in the next one. In one world
# alone it comes to act in all parts of an episode, unless the greatest common divisor of 4 * 170 and the episode's
# agent steps is above 170.
WORLDS_PER_STUDENT = 4
STUDENT_TURN_STEPS = 170


@dataclass(frozen=True)
class PrivilegedSettings(DrQV2Settings):
    """What can be chosen about the agent beside DrQ-v2's settings, which teacher and student share."""

    student_every_updates: int = setting(
        4, "updates of the teacher per update of the student", "ours", low=1, high=16
    )
    student_batch_size: int = setting(
        128, "transitions of a batch whose images the student learns from, at most", "ours", low=1
    )
    student_value_weight: float = setting(
        3.0,
        "weight of what the teacher's critics make of the student's actions, beside their distance from the "
        "teacher's, in the student's loss; values below 1 count less; 0 is imitation alone",
        "ours",
        low=0.0,
    )


class Privileged:
    """The agent: an actor, two critics and their slowly moving copies for the teacher; an encoder and a student.

    The teacher's features are the privileged numbers, and proprioception behind them, each normed by all that the
    run has met so far. That and, a departure from DrQ-v2, its normed hidden layers let it learn faster (LOG.md).
    """

    metric_names: tuple[str, ...] = (
        "critic_loss", "actor_loss", "q_mean", "target_mean", "saturation", "std",
        "student_error", "student_saturation",
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

        widths = (action_dim, settings.feature_dim, settings.hidden_dim)
        self.norm = RunningNorm(privileged_dim + proprio_dim)
        self.actor = DeterministicActor(privileged_dim + proprio_dim, *widths, normed=True)
        self.critic = TwinCritic(privileged_dim + proprio_dim, *widths, normed=True)
        self.encoder = ConvEncoder(
            observation_shape, settings.conv_filters, settings.conv_strides, proprio_dim=proprio_dim
        )
        self.student = DeterministicActor(self.encoder.feature_count, *widths, proprio_dim=proprio_dim)
        weights = torch.Generator().manual_seed(seed)
        for network in (self.norm, self.actor, self.critic, self.encoder, self.student):
            initialise(network, weights)
            network.to(device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)

        student_weights = [*self.student.parameters(), *self.encoder.parameters()]
        self.critic_optimiser = adam(self.critic.parameters(), settings.learning_rate)
        self.actor_optimiser = adam(self.actor.parameters(), settings.learning_rate)
        self.student_optimiser = adam(student_weights, settings.learning_rate)
        self.generator = random_stream(seed, "agent", device)

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """The student learns at one update of several, the teacher at all."""
        return self.update, *[partial(self.update, student=False)] * (self.settings.student_every_updates - 1)

    def std(self, agent_step: Int64[Tensor, ""]) -> Float32[Tensor, ""]:
        """Return the standard deviation of the exploration noise, as DrQ-v2."""
        s = self.settings
        return linear_schedule(agent_step, s.stddev_initial, s.stddev_final, s.stddev_duration)

    def memory(self, generator: torch.Generator) -> FrameStack:
        """Return a memory of the last images, which needs no random numbers."""
        return FrameStack(self.encoder.channels)

    @torch.no_grad()
    def act(self, observation: Observation, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions: uniform at first, then the teacher's or, in some worlds, the student's.

        Noise is added to both.
        """
        worlds = len(observation.stack)
        self.norm.show(_told(observation))
        self.encoder.show(observation.proprio)
        if agent_step < self.settings.exploration_steps:
            return uniform_action(worlds, self.action_dim, self.generator)
        students = student_worlds(agent_step, worlds, self.device)
        taught = self.actor(self.known(observation)).tanh()
        mean = torch.where(students[:, None], self.act_greedily(observation), taught)
        std = self.std(torch.full((), agent_step, device=self.device))
        return noisy_action(mean, std, self.generator)

    @torch.no_grad()
    def act_greedily(self, observation: Observation) -> Float32[Tensor, "worlds action"]:
        """Choose the student's mean actions, which follow from what it sees alone."""
        return self.student(self.encoder(*observation.seen)).tanh()

    def known(self, observation: Observation) -> Float32[Tensor, "batch known"]:
        """Return what the teacher sees: what the simulator and the body tell, normed."""
        return self.norm(_told(observation))

    def update(
        self, batch: Transitions, agent_step: Int64[Tensor, ""], *, student: bool = True
    ) -> dict[str, Tensor]:
        """Update the teacher once (Algorithm 1, on numbers instead of features); if `student`, then it too."""
        std = self.std(agent_step)
        known = self.known(batch.observation)
        metrics = update_critic(self, known, batch, self.known(batch.next_observation), std)
        metrics |= update_actor(self, known, std)
        ema_update(self.target_critic.parameters(), self.critic.parameters(), self.settings.critic_tau)
        if student:
            metrics |= self.update_student(batch.observation)
        return metrics

    def update_student(self, observation: Observation) -> dict[str, Tensor]:
        """Bring the student's mean actions, and the encoder with them, nearer the teacher's and what has value.

        The teacher says what it would do now, whoever acted then. Its critics say where that matters: where images
        do not tell what to do, the mean of the teacher's actions may be worse than any of them. It is their slowly
        moving copies that say so, which a student with fewer updates can follow (LOG.md). Values count in units of
        their own size, but where that is below 1 they hardly mean anything yet.
        """
        s = self.settings
        # spread over the batch, of which the first half may be demonstrations
        every = -(-len(observation.stack) // s.student_batch_size)
        observation = Observation(*(part[::every] for part in observation))
        known = self.known(observation)
        with torch.no_grad():
            taught = self.actor(known).tanh()
            (critic,) = rounded(self.target_critic)
        encoder, student = rounded(self.encoder, self.student)
        stack, proprio = observation.seen
        pre_tanh = student(encoder(random_shift(stack, s.shift_pad, self.generator), proprio))
        action = pre_tanh.tanh()
        error = (action - taught).square().mean()
        value = critic(known, action).amin(dim=0)
        size = value.detach().abs().mean().clamp(min=1.0)
        loss = error - s.student_value_weight * value.mean() / size
        loss = loss + saturation_loss(pre_tanh, s)
        descend(loss, self.student_optimiser)
        return {"student_error": error.detach(), "student_saturation": saturated_share(pre_tanh)}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimisers and random state."""
        return save_state(self.generator, self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        load_state(state, self.generator, self)


def student_worlds(agent_step: int, worlds: int, device: torch.device) -> Bool[Tensor, " worlds"]:
    """Return in which of `worlds` the student acts at an agent step, counted over all of them."""
    turn = agent_step // worlds // STUDENT_TURN_STEPS
    return (torch.arange(worlds, device=device) + turn) % WORLDS_PER_STUDENT == 0


def _told(observation: Observation) -> Float32[Tensor, "batch known"]:
    """Return what the simulator and the body tell, in their own units."""
    return torch.cat([observation.privileged, observation.proprio], dim=1)


# DrQ-v2's, and of `quick` an update for every 4 frames, as in the paper: without an encoder one costs a quarter.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": DRQV2_PRESETS["quick"]
    | {
        "frames": 160_000,
        "batch_size": 256,
        "update_every_agent_steps": by_frame_length(1, 2),
        "learning_rate": 1e-3,
        "stddev_duration": by_frame_length(2_500, 5_000),
    },
}
