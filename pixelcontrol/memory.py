"""What an agent without a memory of its own keeps of the running episodes: their last images.

See `pixelcontrol.types.Memory`; Dreamer-v2's memory is in `agents/dreamerv2.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelcontrol.machine import to_device
from pixelcontrol.types import Observation, TimeStep


class FrameStack:
    """Keeps the observation of N worlds while they run: the last images of each, and the numbers of now."""

    def __init__(self, channels: int) -> None:
        """Stack as many images as have `channels` channels together."""
        self.channels = channels
        self.observation: Observation | None = None

    def push(self, step: TimeStep) -> Observation:
        """Add each world's newest image and return the observation; a `first` image fills its whole stack."""
        device = step.image.device
        stack = step.image.repeat(1, self.channels // step.image.shape[1], 1, 1)
        if self.observation is not None and not step.first.all():
            moved = torch.cat([self.observation.stack[:, step.image.shape[1] :], step.image], dim=1)
            stack = torch.where(to_device(step.first, device)[:, None, None, None], stack, moved)
        beside = (to_device(part, device) for part in (step.proprio, step.privileged))
        self.observation = Observation(stack, *beside)
        return self.observation

    def state_dict(self) -> dict[str, Tensor]:
        """See `pixelcontrol.types.Memory`."""
        return {} if self.observation is None else self.observation._asdict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `pixelcontrol.types.Memory`."""
        if state:
            self.observation = Observation(**state)
