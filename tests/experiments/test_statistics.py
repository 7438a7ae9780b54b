"""Statistics against numbers worked out by hand, and against rliable 1.2.0 run once beside them.

rliable 1.2.0 (numpy 2.2.6, pandas 2.3.3) on the two matrices of `SCORES` and `OTHERS` below gave the same
figures to the last printed digit: interquartile means 0.49966666666666665 and 0.44766666666666666, optimality
gaps 0.40242666666666667 (of 1.2 times the first) and 0.54991666666666666, probability of improvement 0.55,
profile 1, 14/15, 9/15, 6/15, 3/15, 0. Its bootstrap interval of that probability (20,000 repetitions) was
0.3500 to 0.7504; ours 0.3500 to 0.7504.
"""

import numpy as np
import pytest

from pixelcontrol.experiments.statistics import (
    bootstrap_interval,
    dead_seeds,
    interquartile_mean,
    mean_interval,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

# One array per task: rliable's matrices are seeds x tasks, so these are their columns.
SCORES = [
    np.array([0.625, 0.225, 0.005, 0.468, 0.255]),
    np.array([0.897, 0.300, 0.821, 0.303, 0.445]),
    np.array([0.776, 0.874, 0.797, 0.278, 0.505]),
]
OTHERS = [
    np.array([0.498, 0.560, 0.144, 0.032]),
    np.array([0.896, 0.890, 0.551, 0.463]),
    np.array([0.713, 0.194, 0.040, 0.420]),
]


def test_mean_interval_by_hand():
    # std = 100 over 3 seeds; t(0.975, 2) = 4.302653 from a printed table; 4.302653 * 100 / sqrt(3) = 248.4138.
    mean, low, high = mean_interval(np.array([500.0, 600.0, 700.0]))
    assert mean == 600
    assert low == pytest.approx(600 - 248.4138, abs=1e-3)
    assert high == pytest.approx(600 + 248.4138, abs=1e-3)


def test_mean_interval_works_along_a_curve():
    mean, low, high = mean_interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5]
    assert high[0] - low[0] == pytest.approx(2 * 2.48414, abs=1e-4)  # t(0.975, 2) * 1 / sqrt(3)
    assert high[1] == low[1] == 5


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_or_two_have_a_mean_but_no_interval(seeds):
    mean, low, high = mean_interval(np.array([[7.0, 9.0]] * seeds))
    assert mean.tolist() == [7, 9]
    assert np.isnan([low, high]).all()


def test_interquartile_mean_by_hand():
    # Eight runs pooled: two are cut at either end, (3 + 4 + 5 + 6) / 4.
    assert interquartile_mean([np.array([8.0, 1, 3, 900]), np.array([4.0, 6, 5, -70])]) == 4.5


def test_interquartile_mean_agrees_with_rliable():
    assert interquartile_mean(SCORES) == pytest.approx(0.49966666666666665, abs=1e-15)
    assert interquartile_mean(OTHERS) == pytest.approx(0.44766666666666666, abs=1e-15)


def test_optimality_gap_by_hand_and_as_rliable():
    assert optimality_gap([np.array([0.5, 2.0]), np.array([1.0, 0.7])]) == pytest.approx(0.2)
    assert optimality_gap([1.2 * task for task in SCORES]) == pytest.approx(0.40242666666666667)
    assert optimality_gap(OTHERS) == pytest.approx(0.54991666666666666)


def test_performance_profile_counts_strictly_above():
    assert performance_profile(
        [np.array([0.0, 0.5]), np.array([1.0])], np.array([-1, 0, 0.5, 1])
    ).tolist() == [
        1,
        2 / 3,
        1 / 3,
        0,
    ]
    expected = np.array([15, 14, 9, 6, 3, 0]) / 15
    np.testing.assert_allclose(performance_profile(SCORES, np.linspace(0, 1, 6)), expected)


def test_probability_of_improvement_by_hand():
    # Task 1: 2 wins and a tie of 4 pairs, 2.5 / 4. Task 2: 1 of 2. Their mean: 0.5625.
    first = [np.array([1.0, 3.0]), np.array([5.0])]
    second = [np.array([1.0, 2.0]), np.array([4.0, 6.0])]
    assert probability_of_improvement(first, second) == 0.5625
    assert probability_of_improvement(second, first) == pytest.approx(1 - 0.5625)
    assert probability_of_improvement(SCORES, OTHERS) == pytest.approx(0.55)


def test_probability_of_improvement_refuses_different_numbers_of_tasks():
    with pytest.raises(ValueError, match="zip"):
        probability_of_improvement(SCORES, OTHERS[:2])


def test_bootstrap_interval_agrees_with_rliable():
    low, high = bootstrap_interval(probability_of_improvement, SCORES, OTHERS)
    assert low == pytest.approx(0.3500, abs=0.02)
    assert high == pytest.approx(0.7504, abs=0.02)


def test_bootstrap_interval_resamples_within_each_task():
    # Tasks far apart, no spread inside: mixing tasks would widen the interval, staying inside cannot.
    apart = [np.zeros(4), np.ones(4)]
    assert bootstrap_interval(interquartile_mean, apart, repetitions=50) == (0.5, 0.5)


def test_bootstrap_interval_is_repeatable():
    assert bootstrap_interval(interquartile_mean, SCORES) == bootstrap_interval(interquartile_mean, SCORES)


def test_bootstrap_of_a_profile_has_the_shape_of_the_profile():
    thresholds = np.linspace(0, 1, 6)
    low, high = bootstrap_interval(lambda scores: performance_profile(scores, thresholds), SCORES)
    assert low.shape == high.shape == (6,)
    assert (low <= high).all()


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_or_two_give_no_bootstrap_interval(seeds):
    low, high = bootstrap_interval(interquartile_mean, [SCORES[0], np.full(seeds, 0.5)])
    assert np.isnan([low, high]).all()


def test_dead_seeds_are_below_a_tenth():
    assert dead_seeds(np.array([24.0, 29.0, 77.0, 910.0]), reference=770.0) == 2
    assert dead_seeds(np.array([np.nan, 910.0]), reference=770.0) == 1
