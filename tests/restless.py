"""A user's own agent, as docs/agents.md shows it."""

import torch

from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
from pixelcontrol.config import AgentKind


class Restless(DrQV2):
    """DrQ-v2 whose exploration noise never decays."""

    def std(self, agent_step):
        return torch.full((), 0.2, device=self.device)


KIND = AgentKind(Restless, DrQV2Settings, PRESETS, acts_with=("encoder", "actor"))
