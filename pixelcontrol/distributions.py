"""How actions are drawn around a policy's mean, and one class out of several."""

from __future__ import annotations

from math import e, log, pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

# Actions stay this far inside of [-1, 1], as in the official code.
EDGE = 1e-6

# Beyond this mean before tanh, the slope of tanh, and with it the actor's gradient, is a hundredth of that at 0.
SATURATED_MEAN = 3.0


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


def uniform_action(
    worlds: int, action_dim: int, generator: torch.Generator
) -> Float32[Tensor, "worlds action"]:
    """Draw actions of [-1, 1], as agents do before they have learned anything."""
    return 2.0 * torch.rand(worlds, action_dim, generator=generator, device=generator.device) - 1.0


def saturated_share(pre_tanh: Float32[Tensor, "batch action"]) -> Float32[Tensor, ""]:
    """Return which share of mean actions, given before tanh, lies at a bound."""
    return (pre_tanh.detach().abs() > SATURATED_MEAN).float().mean()


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
    slope_floor: float = 0.0,
) -> tuple[Float32[Tensor, "batch action"], Float32[Tensor, " batch"]]:
    """Draw a = tanh(u), u ~ N(mean, std²), and its log-density (SAC, arXiv:1812.05905, appendix C).

    Differentiable with respect to `mean` and `log_std`, through the action too.

    Args:
        mean: of u.
        log_std: of u.
        generator: where the noise is drawn from.
        slope_floor: added to the slope of tanh, 1 - a², in the density. 0 computes the slope's logarithm as
            2(log 2 - u - softplus(-2u)), which is exact for any u (DrQ). SAC-AE and CURL add 1e-6, so that
            no density is more than a million times that of u; that of a saturated action may be 1e13 times.

    Returns:
        The actions, in [-1, 1], and log π(a), summed over the controls.
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    before_tanh = mean + noise * log_std.exp()
    log_normal = -0.5 * noise.square() - log_std - 0.5 * log(2.0 * pi)
    action = before_tanh.tanh()
    if slope_floor:
        log_slope = ((1.0 - action.square()).relu() + slope_floor).log()
    else:
        log_slope = 2.0 * (log(2.0) - before_tanh - F.softplus(-2.0 * before_tanh))
    return action, (log_normal - log_slope).sum(dim=-1)


def truncated_normal(
    mean: Float32[Tensor, "*batch action"],
    std: Float32[Tensor, "*batch action"],
    uniform: Float32[Tensor, "*batch action"],
) -> tuple[Float32[Tensor, "*batch action"], Float32[Tensor, " *batch"]]:
    """Draw from N(mean, std²) under the condition of being in [-1, 1], by the inverse of its distribution.

    Differentiable with respect to `mean` and `std`, through the action too (Dreamer-v2's actor).

    Args:
        mean: of the normal distribution before the condition, in [-1, 1].
        std: likewise.
        uniform: draws from [0, 1).

    Returns:
        The actions, at least `EDGE` inside of the limits, and the entropy, summed over the controls, in nats.
    """
    low, high = (-1.0 - mean) / std, (1.0 - mean) / std
    below, above = torch.special.ndtr(low), torch.special.ndtr(high)
    # beyond 5.2 standard deviations float32 has no numbers left
    quantile = torch.lerp(below, above, uniform).clamp(1e-7, 1.0 - 1e-7)
    action = straight_through_clamp(mean + std * torch.special.ndtri(quantile))
    mass = above - below
    slope = (low * (-0.5 * low.square()).exp() - high * (-0.5 * high.square()).exp()) / sqrt(2.0 * pi)
    entropy = (std * mass).log() + 0.5 * log(2.0 * pi * e) + 0.5 * slope / mass
    return action, entropy.sum(dim=-1)


def gumbel_noise(
    shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Float32[Tensor, "*shape"]:
    """Draw what turns the largest logit into a draw from the softmax (see `straight_through_one_hot`)."""
    return -(-torch.rand(shape, generator=generator, device=device).log()).log()


def straight_through_one_hot(
    logits: Float32[Tensor, "*batch classes"], gumbel: Float32[Tensor, "*batch classes"]
) -> Float32[Tensor, "*batch classes"]:
    """Draw one class, as a one-hot vector; the gradient passes as if it were the probabilities themselves.

    Args:
        logits: of the classes.
        gumbel: from `gumbel_noise`; zeros take the most likely class.
    """
    chosen = (logits + gumbel).argmax(dim=-1, keepdim=True)
    probabilities = logits.softmax(dim=-1)
    return torch.zeros_like(logits).scatter(-1, chosen, 1.0) + probabilities - probabilities.detach()
