"""Observations for the tests of agents, networks and replay."""

import torch

from pixelcontrol.types import Observation


def without_proprio(stack):
    """Return what a world without proprioception shows."""
    nothing = torch.zeros(len(stack), 0)
    return Observation(stack, nothing, nothing)
