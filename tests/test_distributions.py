from math import erf, exp, log, pi, sqrt

import pytest
import torch

from pixelcontrol.distributions import (
    EDGE,
    gumbel_noise,
    noisy_action,
    straight_through_clamp,
    straight_through_one_hot,
    truncated_normal,
)


def test_clamp_keeps_actions_just_inside_of_the_bounds():
    action = torch.tensor([-7.0, -1.0, -0.25, 0.0, 0.75, 1.0, 9.0])
    clamped = straight_through_clamp(action)
    expected = torch.tensor([-1 + 1e-6, -1 + 1e-6, -0.25, 0.0, 0.75, 1 - 1e-6, 1 - 1e-6])
    torch.testing.assert_close(clamped, expected, rtol=0, atol=5e-7)
    assert (clamped.abs() < 1).all()
    assert EDGE == 1e-6


def test_gradient_passes_as_if_nothing_had_been_clamped():
    action = torch.tensor([-7.0, -0.25, 9.0], requires_grad=True)
    # d(a²)/da = 2a at the clamped value, times 1 for the clamp
    (straight_through_clamp(action) ** 2).sum().backward()
    torch.testing.assert_close(action.grad, torch.tensor([-2.0, -0.5, 2.0]), rtol=0, atol=1e-5)


def noise_around(mean, std, clip, seed=5):
    action = noisy_action(mean, torch.tensor(std), torch.Generator().manual_seed(seed), clip)
    drawn = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    return action, drawn


def test_noise_is_scaled_then_clipped_then_the_action_clamped():
    mean = torch.tensor([0.0, 0.5, -0.5, 0.99, -0.99, 0.0]).repeat(50, 1)
    action, drawn = noise_around(mean, 0.4, 0.3)
    for m, z, a in zip(
        mean.flatten().tolist(), drawn.flatten().tolist(), action.flatten().tolist(), strict=True
    ):
        noise = max(-0.3, min(0.3, 0.4 * z))
        assert abs(a - max(-1 + 1e-6, min(1 - 1e-6, m + noise))) < 5e-7
    # both bounds are met in this draw
    assert (0.4 * drawn).abs().max() > 0.3
    assert action.max() > 0.9999


def test_noise_is_unbounded_without_a_clip():
    mean = torch.zeros(1000, 2)
    action, drawn = noise_around(mean, 0.25, None)
    torch.testing.assert_close(action, (0.25 * drawn).clamp(-1 + 1e-6, 1 - 1e-6), rtol=0, atol=5e-7)
    assert action.abs().max() > 0.6


def test_the_mean_gets_a_gradient_of_one_whatever_was_clipped():
    mean = torch.tensor([[0.0, 0.999, -0.999, 0.3]]).repeat(20, 1).requires_grad_()
    action, _ = noise_around(mean, 2.0, 0.3)
    action.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))


def test_only_the_given_generator_advances():
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first = noisy_action(torch.zeros(2, 3), torch.tensor(1.0), generator)
    second = noisy_action(torch.zeros(2, 3), torch.tensor(1.0), generator)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------------------------------- truncated normal

# From where a policy can be: in the middle, at a limit, narrow, wide.
MEANS_AND_STDS = [(0.0, 0.5), (0.9, 0.1), (-1.0, 0.1), (1.0, 2.1), (0.3, 1.0)]


def below(x, mean, std):
    """Return the share of N(mean, std²) below x."""
    return 0.5 * (1 + erf((x - mean) / (std * sqrt(2))))


@pytest.mark.parametrize(("mean", "std"), MEANS_AND_STDS)
def test_truncated_normal_has_the_distribution_of_what_lies_within_the_limits(mean, std):
    uniform = (torch.arange(2000) + 0.5)[:, None] / 2000
    action, _ = truncated_normal(torch.full_like(uniform, mean), torch.full_like(uniform, std), uniform)
    assert action.abs().max() < 1
    low, high = below(-1, mean, std), below(1, mean, std)
    for u, a in zip(uniform[::50, 0].tolist(), action[::50, 0].tolist(), strict=True):
        assert (below(a, mean, std) - low) / (high - low) == pytest.approx(u, abs=2e-5)


