import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrol.returns import lambda_return, n_step_return


def one_return(rewards, discounts, same_episode, gamma):
    """Call `n_step_return` for a batch of one; returns plain numbers."""
    numbers = np.array([[rewards], [discounts]], dtype=np.float32)
    total, discount, horizon = n_step_return(*numbers, np.array([same_episode]), gamma)
    assert total.dtype == discount.dtype == np.float32
    return total.item(), discount.item(), horizon.item()


# γ = 1/2 and small numbers: every value below is worked out by hand and exact in binary.
@pytest.mark.parametrize(
    ("rewards", "discounts", "same_episode", "expected"),
    [
        # in mid-episode: 1 + 2/2 + 4/4, and V counts (1/2)^3
        pytest.param([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], [True, True, True], (3.0, 0.125, 3), id="full window"),
        # the last row of the window is a true end: all rewards count, V does not
        pytest.param([1.0, 2.0, 4.0], [1.0, 1.0, 0.0], [True, True, True], (3.0, 0.0, 3), id="ends at n"),
        # a true end after two rows: 1 + 2/2; what follows belongs to another episode
        pytest.param([1.0, 2.0, 64.0], [1.0, 0.0, 1.0], [True, True, False], (2.0, 0.0, 2), id="true end"),
        # a time limit (or a cut-off) after two rows: the same sum, and V counts (1/2)^2
        pytest.param([1.0, 2.0, 64.0], [1.0, 1.0, 1.0], [True, True, False], (2.0, 0.25, 2), id="time limit"),
        # the episode's last start: one row
        pytest.param([1.0, 64.0, 64.0], [1.0, 1.0, 1.0], [True, False, True], (1.0, 0.5, 1), id="last start"),
        pytest.param(
            [1.0, 64.0, 64.0], [0.0, 1.0, 1.0], [True, False, False], (1.0, 0.0, 1), id="last, true"
        ),
        # two episodes may begin within one window; the second one's rows stay outside too
        pytest.param([1.0, 64.0, 64.0], [1.0, 0.0, 0.0], [True, False, True], (1.0, 0.5, 1), id="short ones"),
        # a world's own discount of 1/2: 1 + (1/2)(1/2)2 + (1/4)(1/4)16, and V counts 1/64
        pytest.param([1.0, 2.0, 16.0], [0.5, 0.5, 0.5], [True, True, True], (2.5, 1 / 64, 3), id="soft"),
    ],
)
def test_worked_numbers(rewards, discounts, same_episode, expected):
    assert one_return(rewards, discounts, same_episode, 0.5) == expected


def test_one_step_return_is_the_reward():
    assert one_return([3.0], [1.0], [True], 0.75) == (3.0, 0.75, 1)
    assert one_return([3.0], [0.0], [True], 0.75) == (3.0, 0.0, 1)


def test_what_lies_outside_of_the_episode_is_never_touched():
    nan = float("nan")
    assert one_return([1.0, nan, nan], [1.0, nan, nan], [True, False, False], 0.5) == (1.0, 0.5, 1)


def slow_return(rewards, discounts, same_episode, gamma):
    """Walk through one window row by row."""
    total, weight, horizon = 0.0, 1.0, 0
    for reward, discount, same in zip(rewards, discounts, same_episode, strict=True):
        if not same:
            break
        total += weight * reward
        weight *= gamma * discount
        horizon += 1
    return total, weight, horizon


row = st.tuples(st.floats(-10, 10, width=32), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())


@given(
    windows=st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(row, min_size=n, max_size=n), min_size=1, max_size=5)
    ),
    gamma=st.floats(0.0, 1.0),
)
def test_equals_a_walk_row_by_row(windows, gamma):
    reward, discount, same_episode = (
        np.array([[step[i] for step in window] for window in windows], dtype=dtype)
        for i, dtype in enumerate((np.float32, np.float32, bool))
    )
    total, weight, horizon = n_step_return(reward, discount, same_episode, gamma)
    slow = [slow_return(*zip(*window, strict=True), gamma) for window in windows]
    assert horizon.tolist() == [h for _, _, h in slow]
    np.testing.assert_allclose(total, [t for t, _, _ in slow], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weight, [w for _, w, _ in slow], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- lambda_return


@pytest.mark.parametrize(
    ("lambda_", "expected"),
    [
        # the next state's value alone: 1 + 8/2, 2 + 16/2, 4 + 32/2
        pytest.param(0.0, [5.0, 10.0, 20.0], id="one step"),
        # all rewards, then the last value: 4 + 32/2 = 20, 2 + 20/2 = 12, 1 + 12/2 = 7
        pytest.param(1.0, [7.0, 12.0, 20.0], id="to the end"),
        # halves of both: 20; 2 + (16 + 20)/4 = 11; 1 + (8 + 11)/4 = 5.75
        pytest.param(0.5, [5.75, 11.0, 20.0], id="mixed"),
    ],
)
def test_lambda_return_by_hand(lambda_, expected):
    reward = torch.tensor([[1.0], [2.0], [4.0]])
    value = torch.tensor([[64.0], [8.0], [16.0], [32.0]])  # the first is of no use
    half = torch.full_like(reward, 0.5)
    assert lambda_return(reward, value, half, lambda_)[:, 0].tolist() == expected


def test_lambda_return_ends_where_the_discount_is_zero():
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.full((4, 1), 64.0)
    discount = torch.tensor([[0.5], [0.0], [0.5]])
    # nothing after the second state: 2; before it 1 + (64 + 2)/4
    assert lambda_return(reward, value, discount, 0.5)[:2, 0].tolist() == [17.5, 2.0]


def test_lambda_return_passes_gradients_to_rewards_and_values():
    reward = torch.ones(2, 1, requires_grad=True)
    value = torch.ones(3, 1, requires_grad=True)
    lambda_return(reward, value, torch.full((2, 1), 0.5), 0.5)[0].sum().backward()
    # R(0) = r0 + v1/4 + (r1 + v2/2)/4
    assert reward.grad.flatten().tolist() == [1.0, 0.25]
    assert value.grad.flatten().tolist() == [0.0, 0.25, 0.125]
