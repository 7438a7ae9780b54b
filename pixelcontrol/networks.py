"""Encoder, trunk, actors and critics of the agents that learn from transitions (paper, section 3.1 and Table 2).

Beside them what all agents need: weights in bf16, gradients, moving averages, state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.func import functional_call

from pixelcontrol.machine import restore_generator


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
        if isinstance(layer, nn.Linear | nn.Conv2d | TwinLinear):
            gain = sqrt(2.0) if isinstance(layer, nn.Conv2d) else 1.0
            weight = torch.zeros(layer.weight.shape)
            if delta_orthogonal and isinstance(layer, nn.Conv2d):
                height, width = layer.kernel_size
                nn.init.orthogonal_(weight[:, :, height // 2, width // 2], gain, generator=generator)
            else:
                for matrix in weight.mT if isinstance(layer, TwinLinear) else [weight]:
                    nn.init.orthogonal_(matrix, gain, generator=generator)
            layer.weight.data.copy_(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def channels_last(convolutions: nn.Sequential) -> nn.Sequential:
    """Lay the weights out as the fast kernels of CPUs and GPUs want them; results stay the same to rounding."""
    # PyTorch's types know this form for tensors alone
    return convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class ConvEncoder(nn.Module):
    """A 3x3 convolution for each stride, without padding, ReLU after each (SAC-AE's encoder, as DrQ-v2 uses it).

    Departure: features are flattened pixel by pixel instead of channel by channel. That is the order in which
    channels-last memory already lies, and a mere renaming of the next layer's inputs.

    Attributes:
        channels: of the stacks that it takes.
        feature_count: how many features images give; 39,200 where they are 84x84.
        norm: of proprioception, where there is some.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        filters: int = 32,
        strides: Sequence[int] = (2, 1, 1, 1),
        *,
        pixel_offset: float = 0.5,
        proprio_dim: int = 0,
    ) -> None:
        """Build the layers for stacks of `observation_shape`, which is (channels, height, width).

        Args:
            observation_shape: of one stack of images.
            filters: channels of each convolution.
            strides: one for each convolution.
            pixel_offset: what is subtracted from pixels in [0, 1]; DrQ-v2 centres them, its ancestors do not.
            proprio_dim: numbers of proprioception that may come beside a stack.

        Raises:
            ValueError: the images are too small for the convolutions.
        """
        super().__init__()
        self.pixel_offset = pixel_offset
        channels, height, width = observation_shape
        self.channels = channels
        layers: list[nn.Module] = []
        for stride in strides:
            layers += [nn.Conv2d(channels, filters, 3, stride), nn.ReLU()]
            channels, height, width = filters, (height - 3) // stride + 1, (width - 3) // stride + 1
        if height < 1 or width < 1:
            raise ValueError(
                f"images of {observation_shape[1]}x{observation_shape[2]} pixels vanish in {len(strides)} "
                f"convolutions with strides {tuple(strides)}; use larger images or smaller strides"
            )
        self.convolutions = channels_last(nn.Sequential(*layers))
        self.feature_count = filters * height * width
        self.norm = RunningNorm(proprio_dim) if proprio_dim else None

    def show(self, proprio: Float32[Tensor, "batch proprio"]) -> None:
        """Count proprioception in for its norm, where there is some. Agents do so as they explore."""
        if self.norm is not None:
            self.norm.show(proprio)

    def forward(
        self,
        stack: UInt8[Tensor, "batch channels height width"],
        proprio: Float32[Tensor, "batch proprio"] | None = None,
    ) -> Float[Tensor, "batch features"]:
        """Return the features of images with values in 0..255, and behind them proprioception, normed."""
        features = self.convolutions[1:](see(self.convolutions[0], stack, self.pixel_offset))
        features = features.permute(0, 2, 3, 1).flatten(1)
        if self.norm is None or proprio is None:
            return features  # without the copy below, of megabytes
        return torch.cat([features, self.norm(proprio).to(features.dtype)], dim=1)


def see(
    first: nn.Module, image: UInt8[Tensor, "batch channels height width"], offset: float
) -> Float[Tensor, "batch filters rows columns"]:
    """Return what an encoder's first convolution makes of pixels / 255 - `offset`, before its activation."""
    assert isinstance(first, nn.Conv2d)
    # channels_last before the cast: the layout is free to choose while values are one byte
    pixels = image.contiguous(memory_format=torch.channels_last)
    # multiples of 1/2, which bf16 holds exactly; the weights bear the division by 255
    # not in place: bf16 read and written in one place took an Intel core three times as long
    pixels = pixels.to(compute_dtype(pixels.device))
    centred = pixels - 255.0 * offset if offset else pixels  # a pass over megabytes
    return F.conv2d(centred, first.weight / 255.0, first.bias, first.stride)


