"""Statistics over seeds and tasks, in a few lines of NumPy each.

Two families, for two questions:

- One task, a handful of seeds: `mean_interval`, the mean with a 95 % confidence band, as the paper's figures
  have it. The paper does not say how its bands are computed; here they are Student's t.
- One agent over many tasks: interquartile mean, optimality gap, performance profile and probability of
  improvement, each with stratified bootstrap intervals, as defined by Agarwal et al., "Deep Reinforcement
  Learning at the Edge of the Statistical Precipice" (2021) and its library rliable. The one departure: tasks
  need not have equally many seeds, so scores are one array per task instead of a matrix. A task with more
  seeds then weighs more in what pools runs (the first three), not in the probability of improvement.

Throughout, `scores` is a sequence of float arrays, one per task with one entry per seed, normalised so that 1
is the highest return the task has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy.stats takes half a second to import

Scores = Sequence[np.ndarray]

THRESHOLDS = np.linspace(0, 1, 101)
"""The scores at which performance profiles are drawn."""

FEWEST_SEEDS = 3
"""Seeds that an interval needs: Student's of two is wider than what is possible, a bootstrap of two too narrow."""

DEAD_FRACTION = 0.1
"""A seed is dead when its final return is below this fraction of what the task is known to give."""


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds with its 95 % confidence interval, by Student's t.

    Args:
        values: (seeds, ...) float.

    Returns:
        mean, low, high: (...) float each; low and high are NaN for fewer than `FEWEST_SEEDS`.
    """
    mean = np.asarray(values.mean(axis=0))
    if len(values) < FEWEST_SEEDS:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = half_width(values.std(axis=0, ddof=1), len(values))
    return mean, np.asarray(mean - half), np.asarray(mean + half)


def half_width(std: np.ndarray | float, seeds: int) -> np.ndarray:
    """Half the width of a mean's 95 % interval, from the n - 1 standard deviation over `seeds` >= 2 seeds."""
    return np.asarray(stdtrit(seeds - 1, 0.975) * std / np.sqrt(seeds))


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all runs pooled over tasks: a quarter of the runs is cut at either end."""
    pooled = np.sort(np.concatenate(scores))
    cut = len(pooled) // 4
    return float(pooled[cut : len(pooled) - cut].mean())


def optimality_gap(scores: Scores) -> float:
    """Mean shortfall of all runs from a score of 1; what lies above 1 does not make up for what lies below."""
    return float(np.maximum(1.0 - np.concatenate(scores), 0.0).mean())


OVER_TASKS: dict[str, Callable[[Scores], float]] = {
    "interquartile mean": interquartile_mean,
    "optimality gap": optimality_gap,
}
"""What sums up an agent in one number, by the name under which it is shown."""


def performance_profile(scores: Scores, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """Fraction of all runs that score above each threshold: (len(thresholds),) float in [0, 1]."""
    return (np.concatenate(scores)[:, None] > thresholds).mean(axis=0)


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """How likely a random run of the first agent beats one of the second on a random task; a tie counts half.

    Args:
        scores: of the first agent.
        others: of the second agent, on the same tasks in the same order.
    """
    per_task = [
        np.mean((x[:, None] > y) + 0.5 * (x[:, None] == y)) for x, y in zip(scores, others, strict=True)
    ]
    return float(np.mean(per_task))


def bootstrap_interval(
    statistic: Callable[..., float | np.ndarray], *agents: Scores, repetitions: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of a statistic, by resampling the seeds of every task of every agent anew.

    Args:
        statistic: called with as many `Scores` as `agents` holds.
        agents: the scores of one agent, or of several that are compared.
        repetitions: number of resamplings.
        seed: of the resampling, so that a figure drawn twice is the same figure.

    Returns:
        low, high: of the shape of the statistic; NaN when some task has fewer than `FEWEST_SEEDS`.
    """
    if any(len(task) < FEWEST_SEEDS for scores in agents for task in scores):
        nan = np.full_like(statistic(*agents), np.nan, dtype=float)
        return nan, nan
    generator = np.random.default_rng(seed)
    samples = np.array(
        [
            statistic(*([generator.choice(task, len(task)) for task in scores] for scores in agents))
            for _ in range(repetitions)
        ]
    )
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    return np.asarray(low), np.asarray(high)


def estimate(statistic: Callable[..., Any], *agents: Scores) -> tuple[Any, np.ndarray, np.ndarray]:
    """The statistic itself, and the low and high end of its `bootstrap_interval`."""
    return statistic(*agents), *bootstrap_interval(statistic, *agents)


def dead_seeds(final_returns: np.ndarray, reference: float) -> int:
    """Number of seeds that never learned: a final return below a tenth of `reference`, or no number.

    Args:
        final_returns: (seeds,) float, each run's last evaluation.
        reference: the return that the task is known to give after as many frames, above 0 (see
            `summary.reference_return`).
    """
    return int((~(final_returns >= DEAD_FRACTION * reference)).sum())
