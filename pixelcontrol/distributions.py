"""How actions are drawn around a policy's mean."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

# Actions stay this far inside of [-1, 1], as in the official code.
EDGE = 1e-6


class _StraightThroughClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, action: Tensor) -> Tensor:
        return action.clamp(-1.0 + EDGE, 1.0 - EDGE)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def straight_through_clamp(action: Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Clamp to [-1 + EDGE, 1 - EDGE]; the gradient passes as if nothing had been clamped."""
    return _StraightThroughClamp.apply(action)


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


def tanh_normal(
    mean: Float32[Tensor, "batch action"],
    log_std: Float32[Tensor, "batch action"],
    generator: torch.Generator,
) -> tuple[Float32[Tensor, "batch action"], Float32[Tensor, " batch"]]:
    """Draw a = tanh(u), u ~ N(mean, std²), and its log-density (SAC, arXiv:1812.05905, appendix C).

    Differentiable with respect to `mean` and `log_std`, through the action too.

    Departure: log(1 - tanh²u) is computed as 2(log 2 - u - softplus(-2u)), as in DrQ, which is exact for any u.
    SAC-AE and CURL add 1e-6 under the logarithm, which bounds the density of actions within 1e-6 of the limits.

    Returns:
        The actions, in [-1, 1], and log π(a), summed over the controls.
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    before_tanh = mean + noise * log_std.exp()
    log_normal = -0.5 * noise.square() - log_std - 0.5 * log(2.0 * pi)
    log_slope = 2.0 * (log(2.0) - before_tanh - F.softplus(-2.0 * before_tanh))
    return before_tanh.tanh(), (log_normal - log_slope).sum(dim=-1)
