"""The world model of Dreamer-v2: what it sees, what it remembers, what it expects (arXiv:2010.02193, section 2.1).

The recurrent state-space model. At row t it holds a deterministic part h and a stochastic part z, the latter
`groups` draws of one out of `classes`, as one-hot vectors side by side::

    z(t-1), a(t) --> Transition --> h(t) --> prior LatentHead ------> what z(t) may be, not having seen image t
                        ^            |
             h(t-1) ----+            +--- encoded image t --> posterior LatentHead --> what z(t) is

Action a(t) is the one that led to image t (see `pixelcontrol.types`). Together, (z, h) are the *features*, all
that heads and policy see. The model learns from the posterior and imagines with the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from pixelcontrol.distributions import straight_through_one_hot
from pixelcontrol.networks import channels_last, see

# The decoder's convolutions make pictures of just this size.
IMAGE_SIZE = 64

# What is subtracted from pixels in [0, 1], for the encoder and for the decoder.
PIXEL_OFFSET = 0.5


def initialise_glorot(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every layer's weights uniformly as Glorot and Bengio did, with zero biases (Keras' default).

    Args:
        module: network whose layers are drawn, in the order in which they were defined.
        generator: on the CPU.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def dense(inputs: int, hidden_dim: int, last: nn.Module, hidden_layers: int = 4) -> nn.Sequential:
    """Hidden ELU layers of equal width before a last layer: the form of all heads of Dreamer-v2."""
    layers: list[nn.Module] = []
    for before in (inputs, *[hidden_dim] * (hidden_layers - 1)):
        layers += [nn.Linear(before, hidden_dim), nn.ELU()]
    return nn.Sequential(*layers, last)


def centred(
    image: UInt8[Tensor, "*batch channels height width"],
) -> Float32[Tensor, "*batch channels height width"]:
    """Return pixels in [-0.5, 0.5]: what the decoder is to say."""
    return image.float() / 255.0 - PIXEL_OFFSET


class ImageEncoder(nn.Module):
    """Four 4x4 convolutions with stride 2, ELU after each, without padding; channels double from `depth` on.

    Attributes:
        feature_count: how many features `forward` returns.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        widths = [channels, *(depth * 2**layer for layer in range(4))]
        layers = (part for pair in pairwise(widths) for part in (nn.Conv2d(*pair, 4, 2), nn.ELU()))
        self.convolutions = channels_last(nn.Sequential(*layers))
        self.feature_count = 4 * widths[-1]

    def forward(self, image: UInt8[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return the features of images with values in 0..255."""
        return self.convolutions[1:](see(self.convolutions[0], image, PIXEL_OFFSET)).flatten(1)


class ImageDecoder(nn.Module):
    """From features to the image: one linear layer, four transposed convolutions with stride 2, ELU between."""

    def __init__(self, feature_count: int, channels: int, depth: int) -> None:
        super().__init__()
        widths = [32 * depth, 4 * depth, 2 * depth, depth, channels]
        self.linear = nn.Linear(feature_count, widths[0])
        layers: list[nn.Module] = []
        for pair, kernel in zip(pairwise(widths), (5, 5, 6, 6), strict=True):
            layers += [nn.ConvTranspose2d(*pair, kernel, 2), nn.ELU()]
        self.convolutions = channels_last(nn.Sequential(*layers[:-1]))

    def forward(
        self, features: Float[Tensor, "batch features"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """Return the expected pixels, in the range of `centred`."""
        # The first convolution sees one pixel, so it is a matrix product, and many times as fast as one.
        first = self.convolutions[0]
        assert isinstance(first, nn.ConvTranspose2d)
        grown = self.linear(features) @ first.weight.permute(0, 2, 3, 1).flatten(1)
        picture = grown.unflatten(1, (*first.kernel_size, -1)) + first.bias
        return self.convolutions[1:](picture.permute(0, 3, 1, 2)).float()


class Transition(nn.Module):
    """How the deterministic part goes on: a layer of ELUs, then a GRU whose three gates share a LayerNorm.

    Unlike in PyTorch's GRU the reset gate acts on the candidate as a whole, and the update gate is biased by -1,
    towards keeping what was.
    """

    def __init__(self, latent_dim: int, action_dim: int, deter_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.inputs = nn.Sequential(nn.Linear(latent_dim + action_dim, hidden_dim), nn.ELU())
        self.gates = nn.Linear(hidden_dim + deter_dim, 3 * deter_dim)
        self.norm = nn.LayerNorm(3 * deter_dim, eps=1e-3)

    def forward(
        self,
        latent: Float32[Tensor, "batch latent"],
        action: Float32[Tensor, "batch action"],
        deter: Float32[Tensor, "batch deter"],
    ) -> Float32[Tensor, "batch deter"]:
        """Return the deterministic part after `action`."""
        inputs = self.inputs(torch.cat([latent, action], dim=-1))
        gates = self.norm(self.gates(torch.cat([inputs, deter.to(inputs.dtype)], dim=-1)).float())
        reset, candidate, update = gates.chunk(3, dim=-1)
        return deter.lerp((reset.sigmoid() * candidate).tanh(), (update - 1.0).sigmoid())


class LatentHead(nn.Module):
    """From what is known to the logits of the stochastic part; the prior's and the posterior's form."""

    def __init__(self, inputs: int, hidden_dim: int, groups: int, classes: int) -> None:
        super().__init__()
        self.layers = dense(inputs, hidden_dim, nn.Linear(hidden_dim, groups * classes), hidden_layers=1)
        self.groups, self.classes = groups, classes

    def forward(self, known: Float[Tensor, "*batch inputs"]) -> Float32[Tensor, "*batch groups classes"]:
        """Return logits."""
        return self.layers(known).float().unflatten(-1, (self.groups, self.classes))


def observe(
    transition: Callable[..., Tensor],
    posterior: Callable[..., Tensor],
    encoded: Float[Tensor, "length batch encoded"],
    action: Float32[Tensor, "length batch action"],
    start: tuple[Float32[Tensor, "batch latent"], Float32[Tensor, "batch deter"]],
    gumbel: Float32[Tensor, "length batch groups classes"],
) -> tuple[
    Float32[Tensor, "length batch latent"],
    Float32[Tensor, "length batch deter"],
    Float32[Tensor, "length batch groups classes"],
]:
    """Follow sequences from what was seen.

    Args:
        transition: as `Transition`.
        posterior: as `LatentHead`.
        encoded: images, as `ImageEncoder` returns them.
        action: that led to each of them.
        start: z and h of the row before the first.
        gumbel: noise of the draws (see `gumbel_noise`).

    Returns:
        z, h and the logits of which z was drawn, at each row.
    """
    latent, deter = start
    latents, deters, logits = [], [], []
    for seen, taken, noise in zip(encoded, action, gumbel, strict=True):
        deter = transition(latent, taken, deter)
        logit = posterior(torch.cat([deter.to(seen.dtype), seen], dim=-1))
        latent = straight_through_one_hot(logit, noise).flatten(1)
        latents.append(latent)
        deters.append(deter)
        logits.append(logit)
    return torch.stack(latents), torch.stack(deters), torch.stack(logits)


def imagine(
    transition: Callable[..., Tensor],
    prior: Callable[..., Tensor],
    policy: Callable[[Tensor, int], Float32[Tensor, "batch action"]],
    start: tuple[Float32[Tensor, "batch latent"], Float32[Tensor, "batch deter"]],
    gumbel: Float32[Tensor, "steps batch groups classes"],
) -> Float32[Tensor, "states batch features"]:
    """Follow what a policy would do, without seeing: `steps` agent steps from `start`.

    Args:
        transition: as `Transition`.
        prior: as `LatentHead`.
        policy: chooses actions, given features and how many steps were made.
        start: z and h.
        gumbel: noise of the draws.

    Returns:
        The features of `steps` + 1 states, that of `start` first.
    """
    latent, deter = start
    features = [torch.cat([latent, deter], dim=-1)]
    for step, noise in enumerate(gumbel):
        deter = transition(latent, policy(features[-1], step), deter)
        latent = straight_through_one_hot(prior(deter), noise).flatten(1)
        features.append(torch.cat([latent, deter], dim=-1))
    return torch.stack(features)


def categorical_kl(
    logits: Float32[Tensor, "*batch groups classes"], other: Float32[Tensor, "*batch groups classes"]
) -> Float32[Tensor, " *batch"]:
    """Return KL(logits ‖ other) of independent categorical distributions, summed over the groups, in nats."""
    log_p, log_q = logits.log_softmax(dim=-1), other.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=(-2, -1))


def balanced_kl(
    posterior: Float32[Tensor, "*batch groups classes"],
    prior: Float32[Tensor, "*batch groups classes"],
    balance: float,
    free_nats: float,
) -> Float32[Tensor, ""]:
    """Return the loss that brings prior and posterior together (arXiv:2010.02193, Algorithm 2).

    The prior learns from it with the weight `balance`, the posterior with the rest: an untrained prior should not
    spoil what is seen. Each part counts only as far as its mean is over `free_nats`.
    """
    for_prior = categorical_kl(posterior.detach(), prior).mean().clamp(min=free_nats)
    for_posterior = categorical_kl(posterior, prior.detach()).mean().clamp(min=free_nats)
    return balance * for_prior + (1.0 - balance) * for_posterior
