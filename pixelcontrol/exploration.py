"""Exploration noise: white, as in the paper, or pink.

White noise takes back at one agent step what it did at the one before, so a body trembles where it is. Pink noise
swings slowly too, and goes further: it swings up a pendulum, which white noise never did (LOG.md).

Source: Eberhard, Hollenstein, Pinneri and Martius, *Pink Noise Is All You Need: Colored Noise Exploration in Deep
Reinforcement Learning*, ICLR 2023.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, get_args

import torch
from jaxtyping import Float32
from torch import Tensor

from pixelcontrol.machine import random_stream

Colour = Literal["white", "pink"]
COLOURS: tuple[Colour, ...] = get_args(Colour)

# Agent steps of each world whose noise is drawn together, about an episode of the suite's: the slowest swing.
BLOCK_STEPS = 512


def pink(white: Float32[Tensor, "steps *shape"]) -> Float32[Tensor, "steps *shape"]:
    """Filter standard normal numbers along their first axis, so that their power is as 1 / frequency.

    Each stays standard normal, but for the mean over all steps, which becomes 0.
    """
    frequency = torch.fft.fftfreq(len(white), device=white.device).abs()
    power = torch.where(frequency > 0, 1.0 / frequency, 0.0)
    gain = (power / power.mean()).sqrt().view(-1, *[1] * (white.ndim - 1))
    return torch.fft.ifft(torch.fft.fft(white, dim=0) * gain, dim=0).real


def uniform(normal: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Map standard normal numbers to those of [-1, 1] that are as likely to be exceeded."""
    return torch.erf(normal / sqrt(2.0))


class ExplorationNoise:
    """Standard normal numbers for every world and control, a function of seed and agent step.

    So there is nothing to save, and a resumed run explores as one that was never stopped.
    """

    def __init__(self, colour: Colour, action_dim: int, seed: int, device: torch.device) -> None:
        self.colour, self.action_dim, self.seed, self.device = colour, action_dim, seed, device
        self._block = -1
        self._values = torch.empty(0, 0, action_dim)

    def at(self, agent_step: int, worlds: int) -> Float32[Tensor, "worlds action"]:
        """Return the noise of a round of agent steps; `agent_step` counts those of all worlds before it."""
        block, step = divmod(agent_step // worlds, BLOCK_STEPS)
        if block != self._block:
            generator = random_stream(self.seed, f"exploration {block}", self.device)
            shape = (BLOCK_STEPS, worlds, self.action_dim)
            white = torch.randn(shape, generator=generator, device=self.device)
            self._block, self._values = block, pink(white) if self.colour == "pink" else white
        return self._values[step]
