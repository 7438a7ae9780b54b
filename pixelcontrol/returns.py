"""Returns over several steps, as pure functions of arrays."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor


def n_step_return(
    reward: Float32[np.ndarray, "batch n"],
    discount: Float32[np.ndarray, "batch n"],
    same_episode: Bool[np.ndarray, "batch n"],
    gamma: float,
) -> tuple[Float32[np.ndarray, " batch"], Float32[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """Sum up to n discounted rewards, and stop early where the episode stops (paper, below Eq. 1).

    Column i describes the row i + 1 steps after the start. With rewards r1, r2, ... and environment discounts
    d1, d2, ... (0 only at a true end), the return is r1 + γ·d1·r2 + γ²·d1·d2·r3 + ..., over h <= n rows.

    Args:
        reward: reward of each row.
        discount: environment discount of each row, without γ.
        same_episode: False where a row starts another episode; that row and all after it are left out.
        gamma: γ, the agent's discount per agent step.

    Returns:
        The return; γ^h times the product of the discounts, by which the value of the next observation is to be
        multiplied; and h, the number of rows that were summed, which is where that observation is found.
    """
    inside = np.logical_and.accumulate(same_episode, axis=1)
    # discount of the value after i rows; rows outside of the episode leave it as it is
    through = np.where(inside, gamma * discount, 1.0).cumprod(axis=1)
    before = np.hstack([np.ones_like(through[:, :1]), through[:, :-1]])
    total = np.where(inside, before * reward, 0.0).sum(axis=1)
    return total, through[:, -1], inside.sum(axis=1)


def lambda_return(
    reward: Float32[Tensor, "steps batch"],
    value: Float32[Tensor, "states batch"],
    discount: Float32[Tensor, "steps batch"],
    lambda_: float,
) -> Float32[Tensor, "steps batch"]:
    """Mix the returns over all numbers of steps (arXiv:2010.02193, equation 4).

        R(t) = r(t) + γ(t) ((1 - λ) v(t+1) + λ R(t+1)),   and R = v at the last state

    Here r(t) is the reward of *arriving* in state t: a state's value includes it.

    Args:
        reward: of arriving in each state but the last.
        value: of each state; one state more than there are rewards.
        discount: γ of what comes after each of these states.
        lambda_: 0 trusts the next state's value, 1 the rewards up to the last state.
    """
    following = value[-1]
    returns = []
    for step in reversed(range(len(reward))):
        following = reward[step] + discount[step] * torch.lerp(value[step + 1], following, lambda_)
        returns.append(following)
    return torch.stack(returns[::-1])
