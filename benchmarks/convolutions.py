"""A form of `forms.py`: the encoder as Triton kernels, with bias, ReLU and the mask of its gradient within them.

Images, features and gradients lie channels-last. Each kernel gathers a block of pixels once for each of a filter's
nine places, which the caches serve, and multiplies by the filters of that place.

Tried without a GPU: Triton's interpreter (TRITON_INTERPRET=1, in float32; it cannot multiply bf16) gives PyTorch's
features and gradients, and its compiler for an H200 uses tensor cores and spills no register.
"""

# Triton's functions are not Python's, which mypy cannot know.
# mypy: ignore-errors

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from pixelcontrol.networks import ConvEncoder

BLOCK = 128  # pixels at a time
STRETCHES = 264  # programs that share a layer's pixels when its filters' gradients are summed: two on each SM


@triton.jit
def _layer(
    x, filters, bias, y, pixels, height, width, rows, columns,
    inputs: tl.constexpr, outputs: tl.constexpr, stride: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Convolve, add the bias, cut below zero."""
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    exists = (pixel < pixels)[:, None]
    sample, row, column = pixel // (rows * columns), pixel // columns % rows, pixel % columns
    corner = (sample * height + row * stride) * width + column * stride
    i, o = tl.arange(0, inputs), tl.arange(0, outputs)
    total = tl.zeros((block, outputs), tl.float32)
    for tap in tl.static_range(9):
        seen = corner + tap // 3 * width + tap % 3
        values = tl.load(x + seen[:, None] * inputs + i[None, :], mask=exists, other=0.0)
        weights = tl.load(filters + (tap * inputs + i[:, None]) * outputs + o[None, :])
        total = tl.dot(values, weights, total, input_precision="ieee")
    total = tl.maximum(total + tl.load(bias + o)[None, :], 0.0)
    tl.store(y + pixel[:, None] * outputs + o[None, :], total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _gradient_of_inputs(
    gradient, filters, x, out, pixels, height, width, rows, columns,
    inputs: tl.constexpr, outputs: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Of a layer of stride 1, and through the ReLU that made its inputs."""
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    exists = (pixel < pixels)[:, None]
    sample, y_in, x_in = pixel // (height * width), pixel // width % height, pixel % width
    i, o = tl.arange(0, inputs), tl.arange(0, outputs)
    total = tl.zeros((block, inputs), tl.float32)
    for tap in tl.static_range(9):
        row, column = y_in - tap // 3, x_in - tap % 3
        inside = exists & ((row >= 0) & (row < rows) & (column >= 0) & (column < columns))[:, None]
        place = (sample * rows + row) * columns + column
        values = tl.load(gradient + place[:, None] * outputs + o[None, :], mask=inside, other=0.0)
        weights = tl.load(filters + (tap * inputs + i[None, :]) * outputs + o[:, None])
        total = tl.dot(values, weights, total, input_precision="ieee")
    at = pixel[:, None] * inputs + i[None, :]
    total = tl.where(tl.load(x + at, mask=exists, other=0.0) > 0.0, total, 0.0)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=exists)


