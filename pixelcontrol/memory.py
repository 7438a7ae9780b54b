"""What an agent without a memory of its own keeps of the running episodes: their last images.

See `pixelcontrol.types.Memory`; Dreamer-v2's memory is in `agents/dreamerv2.py`.
"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from pixelcontrol.machine import to_device
from pixelcontrol.types import TimeStep


class FrameStack:
    """Keeps the observation of N worlds while they run: the last images of each, oldest first."""

    def __init__(self, channels: int) -> None:
        """Stack as many images as have `channels` channels together."""
        self.channels = channels
        self.observation: UInt8[Tensor, "worlds channels height width"] = torch.empty(0)

    def push(self, step: TimeStep) -> UInt8[Tensor, "worlds channels height width"]:
        """Add each world's newest image and return the observations; a `first` image fills its whole stack."""
        filled = step.image.repeat(1, self.channels // step.image.shape[1], 1, 1)
        if step.first.all():
            self.observation = filled
        else:
            moved = torch.cat([self.observation[:, step.image.shape[1] :], step.image], dim=1)
            first = to_device(step.first, moved.device)
            self.observation = torch.where(first[:, None, None, None], filled, moved)
        return self.observation
