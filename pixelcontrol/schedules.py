"""How a setting changes over training."""

from __future__ import annotations

from jaxtyping import Float32, Int64
from torch import Tensor


def linear_schedule(
    step: Int64[Tensor, ""], initial: float, final: float, duration: int
) -> Float32[Tensor, ""]:
    """Go from `initial` at step 0 to `final` at step `duration` in a straight line, then stay.

    The step is a tensor so that a captured CUDA graph follows it.

    Departure: the paper's Eq. 3 is printed backwards (it starts at the final value) and speaks of the variance;
    the official code, like this function, starts at the initial value and is linear in the standard deviation.
    """
    progress = (step / duration).clamp(0.0, 1.0)
    return initial + (final - initial) * progress