@triton.jit
def _gradient_of_filters(
    x, gradient, out, out_bias, pixels, height, width, rows, columns, blocks,
    inputs: tl.constexpr, outputs: tl.constexpr, stride: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The part of one stretch of pixels, for the three places in one row of a filter."""
    stretch, tap_row = tl.program_id(0), tl.program_id(1)
    i, o = tl.arange(0, inputs), tl.arange(0, outputs)
    left = tl.zeros((inputs, outputs), tl.float32)
    middle = tl.zeros((inputs, outputs), tl.float32)
    right = tl.zeros((inputs, outputs), tl.float32)
    bias = tl.zeros((outputs,), tl.float32)
    for step in range(blocks):
        pixel = (stretch * blocks + step) * block + tl.arange(0, block)
        exists = pixel < pixels
        sample, row, column = pixel // (rows * columns), pixel // columns % rows, pixel % columns
        seen = (sample * height + row * stride + tap_row) * width + column * stride
        at = seen[None, :] * inputs + i[:, None]
        known = exists[None, :]
        wanted = tl.load(gradient + pixel[:, None] * outputs + o[None, :], mask=exists[:, None], other=0.0)
        left = tl.dot(tl.load(x + at, mask=known, other=0.0), wanted, left, input_precision="ieee")
        middle = tl.dot(
            tl.load(x + at + inputs, mask=known, other=0.0), wanted, middle, input_precision="ieee"
        )
        right = tl.dot(
            tl.load(x + at + 2 * inputs, mask=known, other=0.0), wanted, right, input_precision="ieee"
        )
        bias += tl.sum(wanted.to(tl.float32), axis=0)
    at = ((stretch * 9 + tap_row * 3) * inputs + i[:, None]) * outputs + o[None, :]
    tl.store(out + at, left)
    tl.store(out + at + inputs * outputs, middle)
    tl.store(out + at + 2 * inputs * outputs, right)
    if tap_row == 0:
        tl.store(out_bias + stretch * outputs + o, bias)


def _sizes(x: Tensor, y: Tensor) -> tuple[int, ...]:
    return (*x.shape[1:3], *y.shape[1:3])


class _Convolutions(torch.autograd.Function):
    """All layers; `x` is (batch, height, width, channels), filters are (9, inputs, outputs)."""

    @staticmethod
    def forward(ctx, x: Tensor, strides: tuple[int, ...], *weights: Tensor) -> Tensor:
        seen = [x]
        for stride, filters, bias in zip(strides, weights[::2], weights[1::2], strict=True):
            x = seen[-1]
            batch, height, width, inputs = x.shape
            outputs = filters.shape[2]
            y = x.new_empty(batch, (height - 3) // stride + 1, (width - 3) // stride + 1, outputs)
            pixels = y[..., 0].numel()
            _layer[(triton.cdiv(pixels, BLOCK),)](
                x, filters, bias, y, pixels, *_sizes(x, y), inputs, outputs, stride, BLOCK
            )
            seen.append(y)
        ctx.save_for_backward(*seen, *weights[::2])
        ctx.strides = strides
        return seen[-1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.strides)
        seen, filters = ctx.saved_tensors[: count + 1], ctx.saved_tensors[count + 1 :]
        gradient = torch.where(seen[-1] > 0, gradient, 0)
        found: list[Tensor] = []
        for layer in reversed(range(count)):
            x, weights = seen[layer], filters[layer]
            _, inputs, outputs = weights.shape
            pixels = gradient[..., 0].numel()
            blocks = triton.cdiv(pixels, BLOCK * STRETCHES)
            parts = x.new_empty(STRETCHES, 9, inputs, outputs, dtype=torch.float32)
            of_bias = x.new_empty(STRETCHES, outputs, dtype=torch.float32)
            sizes = _sizes(x, gradient)
            _gradient_of_filters[(STRETCHES, 3)](
                x,
                gradient,
                parts,
                of_bias,
                pixels,
                *sizes,
                blocks,
                inputs,
                outputs,
                ctx.strides[layer],
                BLOCK,
            )
            found = [parts.sum(0), of_bias.sum(0), *found]
            if layer:
                below = torch.empty_like(x)
                pixels = x[..., 0].numel()
                _gradient_of_inputs[(triton.cdiv(pixels, BLOCK),)](
                    gradient, weights, x, below, pixels, *sizes, inputs, outputs, BLOCK
                )
                gradient = below
        return None, None, *found


def encode(encoder: ConvEncoder, stack: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the features that `encoder` makes of uint8 (batch, channels, height, width) images, in `dtype`."""
    layers = [layer for layer in encoder.convolutions if isinstance(layer, torch.nn.Conv2d)]
    assert {layer.stride for layer in layers[1:]} == {(1, 1)}, (
        "gradients of inputs are those of stride 1 alone"
    )
    # as many channels as tensor cores want at least
    spare = max(0, 16 - stack.shape[1])
    pixels = F.pad(stack.permute(0, 2, 3, 1), (0, spare)).to(dtype) - 255.0 * encoder.pixel_offset
    weights = []
    for number, layer in enumerate(layers):
        filters = layer.weight if number else F.pad(layer.weight / 255.0, (0, 0, 0, 0, 0, spare))
        weights += [filters.permute(2, 3, 1, 0).flatten(0, 1).to(dtype).contiguous(), layer.bias]
    return _Convolutions.apply(pixels, tuple(layer.stride[0] for layer in layers), *weights).flatten(1)