@pytest.mark.parametrize(("mean", "std"), MEANS_AND_STDS)
def test_entropy_of_the_truncated_normal_is_its_integral(mean, std):
    def density(x):
        whole = below(1, mean, std) - below(-1, mean, std)
        return exp(-0.5 * ((x - mean) / std) ** 2) / (std * sqrt(2 * pi) * whole)

    cells = 20_000
    points = [-1 + (2 * k + 1) / cells for k in range(cells)]
    expected = -sum(density(x) * log(density(x)) for x in points if density(x) > 0) * 2 / cells
    two = torch.tensor([mean, mean]), torch.tensor([std, std])
    _, entropy = truncated_normal(*two, torch.tensor([0.2, 0.7]))
    assert entropy.item() == pytest.approx(2 * expected, abs=1e-4)  # summed over two equal controls


def test_truncated_normal_is_differentiable_through_the_draw():
    """Against central differences."""
    mean, std = torch.tensor([[-0.9, 0.1, 0.8]]), torch.tensor([[0.2, 0.7, 2.0]])
    uniform, weights, step = torch.tensor([[0.3, 0.5, 0.9]]), torch.tensor([[1.0, 2.0, 3.0]]), 5e-3

    def both(mean, std):
        action, entropy = truncated_normal(mean, std, uniform)
        return (weights * action).sum() + entropy.sum()

    leaves = mean.clone().requires_grad_(), std.clone().requires_grad_()
    gradients = torch.autograd.grad(both(*leaves), leaves)
    for control in range(3):
        shift = step * torch.eye(3)[control]
        by_mean = (both(mean + shift, std) - both(mean - shift, std)) / (2 * step)
        by_std = (both(mean, std + shift) - both(mean, std - shift)) / (2 * step)
        assert gradients[0][0, control].item() == pytest.approx(by_mean.item(), rel=1e-2)
        assert gradients[1][0, control].item() == pytest.approx(by_std.item(), rel=1e-2)


def test_truncated_normal_stays_finite_at_the_ends_of_the_draw():
    mean = torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.0, 0.0]).requires_grad_()
    std = torch.full((6,), 0.1).requires_grad_()
    action, entropy = truncated_normal(mean, std, torch.tensor([0.0, 1 - 2**-24] * 3))
    (action.sum() + entropy).backward()
    for values in (action, entropy, mean.grad, std.grad):
        assert values.isfinite().all()
    assert action.abs().max() <= 1 - EDGE / 2


# ---------------------------------------------------------------------------------------------- one-hot


def test_one_hot_draws_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 3.0, -2.0]).expand(40_000, 4)
    noise = gumbel_noise((40_000, 4), torch.Generator().manual_seed(1), torch.device("cpu"))
    drawn = straight_through_one_hot(logits, noise)
    assert torch.equal(drawn.round().sum(dim=1), torch.ones(40_000))
    torch.testing.assert_close(drawn.mean(dim=0), logits[0].softmax(dim=0), rtol=0, atol=0.01)


def test_without_noise_the_most_likely_class_is_taken():
    logits = torch.tensor([[0.1, 0.3, 0.2], [5.0, -1.0, 4.9]])
    drawn = straight_through_one_hot(logits, torch.zeros(2, 3))
    torch.testing.assert_close(drawn, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_the_gradient_of_a_draw_is_that_of_the_probabilities():
    logits = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    weights = torch.tensor([3.0, 1.0, -2.0])
    (straight_through_one_hot(logits, torch.tensor([[9.0, 0.0, 0.0]])) * weights).sum().backward()
    (expected,) = torch.autograd.grad((logits.softmax(dim=-1) * weights).sum(), logits)
    torch.testing.assert_close(logits.grad, expected)
