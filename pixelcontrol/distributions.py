"""How actions are drawn around a policy's mean."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

# Actions stay this far inside of [-1, 1], as in the official code.
EDGE = 1e-6


def straight_through_clamp(action: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Clamp to [-1 + EDGE, 1 - EDGE]; the gradient passes as if nothing had been clamped."""
    return action + (action.clamp(-1.0 + EDGE, 1.0 - EDGE) - action).detach()


def noisy_action(
    mean: Float32[Tensor, "batch action"],
    std: Float32[Tensor, ""],
    generator: torch.Generator,
    clip: float | None = None,
) -> Float32[Tensor, "batch action"]:
    """Add Gaussian noise to a deterministic action (paper, Algorithm 1), differentiable with respect to `mean`.

    Args:
        mean: the policy's action, in [-1, 1].
        std: standard deviation of the noise.
        generator: where the noise is drawn from.
        clip: bound of the noise itself, or None. Departure from Table 2's name "exploration stddev clip": the
            official code clips the noise in both losses (as TD3 does) and never that of exploration.
    """
    noise = std * torch.randn(mean.shape, generator=generator, device=mean.device)
    if clip is not None:
        noise = noise.clamp(-clip, clip)
    return straight_through_clamp(mean + noise)
