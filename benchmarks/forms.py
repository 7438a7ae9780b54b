"""Forms of the update's costly parts beside each other: which of them pays on this device?

    python benchmarks/forms.py [PART ...] [--repeats 100] [--batch 256] [--precision bf16]

The first form of each part is the one in use. On a GPU every form is captured into a CUDA graph and timed by
replaying it; on a CPU it is called. A form that cannot be done on this device is named with its error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from shifted_pixels import shifted_pixels
from torch import Tensor, nn

from pixelcontrol import machine
from pixelcontrol.augment import random_shift
from pixelcontrol.bench import spread
from pixelcontrol.networks import ConvEncoder, TwinCritic, Value, mlp, rounded

SIDE, CHANNELS, FILTERS, FEATURES, TRUNK, HIDDEN, ACTIONS = 84, 9, 32, 39_200, 50, 1024, 6

Form = Callable[[], Any]
"""What is timed."""


@dataclass(frozen=True)
class Place:
    """Where forms compute, in which precision and on how many samples."""

    device: torch.device
    dtype: torch.dtype
    batch: int

    def numbers(self, *shape: int) -> Tensor:
        """Draw a leaf that wants a gradient; images lie channels-last."""
        x = torch.randn(shape, device=self.device).to(self.dtype)
        return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x).requires_grad_()

    def precision(self) -> torch.autocast:
        """Return the region in which the learner computes."""
        bf16 = self.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)

    def pixels(self, *shape: int) -> Tensor:
        """Draw uint8 images."""
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)


def both_ways(function: Callable[..., Tensor], *inputs: Tensor) -> Form:
    """Return a form that computes `function` of the inputs, and the gradient of each that wants one."""
    gradient = torch.randn_like(function(*inputs))
    leaves = [one for one in inputs if one.requires_grad]
    return lambda: torch.autograd.grad(function(*inputs), leaves, gradient)


def first_layer(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """9 input channels are no multiple of 8, which tensor cores want. Pixels have no gradient."""
    for channels in (CHANNELS, 12, 16):
        x = place.numbers(place.batch, channels, SIDE, SIDE).detach()
        yield f"{channels} channels", partial(convolution_form, place, x, 2, separate)


def second_layer(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """Bias and ReLU read and write the whole output once more each."""
    for name, function in {"separate": separate, "in place": in_place, "fused by cuDNN": fused}.items():
        x = place.numbers(place.batch, FILTERS, 41, 41)
        yield f"ReLU {name}", partial(convolution_form, place, x, 1, function)


def convolution_form(place: Place, x: Tensor, stride: int, function: Callable[..., Tensor]) -> Form:
    filters, bias = place.numbers(FILTERS, x.shape[1], 3, 3), place.numbers(FILTERS)
    return both_ways(lambda *inputs: function(*inputs, stride), x, filters, bias)


def separate(x: Tensor, filters: Tensor, bias: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, filters, bias, stride).relu()


def in_place(x: Tensor, filters: Tensor, bias: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, filters, bias, stride).relu_()


def fused(x: Tensor, filters: Tensor, bias: Tensor, stride: int) -> Tensor:
    return FusedConvolution.apply(x, filters, bias, stride)


class FusedConvolution(torch.autograd.Function):
    """Convolution, bias and ReLU in one kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor, stride: int) -> Tensor:
        y = torch.cudnn_convolution_relu(x, filters, bias, (stride, stride), (0, 0), (1, 1), 1)
        ctx.save_for_backward(x, filters, y)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, filters, y = ctx.saved_tensors
        through = torch.ops.aten.threshold_backward(gradient, y, 0)
        how = [len(filters)], (ctx.stride,) * 2, (0, 0), (1, 1), False, (0, 0), 1, [True] * 3
        return *torch.ops.aten.convolution_backward(through, x, filters, *how), None