class Trunk(nn.Sequential):
    """Linear, LayerNorm, tanh: from the features of images to a small vector in [-1, 1].

    Proprioception behind them stays as it is. CURL leaves out the tanh.
    """

    def __init__(self, feature_count: int, feature_dim: int, *, tanh: bool = True) -> None:
        squash = nn.Tanh() if tanh else nn.Identity()
        super().__init__(nn.Linear(feature_count, feature_dim), nn.LayerNorm(feature_dim), squash)
        self.feature_count = feature_count

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch small"]:
        """Return (batch, feature_dim + proprio_dim) for (batch, feature_count + proprio_dim)."""
        seen, proprio = features[:, : self.feature_count], features[:, self.feature_count :]
        small = super().forward(seen)
        return torch.cat([small, proprio.to(small.dtype)], dim=1) if proprio.shape[1] else small


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
    """Maps encoder features to the mean action, before tanh bounds it."""

    def __init__(
        self,
        feature_count: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        *,
        proprio_dim: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(feature_count, feature_dim)
        self.policy = mlp(feature_dim + proprio_dim, hidden_dim, action_dim)

    def forward(self, features: Tensor) -> Float32[Tensor, "batch action"]:
        """Return the mean action for (batch, feature_count + proprio_dim) features, before tanh."""
        return self.policy(self.trunk(features)).float()


class StochasticActor(nn.Module):
    """Maps encoder features to a normal distribution of what tanh then makes an action (SAC, DrQ, CURL)."""

    def __init__(
        self,
        feature_count: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        *,
        proprio_dim: int = 0,
        log_std_bounds: tuple[float, float],
        trunk_tanh: bool = True,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(feature_count, feature_dim, tanh=trunk_tanh)
        self.policy = mlp(feature_dim + proprio_dim, hidden_dim, 2 * action_dim)
        low, high = log_std_bounds
        if not low < high:
            raise ValueError(f"--log-std-min is {low}, but must be below --log-std-max, which is {high}")
        self.log_std_bounds = log_std_bounds

    def forward(
        self, features: Tensor
    ) -> tuple[Float32[Tensor, "batch action"], Float32[Tensor, "batch action"]]:
        """Return mean and log σ, before tanh; another tanh keeps log σ between its bounds."""
        mean, raw = self.policy(self.trunk(features)).float().chunk(2, dim=-1)
        low, high = self.log_std_bounds
        return mean, low + 0.5 * (high - low) * (raw.tanh() + 1.0)


class TwinLinear(nn.Module):
    """Two linear layers side by side, computed as one batched product.

    Weights are (2, inputs, outputs), the other way round than `nn.Linear`'s: so their gradients come out of the
    batched product as they lie in memory, and need no transposing copy.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Float[Tensor, "2 batch inputs"]) -> Float[Tensor, "2 batch outputs"]:
        """Return (2, batch, outputs): each layer's answer to its own input."""
        return torch.baddbmm(self.bias, x, self.weight)


def _in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Float32[Tensor, "..."]:
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


class Value(nn.Linear):
    """A last layer that says one number, in float32 inside an autocast region too.

    bf16 tells values between 128 and 256 apart by whole ones alone: critics learned them 2 to 3 % too low.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float32[Tensor, " *batch"]:
        """Return one number for each input."""
        return _in_float32(super().forward, x).squeeze(-1)


class TwinValue(TwinLinear):
    """Two `Value`s side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def forward(self, x: Float[Tensor, "2 batch inputs"]) -> Float32[Tensor, "2 batch"]:
        """Return each layer's number for each of its own inputs."""
        return _in_float32(super().forward, x).squeeze(-1)


class TwinCritic(nn.Module):
    """Two Q-functions behind one trunk of their own (clipped double Q-learning, paper below Eq. 1)."""

    def __init__(
        self,
        feature_count: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        *,
        proprio_dim: int = 0,
        trunk_tanh: bool = True,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(feature_count, feature_dim, tanh=trunk_tanh)
        self.twins = nn.Sequential(
            TwinLinear(feature_dim + proprio_dim + action_dim, hidden_dim),
            nn.ReLU(),
            TwinLinear(hidden_dim, hidden_dim),
            nn.ReLU(),
            TwinValue(hidden_dim),
        )

    def forward(
        self, features: Tensor, action: Float32[Tensor, "batch action"]
    ) -> Float32[Tensor, "2 batch"]:
        """Return both values of (batch, feature_count + proprio_dim) features with actions."""
        small = self.trunk(features)
        inputs = torch.cat([small, action.to(small.dtype)], dim=-1)
        return self.twins(inputs.expand(2, -1, -1))


class RunningNorm(nn.Module):
    """Brings numbers of any unit to mean 0 and variance 1, by all that it was shown so far, and squashes them.

    By sign(x) ln(1 + |x|), which is about x near 0 and 2.4 for 10: velocities and forces are small nearly always
    and large at impacts, and clipped at 10 they kept hoppers from learning anything (LOG.md). What varies by
    less than about 1e-4 counts as constant.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def show(self, x: Float32[Tensor, "batch size"]) -> None:
        """Count `x` in: means and variances of two sets give those of both (Chan et al., 1983)."""
        self.count += len(x)
        share = len(x) / self.count
        shift = x.mean(dim=0) - self.mean
        self.variance.lerp_(x.var(dim=0, correction=0) + shift.square() * (1.0 - share), share)
        self.mean += shift * share

    def forward(self, x: Float32[Tensor, "batch size"]) -> Float32[Tensor, "batch size"]:
        """Return `x`, normed and squashed."""
        normed = (x - self.mean) * (self.variance + 1e-8).rsqrt()
        return normed.sign() * normed.abs().log1p()


def twin_loss(q: Float32[Tensor, "2 batch"], target: Float32[Tensor, " batch"]) -> Float32[Tensor, ""]:
    """Return the sum over both Q-functions of their mean squared distance from `target` (paper, Eq. 1)."""
    return 2.0 * F.mse_loss(q, target.expand_as(q))


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return in which precision products are computed now: that of the autocast region around, if there is one."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32


class _Rounding(torch.autograd.Function):
    """Casts weights together, and their gradients back together."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _cast(weights, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        cast = iter(_cast([gradient for gradient in gradients if gradient is not None], torch.float32))
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    torch._foreach_copy_(copies, tuple(tensors))
    return copies


def rounded(*networks: nn.Module) -> list[Callable[..., Any]]:
    """Return each network as a function that computes with its weights as they are now, cast all together.

    In bf16 an update would otherwise spend a third of its kernel launches on casts of one weight or gradient
    each. Values and gradients are those of autocast's own casts, but for an encoder's first convolution, whose
    weights are rounded once more when they are divided by 255; where nothing is to be cast, the networks
    themselves are returned. Gradients reach the float32 weights, unless this is called under `torch.no_grad`.
    """
    dtype = compute_dtype(next(networks[0].parameters()).device)
    if dtype == torch.float32:
        return list(networks)
    places = [
        (index, f"{prefix}.{name}".removeprefix("."))
        for index, network in enumerate(networks)
        for prefix, layer in network.named_modules()
        if not isinstance(layer, nn.LayerNorm | Value | TwinValue)  # which compute in float32
        for name, _ in layer.named_parameters(recurse=False)
    ]
    weights = [networks[index].get_parameter(name) for index, name in places]
    copies: list[dict[str, Tensor]] = [{} for _ in networks]
    for (index, name), copy in zip(places, _Rounding.apply(dtype, *weights), strict=True):
        copies[index][name] = copy

    def computing(network: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Any]:
        return lambda *inputs: functional_call(network, weights, inputs)

    return [computing(network, part) for network, part in zip(networks, copies, strict=True)]


def adam(weights: Iterable[Any], learning_rate: float, **options: Any) -> torch.optim.Adam:
    """Return Adam for weights, or groups of them, as one kernel with all its state on the device.

    On a CPU too, so that a run may move to a GPU. `options` are those of `torch.optim.Adam`.
    """
    return torch.optim.Adam(weights, learning_rate, fused=True, capturable=True, **options)


def descend(loss: Float32[Tensor, ""], optimiser: torch.optim.Optimizer, clip: float | None = None) -> None:
    """Move an optimiser's own weights, and no others, one step down `loss`; all else in it is a judge.

    Gradients are as precise as their products were: within an autocast region PyTorch would compute those of
    float32 layers in bf16.

    Args:
        loss: to be less.
        optimiser: of the weights that learn.
        clip: largest norm of all gradients together; None does not clip.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward(inputs=weights)
    if clip is not None:
        nn.utils.clip_grad_norm_(weights, clip)
    optimiser.step()


@torch.no_grad()
def ema_update(target: Iterable[Tensor], source: Iterable[Tensor], tau: float) -> None:
    """Move every target parameter by the fraction `tau` toward its source (paper, Algorithm 1)."""
    torch._foreach_lerp_(list(target), list(source), tau)


Part = nn.Module | torch.optim.Optimizer | Tensor
"""What of an agent has a state: networks, optimisers, and counts or other tensors."""


def save_state(generator: torch.Generator, *owners: object) -> dict[str, Any]:
    """Return the state of every `Part` that is an attribute of `owners`, and of the generator, by name."""
    parts = _parts_of(owners).items()
    state = {name: part if isinstance(part, Tensor) else part.state_dict() for name, part in parts}
    return state | {"generator": generator.get_state()}


@torch.no_grad()
def load_state(state: Mapping[str, Any], generator: torch.Generator, *owners: object) -> None:
    """Restore what `save_state` returned."""
    for name, part in _parts_of(owners).items():
        if isinstance(part, Tensor):
            part.copy_(state[name])
        else:
            part.load_state_dict(state[name])
    restore_generator(generator, state["generator"])


def _parts_of(owners: Iterable[object]) -> dict[str, Part]:
    return {name: part for owner in owners for name, part in vars(owner).items() if isinstance(part, Part)}
