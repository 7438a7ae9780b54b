"""The neural networks that all agents share (paper, section 3.1 and Table 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn


def initialise(module: nn.Module, generator: torch.Generator, *, delta_orthogonal: bool = False) -> None:
    """Draw orthogonal weights for every layer of `module`, with zero biases (the official code's scheme).

    Convolutions are flattened to a matrix and have gain √2; linear layers, outputs included, have gain 1.

    Args:
        module: network whose layers are drawn, in the order in which they were defined.
        generator: on the CPU.
        delta_orthogonal: let convolutions start with an orthogonal centre and zeros around it, so that each
            begins as a map of single pixels (arXiv:1806.05393; SAC-AE and CURL).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            gain = sqrt(2.0) if isinstance(layer, nn.Conv2d) else 1.0
            weight = torch.zeros(layer.weight.shape)
            if delta_orthogonal and isinstance(layer, nn.Conv2d):
                height, width = layer.kernel_size
                nn.init.orthogonal_(weight[:, :, height // 2, width // 2], gain, generator=generator)
            else:
                nn.init.orthogonal_(weight, gain, generator=generator)
            layer.weight.data.copy_(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ConvEncoder(nn.Module):
    """Four 3x3 convolutions without padding, ReLU after each (SAC-AE's encoder, as DrQ-v2 uses it).

    Departure: features are flattened pixel by pixel instead of channel by channel. That is the order in which
    channels-last memory already lies, and a mere renaming of the next layer's inputs.

    Attributes:
        feature_count: how many features `forward` returns; 39,200 for 84x84 images.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        filters: int = 32,
        strides: Sequence[int] = (2, 1, 1, 1),
        *,
        pixel_offset: float = 0.5,
    ) -> None:
        """Build the layers for stacks of `observation_shape`, which is (channels, height, width).

        Args:
            observation_shape: of one stack of images.
            filters: channels of each convolution.
            strides: one for each convolution.
            pixel_offset: what is subtracted from pixels in [0, 1]; DrQ-v2 centres them, its ancestors do not.

        Raises:
            ValueError: the images are too small for the convolutions.
        """
        super().__init__()
        self.pixel_offset = pixel_offset
        channels, height, width = observation_shape
        layers: list[nn.Module] = []
        for stride in strides:
            layers += [nn.Conv2d(channels, filters, 3, stride), nn.ReLU()]
            channels, height, width = filters, (height - 3) // stride + 1, (width - 3) // stride + 1
        if height < 1 or width < 1:
            raise ValueError(
                f"images of {observation_shape[1]}x{observation_shape[2]} pixels vanish in {len(strides)} "
                f"convolutions with strides {tuple(strides)}; use larger images or smaller strides"
            )
        self.convolutions = nn.Sequential(*layers)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.feature_count = filters * height * width

    def forward(self, observation: UInt8[Tensor, "batch channels height width"]) -> Tensor:
        """Return the (batch, feature_count) features of observations with values in 0..255."""
        # channels_last before the cast: the layout is free to choose while values are one byte
        pixels = observation.contiguous(memory_format=torch.channels_last).float()
        features = self.convolutions(pixels.div_(255.0).sub_(self.pixel_offset))
        return features.permute(0, 2, 3, 1).flatten(1)


def projection(feature_count: int, feature_dim: int, *, tanh: bool = True) -> nn.Sequential:
    """Linear, LayerNorm, tanh: from the encoder's features to a small vector in [-1, 1] (the "trunk").

    CURL leaves out the tanh.
    """
    squash = nn.Tanh() if tanh else nn.Identity()
    return nn.Sequential(nn.Linear(feature_count, feature_dim), nn.LayerNorm(feature_dim), squash)


def mlp(inputs: int, hidden_dim: int, outputs: int) -> nn.Sequential:
    """Two hidden ReLU layers of equal width."""
    return nn.Sequential(
        nn.Linear(inputs, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, outputs),
    )


class DeterministicActor(nn.Module):
    """Maps encoder features to the mean action, in [-1, 1]."""

    def __init__(self, feature_count: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = projection(feature_count, feature_dim)
        self.policy = mlp(feature_dim, hidden_dim, action_dim)

    def raw(self, features: Tensor) -> Float32[Tensor, "batch action"]:
        """Return the mean action for (batch, feature_count) features, before tanh bounds it."""
        return self.policy(self.trunk(features)).float()

    def forward(self, features: Tensor) -> Float32[Tensor, "batch action"]:
        """Return the mean action, in [-1, 1]."""
        return self.raw(features).tanh()


class StochasticActor(nn.Module):
    """Maps encoder features to a normal distribution of what tanh then makes an action (SAC, DrQ, CURL)."""

    def __init__(
        self,
        feature_count: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        *,
        log_std_bounds: tuple[float, float],
        trunk_tanh: bool = True,
    ) -> None:
        super().__init__()
        self.trunk = projection(feature_count, feature_dim, tanh=trunk_tanh)
        self.policy = mlp(feature_dim, hidden_dim, 2 * action_dim)
        self.log_std_bounds = log_std_bounds

    def forward(
        self, features: Tensor
    ) -> tuple[Float32[Tensor, "batch action"], Float32[Tensor, "batch action"]]:
        """Return mean and log σ, before tanh; another tanh keeps log σ between its bounds."""
        mean, raw = self.policy(self.trunk(features)).float().chunk(2, dim=-1)
        low, high = self.log_std_bounds
        return mean, low + 0.5 * (high - low) * (raw.tanh() + 1.0)


class TwinCritic(nn.Module):
    """Two Q-functions behind one trunk of their own (clipped double Q-learning, paper below Eq. 1)."""

    def __init__(
        self,
        feature_count: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        *,
        trunk_tanh: bool = True,
    ) -> None:
        super().__init__()
        self.trunk = projection(feature_count, feature_dim, tanh=trunk_tanh)
        self.q1 = mlp(feature_dim + action_dim, hidden_dim, 1)
        self.q2 = mlp(feature_dim + action_dim, hidden_dim, 1)

    def forward(
        self, features: Tensor, action: Float32[Tensor, "batch action"]
    ) -> tuple[Float32[Tensor, " batch"], Float32[Tensor, " batch"]]:
        """Return both values of (batch, feature_count) features with actions."""
        inputs = torch.cat([self.trunk(features), action], dim=-1)
        return self.q1(inputs).float().squeeze(-1), self.q2(inputs).float().squeeze(-1)


@torch.no_grad()
def ema_update(target: Iterable[Tensor], source: Iterable[Tensor], tau: float) -> None:
    """Move every target parameter by the fraction `tau` toward its source (paper, Algorithm 1)."""
    torch._foreach_lerp_(list(target), list(source), tau)