def observations(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """From the ring to what the first layer reads."""
    ring = place.pixels(20_000, 3, SIDE, SIDE)  # more than a GPU's cache holds
    row = torch.randint(2, len(ring), (place.batch,), device=place.device)
    stack = row[:, None] + torch.arange(-2, 1, device=place.device)
    on_gpu = place.device.type == "cuda"
    # a graph knows the default generator; others would have to be made known to it
    generator = torch.cuda.default_generators[0] if on_gpu else torch.default_generator
    side = torch.arange(SIDE, device=place.device)

    def centred(images: Tensor) -> Tensor:
        return images.to(place.dtype).sub_(127.5)

    def stacked() -> Tensor:
        return ring.index_select(0, stack.flatten()).view(place.batch, CHANNELS, SIDE, SIDE)

    def in_use() -> Tensor:
        shifted = random_shift(stacked(), 4, generator)
        return centred(shifted.contiguous(memory_format=torch.channels_last))

    def window() -> Tensor:
        offset = torch.randint(-4, 5, (2, place.batch, 1), generator=generator, device=place.device)
        return (side + offset).clamp_(0, SIDE - 1)

    def rows_then_columns() -> object:
        y, x = window()
        plane = torch.arange(place.batch * CHANNELS, device=place.device).view(place.batch, CHANNELS, 1)
        rows = stacked().view(-1, SIDE).index_select(0, (plane * SIDE + y[:, None]).flatten())
        columns = x[:, None, None].expand(-1, CHANNELS, SIDE, -1)
        shifted = rows.view(place.batch, CHANNELS, SIDE, SIDE).gather(3, columns)
        return centred(shifted.contiguous(memory_format=torch.channels_last))

    def two_gathers() -> object:
        y, x = window()
        sample = torch.arange(place.batch, device=place.device)[:, None, None]
        return centred(stacked()[sample, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2))

    def one_gather() -> object:
        y, x = window()
        images = ring[stack[:, None, None, :], :, y[:, :, None, None], x[:, None, :, None]]
        return centred(images.flatten(3).permute(0, 3, 1, 2))

    def one_kernel() -> Tensor:
        offset = torch.randint(-4, 5, (place.batch, 2), generator=generator, device=place.device)
        return shifted_pixels(ring, stack, offset, place.dtype)

    def checked_kernel() -> Form:
        drawn = []
        with side_stream(place.device):
            for form in (in_use, one_kernel):
                generator.manual_seed(1)
                drawn.append(form())
            if not torch.equal(*drawn):
                raise RuntimeError("the kernel draws other pixels")
        return one_kernel

    yield "stacks, stretches", lambda: in_use
    yield "stacks, rows, columns", lambda: rows_then_columns
    yield "stacks, pixels", lambda: two_gathers
    yield "pixels", lambda: one_gather
    yield "one kernel", checked_kernel
    yield "stacks, pixels, compiled", lambda: torch.compile(two_gathers)


def casts(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """The critic's weights, from float32."""
    critic = TwinCritic(FEATURES, ACTIONS, TRUNK, HIDDEN).to(place.device)

    def together() -> object:
        with place.precision():
            return rounded(critic)

    yield "together", lambda: together
    yield "one by one", lambda: lambda: [weight.to(place.dtype) for weight in critic.parameters()]


def twins(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """Two Q-functions of the same input; their last layers are in float32."""
    x = place.numbers(place.batch, TRUNK + ACTIONS)
    batched = TwinCritic(1, ACTIONS, TRUNK, HIDDEN).twins
    pair = [nn.Sequential(mlp(TRUNK + ACTIONS, HIDDEN, 1)[:-1], Value(HIDDEN)) for _ in range(2)]
    for network in (batched, *pair):
        network.to(place.device, place.dtype)[-1].float()
    weights = [*batched.parameters()], [weight for one in pair for weight in one.parameters()]
    yield "batched", lambda: both_ways(lambda *_: batched(x.expand(2, -1, -1)), x, *weights[0])
    yield "one by one", lambda: both_ways(lambda *_: torch.stack([one(x) for one in pair]), x, *weights[1])


def trunk(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """50 outputs are no multiple of 8; and three trunks read the same features."""
    for width in (TRUNK, 56, 64, 3 * TRUNK, 192):
        x, weight, bias = (
            place.numbers(*shape) for shape in ((place.batch, FEATURES), (width, FEATURES), (width,))
        )
        yield f"{width} outputs", partial(both_ways, F.linear, x, weight, bias)


def encoder(place: Place) -> Iterator[tuple[str, Callable[[], Form]]]:
    """The whole encoder: as it is, in kernels of our own, and through PyTorch's compiler."""
    images = place.pixels(place.batch, CHANNELS, SIDE, SIDE)
    plain = ConvEncoder((CHANNELS, SIDE, SIDE)).to(place.device)

    def form(network: Callable[[Tensor], Tensor]) -> Form:
        def function(*_: Tensor) -> Tensor:
            with place.precision():
                return network(images)

        return both_ways(function, *plain.parameters())

    def triton() -> Form:
        from convolutions import encode  # Triton comes with PyTorch for GPUs alone

        ours = partial(encode, plain, dtype=place.dtype)
        weights = dict(plain.named_parameters())
        with side_stream(place.device), place.precision():
            results = [network(images) for network in (ours, plain)]
            gradient = torch.randn_like(results[0])
            mine, theirs = ([y, *torch.autograd.grad(y, [*weights.values()], gradient)] for y in results)
        for name, one, other in zip(("features", *weights), mine, theirs, strict=True):
            apart = float((one - other).norm() / other.norm())
            if not apart < (0.05 if place.dtype == torch.bfloat16 else 1e-4):
                raise RuntimeError(f"{name} is {apart:.2%} apart")
        return form(ours)

    yield "eager", lambda: form(plain)
    yield "Triton", triton
    yield "compiled", lambda: form(torch.compile(plain))


PARTS = {
    part.__name__: part for part in (first_layer, second_layer, observations, casts, twins, trunk, encoder)
}


def side_stream(device: torch.device) -> torch.cuda.StreamContext:
    """Return a region on a stream of its own that sees all work so far; on a CPU, one that changes nothing."""
    if device.type == "cpu":
        return torch.cuda.stream(None)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    return torch.cuda.stream(stream)


def milliseconds(form: Form, repeats: int, device: torch.device) -> np.ndarray:
    """Time a form, on a GPU as a graph."""
    if device.type == "cuda":
        with side_stream(device):
            for _ in range(3):
                form()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            form()
        form = graph.replay
    else:
        form()
    # a launch and its wait take as long as the smallest forms do
    together = 20 if device.type == "cuda" else 1
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(together):
            form()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - started) * 1e3 / together)
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=", ".join(PARTS))
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    given = parser.parse_args()
    machine.prepare_process()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # as the learner's
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    print(f"{machine.describe(device)}; commit {machine.commit()}; batch {given.batch}, {given.precision}")
    for part in given.parts:
        first = None
        for name, make in PARTS[part](Place(device, dtype, given.batch)):
            try:
                times = milliseconds(make(), given.repeats, device)
            except Exception as error:  # noqa: BLE001  compilers have errors of their own
                cause = error.__context__ or error  # the end of a failed capture fails as well
                print(f"{part:13s} {name:22s} {(str(cause) or repr(cause)).splitlines()[0][:80]}", flush=True)
                continue
            first = first or float(np.median(times))
            ratio = np.median(times) / first
            print(f"{part:13s} {name:22s} {spread(times)}, {ratio:.2f} of the first", flush=True)


if __name__ == "__main__":
    main()
