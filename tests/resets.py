"""A user's own agent that does something now and then, as docs/agents.md shows it."""

from copy import deepcopy

import torch

from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
from pixelcontrol.config import ACTOR, AgentKind
from pixelcontrol.networks import initialise

RESET_EVERY = 100_000


class Resets(DrQV2):
    """DrQ-v2 whose actor begins anew every 100,000 agent steps."""

    def __init__(self, observation_shape, action_dim, settings, **how):
        super().__init__(observation_shape, action_dim, settings, **how)
        self.resets = torch.zeros((), dtype=torch.int64)  # saved, as every tensor is

    @torch.no_grad()
    def act(self, observation, agent_step):
        if agent_step // RESET_EVERY > self.resets:
            self.resets += 1
            fresh = deepcopy(self.actor).cpu()
            seed = torch.randint(2**31, (), generator=self.generator, device=self.device)
            initialise(fresh, torch.Generator().manual_seed(int(seed)))
            for weight, new in zip(self.actor.parameters(), fresh.parameters(), strict=True):
                weight.copy_(new)
        return super().act(observation, agent_step)


KIND = AgentKind(Resets, DrQV2Settings, PRESETS, acts_with=ACTOR)
