"""A user's own agent with networks and an optimiser of its own, as docs/agents.md shows it."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
from pixelcontrol.config import ACTOR, AgentKind
from pixelcontrol.networks import adam, descend, rounded
from pixelcontrol.settings import setting


@dataclass(frozen=True)
class ForesightSettings(DrQV2Settings):
    foresight_rate: float = setting(1e-4, "Adam's step size, for the prediction", "ours", low=0.0)


class Foresight(DrQV2):
    """DrQ-v2 whose encoder also learns to predict its features n steps on."""

    metric_names = (*DrQV2.metric_names, "foresight_loss")

    def __init__(self, observation_shape, action_dim, settings, **how):
        super().__init__(observation_shape, action_dim, settings, **how)
        features = self.encoder.feature_count
        self.foresight = torch.nn.Linear(features + action_dim, 64).to(self.device)
        self.goal = torch.nn.Linear(features, 64).to(self.device).requires_grad_(False)
        weights = [*self.foresight.parameters(), *self.encoder.parameters()]
        self.foresight_optimiser = adam(weights, settings.foresight_rate)

    def update(self, batch, agent_step):
        metrics = super().update(batch, agent_step)
        encoder, foresight, goal = rounded(self.encoder, self.foresight, self.goal)
        with torch.no_grad():
            wanted = goal(encoder(*batch.next_observation.seen))
        features = encoder(*batch.observation.seen)
        loss = functional.mse_loss(foresight(torch.cat([features, batch.action], -1)).float(), wanted.float())
        descend(loss, self.foresight_optimiser)
        return metrics | {"foresight_loss": loss.detach()}


KIND = AgentKind(Foresight, ForesightSettings, PRESETS, acts_with=ACTOR)
