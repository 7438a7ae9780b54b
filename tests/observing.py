"""Observations for the tests of agents, networks and replay."""

import torch

from pixelcontrol.types import Observation


def without_proprio(stack):
    """Return what a world without proprioception shows."""
    return Observation(stack, torch.zeros(len(stack), 0))
